//! Which words does a text use most? The first job that everybody writes.
//!
//! ```text
//! cargo run --release --example wordcount
//! cargo run --release --example wordcount -- README.md --top 20 --parallelism 2
//! ```

use clap::Parser;
use std::path::PathBuf;
use tidegate::prelude::*;

/// Moving texts between threads is work for the allocator first.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Counts the words of a text.
#[derive(Parser)]
struct Arguments {
    /// A text, plain or gzip, or a folder of texts
    #[arg(default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/tide-gates.txt"))]
    text: PathBuf,
    /// How many words to show
    #[arg(long, value_name = "N", default_value_t = 12)]
    top: usize,
    #[command(flatten)]
    env: EnvArgs,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let env = StreamEnv::new(arguments.env.clone());
    let counts = Collect::new();
    env.source("lines", FileSource::lines(&arguments.text))
        .flat_map(|line: String| words(&line))
        .name("words")
        .key_by(|word| word.clone())
        // One window for all time, which is emitted when the input has come to its end.
        .window(GlobalWindows)
        .trigger(EventTimeTrigger::new())
        .count()
        .name("count")
        .sink("counts", counts.clone());
    let result = env.execute("wordcount")?;
    if arguments.env.plan {
        return Ok(());
    }

    let mut counts: Vec<(u64, String)> = counts
        .values()
        .into_iter()
        .map(|w| (w.value, w.key))
        .collect();
    counts.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    let most = counts.first().map_or(1, |(count, _)| *count);
    for (count, word) in counts.iter().take(arguments.top) {
        let bar = "#".repeat((count * 40).div_ceil(most) as usize);
        println!("{word:>12}  {count:>5}  {bar}");
    }
    let total: u64 = counts.iter().map(|(count, _)| count).sum();
    println!(
        "{total} words, {} different, in {} lines, {:.3} s",
        counts.len(),
        result.records_in("lines"),
        result.elapsed.as_secs_f64()
    );
    Ok(())
}

fn words(line: &str) -> Vec<String> {
    line.split(|c: char| !c.is_alphanumeric() && c != '\'')
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect()
}
