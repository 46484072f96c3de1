//! State that expires behaves like a list of what was written and when.

use super::registry::At;
use super::*;
use crate::checkpoint::visitor::Capture;
use crate::checkpoint::{
    CheckpointId, OperatorImage, RestoredJob, StateData, StateImage, StateVisitor,
};
use crate::clock::Clock;
use crate::state::backing::{Spill, StateMemory};
use crate::testing::{MapBacking, MemorySpill};
use crate::time::Timestamp;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;

const TTL: i64 = 10;

fn image(states: &mut KeyedStates<u64>) -> Vec<StateImage> {
    let mut capture = Capture::new(8).sharing_files(true);
    let freeze = states.state(&mut StateVisitor::freeze(&mut capture));
    freeze.expect("freezes");
    while !capture.complete() {
        let save = states.state(&mut StateVisitor::save(&mut capture, 3));
        save.expect("saves");
    }
    capture.into_states()
}

fn load(states: &mut KeyedStates<u64>, saved: Vec<StateImage>) -> crate::fault::Flow {
    let image = OperatorImage {
        uid: "totals".to_owned(),
        name: "totals".to_owned(),
        max_parallelism: 8,
        parallelism: 1,
        watermark: Timestamp::MIN,
        states: saved,
    };
    let job = RestoredJob::new(CheckpointId(1), [(0, image)]);
    let mine = job.operator("totals", 0, 1, 8).expect("has key groups");
    let mut mine = mine.expect("was saved");
    states.state(&mut StateVisitor::load(&mut mine))
}

fn entries(image: &StateImage) -> u64 {
    match &image.data {
        StateData::Groups(groups) => groups.iter().map(|g| g.entries).sum(),
        _ => unreachable!("keyed state has groups"),
    }
}

#[derive(Clone, Debug)]
enum Op {
    Set(u64, i64),
    Update(u64, i64),
    Get(u64),
    Take(u64),
    Push(u64, i64),
    List(u64),
    Insert(u64, u8, i64),
    Remove(u64, u8),
    Entry(u64, u8),
    Entries(u64),
    Advance(i64),
    Sweep,
    SaveAndLoad,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let key = || 0u64..4;
    let op = prop_oneof![
        (key(), 0i64..99).prop_map(|(k, v)| Op::Set(k, v)),
        (key(), 0i64..99).prop_map(|(k, v)| Op::Update(k, v)),
        key().prop_map(Op::Get),
        key().prop_map(Op::Take),
        (key(), 0i64..99).prop_map(|(k, v)| Op::Push(k, v)),
        key().prop_map(Op::List),
        (key(), 0u8..3, 0i64..99).prop_map(|(k, e, v)| Op::Insert(k, e, v)),
        (key(), 0u8..3).prop_map(|(k, e)| Op::Remove(k, e)),
        (key(), 0u8..3).prop_map(|(k, e)| Op::Entry(k, e)),
        key().prop_map(Op::Entries),
        (1i64..8).prop_map(Op::Advance),
        Just(Op::Sweep),
        Just(Op::SaveAndLoad),
    ];
    prop::collection::vec(op, 0..120)
}

struct Handles {
    states: KeyedStates<u64>,
    value: ValueState<u64, i64, Expiring>,
    list: ListState<u64, i64, Expiring>,
    map: MapState<u64, u8, i64, Expiring>,
}

fn declare(clock: &Clock, ttl: StateTtl) -> Handles {
    let mut states = KeyedStates::new("totals", clock.clone());
    Handles {
        value: states.value_with("value", ttl).expect("a new name"),
        list: states.list_with("list", ttl).expect("a new name"),
        map: states.map_with("map", ttl).expect("a new name"),
        states,
    }
}

/// What was written, under what, and when its time began.
#[derive(Default)]
struct Model<I>(BTreeMap<I, (i64, i64)>);

impl<I: Ord + Clone> Model<I> {
    fn get(&mut self, id: &I, now: i64, on_read: bool) -> Option<i64> {
        let (value, at) = self.0.get_mut(id).filter(|(_, at)| now < *at + TTL)?;
        if on_read {
            *at = now;
        }
        Some(*value)
    }

    fn set(&mut self, id: I, value: i64, now: i64) -> Option<i64> {
        let before = self.get(&id, now, false);
        self.0.insert(id, (value, now));
        before
    }
}

/// What is left of a list.
fn live(list: &mut Vec<(i64, i64)>, now: i64, on_read: bool) -> Vec<i64> {
    list.retain(|(_, at)| now < *at + TTL);
    if on_read {
        list.iter_mut().for_each(|e| e.1 = now);
    }
    list.iter().map(|e| e.0).collect()
}

proptest! {
    #[test]
    fn behaves_like_a_list_of_what_was_written_and_when(ops in ops(), on_read: bool) {
        let ttl = StateTtl::new(Duration::from_millis(TTL as u64));
        let ttl = if on_read { ttl.update_on_read() } else { ttl.update_on_write() };
        let (clock, mut now) = (Clock::manual(Timestamp(0)), 0);
        let mut h = declare(&clock, ttl);
        let (mut values, mut entries) = (Model::<u64>::default(), Model::<(u64, u8)>::default());
        let mut lists = BTreeMap::<u64, Vec<(i64, i64)>>::new();
        for op in ops {
            match op {
                Op::Set(k, v) => {
                    prop_assert_eq!(h.value.set(&At::new(k), v), values.set(k, v, now));
                }
                Op::Update(k, v) => {
                    h.value.update(&At::new(k), |n| *n += v);
                    let before = values.get(&k, now, false).unwrap_or(0);
                    values.set(k, before + v, now);
                }
                Op::Get(k) => {
                    prop_assert_eq!(h.value.get(&At::new(k)), values.get(&k, now, on_read));
                }
                Op::Take(k) => {
                    prop_assert_eq!(h.value.take(&At::new(k)), values.get(&k, now, false));
                    values.0.remove(&k);
                }
                Op::Push(k, v) => {
                    h.list.add(&At::new(k), v);
                    lists.entry(k).or_default().push((v, now));
                }
                Op::List(k) => {
                    let expected = live(lists.entry(k).or_default(), now, on_read);
                    prop_assert_eq!(h.list.get(&At::new(k)), expected);
                }
                Op::Insert(k, e, v) => {
                    let before = entries.set((k, e), v, now);
                    prop_assert_eq!(h.map.insert(&At::new(k), e, v), before);
                }
                Op::Remove(k, e) => {
                    let before = entries.get(&(k, e), now, false);
                    entries.0.remove(&(k, e));
                    prop_assert_eq!(h.map.remove(&At::new(k), &e), before);
                }
                Op::Entry(k, e) => {
                    let expected = entries.get(&(k, e), now, on_read);
                    prop_assert_eq!(h.map.get(&At::new(k), &e), expected);
                }
                Op::Entries(k) => {
                    let mut seen = Vec::new();
                    h.map.for_each(&At::new(k), |e, v| seen.push((*e, *v)));
                    seen.sort_unstable();
                    let get = |e| Some((e, entries.get(&(k, e), now, on_read)?));
                    let expected: Vec<_> = (0..3).filter_map(get).collect();
                    prop_assert_eq!(h.map.len(&At::new(k)), expected.len());
                    prop_assert_eq!(seen, expected);
                }
                Op::Advance(by) => {
                    now += by;
                    clock.advance(Duration::from_millis(by as u64));
                }
                Op::Sweep => h.states.sweep(Timestamp(now)),
                Op::SaveAndLoad => {
                    let saved = image(&mut h.states);
                    h = declare(&clock, ttl);
                    load(&mut h.states, saved).expect("loads");
                }
            }
        }
    }
}

#[test]
fn what_has_expired_is_removed_step_by_step_and_without_being_used() {
    let clock = Clock::manual(Timestamp(0));
    let mut h = declare(&clock, StateTtl::new(Duration::from_secs(10)));
    for key in 0..5_000 {
        h.value.set(&At::new(key), 1);
        h.list.add(&At::new(key), 1);
    }
    for entry in 0..=255 {
        h.map.insert(&At::new(1), entry, 1);
    }
    let left = |h: &Handles| h.states.tables().map(|t| t.len()).sum::<usize>();
    assert_eq!(left(&h), 10_001);
    clock.advance(Duration::from_secs(10));
    h.value.set(&At::new(7), 2);
    let (mut steps, mut before) = (0, left(&h));
    while let Some(at) = h.states.next_sweep()
        && at < Timestamp(30_000)
    {
        let now = clock.now().max(at);
        clock.advance(Duration::from_millis((now.0 - clock.now().0) as u64));
        h.states.sweep(now);
        let after = left(&h);
        assert!(before - after <= 2 * 1024 + 1, "one step removed too much");
        (steps, before) = (steps + 1, after);
        if now < Timestamp(20_000) {
            continue;
        }
        h.value.set(&At::new(7), 2);
    }
    assert_eq!(left(&h), 1, "after {steps} steps");
    assert_eq!(h.value.get(&At::new(7)), Some(2));
}

#[test]
fn a_large_map_of_one_key_is_looked_through_step_by_step() {
    let clock = Clock::manual(Timestamp(0));
    let ttl = StateTtl::new(Duration::from_secs(10));
    let mut states = KeyedStates::<u64>::new("maps", clock.clone());
    let map = states.map_with::<u32, u32>("map", ttl).expect("a new name");
    let key = At::new(1);
    for entry in 0..20_000 {
        map.insert(&key, entry, 1);
    }
    clock.advance(Duration::from_secs(10));
    let all = || map.in_memory(&key);
    let mut before = all();
    let mut steps = 0;
    while before > 0 {
        clock.advance(Duration::from_secs(10));
        states.sweep(clock.now());
        let after = all();
        assert!(before - after <= 1024, "one step removed too much");
        (before, steps) = (after, steps + 1);
        assert!(steps < 1000, "the sweep does not come to its end");
    }
    assert!(steps > 10 && states.tables().all(|t| t.is_empty()));
}

#[test]
fn what_has_expired_is_not_saved() {
    let clock = Clock::manual(Timestamp(0));
    let mut h = declare(&clock, StateTtl::new(Duration::from_millis(10)));
    for key in 0..100 {
        h.value.set(&At::new(key), 1);
        h.list.add(&At::new(key), 1);
        h.map.insert(&At::new(key), 1, 1);
    }
    clock.advance(Duration::from_millis(9));
    h.value.set(&At::new(3), 2);
    h.list.add(&At::new(3), 2);
    h.map.insert(&At::new(3), 2, 2);
    clock.advance(Duration::from_millis(1));
    let saved = image(&mut h.states);
    assert_eq!(saved.iter().map(entries).collect::<Vec<_>>(), [1, 1, 1]);
    let mut after = declare(&clock, StateTtl::new(Duration::from_millis(10)));
    load(&mut after.states, saved).expect("loads");
    assert_eq!(after.value.get(&At::new(3)), Some(2));
    assert_eq!(after.list.get(&At::new(3)), [2]);
    assert_eq!(after.map.take(&At::new(3)), [(2, 2)]);
}

/// A value, a list and a map of `V` that don't expire, and a value that does.
fn typed<V: crate::checkpoint::StateValue + Clone + From<u8>>(
    states: &mut KeyedStates<u64>,
) -> impl Fn() -> (Option<V>, Vec<V>, Option<V>, Option<V>) + use<V> {
    let ttl = StateTtl::new(Duration::from_secs(3600));
    let value = states.value::<V>("value").expect("a new name");
    let list = states.list::<V>("list").expect("a new name");
    let map = states.map::<String, V>("map").expect("a new name");
    let brief = states.value_with::<V>("brief", ttl).expect("a new name");
    let at = At::new(1);
    value.set(&at, V::from(1));
    list.set(&at, vec![V::from(2), V::from(3)]);
    map.insert(&at, "a".to_owned(), V::from(4));
    brief.set(&at, V::from(5));
    move || {
        let map = map.get(&at, &"a".to_owned());
        (value.get(&at), list.get(&at), map, brief.get(&at))
    }
}

fn saved_as_bytes() -> Vec<StateImage> {
    let mut states = KeyedStates::new("totals", Clock::manual(Timestamp(0)));
    drop(typed::<u8>(&mut states));
    image(&mut states)
}

#[test]
fn a_declared_migration_turns_old_values_into_new_ones() {
    let mut states = KeyedStates::new("totals", Clock::manual(Timestamp(0)));
    for state in ["value", "list", "map", "brief"] {
        states.migrate(state, |old: String| old.len() as u64);
        states.migrate(state, |old: u8| u64::from(old) * 10);
    }
    let read = typed::<u64>(&mut states);
    load(&mut states, saved_as_bytes()).expect("migrates");
    assert_eq!(read(), (Some(10), vec![20, 30], Some(40), Some(50)));
    let saved = image(&mut states);
    let mut again = KeyedStates::new("totals", Clock::manual(Timestamp(0)));
    again.migrate("value", |old: u8| u64::from(old) * 10);
    let read = typed::<u64>(&mut again);
    load(&mut again, saved).expect("needs no migration");
    assert_eq!(read(), (Some(10), vec![20, 30], Some(40), Some(50)));
}

#[test]
fn a_migration_leads_out_of_files_too() {
    let states = |migrates: bool| {
        let mut states = KeyedStates::new("totals", Clock::manual(Timestamp(0)));
        for state in ["value", "list", "map", "brief"] {
            if migrates {
                states.migrate(state, |old: u8| u64::from(old) * 10);
            }
        }
        states
    };
    let spill = |states: &mut KeyedStates<u64>| {
        let spill = MemorySpill::new(100).sharing_files(true);
        let mut open = |_: &str| Ok((8, spill.open("", "", 8)?, spill.memory().claim()));
        let spills = states.state(&mut StateVisitor::spill(&mut open));
        spills.expect("spills");
    };
    let mut old = states(false);
    drop(typed::<u8>(&mut old));
    spill(&mut old);
    let saved = image(&mut old);
    let in_files = |state: &StateImage| matches!(state.data, StateData::Files(_));
    assert!(saved.iter().all(in_files), "{saved:?}");
    let mut new = states(true);
    let (at, ttl) = (At::new(1), StateTtl::new(Duration::from_secs(3600)));
    let value = new.value::<u64>("value").expect("a new name");
    let list = new.list::<u64>("list").expect("a new name");
    let map = new.map::<String, u64>("map").expect("a new name");
    let brief = new.value_with::<u64>("brief", ttl).expect("a new name");
    spill(&mut new);
    load(&mut new, saved).expect("migrates");
    assert_eq!((value.get(&at), brief.get(&at)), (Some(10), Some(50)));
    assert_eq!(list.get(&at), [20, 30]);
    assert_eq!(map.get(&at, &"a".to_owned()), Some(40));
}

#[test]
fn without_a_migration_the_error_names_everything() {
    let mut states = KeyedStates::new("totals", Clock::manual(Timestamp(0)));
    drop(typed::<u64>(&mut states));
    let fault = load(&mut states, saved_as_bytes()).expect_err("another type");
    for part in ["'totals'", "'value'", " u8 ", " u64 ", "migration"] {
        assert!(fault.message().contains(part), "{fault}");
    }
}

#[test]
fn a_migration_to_another_type_or_of_no_state_is_refused() {
    let mut states = KeyedStates::new("totals", Clock::manual(Timestamp(0)));
    states.migrate("value", |old: u8| i32::from(old));
    drop(typed::<u64>(&mut states));
    let fault = load(&mut states, saved_as_bytes()).expect_err("another type");
    assert!(fault.message().contains("makes a i32"), "{fault}");
    let mut states = KeyedStates::new("totals", Clock::manual(Timestamp(0)));
    states.migrate("sum", |old: u8| i32::from(old));
    drop(typed::<u8>(&mut states));
    let fault = load(&mut states, saved_as_bytes()).expect_err("no such state");
    assert!(fault.message().contains("'sum'"), "{fault}");
}

#[test]
fn what_has_expired_leaves_what_was_spilled_in_about_the_time_that_it_stays() {
    const MANY: u64 = 20_000;
    let clock = Clock::manual(Timestamp(0));
    let mut states = KeyedStates::<u64>::new("totals", clock.clone());
    let ttl = StateTtl::new(Duration::from_secs(1));
    let value = states.value_with::<u64>("value", ttl).expect("a new name");
    let (behind, memory) = (MapBacking::default(), StateMemory::new(10_000));
    let mut open = |_: &str| Ok((8, Box::new(behind.clone()) as _, memory.claim()));
    let spills = states.state(&mut StateVisitor::spill(&mut open));
    spills.expect("spills");
    let maintain = |states: &mut KeyedStates<u64>| {
        let maintained = states.state(&mut StateVisitor::maintain());
        maintained.expect("keeps to its memory");
    };
    for key in 0..MANY {
        value.set(&At::new(key), key);
        if key % 100 == 0 {
            maintain(&mut states);
        }
    }
    assert!(behind.len() as u64 > MANY / 10 * 9, "{}", behind.len());
    let mut steps = 0;
    for _ in 0..2_500 {
        clock.advance(Duration::from_millis(1));
        if states.next_sweep().is_some_and(|at| at <= clock.now()) {
            states.sweep(clock.now());
            steps += 1;
        }
        maintain(&mut states);
    }
    assert!(
        (behind.len() as u64) < MANY / 20,
        "{} are left",
        behind.len()
    );
    assert!(steps < 100, "{steps} steps for what takes about 20 a pass");
}

#[test]
fn state_may_begin_to_expire_and_cease_to() {
    let clock = Clock::manual(Timestamp(1000));
    let mut states = KeyedStates::<u64>::new("totals", clock.clone());
    let ttl = StateTtl::new(Duration::from_millis(10));
    let value = states.value_with::<u8>("value", ttl).expect("a new name");
    let list = states.list_with::<u8>("list", ttl).expect("a new name");
    let map = states
        .map_with::<String, u8>("map", ttl)
        .expect("a new name");
    let brief = states.value::<u8>("brief").expect("a new name");
    load(&mut states, saved_as_bytes()).expect("loads");
    let at = At::new(1);
    assert_eq!(
        (value.get(&at), list.get(&at), brief.get(&at)),
        (Some(1), vec![2, 3], Some(5))
    );
    clock.advance(Duration::from_millis(9));
    assert_eq!(
        map.get(&at, &"a".to_owned()),
        Some(4),
        "time begins with the restore"
    );
    clock.advance(Duration::from_millis(1));
    assert_eq!((value.get(&at), list.len(&at), map.len(&at)), (None, 0, 0));
}
