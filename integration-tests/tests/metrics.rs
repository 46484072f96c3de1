//! What a running job shows over HTTP: metrics of its own and of user code, behind a token if asked.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};
use tidegate::actors::checkpoint_storage::LocalStorage;
use tidegate::actors::checkpointing::Checkpointing;
use tidegate::actors::metrics_server::MetricsSettings;
use tidegate::engine::checkpoint::{CheckpointSettings, RestartStrategy};
use tidegate::engine::metrics::Counter;
use tidegate::prelude::*;

#[derive(Clone, Default)]
struct Counts(Counter);

impl Operator<u64> for Counts {
    type Out = u64;

    fn open(&mut self, context: &mut OpenContext<'_>) -> Flow {
        self.0 = context
            .metrics()
            .add_group("kafka")
            .counter("records.consumed");
        Ok(())
    }

    fn process<C: Collector<u64>>(&mut self, at: Timestamp, n: u64, out: &mut C) -> Flow {
        self.0.inc();
        out.collect(at, n)
    }
}

fn start(token: Option<&str>) -> (RunningJob, SocketAddr) {
    let mut env = StreamEnv::with_parallelism(2);
    let token = token.map(str::to_owned);
    let address = "127.0.0.1:0".to_owned();
    env.run_settings_mut().metrics = Some(MetricsSettings { address, token });
    env.run_settings_mut().pressure.interval = Duration::from_millis(10);
    let strategy = WatermarkStrategy::monotonous().timestamps(|n: &u64| *n as i64);
    env.source("numbers", Generator::unbounded(|n| n).per_second(20_000.0))
        .watermarks(strategy)
        .operate("counts", Counts::default())
        .key_by(|n| *n % 10)
        .reduce(|a, b| b.max(*a))
        .sink("out", BlackHole);
    let job = env.start("served").expect("it starts");
    let address = job.metrics_address().expect("it is served");
    (job, address)
}

fn ask(address: SocketAddr, request: &str, headers: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(
        stream,
        "{request} HTTP/1.1\r\nHost: x\r\n{headers}Connection: close\r\n\r\n"
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let status = text
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .unwrap_or(0);
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    Ok((status, body.unwrap_or_default()))
}

fn get(address: SocketAddr, path: &str) -> String {
    let (status, body) = ask(address, &format!("GET {path}"), "").expect("it answers");
    assert_eq!(status, 200, "{path}: {body}");
    body
}

/// The sum of a family's series.
fn total(text: &str, family: &str) -> f64 {
    let of_family = |line: &&str| line.starts_with(&format!("{family}{{"));
    let value = |line: &str| {
        line.rsplit(' ')
            .next()
            .and_then(|value| value.parse::<f64>().ok())
    };
    text.lines().filter(of_family).filter_map(value).sum()
}

/// The sum of a family's series of one vertex.
fn in_vertex(text: &str, family: &str, vertex: &str) -> f64 {
    let label = format!("vertex_id=\"{vertex}\"");
    let lines: Vec<&str> = text.lines().filter(|line| line.contains(&label)).collect();
    total(&lines.join("\n"), family)
}

#[test]
fn bytes_are_records_by_their_size_and_edges_of_a_vertex_add_up() {
    let env = StreamEnv::with_parallelism(1);
    let graph = env.actors();
    let numbers = graph.source(
        "numbers",
        Generator::new(100, |n| (n, n)).per_second(1_000.0),
    );
    let [left, right] = ["left", "right"].map(|name| graph.sink(name, BlackHole));
    graph
        .edge(&numbers, &left, Forward::default())
        .edge(&numbers, &right, Forward::default());
    let result = env.execute("two edges").expect("the job runs");
    let of = |vertex: &str| {
        let mut all = result.subtasks.iter();
        all.find(|subtask| subtask.vertex == vertex)
            .expect("it ran")
    };
    let source = of("numbers");
    assert_eq!((source.records_in, source.bytes_in), (100, 1_600));
    assert_eq!((source.records_out, source.bytes_out), (200, 3_200));
    assert_eq!((of("left").records_in, of("left").bytes_in), (100, 1_600));
    // Nobody was pressed, so each channel has what is granted at first, but for what is on its way back.
    assert!((1_800..=2_000).contains(&source.credits), "{source:?}");
    assert_eq!(source.buffered, 0);
}

#[test]
fn a_job_shows_its_numbers_while_it_runs() {
    let (job, address) = start(None);
    let began = Instant::now();
    let text = loop {
        let text = get(address, "/metrics");
        let watermark = text.contains("tidegate_subtask_watermark_lag_seconds{");
        if total(&text, "tidegate_kafka_records_consumed_total") > 1_000.0
            && total(&text, "tidegate_subtask_records_out_total") > 1_000.0
            && watermark
        {
            break text;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{text}");
        thread::park_timeout(Duration::from_millis(10));
    };
    let series = r#"tidegate_kafka_records_consumed_total{job="served",operator="counts",subtask="1",vertex="numbers -> watermarks -> counts",vertex_id="0"} "#;
    assert!(text.contains(series), "{text}");
    for family in [
        "tidegate_subtask_bytes_in_total",
        "tidegate_subtask_busy_seconds_total",
        "tidegate_subtask_idle_seconds_total",
        "tidegate_subtask_back_pressured_seconds_total",
        "tidegate_subtask_queued_batches",
        "tidegate_subtask_credits",
        "tidegate_subtask_buffered_records",
        "tidegate_subtask_late_records_total",
        "tidegate_subtask_dead_letters_total",
        "tidegate_subtask_timers",
        "tidegate_vertex_pressure",
        "tidegate_job_uptime_seconds",
    ] {
        assert!(
            text.contains(&format!("\n{family}{{")),
            "{family} is not in\n{text}"
        );
    }
    // The source made records of 8 bytes, and the exchange behind it carried them.
    for vertex in ["0", "1"] {
        let of = |family: &str| in_vertex(&text, family, vertex);
        let (records, bytes) = (
            of("tidegate_subtask_records_in_total"),
            of("tidegate_subtask_bytes_in_total"),
        );
        assert!(records > 0.0 && bytes > 0.0 && bytes % 8.0 == 0.0, "{text}");
    }
    for (family, least, most) in [
        ("tidegate_subtask_busy_seconds_total", 1e-9, 600.0),
        ("tidegate_subtask_idle_seconds_total", 1e-9, 600.0),
        ("tidegate_subtask_back_pressured_seconds_total", 0.0, 600.0),
        // The subtasks of the source have a channel to each of the others' two.
        ("tidegate_subtask_credits", 1.0, 4.0 * 16_384.0),
        ("tidegate_subtask_late_records_total", 0.0, 0.0),
        ("tidegate_subtask_dead_letters_total", 0.0, 0.0),
        ("tidegate_subtask_timers", 0.0, 0.0),
        ("tidegate_vertex_pressure", 0.0, 2.0),
        ("tidegate_job_uptime_seconds", 1e-3, 600.0),
    ] {
        let value = total(&text, family);
        assert!((least..=most).contains(&value), "{family} is {value}");
    }
    let seen: serde_json::Value =
        serde_json::from_str(&get(address, "/observe")).expect("it is JSON");
    assert_eq!(seen["job"], "served");
    assert_eq!(seen["subtasks"].as_array().map(Vec::len), Some(4));
    assert_eq!(seen["pressure"].as_array().map(Vec::len), Some(2));
    assert_eq!(get(address, "/health"), r#"{"status":"running"}"#);
    assert_eq!(ask(address, "GET /nothing", "").expect("it answers").0, 404);
    assert_eq!(
        ask(address, "POST /metrics", "Content-Length: 0\r\n")
            .expect("it answers")
            .0,
        405
    );
    job.cancel();
    job.wait().expect_err("it was cancelled");
    assert!(
        TcpStream::connect(address).is_err(),
        "the server ends with its job"
    );
}

#[test]
fn checkpoints_are_shown_across_a_restart_and_counted() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut env = StreamEnv::with_parallelism(2);
    env.settings_mut().checkpoints = Some(CheckpointSettings {
        min_pause: Some(Duration::ZERO),
        history: 1_000,
        ..CheckpointSettings::every(Duration::from_millis(20))
    });
    let mut checkpointing = Checkpointing::new(Arc::new(LocalStorage::new(folder.path())));
    checkpointing.restart = RestartStrategy::FixedDelay {
        attempts: 1,
        delay: Duration::from_millis(1),
    };
    env.run_settings_mut().checkpointing = Some(checkpointing);
    let (address, token) = ("127.0.0.1:0".to_owned(), None);
    env.run_settings_mut().metrics = Some(MetricsSettings { address, token });
    let fails = Arc::new(AtomicBool::new(false));
    let told = fails.clone();
    env.source("numbers", Generator::unbounded(|n| n).per_second(20_000.0))
        .map(move |n| {
            assert!(!told.swap(false, SeqCst), "as it was told");
            n
        })
        .key_by(|n| *n % 10)
        .reduce(|a, b| b.max(*a))
        .sink("out", BlackHole);
    let job = env.start("served").expect("it starts");
    let address = job.metrics_address().expect("it is served");
    let until = |what: &str, holds: &dyn Fn(&serde_json::Value) -> bool| {
        let began = Instant::now();
        loop {
            let text = get(address, "/checkpoints");
            let seen = serde_json::from_str(&text).expect("it is JSON");
            if holds(&seen) {
                return seen;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "{what}: {text}");
            thread::park_timeout(Duration::from_millis(5));
        }
    };
    let completed = |seen: &serde_json::Value| seen["counts"]["completed"].as_u64().unwrap_or(0);
    let first = until("some complete", &|seen| completed(seen) >= 2);
    assert_eq!(first["counts"]["restored"], 0);
    assert!(first["latest"]["restored"].is_null());
    fails.store(true, SeqCst);
    let again = until("goes on", &|seen| seen["counts"]["restored"] == 1);
    assert!(completed(&again) >= 2, "{again}");
    let restored = again["latest"]["restored"].as_u64().expect("its number");
    let before = again["history"].as_array().expect("a list");
    let kept = before
        .iter()
        .any(|figures| figures["id"].as_u64() == Some(restored));
    assert!(
        kept,
        "what was taken before the failure is still shown: {again}"
    );
    let further = completed(&again) + 1;
    until("more complete", &|seen| completed(seen) >= further);
    let text = get(address, "/metrics");
    for family in [
        "tidegate_job_checkpoints_triggered_total",
        "tidegate_job_checkpoints_completed_total",
        "tidegate_job_checkpoints_restored_total",
        "tidegate_job_checkpoint_last_id",
        "tidegate_job_checkpoint_last_bytes",
    ] {
        assert!(total(&text, family) >= 1.0, "{family} in\n{text}");
    }
    for family in [
        "tidegate_job_checkpoints_failed_total",
        "tidegate_job_checkpoints_in_progress",
        "tidegate_job_checkpoint_last_duration_seconds",
        "tidegate_job_checkpoint_last_pause_seconds",
    ] {
        assert!(
            text.contains(&format!("\n{family}{{")),
            "{family} in\n{text}"
        );
    }
    assert!(
        total(&text, "tidegate_checkpoint_barrier_turn_micros_count") >= 4.0,
        "{text}"
    );
    job.cancel();
    job.wait().expect_err("it was cancelled");
}

#[test]
fn with_a_token_nobody_reads_without_it() {
    let (job, address) = start(Some("secret"));
    for path in [
        "/metrics",
        "/observe",
        "/checkpoints",
        "/health",
        "/nothing",
    ] {
        let request = format!("GET {path}");
        for headers in [
            "",
            "Authorization: Bearer wrong\r\n",
            "Authorization: secret\r\n",
        ] {
            let (status, _) = ask(address, &request, headers).expect("it answers");
            assert_eq!(status, 401, "{path} {headers}");
        }
    }
    let header = "Authorization: Bearer secret\r\n";
    assert_eq!(
        ask(address, "GET /metrics", header).expect("it answers").0,
        200
    );
    job.cancel();
    job.wait().expect_err("it was cancelled");
}

#[test]
fn a_taken_port_is_one_line_before_anything_runs() {
    let (job, address) = start(None);
    let mut env = StreamEnv::with_parallelism(1);
    let address = address.to_string();
    env.run_settings_mut().metrics = Some(MetricsSettings {
        address,
        token: None,
    });
    let out = Collect::new();
    env.source("numbers", Generator::new(10, |n| n))
        .sink("out", out.clone());
    let text = env
        .execute("second")
        .expect_err("the port is taken")
        .to_string();
    assert!(
        text.starts_with("can't serve metrics at '127.0.0.1:"),
        "{text}"
    );
    assert!(!text.contains('\n') && out.values().is_empty());
    job.cancel();
    job.wait().expect_err("it was cancelled");
}
