//! Every NEXMark query on the engine, at two parallelisms, against the bare loop: as many results,
//! and the same digest over them.

use integration_tests::processes::run;
use serde_json::Value;

const EVENTS: &str = "60_000";

/// The queries, as the program itself lists them.
fn queries() -> Vec<String> {
    let line = run("nexmark", ["--query", "?"]).badly(2, &["unknown query"]);
    let (_, known) = line.split_once("known are ").expect("it lists them");
    known.split(", ").map(str::to_owned).collect()
}

/// The number of results and their digest.
fn digest(query: &str, mode: &str, more: &[&str]) -> (u64, String) {
    let arguments = [
        "--query", query, "--mode", mode, "--events", EVENTS, "--json",
    ];
    let printed = run("nexmark", arguments.iter().chain(more)).well();
    let report: Value = serde_json::from_str(&printed).expect("a line of JSON");
    assert_eq!(report["events"], 60_000, "{report}");
    let results = report["results"].as_u64().expect("a count");
    (results, report["digest"].to_string())
}

fn engine_answers_as_the_bare_loop(mode: &str) {
    let queries = queries();
    assert_eq!(queries.len(), 22);
    for query in &queries {
        let bare = digest(query, mode, &["--baseline"]);
        assert!(bare.0 > 0, "{query} has no results to compare");
        for parallelism in ["1", "2"] {
            let engine = digest(query, mode, &["--parallelism", parallelism]);
            assert_eq!(engine, bare, "{query} {mode} at parallelism {parallelism}");
        }
    }
}

#[test]
fn full_events_are_answered_as_by_bare_loops() {
    engine_answers_as_the_bare_loop("full");
}

#[test]
fn lean_events_are_answered_as_by_bare_loops() {
    engine_answers_as_the_bare_loop("lean");
}
