//! How keys, values and everything else that outlives a process become bytes: bincode, with limits.

use crate::fault::{Fault, Flow};
use bincode::config::{Configuration, Limit};
use bincode::enc::write::Writer;
use bincode::error::EncodeError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::any::Any;
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

/// Appends the encoding of a value as [`encode_into`] does. Numbers, which most keys and many values of large states
/// are, are not passed through a serializer for it: that takes twice as long as all else of saving them.
#[inline(always)]
pub fn encode_part<T: StateValue>(value: &T, into: &mut Vec<u8>) -> Flow {
    match number(value) {
        Some(number) => {
            encode_number(number, into);
            Ok(())
        }
        None => encode_into(value, into),
    }
}

/// The number that bincode makes of an integer of more than one byte: signed ones become small where they are near
/// zero.
#[inline(always)]
fn number<T: 'static>(value: &T) -> Option<u64> {
    let value: &dyn Any = value;
    if let Some(number) = value.downcast_ref::<u64>() {
        return Some(*number);
    }
    if let Some(number) = value.downcast_ref::<i64>() {
        return Some((number << 1 ^ number >> 63).cast_unsigned());
    }
    if let Some(number) = value.downcast_ref::<u32>() {
        return Some(u64::from(*number));
    }
    let number = i64::from(*value.downcast_ref::<i32>()?);
    Some((number << 1 ^ number >> 63).cast_unsigned())
}

/// Bincode's encoding of a number in as few bytes as it needs, with the byte that tells how many follow.
#[inline(always)]
fn encode_number(number: u64, into: &mut Vec<u8>) {
    let mut bytes = [0; 9];
    bytes[1..].copy_from_slice(&number.to_le_bytes());
    match number {
        0..=250 => into.push(bytes[1]),
        251..=0xffff => {
            bytes[0] = 251;
            into.extend_from_slice(&bytes[..3]);
        }
        0x1_0000..=0xffff_ffff => {
            bytes[0] = 252;
            into.extend_from_slice(&bytes[..5]);
        }
        _ => {
            bytes[0] = 253;
            into.extend_from_slice(&bytes);
        }
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
    use proptest::prelude::*;
    use std::fmt::Debug;

    fn is_encoded_alike<T: StateValue + PartialEq + Debug>(value: T) {
        let mut bytes = vec![7];
        encode_part(&value, &mut bytes).expect("encodes");
        assert_eq!(bytes[1..], encode(&value).expect("encodes"), "{value:?}");
    }

    proptest! {
        #[test]
        fn a_part_is_encoded_as_the_whole_is(number: u64, bits in 0u32..64, text: String) {
            let number = number >> bits;
            is_encoded_alike(number);
            is_encoded_alike(number as i64);
            is_encoded_alike(-(number as i64).saturating_abs());
            is_encoded_alike(number as u32);
            is_encoded_alike(number as i32);
            is_encoded_alike(number as u16);
            is_encoded_alike(number as u8);
            is_encoded_alike((number, text));
        }
    }

    #[test]
    fn numbers_at_the_limits_are_encoded_alike() {
        for limit in [
            0,
            250,
            251,
            0xffff,
            0x1_0000,
            0xffff_ffff,
            0x1_0000_0000,
            u64::MAX,
        ] {
            is_encoded_alike(limit);
            is_encoded_alike(limit as i64);
            is_encoded_alike(limit as u32);
            is_encoded_alike(limit as i32);
        }
        is_encoded_alike(i64::MIN);
        is_encoded_alike(i32::MIN);
    }

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
