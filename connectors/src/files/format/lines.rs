//! Lines of text.

use super::{Bad, Encode, Format, utf8};
use std::io::Write;
use std::marker::PhantomData;

/// Reads each line as a `String`, without its newline.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lines;

impl Format for Lines {
    type Item = String;

    fn decode(&mut self, record: &[u8]) -> Result<Option<String>, Bad> {
        Ok(Some(utf8(record)?.to_owned()))
    }
}

/// Writes each record as a line, by a function.
#[derive(Debug)]
pub struct LinesOut<T, F> {
    write: F,
    input: PhantomData<fn(T)>,
}

impl<T, F: Clone> Clone for LinesOut<T, F> {
    fn clone(&self) -> Self {
        LinesOut {
            write: self.write.clone(),
            input: PhantomData,
        }
    }
}

impl<T, F: Fn(&T, &mut dyn Write) -> std::io::Result<()>> LinesOut<T, F> {
    /// Writes lines with `write`, which doesn't write the newline.
    pub fn new(write: F) -> Self {
        LinesOut {
            write,
            input: PhantomData,
        }
    }
}

impl<T, F> Encode<T> for LinesOut<T, F>
where
    T: 'static,
    F: Fn(&T, &mut dyn Write) -> std::io::Result<()> + Clone + Send + Sync + 'static,
{
    fn encode(&mut self, value: &T, out: &mut Vec<u8>) -> Result<(), String> {
        (self.write)(value, out).map_err(|error| error.to_string())?;
        out.push(b'\n');
        Ok(())
    }
}
