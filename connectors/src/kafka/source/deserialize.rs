//! What a Kafka record becomes.

use super::record::ConsumerRecord;
use serde::de::DeserializeOwned;
use std::fmt::Display;
use std::marker::PhantomData;

/// Makes a record of the stream out of one of Kafka's. The error says what is wrong with it; what becomes of
/// such a record is for the source's policy to say.
pub trait Deserializer: Clone + Send + Sync + 'static {
    /// What it makes.
    type Item: 'static;

    /// Reads one record.
    fn deserialize(&self, record: &ConsumerRecord<'_>) -> Result<Self::Item, String>;
}

#[cold]
fn null() -> String {
    "the value is null; .nullable() takes it as None".to_owned()
}

#[inline(always)]
fn value<'a>(record: &ConsumerRecord<'a>) -> Result<&'a [u8], String> {
    record.value().ok_or_else(null)
}

/// JSON, by serde.
#[derive(Debug)]
pub struct Json<T>(PhantomData<fn() -> T>);

impl<T> Default for Json<T> {
    fn default() -> Self {
        Json(PhantomData)
    }
}

impl<T> Clone for Json<T> {
    fn clone(&self) -> Self {
        Json::default()
    }
}

impl<T: DeserializeOwned + 'static> Deserializer for Json<T> {
    type Item = T;

    #[inline(always)]
    fn deserialize(&self, record: &ConsumerRecord<'_>) -> Result<T, String> {
        serde_json::from_slice(value(record)?)
            .map_err(|error| format!("it is not the JSON expected: {error}"))
    }
}

/// UTF-8 text.
#[derive(Clone, Copy, Debug, Default)]
pub struct Text;

impl Deserializer for Text {
    type Item = String;

    #[inline(always)]
    fn deserialize(&self, record: &ConsumerRecord<'_>) -> Result<String, String> {
        match str::from_utf8(value(record)?) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err("it is not UTF-8 text".to_owned()),
        }
    }
}

/// The bytes as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bytes;

impl Deserializer for Bytes {
    type Item = Vec<u8>;

    #[inline(always)]
    fn deserialize(&self, record: &ConsumerRecord<'_>) -> Result<Vec<u8>, String> {
        value(record).map(<[u8]>::to_vec)
    }
}

/// A number of fixed width, big-endian, as Kafka's own serializers write it.
#[derive(Debug)]
pub struct Number<T>(PhantomData<fn() -> T>);

impl<T> Default for Number<T> {
    fn default() -> Self {
        Number(PhantomData)
    }
}

impl<T> Clone for Number<T> {
    fn clone(&self) -> Self {
        Number::default()
    }
}

macro_rules! number {
    ($type:ty) => {
        impl Deserializer for Number<$type> {
            type Item = $type;

            #[inline(always)]
            fn deserialize(&self, record: &ConsumerRecord<'_>) -> Result<$type, String> {
                let bytes = value(record)?;
                match bytes.try_into() {
                    Ok(bytes) => Ok(<$type>::from_be_bytes(bytes)),
                    Err(_) => Err(format!(
                        "it has {} bytes and not the {} of an {}",
                        bytes.len(),
                        size_of::<$type>(),
                        stringify!($type)
                    )),
                }
            }
        }
    };
}

number!(i32);
number!(i64);
number!(f64);

/// `None` for a null value, else what another deserializer makes.
#[derive(Clone, Debug)]
pub struct Nullable<D>(pub D);

impl<D: Deserializer> Deserializer for Nullable<D> {
    type Item = Option<D::Item>;

    #[inline(always)]
    fn deserialize(&self, record: &ConsumerRecord<'_>) -> Result<Self::Item, String> {
        match record.value() {
            None => Ok(None),
            Some(_) => self.0.deserialize(record).map(Some),
        }
    }
}

/// A function that sees the whole record.
#[derive(Clone, Debug)]
pub struct With<F>(pub F);

impl<T, E, F> Deserializer for With<F>
where
    T: 'static,
    E: Display,
    F: Fn(&ConsumerRecord<'_>) -> Result<T, E> + Clone + Send + Sync + 'static,
{
    type Item = T;

    #[inline(always)]
    fn deserialize(&self, record: &ConsumerRecord<'_>) -> Result<T, String> {
        (self.0)(record).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(value: Option<&[u8]>) -> ConsumerRecord<'_> {
        ConsumerRecord::new("t", Some(b"k"), value)
    }

    #[test]
    fn values_become_what_they_are() {
        let text = record(Some(b"17"));
        assert_eq!(Text.deserialize(&text).unwrap(), "17");
        assert_eq!(Bytes.deserialize(&text).unwrap(), b"17");
        assert_eq!(Json::<u32>::default().deserialize(&text), Ok(17));
        let number = 3.5f64.to_be_bytes();
        assert_eq!(
            Number::<f64>::default().deserialize(&record(Some(&number))),
            Ok(3.5)
        );
        let number = (-2i64).to_be_bytes();
        assert_eq!(
            Number::<i64>::default().deserialize(&record(Some(&number))),
            Ok(-2)
        );
        let number = 7i32.to_be_bytes();
        assert_eq!(
            Number::<i32>::default().deserialize(&record(Some(&number))),
            Ok(7)
        );
    }

    #[test]
    fn what_can_not_be_read_is_said() {
        assert!(
            Text.deserialize(&record(Some(b"\xff")))
                .unwrap_err()
                .contains("UTF-8")
        );
        let wrong = Number::<i32>::default().deserialize(&record(Some(b"123")));
        assert_eq!(wrong.unwrap_err(), "it has 3 bytes and not the 4 of an i32");
        assert!(
            Json::<u32>::default()
                .deserialize(&record(Some(b"{")))
                .unwrap_err()
                .contains("JSON")
        );
        assert!(
            Bytes
                .deserialize(&record(None))
                .unwrap_err()
                .contains("null")
        );
    }

    #[test]
    fn nulls_can_be_taken_and_a_function_sees_all() {
        assert_eq!(Nullable(Text).deserialize(&record(None)), Ok(None));
        assert_eq!(
            Nullable(Text).deserialize(&record(Some(b"a"))),
            Ok(Some("a".to_owned()))
        );
        let with = With(|record: &ConsumerRecord<'_>| match record.key() {
            Some(key) => Ok(key.len()),
            None => Err("there is no key"),
        });
        assert_eq!(with.deserialize(&record(None)), Ok(1));
        assert_eq!(
            with.deserialize(&ConsumerRecord::new("t", None, None))
                .unwrap_err(),
            "there is no key"
        );
    }
}
