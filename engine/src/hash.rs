//! One hash per record, the same on every machine and in every version of Tidegate.
//!
//! The router hashes a key once; the value serves the choice of the subtask, the key group and the
//! state table. Snapshots depend on it, so it is fixed under [`KEY_HASH_VERSION`]. The mixing step is
//! the folded 128-bit multiplication of wyhash (Wang Yi): two cheap instructions, and both halves
//! of the result are usable.
//!
//! Bits of the hash, from the top: 7 tag bits of the state table, then the key group's bits; the low
//! bits are the table's bucket. So neither a partition nor a key group takes entropy from a table.

use std::hash::{Hash, Hasher};

/// The version of the function below; part of every snapshot.
pub const KEY_HASH_VERSION: u32 = 1;

pub use crate::constants::DEFAULT_MAX_PARALLELISM;

const SEED: u64 = 0x9E37_79B9_7F4A_7C15;
const MULTIPLIER: u64 = 0xA076_1D64_78BD_642F;

/// A `Hasher` with a specified result: integers are taken as little-endian 64-bit numbers.
#[derive(Clone, Copy, Debug)]
pub struct KeyHasher(u64);

impl Default for KeyHasher {
    #[inline]
    fn default() -> Self {
        KeyHasher(SEED)
    }
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a).wrapping_mul(u128::from(b));
    (product as u64) ^ ((product >> 64) as u64)
}

macro_rules! write_ints {
    ($($name:ident: $int:ty),*) => {
        $(#[inline] fn $name(&mut self, value: $int) { self.write_u64(value as u64) })*
    };
}

impl Hasher for KeyHasher {
    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }

    #[inline]
    fn write_u64(&mut self, value: u64) {
        self.0 = fold(self.0 ^ value, MULTIPLIER);
    }

    write_ints!(write_u8: u8, write_u16: u16, write_u32: u32, write_usize: usize,
        write_i8: i8, write_i16: i16, write_i32: i32, write_i64: i64, write_isize: isize);

    #[inline]
    fn write_u128(&mut self, value: u128) {
        self.write_u64(value as u64);
        self.write_u64((value >> 64) as u64);
    }

    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            let mut word = [0; 8];
            word.copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
        let rest = chunks.remainder();
        let mut word = [0; 8];
        word[..rest.len()].copy_from_slice(rest);
        // The length separates "a" from "a\0".
        self.0 ^= (bytes.len() as u64).rotate_left(32);
        self.write_u64(u64::from_le_bytes(word));
    }
}

/// The hash of a key, by [`KeyHasher`].
#[inline]
pub fn key_hash<K: Hash + ?Sized>(key: &K) -> u64 {
    let mut hasher = KeyHasher::default();
    key.hash(&mut hasher);
    hasher.finish()
}

/// The key group of a hash: a number below `max_parallelism`.
#[inline]
pub fn key_group(hash: u64, max_parallelism: u32) -> u32 {
    let bits = (hash >> 24) as u32;
    ((u64::from(bits) * u64::from(max_parallelism)) >> 32) as u32
}

/// The subtask that owns a key group: contiguous ranges of groups, one range a subtask.
#[inline]
pub fn owner_of_group(group: u32, max_parallelism: u32, parallelism: u32) -> u32 {
    (u64::from(group) * u64::from(parallelism) / u64::from(max_parallelism)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_function_is_fixed() {
        // Golden values: a change here makes old snapshots unreadable and needs a new version.
        assert_eq!(key_hash(&1u64), 0x0093_c56e_1dcb_401d);
        assert_eq!(key_hash("tide"), 0xce25_3eae_9ed3_ac4b);
        assert_eq!(key_hash(&(7u32, "a")), 0x98a2_29f1_d978_2385);
    }

    #[test]
    fn dense_keys_spread_over_groups_and_buckets() {
        let mut groups = vec![0u32; 128];
        let mut buckets = vec![0u32; 1024];
        for k in 0..128_000u64 {
            let h = key_hash(&k);
            groups[key_group(h, 128) as usize] += 1;
            buckets[(h & 1023) as usize] += 1;
        }
        assert!(groups.iter().all(|n| (700..1300).contains(n)), "{groups:?}");
        assert!(buckets.iter().all(|n| *n > 40), "{buckets:?}");
    }

    proptest! {
        #[test]
        fn every_group_has_one_owner_and_ranges_are_contiguous(max in 1u32..2000, p in 1u32..2000) {
            prop_assume!(p <= max);
            let owners: Vec<u32> = (0..max).map(|g| owner_of_group(g, max, p)).collect();
            prop_assert!(owners.windows(2).all(|w| w[1] == w[0] || w[1] == w[0] + 1));
            prop_assert_eq!(owners[0], 0);
            prop_assert_eq!(owners[max as usize - 1], p - 1);
        }

        #[test]
        fn a_group_is_below_the_maximum(hash: u64, max in 1u32..40_000) {
            prop_assert!(key_group(hash, max) < max);
        }
    }
}
