//! One JSON value per line, through serde.

use super::{Bad, Encode, Format};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::marker::PhantomData;

/// Reads each line as a JSON value of type `T`. Blank lines are passed over.
pub struct JsonLines<T>(PhantomData<fn() -> T>);

impl<T> Default for JsonLines<T> {
    fn default() -> Self {
        JsonLines(PhantomData)
    }
}

impl<T> Clone for JsonLines<T> {
    fn clone(&self) -> Self {
        JsonLines(PhantomData)
    }
}

impl<T: DeserializeOwned + 'static> Format for JsonLines<T> {
    type Item = T;

    fn decode(&mut self, record: &[u8]) -> Result<Option<T>, Bad> {
        if record.trim_ascii().is_empty() {
            return Ok(None);
        }
        let value = serde_json::from_slice(record);
        value.map(Some).map_err(|error| Bad::Record(reason(&error)))
    }
}

/// A line holds one value, so its number within the record says nothing.
#[cold]
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line 1 column ") {
        Some(at) => format!("{} (column {})", &text[..at], error.column()),
        None => text,
    }
}

/// Writes each record as one line of JSON.
#[derive(Clone, Copy, Debug, Default)]
pub struct JsonLinesOut;

impl<T: Serialize + 'static> Encode<T> for JsonLinesOut {
    fn encode(&mut self, value: &T, out: &mut Vec<u8>) -> Result<(), String> {
        serde_json::to_writer(&mut *out, value).map_err(|error| error.to_string())?;
        out.push(b'\n');
        Ok(())
    }
}
