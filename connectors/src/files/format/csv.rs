//! Comma-separated values with a header, through serde.

use super::{Bad, Encode, Format, Framing};
use csv::{ByteRecord, Writer, WriterBuilder};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, Write};
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};

/// Reads rows as records of type `T`, whose fields are found by the names in the header.
///
/// Fields may be quoted with `"`, and then hold delimiters, newlines and doubled quotes. Blank lines
/// are passed over. A row must have as many columns as the header.
pub struct Csv<T> {
    delimiter: u8,
    header: ByteRecord,
    row: ByteRecord,
    unquoted: Vec<u8>,
    item: PhantomData<fn() -> T>,
}

impl<T> Default for Csv<T> {
    fn default() -> Self {
        Csv {
            delimiter: b',',
            header: ByteRecord::new(),
            row: ByteRecord::new(),
            unquoted: Vec::new(),
            item: PhantomData,
        }
    }
}

impl<T> Clone for Csv<T> {
    fn clone(&self) -> Self {
        Csv {
            delimiter: self.delimiter,
            header: self.header.clone(),
            ..Csv::default()
        }
    }
}

impl<T> Csv<T> {
    /// Comma-separated values.
    pub fn new() -> Self {
        Csv::default()
    }

    /// Values separated by another character, such as a tab.
    pub fn delimiter(mut self, delimiter: u8) -> Self {
        self.delimiter = delimiter;
        self
    }

    #[cold]
    fn describe(&self, error: &csv::Error) -> Bad {
        let csv::ErrorKind::Deserialize { err, .. } = error.kind() else {
            return Bad::Record(error.to_string());
        };
        let text = err.kind().to_string();
        // The row has all columns of the header, so what is missing is missing in the header.
        if text.starts_with("missing field ") {
            let names: Vec<_> = self.header.iter().map(String::from_utf8_lossy).collect();
            let reason = format!("{text}: the header names {}", names.join(", "));
            return Bad::File(reason);
        }
        match err.field().and_then(|at| self.header.get(at as usize)) {
            Some(column) => Bad::Record(format!(
                "column '{}': {text}",
                String::from_utf8_lossy(column)
            )),
            None => Bad::Record(text),
        }
    }

    #[cold]
    fn wrong_width(&self) -> Bad {
        let (got, want) = (self.row.len(), self.header.len());
        let columns = if got == 1 { "column" } else { "columns" };
        Bad::Record(format!("the row has {got} {columns} and the header {want}"))
    }
}

impl<T: DeserializeOwned + 'static> Format for Csv<T> {
    type Item = T;

    fn framing(&self) -> Framing {
        Framing::Quoted {
            delimiter: self.delimiter,
        }
    }

    fn has_header(&self) -> bool {
        true
    }

    fn begin(&mut self, header: &[u8]) -> Result<(), Bad> {
        split(header, self.delimiter, &mut self.unquoted, &mut self.header);
        match str::from_utf8(header) {
            Ok(_) => Ok(()),
            Err(_) => Err(Bad::File(
                "its header is not UTF-8 text; is it a CSV file?".to_owned(),
            )),
        }
    }

    fn decode(&mut self, record: &[u8]) -> Result<Option<T>, Bad> {
        if record.is_empty() {
            return Ok(None);
        }
        split(record, self.delimiter, &mut self.unquoted, &mut self.row);
        if self.row.len() != self.header.len() {
            return Err(self.wrong_width());
        }
        self.row
            .deserialize(Some(&self.header))
            .map(Some)
            .map_err(|error| self.describe(&error))
    }
}

/// Splits one row into its fields.
fn split(record: &[u8], delimiter: u8, unquoted: &mut Vec<u8>, row: &mut ByteRecord) {
    row.clear();
    if memchr::memchr(b'"', record).is_some() {
        return split_quoted(record, delimiter, unquoted, row);
    }
    let mut begin = 0;
    for end in memchr::memchr_iter(delimiter, record) {
        row.push_field(&record[begin..end]);
        begin = end + 1;
    }
    row.push_field(&record[begin..]);
}

/// The same where there are quotes: one at a field's beginning opens a quoted field, in which only a
/// doubled quote stands for itself; elsewhere a quote is a character like any other.
fn split_quoted(record: &[u8], delimiter: u8, field: &mut Vec<u8>, row: &mut ByteRecord) {
    let mut rest = record;
    loop {
        field.clear();
        if let Some(quoted) = rest.strip_prefix(b"\"") {
            rest = unquote(quoted, field);
        }
        let end = memchr::memchr(delimiter, rest).unwrap_or(rest.len());
        field.extend_from_slice(&rest[..end]);
        row.push_field(field);
        match rest.get(end + 1..) {
            Some(more) => rest = more,
            None => return,
        }
    }
}

/// Appends what stands before the closing quote and returns what stands behind it.
fn unquote<'a>(mut rest: &'a [u8], field: &mut Vec<u8>) -> &'a [u8] {
    loop {
        let Some(quote) = memchr::memchr(b'"', rest) else {
            field.extend_from_slice(rest);
            return &[];
        };
        field.extend_from_slice(&rest[..quote]);
        rest = &rest[quote + 1..];
        match rest.strip_prefix(b"\"") {
            Some(more) => {
                field.push(b'"');
                rest = more;
            }
            None => return rest,
        }
    }
}

/// Writes records as rows; with a header where the records have named fields.
pub struct CsvOut {
    header: bool,
    delimiter: u8,
    spill: Spill,
    writer: Option<Writer<Spill>>,
}

impl Default for CsvOut {
    fn default() -> Self {
        CsvOut {
            header: true,
            delimiter: b',',
            spill: Spill::default(),
            writer: None,
        }
    }
}

impl Clone for CsvOut {
    fn clone(&self) -> Self {
        CsvOut {
            header: self.header,
            delimiter: self.delimiter,
            ..CsvOut::default()
        }
    }
}

impl CsvOut {
    /// Whether each file begins with a header of the fields' names.
    pub fn header(mut self, header: bool) -> Self {
        self.header = header;
        self
    }

    /// Separates values by another character.
    pub fn delimiter(mut self, delimiter: u8) -> Self {
        self.delimiter = delimiter;
        self
    }
}

impl<T: Serialize + 'static> Encode<T> for CsvOut {
    fn begin(&mut self) {
        self.writer = None;
    }

    fn encode(&mut self, value: &T, out: &mut Vec<u8>) -> Result<(), String> {
        let writer = self.writer.get_or_insert_with(|| {
            let mut builder = WriterBuilder::new();
            builder
                .has_headers(self.header)
                .delimiter(self.delimiter)
                .flexible(false);
            builder.from_writer(self.spill.clone())
        });
        writer.serialize(value).map_err(|error| error.to_string())?;
        writer.flush().map_err(|error| error.to_string())?;
        out.append(&mut self.spill.0.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(())
    }
}

/// Where the writer's bytes go on their way to the sink's buffer. One subtask alone locks it.
#[derive(Clone, Default)]
struct Spill(Arc<Mutex<Vec<u8>>>);

impl Write for Spill {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
