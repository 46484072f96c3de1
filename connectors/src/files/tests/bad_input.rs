//! Bad files: one clear line or the policy, and never a panic, a hang or memory without bound.

use super::{Row, file, folder, gzip, row};
use crate::files::FileSource;
use crate::testing::read_all;
use crate::{DeadLetters, OnError};
use proptest::prelude::*;

fn fault_of(source: FileSource<impl crate::files::Format>) -> String {
    let fault = read_all(&source, 1).fault.expect("it fails").to_string();
    assert!(!fault.contains('\n'), "one line: {fault}");
    fault
}

#[test]
fn a_missing_file_is_named_before_the_job_starts() {
    let fault = fault_of(FileSource::lines("/no/such/file"));
    assert!(
        fault.starts_with("can't read /no/such/file: No such file"),
        "{fault}"
    );
    assert!(fault.ends_with("; check the path"), "{fault}");
}

#[test]
fn a_folder_without_files_is_named() {
    let folder = folder(&[]);
    let fault = fault_of(FileSource::lines(folder.path()));
    assert!(
        fault.starts_with("there is no file to read in /"),
        "{fault}"
    );
}

#[test]
fn what_can_not_be_read_is_named() {
    // Root may read everything, but nobody can read a socket as a file.
    let folder = folder(&[]);
    let path = folder.path().join("socket");
    let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let fault = fault_of(FileSource::lines(&path));
    assert!(
        fault.starts_with(&format!("can't read {}: ", path.display())),
        "{fault}"
    );
}

#[test]
fn an_empty_file_holds_no_records() {
    for bytes in [&b""[..], b"\n\n", b"id,name\n", b"id,name"] {
        let (_folder, path) = file("empty", bytes);
        let got = read_all(&FileSource::csv::<Row>(&path), 2);
        assert_eq!((got.values.len(), got.fault), (0, None));
    }
}

#[test]
fn truncated_gzip_yields_what_stands_before_the_damage() {
    let text: String = (0..100_000)
        .map(|n| format!("line {n} {}\n", n * 7919 % 10_007))
        .collect();
    let whole = gzip(text.as_bytes());
    let (_folder, path) = file("cut.gz", &whole[..whole.len() / 2]);
    let got = read_all(&FileSource::lines(&path), 1);
    assert!(got.values.len() > 10_000, "{} lines", got.values.len());
    assert!(text.lines().zip(&got.values).all(|(want, got)| want == got));
    let fault = got.fault.expect("the damage is reported").to_string();
    assert!(fault.contains("cut.gz is damaged: "), "{fault}");
}

#[test]
fn corrupt_gzip_is_reported() {
    let mut bytes = gzip("some text\n".repeat(10_000).as_bytes());
    let middle = bytes.len() / 2;
    bytes[middle..middle + 8].fill(0xff);
    let (_folder, path) = file("corrupt.gz", &bytes);
    let fault = fault_of(FileSource::lines(&path));
    assert!(fault.contains("corrupt.gz is damaged: "), "{fault}");
}

#[test]
fn a_binary_file_is_no_csv() {
    let bytes: Vec<u8> = (0..200_000u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let (_folder, path) = file("image.png", &bytes);
    let fault = fault_of(FileSource::csv::<Row>(&path));
    assert!(
        fault.contains("the file can't be read: its header is not UTF-8"),
        "{fault}"
    );
    let got = read_all(
        &FileSource::json_lines::<Row>(&path).on_error(OnError::Skip),
        1,
    );
    assert_eq!((got.values.len(), got.fault), (0, None));
    assert!(got.dead_letters > 100);
}

#[test]
fn a_missing_column_is_the_files_fault_whatever_the_policy() {
    let (_folder, path) = file("rows.csv", b"id,title\n1,a\n");
    let fault = fault_of(FileSource::csv::<Row>(&path).on_error(OnError::Skip));
    assert!(
        fault.contains("there is no column 'name': its header names id, title"),
        "{fault}"
    );
}

const BAD_ROWS: &[u8] = b"id,name\n1,a\n2\n3,c,d\nNA,e\n5,\xff\n\"6,g\n7,h\n";

#[test]
fn the_first_bad_record_ends_the_job_by_default() {
    let (_folder, path) = file("rows.csv", BAD_ROWS);
    let got = read_all(&FileSource::csv::<Row>(&path), 1);
    assert_eq!(got.values, [row(1, "a")]);
    assert!(got.position.ends_with("rows.csv:3"), "{}", got.position);
    let fault = got.fault.expect("it fails").to_string();
    assert!(
        fault.contains("the row has 1 column and the header 2"),
        "{fault}"
    );
    assert!(fault.contains(".on_error(OnError::Skip)"), "{fault}");
}

#[test]
fn lines_of_broken_text_are_passed_over_or_end_the_job() {
    let (_folder, path) = file("lines", b"one\nbro\xffken\ntwo\n");
    let got = read_all(&FileSource::lines(&path).on_error(OnError::Skip), 1);
    assert_eq!((got.fault, got.dead_letters), (None, 1));
    assert_eq!(got.values, ["one", "two"]);
    let got = read_all(&FileSource::lines(&path), 1);
    let fault = got.fault.expect("it ends the job").to_string();
    assert!(
        fault.contains("it is not UTF-8 text (byte 4 of the record)"),
        "{fault}"
    );
    assert_eq!(got.values, ["one"]);
}

#[test]
fn bad_records_are_put_aside_with_their_place_and_reason() {
    let (folder, path) = file("rows.csv", BAD_ROWS);
    let letters = folder.path().join("bad.jsonl");
    let source = FileSource::csv::<Row>(&path).on_error(DeadLetters::file(&letters));
    let got = read_all(&source, 2);
    assert_eq!((got.values, got.fault), (vec![row(1, "a")], None));
    assert_eq!(got.dead_letters, 5);
    let text = std::fs::read_to_string(letters).unwrap();
    let letters: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let want = [
        ("3", "the row has 1 column and the header 2", "2", 1),
        ("4", "the row has 3 columns and the header 2", "3,c,d", 5),
        (
            "5",
            "column 'id': 'NA': invalid digit found in string",
            "NA,e",
            4,
        ),
        (
            "6",
            "it is not UTF-8 text (byte 3 of the record)",
            "5,\u{fffd}",
            3,
        ),
        (
            "7",
            "the row has 1 column and the header 2",
            "\"6,g\n7,h",
            8,
        ),
    ];
    assert_eq!(letters.len(), want.len(), "{text}");
    for (letter, (line, reason, raw, length)) in letters.iter().zip(want) {
        assert_eq!(letter["position"], format!("{}:{line}", path.display()));
        assert!(
            letter["reason"].as_str().unwrap().starts_with(reason),
            "{letter}"
        );
        assert_eq!(
            (letter["raw"].as_str(), letter["length"].as_u64()),
            (Some(raw), Some(length))
        );
        assert_eq!(letter["source"], "connector");
    }
}

#[test]
fn a_record_that_is_too_long_is_skipped_in_bounded_memory() {
    let mut bytes = b"id,name\n1,a\n2,\"".to_vec();
    bytes.resize(100_000_000, b'x');
    bytes.extend(b"\n3,c\n");
    let (folder, path) = file("rows.csv", &bytes);
    drop(bytes);
    let letters = folder.path().join("bad.jsonl");
    let source = FileSource::csv::<Row>(&path).on_error(DeadLetters::file(&letters));
    let got = read_all(&source, 1);
    assert_eq!(
        (got.values, got.fault),
        (vec![row(1, "a"), row(3, "c")], None)
    );
    assert!(got.position.ends_with("rows.csv:4"), "{}", got.position);
    let letter: serde_json::Value =
        serde_json::from_slice(&std::fs::read(letters).unwrap()).unwrap();
    assert_eq!(letter["length"], 100_000_000 - 12);
    assert_eq!(letter["raw"].as_str().unwrap().len(), 65_536);
    assert!(
        letter["reason"]
            .as_str()
            .unwrap()
            .contains("more than the 1048576"),
        "{letter}"
    );
}

#[test]
fn a_limit_below_the_block_size_holds_too() {
    let (_folder, path) = file("lines", b"12345\n123456\n1234\n");
    let source = FileSource::lines(&path)
        .max_record_bytes(5)
        .on_error(OnError::Skip);
    let got = read_all(&source, 1);
    assert_eq!(got.values, ["12345", "1234"]);
    assert_eq!(got.dead_letters, 1);
}

#[test]
fn dead_letters_that_can_not_be_written_are_reported_before_the_job_starts() {
    let (_folder, path) = file("lines", b"1\n");
    let source = FileSource::lines(&path).on_error(DeadLetters::file("/no/such/folder/bad"));
    let fault = fault_of(source);
    assert!(
        fault.starts_with("can't write dead letters to /no/such/folder/bad: "),
        "{fault}"
    );
}

/// Bytes among which those that mean something to a parser are frequent.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let meaningful = prop::sample::select(&b"\"\"\n\n\r,,{}[]:\\0u7-e.\x1f\x8b\xc3\xff\0"[..]);
    let piece = prop_oneof![
        3 => meaningful.prop_map(|byte| vec![byte]),
        1 => any::<u8>().prop_map(|byte| vec![byte]),
        1 => Just(b"1,a\n".to_vec()),
        1 => Just(b"{\"id\":1,\"name\":\"a\"}\n".to_vec()),
    ];
    prop::collection::vec(piece, 0..80).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn no_bytes_panic_or_hang_a_reader(
        bytes in bytes(),
        headed: bool,
        zipped: bool,
        parallelism in 1u32..3,
        range in 1u64..64,
        block in 16usize..64,
    ) {
        let mut text = if headed { b"id,name\n".to_vec() } else { Vec::new() };
        text.extend(bytes);
        let lines = text.iter().filter(|byte| **byte == b'\n').count() + 1;
        let text = if zipped { gzip(&text) } else { text };
        let (_folder, path) = file("bytes", &text);
        let csv = FileSource::csv::<Row>(&path).on_error(OnError::Skip);
        let csv = csv.range_bytes(range).block_bytes(block).max_record_bytes(100);
        let json = FileSource::json_lines::<Row>(&path).on_error(OnError::Skip);
        let json = json.range_bytes(range).block_bytes(block).max_record_bytes(100);
        let plain = FileSource::lines(&path).on_error(OnError::Skip);
        let plain = plain.range_bytes(range).block_bytes(block).max_record_bytes(100);
        let (csv, json) = (read_all(&csv, parallelism), read_all(&json, parallelism));
        let plain = read_all(&plain, parallelism);
        prop_assert!(csv.values.len() + csv.dead_letters as usize <= lines);
        prop_assert!(json.values.len() + json.dead_letters as usize <= lines);
        prop_assert!(plain.values.len() + plain.dead_letters as usize <= lines);
        for fault in [csv.fault, json.fault, plain.fault].into_iter().flatten() {
            let fault = fault.to_string();
            prop_assert!(!fault.contains("panicked") && !fault.contains("bug"), "{}", fault);
        }
    }
}
