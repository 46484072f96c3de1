//! What `tidegate checkpoint inspect` shows: read from the metadata alone, however large the state.

use crate::table::{Table, bytes};
use std::collections::BTreeMap;
use tidegate::engine::checkpoint::index::{DataIndex, OperatorIndex, StateIndex};
use tidegate::engine::checkpoint::shape::paths_only;
use tidegate::engine::checkpoint::{BarrierKind, CheckpointMetadata, StateKind};
use tidegate::engine::source::SPLITS;
use tidegate::engine::time::Timestamp;

/// The whole text.
pub fn render(place: &str, metadata: &CheckpointMetadata) -> String {
    let mut text = head(place, metadata);
    let tables = [
        operators(metadata),
        states(metadata),
        positions(metadata),
        subtasks(metadata),
    ];
    for table in tables.into_iter().filter(|table| !table.is_empty()) {
        text.push('\n');
        text.push_str(&table.render());
    }
    text
}

fn head(place: &str, metadata: &CheckpointMetadata) -> String {
    let files = metadata.subtasks.len() + metadata.shared.len();
    let lines = [
        ("folder", place.to_owned()),
        ("job", metadata.job.clone()),
        (
            "checkpoint",
            format!("{} ({})", metadata.id, kind_name(metadata.kind)),
        ),
        ("created", metadata.created.to_string()),
        ("attempt", metadata.attempt.to_string()),
        (
            "written by",
            format!(
                "tidegate {}, format {}",
                metadata.tidegate_version, metadata.format_version
            ),
        ),
        ("graph", metadata.graph_hash.clone()),
        ("key hash", format!("version {}", metadata.key_hash_version)),
        (
            "files",
            format!(
                "{files} ({} shared), {}",
                metadata.shared.len(),
                bytes(metadata.bytes())
            ),
        ),
    ];
    let line = |(name, value): (&str, String)| {
        format!("{name:<12}{}\n", value.replace(char::is_control, "?"))
    };
    lines.into_iter().map(line).collect()
}

fn all_operators(metadata: &CheckpointMetadata) -> impl Iterator<Item = &OperatorIndex> {
    metadata.subtasks.iter().flat_map(|s| &s.index.operators)
}

fn operators(metadata: &CheckpointMetadata) -> Table {
    let mut table = Table::new(&[
        "operator",
        "name",
        ">parallelism",
        ">key groups",
        ">bytes",
        "watermark",
    ]);
    let mut by_uid: BTreeMap<&str, Vec<&OperatorIndex>> = BTreeMap::new();
    for operator in all_operators(metadata) {
        by_uid.entry(&operator.uid).or_default().push(operator);
    }
    for (uid, parts) in by_uid {
        let states = parts.iter().flat_map(|part| &part.states);
        let least = parts.iter().map(|part| part.watermark).min();
        table.row([
            uid.to_owned(),
            parts[0].name.clone(),
            parts[0].parallelism.to_string(),
            parts[0].max_parallelism.to_string(),
            bytes(states.map(|state| state.data.bytes()).sum()),
            least.map_or_else(String::new, seen),
        ]);
    }
    table
}

/// The watermark that an operator had seen, in words where it is no moment.
fn seen(watermark: Timestamp) -> String {
    match watermark {
        Timestamp::MIN => "none".to_owned(),
        Timestamp::MAX => "end of input".to_owned(),
        at => at.to_string(),
    }
}

fn states(metadata: &CheckpointMetadata) -> Table {
    let mut table = Table::new(&[
        "operator",
        "state",
        "kind",
        "key",
        "value",
        ">entries",
        ">bytes",
        ">groups",
        "largest group",
    ]);
    let mut by_name: BTreeMap<(&str, &str), Vec<&StateIndex>> = BTreeMap::new();
    for operator in all_operators(metadata) {
        for state in &operator.states {
            let parts = by_name.entry((&operator.uid, &state.name)).or_default();
            parts.push(state);
        }
    }
    for ((uid, name), parts) in by_name {
        let (groups, largest) = groups(&parts);
        table.row([
            uid.to_owned(),
            name.to_owned(),
            kind(parts[0].kind).to_owned(),
            paths_only(&parts[0].key_type),
            paths_only(&parts[0].value_type),
            sum(&parts, DataIndex::entries).to_string(),
            bytes(sum(&parts, DataIndex::bytes)),
            groups,
            largest,
        ]);
    }
    table
}

fn sum(parts: &[&StateIndex], of: impl Fn(&DataIndex) -> u64) -> u64 {
    parts.iter().map(|part| of(&part.data)).sum()
}

/// How many key groups hold something, and which holds most.
fn groups(parts: &[&StateIndex]) -> (String, String) {
    let all = parts.iter().filter_map(|part| match &part.data {
        DataIndex::Groups(groups) => Some(groups),
        _ => None,
    });
    let all: Vec<_> = all.flatten().collect();
    let Some(largest) = all.iter().max_by_key(|group| group.section.length) else {
        let files: usize = parts.iter().map(|part| part.data.shared().len()).sum();
        let text = match files {
            0 => String::new(),
            1 => "in 1 shared file".to_owned(),
            files => format!("in {files} shared files"),
        };
        let formats = parts.iter().find_map(|part| match &part.data {
            DataIndex::Files { index, .. } => Some(index.format.as_str()),
            _ => None,
        });
        let text = match formats {
            Some(format) => format!("{text} ({format})"),
            None => text,
        };
        return (String::new(), text);
    };
    let text = format!("{}: {}", largest.group, bytes(largest.section.length));
    (all.len().to_string(), text)
}

/// The name of a kind of checkpoint.
pub fn kind_name(kind: BarrierKind) -> &'static str {
    match kind {
        BarrierKind::Checkpoint => "checkpoint",
        BarrierKind::Savepoint => "savepoint",
        BarrierKind::Stop => "savepoint (stop)",
    }
}

fn kind(kind: StateKind) -> &'static str {
    match kind {
        StateKind::Keyed => "keyed",
        StateKind::List => "list",
        StateKind::Union => "union",
        StateKind::Broadcast => "broadcast",
    }
}

fn is_splits(state: &StateIndex) -> bool {
    (state.name.as_str(), state.kind) == (SPLITS, StateKind::List)
}

/// How far sources had read.
fn positions(metadata: &CheckpointMetadata) -> Table {
    let mut table = Table::new(&["source", ">subtask", "position"]);
    for subtask in &metadata.subtasks {
        let operators = &subtask.index.operators;
        let of_splits = |o: &&OperatorIndex| o.states.iter().any(is_splits);
        let source = operators.iter().find(of_splits);
        for position in &subtask.positions {
            table.row([
                source.map_or_else(String::new, |source| source.uid.clone()),
                subtask.index.subtask.to_string(),
                position.clone(),
            ]);
        }
    }
    table
}

fn subtasks(metadata: &CheckpointMetadata) -> Table {
    let mut table = Table::new(&[
        ">task",
        ">subtask",
        ">bytes",
        ">start delay",
        ">alignment",
        ">pause",
        ">save",
        "file",
    ]);
    for subtask in &metadata.subtasks {
        let timing = &subtask.index.timing;
        table.row([
            subtask.index.task.to_string(),
            subtask.index.subtask.to_string(),
            bytes(subtask.file.length),
            format!("{} ms", timing.start_delay),
            format!("{} ms", timing.alignment),
            format!("{} us", timing.sync_micros),
            format!("{} ms", timing.save),
            subtask.file.path.clone(),
        ]);
    }
    table
}
