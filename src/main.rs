//! The `tidegate` command.

use clap::{Parser, Subcommand};
use tidegate::engine::constants;
use tidegate::engine::graph::JobSettings;

/// A stream-processing engine built from actors.
#[derive(Parser)]
#[command(name = "tidegate", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show the build, this machine and the defaults of a job
    Info,
}

fn main() {
    match Arguments::parse().command {
        Command::Info => info(),
    }
}

fn info() {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let JobSettings {
        parallelism,
        max_parallelism,
        channels,
        slice,
        slice_micros: _,
        checkpoints: _,
        state: _,
    } = JobSettings::default();
    println!("tidegate         {}", env!("CARGO_PKG_VERSION"));
    println!(
        "built for        {} on {}",
        std::env::consts::ARCH,
        std::env::consts::OS
    );
    println!("cores            {cores}");
    println!("parallelism      {parallelism}");
    println!("max parallelism  {max_parallelism}");
    println!("source slice     {slice} records");
    println!(
        "channel credits  {} to {} records",
        channels.initial_credits, channels.max_credits
    );
    println!("flush interval   {} ms", channels.flush_interval_ms);
    println!("memory budget    {} bytes", constants::DEFAULT_MAX_MEMORY);
}
