//! Checksums of what is stored: XXH3 with 64 bits, fixed by the format of the files.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// A checksum. Text shows it as 16 hexadecimal digits, since JSON readers round large numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checksum(pub u64);

impl Checksum {
    /// Of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Checksum(xxh3_64(bytes))
    }

    /// Of these bytes, one part behind the other.
    pub fn of_parts<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut hash = Xxh3::new();
        for part in parts {
            hash.update(part);
        }
        Checksum(hash.digest())
    }
}

/// A checksum of bytes that come part by part.
pub struct Running(Xxh3);

impl Running {
    /// The next part.
    pub fn update(&mut self, part: &[u8]) {
        self.0.update(part);
    }
}

impl Checksum {
    /// Of no bytes yet.
    pub fn begin() -> Running {
        Running(Xxh3::new())
    }

    /// Of the bytes so far.
    pub fn end(running: &Running) -> Self {
        Checksum(running.0.digest())
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Serialize for Checksum {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            serializer.serialize_u64(self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Checksum {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return u64::deserialize(deserializer).map(Checksum);
        }
        let text = String::deserialize(deserializer)?;
        let number = u64::from_str_radix(&text, 16);
        number.map(Checksum).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_function_is_fixed() {
        // Golden: a change here makes every stored checkpoint look damaged.
        assert_eq!(Checksum::of(b"").to_string(), "2d06800538d394c2");
        assert_eq!(
            Checksum::of_parts([&b"tide"[..], b"gate"]),
            Checksum::of(b"tidegate")
        );
    }

    #[test]
    fn json_keeps_all_bits() {
        let sum = Checksum(u64::MAX - 1);
        let json = serde_json::to_string(&sum).expect("serializes");
        assert_eq!(json, "\"fffffffffffffffe\"");
        assert_eq!(
            serde_json::from_str::<Checksum>(&json).expect("parses"),
            sum
        );
    }
}
