//! Tests of [`KeyTable`]: as a map, and while a snapshot of it is under way.

use super::*;
use crate::checkpoint::StateData;
use crate::hash::key_group;
use proptest::prelude::*;
use std::collections::HashMap;

type Model = HashMap<u16, u32>;

/// What was saved, by key; a key that was saved twice is a mistake.
fn saved(section: KeyedSection) -> Model {
    let StateData::Groups(groups) = section.into_data() else {
        unreachable!("a keyed section has groups");
    };
    let (mut all, mut entries) = (Model::new(), 0);
    for group in groups {
        let bytes = group.bytes.joined();
        let mut decoded = Entries::new(&bytes);
        while let Some((key, value)) = decoded.take_next::<(u16, u32)>().expect("decodes") {
            assert_eq!(key_group(key_hash(&key), GROUPS), group.group);
            assert_eq!(all.insert(key, value), None, "{key} was saved twice");
        }
        entries += group.entries;
    }
    assert_eq!(all.len() as u64, entries);
    all
}

const GROUPS: u32 = 8;

#[derive(Clone, Debug)]
enum Op {
    Insert(u16, u32),
    InsertNew(u16, u32),
    Upsert(u16, u32),
    Add(u16, u32),
    TakeIn(u16, u32),
    Change(u16, u32),
    Remove(u16),
    Reserve(usize),
    Retain(u32),
    ChangeAll(u32),
    Drain,
    Clear,
    Freeze,
    Save(usize),
    Rescue,
    Thaw,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    // Few keys for races, many for growth.
    let (key, value) = (prop_oneof![0u16..40, 0u16..2000], 0u32..9);
    let change = prop_oneof![
        6 => (key.clone(), value.clone()).prop_map(|(k, v)| Op::Insert(k, v)),
        3 => (key.clone(), value.clone()).prop_map(|(k, v)| Op::InsertNew(k, v)),
        3 => (key.clone(), value.clone()).prop_map(|(k, v)| Op::Upsert(k, v)),
        6 => (key.clone(), value.clone()).prop_map(|(k, v)| Op::Add(k, v)),
        6 => (key.clone(), value.clone()).prop_map(|(k, v)| Op::TakeIn(k, v)),
        3 => (key.clone(), value.clone()).prop_map(|(k, v)| Op::Change(k, v)),
        4 => key.prop_map(Op::Remove),
    ];
    let op = prop_oneof![
        120 => change,
        1 => (0usize..300).prop_map(Op::Reserve),
        1 => value.clone().prop_map(Op::Retain),
        1 => value.prop_map(Op::ChangeAll),
        1 => Just(Op::Drain),
        1 => Just(Op::Clear),
        6 => Just(Op::Freeze),
        30 => (0usize..20).prop_map(Op::Save),
        1 => Just(Op::Rescue),
        1 => Just(Op::Thaw),
    ];
    prop::collection::vec(op, 0..600)
}

fn mutate(table: &mut KeyTable<u16, u32>, model: &mut Model, op: &Op) {
    match *op {
        Op::Insert(k, v) => {
            assert_eq!(table.insert(key_hash(&k), k, v), model.insert(k, v));
        }
        Op::InsertNew(k, v) => {
            if let std::collections::hash_map::Entry::Vacant(entry) = model.entry(k) {
                assert_eq!(*table.insert_new(key_hash(&k), k, v), *entry.insert(v));
            }
        }
        Op::Upsert(k, v) => {
            table.upsert(key_hash(&k), &k, |have| *have += v, || v);
            *model.entry(k).or_insert(0) += v;
        }
        Op::Add(k, v) => {
            *table.get_or_insert_with(key_hash(&k), k, || 0) += v;
            *model.entry(k).or_insert(0) += v;
        }
        Op::TakeIn(k, v) => {
            table.take_in(key_hash(&k), k, v, |have, v| *have += v, |v| v);
            *model.entry(k).or_insert(0) += v;
        }
        Op::Change(k, v) => {
            let (mine, theirs) = (table.get_mut(key_hash(&k), &k), model.get_mut(&k));
            assert_eq!(mine, theirs);
            if let (Some(mine), Some(theirs)) = (mine, theirs) {
                (*mine, *theirs) = (v, v);
            }
        }
        Op::Remove(k) => assert_eq!(table.remove(key_hash(&k), &k), model.remove(&k)),
        Op::Reserve(more) => table.reserve(more),
        Op::Retain(below) => {
            table.retain(|_, v| *v >= below);
            model.retain(|_, v| *v >= below);
        }
        Op::ChangeAll(by) => {
            table.iter_mut().for_each(|(_, v)| *v += by);
            model.values_mut().for_each(|v| *v += by);
        }
        Op::Drain => assert_eq!(&table.drain().collect::<Model>(), &std::mem::take(model)),
        Op::Clear => {
            table.clear();
            model.clear();
        }
        Op::Freeze | Op::Save(_) | Op::Rescue | Op::Thaw => unreachable!("not a change"),
    }
}

proptest! {
    #[test]
    fn saves_what_was_there_at_the_barrier_whatever_records_change(ops in ops()) {
        let mut table = KeyTable::default();
        let mut model = Model::new();
        let mut snapshot: Option<(Model, KeyedSection)> = None;
        let begin = |model: &Model| Some((model.clone(), KeyedSection::new(GROUPS)));
        for op in ops.iter().chain([&Op::Save(usize::MAX)]) {
            match op {
                Op::Freeze if snapshot.is_none() => {
                    table.freeze().expect("freezes");
                    snapshot = begin(&model);
                }
                Op::Freeze => {}
                Op::Thaw => {
                    table.thaw();
                    snapshot = None;
                }
                Op::Save(budget) => {
                    if let Some((then, mut section)) = snapshot.take() {
                        if table.save(&mut section, *budget).expect("saves") {
                            prop_assert!(!table.is_frozen());
                            prop_assert_eq!(saved(section), then);
                        } else {
                            snapshot = Some((then, section));
                        }
                    }
                }
                Op::Rescue => {
                    let rest = table.rescue().expect("encodes");
                    prop_assert_eq!(rest.is_some(), snapshot.is_some());
                    if let (Some(rest), Some((then, mut section))) = (rest, snapshot.take()) {
                        section.extend(&rest);
                        prop_assert_eq!(saved(section), then);
                    }
                }
                op => mutate(&mut table, &mut model, op),
            }
        }
        prop_assert!(snapshot.is_none());
        prop_assert_eq!(table.into_iter().collect::<Model>(), model);
    }
}

#[test]
fn what_is_saved_is_loaded() {
    let mut table: KeyTable<u16, u32> = KeyTable::default();
    for k in 0..500 {
        table.insert(key_hash(&k), k, u32::from(k) * 3);
    }
    table.freeze().expect("freezes");
    let mut section = KeyedSection::new(GROUPS);
    let mut steps = 0;
    while !table.save(&mut section, 50).expect("saves") {
        steps += 1;
    }
    assert!((2..=5).contains(&steps), "{steps} steps of 50 for 500");
    let StateData::Groups(groups) = section.into_data() else {
        unreachable!("a keyed section has groups");
    };
    let mut loaded: KeyTable<u16, u32> = KeyTable::default();
    for group in &groups {
        let bytes = group.bytes.joined();
        let mut entries = Entries::new(&bytes);
        loaded.load(&mut entries).expect("loads");
    }
    assert_eq!(
        loaded.into_iter().collect::<Model>(),
        table.into_iter().collect::<Model>()
    );
}

#[test]
fn a_step_saves_fewer_entries_where_they_are_large() {
    let steps = |length| {
        let mut table: KeyTable<u16, String> = KeyTable::default();
        for k in 0..500 {
            table.insert(key_hash(&k), k, "x".repeat(length));
        }
        table.freeze().expect("freezes");
        let mut section = KeyedSection::new(GROUPS);
        let mut steps = 1;
        while !table.save(&mut section, 50).expect("saves") {
            steps += 1;
        }
        assert_eq!(section.entries(), 500);
        steps
    };
    for (length, expected) in [(1, 4..=7), (100, 9..=14), (4000, 250..=500)] {
        let steps = steps(length);
        assert!(
            expected.contains(&steps),
            "{steps} steps of 50 for 500 of {length}"
        );
    }
}

#[test]
fn entries_of_several_tables_can_share_a_section() {
    let mut section = KeyedSection::new(1);
    for slice in [-5i64, 7] {
        let mut table: KeyTable<u16, u32> = KeyTable::default();
        table.insert(key_hash(&1), 1, 10);
        table.freeze_behind(&slice).expect("freezes");
        table.insert(key_hash(&1), 1, 11);
        assert!(table.save(&mut section, 9).expect("saves"));
    }
    let StateData::Groups(groups) = section.into_data() else {
        unreachable!("a keyed section has groups");
    };
    let bytes = groups[0].bytes.joined();
    let mut entries = Entries::new(&bytes);
    for slice in [-5i64, 7] {
        let entry = entries.take_next::<(i64, u16, u32)>().expect("decodes");
        assert_eq!(entry, Some((slice, 1, 10)));
    }
}
