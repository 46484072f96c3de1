//! Timers in a memory that is too small for them, against an ordered set, and while they are saved.

use super::*;
use crate::checkpoint::{FilesImage, StateData};
use crate::state::backing::Spill;
use crate::state::backing::StateMemory;
use crate::testing::MemorySpill;
use proptest::prelude::*;
use std::collections::BTreeSet;

const GROUPS: u32 = 8;

type Model = BTreeSet<(i64, u16)>;

fn queue(limit: u64, shares_files: bool) -> TimerQueue<u16> {
    let spill = MemorySpill::new(0).sharing_files(shares_files);
    let mut queue = TimerQueue::default();
    let mut open = || {
        Ok((
            GROUPS,
            spill.open("", "", GROUPS)?,
            StateMemory::new(limit).claim(),
        ))
    };
    queue.spill(&mut open).expect("opens");
    queue
}

fn drain(timers: &mut TimerQueue<u16>, until: i64) -> Vec<(i64, u16)> {
    let pop = || timers.pop_due(Timestamp(until)).expect("pops");
    let due: Vec<_> = std::iter::from_fn(pop).collect();
    assert!(due.iter().all(|timer| timer.hash == key_hash(&timer.key)));
    due.iter().map(|timer| (timer.at.0, timer.key)).collect()
}

/// What was saved, loaded by others.
fn loaded(section: KeyedSection) -> [TimerQueue<u16>; 2] {
    let mut data = section.into_data();
    if let StateData::Streamed(streamed) = &data {
        data = StateData::Groups(streamed.gather().expect("reads"));
    }
    let shares_files = matches!(data, StateData::Files(_));
    let (mut small, mut memory) = (queue(100, shares_files), TimerQueue::default());
    match &data {
        StateData::Groups(groups) => {
            for group in groups {
                for timers in [&mut small, &mut memory] {
                    let bytes = group.bytes.joined();
                    let mut entries = Entries::new(&bytes);
                    timers.load(&mut entries).expect("loads");
                }
            }
        }
        StateData::Files(files) => {
            // A half each, so that what is of others is left out.
            let half = |files: &FilesImage, groups| {
                let mut half = queue(100, true);
                let files = RestoredFiles {
                    images: vec![files],
                    groups,
                    origin: None,
                };
                half.load_files(&files).expect("loads");
                half
            };
            (small, memory) = (half(files, 0..GROUPS / 2), half(files, GROUPS / 2..GROUPS));
        }
        other => unreachable!("{other:?} is not what timers save"),
    }
    [small, memory]
}

fn check_saved(section: KeyedSection, expected: &Model, shares_files: bool) {
    let [mut a, mut b] = loaded(section);
    let (a, b) = (drain(&mut a, i64::MAX), drain(&mut b, i64::MAX));
    let sorted = |timers: &[(i64, u16)]| timers.iter().copied().collect::<Model>();
    if shares_files {
        assert_eq!(a.len() + b.len(), expected.len());
        assert_eq!(&(&sorted(&a) | &sorted(&b)), expected);
    } else {
        assert_eq!((a.len(), b.len()), (expected.len(), expected.len()));
        assert_eq!((&sorted(&a), &sorted(&b)), (expected, expected));
    }
}

#[derive(Clone, Debug)]
enum Op {
    Register(i64, u16),
    Delete(i64, u16),
    Pop(i64),
    Turn,
    Freeze,
    Save(usize),
    Thaw,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let at = prop_oneof![6 => 0i64..60, 3 => Just(30i64), 1 => Just(i64::MAX)];
    let timer = (at, 0u16..40);
    let op = prop_oneof![
        40 => timer.clone().prop_map(|(at, key)| Op::Register(at, key)),
        15 => timer.prop_map(|(at, key)| Op::Delete(at, key)),
        8 => (0i64..70).prop_map(Op::Pop),
        25 => Just(Op::Turn),
        4 => Just(Op::Freeze),
        20 => (0usize..20).prop_map(Op::Save),
        1 => Just(Op::Thaw),
    ];
    prop::collection::vec(op, 0..500)
}

proptest! {
    #[test]
    fn behaves_like_an_ordered_set_however_little_memory_it_has(
        ops in ops(), limit in 0u64..4000, shares_files: bool, streams: bool,
    ) {
        let (mut timers, mut model) = (queue(limit, shares_files), Model::new());
        let mut snapshot: Option<(Model, KeyedSection)> = None;
        for op in ops.iter().chain([&Op::Save(usize::MAX)]) {
            match *op {
                Op::Register(at, key) => {
                    let set = timers.register(Timestamp(at), key_hash(&key), &key).expect("sets");
                    prop_assert_eq!(set, model.insert((at, key)));
                }
                Op::Delete(at, key) => {
                    let unset = timers.delete(Timestamp(at), key_hash(&key), &key).expect("unsets");
                    prop_assert_eq!(unset, model.remove(&(at, key)));
                }
                Op::Pop(until) => {
                    let due = drain(&mut timers, until);
                    prop_assert!(due.is_sorted_by_key(|(at, _)| *at));
                    let later = model.split_off(&(until + 1, 0));
                    let expected = std::mem::replace(&mut model, later);
                    prop_assert_eq!(due.len(), expected.len());
                    prop_assert_eq!(due.into_iter().collect::<Model>(), expected);
                }
                Op::Turn => timers.maintain().expect("makes room"),
                Op::Freeze if snapshot.is_none() => {
                    timers.freeze().expect("freezes");
                    let section = KeyedSection::new(GROUPS).sharing_files(shares_files).streaming(streams);
                    snapshot = Some((model.clone(), section));
                }
                Op::Freeze => {}
                Op::Thaw => {
                    timers.thaw();
                    snapshot = None;
                }
                Op::Save(budget) => {
                    if let Some((then, mut section)) = snapshot.take() {
                        if timers.save(&mut section, budget).expect("saves") {
                            check_saved(section, &then, shares_files);
                        } else {
                            snapshot = Some((then, section));
                        }
                    }
                }
            }
            let first = model.first().map(|(at, _)| Timestamp(*at));
            prop_assert!(timers.next() <= first || first.is_none());
            prop_assert!(first.is_none() || timers.next().is_some());
            prop_assert_eq!(timers.len(), model.len());
        }
        prop_assert_eq!(drain(&mut timers, i64::MAX).len(), model.len());
    }
}

#[test]
fn ten_times_the_memory_fits() {
    let limit = 60_000;
    let mut timers = queue(limit, false);
    let mut model = Model::new();
    for n in 0..20_000u64 {
        let (at, key) = ((key_hash(&n) % 5000) as i64, (n % 997) as u16);
        model.insert((at, key));
        timers
            .register(Timestamp(at), key_hash(&key), &key)
            .expect("sets");
        if n % 64 == 0 {
            timers.maintain().expect("makes room");
        }
    }
    let spilled = timers.spilled.as_ref().expect("it spills");
    assert!(
        spilled.near_bytes() < 2 * limit,
        "{} bytes are in memory",
        spilled.near_bytes()
    );
    let mut all = Vec::new();
    for until in (0..5006).step_by(7) {
        all.extend(drain(&mut timers, until));
        timers.maintain().expect("makes room");
    }
    assert!(all.is_sorted_by_key(|(at, _)| *at));
    assert_eq!(all.len(), model.len());
    assert_eq!(all.into_iter().collect::<Model>(), model);
}
