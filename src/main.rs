//! The `tidegate` command.

mod checkpoint_command;
mod inspect;
mod sweep;
mod table;

use checkpoint_command::CheckpointCommand;
use clap::{Parser, Subcommand};
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;
use tidegate::engine::constants;
use tidegate::engine::graph::JobSettings;

/// The one that the examples have, and for the same reason: it gives back what other threads have freed.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

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
    /// Look at stored checkpoints and savepoints
    #[command(subcommand)]
    Checkpoint(CheckpointCommand),
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Info => {
            info();
            ExitCode::SUCCESS
        }
        Command::Checkpoint(command) => checkpoint(&command),
    }
}

fn checkpoint(command: &CheckpointCommand) -> ExitCode {
    let report = match checkpoint_command::run(command) {
        Ok(report) => report,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    match io::stdout().write_all(report.text.as_bytes()) {
        // Whoever reads may have seen enough.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            eprintln!("error: could not print: {error}");
            ExitCode::FAILURE
        }
        _ if report.good => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
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
