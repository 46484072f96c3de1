//! What has to be true when a run has come to its end.

use super::attempt::Input;
use super::member::Image;
use super::roles::key_of;
use super::storage::{Disk, Outside, Registry, images};
use std::collections::{BTreeMap, BTreeSet};
use tidegate_engine::checkpoint::SubtaskRef;

/// Holds what the outside shows against the input and the last checkpoint.
pub fn check(input: Input, cut: bool, registry: &Registry, disk: &Disk, outside: &Outside) {
    for name in &registry.covered {
        assert!(
            outside.is_committed(*name),
            "I8: a recorded epoch is never committed"
        );
    }
    for record in &registry.records {
        images(record, disk); // all that is kept, savepoints too, is whole
    }
    let newest = registry.newest().expect("the last checkpoint is recorded");
    let last = images(newest, disk);
    let read = positions(input, cut, &last);
    let mut seen = BTreeSet::new();
    let mut counts = BTreeMap::new();
    let mut heads = BTreeMap::new();
    for record in outside.visible() {
        let (split, seq, key) = (record.split, record.seq, record.key);
        assert!(
            seen.insert((split, seq)),
            "I2: record {split}/{seq} is there twice"
        );
        let count: &mut u64 = counts.entry(key).or_default();
        *count += 1;
        assert_eq!(
            record.count, *count,
            "I3, I4: key {key} at record {split}/{seq}"
        );
        let before = heads.insert((split, key), seq);
        assert!(
            before < Some(seq),
            "I4: record {split}/{seq} came after {before:?}"
        );
    }
    let mut model = BTreeMap::new();
    for (split, end) in &read {
        for seq in 0..*end {
            assert!(
                seen.contains(&(*split, seq)),
                "I1: record {split}/{seq} is lost"
            );
            *model.entry(key_of(*split, seq, input.keys)).or_insert(0u64) += 1;
        }
    }
    let total: u64 = read.values().sum();
    assert_eq!(seen.len() as u64, total, "more is visible than was read");
    assert_eq!(model, counts, "I3: what was counted");
    let state = last
        .iter()
        .flat_map(|(_, image)| image.counts.iter().copied());
    let all: Vec<(u32, u64)> = state.collect();
    let state: BTreeMap<u32, u64> = all.iter().copied().collect();
    assert_eq!(all.len(), state.len(), "I3: a key has two owners");
    assert_eq!(model, state, "I3: the state");
}

fn positions(input: Input, cut: bool, last: &[(SubtaskRef, Image)]) -> BTreeMap<u32, u64> {
    let saved = last.iter().flat_map(|(_, image)| image.positions.iter());
    let read: BTreeMap<u32, u64> = saved.copied().collect();
    assert_eq!(
        read.len(),
        input.splits as usize,
        "every split has its position"
    );
    for (split, position) in &read {
        assert!(
            cut || *position == input.length,
            "I1: split {split} ends at {position}"
        );
    }
    read
}
