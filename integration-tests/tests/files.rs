//! Whole jobs from files to files.

use flate2::{Compression, write::GzEncoder};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::Write;
use std::path::Path;
use tidegate::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Row {
    id: u64,
    name: String,
}

fn rows(n: u64) -> String {
    let mut text = String::from("name,ignored,id\n");
    for id in 0..n {
        let name = if id % 100 == 7 { format!("\"row, {id}\"") } else { format!("row {id}") };
        text.push_str(&format!("{name},x,{id}\n"));
    }
    text
}

fn gzip(path: &Path, text: &str) {
    let mut encoder = GzEncoder::new(fs::File::create(path).unwrap(), Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap();
}

/// The lines of all whole files in a folder, sorted.
fn lines(folder: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        assert!(name.starts_with("part-"), "{name} was left behind");
        lines.extend(fs::read_to_string(path).unwrap().lines().map(str::to_owned));
    }
    lines.sort();
    lines
}

#[test]
fn csv_to_csv_is_the_same_at_every_parallelism() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("in");
    fs::create_dir(&input).unwrap();
    for n in 0..4 {
        fs::write(input.join(format!("{n}.csv")), rows(20_000)).unwrap();
    }
    gzip(&input.join("4.csv.gz"), &rows(20_000));
    let out = folder.path().join("out");
    let mut outputs = Vec::new();
    for parallelism in [1, 2, 3] {
        let env = StreamEnv::with_parallelism(parallelism);
        env.source("rows", FileSource::csv::<Row>(&input))
            .filter(|row| row.id % 2 == 1)
            .sink("out", FileSink::csv(&out).header(false).roll_records(9_000));
        let result = env.execute("csv to csv").expect("the job runs");
        assert_eq!(result.records_in("rows"), 100_000);
        outputs.push(lines(&out));
    }
    assert_eq!(outputs[0].len(), 50_000);
    assert!(outputs[0].contains(&"1007,\"row, 1007\"".to_owned()));
    assert_eq!(outputs[0], outputs[1]);
    assert_eq!(outputs[0], outputs[2]);
}
