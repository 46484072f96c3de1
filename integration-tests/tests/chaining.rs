//! Who shares an actor with whom, and names, ids and parallelism on every kind of stream.

use tidegate::prelude::*;

/// The plan as `operators x parallelism @ task` a vertex.
fn plan(env: &StreamEnv) -> Vec<String> {
    let plan = env.graph("plan").expect("a sound graph").plan();
    let vertices = plan.vertices.iter().map(|v| {
        let names: Vec<&str> = v.operators.iter().map(|o| o.name.as_str()).collect();
        format!("{} x{} @{}", names.join(" "), v.parallelism, v.task)
    });
    vertices.collect()
}

fn edges(env: &StreamEnv) -> Vec<String> {
    let plan = env.graph("plan").expect("a sound graph").plan();
    let inputs = plan.vertices.iter().flat_map(|v| {
        v.inputs
            .iter()
            .map(move |i| format!("{} {} {}", i.from, i.kind, v.id))
    });
    inputs.collect()
}

#[test]
fn an_operator_begins_a_chain_where_it_is_told_to() {
    let env = StreamEnv::with_parallelism(2);
    let out = Collect::new();
    env.source("numbers", Generator::new(1_000, |n| n))
        .filter(|n| n % 2 == 0)
        .map(|n| n + 1)
        .name("begins")
        .start_new_chain()
        .map(|n| n * 2)
        .sink("out", out.clone());
    assert_eq!(plan(&env), ["numbers filter x2 @0", "begins map out x2 @1"]);
    assert_eq!(edges(&env), ["0 forward 1"]);
    env.execute("begins").expect("the job runs");
    let mut got = out.values();
    got.sort_unstable();
    let want: Vec<u64> = (0..1_000).step_by(2).map(|n| (n + 1) * 2).collect();
    assert_eq!(got, want);
}

#[test]
fn an_operator_that_does_not_chain_is_alone_in_its_actor() {
    let env = StreamEnv::with_parallelism(2);
    let out = Collect::new();
    env.source("numbers", Generator::new(1_000, |n| n))
        .map(|n| n + 1)
        .disable_chaining()
        .name("alone")
        .uid("alone")
        .parallelism(3)
        .map(|n| n * 2)
        .name("behind")
        .sink("out", out.clone());
    let want = ["numbers x2 @0", "alone x3 @1", "behind out x2 @2"];
    assert_eq!(plan(&env), want);
    assert_eq!(edges(&env), ["0 forward 1", "1 forward 2"]);
    env.execute("alone").expect("the job runs");
    assert_eq!(
        out.values().iter().sum::<u64>(),
        (1..=1_000).sum::<u64>() * 2
    );
}

#[test]
fn keyed_operators_and_those_behind_exchanges_begin_chains_too() {
    let env = StreamEnv::with_parallelism(2);
    let out = Collect::new();
    env.source("numbers", Generator::new(1_000, |n| n))
        .key_by(|n| n % 10)
        .reduce(|a, b| a + b)
        .start_new_chain()
        .parallelism(3)
        .rebalance()
        .map(|n| n)
        .start_new_chain()
        .start_new_chain()
        .sink("out", out.clone());
    let want = [
        "numbers x2 @0",
        "reduce x3 @1",
        "pass x2 @1",
        "map out x2 @2",
    ];
    assert_eq!(plan(&env), want);
    env.execute("keyed").expect("the job runs");
    let sums: u64 = (0..10u64)
        .map(|k| (0..100).map(|n| n * 10 + k).sum::<u64>())
        .sum();
    let mut got = out.values();
    assert_eq!(got.len(), 1_000);
    got.sort_unstable();
    assert_eq!(got[990..].iter().sum::<u64>(), sums, "the last of each key");
}

#[test]
fn a_sink_has_a_name_an_id_and_a_parallelism() {
    let env = StreamEnv::with_parallelism(3);
    let out = Collect::new();
    env.source("numbers", Generator::new(1_000, |n| n))
        .sink("out", out.clone())
        .name("results")
        .uid("results-1")
        .parallelism(1);
    assert_eq!(plan(&env), ["numbers x3 @0", "results x1 @0"]);
    assert_eq!(edges(&env), ["0 rebalance 1"]);
    let job = env.graph("sink").expect("a sound graph");
    assert_eq!(job.operators[1].uid.as_deref(), Some("results-1"));
    let result = env.execute("sink").expect("the job runs");
    assert_eq!(result.records_out("results"), 1_000);
    assert_eq!(out.values().len(), 1_000);
}

#[test]
fn windows_joins_unions_and_streams_with_a_side_have_a_parallelism() {
    let env = StreamEnv::with_parallelism(2);
    let late = SideOutput::new("late");
    let by_time = || WatermarkStrategy::monotonous().timestamps(|n: &u64| *n as i64);
    let numbers = |name| {
        env.source(name, Generator::new(100, |n| n))
            .watermarks(by_time())
    };
    let (counts, side) = numbers("a")
        .key_by(|n| n % 3)
        .window(Tumbling::event_time(Duration::from_millis(10)))
        .late_output(&late)
        .count()
        .side_output(&late);
    counts
        .parallelism(3)
        .name("counts")
        .uid("counts")
        .sink("c", BlackHole);
    side.sink("l", BlackHole);
    let pairs = numbers("b")
        .key_by(|n| *n)
        .interval_join(numbers("c").key_by(|n| *n))
        .between(0, 0)
        .map(|a, b| a + b);
    let pairs = pairs.parallelism(1).name("pairs").start_new_chain();
    let both = pairs.union(numbers("d")).parallelism(4).name("both");
    let out = Collect::new();
    both.sink("out", out.clone());
    let plan = plan(&env);
    assert!(
        plan.iter()
            .any(|v| v.starts_with("counts ") && v.contains(" x3 ")),
        "{plan:?}"
    );
    assert!(plan.iter().any(|v| v.starts_with("pairs x1 ")), "{plan:?}");
    assert!(
        plan.iter().any(|v| v.starts_with("both out x4 ")),
        "{plan:?}"
    );
    env.execute("all kinds").expect("the job runs");
    let doubled: u64 = (0..100u64).map(|n| n * 2 + n).sum();
    assert_eq!(out.values().iter().sum::<u64>(), doubled);
}

#[test]
fn a_parallelism_that_comes_too_late_for_a_side_output_is_a_problem() {
    let env = StreamEnv::with_parallelism(2);
    let tag = SideOutput::<u64>::new("side");
    let (main, side) = env
        .source("numbers", Generator::new(10, |n| n))
        .map(|n| n)
        .side_output(&tag);
    main.parallelism(3).sink("main", BlackHole);
    side.sink("side", BlackHole);
    let error = env.execute("late").expect_err("it can't run").to_string();
    assert!(
        error.contains("'map': set its parallelism before"),
        "{error}"
    );
}

#[test]
fn a_breach_of_the_grammar_fails_the_job_where_it_is_looked_for() {
    /// Says that event time went back.
    #[derive(Clone)]
    struct Backwards;
    impl Operator<u64> for Backwards {
        type Out = u64;
        fn process<C: Collector<u64>>(&mut self, at: Timestamp, n: u64, out: &mut C) -> Flow {
            out.signal(Signal::Watermark(Timestamp(100 - n as i64)))?;
            out.collect(at, n)
        }
    }
    let env = StreamEnv::with_parallelism(1);
    env.source("numbers", Generator::new(10, |n| n))
        .operate("backwards", Backwards)
        .check_grammar()
        .sink("out", BlackHole);
    let error = env.execute("checked").expect_err("it is found").to_string();
    assert!(error.contains("the watermark went back"), "{error}");
    let mut env = StreamEnv::with_parallelism(2);
    env.settings_mut().channels.check_grammar = true;
    env.source("numbers", Generator::new(10, |n| n))
        .operate("backwards", Backwards)
        .rebalance()
        .map(|n| n)
        .sink("out", BlackHole);
    let error = env
        .execute("channels")
        .expect_err("it is found")
        .to_string();
    assert!(error.contains("the watermark went back"), "{error}");
}
