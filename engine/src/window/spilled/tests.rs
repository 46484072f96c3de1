//! Slices in a memory that is too small for them, against a map, and while they are saved.

use super::*;
use crate::checkpoint::{Entries, KeyedSection, RestoredFiles, StateData};
use crate::hash::key_hash;
use crate::state::backing::StateMemory;
use crate::testing::MapBacking;
use proptest::prelude::*;
use std::collections::BTreeMap;

const GROUPS: u32 = 8;

type Model = BTreeMap<(i64, u16), u64>;
type Spilled = SpilledSlices<u16, u64>;

fn spilled(limit: u64, shares_files: bool) -> (Spilled, MapBacking) {
    let behind = MapBacking::default().sharing_files(shares_files);
    let claim = StateMemory::new(limit).claim();
    let slices = SpilledSlices::new(Box::new(behind.clone()), claim, GROUPS);
    (slices, behind)
}

/// Fires the window of some slices, with other work between its pieces; what it holds.
fn fire(
    slices: &mut Spilled,
    range: Range<i64>,
    needed: i64,
    between: &[Op],
) -> BTreeMap<u16, u64> {
    let mut firing = slices.fire(range, needed).expect("begins");
    let (mut all, mut section) = (Vec::new(), KeyedSection::new(GROUPS));
    let mut between = between.iter();
    loop {
        let add = |into: &mut u64, other: &u64| *into += other;
        let mut piece = Vec::new();
        let done = slices
            .next_piece(&mut firing, add, &mut piece)
            .expect("fires");
        all.append(&mut piece);
        if done {
            break;
        }
        match between.next() {
            Some(Op::Turn) => slices.keep_to_memory().expect("makes room"),
            Some(Op::Save(budget)) if slices.behind.flushes() => {
                slices.save(&mut section, *budget).expect("saves");
            }
            _ => {}
        }
    }
    let count = all.len();
    let all: BTreeMap<u16, u64> = all.into_iter().collect();
    assert_eq!(all.len(), count, "no key comes twice");
    all
}

fn of(model: &Model, range: Range<i64>) -> BTreeMap<u16, u64> {
    let mut all = BTreeMap::new();
    for ((_, key), value) in model.range((range.start, 0)..(range.end, 0)) {
        *all.entry(*key).or_insert(0) += value;
    }
    all
}

/// What was saved, loaded by another, is what was there.
fn check_saved(section: KeyedSection, then: &Model, unfired: i64) {
    let mut data = section.into_data();
    if let StateData::Streamed(streamed) = &data {
        data = StateData::Groups(streamed.gather().expect("reads"));
    }
    let (mut again, _) = spilled(100, matches!(data, StateData::Files(_)));
    match &data {
        StateData::Groups(groups) => {
            for group in groups {
                let bytes = group.bytes.joined();
                let mut entries = Entries::new(&bytes);
                while let Some((header, mut part)) =
                    entries.next_part::<(i64, i64)>().expect("reads")
                {
                    assert_eq!(header.1, unfired);
                    let groups = again.load(header.0, &mut part).expect("loads");
                    assert_eq!(groups.iter().collect::<Vec<_>>(), [group.group]);
                }
            }
        }
        StateData::Files(files) => {
            let files = RestoredFiles {
                images: vec![files],
                groups: 0..GROUPS,
                origin: None,
            };
            let fired = again.load_files(&files).expect("loads");
            assert!(fired.values().all(|fired| *fired == unfired));
        }
        other => unreachable!("{other:?} is not what slices save"),
    }
    let numbers: Vec<i64> = then.keys().map(|(number, _)| *number).collect();
    for number in numbers {
        let found = fire(&mut again, number..number + 1, i64::MIN, &[]);
        assert_eq!(found, of(then, number..number + 1), "slice {number}");
    }
}

#[derive(Clone, Debug)]
enum Op {
    /// To a slice so far behind the oldest.
    Add(i64, u16, u64),
    Look(i64, u16),
    FireOldest(Vec<Op>),
    FireMany(i64, Vec<Op>),
    Drop(i64),
    Turn,
    Freeze,
    Save(usize),
    Thaw,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let small = prop_oneof![Just(Op::Turn), (0usize..20).prop_map(Op::Save)];
    let small = prop::collection::vec(small, 0..6);
    let (slice, key) = (0i64..6, 0u16..60);
    let op = prop_oneof![
        60 => (slice.clone(), key.clone(), 1u64..9).prop_map(|(s, k, v)| Op::Add(s, k, v)),
        5 => (slice.clone(), key).prop_map(|(s, k)| Op::Look(s, k)),
        4 => small.clone().prop_map(Op::FireOldest),
        4 => (slice.clone(), small).prop_map(|(s, ops)| Op::FireMany(s, ops)),
        2 => slice.prop_map(Op::Drop),
        25 => Just(Op::Turn),
        4 => Just(Op::Freeze),
        20 => (0usize..20).prop_map(Op::Save),
        1 => Just(Op::Thaw),
    ];
    prop::collection::vec(op, 0..400)
}

proptest! {
    #[test]
    fn behaves_like_a_map_however_little_memory_it_has(
        ops in ops(), limit in 0u64..6000, shares_files: bool, streams: bool,
    ) {
        let (mut slices, behind) = spilled(limit, shares_files);
        let (mut model, mut oldest) = (Model::new(), 0);
        let mut snapshot: Option<(Model, i64, KeyedSection)> = None;
        for op in ops.iter().chain([&Op::Save(usize::MAX)]) {
            match op {
                Op::Add(behind, key, n) => {
                    let number = oldest + behind;
                    let (place, _) = slices.enter(number);
                    *slices.entry(place, key_hash(key), *key, || 0).expect("adds") += n;
                    *model.entry((number, *key)).or_insert(0) += n;
                }
                Op::Look(behind, key) => {
                    let (range, mut sum) = (oldest..oldest + behind + 1, 0);
                    let each = slices.each_of_key(range.clone(), key_hash(key), key, |n| sum += n);
                    each.expect("reads");
                    prop_assert_eq!(sum, of(&model, range).get(key).copied().unwrap_or(0));
                }
                Op::FireOldest(between) => {
                    let range = oldest..oldest + 1;
                    let fired = fire(&mut slices, range.clone(), range.end, between);
                    prop_assert_eq!(fired, of(&model, range.clone()));
                    oldest += 1;
                    slices.drop_before(oldest).expect("drops");
                    model = model.split_off(&(oldest, 0));
                }
                Op::FireMany(more, between) => {
                    let range = oldest..oldest + more + 1;
                    let fired = fire(&mut slices, range.clone(), oldest, between);
                    prop_assert_eq!(fired, of(&model, range));
                }
                Op::Drop(count) => {
                    oldest += count;
                    slices.drop_before(oldest).expect("drops");
                    model = model.split_off(&(oldest, 0));
                }
                Op::Turn => slices.keep_to_memory().expect("makes room"),
                Op::Freeze if snapshot.is_none() => {
                    slices.freeze(oldest, &GroupsFired::new());
                    let section = KeyedSection::new(GROUPS).sharing_files(shares_files).streaming(streams);
                    snapshot = Some((model.clone(), oldest, section));
                }
                Op::Freeze => {}
                Op::Thaw => {
                    slices.thaw();
                    snapshot = None;
                }
                Op::Save(budget) => {
                    if let Some((then, unfired, mut section)) = snapshot.take() {
                        if slices.save(&mut section, *budget).expect("saves") {
                            check_saved(section, &then, unfired);
                        } else {
                            snapshot = Some((then, unfired, section));
                        }
                    }
                }
            }
        }
        slices.drop_before(i64::MAX).expect("drops");
        slices.freeze(oldest, &GroupsFired::new());
        slices.save(&mut KeyedSection::new(GROUPS), usize::MAX).expect("saves");
        prop_assert_eq!(behind.len(), 0, "what is not needed is not kept");
    }
}

#[test]
fn ten_times_the_memory_fits() {
    let limit = 100_000;
    let (mut slices, behind) = spilled(limit, false);
    let mut model = Model::new();
    for n in 0..30_000u64 {
        let (number, key) = ((n % 3) as i64, (key_hash(&n) % 6000) as u16);
        let (place, _) = slices.enter(number);
        *slices
            .entry(place, key_hash(&key), key, || 0)
            .expect("adds") += 1;
        *model.entry((number, key)).or_insert(0) += 1;
        if n % 64 == 0 {
            slices.keep_to_memory().expect("makes room");
            let used = slices.behind.claim.memory().used();
            assert!(used < limit * 3 / 2, "{used} bytes in use of {limit}");
        }
    }
    assert!(behind.len() > model.len() * 8 / 10);
    for number in 0..3 {
        let fired = fire(&mut slices, number..number + 1, number + 1, &[Op::Turn]);
        assert_eq!(fired, of(&model, number..number + 1));
    }
}
