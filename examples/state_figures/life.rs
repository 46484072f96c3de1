//! How soon records flow again: after a kill, and after a panic, of a job with so many keys of state.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tidegate::prelude::*;

/// A process of its own that runs the job, until it prints a line with this word.
fn until(arguments: &[String], word: &str) -> anyhow::Result<(Child, Duration, String)> {
    let began = Instant::now();
    let mut child = Command::new(std::env::current_exe()?)
        .args(arguments)
        .stdout(Stdio::piped())
        .spawn()?;
    let Some(lines) = child.stdout.take() else {
        anyhow::bail!("the job has no output");
    };
    for line in BufReader::new(lines).lines() {
        let line = line?;
        if line.contains(word) {
            return Ok((child, began.elapsed(), line));
        }
    }
    anyhow::bail!("the job ended before it said '{word}'")
}

/// Starts, kills, and starts jobs.
pub fn life(keys: u64) -> anyhow::Result<()> {
    println!("lives of a job with {keys} keys of state");
    for backend in ["memory", "rocksdb"] {
        let folder = tempfile::tempdir()?;
        let arguments = |more: &[&str]| {
            let place = folder.path().display().to_string();
            let all = [&keys.to_string(), "job", backend, &place].map(str::to_owned);
            let more = more.iter().map(|m| (*m).to_owned());
            all.into_iter().chain(more).collect::<Vec<String>>()
        };
        let (mut child, _, _) = until(&arguments(&["begin"]), "all keys")?;
        // A checkpoint of all of them is complete some time after that.
        wait_for_checkpoint(folder.path(), keys)?;
        child.kill()?;
        child.wait()?;
        let (mut child, took, _) = until(&arguments(&["begin"]), "first record")?;
        child.kill()?;
        child.wait()?;
        println!("  {backend}: killed, from the start of the process to the first record {took:?}");
        let (mut child, _, line) = until(&arguments(&["panics"]), "flows again")?;
        child.kill()?;
        child.wait()?;
        println!("  {backend}: {line}");
    }
    Ok(())
}

fn wait_for_checkpoint(folder: &Path, keys: u64) -> anyhow::Result<()> {
    use tidegate::actors::checkpoint_storage::LocalStorage;
    use tidegate::engine::checkpoint::storage::{checkpoints, read_metadata};
    let storage = LocalStorage::new(folder.join("life"));
    loop {
        let listed = checkpoints(&storage)?;
        let newest = listed.iter().rfind(|listed| listed.complete);
        let entries = newest.and_then(|newest| read_metadata(&storage, &newest.folder).ok());
        let entries = entries.map_or(0, |metadata| {
            let operators = metadata.subtasks.iter().flat_map(|s| &s.index.operators);
            let states = operators.flat_map(|operator| &operator.states);
            states.map(|state| state.data.entries()).sum::<u64>()
        });
        if entries >= keys / 10 * 9 {
            return Ok(());
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// The job, in a process of its own.
pub fn job(keys: u64, backend: &str, folder: &str, panics: bool) -> anyhow::Result<()> {
    use clap::Parser;
    #[derive(Parser)]
    struct Arguments {
        #[command(flatten)]
        env: EnvArgs,
    }
    let arguments = Arguments::parse_from([
        "life",
        "--parallelism",
        "2",
        "--checkpoint-dir",
        folder,
        "--checkpoint-interval",
        "500",
        "--restore",
        "latest",
        "--state-backend",
        backend,
        "--restart",
        "fixed:3:1",
        "--progress",
        "off",
    ]);
    let env = StreamEnv::new(arguments.env);
    let (first, seen) = (AtomicBool::new(true), AtomicU64::new(0));
    let fell: Arc<Mutex<Option<Instant>>> = Arc::default();
    let watch = Arc::new((first, seen, fell));
    env.source(
        "numbers",
        Generator::new(u64::MAX, |n| n).per_second(2_000_000.0),
    )
    .map(move |n: u64| {
        let (first, seen, fell) = &*watch;
        let mut fell = fell.lock().unwrap_or_else(PoisonError::into_inner);
        if first.swap(false, SeqCst) {
            println!("first record");
        }
        if let Some(fell) = fell.take() {
            println!(
                "panicked, and the next record flows again after {:?}",
                fell.elapsed()
            );
        }
        let count = seen.fetch_add(1, SeqCst);
        if count == keys {
            println!("all keys");
        }
        if panics && count == keys {
            *fell = Some(Instant::now());
            panic!("as planned");
        }
        n % keys
    })
    .key_by(|key| *key)
    .fold(0u64, |count, key, _| {
        *count += 1;
        (*key, *count)
    })
    .sink("nowhere", BlackHole);
    env.execute("life")?;
    Ok(())
}
