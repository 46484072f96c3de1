//! One number that says whether two runs gave the same answer, whatever the order in which their rows came.
//!
//! Each row is mixed into 64 bits, field by field, and the results of all rows are added with wrap-around: a sum does
//! not know the order of its terms, and unlike an exclusive or it notices a row that came twice. The mix is fixed
//! here (it depends on no hasher of a library and no pointer width), so digests can be compared between versions.

use crate::csv_out::RowFile;
use serde::{Deserialize, Serialize};
use std::hint::black_box;

const START: u64 = 0x243F_6A88_85A3_08D3;
const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;
const FINAL: u64 = 0xD6E8_FEB8_6659_FD93;

/// Multiplies to 128 bits and folds the halves together.
#[inline(always)]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

/// The hash of a row under construction.
#[derive(Clone, Copy, Debug)]
pub struct Mix(u64);

impl Mix {
    /// A mix that has seen nothing.
    #[inline(always)]
    pub fn new() -> Self {
        Mix(START)
    }

    /// Takes in one word.
    #[inline(always)]
    pub fn word(self, word: u64) -> Self {
        Mix(fold(self.0 ^ word, FACTOR))
    }

    /// Takes in a text. Its bytes are hashed by themselves first, so that a row's texts need not wait for each other.
    #[inline(always)]
    pub fn text(self, text: &str) -> Self {
        self.word(hash_bytes(text.as_bytes()))
    }

    /// The finished hash.
    #[inline(always)]
    pub fn finish(self) -> u64 {
        fold(self.0, FINAL)
    }
}

/// Starts from the length and takes 16 bytes at a time. The last 16 overlap those before if the length is no multiple
/// of 16; shorter texts are read as two overlapping words of 8 or 4 bytes, or byte by byte.
#[inline]
fn hash_bytes(bytes: &[u8]) -> u64 {
    let start = START ^ bytes.len() as u64;
    if let Some(last) = bytes.last_chunk::<16>() {
        let (pieces, _) = bytes[..bytes.len() - 1].as_chunks::<16>();
        let hash = pieces.iter().fold(start, |hash, piece| {
            let both = u128::from_le_bytes(*piece);
            fold_two(hash, both as u64, (both >> 64) as u64)
        });
        let both = u128::from_le_bytes(*last);
        return fold_two(hash, both as u64, (both >> 64) as u64);
    }
    if let (Some(first), Some(last)) = (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        return fold_two(start, u64::from_le_bytes(*first), u64::from_le_bytes(*last));
    }
    if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        return fold_two(
            start,
            u32::from_le_bytes(*first).into(),
            u32::from_le_bytes(*last).into(),
        );
    }
    let word = bytes
        .iter()
        .fold(0, |word, byte| word << 8 | u64::from(*byte));
    fold_two(start, word, 0)
}

#[inline(always)]
fn fold_two(hash: u64, low: u64, high: u64) -> u64 {
    fold(hash ^ low, FINAL ^ high)
}

/// A value that can stand in a row.
pub trait Field {
    /// Takes the value into a row's hash.
    fn mix(&self, mix: Mix) -> Mix;
    /// Appends the value as one CSV cell (or several).
    fn csv(&self, line: &mut String);
    /// The heading of its cell (or cells).
    fn header(name: &str) -> String {
        name.to_owned()
    }
}

impl Field for u64 {
    #[inline(always)]
    fn mix(&self, mix: Mix) -> Mix {
        mix.word(*self)
    }
    fn csv(&self, line: &mut String) {
        line.push_str(&self.to_string());
    }
}

impl Field for String {
    #[inline(always)]
    fn mix(&self, mix: Mix) -> Mix {
        mix.text(self)
    }
    fn csv(&self, line: &mut String) {
        if self.contains([',', '"', '\n', '\r']) {
            line.push('"');
            line.push_str(&self.replace('"', "\"\""));
            line.push('"');
        } else {
            line.push_str(self);
        }
    }
}

/// A row of a query's answer (or of the input, which is the answer of q0).
pub trait Row {
    /// Takes all fields, in their order, into a hash.
    fn mix(&self, mix: Mix) -> Mix;
    /// The row as a line of CSV, without its line end.
    fn csv(&self) -> String;
    /// The line that names the columns.
    fn header() -> String;
    /// The row's share of the digest.
    #[inline(always)]
    fn digest(&self) -> u64 {
        self.mix(Mix::new()).finish()
    }
}

/// Declares structs whose fields, in their order, make a [`Row`].
#[macro_export]
macro_rules! rows {
    ($($(#[$attribute:meta])* $name:ident $(<$text:ident>)? { $($field:ident: $type:ty),* $(,)? })*) => { $(
        $(#[$attribute])*
        #[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        pub struct $name $(<$text>)? { $(pub $field: $type),* }

        impl $(<$text: $crate::digest::Field>)? $crate::digest::Row for $name $(<$text>)? {
            #[inline(always)]
            fn mix(&self, mix: $crate::digest::Mix) -> $crate::digest::Mix {
                $(let mix = $crate::digest::Field::mix(&self.$field, mix);)*
                mix
            }
            fn csv(&self) -> String {
                let mut line = String::new();
                $(
                    $crate::digest::Field::csv(&self.$field, &mut line);
                    line.push(',');
                )*
                line.pop();
                line
            }
            fn header() -> String {
                [$(<$type as $crate::digest::Field>::header(stringify!($field))),*].join(",")
            }
        }
    )* };
}

/// What a run answered, in two numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The number of result rows.
    pub results: u64,
    /// The wrapping sum of the rows' digests.
    pub digest: u64,
}

impl Outcome {
    /// Joins the outcomes of two parts of a run, for example of two sink subtasks.
    #[allow(
        dead_code,
        reason = "a bare loop has one sink; a job has one per subtask"
    )]
    #[must_use]
    pub fn plus(self, other: Outcome) -> Outcome {
        Outcome {
            results: self.results + other.results,
            digest: self.digest.wrapping_add(other.digest),
        }
    }
}

/// Where result rows end: counted, folded into the digest and, if asked for, written as CSV.
///
/// A sink belongs to one thread. With several, give each a clone of an unused one and join their outcomes.
#[derive(Clone, Debug, Default)]
pub struct RowSink {
    outcome: Outcome,
    rows: Rows,
}

/// What is done with a row.
#[derive(Clone, Debug, Default)]
enum Rows {
    #[default]
    Digest,
    DigestAndFile(RowFile),
    Count,
}

impl RowSink {
    /// A sink that counts and folds, and copies rows to `file` if there is one.
    pub fn new(file: Option<RowFile>) -> Self {
        RowSink {
            outcome: Outcome::default(),
            rows: file.map_or(Rows::Digest, Rows::DigestAndFile),
        }
    }

    /// A sink that only counts rows: the digest of a small row costs more than many a query.
    pub fn counting() -> Self {
        RowSink {
            outcome: Outcome::default(),
            rows: Rows::Count,
        }
    }

    /// Takes one row.
    #[inline(always)]
    pub fn emit<R: Row>(&mut self, row: &R) {
        self.outcome.results += 1;
        if matches!(self.rows, Rows::Count) {
            // The row must still be made.
            black_box(row);
            return;
        }
        self.outcome.digest = self.outcome.digest.wrapping_add(row.digest());
        if let Rows::DigestAndFile(file) = &self.rows {
            file.write(row);
        }
    }

    /// What came in so far.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    rows! {
        #[derive(Clone)]
        Pair { key: u64, text: String }
    }

    fn pair(key: u64, text: &str) -> Pair {
        Pair {
            key,
            text: text.to_owned(),
        }
    }

    fn outcome(rows: &[Pair]) -> Outcome {
        let mut sink = RowSink::default();
        rows.iter().for_each(|row| sink.emit(row));
        sink.outcome()
    }

    #[test]
    fn order_does_not_matter_but_content_and_number_do() {
        let rows = [
            pair(1, "a"),
            pair(2, "b"),
            pair(3, "a longer text than sixteen bytes"),
        ];
        let turned = [rows[2].clone(), rows[0].clone(), rows[1].clone()];
        assert_eq!(outcome(&rows), outcome(&turned));
        assert_eq!(
            outcome(&rows),
            outcome(&rows[..1]).plus(outcome(&rows[1..]))
        );
        assert_ne!(outcome(&rows).digest, outcome(&rows[..2]).digest);
        let twice = [rows[0].clone(), rows[0].clone()];
        assert_ne!(outcome(&twice).digest, outcome(&[]).digest);
    }

    #[test]
    fn swapped_fields_and_padded_texts_differ() {
        let straight = [pair(1, "b"), pair(2, "a")];
        let crossed = [pair(1, "a"), pair(2, "b")];
        assert_ne!(outcome(&straight).digest, outcome(&crossed).digest);
        assert_ne!(pair(1, "a").digest(), pair(1, "a\0").digest());
        assert_ne!(pair(1, "").digest(), pair(1, "\0").digest());
    }

    #[test]
    fn the_mix_is_fixed_for_ever() {
        // Computed by another program from the description above, a text for each way to read one.
        let expected = [
            ("a", 0xd979_9508_24a9_d97e),
            ("tide", 0xd14b_2ba7_b19c_e0c2),
            ("tidegate", 0x57e7_6222_bbcb_6e9c),
            ("sixteen bytes ok", 0x2322_0334_cd19_88d0),
            ("a longer text than sixteen bytes!", 0x30bd_c698_d1c8_10eb),
        ];
        for (text, digest) in expected {
            assert_eq!(pair(7, text).digest(), digest, "{text}");
        }
    }

    #[test]
    fn csv_quotes_what_needs_it() {
        assert_eq!(pair(7, "a,\"b\"").csv(), "7,\"a,\"\"b\"\"\"");
        assert_eq!(Pair::header(), "key,text");
    }
}
