//! Graphs that can't run: all their problems are told at once, and each names its operator.

use tidegate::engine::checkpoint::CheckpointSettings;
use tidegate::engine::operators::Map;
use tidegate::prelude::*;

#[test]
fn a_bad_graph_lists_all_its_problems() {
    let env = StreamEnv::with_parallelism(1);
    let _unused = env
        .source("lonely", Generator::new(1, |n| n))
        .map(|n| n)
        .name("last");
    env.source("one", Generator::new(1, |n| n))
        .uid("x")
        .parallelism(0)
        .sink("a", BlackHole);
    env.source("two", Generator::new(1, |n| n))
        .uid("x")
        .parallelism(200)
        .sink("b", BlackHole);
    let error = env.execute("bad").expect_err("it does not run").to_string();
    for part in [
        "'last'",
        "without a sink",
        "parallelism 0",
        "above its max_parallelism",
        "uid 'x'",
    ] {
        assert!(error.contains(part), "{part} is missing in: {error}");
    }
}

/// What is wrong with the job, one line a problem.
fn problems(env: &StreamEnv) -> Vec<String> {
    let error = env.graph("bad").expect_err("it can't run");
    let Error::Graph(error) = error else {
        panic!("{error}");
    };
    error.problems
}

fn same() -> Map<fn(u64) -> u64> {
    Map::new(|n: u64| n)
}

#[test]
fn vertices_without_an_input_or_an_output_are_told_of() {
    let env = StreamEnv::with_parallelism(2);
    let graph = env.actors();
    let _unheard = graph.source("unheard", Generator::new(1, |n: u64| n));
    let numbers = graph.source("numbers", Generator::new(1, |n: u64| n));
    let (unfed, dead_end) = (
        graph.vertex("unfed", same()),
        graph.vertex("dead end", same()),
    );
    let sink = graph.sink("sink", BlackHole);
    let _dry = graph.sink::<u64, _>("dry", BlackHole);
    graph
        .edge(&unfed, &sink, Forward::default())
        .edge(&numbers, &dead_end, Forward::default());
    let onwards = "no edge leads on from it; add one, to a sink at the latest";
    let no_input = "no edge leads to it; add one, or take it out";
    assert_eq!(
        problems(&env),
        [
            format!("'unheard': {onwards}"),
            format!("'dead end': {onwards}"),
            format!("'unfed': {no_input}"),
            format!("'dry': {no_input}"),
        ]
    );
}

#[test]
fn each_circle_of_edges_is_told_of() {
    let env = StreamEnv::with_parallelism(1);
    let graph = env.actors();
    let numbers = graph.source("numbers", Generator::new(1, |n: u64| n));
    let [a, b, c, own] = ["a", "b", "c", "own"].map(|name| graph.vertex(name, same()));
    let sink = graph.sink("sink", BlackHole);
    graph
        .edge(&numbers, &a, Forward::default())
        .edge(&a, &b, Forward::default())
        .edge(&b, &c, Rebalance::default())
        .edge(&c, &a, Forward::default())
        .edge(&c, &own, Forward::default())
        .edge(&own, &own, Forward::default())
        .edge(&own, &sink, Forward::default());
    let why = "the edges go in a circle, in which the input would never end; take one of them out";
    assert_eq!(
        problems(&env),
        [
            format!("'a' -> 'b' -> 'c' -> 'a': {why}"),
            format!("'own' -> 'own': {why}"),
        ]
    );
}

#[test]
fn branches_that_nobody_takes_are_told_of() {
    let env = StreamEnv::with_parallelism(1);
    let (used, unused) = env.source("forked", Generator::new(1, |n: u64| n)).fork();
    drop(unused);
    used.sink("out", BlackHole);
    let _boxed = env.source("boxed", Generator::new(1, |n: u64| n)).boxed();
    let tag = SideOutput::<u64>::new("late");
    let (main, _late) = env
        .source("sides", Generator::new(1, |n: u64| n))
        .side_output(&tag);
    main.sink("main", BlackHole);
    let graph = env.actors();
    let numbers = graph.source("by hand", Generator::new(1, |n: u64| n));
    let sink = graph.sink("sink", BlackHole);
    graph.edge(&numbers, &sink, Forward::default());
    let _side = numbers.side_output(&tag);
    assert_eq!(
        problems(&env),
        [
            "'forked': 1 of the 2 streams behind it end without a sink; add one to each",
            "'boxed': 1 of the 1 streams behind it end without a sink; add one to each",
            "'sides': its side stream 'late' ends without a sink; add one",
            "'by hand': its side stream 'late' ends without a sink; add one",
        ]
    );
}

struct Unknown;

#[test]
fn what_only_the_whole_graph_tells_comes_with_all_else() {
    let mut env = StreamEnv::with_parallelism(200);
    let mut checkpoints = CheckpointSettings::every(Duration::from_secs(1));
    checkpoints.unaligned = true;
    env.settings_mut().checkpoints = Some(checkpoints);
    let aligned = WatermarkStrategy::monotonous()
        .timestamps(|_: &Unknown| 1)
        .align("group", Duration::from_secs(1));
    env.source("numbers", Generator::new(1, |_| Unknown))
        .rebalance()
        .watermarks(aligned)
        .name("misplaced")
        .map(|_| 0u64)
        .key_by(|n| *n)
        .window(Session::event_time(Duration::from_secs(1)))
        .trigger(DeltaTrigger::new(1.0, |_: &u64, _: &u64| 0.0))
        .count()
        .sink("out", BlackHole);
    let all = problems(&env).join("\n");
    for part in [
        "parallelism 200 is above its max_parallelism 128",
        "'misplaced': an aligned watermark strategy stands behind an exchange",
        "records in flight from 'numbers' to 'misplaced -> map' can't be kept",
        "'window': this trigger can't merge windows, but sessions merge",
    ] {
        assert!(all.contains(part), "{part} is missing in: {all}");
    }
}
