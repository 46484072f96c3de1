//! Files as streams: folders of CSV, JSON lines or text, plain or gzip, read whole or followed as they
//! grow; and part files that readers see only when they are whole.
//!
//! Nothing here blocks a turn: a thread per reader does the reading, the decompression and the cutting
//! into blocks of whole records (`fetch`); the subtask parses records from the blocks. A thread
//! per writer writes, syncs and renames.

mod cutter;
mod fetch;
mod follow;
pub mod format;
mod open_file;
mod parts;
mod plan;
mod progress;
mod reader;
mod sink;
mod source;
mod staged;
mod writer;

pub use format::{Csv, CsvOut, Encode, Format, Framing, JsonLines, JsonLinesOut, Lines, LinesOut};
pub use reader::FileReader;
pub use sink::FileSink;
pub use source::{FileSource, Paths};
pub use writer::FileWriter;

#[cfg(test)]
mod tests;
