//! What has to be true when a whole job has come to its end.

use super::build::{Builder, COST, Surroundings};
use super::items::{Item, Splits};
use super::plan::{Ending, Plan};
use crate::network::Network;
use std::collections::{BTreeMap, BTreeSet};

/// What there is to see.
pub struct Shown<'a> {
    pub around: &'a Surroundings,
    pub sinks: u32,
    /// Sinks that show the records of each key in order.
    pub in_order: &'a [u32],
    /// The input was cut short by a drain.
    pub cut: bool,
    /// Records may have come more than once.
    pub repeats: bool,
}

/// Holds what the outside shows against a run in which nothing goes wrong.
pub fn check(plan: &Plan, shown: &Shown<'_>) {
    let whole = plan;
    let mut plan = plan.clone();
    let reached = shown
        .around
        .reached
        .lock()
        .expect("no panic inside")
        .clone();
    for (source, lengths) in plan.inputs.iter_mut().enumerate() {
        for (split, length) in lengths.iter_mut().enumerate() {
            let place = (source as u32, split as u32);
            if shown.cut {
                *length = reached.get(&place).map_or(*length, |n| (*n).min(*length));
            }
        }
    }
    let outside = shown.around.outside.lock().expect("no panic inside");
    outside.check_committed();
    for sink in shown.in_order.iter().filter(|_| !shown.repeats) {
        let mut heads = BTreeMap::new();
        for item in outside.visible(*sink) {
            let before = heads.insert(item.key, item.n);
            let (key, n) = (item.key, item.n);
            assert!(
                before < Some(n),
                "I4: sink {sink}, key {key}: {n} after {before:?}"
            );
        }
    }
    let all = |of: &super::outside::Outside| -> Vec<Vec<Item>> {
        let visible = (0..shown.sinks).map(|sink| of.visible(sink));
        visible.collect()
    };
    let found = all(&outside);
    if matches!(plan.ending, Ending::Late | Ending::LateSessions) {
        // What is late depends on who was faster; that each record is counted once does not.
        compare("all", &ids(&plan), &found.concat(), &BTreeSet::new());
        return;
    }
    let undisturbed = |plan: &Plan| {
        let quiet = Surroundings::default();
        let mut builder = Builder::new(plan, &quiet, plan.seed, true);
        let job = builder.job(false);
        Network::new(job, plan.seed, builder.doors, COST).run();
        all(&quiet.outside.lock().expect("no panic inside"))
    };
    let expected = undisturbed(&plan);
    // What an attempt showed and no later one came to before the drain is beyond the cut.
    let repeated = if shown.repeats {
        undisturbed(whole)
    } else {
        Vec::new()
    };
    for (sink, (expected, found)) in expected.iter().zip(&found).enumerate() {
        let again = repeated.get(sink).into_iter().flatten().collect();
        compare(&format!("sink {sink}"), expected, found, &again);
    }
}

/// All records of the input.
fn ids(plan: &Plan) -> Vec<Item> {
    let mut all = Vec::new();
    for (source, lengths) in plan.inputs.iter().enumerate() {
        for (split, length) in lengths.iter().enumerate() {
            let item = |n| Splits::item(source as u32, split as u32, n);
            all.extend((0..*length).map(item).map(|item| Item { value: 0, ..item }));
        }
    }
    all
}

/// Holds one output against another; records `again` may be there more often than they should.
fn compare(what: &str, expected: &[Item], found: &[Item], again: &BTreeSet<&Item>) {
    let mut difference: BTreeMap<&Item, i64> = BTreeMap::new();
    for item in found {
        *difference.entry(item).or_default() += 1;
    }
    for item in expected {
        *difference.entry(item).or_default() -= 1;
    }
    difference.retain(|item, times| *times < 0 || *times > 0 && !again.contains(item));
    let first: Vec<_> = difference.iter().take(8).collect();
    assert!(
        difference.is_empty(),
        "I1, I2, I3: {what}: {} records differ, more than there should be where above 0: {first:?}",
        difference.len()
    );
}
