//! Tests of [`Cache`]: as a map in a memory that is too small for it, and while it is saved.

use super::slots::Slot;
use super::*;
use crate::checkpoint::{Entries, KeyedPart, KeyedSection, StateData};
use crate::hash::key_group;
use crate::state::KeyTable;
use crate::state::backing::StateMemory;
use crate::testing::MapBacking;
use proptest::prelude::*;
use std::collections::HashMap;

type Model = HashMap<u16, u32>;

const GROUPS: u32 = 8;

fn cache(limit: u64) -> (Cache<u16, u32>, MapBacking) {
    let behind = MapBacking::default();
    let claim = StateMemory::new(limit).claim();
    (Cache::new(Box::new(behind.clone()), claim, GROUPS), behind)
}

fn saved(section: KeyedSection) -> Model {
    let groups = match section.into_data() {
        StateData::Groups(groups) => groups,
        StateData::Streamed(streamed) => streamed.gather().expect("reads"),
        other => unreachable!("{other:?} is not what a cache saves"),
    };
    let mut all = Model::new();
    for group in groups {
        let bytes = group.bytes.joined();
        let mut decoded = Entries::new(&bytes);
        let before = all.len() as u64;
        while let Some((key, value)) = decoded.take_next::<(u16, u32)>().expect("decodes") {
            assert_eq!(key_group(key_hash(&key), GROUPS), group.group);
            assert_eq!(all.insert(key, value), None, "{key} was saved twice");
        }
        assert_eq!(all.len() as u64 - before, group.entries);
    }
    all
}

#[derive(Clone, Debug)]
enum Op {
    Set(u16, u32),
    Add(u16, u32),
    Change(u16, u32),
    Get(u16),
    Remove(u16),
    Turn,
    Freeze,
    Save(usize),
    Thaw,
    Each,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let (key, value) = (prop_oneof![0u16..30, 0u16..600], 0u32..9);
    let op = prop_oneof![
        20 => (key.clone(), value.clone()).prop_map(|(k, v)| Op::Set(k, v)),
        30 => (key.clone(), value.clone()).prop_map(|(k, v)| Op::Add(k, v)),
        15 => (key.clone(), value).prop_map(|(k, v)| Op::Change(k, v)),
        15 => key.clone().prop_map(Op::Get),
        20 => key.prop_map(Op::Remove),
        30 => Just(Op::Turn),
        5 => Just(Op::Freeze),
        20 => (0usize..20).prop_map(Op::Save),
        1 => Just(Op::Thaw),
        1 => Just(Op::Each),
    ];
    prop::collection::vec(op, 0..800)
}

fn step(cache: &mut Cache<u16, u32>, model: &mut Model, op: &Op) -> Flow {
    match *op {
        Op::Set(k, v) => {
            cache.set(key_hash(&k), k, v)?;
            model.insert(k, v);
        }
        Op::Add(k, v) => {
            *cache.get_or_insert_with(key_hash(&k), k, || 0)? += v;
            *model.entry(k).or_insert(0) += v;
        }
        Op::Change(k, v) => {
            let (mine, theirs) = (cache.get_mut(key_hash(&k), &k)?, model.get_mut(&k));
            assert_eq!(mine, theirs);
            if let (Some(mine), Some(theirs)) = (mine, theirs) {
                (*mine, *theirs) = (v, v);
            }
        }
        Op::Get(k) => assert_eq!(cache.get(key_hash(&k), &k)?, model.get(&k)),
        Op::Remove(k) => assert_eq!(cache.remove(key_hash(&k), &k)?, model.remove(&k)),
        Op::Turn => cache.maintain()?,
        Op::Each => {
            let mut all = Model::new();
            cache.each(|k, v| {
                assert_eq!(all.insert(*k, *v), None);
                Ok(())
            })?;
            assert_eq!(&all, model);
        }
        Op::Freeze | Op::Save(_) | Op::Thaw => unreachable!("not a change"),
    }
    Ok(())
}

proptest! {
    #[test]
    fn behaves_like_a_map_however_little_memory_it_has(
        ops in ops(), limit in 0u64..4000, streams: bool,
    ) {
        let (mut cache, _) = cache(limit);
        let mut model = Model::new();
        let mut snapshot: Option<(Model, KeyedSection)> = None;
        for op in ops.iter().chain([&Op::Save(usize::MAX), &Op::Each]) {
            match op {
                Op::Freeze if snapshot.is_none() => {
                    cache.freeze().expect("freezes");
                    snapshot = Some((model.clone(), KeyedSection::new(GROUPS).streaming(streams)));
                }
                Op::Freeze => {}
                Op::Thaw => {
                    cache.thaw();
                    snapshot = None;
                }
                Op::Save(budget) => {
                    if let Some((then, mut section)) = snapshot.take() {
                        if cache.save(&mut section, *budget).expect("saves") {
                            prop_assert_eq!(saved(section), then);
                        } else {
                            snapshot = Some((then, section));
                        }
                    }
                }
                op => step(&mut cache, &mut model, op).expect("no fault"),
            }
            let slots = &cache.slots;
            let dirty = slots.table.iter().filter(|slot| slot.dirty != 0).count();
            prop_assert_eq!(slots.dirty, dirty);
        }
        prop_assert!(snapshot.is_none());
    }
}

#[test]
fn ten_times_the_memory_fits() {
    let keys = 40_000u16;
    let slot = size_of::<Slot<u16, u32>>() as u64;
    let limit = u64::from(keys) * slot / 10;
    let (mut cache, behind) = cache(limit);
    let mut longest = 0;
    for round in 1..=3 {
        for key in 0..keys {
            *cache
                .get_or_insert_with(key_hash(&key), key, || 0)
                .expect("adds") += 1;
            if key % 512 == 0 {
                cache.maintain().expect("makes room");
                longest = longest.max(cache.behind.claim.memory().used());
            }
        }
        assert!(longest < limit * 3 / 2, "{longest} bytes in use of {limit}");
        assert!(behind.len() > usize::from(keys) / 2, "round {round}");
    }
    let mut seen = 0;
    cache
        .each(|_, count| {
            assert_eq!(*count, 3);
            seen += 1;
            Ok(())
        })
        .expect("reads");
    assert_eq!(seen, keys);
}

#[test]
fn what_a_table_in_memory_saved_is_loaded_and_the_other_way_round() {
    let mut table: KeyTable<u16, u32> = KeyTable::default();
    let (mut spilled, _) = cache(100);
    let groups = |part: &mut dyn KeyedPart| {
        let mut section = KeyedSection::new(GROUPS);
        part.freeze().expect("freezes");
        while !part.save(&mut section, 64).expect("saves") {}
        match section.into_data() {
            StateData::Groups(groups) => groups,
            _ => unreachable!("a keyed section has groups"),
        }
    };
    for key in 0..3000 {
        table.insert(key_hash(&key), key, u32::from(key) + 1);
    }
    for group in groups(&mut table) {
        spilled
            .load(&mut Entries::new(&group.bytes.joined()))
            .expect("loads");
    }
    let mut again: KeyTable<u16, u32> = KeyTable::default();
    for group in groups(&mut spilled) {
        again
            .load(&mut Entries::new(&group.bytes.joined()))
            .expect("loads");
    }
    assert_eq!(
        table.into_iter().collect::<Model>(),
        again.into_iter().collect::<Model>()
    );
}
