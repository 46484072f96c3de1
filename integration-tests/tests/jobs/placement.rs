//! Who gets which record, in how many key groups, and when it is sent.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Instant;
use tidegate::prelude::*;

/// Notes the subtask that a record comes by, behind those that it came by before.
#[derive(Clone, Default)]
struct Passes {
    subtask: u32,
    most: u32,
}

impl Operator<Vec<u32>> for Passes {
    type Out = Vec<u32>;

    fn open(&mut self, context: &mut OpenContext<'_>) -> Flow {
        (self.subtask, self.most) = (context.subtask(), context.max_parallelism());
        Ok(())
    }

    fn process<C: Collector<Vec<u32>>>(
        &mut self,
        at: Timestamp,
        mut way: Vec<u32>,
        out: &mut C,
    ) -> Flow {
        way.extend([self.subtask, self.most]);
        out.collect(at, way)
    }
}

/// How many records took each way.
fn ways(out: &Collect<Vec<u32>>) -> BTreeMap<Vec<u32>, u64> {
    let mut ways = BTreeMap::new();
    for way in out.values() {
        *ways.entry(way).or_insert(0) += 1;
    }
    ways
}

#[test]
fn rescale_deals_to_the_subtasks_near_each_producer() {
    let env = StreamEnv::with_parallelism(2);
    let out = Collect::new();
    env.source("numbers", Generator::new(1_000, |_| Vec::new()))
        .parallelism(1)
        .rebalance()
        .operate("from", Passes::default())
        .rescale()
        .operate("to", Passes::default())
        .parallelism(4)
        .sink("out", out.clone());
    env.execute("rescale").expect("the job runs");
    let want = [(0, 0), (0, 1), (1, 2), (1, 3)];
    let want = want.map(|(from, to)| (vec![from, 128, to, 128], 250));
    assert_eq!(ways(&out), BTreeMap::from(want));
}

#[test]
fn global_sends_all_to_the_first_subtask() {
    let env = StreamEnv::with_parallelism(3);
    let out = Collect::new();
    env.source("numbers", Generator::new(900, |_| Vec::new()))
        .global()
        .operate("to", Passes::default())
        .sink("out", out.clone());
    env.execute("global").expect("the job runs");
    assert_eq!(ways(&out), BTreeMap::from([(vec![0, 128], 900)]));
}

#[test]
fn a_stream_has_the_key_groups_that_it_is_given() {
    let job = |parallelism| {
        let env = StreamEnv::with_parallelism(2);
        let out = Collect::new();
        env.source("numbers", Generator::new(70, |_| Vec::new()))
            .rebalance()
            .operate("few", Passes::default())
            .max_parallelism(7)
            .parallelism(parallelism)
            .sink("out", out.clone());
        (env.execute("groups"), out)
    };
    let (result, out) = job(7);
    result.expect("the job runs");
    let want: BTreeMap<_, _> = (0..7).map(|subtask| (vec![subtask, 7], 10)).collect();
    assert_eq!(ways(&out), want);
    let (result, _) = job(8);
    let error = result.expect_err("it is one too many").to_string();
    assert!(
        error.contains("'few': parallelism 8 is above its max_parallelism 7"),
        "{error}"
    );
}

#[test]
fn without_a_flush_interval_no_record_waits_for_company() {
    const ROUNDS: u64 = 300;
    let env = StreamEnv::new(EnvArgs {
        parallelism: Some(2),
        flush_interval: Some(0),
        ..EnvArgs::default()
    });
    let seen = Arc::new(AtomicU64::new(0));
    let (answers, began, mut sent) = (seen.clone(), Instant::now(), 0);
    // It sends a number when the one before has come through.
    let ping = FunctionSource::new(move |ctx: &mut SourceContext<u64>| {
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "{sent} did not come"
        );
        if answers.load(SeqCst) < sent {
            return Ok(SourceStatus::Idle(Duration::from_micros(50)));
        }
        if sent == ROUNDS {
            return Ok(SourceStatus::Done);
        }
        ctx.collect(sent);
        sent += 1;
        Ok(SourceStatus::More)
    });
    env.source("ping", ping)
        .parallelism(1)
        .disable_chaining()
        .partition_custom(|_, subtasks| subtasks - 1)
        .inspect(move |_| {
            seen.fetch_add(1, SeqCst);
        })
        .sink("out", BlackHole);
    env.execute("pings").expect("the job runs");
    // With the interval that there is by default each round takes 10 ms.
    let least = Duration::from_millis(10 * ROUNDS);
    assert!(began.elapsed() < least, "{:?}", began.elapsed());
}
