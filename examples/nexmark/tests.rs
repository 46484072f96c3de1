//! The parts of the benchmark without its `main`, for their own tests to run with all others.

#![allow(dead_code, reason = "what only `main` uses")]

mod answer_rows;
mod baseline;
mod bench;
mod csv_out;
mod digest;
mod events;
mod generator;
mod options;
mod queries;
mod report;
mod rules;
