//! Comma-separated values with a header, through serde.

use super::row::{Row, RowError};
use super::{Bad, Encode, Format, Framing, utf8};
use csv::{Writer, WriterBuilder};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::cell::Cell;
use std::io::{self, Write};
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};

/// Reads rows as records of type `T`, whose fields are found by the names in the header.
///
/// Fields may be quoted with `"`, and then hold delimiters, newlines and doubled quotes. Blank lines
/// are passed over. A row must have as many columns as the header. An empty field is `None` where an
/// `Option` is wanted.
pub struct Csv<T> {
    delimiter: u8,
    header: Vec<String>,
    /// The columns that `T` is shown: all of them until one row was read, then those that it has fields
    /// for. That it takes the others is known by then.
    columns: Vec<u32>,
    learned: bool,
    fields: Vec<(u32, u32)>,
    /// The text of a row that has quotes, without them.
    unquoted: Vec<u8>,
    item: PhantomData<fn() -> T>,
}

impl<T> Default for Csv<T> {
    fn default() -> Self {
        Csv {
            delimiter: b',',
            header: Vec::new(),
            columns: Vec::new(),
            learned: false,
            fields: Vec::new(),
            unquoted: Vec::new(),
            item: PhantomData,
        }
    }
}

impl<T> Clone for Csv<T> {
    fn clone(&self) -> Self {
        Csv {
            delimiter: self.delimiter,
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
    fn describe(&self, error: RowError) -> Bad {
        // The row has all columns of the header, so what is missing is missing in the header.
        if error.missing {
            return Bad::File(format!(
                "{}: its header names {}",
                error,
                self.header.join(", ")
            ));
        }
        match error.column.and_then(|at| self.header.get(at as usize)) {
            Some(column) => Bad::Record(format!("column '{column}': {error}")),
            None => Bad::Record(error.message),
        }
    }

    #[cold]
    fn wrong_width(&self) -> Bad {
        let (got, want) = (self.fields.len(), self.header.len());
        let columns = if got == 1 { "column" } else { "columns" };
        Bad::Record(format!("the row has {got} {columns} and the header {want}"))
    }

    /// From now on, shows `T` only the columns that it has fields for.
    #[cold]
    fn learn(&mut self, wanted: Option<&'static [&'static str]>) {
        self.learned = true;
        if let Some(wanted) = wanted {
            let header = &self.header;
            self.columns
                .retain(|at| wanted.contains(&header[*at as usize].as_str()));
        }
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
        let Ok(text) = str::from_utf8(header) else {
            return Err(Bad::File(
                "its header is not UTF-8 text; is it a CSV file?".to_owned(),
            ));
        };
        let text = split(text, self.delimiter, &mut self.unquoted, &mut self.fields);
        let name = |(begin, end): &(u32, u32)| text.get(*begin as usize..*end as usize);
        self.header = self
            .fields
            .iter()
            .map(|f| name(f).unwrap_or_default().to_owned())
            .collect();
        self.columns = (0..self.header.len() as u32).collect();
        self.learned = false;
        Ok(())
    }

    #[inline]
    fn decode(&mut self, record: &[u8]) -> Result<Option<T>, Bad> {
        if record.is_empty() {
            return Ok(None);
        }
        let text = split(
            utf8(record)?,
            self.delimiter,
            &mut self.unquoted,
            &mut self.fields,
        );
        if self.fields.len() != self.header.len() {
            return Err(self.wrong_width());
        }
        let (names, fields, columns) = (&self.header, &self.fields, &self.columns);
        let wanted = Cell::new(None);
        match T::deserialize(Row {
            names,
            text,
            fields,
            columns,
            wanted: &wanted,
        }) {
            Ok(item) => {
                if !self.learned {
                    self.learn(wanted.get());
                }
                Ok(Some(item))
            }
            Err(error) => Err(self.describe(error)),
        }
    }
}

/// Splits one row into its fields; returns the text that they stand in.
#[inline]
fn split<'a>(
    record: &'a str,
    delimiter: u8,
    unquoted: &'a mut Vec<u8>,
    fields: &mut Vec<(u32, u32)>,
) -> &'a str {
    fields.clear();
    if memchr::memchr(b'"', record.as_bytes()).is_some() {
        return split_quoted(record, delimiter, unquoted, fields);
    }
    let mut begin = 0;
    for (at, byte) in record.bytes().enumerate() {
        if byte == delimiter {
            fields.push((begin, at as u32));
            begin = at as u32 + 1;
        }
    }
    fields.push((begin, record.len() as u32));
    record
}

/// The same where there are quotes: one at a field's beginning opens a quoted field, in which only a
/// doubled quote stands for itself; elsewhere a quote is a character like any other.
fn split_quoted<'a>(
    record: &str,
    delimiter: u8,
    text: &'a mut Vec<u8>,
    fields: &mut Vec<(u32, u32)>,
) -> &'a str {
    text.clear();
    let mut rest = record.as_bytes();
    loop {
        let begin = text.len() as u32;
        if let Some(quoted) = rest.strip_prefix(b"\"") {
            rest = unquote(quoted, text);
        }
        let end = memchr::memchr(delimiter, rest).unwrap_or(rest.len());
        text.extend_from_slice(&rest[..end]);
        fields.push((begin, text.len() as u32));
        match rest.get(end + 1..) {
            Some(more) => rest = more,
            None => return str::from_utf8(text).unwrap_or_default(),
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
    /// The file at hand has its header.
    headed: bool,
    spill: Spill,
    writer: Option<Writer<Spill>>,
}

impl Default for CsvOut {
    fn default() -> Self {
        CsvOut {
            header: true,
            delimiter: b',',
            headed: false,
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
        (self.writer, self.headed) = (None, false);
    }

    fn go_on(&mut self) {
        (self.writer, self.headed) = (None, true);
    }

    fn encode(&mut self, value: &T, out: &mut Vec<u8>) -> Result<(), String> {
        let writer = self.writer.get_or_insert_with(|| {
            let mut builder = WriterBuilder::new();
            builder
                .has_headers(self.header && !self.headed)
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
