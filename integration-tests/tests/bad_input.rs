//! Bad input as a user meets it: whole programs end in time, with an exit code and one line that
//! says what is wrong and where, and lose nothing silently.

use flate2::{Compression, write::GzEncoder};
use integration_tests::processes::{Ended, example, root, run, run_command};
use integration_tests::tables::rows;
use std::fs;
use std::io::{BufWriter, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

const HEADER: &str = "departed_at,carrier,tailnum,origin,dep_delay_min,distance_miles\n";

/// Longer than any failure takes, on a busy machine too.
const SOON: Duration = Duration::from_secs(20);

/// A folder for a run's input and output.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Place(tempfile::tempdir().expect("there is room for files"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file.
    fn put(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).expect("a test writes its folder");
        path
    }

    /// Runs `carrier-day` on a file, into `out`.
    fn carrier_day(&self, input: &Path, more: &[&str]) -> Ended {
        self.query("carrier-day", input, more)
    }

    fn query(&self, query: &str, input: &Path, more: &[&str]) -> Ended {
        self.query_into(query, input, &self.path("out"), more)
    }

    fn query_into(&self, query: &str, input: &Path, output: &Path, more: &[&str]) -> Ended {
        let (input, output) = (text(input), text(output));
        let arguments = ["--query", query, "--input", input, "--output", output];
        let ended = run("flights", arguments.iter().chain(more));
        assert!(ended.took < SOON, "{ended:#?}");
        ended
    }

    /// Dead letters of a run into `out`.
    fn letters(&self) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(self.path("out.dead-letters.jsonl"));
        let text = text.expect("dead letters are beside the output");
        let letters = text.lines().map(serde_json::from_str);
        letters.map(|letter| letter.expect("is JSON")).collect()
    }

    /// That nothing looks like a result.
    fn holds_no_result(&self) {
        let out = self.path("out");
        assert!(!out.exists() || rows(&out).is_empty());
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary folders have plain names")
}

/// `n` good rows, one a minute.
fn good(n: u64) -> String {
    let row = |n: u64| {
        let (hour, minute) = (n / 60 % 24, n % 60);
        format!(
            "2013-01-01T{hour:02}:{minute:02}:00Z,AA,N{n},JFK,{},100\n",
            n % 7
        )
    };
    (0..n).map(row).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("memory takes all");
    encoder.finish().expect("memory takes all")
}

/// Flights that an answer of `carrier-day` has counted.
fn counted(rows: &[String]) -> u64 {
    let flights = |row: &String| row.split(',').nth(2).and_then(|n| n.parse::<u64>().ok());
    rows.iter().map(|row| flights(row).expect("a count")).sum()
}

/// "26340 records, 0 late, 606 dead letters, ..." as numbers.
fn summary(printed: &str) -> (u64, u64, u64) {
    let line = printed.lines().last().unwrap_or_default();
    let mut numbers = line.split(", ").map(|part| {
        let number = part.split(' ').next().unwrap_or_default();
        number.parse().unwrap_or_else(|_| panic!("{line}"))
    });
    let mut next = || numbers.next().expect("three counts");
    (next(), next(), next())
}

#[test]
fn a_missing_file() {
    let place = Place::new();
    let ended = place.carrier_day(Path::new("/no/such.csv"), &[]);
    let line = ended.in_one_line(&["'flights'", "can't read /no/such.csv", "check the path"]);
    assert!(!line.contains("(on "), "it has not read anything: {line}");
    place.holds_no_result();
}

#[test]
fn what_is_no_file() {
    let place = Place::new();
    let (folder, socket) = (place.path("folder"), place.path("socket"));
    fs::create_dir(&folder).expect("a test writes its folder");
    let ended = place.carrier_day(&folder, &[]);
    ended.in_one_line(&["there is no file to read in", text(&folder)]);
    let _listens = UnixListener::bind(&socket).expect("a socket");
    let ended = place.carrier_day(&socket, &[]);
    ended.in_one_line(&["can't read", text(&socket)]);
    place.holds_no_result();
}

#[test]
fn damaged_gzip() {
    let place = Place::new();
    let whole = gzip((HEADER.to_owned() + &good(200_000)).as_bytes());
    let cut = place.put("cut.gz", &whole[..whole.len() / 2]);
    let ended = place.carrier_day(&cut, &[]);
    ended.in_one_line(&[text(&cut), "is damaged", "bytes of decompressed data"]);
    let mut bytes = whole.clone();
    bytes[whole.len() / 2..][..8].fill(0xff);
    let corrupt = place.put("corrupt.gz", bytes);
    let ended = place.carrier_day(&corrupt, &["--parallelism", "2"]);
    ended.in_one_line(&[text(&corrupt), "is damaged", "fetch it again"]);
    place.holds_no_result();
}

#[test]
fn empty_files() {
    for bytes in ["", "\n", HEADER] {
        for gzipped in [false, true] {
            let place = Place::new();
            let bytes = bytes.as_bytes();
            let bytes = if gzipped { gzip(bytes) } else { bytes.to_vec() };
            let printed = place.carrier_day(&place.put("in", bytes), &[]).well();
            assert_eq!(summary(&printed), (0, 0, 0));
            assert!(printed.contains("no rows"), "{printed}");
        }
    }
}

#[test]
fn a_program_as_input() {
    let place = Place::new();
    let program = example("flights");
    let ended = place.carrier_day(&program, &["--parallelism", "2"]);
    ended.in_one_line(&["is it a CSV file?", text(&program)]);
    place.holds_no_result();
}

#[test]
fn bad_rows_are_put_aside_and_good_ones_answered() {
    let place = Place::new();
    let mut bytes = (HEADER.to_owned() + &good(50)).into_bytes();
    bytes.extend(b"too,few\n");
    bytes.extend(b"2013-01-01T00:00:00Z,AA,N1,JFK,1,100,too,many\n");
    bytes.extend(b"2013-01-01T00:00:00Z,\xff\xfe,N1,JFK,1,100\n");
    bytes.extend(b"2013-13-45T00:00:00Z,AA,N1,JFK,1,100\n");
    bytes.extend(b"2013-01-01T00:00:00Z,AA,N1,JFK,99999999999999999999,100\n");
    bytes.extend(b"\0\0\0\n");
    bytes.extend(good(50).into_bytes());
    let input = place.put("rows.csv", bytes);
    for parallelism in ["1", "2"] {
        let more = ["--parallelism", parallelism];
        let printed = place.carrier_day(&input, &more).well();
        assert_eq!(summary(&printed), (100, 0, 6));
        assert_eq!(counted(&rows(&place.path("out"))), 100);
        let letters = place.letters();
        let wanted = [
            "the row has 2 columns and the header 6",
            "the row has 8 columns and the header 6",
            "it is not UTF-8 text",
            "column 'departed_at'",
            "column 'dep_delay_min'",
            "the row has 1 column",
        ];
        assert_eq!(letters.len(), wanted.len());
        for (n, (letter, wanted)) in letters.iter().zip(wanted).enumerate() {
            let reason = letter["reason"].as_str().unwrap_or_default();
            assert!(reason.starts_with(wanted), "{letter}");
            let position = format!("{}:{}", input.display(), n + 52);
            assert_eq!(letter["position"], position);
        }
    }
}

#[test]
fn a_line_of_a_hundred_megabytes_takes_no_memory() {
    let place = Place::new();
    let (plain, gzipped) = (place.path("long.csv"), place.path("long.csv.gz"));
    let zip = GzEncoder::new(create(&gzipped), Compression::fast());
    for out in [
        &mut create(&plain) as &mut dyn Write,
        &mut BufWriter::new(zip),
    ] {
        let piece = vec![b'x'; 1_000_000];
        let mut write = |bytes: &[u8]| out.write_all(bytes).expect("there is room for files");
        write((HEADER.to_owned() + &good(1000)).as_bytes());
        (0..100).for_each(|_| write(&piece));
        write(("\n".to_owned() + &good(1000)).as_bytes());
        out.flush().expect("there is room for files");
    }
    for input in [plain, gzipped] {
        let ended = place.carrier_day(&input, &[]);
        let peak = ended.peak_bytes;
        assert_eq!(summary(&ended.well()), (2000, 0, 1));
        assert!(
            peak > 0 && peak < 64 << 20,
            "{peak} bytes for {}",
            input.display()
        );
        let letters = place.letters();
        assert_eq!(letters[0]["length"], 100_000_000);
        let reason = letters[0]["reason"].as_str().unwrap_or_default();
        assert!(reason.contains("more than the 1048576"), "{reason}");
    }
}

fn create(path: &Path) -> fs::File {
    fs::File::create(path).expect("there is room for files")
}

#[test]
fn timestamps_at_the_ends_of_time() {
    let place = Place::new();
    let extreme = "9999-12-30T21:59:59Z,AA,N1,JFK,1,100\n\
                   -009999-01-02T01:59:59Z,AA,N2,JFK,1,100\n\
                   9999999-01-01T00:00:00Z,AA,N3,JFK,1,100\n\
                   99999999999999999999,AA,N4,JFK,1,100\n";
    let input = place.put("rows.csv", HEADER.to_owned() + extreme + &good(40_000));
    let printed = place.carrier_day(&input, &[]).well();
    let (records, late, dead) = summary(&printed);
    assert_eq!((records, dead), (40_002, 2));
    let answered = counted(&rows(&place.path("out")));
    assert_eq!(
        answered + late,
        records,
        "each is answered or counted as late"
    );
    let printed = place.query("tailnum-sessions", &input, &[]).well();
    let (records, late, dead) = summary(&printed);
    assert_eq!((records, dead), (40_002, 2));
    let legs = |row: &String| row.split(',').nth(3).and_then(|n| n.parse::<u64>().ok());
    let sessions = rows(&place.path("out"));
    let answered: u64 = sessions.iter().map(|row| legs(row).expect("a count")).sum();
    assert_eq!(
        answered + late,
        records,
        "each is answered or counted as late"
    );
}

#[test]
fn wrong_usage_ends_with_code_2() {
    let place = Place::new();
    let january = root().join("examples/data/flights-2013-01.csv");
    let cases: [(&str, &[&str], &[&str]); 6] = [
        (
            "nonsense",
            &[],
            &["'nonsense'", "carrier-day, tailnum-sessions"],
        ),
        (
            "carrier-day",
            &["--parallelism", "0"],
            &["'0'", "--parallelism"],
        ),
        (
            "carrier-day",
            &["--parallelism", "many"],
            &["'many'", "--parallelism"],
        ),
        (
            "carrier-day",
            &["--max-parallelism", "99999"],
            &["99999", "--max-parallelism"],
        ),
        ("carrier-day", &["--nonsense"], &["'--nonsense'"]),
        ("weather-join", &[], &["--weather <FILE>"]),
    ];
    for (query, more, words) in cases {
        place.query(query, &january, more).badly(2, words);
        assert!(
            !place.path("out").exists(),
            "it has begun: {query} {more:?}"
        );
    }
    run("nexmark", ["--query", "q10"]).badly(2, &["\"q10\"", "q22, count"]);
    run("nexmark", ["--query", "q0", "--parallelism", "0"]).badly(2, &["parallelism"]);
}

#[test]
fn more_subtasks_than_key_groups() {
    let place = Place::new();
    let january = root().join("examples/data/flights-2013-01.csv");
    let more = ["--parallelism", "9", "--max-parallelism", "8"];
    let ended = place.carrier_day(&january, &more);
    ended.in_one_line(&["parallelism 9 is above its max_parallelism 8"]);
    place.holds_no_result();
    let arguments = ["--query", "q5", "--parallelism", "129", "--events", "10"];
    run("nexmark", arguments).badly(1, &["parallelism 129 is above its max_parallelism 128"]);
}

#[test]
fn an_output_that_is_in_use_stays_as_it_is() {
    let place = Place::new();
    let january = root().join("examples/data/flights-2013-01.csv");
    fs::create_dir(place.path("out")).expect("a test writes its folder");
    let notes = place.put("out/notes.txt", "mine");
    let ended = place.carrier_day(&january, &[]);
    ended.in_one_line(&["'carrier-day'", "holds 'notes.txt'", "name another folder"]);
    assert_eq!(fs::read_to_string(notes).ok().as_deref(), Some("mine"));
    assert_eq!(
        fs::read_dir(place.path("out")).map(Iterator::count).ok(),
        Some(1)
    );
    let file = place.put("file", "mine");
    let ended = place.query_into("carrier-day", &january, &file, &[]);
    ended.in_one_line(&[text(&file), "is a file and the sink writes a folder"]);
    assert_eq!(fs::read_to_string(file).ok().as_deref(), Some("mine"));
}

#[test]
fn an_output_that_can_not_be_written() {
    let place = Place::new();
    let january = root().join("examples/data/flights-2013-01.csv");
    let ended = place.query_into("carrier-day", &january, Path::new("/proc/no/out"), &[]);
    ended.in_one_line(&["can't write", "/proc/no/out"]);
    let arguments = ["--query", "q0", "--events", "10", "--csv", "/proc/no"];
    run("nexmark", arguments).in_one_line(&["/proc/no"]);
}

#[test]
fn a_disk_that_is_full() {
    let place = Place::new();
    let january = root().join("examples/data/flights-2013-01.csv");
    // A limit on the size of files stands for the disk: writing fails when it is reached.
    let limited = "trap '' XFSZ; ulimit -f 300; exec \"$0\" \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", limited]).arg(example("flights"));
    command.args(["--query", "tailnum-sessions"]);
    command.arg("--input").arg(january);
    command.arg("--output").arg(place.path("out"));
    let ended = run_command(&mut command);
    assert!(ended.took < SOON, "{ended:#?}");
    ended.in_one_line(&["'tailnum-sessions'", "can't write to", "out/.part-0-0"]);
    place.holds_no_result();
}

#[test]
fn a_table_of_something_else() {
    let place = Place::new();
    let january = root().join("examples/data/flights-2013-01.csv");
    let more = ["--weather", text(&january)];
    let ended = place.query("weather-join", &january, &more);
    ended.in_one_line(&["'weather'", "there is no column 'observed_at'"]);
    let more = ["--weather", "/no/weather.csv"];
    let ended = place.query("weather-join", &january, &more);
    ended.in_one_line(&["'weather'", "can't read /no/weather.csv"]);
    place.holds_no_result();
}
