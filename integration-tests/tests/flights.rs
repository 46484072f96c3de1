//! The main job against answers that a program other than Tidegate has computed, at every
//! parallelism: the bundled January, and the whole year where it lies beside the checkout.

use flate2::read::GzDecoder;
use integration_tests::processes::{root, run};
use integration_tests::tables::rows;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

const QUERIES: [(&str, &str); 3] = [
    ("carrier-day", "carrier-day-delays.csv"),
    ("tailnum-sessions", "tailnum-sessions-24h.csv"),
    ("weather-join", "weather-join-delays.csv"),
];

/// A piece of the data with its answers.
struct Data {
    flights: PathBuf,
    weather: PathBuf,
    expected: PathBuf,
    good: u64,
    incomplete: usize,
}

impl Data {
    /// The rows of an answer, which may be gzipped.
    fn answer(&self, name: &str) -> Vec<String> {
        let plain = self.expected.join(name);
        if plain.is_file() {
            return rows(&plain);
        }
        let file = fs::File::open(self.expected.join(format!("{name}.gz")));
        let mut text = String::new();
        GzDecoder::new(file.expect("the answer is there"))
            .read_to_string(&mut text)
            .expect("the answer is text");
        let mut rows: Vec<_> = text.lines().skip(1).map(str::to_owned).collect();
        rows.sort();
        rows
    }

    /// Asks a query, and holds the answer against the known one.
    fn check(&self, query: &str, answer: &[String], parallelism: u32) {
        let folder = tempfile::tempdir().expect("there is room for files");
        let output = folder.path().join("out");
        let arguments = [
            ["--query", query],
            ["--input", utf8(&self.flights)],
            ["--weather", utf8(&self.weather)],
            ["--output", utf8(&output)],
            ["--parallelism", &parallelism.to_string()],
        ];
        let what = format!("{query} at parallelism {parallelism}");
        let printed = run("flights", arguments.iter().flatten()).well();
        let got = rows(&output);
        let differs = got.iter().zip(answer).find(|(got, want)| got != want);
        assert!(
            got.len() == answer.len() && differs.is_none(),
            "{what}: {} rows, and {} in the answer; the first pair that differs: {differs:?}",
            got.len(),
            answer.len(),
        );
        let summary = printed.lines().last().unwrap_or_default();
        let incomplete = self.incomplete;
        let counts = format!(" records, 0 late, {incomplete} dead letters, ");
        assert!(summary.contains(&counts), "{what}: {summary}");
        if query != "weather-join" {
            let good = format!("{} records, ", self.good);
            assert!(summary.starts_with(&good), "{what}: {summary}");
        }
        let letters = fs::read_to_string(format!("{}.dead-letters.jsonl", output.display()));
        let letters = letters.expect("dead letters are beside the output");
        assert_eq!(letters.lines().count(), incomplete, "{what}");
        assert!(letters.lines().all(|letter| letter.contains("column '")));
    }
}

fn utf8(path: &Path) -> &str {
    path.to_str().expect("temporary folders have plain names")
}

fn january() -> Data {
    let data = root().join("examples/data");
    Data {
        flights: data.join("flights-2013-01.csv"),
        weather: data.join("weather-2013-01.csv"),
        expected: data.join("expected"),
        good: 26_340,
        incomplete: 606,
    }
}

fn at_every_parallelism(data: &Data, (query, answer): (&str, &str)) {
    let answer = data.answer(answer);
    assert!(!answer.is_empty());
    for parallelism in [1, 2, 7] {
        data.check(query, &answer, parallelism);
    }
}

#[test]
fn delays_per_carrier_and_day_are_those_of_another_program() {
    at_every_parallelism(&january(), QUERIES[0]);
}

#[test]
fn sessions_per_aircraft_are_those_of_another_program() {
    at_every_parallelism(&january(), QUERIES[1]);
}

#[test]
fn delays_by_visibility_are_those_of_another_program() {
    at_every_parallelism(&january(), QUERIES[2]);
}

#[test]
fn the_whole_year_is_answered_where_it_is_there() {
    let data = root().join("../shared/data");
    let year = Data {
        flights: data.join("flights-2013.csv.gz"),
        weather: data.join("weather-2013.csv"),
        expected: data.join("expected"),
        good: 327_346,
        incomplete: 9_430,
    };
    if !year.flights.is_file() {
        println!("skipped: {} is not there", year.flights.display());
        return;
    }
    for query in QUERIES {
        at_every_parallelism(&year, query);
    }
}
