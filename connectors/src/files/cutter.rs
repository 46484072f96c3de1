//! Where records end, over bytes that arrive in pieces: quotes may hide newlines.

use super::format::Framing;
use memchr::{memchr, memchr_iter, memrchr};

/// Finds the ends of records in a file whose bytes come in pieces.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cutter {
    framing: Framing,
    place: Place,
}

/// Where in a row the last byte stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    FieldStart,
    Plain,
    Quoted,
    /// Behind a quote in a quoted field: its end, or the first half of a doubled one.
    Quote,
}

impl Cutter {
    /// At the beginning of a record.
    pub(crate) fn new(framing: Framing) -> Self {
        Cutter {
            framing,
            place: Place::FieldStart,
        }
    }

    /// Takes the next bytes and returns the end of the last record that ends in them, behind its
    /// newline.
    pub(crate) fn last_end(&mut self, bytes: &[u8]) -> Option<usize> {
        let Framing::Quoted { delimiter } = self.framing else {
            return memrchr(b'\n', bytes).map(|at| at + 1);
        };
        let mut from = 0;
        let mut end = None;
        // Up to the first quote every newline ends a record, unless the bytes begin inside quotes.
        if matches!(self.place, Place::FieldStart | Place::Plain) {
            let quote = memchr(b'"', bytes).unwrap_or(bytes.len());
            end = memrchr(b'\n', &bytes[..quote]).map(|at| at + 1);
            from = quote;
            match bytes[..quote].last() {
                Some(b'\n') => self.place = Place::FieldStart,
                Some(last) if *last == delimiter => self.place = Place::FieldStart,
                Some(_) => self.place = Place::Plain,
                None => {}
            }
        }
        while from < bytes.len() {
            if self.step(bytes[from], delimiter) {
                end = Some(from + 1);
            }
            from += 1;
        }
        end
    }

    /// The end of the record that begins with these bytes, behind its newline.
    pub(crate) fn first_end(framing: Framing, bytes: &[u8]) -> Option<usize> {
        let newline = memchr(b'\n', bytes)?;
        let Framing::Quoted { delimiter } = framing else {
            return Some(newline + 1);
        };
        if memchr(b'"', &bytes[..newline]).is_none() {
            return Some(newline + 1);
        }
        let mut cutter = Cutter::new(framing);
        (0..bytes.len())
            .find(|at| cutter.step(bytes[*at], delimiter))
            .map(|at| at + 1)
    }

    /// Whether this byte ends a record.
    fn step(&mut self, byte: u8, delimiter: u8) -> bool {
        self.place = match (self.place, byte) {
            (Place::Quoted, b'"') => Place::Quote,
            (Place::Quoted, _) => Place::Quoted,
            (Place::FieldStart, b'"') | (Place::Quote, b'"') => Place::Quoted,
            (_, b'\n') => {
                self.place = Place::FieldStart;
                return true;
            }
            (_, byte) if byte == delimiter => Place::FieldStart,
            _ => Place::Plain,
        };
        false
    }
}

/// The number of newlines.
pub(crate) fn newlines(bytes: &[u8]) -> u64 {
    memchr_iter(b'\n', bytes).count() as u64
}

/// A record without its line's end.
pub(crate) fn trimmed(record: &[u8]) -> &[u8] {
    let record = record.strip_suffix(b"\n").unwrap_or(record);
    record.strip_suffix(b"\r").unwrap_or(record)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CSV: Framing = Framing::Quoted { delimiter: b',' };

    #[test]
    fn quotes_hide_newlines_only_at_the_beginning_of_a_field() {
        assert_eq!(Cutter::first_end(CSV, b"a,\"b\nc\"\nd\n"), Some(8));
        assert_eq!(Cutter::first_end(CSV, b"5\" pipe,3\nd\n"), Some(10));
        assert_eq!(Cutter::first_end(CSV, b"\"a\"\"\n\"\nb\n"), Some(7));
        assert_eq!(Cutter::first_end(CSV, b"\"a\n"), None);
        assert_eq!(Cutter::first_end(Framing::Lines, b"\"a\nb\"\n"), Some(3));
    }

    /// The end of the last record, found by taking one record after the other.
    fn naive(bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while let Some(end) = Cutter::first_end(CSV, &bytes[at..]) {
            at += end;
        }
        (at > 0).then_some(at)
    }

    proptest! {
        #[test]
        fn pieces_are_cut_like_the_whole(text in "[a,\"\n]{0,60}", piece in 1usize..20) {
            let bytes = text.as_bytes();
            let mut cutter = Cutter::new(CSV);
            let mut end = None;
            for (n, piece_bytes) in bytes.chunks(piece).enumerate() {
                end = cutter.last_end(piece_bytes).map(|e| n * piece + e).or(end);
            }
            prop_assert_eq!(end, naive(bytes));
        }
    }
}
