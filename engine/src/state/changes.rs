//! Changes of what a state spilled, gathered to be made in one go.

use crate::fault::Flow;

/// Changes that are made in one go.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    bytes: Vec<u8>,
    /// Where each key ends, and what becomes of it.
    ends: Vec<(usize, End)>,
}

/// What becomes of a key; where the bytes end that belong to that.
#[derive(Clone, Copy, Debug)]
enum End {
    Put(usize),
    Delete,
    DeleteRange(usize),
}

/// One change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// Stores the value of a key.
    Put(&'a [u8], &'a [u8]),
    /// Deletes a key.
    Delete(&'a [u8]),
    /// Deletes all keys from the first on that are less than the second.
    DeleteRange(&'a [u8], &'a [u8]),
}

impl Changes {
    /// Stores what `encode` appends, first the key and then, behind what it returns, the value.
    pub fn put(&mut self, encode: impl FnOnce(&mut Vec<u8>) -> Flow<usize>) -> Flow {
        let key = encode(&mut self.bytes)?;
        self.ends.push((key, End::Put(self.bytes.len())));
        Ok(())
    }

    /// Deletes the key that `encode` appends.
    pub fn delete(&mut self, encode: impl FnOnce(&mut Vec<u8>) -> Flow) -> Flow {
        encode(&mut self.bytes)?;
        self.ends.push((self.bytes.len(), End::Delete));
        Ok(())
    }

    /// Deletes all keys from `from` on that are less than `to`.
    pub fn delete_range(&mut self, from: &[u8], to: &[u8]) {
        self.bytes.extend_from_slice(from);
        let middle = self.bytes.len();
        self.bytes.extend_from_slice(to);
        self.ends.push((middle, End::DeleteRange(self.bytes.len())));
    }

    /// Adds those of another, which is left empty.
    pub fn append(&mut self, other: &mut Changes) {
        if self.is_empty() {
            std::mem::swap(self, other);
            return;
        }
        let before = self.bytes.len();
        self.bytes.append(&mut other.bytes);
        let ends = other.ends.drain(..);
        self.ends.extend(ends.map(|(key, end)| {
            let end = match end {
                End::Put(end) => End::Put(before + end),
                End::Delete => End::Delete,
                End::DeleteRange(end) => End::DeleteRange(before + end),
            };
            (before + key, end)
        }));
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// How many bytes their keys and values have.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Each of them, in the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = Change<'_>> {
        let mut from = 0;
        self.ends.iter().map(move |(key_end, end)| {
            let key = &self.bytes[from..*key_end];
            let rest = |until: usize| &self.bytes[*key_end..until];
            from = match end {
                End::Put(end) | End::DeleteRange(end) => *end,
                End::Delete => *key_end,
            };
            match end {
                End::Put(end) => Change::Put(key, rest(*end)),
                End::Delete => Change::Delete(key),
                End::DeleteRange(end) => Change::DeleteRange(key, rest(*end)),
            }
        })
    }

    /// Forgets all and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_shown_as_they_came() {
        let mut changes = Changes::default();
        let put = changes.put(|bytes| {
            bytes.extend(b"keyvalue");
            Ok(3)
        });
        put.expect("encodes");
        changes.delete_range(b"a", b"b");
        changes
            .delete(|bytes| {
                bytes.extend(b"key");
                Ok(())
            })
            .expect("encodes");
        let (first, mut rest) = (changes.clone(), changes.clone());
        changes.append(&mut rest);
        let twice: Vec<_> = first.iter().chain(first.iter()).collect();
        assert_eq!(changes.iter().collect::<Vec<_>>(), twice);
        changes = first;
        let all: Vec<_> = changes.iter().collect();
        let expected = [
            Change::Put(b"key", b"value"),
            Change::DeleteRange(b"a", b"b"),
            Change::Delete(b"key"),
        ];
        assert_eq!(all, expected);
        assert_eq!(changes.len(), 3);
        changes.clear();
        assert!(changes.is_empty() && changes.iter().next().is_none());
    }
}
