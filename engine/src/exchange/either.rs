//! Records of two streams on their way to one operator.

use super::in_flight::{Codecs, Dealing, RecordCodec, name_of_generic};
use super::{ByKey, Distribution, EdgeKind, Keyed, Placement, Target};
use crate::fault::{Fault, Flow};
use std::hash::Hash;
use std::sync::Arc;

/// A record of one of two connected streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Either<A, B> {
    /// Of the first stream.
    First(A),
    /// Of the second stream.
    Second(B),
}

/// By the key that each stream's own selector reads: equal keys of both streams meet.
pub struct ByEitherKey<F, G, K> {
    first: ByKey<F, K>,
    second: ByKey<G, K>,
}

impl<F: Clone, G: Clone, K> Clone for ByEitherKey<F, G, K> {
    fn clone(&self) -> Self {
        ByEitherKey {
            first: self.first.clone(),
            second: self.second.clone(),
        }
    }
}

impl<F, G, K> ByEitherKey<F, G, K> {
    /// By the key that `first` reads from records of the first stream, `second` from the others.
    pub fn new(first: F, second: G) -> Self {
        ByEitherKey {
            first: ByKey::new(first),
            second: ByKey::new(second),
        }
    }
}

/// Of records of both streams, each by a codec of its own.
struct EitherCodec<A, B>(Arc<dyn RecordCodec<A>>, Arc<dyn RecordCodec<B>>);

impl<A, B> RecordCodec<Either<A, B>> for EitherCodec<A, B> {
    fn encode(&self, record: &Either<A, B>, into: &mut Vec<u8>) -> Flow {
        match record {
            Either::First(record) => {
                into.push(0);
                self.0.encode(record, into)
            }
            Either::Second(record) => {
                into.push(1);
                self.1.encode(record, into)
            }
        }
    }

    fn decode(&self, bytes: &[u8]) -> Flow<(Either<A, B>, usize)> {
        match bytes.split_first() {
            Some((0, rest)) => {
                let (record, taken) = self.0.decode(rest)?;
                Ok((Either::First(record), taken + 1))
            }
            Some((1, rest)) => {
                let (record, taken) = self.1.decode(rest)?;
                Ok((Either::Second(record), taken + 1))
            }
            _ => Err(Fault::user("a record of neither of two streams")),
        }
    }

    fn stored_name(&self) -> String {
        let (first, second) = (self.0.stored_name(), self.1.stored_name());
        name_of_generic::<Either<A, B>>(&[&first, &second])
    }
}

#[inline(always)]
fn wrap<K, T, W>(keyed: Keyed<K, T>, wrap: impl FnOnce(T) -> W) -> Keyed<K, W> {
    Keyed {
        hash: keyed.hash,
        key: keyed.key,
        value: wrap(keyed.value),
    }
}

impl<A, B, F, G, K> Distribution<Either<A, B>> for ByEitherKey<F, G, K>
where
    A: 'static,
    B: 'static,
    F: Fn(&A) -> K + Clone + Send + 'static,
    G: Fn(&B) -> K + Clone + Send + 'static,
    K: Hash + 'static,
{
    type Local = Keyed<K, Either<A, B>>;
    const KIND: EdgeKind = EdgeKind::Hash;
    const DEALING: Option<Dealing> = Some(Dealing::ByHash);

    fn codec(codecs: &Codecs) -> Option<Arc<dyn RecordCodec<Either<A, B>>>> {
        let of_both = || {
            let both = EitherCodec(codecs.of::<A>()?, codecs.of::<B>()?);
            Some(Arc::new(both) as Arc<dyn RecordCodec<Either<A, B>>>)
        };
        codecs.of::<Either<A, B>>().or_else(of_both)
    }

    fn place(&mut self, at: Placement) {
        Distribution::<A>::place(&mut self.first, at);
        Distribution::<B>::place(&mut self.second, at);
    }

    #[inline(always)]
    fn prepare(&mut self, value: Either<A, B>) -> (Target, u64, Self::Local) {
        match value {
            Either::First(value) => {
                let (target, hash, local) = self.first.prepare(value);
                (target, hash, wrap(local, Either::First))
            }
            Either::Second(value) => {
                let (target, hash, local) = self.second.prepare(value);
                (target, hash, wrap(local, Either::Second))
            }
        }
    }

    #[inline(always)]
    fn strip(local: Self::Local) -> Either<A, B> {
        local.value
    }

    #[inline(always)]
    fn lift(&self, hash: u64, value: Either<A, B>) -> Self::Local {
        match value {
            Either::First(value) => wrap(self.first.lift(hash, value), Either::First),
            Either::Second(value) => wrap(self.second.lift(hash, value), Either::Second),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_keys_of_both_streams_meet() {
        let mut by_key = ByEitherKey::new(|n: &u64| *n, |text: &String| text.len() as u64);
        let place = Placement {
            me: 0,
            producers: 2,
            consumers: 7,
            max_parallelism: 128,
        };
        by_key.place(place);
        for n in 0..50 {
            let (target, hash, local) = by_key.prepare(Either::First(n));
            let text = "x".repeat(n as usize);
            let (other, other_hash, _) = by_key.prepare(Either::Second(text));
            assert_eq!((target, hash), (other, other_hash));
            assert_eq!(by_key.lift(hash, Either::First(n)), local);
        }
    }
}
