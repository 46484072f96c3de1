//! Files as they are written.

use super::{Row, folder, names, row};
use crate::files::FileSink;
use crate::testing::{Attempt, Writing, write_all};
use std::fs;
use std::time::Duration;
use tidegate_engine::clock::Clock;
use tidegate_engine::sink::{Sink, SinkWriter};

#[test]
fn each_format_writes_what_it_says() {
    let folder = folder(&[]);
    let path = |name: &str| folder.path().join(name);
    let rows = [row(1, "a"), row(2, "b, \"c\"")];
    write_all(&FileSink::csv(path("csv")).single_file(), 1, rows.clone()).unwrap();
    write_all(
        &FileSink::csv(path("bare")).header(false).single_file(),
        1,
        rows.clone(),
    )
    .unwrap();
    write_all(
        &FileSink::json_lines(path("json")).single_file(),
        1,
        rows.clone(),
    )
    .unwrap();
    write_all(&FileSink::lines(path("lines")).single_file(), 1, [1, 2]).unwrap();
    let ids = FileSink::lines_with(path("with"), |row: &Row, out| write!(out, "<{}>", row.id));
    write_all(&ids.single_file(), 1, rows).unwrap();
    let text = |name| fs::read_to_string(path(name)).unwrap();
    assert_eq!(text("csv"), "id,name\n1,a\n2,\"b, \"\"c\"\"\"\n");
    assert_eq!(text("bare"), "1,a\n2,\"b, \"\"c\"\"\"\n");
    assert_eq!(
        text("json"),
        "{\"id\":1,\"name\":\"a\"}\n{\"id\":2,\"name\":\"b, \\\"c\\\"\"}\n"
    );
    assert_eq!(text("lines"), "1\n2\n");
    assert_eq!(text("with"), "<1>\n<2>\n");
}

#[test]
fn parts_roll_and_each_begins_with_a_header() {
    let folder = folder(&[]);
    let out = folder.path().join("out");
    let sink = FileSink::csv(&out).roll_records(2);
    write_all(&sink, 2, (0..7).map(|id| row(id, "x"))).unwrap();
    assert_eq!(
        names(&out),
        ["part-0-0", "part-0-1", "part-1-0", "part-1-1"]
    );
    assert_eq!(
        fs::read_to_string(out.join("part-1-1")).unwrap(),
        "id,name\n5,x\n"
    );
    write_all(&sink, 1, [row(9, "y")]).unwrap();
    assert_eq!(
        names(&out),
        ["part-0-0"],
        "the earlier run's parts are gone"
    );
    let by_size = FileSink::lines(&out).roll_bytes(4);
    write_all(&by_size, 1, [10, 11, 12]).unwrap();
    assert_eq!(names(&out), ["part-0-0", "part-0-1"]);
}

#[test]
fn a_part_that_is_old_enough_is_finished() {
    const HOUR: Duration = Duration::from_secs(3600);
    for (rolls, parts) in [
        (true, vec![("part-0-0", "1\n2\n"), ("part-0-1", "3\n")]),
        (false, vec![("part-0-0", "1\n2\n3\n")]),
    ] {
        let folder = folder(&[]);
        let out = folder.path().join("out");
        let sink = FileSink::lines(&out).roll_every(if rolls { HOUR } else { HOUR * 3 });
        Sink::<u64>::recover(&sink, None).unwrap();
        let mut job = Writing::begin::<u64, _>(&sink, 0, 1, &Attempt::default()).unwrap();
        job.write(1u64).unwrap();
        job.write(2).unwrap();
        // It asks to be looked at again when the part is due.
        let now = Clock::System.now();
        let due = SinkWriter::<u64>::turn(&mut job.writer, now).unwrap();
        let in_an_hour = now.plus(HOUR);
        assert_eq!(due <= in_an_hour && due > now, rolls, "{due} after {now}");
        SinkWriter::<u64>::turn(&mut job.writer, in_an_hour).unwrap();
        job.write(3).unwrap();
        job.close::<u64>().unwrap();
        let text = |name: &String| fs::read_to_string(out.join(name)).unwrap();
        let got = names(&out)
            .iter()
            .map(|name| (name.clone(), text(name)))
            .collect::<Vec<_>>();
        let want = parts
            .into_iter()
            .map(|(name, text)| (name.to_owned(), text.to_owned()));
        assert_eq!(got, want.collect::<Vec<_>>());
    }
}

#[test]
fn foreign_files_are_not_written_over() {
    let folder = folder(&[("thesis.tex", b"years of work"), ("part-0-7", b"old\n")]);
    let fault = write_all(&FileSink::lines(folder.path()), 1, [1])
        .unwrap_err()
        .to_string();
    assert!(
        fault.contains("holds 'thesis.tex', which is no part"),
        "{fault}"
    );
    assert_eq!(names(folder.path()), ["part-0-7", "thesis.tex"]);
    write_all(&FileSink::lines(folder.path()).overwrite(true), 1, [1]).unwrap();
    assert_eq!(names(folder.path()), ["part-0-0", "thesis.tex"]);
    let file = folder.path().join("thesis.tex");
    let fault = write_all(&FileSink::lines(&file), 1, [1])
        .unwrap_err()
        .to_string();
    assert!(
        fault.contains("is a file and the sink writes a folder"),
        "{fault}"
    );
}

#[test]
fn one_file_is_for_one_subtask_and_exists_even_if_empty() {
    let folder = folder(&[]);
    let out = folder.path().join("out");
    let fault = write_all(&FileSink::lines(&out).single_file(), 2, [1])
        .unwrap_err()
        .to_string();
    assert!(
        fault.starts_with("2 subtasks can't write the one file "),
        "{fault}"
    );
    write_all(&FileSink::lines(&out).single_file(), 1, [0; 0]).unwrap();
    assert_eq!(names(folder.path()), ["out"]);
    let fault = write_all(&FileSink::lines(folder.path()).single_file(), 1, [1]).unwrap_err();
    assert!(fault.to_string().contains("name a file"), "{fault}");
    let nowhere = FileSink::lines("/no/such/folder/out").single_file();
    let fault = write_all(&nowhere, 1, [1]).unwrap_err().to_string();
    assert!(
        fault.starts_with("can't write into /no/such/folder: "),
        "{fault}"
    );
}

#[test]
fn a_full_disk_ends_the_job_with_its_name() {
    let folder = folder(&[]);
    let out = folder.path().join("out");
    // The second part's hidden name leads to a device that is always full.
    let sink = FileSink::lines_with(&out, {
        let link = out.join(".part-0-1.inprogress");
        move |n: &u64, to| {
            if *n == 0 {
                let _ = std::os::unix::fs::symlink("/dev/full", &link);
            }
            write!(to, "{n}")
        }
    });
    let sink = sink.roll_records(1000).sync(false);
    let fault = write_all(&sink, 1, 0..5000).unwrap_err().to_string();
    assert!(
        fault.contains("can't write to ") && fault.contains("No space left"),
        "{fault}"
    );
    assert!(fault.contains("make room"), "{fault}");
}

#[test]
fn a_writer_that_is_dropped_early_leaves_no_half_part() {
    let folder = folder(&[]);
    let out = folder.path().join("out");
    let sink = FileSink::lines_with(&out, |n: &u64, to| {
        if *n == 200_000 {
            Err(std::io::Error::other("enough"))
        } else {
            write!(to, "{n}")
        }
    });
    let fault = write_all(&sink, 1, 0..300_000).unwrap_err().to_string();
    assert!(
        fault.contains("a record can't be written: enough"),
        "{fault}"
    );
    assert_eq!(names(&out), [""; 0]);
}
