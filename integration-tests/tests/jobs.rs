//! Whole jobs in one process: right answers at every parallelism.

#[path = "jobs/by_hand.rs"]
mod by_hand;
#[path = "jobs/placement.rs"]
mod placement;
#[path = "jobs/validation.rs"]
mod validation;

use std::collections::BTreeMap;
use tidegate::prelude::*;

fn counts(parallelism: u32, n: u64) -> BTreeMap<u64, u64> {
    let env = StreamEnv::with_parallelism(parallelism);
    let out = Collect::new();
    env.source("numbers", Generator::new(n, |n| n))
        .map(|n| n % 97)
        .key_by(|n| *n)
        .fold(0u64, |count, key, _| {
            *count += 1;
            (*key, *count)
        })
        .sink("out", out.clone());
    let result = env.execute("counts").expect("the job runs");
    assert_eq!(result.records_in("numbers"), n);
    assert_eq!(result.records_out("out"), n);
    let mut highest = BTreeMap::new();
    for (key, count) in out.values() {
        let so_far = highest.entry(key).or_insert(0);
        *so_far = count.max(*so_far);
    }
    highest
}

#[test]
fn a_running_count_is_the_same_at_every_parallelism() {
    let one = counts(1, 100_000);
    assert_eq!(one.values().sum::<u64>(), 100_000);
    for parallelism in [2, 3, 7, 64] {
        assert_eq!(
            counts(parallelism, 100_000),
            one,
            "parallelism {parallelism}"
        );
    }
}

#[test]
fn streams_fork_unite_and_change_parallelism() {
    let env = StreamEnv::with_parallelism(2);
    let out = Collect::new();
    let (even, odd) = env.source("numbers", Generator::new(1000, |n| n)).fork();
    let even = even.filter(|n| n % 2 == 0).map(|n| n * 10).parallelism(3);
    let odd = odd.filter(|n| n % 2 == 1).rebalance().map(|n| n);
    even.union(odd).sink("out", out.clone());
    env.execute("fork and union").expect("the job runs");
    let mut got = out.values();
    got.sort_unstable();
    let mut want: Vec<u64> = (0..1000)
        .map(|n| if n % 2 == 0 { n * 10 } else { n })
        .collect();
    want.sort_unstable();
    assert_eq!(got, want);
}

#[test]
fn a_panic_names_operator_origin_and_message() {
    let env = StreamEnv::with_parallelism(2);
    env.source("numbers", Generator::new(u64::MAX, |n| n))
        .map(|n| {
            assert!(n != 5000, "five thousand");
            n
        })
        .name("picky")
        .key_by(|n| *n)
        .reduce(|a, b| a + b)
        .sink("out", BlackHole);
    let error = env
        .execute("panics")
        .expect_err("the job fails")
        .to_string();
    assert!(error.contains("'picky'"), "{error}");
    assert!(error.contains("five thousand"), "{error}");
    assert!(error.contains("generated record 5000"), "{error}");
}
