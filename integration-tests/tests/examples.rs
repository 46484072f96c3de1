//! The small examples, run as a user runs them: the same answers at every parallelism, and plans that can be read.

/// The example that shows how an operator is tested; its tests run with these.
#[path = "../../examples/custom_operator.rs"]
#[allow(dead_code, reason = "its `main` is not called")]
mod custom_operator;

use integration_tests::processes::{root, run};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;

const SMALL: [&str; 4] = ["wordcount", "actor_graph", "late_data", "custom_operator"];

/// What an example prints at a parallelism.
fn printed(name: &str, parallelism: &str, more: &[&str]) -> String {
    let arguments = ["--parallelism", parallelism];
    run(name, arguments.iter().chain(more)).well()
}

/// The lines of a text, sorted: which of two subtasks prints first is left to chance.
fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

/// A text without the numbers of the subtasks that printed it.
fn unprefixed(text: &str) -> String {
    let lines = text.lines();
    let lines = lines.map(|line| line.split_once("> ").map_or(line, |(_, rest)| rest));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_job_that_is_over_at_once_tells_its_progress_once() {
    let ended = run("wordcount", ["--parallelism", "2"]);
    assert_eq!(ended.stderr.lines().count(), 1, "{ended:#?}");
    for part in [" s  read 22 (", "/s)  written 174"] {
        assert!(ended.stderr.contains(part), "{part} is missing: {ended:#?}");
    }
    let silent = run("wordcount", ["--progress", "off"]);
    assert_eq!((silent.code, silent.stderr.as_str()), (Some(0), ""));
}

#[test]
fn wordcount_counts_as_a_plain_loop_does() {
    let text = fs::read_to_string(root().join("examples/data/tide-gates.txt")).expect("bundled");
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let words = text.split(|c: char| !c.is_alphanumeric() && c != '\'');
    for word in words.filter(|word| !word.is_empty()) {
        *counts.entry(word.to_lowercase()).or_default() += 1;
    }
    let mut most: Vec<(u64, &str)> = counts.iter().map(|(w, n)| (*n, w.as_str())).collect();
    most.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
    let total: u64 = counts.values().sum();
    let summary = format!(
        "{total} words, {} different, in {} lines, ",
        counts.len(),
        text.lines().count()
    );
    for parallelism in ["1", "2"] {
        let printed = printed("wordcount", parallelism, &["--top", "5"]);
        let lines: Vec<&str> = printed.lines().collect();
        let [shown @ .., last] = &lines[..] else {
            panic!("it printed nothing");
        };
        let shown: Vec<(u64, &str)> = shown.iter().map(|line| word(line)).collect();
        assert_eq!(shown, most[..5], "parallelism {parallelism}");
        assert!(last.starts_with(&summary), "{last:?} is not {summary:?}");
    }
}

/// The count and the word of a line.
fn word(line: &str) -> (u64, &str) {
    let mut cells = line.split_whitespace();
    let (word, count) = (cells.next(), cells.next());
    let count = count.and_then(|count| count.parse().ok());
    (count.expect("a count"), word.expect("a word"))
}

#[test]
fn the_graph_by_hand_plays_fizzbuzz() {
    let says = |n: u64| match (n % 3, n % 5) {
        (0, 0) => "FizzBuzz".to_owned(),
        (0, _) => "Fizz".to_owned(),
        (_, 0) => "Buzz".to_owned(),
        _ => n.to_string(),
    };
    let want: Vec<String> = (1..=45).map(says).collect();
    for (parallelism, actors) in [("1", "5 actors:"), ("2", "9 actors:")] {
        let printed = printed("actor_graph", parallelism, &["--numbers", "45"]);
        let (paper, report) = printed.split_once("\n\n").expect("two parts");
        let got: Vec<&str> = paper.split_whitespace().collect();
        assert_eq!(got, want, "parallelism {parallelism}");
        assert!(report.starts_with(actors), "{report}");
    }
}

#[test]
fn each_late_ticket_is_counted_late_or_put_aside() {
    let one = printed("late_data", "1", &["--per-second", "1000"]);
    let two = printed("late_data", "2", &["--per-second", "1000"]);
    assert_eq!(sorted(&one), sorted(&two));
    for line in [
        "=> 10 s to 20 s: 4 tickets",
        "=> 10 s to 20 s: 5 tickets, refined: it was 4",
        "=> too late, to the side output: ticket of 16 s",
    ] {
        assert!(one.contains(line), "{line} is missing in\n{one}");
    }
    assert!(one.ends_with("\n14 tickets, 1 too late\n"), "{one}");
}

#[test]
fn tides_turn_about_every_six_hours_and_gulls_are_put_aside() {
    let one = printed("custom_operator", "1", &[]);
    let two = printed("custom_operator", "2", &[]);
    assert_eq!(sorted(&one), sorted(&unprefixed(&two)));
    // In a day the water is high twice, and low twice.
    for harbour in ["Dover", "Brest", "Cuxhaven"] {
        for kind in ["high water", "low water"] {
            let of = |line: &&str| line.contains(harbour) && line.contains(kind);
            assert_eq!(
                one.lines().filter(of).count(),
                2,
                "{harbour}, {kind}:\n{one}"
            );
        }
    }
    assert_eq!(one.matches("A gull?").count(), 4, "{one}");
}

#[test]
fn plans_are_a_picture_and_json_and_nothing_runs() {
    for name in SMALL {
        for parallelism in [1u64, 2] {
            let printed = printed(name, &parallelism.to_string(), &["--plan"]);
            let json = printed.find("\n{").expect("JSON below the picture");
            let (picture, json) = printed.split_at(json);
            let plan: Value = serde_json::from_str(json).expect("all of the rest is JSON");
            let vertices = plan["vertices"].as_array().expect("vertices");
            assert!(vertices.len() >= 2, "{name}: {plan}");
            let operators = vertices.iter().filter_map(|v| v["operators"].as_array());
            for operator in operators.flatten() {
                let shown = operator["name"].as_str().expect("a name");
                assert!(
                    picture.contains(shown),
                    "{name}: {shown} is not in {picture}"
                );
            }
            let widest = vertices.iter().filter_map(|v| v["parallelism"].as_u64());
            assert_eq!(widest.max(), Some(parallelism), "{name}: {plan}");
        }
    }
}

#[test]
fn a_panic_of_user_code_is_one_line_and_exit_code_1() {
    for parallelism in ["1", "2"] {
        let ended = run("panics", ["--parallelism", parallelism]);
        assert_eq!(
            (ended.code, ended.stdout.as_str()),
            (Some(1), ""),
            "{ended:#?}"
        );
        assert_eq!(ended.stderr.lines().count(), 1, "{ended:#?}");
        for part in [
            "Error: job 'panics' failed: operator 'picky': ",
            "five thousand is too much",
            "generated record 5000",
        ] {
            assert!(ended.stderr.contains(part), "{part} is missing: {ended:#?}");
        }
    }
}
