//! Good files, however they are cut.

use super::{Row, file, folder, gzip, row};
use crate::files::FileSource;
use crate::testing::{Reading, read_all};
use proptest::prelude::*;
use std::io::Write;
use std::time::Duration;

#[test]
fn csv_is_read_by_the_names_in_its_header() {
    let text = "\u{feff}name,more,id\r\na,x,1\r\n\r\n\"b, \"\"c\"\"\nd\",,2\r\ne\"f,x,3";
    let (_folder, path) = file("rows.csv", text.as_bytes());
    let got = read_all(&FileSource::csv::<Row>(&path), 2);
    assert_eq!(got.fault, None);
    assert_eq!(
        got.values,
        [row(1, "a"), row(2, "b, \"c\"\nd"), row(3, "e\"f")]
    );
}

#[test]
fn a_position_names_file_and_line() {
    let (_folder, path) = file("rows.csv", b"id,name\n1,\"a\nb\"\n\n2,c\n");
    let source = FileSource::csv::<Row>(&path);
    let mut reading = Reading::open(&source, 0, 1).unwrap();
    reading.until(|records| records.len() == 2).unwrap();
    assert_eq!(reading.position(), format!("{}:5", path.display()));
}

#[test]
fn gzip_is_told_by_its_first_bytes_and_may_have_several_members() {
    let mut bytes = gzip(b"{\"id\":1,\"name\":\"a\"}\n{\"id\":2,");
    bytes.extend(gzip(b"\"name\":\"b\"}\n"));
    let (_folder, path) = file("rows", &bytes);
    let got = read_all(&FileSource::json_lines::<Row>(&path), 1);
    assert_eq!(got.fault, None);
    assert_eq!(got.values, [row(1, "a"), row(2, "b")]);
}

#[test]
fn folders_files_and_lists_are_read_in_order() {
    let folder = folder(&[
        ("b", b"3\n4"),
        ("a", b"1\n2\n"),
        (".hidden", b"no\n"),
        ("c", b""),
    ]);
    std::fs::create_dir(folder.path().join("folder")).unwrap();
    let (_other, path) = file("z", b"5\n");
    let got = read_all(&FileSource::lines(folder.path()).and(&path), 1);
    assert_eq!(got.fault, None);
    assert_eq!(got.values, ["1", "2", "3", "4", "5"]);
}

#[test]
fn csv_may_be_split_where_its_author_says_so() {
    let mut text = String::from("id,name\n");
    for id in 0..500 {
        text.push_str(&format!("{id},name {id}\n"));
    }
    let (_folder, path) = file("rows.csv", text.as_bytes());
    let source = FileSource::csv::<Row>(&path)
        .splittable(true)
        .range_bytes(100)
        .block_bytes(64);
    let mut got = read_all(&source, 3).values;
    got.sort_by_key(|row| row.id);
    let want: Vec<_> = (0..500).map(|id| row(id, &format!("name {id}"))).collect();
    assert_eq!(got, want);
    let last = read_all(&source, 1).position;
    assert_eq!(
        last,
        format!("{}@{}", path.display(), text.len() - "499,name 499\n".len())
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_line_is_read_once_however_the_file_is_cut(
        lines in prop::collection::vec("[a-z]{0,12}", 0..60),
        newline_at_end: bool,
        range in 1u64..40,
        block in 16usize..64,
        parallelism in 1u32..4,
    ) {
        let mut text = lines.join("\n");
        if newline_at_end {
            text.push('\n');
        }
        let (_folder, path) = file("lines", text.as_bytes());
        let source = FileSource::lines(&path).range_bytes(range).block_bytes(block);
        let got = read_all(&source, parallelism);
        prop_assert_eq!(got.fault, None);
        let (mut got, mut want) = (got.values, text.lines().map(str::to_owned).collect::<Vec<_>>());
        got.sort();
        want.sort();
        prop_assert_eq!(got, want);
    }
}

#[test]
fn following_sees_appended_lines_new_files_and_truncation() {
    let folder = folder(&[("a", b"1\n2")]);
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    let source = FileSource::lines(folder.path()).poll_interval(Duration::from_millis(5));
    let mut reading = Reading::open(&source, 0, 1).unwrap();
    let mut next = |count: usize| {
        assert!(!reading.until(|records| records.len() == count).unwrap());
        reading
            .take()
            .into_iter()
            .map(|(_, line)| line)
            .collect::<Vec<_>>()
    };
    assert_eq!(next(1), ["1"], "half a line is not read");
    let mut growing = std::fs::File::options().append(true).open(&a).unwrap();
    growing.write_all(b"2\n3\n").unwrap();
    assert_eq!(next(2), ["22", "3"]);
    std::fs::write(b, "4\n").unwrap();
    assert_eq!(next(1), ["4"]);
    std::fs::write(&a, "5\n").unwrap();
    assert_eq!(next(1), ["5"]);
}

#[test]
fn a_reader_that_is_dropped_leaves_no_thread_behind() {
    let threads = || std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    let (_folder, path) = file("lines", &b"line\n".repeat(1_000_000));
    let source = FileSource::lines(&path).follow();
    let before = threads();
    for _ in 0..50 {
        let mut reading = Reading::open(&source, 0, 1).unwrap();
        reading.until(|records| !records.is_empty()).unwrap();
    }
    // Other tests come and go meanwhile; fifty threads would show.
    assert!(threads() < before + 40);
}

/// Run by hand: `cargo test --release -p tidegate-connectors csv_throughput -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn csv_throughput() {
    #[derive(serde::Deserialize)]
    #[allow(dead_code)]
    struct Flight {
        departed_at: String,
        carrier: String,
        dep_delay_min: i32,
        distance_miles: u32,
        flight: u32,
    }
    let path = std::env::var("FLIGHTS").expect("FLIGHTS names the CSV file");
    let source = FileSource::csv::<Flight>(path).on_error(crate::OnError::Skip);
    // What this thread computes, whatever else the machine does meanwhile.
    let cpu_ns = || -> f64 {
        let times = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        times.split(' ').next().unwrap().parse().unwrap()
    };
    for _ in 0..5 {
        let mut reading = Reading::open(&source, 0, 1).unwrap();
        let (began, cpu, mut rows) = (std::time::Instant::now(), cpu_ns(), 0);
        while !reading.until(|records| records.len() >= 1000).unwrap() {
            rows += reading.take().len();
        }
        let (wall, cpu) = (began.elapsed().as_secs_f64(), (cpu_ns() - cpu) / 1e9);
        let rate = |seconds| rows as f64 / seconds / 1e6;
        eprintln!(
            "{:.2} M rows/s of CPU time, {:.2} of wall time",
            rate(cpu),
            rate(wall)
        );
    }
}
