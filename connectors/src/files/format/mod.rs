//! How bytes become records and records bytes.

mod csv;
mod json;
mod lines;
mod row;

pub use self::csv::{Csv, CsvOut};
pub use json::{JsonLines, JsonLinesOut};
pub use lines::{Lines, LinesOut};

/// Where one record ends and the next begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// At each newline.
    Lines,
    /// At each newline that is not inside a quoted field.
    Quoted {
        /// What separates the fields.
        delimiter: u8,
    },
}

/// Why a record could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bad {
    /// This record is not what it should be; the next one may be.
    Record(String),
    /// The file is not what it should be: no record of it can be read.
    File(String),
}

/// Reads records of one kind from the bytes of a file.
pub trait Format: Clone + Send + Sync + 'static {
    /// The records.
    type Item: 'static;

    /// Where records end.
    fn framing(&self) -> Framing {
        Framing::Lines
    }

    /// Whether the first record of each file is its header.
    fn has_header(&self) -> bool {
        false
    }

    /// Whether a plain file may be read in ranges of bytes. Right only where every newline ends a
    /// record.
    fn splittable(&self) -> bool {
        self.framing() == Framing::Lines
    }

    /// A file begins, or goes on after another one: its header, where it has one.
    fn begin(&mut self, _header: &[u8]) -> Result<(), Bad> {
        Ok(())
    }

    /// Reads one record, given without its newline; `None` for what is no record, such as a blank line.
    fn decode(&mut self, record: &[u8]) -> Result<Option<Self::Item>, Bad>;
}

/// Writes records of one kind.
pub trait Encode<T>: Clone + Send + Sync + 'static {
    /// A file begins.
    fn begin(&mut self) {}

    /// A file goes on that an earlier attempt began: what stands at its beginning is there.
    fn go_on(&mut self) {}

    /// Appends one record with its newline.
    fn encode(&mut self, value: &T, out: &mut Vec<u8>) -> Result<(), String>;
}

/// Text, or why it is none.
fn utf8(bytes: &[u8]) -> Result<&str, Bad> {
    str::from_utf8(bytes).map_err(|error| {
        Bad::Record(format!(
            "it is not UTF-8 text (byte {} of the record)",
            error.valid_up_to() + 1
        ))
    })
}
