//! Graphs that are written by hand: their sources, sinks, side outputs and state are those of streams.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use tidegate::actors::checkpoint_storage::LocalStorage;
use tidegate::actors::checkpointing::Checkpointing;
use tidegate::engine::checkpoint::{CheckpointSettings, RestartStrategy};
use tidegate::engine::operators::{Fold, Inspect, Map};
use tidegate::prelude::*;

#[test]
fn a_graph_written_by_hand_runs() {
    let env = StreamEnv::with_parallelism(2);
    let out = Collect::new();
    let graph = env.actors();
    let numbers = graph
        .source("numbers", Generator::new(1000, |n| n))
        .parallelism(2);
    let tens = graph
        .vertex("tens", Map::new(|n: u64| n % 10))
        .parallelism(3);
    let count = Fold::new(0u64, |count: &mut u64, key: &u64, _: u64| {
        *count += 1;
        (*key, *count)
    });
    let counts = graph.keyed_vertex("counts", |n: &u64| *n, count);
    let sink = graph.sink("out", out.clone()).parallelism(1);
    graph.edge(&numbers, &tens, Rebalance::default());
    graph.hash_edge(&tens, &counts);
    graph.edge(counts.output(), &sink, Global);
    env.execute("by hand").expect("the job runs");
    let got = out.values();
    assert_eq!(got.len(), 1000);
    assert_eq!(got.iter().filter(|(_, count)| *count == 100).count(), 10);
}

/// The names of the parts that can be seen in a folder.
fn parts(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with("part-")).collect()
}

/// All lines of the parts in a folder, sorted.
fn lines(folder: &Path) -> Vec<String> {
    let read = |name: &String| fs::read_to_string(folder.join(name)).expect("it is text");
    let texts: Vec<String> = parts(folder).iter().map(read).collect();
    let lines = texts.iter().flat_map(|text| text.lines());
    let mut lines: Vec<String> = lines.map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn a_file_sink_written_by_hand_makes_its_folder_and_removes_old_parts() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("not/there/yet");
    for run in [1u64, 2] {
        let env = StreamEnv::with_parallelism(2);
        let graph = env.actors();
        let numbers = graph.source("numbers", Generator::new(1000, |n| n));
        let times = graph.vertex("times", Map::new(move |n: u64| n * run));
        let sink = graph.sink("out", FileSink::lines(&out).roll_records(100 * run));
        graph.edge(&numbers, &times, Rebalance::default());
        graph.edge(&times, &sink, Forward::default());
        env.execute("files by hand").expect("the job runs");
        let mut want: Vec<String> = (0..1000).map(|n| (n * run).to_string()).collect();
        want.sort();
        assert_eq!(lines(&out), want, "run {run}");
    }
}

#[test]
fn a_file_sink_written_by_hand_shows_records_once_through_a_failure() {
    const COUNT: u64 = 20_000;
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out");
    let mut env = StreamEnv::with_parallelism(2);
    env.settings_mut().checkpoints = Some(CheckpointSettings {
        min_pause: Some(Duration::ZERO),
        ..CheckpointSettings::every(Duration::from_millis(5))
    });
    let storage = LocalStorage::new(folder.path().join("checkpoints"));
    let mut checkpointing = Checkpointing::new(Arc::new(storage));
    checkpointing.restart = RestartStrategy::FixedDelay {
        attempts: 1,
        delay: Duration::from_millis(1),
    };
    env.run_settings_mut().checkpointing = Some(checkpointing);

    let (shown, failed) = (out.clone(), Arc::new(AtomicBool::new(false)));
    let watch = Inspect::new(move |n: &u64| {
        // What is seen was committed; so there is a checkpoint to go on from.
        if n.is_multiple_of(100) && !failed.load(SeqCst) && !parts(&shown).is_empty() {
            assert!(failed.swap(true, SeqCst), "as planned");
        }
    });
    let count = Fold::new(0u64, |count: &mut u64, key: &u64, _: u64| {
        *count += 1;
        format!("{key} {count}")
    });
    let graph = env.actors();
    let slowly = Generator::new(COUNT, |n| n).per_second(10_000.0);
    let numbers = graph.source("numbers", slowly);
    let watch = graph.vertex("watch", watch);
    let counts = graph.keyed_vertex("counts", |n: &u64| *n % 97, count);
    let sink = graph.sink("out", FileSink::lines(&out));
    graph.edge(&numbers, &watch, Rebalance::default());
    graph.hash_edge(&watch, &counts);
    graph.edge(&counts, &sink, Rebalance::default());
    let job = env.start("files by hand").expect("starts");
    while !job.ended() {
        std::thread::yield_now();
    }
    assert_eq!(job.attempt(), 2, "it failed once");
    job.wait().expect("comes to a good end");
    let mut want: Vec<String> = (0..COUNT)
        .map(|n| format!("{} {}", n % 97, n / 97 + 1))
        .collect();
    want.sort();
    assert!(lines(&out) == want, "{} lines", lines(&out).len());
}

/// Passes odd numbers on, and puts even ones and tens to the side.
#[derive(Clone)]
struct Sorter {
    tags: (SideOutput<u64>, SideOutput<String>),
    even: SideBuffer<u64>,
    tens: SideBuffer<String>,
}

impl Sorter {
    fn new(tags: (SideOutput<u64>, SideOutput<String>)) -> Self {
        let (even, tens) = (SideBuffer::default(), SideBuffer::default());
        Sorter { tags, even, tens }
    }
}

impl Operator<u64> for Sorter {
    type Out = u64;

    fn open(&mut self, context: &mut OpenContext<'_>) -> Flow {
        assert_eq!(context.max_parallelism(), 12);
        self.even = context.side_output(&self.tags.0);
        self.tens = context.side_output(&self.tags.1);
        Ok(())
    }

    fn process<C: Collector<u64>>(&mut self, at: Timestamp, n: u64, out: &mut C) -> Flow {
        if n.is_multiple_of(10) {
            self.tens.collect(at, format!("ten {n}"));
        }
        if n.is_multiple_of(2) {
            self.even.collect(at, n);
            return Ok(());
        }
        out.collect(at, n)
    }
}

#[test]
fn vertices_written_by_hand_have_side_outputs_key_groups_and_ids() {
    let env = StreamEnv::with_parallelism(2);
    let tags = (SideOutput::new("even"), SideOutput::new("tens"));
    let [odd_seen, even_seen, again_seen] = [(); 3].map(|()| Collect::new());
    let tens_seen = Collect::new();
    let graph = env.actors();
    let numbers = graph.source("numbers", Generator::new(1000, |n| n));
    let sorter = graph.vertex("sorter", Sorter::new(tags.clone()));
    let sorter = sorter.max_parallelism(12).uid("sorts");
    let sum = Fold::new(0u64, |sum: &mut u64, _: &u64, n: u64| {
        *sum += n;
        *sum
    });
    let sums = graph.keyed_vertex("sums", |n: &u64| *n % 5, sum);
    let sums = sums.uid("sums").max_parallelism(7).parallelism(3);
    let odd = graph.sink("odd", odd_seen.clone()).parallelism(1);
    let even = graph.sink("even", even_seen.clone()).parallelism(1);
    let again = graph.sink("again", again_seen.clone()).parallelism(1);
    let tens = graph.sink("tens", tens_seen.clone()).parallelism(1);
    graph
        .edge(&numbers, &sorter, Forward::default())
        .hash_edge(&sorter, &sums)
        .edge(&sums, &odd, Global)
        .edge(&sorter.side_output(&tags.0), &even, Global)
        .edge(&sorter.side_output(&tags.0), &again, Global)
        .edge(&sorter.side_output(&tags.1), &tens, Rebalance::default());
    let job = env.graph("sides").expect("it is whole");
    let uids: Vec<_> = job.operators.iter().filter_map(|o| o.uid.clone()).collect();
    assert_eq!(uids, ["sorts", "sums"]);
    let most = |name: &str| {
        let operator = job.operators.iter().find(|o| o.name == name);
        job.max_parallelism(operator.expect("it is there").vertex)
    };
    assert_eq!((most("sums"), most("odd")), (7, 128));
    env.execute("sides").expect("the job runs");

    // Of the odd numbers those that end in 9 have the greatest sum: 9 + 19 + ... + 999.
    let sums = odd_seen.values();
    assert_eq!((sums.len(), sums.iter().max()), (500, Some(&50_400)));
    let sorted = |mut values: Vec<u64>| {
        values.sort_unstable();
        values
    };
    let want: Vec<u64> = (0..1000).step_by(2).collect();
    assert_eq!(sorted(even_seen.values()), want);
    assert_eq!(sorted(again_seen.values()), want);
    let tens = tens_seen.values();
    assert_eq!(tens.len(), 100);
    assert!(tens.contains(&"ten 990".to_owned()));
}
