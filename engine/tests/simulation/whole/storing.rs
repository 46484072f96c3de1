//! What becomes of images and metadata on the disk of a whole job: written, declined, unknown, torn.

use super::world::{Last, World};
use tidegate_engine::checkpoint::storage::read_metadata;
use tidegate_engine::checkpoint::{
    self, BarrierKind, CheckpointMetadata, Event, Outcome, Phase, Publication, Stopped,
    SubtaskFile, SubtaskImage, SubtaskRef, Which,
};

impl World {
    /// What the process was writing, or what was not synced, may be torn: of what no metadata names, anything.
    pub(super) fn tear(&mut self) {
        for path in self.storage.paths() {
            let Some((folder, _)) = path.split_once('/') else {
                continue;
            };
            let published = read_metadata(&self.storage, folder).is_ok();
            if !published && self.happens(2) {
                self.storage
                    .damage(&path, |bytes| bytes.truncate(bytes.len() / 2));
                self.count("torn files");
            }
        }
    }

    /// Writes an image, or a checkpoint's metadata, or looks for it.
    pub(super) fn store(&mut self, choice: usize) {
        let Some(attempt) = &mut self.attempt else {
            return;
        };
        if choice < attempt.uploads.len() {
            let image = attempt.uploads.swap_remove(choice);
            return self.upload(&image);
        }
        if let Some(publication) = attempt.publishing.take() {
            return self.publish(publication);
        }
        let Some(id) = attempt.resolving.take() else {
            return;
        };
        let found = read_metadata(&self.storage, &attempt.folders[&id]).is_ok();
        let outcome = match found {
            _ if self.happens(4) => Outcome::Unknown,
            true => Outcome::Published,
            false => Outcome::Failed("it is not there".to_owned()),
        };
        self.tell(Event::MetadataPublished { id, outcome });
    }

    fn upload(&mut self, image: &SubtaskImage) {
        let fails = self.happens(60);
        let (id, timing) = (image.barrier.id, image.timing);
        if timing.persisted > 0 {
            self.count("images with records in flight");
        }
        let Some(attempt) = &mut self.attempt else {
            return;
        };
        let (task, number) = (image.task, image.subtask);
        let subtask = SubtaskRef {
            task,
            subtask: number,
        };
        let event = if fails {
            Event::SnapshotDeclined {
                id,
                subtask,
                reason: "no space left".to_owned(),
                phase: Phase::Async,
            }
        } else {
            let folder = &attempt.folders[&id];
            let file = checkpoint::write_image_to(&self.storage, folder, image);
            let file = file.expect("it can be written");
            let bytes = file.file.length;
            Event::SnapshotDone {
                id,
                subtask,
                file,
                bytes,
                timing,
            }
        };
        attempt.told.entry(subtask).or_default().push_back(event);
    }

    fn publish(&mut self, publication: Publication<SubtaskFile>) {
        let (id, kind) = (publication.id, publication.kind);
        if self.happens(30) {
            self.count("unknown outcomes");
            return self.tell(Event::MetadataPublished {
                id,
                outcome: Outcome::Unknown,
            });
        }
        let Some(attempt) = &self.attempt else {
            return;
        };
        let drain = publication
            .request
            .is_some_and(|r| self.drains.contains(&r));
        let last = match kind {
            _ if !publication.last => None,
            BarrierKind::Checkpoint => Some(Last::EndOfInput),
            _ if drain => Some(Last::Drain),
            _ => Some(Last::Stop),
        };
        let mut metadata = CheckpointMetadata::new(id, kind, "whole");
        metadata.subtasks = publication
            .files
            .into_iter()
            .map(|(_, file)| file)
            .collect();
        let folder = attempt.folders[&id].clone();
        checkpoint::publish_to(&self.storage, &folder, &metadata).expect("it can be written");
        if kind == BarrierKind::Stop {
            let stopped = Stopped::new(&self.storage, id, (&self.storage, &folder));
            stopped.record(&self.storage).expect("it can be written");
        }
        let newest = self.newest.map(|(id, _)| id);
        assert!(newest < Some(id), "I6: {id} is complete after {newest:?}");
        if publication.recovery_point {
            self.newest = Some((id, last));
            let loaded = checkpoint::load(&self.storage, Which::Folder(&folder));
            self.cover(&loaded.expect("it is whole").job, &attempt.sinks);
        }
        self.count("checkpoints of whole jobs");
        let mut outcome = Outcome::Published;
        if self.happens(30) {
            self.count("unknown outcomes");
            outcome = Outcome::Unknown;
        }
        self.tell(Event::MetadataPublished { id, outcome });
    }
}
