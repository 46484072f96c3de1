//! Bytes that become many without being moved.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// A piece that has so many bytes gets no more: a little less than the 64 KiB that a `Vec` grows to, so that what
/// crosses the limit rarely makes it grow once more.
const FULL: usize = PIECE - 4 * 1024;
/// What a piece has room for, as soon as it is known to need that.
const PIECE: usize = 64 * 1024;
/// A first piece that has so many bytes is one of many: it gets the whole room, instead of being moved four times.
const FEW: usize = 3 * 1024;

/// Bytes that are appended to for as long as a snapshot is taken, and moved only while there are few. One `Vec`
/// would be moved each time that it outgrows its memory, and those of all key groups within the same few turns: a
/// pause of tens of milliseconds where state has a gigabyte.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Pieces {
    full: Vec<Vec<u8>>,
    /// How many bytes the full ones have.
    in_full: usize,
    last: Vec<u8>,
}

impl Pieces {
    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.in_full + self.last.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.last.is_empty() && self.full.is_empty()
    }

    /// Where the next bytes are appended.
    #[inline]
    pub fn end(&mut self) -> &mut Vec<u8> {
        if self.last.len() >= FEW {
            self.make_room();
        }
        &mut self.last
    }

    #[inline]
    fn make_room(&mut self) {
        if self.last.len() >= FULL {
            self.close();
        }
        if self.last.capacity() < PIECE {
            // Where one piece was filled, the next one will be.
            self.last.reserve_exact(PIECE - self.last.len());
        }
    }

    /// The last one gets no more.
    fn close(&mut self) {
        self.in_full += self.last.len();
        self.full.push(std::mem::take(&mut self.last));
    }

    /// Appends what another has.
    pub fn append(&mut self, other: Pieces) {
        if other.full.is_empty() {
            self.end().extend(other.last);
            return;
        }
        if !self.last.is_empty() {
            self.close();
        }
        self.in_full += other.in_full;
        self.full.extend(other.full);
        self.last = other.last;
    }

    /// The bytes, piece by piece.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let last = Some(&self.last).filter(|last| !last.is_empty());
        self.full.iter().chain(last).map(Vec::as_slice)
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
            parts in prop::collection::vec((0..3, 0..2 * FULL), 0..12),
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
                        bytes.chunks(FULL / 2 + 1).for_each(|part| long.end().extend(part));
                        pieces.append(long);
                    }
                }
                prop_assert!(pieces.end().len() < FULL);
            }
            prop_assert_eq!(pieces.len(), model.len());
            prop_assert_eq!(pieces.is_empty(), model.is_empty());
            prop_assert!(pieces.joined() == model);
            prop_assert!(pieces.iter().all(|piece| !piece.is_empty()));
        }
    }
}
