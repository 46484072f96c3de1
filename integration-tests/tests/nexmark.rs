//! Every NEXMark query on the engine, at two parallelisms, against the bare loop: as many results,
//! and the same digest over them.

use integration_tests::processes::run;
use serde_json::Value;
use std::fs;
use std::path::Path;

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

#[test]
fn a_line_of_json_holds_all_that_was_measured() {
    let arguments = [
        "--query",
        "q5",
        "--mode",
        "full",
        "--events",
        EVENTS,
        "--parallelism",
        "2",
        "--json",
    ];
    let printed = run("nexmark", arguments).well();
    assert_eq!(printed.lines().count(), 1, "{printed}");
    let report: Value = serde_json::from_str(&printed).expect("a line of JSON");
    assert_eq!(report["query"], "q5");
    assert_eq!(report["mode"], "full");
    assert_eq!(report["events"], 60_000);
    assert_eq!(report["parallelism"], 2);
    let number = |key: &str| report[key].as_f64().expect("a number");
    let (seconds, rate) = (number("seconds"), number("events_per_second"));
    assert!(seconds > 0.0, "{report}");
    assert!((rate * seconds / 60_000.0 - 1.0).abs() < 1e-6, "{report}");
    assert!(number("results") > 0.0, "{report}");
    assert!(number("peak_rss_bytes") > 1e6, "{report}");
    let digest = report["digest"].as_str().expect("a text");
    let hex = digest.chars().all(|c| c.is_ascii_hexdigit());
    assert!(digest.len() == 16 && hex, "{report}");
}

/// The rows of a CSV file below its header.
fn rows(folder: &Path, name: &str, header: &str) -> Vec<String> {
    let text = fs::read_to_string(folder.join(name)).expect("it was written");
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some(header), "{name}");
    lines.map(str::to_owned).collect()
}

#[test]
fn events_and_answers_are_written_as_csv() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_string_lossy().into_owned();
    let arguments = [
        "--query", "q1", "--mode", "lean", "--events", "5_000", "--json", "--csv", &path,
    ];
    let printed = run("nexmark", arguments).well();
    let report: Value = serde_json::from_str(&printed).expect("a line of JSON");
    let bid = "auction,bidder,price,date_time";
    let auction = "id,seller,category,reserve,date_time,expires";
    // Of 50 events one is a person, three are auctions, and 46 bids.
    assert_eq!(
        rows(folder.path(), "persons.csv", "id,city,state,date_time").len(),
        100
    );
    assert_eq!(rows(folder.path(), "auctions.csv", auction).len(), 300);
    let bids = rows(folder.path(), "bids.csv", bid);
    assert_eq!(bids.len(), 4_600);
    // q1 answers with each bid.
    let results = rows(folder.path(), "results.csv", bid);
    assert_eq!(
        (results.len(), report["results"].as_u64()),
        (4_600, Some(4_600))
    );
    // With its price in another currency: 0.908 of it.
    let mut priced: Vec<String> = bids.iter().map(|bid| in_euros(bid)).collect();
    let mut got = results;
    priced.sort_unstable();
    got.sort_unstable();
    assert_eq!(got, priced);
}

/// A row of a bid with its price times 0.908, in whole units.
fn in_euros(bid: &str) -> String {
    let cells: Vec<u64> = bid
        .split(',')
        .map(|cell| cell.parse().expect("a number"))
        .collect();
    let [auction, bidder, price, at] = cells[..] else {
        panic!("{bid} has other columns");
    };
    format!("{auction},{bidder},{},{at}", price * 908 / 1000)
}
