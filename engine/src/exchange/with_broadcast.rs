//! Records of one stream by a distribution of their own, together with a stream that goes to all.

use super::{Distribution, Either, Placement, Target};

/// The first stream's records by `P`; a copy of the second one's to every subtask.
#[derive(Clone, Debug)]
pub struct WithBroadcast<P>(P);

impl<P> WithBroadcast<P> {
    /// With the first stream's distribution.
    pub fn new(first: P) -> Self {
        WithBroadcast(first)
    }
}

impl<A, B, P> Distribution<Either<A, B>> for WithBroadcast<P>
where
    A: 'static,
    B: Clone + 'static,
    P: Distribution<A>,
{
    type Local = Either<P::Local, B>;
    const KIND: super::EdgeKind = P::KIND;

    fn place(&mut self, at: Placement) {
        self.0.place(at);
    }

    #[inline(always)]
    fn prepare(&mut self, value: Either<A, B>) -> (Target, u64, Self::Local) {
        match value {
            Either::First(value) => {
                let (target, hash, local) = self.0.prepare(value);
                (target, hash, Either::First(local))
            }
            Either::Second(value) => (Target::All, 0, Either::Second(value)),
        }
    }

    #[inline(always)]
    fn strip(local: Self::Local) -> Either<A, B> {
        match local {
            Either::First(local) => Either::First(P::strip(local)),
            Either::Second(value) => Either::Second(value),
        }
    }

    #[inline(always)]
    fn lift(&self, hash: u64, value: Either<A, B>) -> Self::Local {
        match value {
            Either::First(value) => Either::First(self.0.lift(hash, value)),
            Either::Second(value) => Either::Second(value),
        }
    }

    fn copy(value: &Either<A, B>) -> Option<Either<A, B>> {
        match value {
            Either::First(value) => P::copy(value).map(Either::First),
            Either::Second(value) => Some(Either::Second(value.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::ByKey;

    #[test]
    fn only_the_second_stream_goes_to_all() {
        let mut both = WithBroadcast::new(ByKey::<_, u64>::new(|n: &u64| *n));
        let place = Placement {
            me: 0,
            producers: 1,
            consumers: 5,
            max_parallelism: 128,
        };
        Distribution::<Either<u64, char>>::place(&mut both, place);
        let mut alone = ByKey::<_, u64>::new(|n: &u64| *n);
        Distribution::<u64>::place(&mut alone, place);
        let (target, hash, _) = both.prepare(Either::<u64, char>::First(9));
        assert_eq!((target, hash), (alone.prepare(9).0, alone.prepare(9).1));
        assert_eq!(
            both.prepare(Either::<u64, char>::Second('x')).0,
            Target::All
        );
        let copy =
            WithBroadcast::<ByKey<fn(&u64) -> u64, u64>>::copy(&Either::<u64, _>::Second('x'));
        assert_eq!(copy, Some(Either::Second('x')));
    }
}
