//! Whole jobs from files to files.

use flate2::{Compression, write::GzEncoder};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Duration;
use tidegate::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Row {
    id: u64,
    name: String,
}

fn rows(n: u64) -> String {
    let mut text = String::from("name,ignored,id\n");
    for id in 0..n {
        let name = if id % 100 == 7 {
            format!("\"row, {id}\"")
        } else {
            format!("row {id}")
        };
        text.push_str(&format!("{name},x,{id}\n"));
    }
    text
}

fn gzip(path: &Path, text: &str) {
    let file = fs::File::create(path).expect("a test writes its folder");
    let mut encoder = GzEncoder::new(file, Compression::fast());
    encoder
        .write_all(text.as_bytes())
        .expect("a test writes its folder");
    encoder.finish().expect("a test writes its folder");
}

/// The lines of all whole files in a folder, sorted.
fn lines(folder: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for entry in fs::read_dir(folder).expect("the job wrote it") {
        let path = entry.expect("nobody removes it").path();
        let name = path.file_name().expect("an entry has a name");
        let name = name.to_string_lossy().into_owned();
        assert!(name.starts_with("part-"), "{name} was left behind");
        let text = fs::read_to_string(path).expect("it is text");
        lines.extend(text.lines().map(str::to_owned));
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

#[test]
fn records_that_do_not_parse_are_put_aside_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let (input, letters) = (folder.path().join("in"), folder.path().join("bad.jsonl"));
    fs::create_dir(&input).unwrap();
    for n in 0..3 {
        let bad: String = (0..500).map(|_| "name,x,NA\n").collect();
        fs::write(input.join(format!("{n}.csv")), rows(1000) + &bad).unwrap();
    }
    let env = StreamEnv::with_parallelism(2);
    let source = FileSource::csv::<Row>(&input).on_error(DeadLetters::file(&letters));
    let out = Collect::new();
    env.source("rows", source).sink("out", out.clone());
    let result = env.execute("dead letters").expect("the job runs");
    assert_eq!(out.values().len(), 3000);
    assert_eq!(result.dead_letters(), 1500);
    let text = fs::read_to_string(letters).unwrap();
    assert_eq!(text.lines().count(), 1500);
    for line in text.lines() {
        let letter: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(letter["source"], "rows");
        assert_eq!(letter["raw"], "name,x,NA");
    }
}

#[test]
fn a_bad_record_ends_the_job_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("rows.csv");
    fs::write(&input, rows(1000) + "name,x,NA\n").unwrap();
    let env = StreamEnv::with_parallelism(2);
    env.source("rows", FileSource::csv::<Row>(&input))
        .sink("out", BlackHole);
    let error = env.execute("fails").expect_err("the job fails").to_string();
    assert!(
        error.contains("operator 'rows': a record can't be read: column 'id': 'NA'"),
        "{error}"
    );
    assert!(
        error.contains(&format!("(on {}:1002)", input.display())),
        "{error}"
    );
}

#[test]
fn a_followed_file_is_read_as_it_grows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("growing");
    fs::write(&path, "0\n").unwrap();
    let env = StreamEnv::with_parallelism(2);
    let source = FileSource::lines(&path).poll_interval(Duration::from_millis(5));
    let append = path.clone();
    let lines = env.source("lines", source).inspect(move |line| {
        // Each line that is seen makes the next one; the fifth ends the job.
        let n: u32 = line.parse().expect("a number");
        assert!(n < 5, "five lines were seen");
        let mut file = fs::File::options()
            .append(true)
            .open(&append)
            .expect("it is there");
        writeln!(file, "{}", n + 1).expect("it can be appended to");
    });
    lines.sink("out", BlackHole);
    let error = env
        .execute("follow")
        .expect_err("the job ends itself")
        .to_string();
    assert!(error.contains("five lines were seen"), "{error}");
    assert!(error.contains("growing:6"), "{error}");
}

#[test]
fn functions_and_futures_are_sources() {
    let env = StreamEnv::with_parallelism(2);
    let mut left = 1000;
    let pulled = env.source(
        "pulled",
        FunctionSource::new(move |ctx: &mut SourceContext<i64>| {
            left -= 1;
            ctx.collect_with_timestamp(left, 1000 - left);
            ctx.emit_watermark(1000 - left);
            Ok(if left == 0 {
                SourceStatus::Done
            } else {
                SourceStatus::More
            })
        }),
    );
    let awaited = env.source(
        "awaited",
        AsyncSource::new(|mut ctx: AsyncSourceContext<i64>| async move {
            for n in 0..1000 {
                ctx.collect_with_timestamp(n, n).await;
            }
            Ok::<(), std::convert::Infallible>(())
        }),
    );
    let out = Collect::new();
    pulled
        .union(awaited)
        .key_by(|n| *n)
        .reduce(|a, _| *a)
        .sink("out", out.clone());
    env.execute("functions").expect("the job runs");
    let mut got = out.values();
    got.sort_unstable();
    let want: Vec<i64> = (0..1000).flat_map(|n| [n; 4]).collect();
    assert_eq!(got, want);
}
