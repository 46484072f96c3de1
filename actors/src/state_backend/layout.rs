//! Where the entries of a state are in its database: in one column family while the state is small, and in parts by
//! key group once it is large.
//!
//! RocksDB merges the files of a family with each other, and the next checkpoint has to store what came out. Of one large
//! family that makes some checkpoints much larger than the others; of many small ones, one after the other is
//! merged (see [`super::merging`]).
//!
//! A large state is divided by and by, a piece with each write, as a hash table can be that grows without a pause: what
//! is below a mark is in the parts, the rest still in the family of the whole. The mark is kept beside the
//! entries, so that a checkpoint on the way knows it.

use rocksdb::{DEFAULT_COLUMN_FAMILY_NAME, ReadOptions};
use std::sync::Arc;

/// The parts of a state that is divided, over all its subtasks.
pub(super) const PARTS: u32 = 64;
/// Greater than every key.
pub(super) const BEHIND_ALL: [u8; 2] = [0xff; 2];
/// The family and the key of the mark, in databases of divided states.
pub(super) const RECORD: (&str, &[u8]) = (DEFAULT_COLUMN_FAMILY_NAME, b"divided");
/// Stands between the name of a state and the number of a part.
const PART: &str = "/part-";

/// The first key of a key group.
pub(super) fn first_key(group: u32) -> [u8; 2] {
    (group as u16).to_be_bytes()
}

/// The family of a part of a state.
pub(super) fn part_name(whole: &str, part: u32) -> String {
    format!("{whole}{PART}{part:02}")
}

/// The number of the part that a family is.
pub(super) fn part_number(family: &str, whole: &str) -> Option<u32> {
    let part = family.strip_prefix(whole)?.strip_prefix(PART)?;
    part.parse().ok()
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// The family of a state that is not divided.
    pub whole: String,
    /// How many key groups there are.
    pub groups: u32,
    parts: Arc<[String]>,
    /// Keys below it are in parts; none where the state is not divided.
    mark: Option<Vec<u8>>,
}

/// A range of keys in one family.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece<'a> {
    pub family: &'a str,
    pub from: Vec<u8>,
    /// The first key that is not in it.
    pub until: Vec<u8>,
    /// It is all that the family has.
    pub complete: bool,
}

impl Piece<'_> {
    /// What an iterator over it needs.
    pub fn range(&self) -> ReadOptions {
        let mut range = ReadOptions::default();
        range.set_iterate_lower_bound(self.from.as_slice());
        range.set_iterate_upper_bound(self.until.as_slice());
        range
    }
}

impl Layout {
    /// That of a state that is not divided.
    pub fn new(whole: &str, groups: u32) -> Self {
        Layout {
            whole: whole.to_owned(),
            groups: groups.max(1),
            parts: Arc::default(),
            mark: None,
        }
    }

    fn with_parts(mut self, count: u32) -> Self {
        let name = |part| part_name(&self.whole, part);
        self.parts = (0..count).map(name).collect();
        self
    }

    /// That of a state of whose division a record was kept; nothing if it is none.
    pub fn recorded(self, record: &[u8]) -> Option<Self> {
        let (count, mark) = record.split_first_chunk()?;
        let count = u32::from(u16::from_be_bytes(*count));
        let mark = (count > 0).then(|| mark.to_vec())?;
        let mut layout = self.with_parts(count);
        layout.mark = Some(mark);
        Some(layout)
    }

    /// What to keep of its division.
    pub fn record(&self) -> Vec<u8> {
        let count = self.parts.len() as u16;
        let mark = self.mark.as_deref().unwrap_or_default();
        [&count.to_be_bytes(), mark].concat()
    }

    /// From now on it is divided, and all of its entries are still to be moved.
    pub fn divide(&mut self) {
        *self = self.clone().with_parts(PARTS);
        self.mark = Some(Vec::new());
    }

    /// Whether there are parts, or will be.
    pub fn is_divided(&self) -> bool {
        self.mark.is_some()
    }

    /// The first key that is still to be moved.
    pub fn moving(&self) -> Option<&[u8]> {
        let mark = self.mark.as_deref();
        mark.filter(|mark| *mark < BEHIND_ALL.as_slice())
    }

    /// All that is before a key was moved.
    pub fn moved_to(&mut self, key: &[u8]) {
        self.mark = Some(key.to_vec());
    }

    /// The part that a key belongs to once the state is divided.
    pub fn part_of(&self, key: &[u8]) -> &str {
        &self.parts[self.part(key)]
    }

    fn part(&self, key: &[u8]) -> usize {
        let byte = |n: usize| key.get(n).copied().unwrap_or_default();
        let group = u32::from(u16::from_be_bytes([byte(0), byte(1)]));
        let part = u64::from(group) * self.parts.len() as u64 / u64::from(self.groups);
        (part as usize).min(self.parts.len() - 1)
    }

    /// The first key of a part.
    fn begin(&self, part: usize) -> [u8; 2] {
        let count = self.parts.len() as u64;
        if part as u64 == count {
            return BEHIND_ALL;
        }
        first_key((part as u64 * u64::from(self.groups)).div_ceil(count) as u32)
    }

    /// The family that has a key.
    pub fn family_of(&self, key: &[u8]) -> &str {
        match &self.mark {
            Some(mark) if key < mark.as_slice() => self.part_of(key),
            _ => &self.whole,
        }
    }

    /// The families that have the keys of a range, in their order. No limit is an empty `until`.
    pub fn pieces(&self, from: &[u8], until: &[u8]) -> Vec<Piece<'_>> {
        let mut pieces = Vec::new();
        let until = match until {
            [] => &BEHIND_ALL,
            until => until,
        };
        let mut add = |family, first: &[u8], behind: &[u8]| {
            let (from, until) = (first.max(from), behind.min(until));
            if from < until {
                pieces.push(Piece {
                    family,
                    from: from.to_vec(),
                    until: until.to_vec(),
                    complete: (from, until) == (first, behind),
                });
            }
        };
        let mark = self.mark.as_deref().unwrap_or_default();
        for (part, family) in self.parts.iter().enumerate() {
            let behind = self.begin(part + 1);
            add(family, &self.begin(part), behind.as_slice().min(mark));
        }
        add(&self.whole, mark, &BEHIND_ALL);
        pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn each_key_is_in_one_piece_which_is_of_its_family(
            groups in 1u32..400,
            mark in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..4)),
            range in any::<([u8; 3], [u8; 3])>(),
            keys in proptest::collection::vec((0u32..400, any::<u8>()), 1..50),
        ) {
            let mut layout = Layout::new("uid/state", groups);
            if let Some(mark) = &mark {
                layout.divide();
                layout.moved_to(&mark[..]);
                let again = Layout::new("uid/state", groups).recorded(&layout.record());
                prop_assert_eq!(again.map(|again| again.mark), Some(Some(mark.clone())));
            }
            let pieces = layout.pieces(&range.0, &range.1);
            for pair in pieces.windows(2) {
                prop_assert!(pair[0].until <= pair[1].from);
            }
            for (group, rest) in keys {
                let group = (group % groups) as u16;
                let key = [group.to_be_bytes().as_slice(), &[rest]].concat();
                let holds = |p: &&Piece<'_>| p.from <= key && key < p.until;
                let holding: Vec<_> = pieces.iter().filter(holds).map(|p| p.family).collect();
                let inside = range.0.as_slice() <= &key[..] && &key[..] < range.1.as_slice();
                let expected = inside.then(|| layout.family_of(&key));
                prop_assert_eq!(holding, Vec::from_iter(expected));
            }
        }
    }

    #[test]
    fn all_parts_together_are_all_that_there_is() {
        let mut layout = Layout::new("uid/state", 128);
        assert_eq!(layout.pieces(&[], &[]).len(), 1);
        assert_eq!(layout.moving(), None);
        layout.divide();
        assert_eq!(layout.moving(), Some([].as_slice()));
        layout.moved_to(&BEHIND_ALL);
        assert_eq!(layout.moving(), None);
        let pieces = layout.pieces(&[], &[]);
        assert_eq!(pieces.len(), PARTS as usize);
        assert!(pieces.iter().all(|piece| piece.complete));
        assert_eq!(part_number(pieces[7].family, "uid/state"), Some(7));
        assert_eq!(part_number("uid/state", "uid/state"), None);
    }

    #[test]
    fn what_is_no_record_is_refused() {
        for record in [&[][..], &[0], &[0, 0], &[0, 0, 1]] {
            let read = Layout::new("uid/state", 8).recorded(record);
            assert!(read.is_none(), "{record:?}");
        }
    }
}
