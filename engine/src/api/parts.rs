//! Parts of windows over all records, on their way to where they are put together, as bytes.

use crate::checkpoint::StateValue;
use crate::exchange::Codecs;
use crate::exchange::in_flight::{RecordCodec, name_of_generic};
use crate::fault::{Fault, Flow};
use crate::window::Part;
use std::any::type_name;
use std::sync::Arc;

/// Of parts, and of late records where these are kept.
struct PartCodec<T, A> {
    late: Option<Arc<dyn RecordCodec<T>>>,
    slice: Arc<dyn RecordCodec<A>>,
}

/// The codec of parts where nobody takes late records.
pub(super) fn without_late<T: 'static, A: StateValue>(
    _: &Codecs,
) -> Option<Arc<dyn RecordCodec<Part<T, A>>>> {
    let (late, slice) = (None, Codecs::by_serde());
    Some(Arc::new(PartCodec { late, slice }))
}

/// The codec of parts and of late records, if that of the latter is known.
pub(super) fn with_late<T: 'static, A: StateValue>(
    codecs: &Codecs,
) -> Option<Arc<dyn RecordCodec<Part<T, A>>>> {
    let late = Some(codecs.of::<T>()?);
    let slice = Codecs::by_serde();
    Some(Arc::new(PartCodec { late, slice }))
}

impl<T, A> PartCodec<T, A> {
    fn late(&self) -> Flow<&dyn RecordCodec<T>> {
        let late = self.late.as_deref();
        late.ok_or_else(|| Fault::internal("a late record that nobody takes is in flight"))
    }
}

impl<T, A> RecordCodec<Part<T, A>> for PartCodec<T, A> {
    fn encode(&self, part: &Part<T, A>, into: &mut Vec<u8>) -> Flow {
        match part {
            Part::Slice(slice) => {
                into.push(0);
                self.slice.encode(slice, into)
            }
            Part::Late(record) => {
                into.push(1);
                self.late()?.encode(record, into)
            }
        }
    }

    fn decode(&self, bytes: &[u8]) -> Flow<(Part<T, A>, usize)> {
        match bytes.split_first() {
            Some((0, rest)) => {
                let (slice, taken) = self.slice.decode(rest)?;
                Ok((Part::Slice(slice), taken + 1))
            }
            Some((1, rest)) => {
                let (record, taken) = self.late()?.decode(rest)?;
                Ok((Part::Late(record), taken + 1))
            }
            _ => Err(Fault::user("neither a part of a window nor a late record")),
        }
    }

    fn stored_name(&self) -> String {
        let late = self.late.as_ref().map(|late| late.stored_name());
        let late = late.unwrap_or_else(|| type_name::<T>().to_owned());
        name_of_generic::<Part<T, A>>(&[&late, &self.slice.stored_name()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_known_and_late_records_where_their_type_is() {
        assert!(with_late::<&'static str, u64>(&Codecs::default()).is_none());
        assert!(without_late::<&'static str, u64>(&Codecs::default()).is_some());
        let codec = with_late::<String, u64>(&Codecs::default()).expect("text is known");
        for part in [Part::Slice(7), Part::Late("late".to_owned())] {
            let mut bytes = Vec::new();
            codec.encode(&part, &mut bytes).expect("it is encoded");
            let length = bytes.len();
            assert_eq!(codec.decode(&bytes), Ok((part, length)));
        }
        assert!(codec.decode(&[2]).is_err());
    }
}
