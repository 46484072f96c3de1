//! Files read on by later attempts: each record is read once, wherever the earlier ones were cut off.

use super::{Row, file, folder, gzip, row};
use crate::OnError;
use crate::files::{FileSource, Format};
use crate::testing::{Attempt, Reading, read_in_attempts};
use proptest::prelude::*;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Duration;
use tidegate_engine::fault::Flow;
use tidegate_engine::source::{Source, SourceReader};

fn small<F: Format>(source: FileSource<F>) -> FileSource<F> {
    source.block_bytes(48).range_bytes(100)
}

fn csv(rows: &[Row]) -> Vec<u8> {
    let mut text = b"id,name\n".to_vec();
    for row in rows {
        let name = row.name.replace('"', "\"\"");
        text.extend(format!("{},\"{name}\"\n", row.id).bytes());
    }
    text
}

fn json(rows: &[Row]) -> Vec<u8> {
    let lines = rows.iter().map(|row| serde_json::to_vec(row).unwrap());
    lines
        .flat_map(|mut line| {
            line.push(b'\n');
            line
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn each_record_is_read_once_wherever_it_is_cut(
        names in prop::collection::vec("[a-z\n\",]{0,9}", 0..80),
        files in 1usize..4,
        zipped: bool,
        as_csv: bool,
        cuts in prop::collection::vec((1u32..4, 0usize..20, 0usize..8), 0..5),
        budget in 1usize..12,
        last in 1u32..4,
    ) {
        let mut rows: Vec<Row> = Vec::new();
        rows.extend(names.iter().enumerate().map(|(n, name)| row(n as u64, name)));
        let folder = folder(&[]);
        let each = rows.len().div_ceil(files).max(1);
        fs::write(folder.path().join("empty"), b"").unwrap();
        for (n, rows) in rows.chunks(each).enumerate() {
            let text = if as_csv { csv(rows) } else { json(rows) };
            let text = if zipped { gzip(&text) } else { text };
            fs::write(folder.path().join(n.to_string()), text).unwrap();
        }
        let read = if as_csv {
            read_in_attempts(&small(FileSource::csv::<Row>(folder.path())), &cuts, budget, last)
        } else {
            let source = small(FileSource::json_lines::<Row>(folder.path()));
            read_in_attempts(&source, &cuts, budget, last)
        };
        let mut read = read.unwrap();
        read.sort_by_key(|row| row.id);
        prop_assert_eq!(read, rows);
    }

    #[test]
    fn ranges_of_csv_and_bad_records_are_passed_once_too(
        rows in 0usize..80,
        cuts in prop::collection::vec((1u32..4, 0usize..20, 0usize..8), 0..5),
        budget in 1usize..12,
        last in 1u32..4,
    ) {
        let mut text = String::from("id,name\n");
        for id in 0..rows {
            text.push_str(&format!("{id},x\n"));
            if id % 7 == 3 {
                text.push_str(&format!("{}\n", "y".repeat(id * 3)));
            }
        }
        let (_folder, path) = file("rows", text.as_bytes());
        let source = small(FileSource::csv::<Row>(path)).splittable(true);
        let source = source.max_record_bytes(60).on_error(OnError::Skip);
        let mut read = read_in_attempts(&source, &cuts, budget, last).unwrap();
        read.sort_by_key(|row| row.id);
        let want: Vec<_> = (0..rows as u64).map(|id| row(id, "x")).collect();
        prop_assert_eq!(read, want);
    }
}

/// Reads `count` records, and goes on in another attempt.
fn cut<S: Source>(source: &S, count: usize) -> (Vec<S::Item>, Flow<Reading<S>>) {
    let mut reading = Reading::begin(source, 0, 1, &Attempt::first()).unwrap();
    reading.some(count, 1).unwrap();
    let read = reading.take().into_iter().map(|(_, value)| value).collect();
    let splits = reading.reader.splits().unwrap();
    drop(reading);
    (
        read,
        Reading::begin(source, 0, 1, &Attempt::after(1, vec![splits])),
    )
}

#[test]
fn a_restored_reader_knows_the_line() {
    for zipped in [false, true] {
        let text = b"id,name\n1,\"a\nb\"\n2,c\n\n3,d\n";
        let text = if zipped { gzip(text) } else { text.to_vec() };
        let (_folder, path) = file("rows.csv", &text);
        let source = FileSource::csv::<Row>(&path);
        let (read, then) = cut(&source, 1);
        assert_eq!(read, [row(1, "a\nb")]);
        let mut then = then.unwrap();
        then.some(1, 1).unwrap();
        assert_eq!(then.position(), format!("{}:4", path.display()));
        then.some(1, 1).unwrap();
        assert_eq!(then.position(), format!("{}:6", path.display()));
    }
}

fn fault_after(change: impl FnOnce(&Path), zipped: bool) -> String {
    let text: String = (0..1000).map(|n| format!("{n}\n")).collect();
    let text = if zipped {
        gzip(text.as_bytes())
    } else {
        text.into_bytes()
    };
    let (_folder, path) = file("lines", &text);
    let source = FileSource::lines(&path).block_bytes(64);
    let mut reading = Reading::begin(&source, 0, 1, &Attempt::first()).unwrap();
    reading.some(500, 10).unwrap();
    let splits = reading.reader.splits().unwrap();
    drop(reading);
    change(&path);
    let mut then = Reading::begin(&source, 0, 1, &Attempt::after(1, vec![splits])).unwrap();
    then.until(|_| false).unwrap_err().to_string()
}

#[test]
fn a_file_that_is_gone_or_shorter_is_named() {
    let fault = fault_after(|path| fs::remove_file(path).unwrap(), false);
    assert!(
        fault.contains("lines is gone, and the job goes on from a checkpoint"),
        "{fault}"
    );
    let fault = fault_after(|path| fs::write(path, "0\n1\n").unwrap(), false);
    assert!(
        fault.contains("lines has only 4 bytes, and the job goes on"),
        "{fault}"
    );
    let fault = fault_after(|path| fs::write(path, gzip(b"0\n1\n")).unwrap(), true);
    assert!(
        fault.contains("lines has only 4 bytes, and the job goes on"),
        "{fault}"
    );
}

#[test]
fn bounded_reading_goes_on_with_the_files_that_were_there() {
    let folder = folder(&[("a", b"1\n2\n"), ("b", b"3\n")]);
    let source = FileSource::lines(folder.path());
    let (read, then) = cut(&source, 1);
    assert_eq!(read, ["1"]);
    fs::write(folder.path().join("c"), "new\n").unwrap();
    let mut then = then.unwrap();
    then.until(|_| false).unwrap();
    assert_eq!(
        then.take()
            .into_iter()
            .map(|(_, line)| line)
            .collect::<Vec<_>>(),
        ["2", "3"]
    );
}

#[test]
fn followed_files_are_known_to_later_attempts_at_any_parallelism() {
    let folder = folder(&[]);
    let write = |name: &str, text: &[u8]| {
        let path = folder.path().join(name);
        let mut file = fs::File::options()
            .append(true)
            .create(true)
            .open(path)
            .unwrap();
        file.write_all(text).unwrap();
    };
    let source = FileSource::lines(folder.path()).poll_interval(Duration::from_millis(5));
    let (mut attempt, mut read, mut want) = (Attempt::first(), Vec::new(), Vec::new());
    for (n, parallelism) in [2, 3, 1, 2].into_iter().enumerate() {
        let mut expected = 0;
        for name in ["a", "b", "c", "d"] {
            write(name, format!("{name}{n}\n").as_bytes());
            want.push(format!("{name}{n}"));
            expected += 1;
        }
        let zipped = format!("zipped {n}");
        write(&zipped, &gzip(format!("{zipped}\n").as_bytes()));
        want.push(zipped);
        expected += 1;
        let mut readings: Vec<_> = (0..parallelism)
            .map(|subtask| Reading::begin(&source, subtask, parallelism, &attempt).unwrap())
            .collect();
        let count = |readings: &[Reading<_>]| readings.iter().map(Reading::kept).sum::<usize>();
        while count(&readings) < expected {
            readings
                .iter_mut()
                .for_each(|reading| reading.once(7).unwrap());
        }
        // What is not there must not come either.
        for _ in 0..20 {
            readings
                .iter_mut()
                .for_each(|reading| reading.once(7).unwrap());
        }
        let splits = readings.iter_mut().map(|r| {
            read.extend(r.take().into_iter().map(|(_, line)| line));
            r.reader.splits().unwrap()
        });
        attempt = Attempt::after(n as u64 + 1, splits.collect());
        if n == 1 {
            fs::remove_file(folder.path().join("zipped 0")).unwrap();
        }
    }
    read.sort();
    want.sort();
    assert_eq!(read, want);
}

#[test]
fn a_followed_file_that_was_removed_is_forgotten() {
    let folder = folder(&[("a", b"1\n"), ("b", b"2\n")]);
    let source = FileSource::lines(folder.path()).poll_interval(Duration::from_millis(5));
    let mut reading = Reading::begin(&source, 0, 1, &Attempt::first()).unwrap();
    reading.some(2, 10).unwrap();
    assert_eq!(reading.reader.splits().unwrap().len(), 2);
    fs::remove_file(folder.path().join("a")).unwrap();
    while reading.reader.splits().unwrap().len() == 2 {
        reading.once(10).unwrap();
    }
    fs::write(folder.path().join("a"), "3\n").unwrap();
    reading.some(1, 10).unwrap();
    assert_eq!(reading.take().pop().unwrap().1, "3");
}
