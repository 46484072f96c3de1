//! Bytes that become many without being moved.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// What a piece has room for, as soon as it is known to need that.
const PIECE: usize = 64 * 1024;
/// A first piece that has so many bytes is one of many: it gets the whole room, instead of being moved four times.
const FEW: usize = 3 * 1024;
/// So many bytes are moved to the last piece at once.
const RECENT: usize = 1024;

/// Bytes that are appended to for as long as a snapshot is taken, and moved only while there are few. One `Vec`
/// would be moved each time that it outgrows its memory, and those of all key groups within the same few turns: a
/// pause of tens of milliseconds where state has a gigabyte.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Pieces {
    full: Vec<Vec<u8>>,
    /// How many bytes the full ones have.
    in_full: usize,
    last: Vec<u8>,
    /// What was appended since: few enough to stay in the processor's caches for all key groups at once. Written in
    /// turns to the ends of a hundred pieces, each few bytes would wait for memory.
    recent: Vec<u8>,
}

impl Pieces {
    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.in_full + self.last.len() + self.recent.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where the next bytes are appended.
    #[inline]
    pub fn end(&mut self) -> &mut Vec<u8> {
        if self.recent.len() >= RECENT {
            self.settle();
        }
        &mut self.recent
    }

    fn settle(&mut self) {
        if self.last.len() + self.recent.len() > PIECE {
            self.close();
            self.last.reserve_exact(PIECE);
        } else if self.last.capacity() < PIECE && self.last.len() >= FEW {
            self.last.reserve_exact(PIECE - self.last.len());
        }
        self.last.extend_from_slice(&self.recent);
        self.recent.clear();
    }

    /// The last one gets no more.
    fn close(&mut self) {
        if !self.last.is_empty() {
            self.in_full += self.last.len();
            self.full.push(std::mem::take(&mut self.last));
        }
    }

    /// Appends what another has.
    pub fn append(&mut self, other: Pieces) {
        self.settle();
        if other.full.is_empty() {
            other.iter().for_each(|bytes| self.last.extend(bytes));
            return;
        }
        self.close();
        self.in_full += other.in_full;
        self.full.extend(other.full);
        self.last = other.last;
        self.recent = other.recent;
    }

    /// The bytes, piece by piece.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let rest = [&self.last, &self.recent].into_iter();
        let rest = rest.filter(|bytes| !bytes.is_empty());
        self.full.iter().chain(rest).map(Vec::as_slice)
    }

    /// The bytes in one piece.
    pub fn joined(&self) -> Cow<'_, [u8]> {
        let mut pieces = self.iter();
        match (pieces.next(), pieces.next()) {
            (None, _) => Cow::Borrowed(&[]),
            (Some(all), None) => Cow::Borrowed(all),
            _ => Cow::Owned(self.iter().collect::<Vec<_>>().concat()),
        }
    }
}

impl From<Vec<u8>> for Pieces {
    fn from(last: Vec<u8>) -> Self {
        Pieces {
            last,
            ..Pieces::default()
        }
    }
}

impl PartialEq for Pieces {
    fn eq(&self, other: &Self) -> bool {
        self.joined() == other.joined()
    }
}

impl Eq for Pieces {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn they_are_the_bytes_that_were_appended(
            parts in prop::collection::vec((0..3, prop_oneof![0..2 * RECENT, 0..2 * PIECE]), 0..24),
        ) {
            let (mut pieces, mut model) = (Pieces::default(), Vec::<u8>::new());
            for (at, (how, length)) in (0u8..).zip(parts) {
                let bytes = vec![at; length];
                model.extend(&bytes);
                match how {
                    0 => pieces.end().extend(bytes),
                    1 => pieces.append(bytes.into()),
                    _ => {
                        let mut long = Pieces::default();
                        bytes.chunks(RECENT / 2 + 1).for_each(|part| long.end().extend(part));
                        pieces.append(long);
                    }
                }
                prop_assert!(pieces.end().len() < RECENT);
            }
            prop_assert_eq!(pieces.len(), model.len());
            prop_assert_eq!(pieces.is_empty(), model.is_empty());
            prop_assert!(pieces.joined() == model);
            prop_assert!(pieces.iter().all(|piece| !piece.is_empty()));
        }
    }
}
