//! What becomes of a record that comes late, and of one that comes too late?
//!
//! ```text
//! cargo run --release --example late_data
//! cargo run --release --example late_data -- --per-second 1
//! ```
//!
//! Ferry tickets are counted per ten seconds of the time at which they were scanned. Some scanners have
//! bad radio, so tickets arrive out of order. The watermark, 5 s behind the latest ticket, says when a
//! window is complete; a window is kept 10 s longer, and a late ticket for it refines its count; what
//! comes after that goes to a side output. So no ticket is lost without a trace.

use clap::Parser;
use std::collections::HashMap;
use tidegate::prelude::*;

/// Moving texts between threads is work for the allocator first.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Seconds at which the tickets were scanned, in the order in which they arrive.
const SCANNED: [i64; 14] = [11, 14, 13, 22, 18, 26, 19, 29, 32, 24, 41, 37, 16, 48];
const OUT_OF_ORDER: Duration = Duration::from_secs(5);
const WINDOW: Duration = Duration::from_secs(10);
const LATENESS: Duration = Duration::from_secs(10);
const ARROW: &str = "                  =>";

/// Shows what happens to late records, line by line.
#[derive(Parser)]
struct Arguments {
    /// How many tickets arrive per second
    #[arg(long, value_name = "N", default_value_t = 8.0)]
    per_second: f64,
    #[command(flatten)]
    env: EnvArgs,
}

/// Passes everything on and prints it: records, and the watermarks between them.
#[derive(Clone)]
struct Watch;

impl Operator<i64> for Watch {
    type Out = i64;

    fn process<C: Collector<i64>>(&mut self, at: Timestamp, scanned: i64, out: &mut C) -> Flow {
        println!("ticket of {scanned:>2} s");
        out.collect(at, scanned)
    }

    fn watermark<C: Collector<i64>>(&mut self, at: Timestamp, _out: &mut C) -> Flow<Progress> {
        match at {
            Timestamp::MAX => println!("              the input ends: all windows are complete"),
            at => println!("              watermark {:.3} s", at.millis() as f64 / 1e3),
        }
        Ok(Progress::Forward)
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let env = StreamEnv::new(arguments.env.clone());
    let arriving = Generator::new(SCANNED.len() as u64, |n| SCANNED[n as usize]);
    let too_late = SideOutput::new("too late");
    let mut counts = HashMap::new();
    // Usually `bounded_out_of_orderness(OUT_OF_ORDER)`, whose watermarks come batch by batch. Here one
    // follows each ticket, so that the story is the same each time.
    let watermarks = WatermarkStrategy::punctuated(|_: &i64, at: Timestamp| {
        Some(at.minus(OUT_OF_ORDER).minus(Duration::from_millis(1)))
    });
    let (windows, lost) = env
        .source("tickets", arriving.per_second(arguments.per_second))
        .parallelism(1) // one gangway
        .watermarks(watermarks.timestamps(|scanned: &i64| scanned * 1000))
        .operate("watch", Watch)
        .key_by(|_| "ferry".to_owned())
        .window(Tumbling::event_time(WINDOW))
        .allowed_lateness(LATENESS)
        .late_output(&too_late)
        .count()
        .side_output(&too_late);
    windows
        .map(move |result| {
            let [start, end] = [result.window.start, result.window.end].map(|t| t.millis() / 1000);
            let (count, before) = (result.value, counts.insert(start, result.value));
            let before = before.map_or_else(String::new, |n| format!(", refined: it was {n}"));
            format!("{ARROW} {start} s to {end} s: {count} tickets{before}")
        })
        .parallelism(1)
        .sink("windows", Print::new());
    lost.map(|scanned| format!("{ARROW} too late, to the side output: ticket of {scanned} s"))
        .parallelism(1)
        .sink("lost", Print::new());
    let result = env.execute("late data")?;
    if !arguments.env.plan {
        println!(
            "{} tickets, {} too late",
            result.records_in("tickets"),
            result.late()
        );
    }
    Ok(())
}
