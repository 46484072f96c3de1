//! How keys, values and everything else that outlives a process become bytes: bincode, with limits.

use crate::fault::{Fault, Flow};
use bincode::config::{Configuration, Limit};
use bincode::enc::write::Writer;
use bincode::error::EncodeError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::hash::Hash;

/// What a stream can be keyed by: a value that can be compared, copied and kept in a checkpoint.
pub trait Key: Hash + Eq + Clone + Serialize + DeserializeOwned + 'static {}

impl<K: Hash + Eq + Clone + Serialize + DeserializeOwned + 'static> Key for K {}

/// What can be kept in a checkpoint.
pub trait StateValue: Serialize + DeserializeOwned + 'static {}

impl<V: Serialize + DeserializeOwned + 'static> StateValue for V {}

/// The longest that one encoded value may claim to be, so that a damaged length allocates no more.
const LONGEST: usize = 1 << 30;

fn config() -> Configuration<bincode::config::LittleEndian, bincode::config::Varint, Limit<LONGEST>>
{
    bincode::config::standard().with_limit::<LONGEST>()
}

/// Writes behind what there is, with nothing in between: most of what is written are single numbers.
struct Behind<'a>(&'a mut Vec<u8>);

impl Writer for Behind<'_> {
    #[inline(always)]
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

/// Appends the encoding of a value.
#[inline]
pub fn encode_into<T: Serialize + ?Sized>(value: &T, into: &mut Vec<u8>) -> Flow {
    match bincode::serde::encode_into_writer(value, Behind(into), config()) {
        Ok(()) => Ok(()),
        Err(error) => Err(not_encoded::<T>(&error)),
    }
}

#[cold]
fn not_encoded<T: ?Sized>(error: &EncodeError) -> Fault {
    let name = std::any::type_name::<T>();
    Fault::user(format_args!(
        "a {name} can't be kept in a checkpoint: {error}"
    ))
}

/// The encoding of a value.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Flow<Vec<u8>> {
    let mut bytes = Vec::new();
    encode_into(value, &mut bytes)?;
    Ok(bytes)
}

/// The value at the beginning of `bytes`, and how many bytes it took.
pub fn decode_from<T: DeserializeOwned>(bytes: &[u8]) -> Flow<(T, usize)> {
    bincode::serde::decode_from_slice(bytes, config()).map_err(|error| {
        let name = std::any::type_name::<T>();
        Fault::user(format_args!(
            "a {name} can't be read from a checkpoint: {error}"
        ))
    })
}

/// The value that `bytes` encode, all of them.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Flow<T> {
    let (value, taken) = decode_from(bytes)?;
    if taken == bytes.len() {
        return Ok(value);
    }
    let (name, rest) = (std::any::type_name::<T>(), bytes.len() - taken);
    Err(Fault::user(format_args!(
        "a {name} can't be read from a checkpoint: {rest} bytes are left over"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_that_lies_allocates_nothing() {
        let mut bytes = vec![253];
        bytes.extend(u64::MAX.to_le_bytes());
        assert!(decode::<Vec<u8>>(&bytes).is_err());
        assert!(decode::<String>(&bytes).is_err());
    }

    #[test]
    fn left_over_bytes_are_an_error() {
        let mut bytes = encode(&(1u32, "a")).expect("encodes");
        assert_eq!(decode::<(u32, String)>(&bytes), Ok((1, "a".to_owned())));
        bytes.push(0);
        let error = decode::<(u32, String)>(&bytes).expect_err("one byte too many");
        assert!(
            error.to_string().contains("1 bytes are left over"),
            "{error}"
        );
    }
}
