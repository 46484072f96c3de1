//! What an attempt does before anything else: takes the output over from all earlier attempts, sends what the
//! checkpoint covers and they didn't, and writes down that every slot is its own now.
//!
//! The order is the proof. All slots that ever were are fenced first; then the markers are read, which no
//! one but this attempt can change any more; then each slot's missing output and its new marker go out in one
//! transaction.

use super::committable::{Committable, Owner, Segments};
use super::committer::{point, taken_over};
use super::protocol::{Broker, Instance, Marker, Markers, Trouble};
use std::collections::BTreeMap;
use tidegate_engine::fault::{Fault, Flow};

/// What an attempt begins with.
pub(crate) struct Takeover {
    /// The new owner.
    pub(crate) owner: Owner,
    /// Its subtasks.
    pub(crate) parallelism: u32,
    /// The checkpoint that it goes on from; `None` where it begins from scratch.
    pub(crate) restored: Option<u64>,
    /// Whether it may send again what a later checkpoint had covered.
    pub(crate) allow_reemit: bool,
    /// What that checkpoint covers, by slot, in order.
    committables: BTreeMap<u32, Vec<Committable>>,
}

impl Takeover {
    pub(crate) fn new(
        owner: Owner,
        parallelism: u32,
        restored: Option<u64>,
        committables: Vec<Committable>,
    ) -> Self {
        let mut by_slot: BTreeMap<u32, Vec<Committable>> = BTreeMap::new();
        for committable in committables {
            by_slot
                .entry(committable.slot)
                .or_default()
                .push(committable);
        }
        for slot in by_slot.values_mut() {
            slot.sort_by_key(|committable| committable.checkpoint);
        }
        Takeover {
            owner,
            parallelism,
            restored,
            allow_reemit: false,
            committables: by_slot,
        }
    }

    pub(crate) fn allow_reemit(mut self, allow: bool) -> Self {
        self.allow_reemit = allow;
        self
    }

    /// Takes over, with what the checkpoint holds of segments.
    pub(crate) fn run<B: Broker>(&self, broker: &B, segments: &dyn Segments) -> Flow {
        let (mut slots, known) = self.retried(broker, || broker.glance())?;
        slots.extend(self.committables.keys());
        slots.extend(0..self.parallelism);
        let mut fenced = BTreeMap::new();
        for slot in slots {
            fenced.insert(slot, self.retried(broker, || broker.fence(slot))?);
        }
        self.at("takeover_fenced")?;
        let before = self.retried(broker, || broker.markers())?;
        let changed =
            |slot: &u32, now: &Marker| known.get(slot).is_none_or(|old| old.owner != now.owner);
        if before.iter().any(|(slot, now)| changed(slot, now)) {
            return Err(overtaken());
        }
        self.check(&before)?;
        for (slot, instance) in fenced {
            self.take((broker, segments), slot, instance, before.get(&slot))?;
            self.at("between_takeovers")?;
        }
        Ok(())
    }

    /// Repeats what has no effect that could be doubled.
    fn retried<B: Broker, R>(&self, broker: &B, step: impl Fn() -> Result<R, Trouble>) -> Flow<R> {
        let mut tries = 0;
        loop {
            match step() {
                Ok(done) => return Ok(done),
                Err(Trouble::Fatal(fault)) => return Err(fault),
                Err(Trouble::Unsure(why)) if !broker.pause(tries) => return Err(given_up(&why)),
                Err(Trouble::Unsure(why)) => tracing::warn!("tries again: {why}"),
            }
            tries += 1;
        }
    }

    fn at(&self, place: &str) -> Flow {
        match point(place) {
            Err(Trouble::Fatal(fault)) => Err(fault),
            Err(Trouble::Unsure(_)) | Ok(()) => Ok(()),
        }
    }

    /// Whether what the checkpoint covers fits what was committed.
    fn check(&self, markers: &Markers) -> Flow {
        if self.allow_reemit {
            return Ok(());
        }
        let newest = markers.values().map(|marker| marker.checkpoint).max();
        let Some(restored) = self.restored else {
            let newest = newest.filter(|newest| *newest > 0);
            return newest.map_or(Ok(()), |newest| Err(forgotten(newest)));
        };
        if let Some(newest) = newest.filter(|newest| *newest > restored) {
            return Err(older(restored, newest));
        }
        for (slot, committables) in &self.committables {
            let Some(marker) = markers.get(slot) else {
                return Err(gone(*slot));
            };
            let open = committables
                .iter()
                .find(|c| c.checkpoint > marker.checkpoint);
            if open.is_some_and(|open| !marker.goes_on_with(open.owner)) {
                return Err(strange(restored));
            }
        }
        Ok(())
    }

    /// Sends what is missing in a slot, with its new marker.
    fn take<B: Broker>(
        &self,
        (broker, segments): (&B, &dyn Segments),
        slot: u32,
        instance: B::Instance,
        before: Option<&Marker>,
    ) -> Flow {
        let mut instance = Some(instance);
        let mut tries = 0;
        loop {
            let instance = instance.take();
            let why = match self.transact((broker, segments), slot, instance, before) {
                Ok(()) => return Ok(()),
                Err(Trouble::Fatal(fault)) => return Err(fault),
                Err(Trouble::Unsure(why)) => why,
            };
            tracing::warn!(slot, "looks whether it was taken over: {why}");
            if !broker.pause(tries) {
                return Err(given_up(&why));
            }
            tries += 1;
        }
    }

    /// Whether what an older run has committed meanwhile may be passed over.
    fn check_again(&self, slot: u32, before: Option<&Marker>, now: Option<&Marker>) -> Flow {
        let owner = |marker: &Marker| marker.owner;
        if now.map(owner) != before.map(owner) {
            return Err(taken_over(slot));
        }
        if now != before && !self.allow_reemit {
            return Err(overtaken());
        }
        Ok(())
    }

    fn transact<B: Broker>(
        &self,
        (broker, segments): (&B, &dyn Segments),
        slot: u32,
        instance: Option<B::Instance>,
        before: Option<&Marker>,
    ) -> Result<(), Trouble> {
        let mut now = before.cloned();
        let mut instance = match instance {
            Some(instance) => instance,
            None => {
                // What became of the last try is unknown.
                let instance = broker.fence(slot)?;
                now = broker.markers()?.remove(&slot);
                if now.as_ref().is_some_and(|now| now.owner == self.owner) {
                    return Ok(());
                }
                self.check_again(slot, before, now.as_ref())?;
                instance
            }
        };
        let before = now.as_ref();
        let done = before.map_or(0, |marker| marker.checkpoint);
        instance.begin()?;
        point("takeover_begun")?;
        let all = self.committables.get(&slot).into_iter().flatten();
        for committable in all.filter(|c| c.checkpoint > done) {
            committable.for_each(segments, |records| {
                instance.produce(records)?;
                point("takeover_part")
            })?;
        }
        let checkpoint = self.restored.unwrap_or(0);
        instance.mark(&match before {
            Some(before) if self.restored.is_some() || before.checkpoint == 0 => {
                Marker::take_over(checkpoint, self.owner, before)
            }
            _ => Marker::new(checkpoint, self.owner),
        })?;
        point("takeover_produced")?;
        instance.commit()
    }
}

/// There may be a newer checkpoint than the one that this attempt has read: a restart is what helps.
#[cold]
fn overtaken() -> Fault {
    Fault::external(
        "another run of this job wrote its output to Kafka while this one took that over",
    )
}

#[cold]
fn given_up(why: &str) -> Fault {
    Fault::external(format_args!(
        "the output to Kafka can't be taken over from the attempt before: {why}"
    ))
}

#[cold]
fn older(restored: u64, newest: u64) -> Fault {
    Fault::user(format_args!(
        "the job goes on from checkpoint {restored}, and its output up to checkpoint {newest} is in Kafka \
         already: what lies between would be there twice. Restore the newest checkpoint, or allow it with \
         .allow_reemit(true)"
    ))
}

#[cold]
fn forgotten(newest: u64) -> Fault {
    Fault::user(format_args!(
        "the job begins from scratch, and its output up to checkpoint {newest} is in Kafka already: all of it would \
         be there twice. Restore the newest checkpoint, give another job another transactional id prefix, or allow \
         it with .allow_reemit(true)"
    ))
}

#[cold]
fn gone(slot: u32) -> Fault {
    Fault::user(format_args!(
        "the checkpoint holds output for Kafka, and the progress topic knows nothing of subtask {slot}: \
         whether that output was committed can't be told. Was the topic deleted, or is this another \
         cluster or another transactional id? Send it (again) with .allow_reemit(true)"
    ))
}

#[cold]
fn strange(restored: u64) -> Fault {
    Fault::user(format_args!(
        "checkpoint {restored} was taken by a run of the job that another run has taken over from since: \
         its output may be in Kafka already. Restore a checkpoint of the later run, or allow it with \
         .allow_reemit(true)"
    ))
}
