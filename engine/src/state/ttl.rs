//! How long state stays: for ever, or until nobody has used it for some time.
//!
//! Which of the two is part of a handle's type, so state without an end carries no stamp and its
//! access asks no clock. What has expired is never seen again, whether it still takes up memory or not.

use crate::checkpoint::StateValue;
use crate::clock::Clock;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize, Serializer};
use std::time::Duration;

/// How long a value, an element of a list or an entry of a map stays, in processing time.
///
/// ```
/// use tidegate_engine::prelude::*;
///
/// # fn open(states: &mut KeyedStates<u64>) -> Flow<()> {
/// let hour = StateTtl::new(Duration::from_secs(3600));
/// let last: ValueState<u64, String, Expiring> = states.value_with("last", hour)?;
/// let seen: MapState<u64, String, u32, Expiring> = states.map_with("seen", hour.update_on_read())?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateTtl {
    after: Duration,
    on_read: bool,
}

impl StateTtl {
    /// Expires when it was not written for so long.
    pub const fn new(after: Duration) -> Self {
        let on_read = false;
        StateTtl { after, on_read }
    }

    /// Writing begins the time anew; so it is if nothing else is said.
    pub const fn update_on_write(mut self) -> Self {
        self.on_read = false;
        self
    }

    /// Reading begins the time anew, and so does writing.
    pub const fn update_on_read(mut self) -> Self {
        self.on_read = true;
        self
    }

    /// With the clock that tells how old something is.
    pub(super) fn with(self, clock: Clock) -> Expiring {
        Expiring { ttl: self, clock }
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Forever {}
    impl Sealed for super::Expiring {}
}

/// How long state stays: [`Forever`] or [`Expiring`].
pub trait Lifetime: sealed::Sealed + 'static {
    /// A value with what tells its age.
    type Kept<V: StateValue>: StateValue;
    /// A list of values with what tells the age of each.
    type List<V: StateValue>: StateValue + Default;
    /// Whether it comes to an end.
    const EXPIRES: bool;

    /// Whether reading begins the time anew.
    fn renews_on_read(&self) -> bool;

    /// How long it stays, where it comes to an end.
    fn after(&self) -> Option<Duration>;

    /// Keeps a value, from the present or from an earlier time on.
    fn keep<V: StateValue>(&self, value: V, since: Option<Timestamp>) -> Self::Kept<V>;

    /// The value, unless it has expired.
    fn live<'a, V: StateValue>(&self, kept: &'a Self::Kept<V>) -> Option<&'a V>;

    /// The value, whose time begins anew.
    fn renew<'a, V: StateValue>(&self, kept: &'a mut Self::Kept<V>) -> &'a mut V;

    /// The value, unless it has expired.
    fn unwrap<V: StateValue>(&self, kept: Self::Kept<V>) -> Option<V>;

    /// The elements that have not expired.
    fn elements<'a, V: StateValue>(&self, list: &'a Self::List<V>) -> &'a [V];

    /// How many elements have expired.
    fn expired<V: StateValue>(&self, list: &Self::List<V>) -> usize;

    /// Drops the first elements.
    fn drop_first<V: StateValue>(&self, list: &mut Self::List<V>, count: usize);

    /// Adds an element, from the present or from an earlier time on.
    fn push<V: StateValue>(&self, list: &mut Self::List<V>, value: V, since: Option<Timestamp>);

    /// Changes the elements that have not expired; the time of all begins anew.
    fn rewrite<V: StateValue, R>(
        &self,
        list: &mut Self::List<V>,
        change: impl FnOnce(&mut Vec<V>) -> R,
    ) -> R;
}

/// State that stays until it is cleared.
#[derive(Clone, Copy, Debug, Default)]
pub struct Forever;

impl Lifetime for Forever {
    type Kept<V: StateValue> = V;
    type List<V: StateValue> = Vec<V>;
    const EXPIRES: bool = false;

    #[inline(always)]
    fn renews_on_read(&self) -> bool {
        false
    }

    fn after(&self) -> Option<Duration> {
        None
    }

    #[inline(always)]
    fn keep<V: StateValue>(&self, value: V, _: Option<Timestamp>) -> V {
        value
    }

    #[inline(always)]
    fn live<'a, V: StateValue>(&self, kept: &'a V) -> Option<&'a V> {
        Some(kept)
    }

    #[inline(always)]
    fn renew<'a, V: StateValue>(&self, kept: &'a mut V) -> &'a mut V {
        kept
    }

    #[inline(always)]
    fn unwrap<V: StateValue>(&self, kept: V) -> Option<V> {
        Some(kept)
    }

    #[inline(always)]
    fn elements<'a, V: StateValue>(&self, list: &'a Vec<V>) -> &'a [V] {
        list
    }

    fn expired<V: StateValue>(&self, _: &Vec<V>) -> usize {
        0
    }

    fn drop_first<V: StateValue>(&self, list: &mut Vec<V>, count: usize) {
        list.drain(..count);
    }

    #[inline(always)]
    fn push<V: StateValue>(&self, list: &mut Vec<V>, value: V, _: Option<Timestamp>) {
        list.push(value);
    }

    #[inline(always)]
    fn rewrite<V: StateValue, R>(
        &self,
        list: &mut Vec<V>,
        change: impl FnOnce(&mut Vec<V>) -> R,
    ) -> R {
        change(list)
    }
}

/// State that expires, see [`StateTtl`].
#[derive(Clone, Debug)]
pub struct Expiring {
    ttl: StateTtl,
    clock: Clock,
}

/// A value and when its time began.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Stamped<V> {
    at: Timestamp,
    value: V,
}

/// Elements and when the time of each began, earliest first.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "Vec<Stamped<V>>", bound = "V: serde::de::DeserializeOwned")]
pub struct StampedList<V> {
    elements: Vec<V>,
    stamps: Vec<Timestamp>,
}

impl<V> Default for StampedList<V> {
    fn default() -> Self {
        StampedList {
            elements: Vec::new(),
            stamps: Vec::new(),
        }
    }
}

impl<V> From<Vec<Stamped<V>>> for StampedList<V> {
    fn from(list: Vec<Stamped<V>>) -> Self {
        let (stamps, elements) = list.into_iter().map(|e| (e.at, e.value)).unzip();
        StampedList { elements, stamps }
    }
}

impl<V: Serialize> Serialize for StampedList<V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let pairs = self.stamps.iter().zip(&self.elements);
        serializer.collect_seq(pairs.map(|(&at, value)| Stamped { at, value }))
    }
}

impl Expiring {
    fn is_live(&self, since: Timestamp) -> bool {
        self.clock.now() < since.plus(self.ttl.after)
    }
}

impl Lifetime for Expiring {
    type Kept<V: StateValue> = Stamped<V>;
    type List<V: StateValue> = StampedList<V>;
    const EXPIRES: bool = true;

    fn renews_on_read(&self) -> bool {
        self.ttl.on_read
    }

    fn after(&self) -> Option<Duration> {
        Some(self.ttl.after)
    }

    fn keep<V: StateValue>(&self, value: V, since: Option<Timestamp>) -> Stamped<V> {
        let at = since.unwrap_or_else(|| self.clock.now());
        Stamped { at, value }
    }

    fn live<'a, V: StateValue>(&self, kept: &'a Stamped<V>) -> Option<&'a V> {
        self.is_live(kept.at).then_some(&kept.value)
    }

    fn renew<'a, V: StateValue>(&self, kept: &'a mut Stamped<V>) -> &'a mut V {
        kept.at = self.clock.now();
        &mut kept.value
    }

    fn unwrap<V: StateValue>(&self, kept: Stamped<V>) -> Option<V> {
        self.is_live(kept.at).then_some(kept.value)
    }

    fn elements<'a, V: StateValue>(&self, list: &'a StampedList<V>) -> &'a [V] {
        &list.elements[self.expired(list)..]
    }

    fn expired<V: StateValue>(&self, list: &StampedList<V>) -> usize {
        let now = self.clock.now();
        list.stamps
            .partition_point(|at| at.plus(self.ttl.after) <= now)
    }

    fn drop_first<V: StateValue>(&self, list: &mut StampedList<V>, count: usize) {
        list.elements.drain(..count);
        list.stamps.drain(..count);
    }

    fn push<V: StateValue>(&self, list: &mut StampedList<V>, value: V, since: Option<Timestamp>) {
        // The stamps stay in order, also where the wall clock goes back.
        let at = since.unwrap_or_else(|| self.clock.now());
        let last = list.stamps.last().copied().unwrap_or(Timestamp::MIN);
        list.elements.push(value);
        list.stamps.push(at.max(last));
    }

    fn rewrite<V: StateValue, R>(
        &self,
        list: &mut StampedList<V>,
        change: impl FnOnce(&mut Vec<V>) -> R,
    ) -> R {
        let expired = self.expired(list);
        self.drop_first(list, expired);
        let result = change(&mut list.elements);
        list.stamps.clear();
        list.stamps.resize(list.elements.len(), self.clock.now());
        result
    }
}
