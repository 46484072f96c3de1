//! What a window computes: a value per key that records are added to one by one.
//!
//! An accumulator can be merged with another one, since windows that overlap share their slices.

use crate::checkpoint::StateValue;
use std::ops::Add;

/// Turns the records of a window into a result, one by one.
pub trait Aggregator<T>: Clone + Send + 'static {
    /// What is kept per key and slice of time.
    type Acc: StateValue + Clone;
    /// What the window yields.
    type Out: 'static;

    /// An accumulator without records.
    fn create(&self) -> Self::Acc;

    /// Adds a record.
    fn add(&self, acc: &mut Self::Acc, value: T);

    /// Adds the records of an accumulator of later ones.
    fn merge(&self, into: &mut Self::Acc, other: &Self::Acc);

    /// What the records amount to.
    fn result(&self, acc: &Self::Acc) -> Self::Out;
}

/// The number of records.
#[derive(Clone, Copy, Debug, Default)]
pub struct Count;

impl<T> Aggregator<T> for Count {
    type Acc = u64;
    type Out = u64;

    #[inline(always)]
    fn create(&self) -> u64 {
        0
    }

    #[inline(always)]
    fn add(&self, acc: &mut u64, _value: T) {
        *acc += 1;
    }

    #[inline(always)]
    fn merge(&self, into: &mut u64, other: &u64) {
        *into += other;
    }

    #[inline(always)]
    fn result(&self, acc: &u64) -> u64 {
        *acc
    }
}

/// An aggregator made of functions; see [`aggregate_with`].
#[derive(Clone)]
pub struct Folded<A, Add, Merge, Finish> {
    initial: A,
    add: Add,
    merge: Merge,
    finish: Finish,
}

/// An aggregator that starts from `initial` and works by `add(accumulator, record)`,
/// `merge(into, other)` and `result(accumulator)`.
///
/// ```
/// use tidegate_engine::window::{Aggregator, aggregate_with};
///
/// let longest = aggregate_with(
///     0,
///     |longest: &mut usize, word: &str| *longest = word.len().max(*longest),
///     |into, other| *into = *other.max(into),
///     |longest| *longest,
/// );
/// let mut acc = longest.create();
/// longest.add(&mut acc, "tide");
/// longest.add(&mut acc, "of");
/// assert_eq!(longest.result(&acc), 4);
/// ```
pub fn aggregate_with<T, A, V>(
    initial: A,
    add: impl Fn(&mut A, T) + Clone + Send + 'static,
    merge: impl Fn(&mut A, &A) + Clone + Send + 'static,
    result: impl Fn(&A) -> V + Clone + Send + 'static,
) -> impl Aggregator<T, Acc = A, Out = V>
where
    A: StateValue + Clone + Send,
    V: 'static,
{
    Folded {
        initial,
        add,
        merge,
        finish: result,
    }
}

impl<T, A, V, AddFn, MergeFn, Finish> Aggregator<T> for Folded<A, AddFn, MergeFn, Finish>
where
    A: StateValue + Clone + Send,
    V: 'static,
    AddFn: Fn(&mut A, T) + Clone + Send + 'static,
    MergeFn: Fn(&mut A, &A) + Clone + Send + 'static,
    Finish: Fn(&A) -> V + Clone + Send + 'static,
{
    type Acc = A;
    type Out = V;

    #[inline(always)]
    fn create(&self) -> A {
        self.initial.clone()
    }

    #[inline(always)]
    fn add(&self, acc: &mut A, value: T) {
        (self.add)(acc, value);
    }

    #[inline(always)]
    fn merge(&self, into: &mut A, other: &A) {
        (self.merge)(into, other);
    }

    #[inline(always)]
    fn result(&self, acc: &A) -> V {
        (self.finish)(acc)
    }
}

/// Combines records two by two: `function(so far, record)`.
#[derive(Clone)]
pub struct Reduced<F>(F);

impl<F> Reduced<F> {
    /// By the user's function, which must not mind how the records are grouped.
    pub fn new(function: F) -> Self {
        Reduced(function)
    }
}

impl<T, F> Aggregator<T> for Reduced<F>
where
    T: StateValue + Clone,
    F: Fn(&T, T) -> T + Clone + Send + 'static,
{
    type Acc = Option<T>;
    type Out = T;

    #[inline(always)]
    fn create(&self) -> Option<T> {
        None
    }

    #[inline(always)]
    fn add(&self, acc: &mut Option<T>, value: T) {
        *acc = Some(match acc {
            Some(so_far) => (self.0)(so_far, value),
            None => value,
        });
    }

    #[inline(always)]
    fn merge(&self, into: &mut Option<T>, other: &Option<T>) {
        if let Some(value) = other {
            Aggregator::<T>::add(self, into, value.clone());
        }
    }

    #[inline(always)]
    fn result(&self, acc: &Option<T>) -> T {
        acc.clone()
            .expect("a window is emitted for keys that have a record")
    }
}

/// The sum of what `value` reads from a record.
pub fn sum<T, V, F>(value: F) -> impl Aggregator<T, Acc = V, Out = V>
where
    V: StateValue + Default + Copy + Add<Output = V> + Send,
    F: Fn(&T) -> V + Clone + Send + 'static,
{
    aggregate_with(
        V::default(),
        move |acc: &mut V, record: T| *acc = *acc + value(&record),
        |into, other| *into = *into + *other,
        |acc| *acc,
    )
}

/// The least of what `value` reads from the records.
pub fn min<T, V, F>(value: F) -> impl Aggregator<T, Acc = Option<V>, Out = V>
where
    T: 'static,
    V: StateValue + PartialOrd + Clone + Send,
    F: Fn(&T) -> V + Clone + Send + 'static,
{
    best(value, |new, old| new < old)
}

/// The greatest of what `value` reads from the records.
pub fn max<T, V, F>(value: F) -> impl Aggregator<T, Acc = Option<V>, Out = V>
where
    T: 'static,
    V: StateValue + PartialOrd + Clone + Send,
    F: Fn(&T) -> V + Clone + Send + 'static,
{
    best(value, |new, old| new > old)
}

fn best<T, V, F>(
    value: F,
    better: impl Fn(&V, &V) -> bool + Copy + Send + 'static,
) -> impl Aggregator<T, Acc = Option<V>, Out = V>
where
    T: 'static,
    V: StateValue + Clone + Send,
    F: Fn(&T) -> V + Clone + Send + 'static,
{
    let keep = move |acc: &mut Option<V>, new: V| {
        if acc.as_ref().is_none_or(|old| better(&new, old)) {
            *acc = Some(new);
        }
    };
    aggregate_with(
        None,
        move |acc: &mut Option<V>, record: T| keep(acc, value(&record)),
        move |into, other: &Option<V>| {
            if let Some(new) = other {
                keep(into, new.clone());
            }
        },
        |acc| {
            acc.clone()
                .expect("a window is emitted for keys that have a record")
        },
    )
}

/// The arithmetic mean of what `value` reads from the records.
pub fn avg<T, F>(value: F) -> impl Aggregator<T, Acc = (f64, u64), Out = f64>
where
    F: Fn(&T) -> f64 + Clone + Send + 'static,
{
    aggregate_with(
        (0.0, 0),
        move |acc: &mut (f64, u64), record: T| *acc = (acc.0 + value(&record), acc.1 + 1),
        |into, other| *into = (into.0 + other.0, into.1 + other.1),
        |acc| acc.0 / acc.1 as f64,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn halves<A: Aggregator<i64>>(aggregator: &A, values: &[i64], at: usize) -> A::Out {
        let fold = |part: &[i64]| {
            let mut acc = aggregator.create();
            part.iter().for_each(|v| aggregator.add(&mut acc, *v));
            acc
        };
        let mut acc = fold(&values[..at]);
        aggregator.merge(&mut acc, &fold(&values[at..]));
        aggregator.result(&acc)
    }

    #[test]
    fn merged_parts_are_the_whole() {
        let values = [3, -1, 4, 1, 5];
        for at in 0..=values.len() {
            assert_eq!(halves(&Count, &values, at), 5);
            assert_eq!(halves(&sum(|v: &i64| *v), &values, at), 12);
            assert_eq!(halves(&min(|v: &i64| *v), &values, at), -1);
            assert_eq!(halves(&max(|v: &i64| *v), &values, at), 5);
            assert_eq!(halves(&avg(|v: &i64| *v as f64), &values, at), 2.4);
            assert_eq!(
                halves(&Reduced::new(|a: &i64, b: i64| a + b), &values, at),
                12
            );
        }
    }
}
