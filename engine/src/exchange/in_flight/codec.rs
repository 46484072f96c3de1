//! Which types of records can be kept while they are in flight, and how.
//!
//! An exchange asks of its records only that they can be sent to another thread. What is to be kept in an
//! unaligned checkpoint has to become bytes as well, and a job says for which types it knows how; a job
//! that takes no such checkpoints says nothing.

use crate::checkpoint::codec::{decode_from, encode_into};
use crate::checkpoint::{StateValue, stored_name};
use crate::fault::Flow;
use std::any::{Any, TypeId, type_name};
use std::collections::HashMap;
use std::sync::Arc;

/// Turns records into bytes and back.
pub trait RecordCodec<T>: Send + Sync {
    /// Appends the encoding of a record.
    fn encode(&self, record: &T, into: &mut Vec<u8>) -> Flow;

    /// The record at the beginning of `bytes`, and how many bytes it took.
    fn decode(&self, bytes: &[u8]) -> Flow<(T, usize)>;

    /// What checkpoints call the type of its records: [`stored_name`], or what is made of those of its parts.
    fn stored_name(&self) -> String;
}

/// The name of a generic type whose arguments are stored under these names.
pub fn name_of_generic<T>(arguments: &[&str]) -> String {
    let path = type_name::<T>();
    let head = path.split_once('<').map_or(path, |(head, _)| head);
    format!("{head}<{}>", arguments.join(", "))
}

/// By serde and bincode, as keys and state.
struct BySerde;

impl<T: StateValue> RecordCodec<T> for BySerde {
    fn encode(&self, record: &T, into: &mut Vec<u8>) -> Flow {
        encode_into(record, into)
    }

    fn decode(&self, bytes: &[u8]) -> Flow<(T, usize)> {
        decode_from(bytes)
    }

    fn stored_name(&self) -> String {
        stored_name::<T>().to_owned()
    }
}

/// The types of records that a job can keep while they are in flight.
#[derive(Clone)]
pub struct Codecs(HashMap<TypeId, Arc<dyn Any + Send + Sync>>);

/// What makes the codec of a type out of those of others.
pub type Derived<T> = fn(&Codecs) -> Option<Arc<dyn RecordCodec<T>>>;

impl Default for Codecs {
    /// Numbers and text.
    fn default() -> Self {
        let mut codecs = Codecs(HashMap::new());
        macro_rules! known {
            ($($known:ty),*) => { $(codecs.add::<$known>();)* };
        }
        known!((), bool, char, String, u8, u16, u32, u64, u128, usize);
        known!(i8, i16, i32, i64, i128, isize, f32, f64);
        codecs
    }
}

impl Codecs {
    /// Adds a type.
    pub fn add<T: StateValue>(&mut self) {
        self.0
            .insert(TypeId::of::<T>(), Arc::new(Self::by_serde::<T>()));
    }

    /// The codec of a type that can be kept in a checkpoint.
    pub fn by_serde<T: StateValue>() -> Arc<dyn RecordCodec<T>> {
        Arc::new(BySerde)
    }

    /// Adds a type whose codec is made of those of others, if they are known.
    pub fn add_derived<T: 'static>(&mut self, derived: Derived<T>) {
        self.0.insert(TypeId::of::<T>(), Arc::new(derived));
    }

    /// The same, where nothing is known of the type so far.
    pub fn or_derived<T: 'static>(&mut self, derived: Derived<T>) {
        let entry = self.0.entry(TypeId::of::<T>());
        entry.or_insert_with(|| Arc::new(derived));
    }

    /// How records of a type become bytes, if that is known.
    pub fn of<T: 'static>(&self) -> Option<Arc<dyn RecordCodec<T>>> {
        let known = self.0.get(&TypeId::of::<T>())?;
        if let Some(derived) = known.downcast_ref::<Derived<T>>() {
            return derived(self);
        }
        known.downcast_ref::<Arc<dyn RecordCodec<T>>>().cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::shape::fits;

    #[test]
    fn a_type_is_known_once_it_is_added() {
        let mut codecs = Codecs::default();
        assert!(codecs.of::<(u8, String)>().is_none());
        assert!(codecs.of::<&'static str>().is_none());
        codecs.add::<(u8, String)>();
        let codec = codecs.of::<(u8, String)>().expect("it was added");
        let (mut bytes, record) = (Vec::new(), (7, "seven".to_owned()));
        codec.encode(&record, &mut bytes).expect("encodes");
        let length = bytes.len();
        bytes.push(1);
        assert_eq!(codec.decode(&bytes), Ok((record, length)));
    }

    #[test]
    fn what_a_record_consists_of_is_part_of_its_name() {
        #[derive(serde::Serialize, serde::Deserialize)]
        struct Order {
            amount: u32,
        }
        let name = Codecs::by_serde::<Order>().stored_name();
        assert!(name.contains("amount"), "{name}");
        // One that was saved without it is still read.
        let of_both = name_of_generic::<crate::exchange::Either<Order, u8>>(&[&name, "u8"]);
        let before = type_name::<crate::exchange::Either<Order, u8>>();
        assert!(fits(before, &of_both), "{before} and {of_both}");
        assert!(!fits(&of_both.replace("amount", "price"), &of_both));
    }
}
