//! Where metrics get their names, and where all of them can be read at once.
//!
//! A metric is identified by its scope, its labels and its name. Asking twice for the same one
//! returns the same handle, so a subtask that restarts goes on counting. When a job ends, its
//! metrics are taken out by label.

use super::{Counter, Gauge, Histogram, Meter, MetricSample, MetricValue};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    scope: Vec<String>,
    name: String,
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Clone)]
enum Handle {
    Counter(Counter),
    Gauge(Gauge),
    Meter(Meter),
    Histogram(Histogram),
}

/// A kind of handle, as the registry stores and finds it.
trait Kind: Clone + Default {
    fn wrap(self) -> Handle;
    fn unwrap(handle: &Handle) -> Option<&Self>;
}

macro_rules! kinds {
    ($($kind:ident),*) => {$(
        impl Kind for $kind {
            fn wrap(self) -> Handle {
                Handle::$kind(self)
            }

            fn unwrap(handle: &Handle) -> Option<&Self> {
                match handle {
                    Handle::$kind(inner) => Some(inner),
                    _ => None,
                }
            }
        }
    )*};
}

kinds!(Counter, Gauge, Meter, Histogram);

#[derive(Default)]
struct Inner {
    metrics: Mutex<BTreeMap<Key, Handle>>,
    conflicts: AtomicU64,
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Handle>> {
        self.metrics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle<K: Kind>(&self, key: Key) -> K {
        let mut metrics = self.lock();
        let handle = metrics.entry(key).or_insert_with(|| K::default().wrap());
        if let Some(known) = K::unwrap(handle) {
            return known.clone();
        }
        self.conflicts.fetch_add(1, Ordering::Relaxed);
        K::default()
    }
}

/// All metrics of a process. Clones are cheap and show the same metrics.
#[derive(Clone, Default)]
pub struct MetricRegistry {
    inner: Arc<Inner>,
}

impl MetricRegistry {
    /// A registry without metrics.
    pub fn new() -> Self {
        Self::default()
    }

    /// The group without scope and labels that all others start from.
    pub fn root(&self) -> MetricGroup {
        MetricGroup {
            inner: Arc::clone(&self.inner),
            scope: Vec::new(),
            labels: BTreeMap::new(),
        }
    }

    /// Reads every metric, sorted by scope, name and labels. `now_ms` is the clock that meters
    /// are marked with, in milliseconds.
    pub fn snapshot(&self, now_ms: u64) -> Vec<MetricSample> {
        // Handles are cheap to clone: reading histograms must not hold up a subtask that starts.
        let metrics = self.inner.lock().clone();
        metrics
            .into_iter()
            .map(|(key, handle)| MetricSample {
                scope: key.scope,
                labels: key.labels.into_iter().collect(),
                name: key.name,
                value: match handle {
                    Handle::Counter(c) => MetricValue::Counter(c.get()),
                    Handle::Gauge(g) => MetricValue::Gauge(g.get()),
                    Handle::Meter(m) => MetricValue::Meter {
                        count: m.count(),
                        rate: m.rate(now_ms),
                    },
                    Handle::Histogram(h) => MetricValue::Histogram(h.snapshot()),
                },
            })
            .collect()
    }

    /// Takes out every metric with this label, as when its job has ended, and returns how many
    /// there were. Handles still held go on working, unseen.
    pub fn remove_labelled(&self, label: &str, value: &str) -> usize {
        let mut metrics = self.inner.lock();
        let before = metrics.len();
        metrics.retain(|key, _| key.labels.get(label).is_none_or(|v| v != value));
        before - metrics.len()
    }

    /// How often a metric was asked for as another kind than it is; each such caller got a handle
    /// of its own that no snapshot shows.
    pub fn conflicts(&self) -> u64 {
        self.inner.conflicts.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for MetricRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricRegistry")
            .field("metrics", &self.inner.lock().len())
            .field("conflicts", &self.conflicts())
            .finish()
    }
}

/// A scope with labels in which metrics are named.
#[derive(Clone)]
pub struct MetricGroup {
    inner: Arc<Inner>,
    scope: Vec<String>,
    labels: BTreeMap<String, String>,
}

impl MetricGroup {
    /// A group of a registry of its own, for tests and for code that runs outside of a job.
    pub fn detached() -> Self {
        MetricRegistry::new().root()
    }

    /// The group `name` inside this one, with the same labels.
    #[must_use]
    pub fn add_group(&self, name: &str) -> Self {
        let mut group = self.clone();
        group.scope.push(name.to_owned());
        group
    }

    /// This group with one more label, or with another value for a label it has.
    #[must_use]
    pub fn add_label(&self, label: &str, value: impl fmt::Display) -> Self {
        let mut group = self.clone();
        group.labels.insert(label.to_owned(), value.to_string());
        group
    }

    /// The counter `name` of this group: made by the first call, the same for each later one.
    pub fn counter(&self, name: &str) -> Counter {
        self.inner.handle(self.key(name))
    }

    /// The gauge `name` of this group.
    pub fn gauge(&self, name: &str) -> Gauge {
        self.inner.handle(self.key(name))
    }

    /// The meter `name` of this group.
    pub fn meter(&self, name: &str) -> Meter {
        self.inner.handle(self.key(name))
    }

    /// The histogram `name` of this group.
    pub fn histogram(&self, name: &str) -> Histogram {
        self.inner.handle(self.key(name))
    }

    /// The nested groups, outermost first.
    pub fn scope(&self) -> &[String] {
        &self.scope
    }

    fn key(&self, name: &str) -> Key {
        Key {
            scope: self.scope.clone(),
            name: name.to_owned(),
            labels: self.labels.clone(),
        }
    }
}

impl fmt::Debug for MetricGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricGroup")
            .field("scope", &self.scope)
            .field("labels", &self.labels)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_name_is_the_same_metric() {
        let registry = MetricRegistry::new();
        let kafka = registry.root().add_group("kafka");
        kafka.counter("records.consumed").add(2);
        kafka.counter("records.consumed").inc();
        kafka
            .add_label("subtask", 1)
            .counter("records.consumed")
            .inc();
        let samples = registry.snapshot(0);
        assert_eq!(samples.len(), 2);
        assert_eq!(samples[0].scope, ["kafka"]);
        assert_eq!(samples[0].value, MetricValue::Counter(3));
        assert_eq!(samples[1].labels, [("subtask".to_owned(), "1".to_owned())]);
    }

    #[test]
    fn every_kind_shows_in_the_snapshot() {
        let registry = MetricRegistry::new();
        let group = registry.root();
        group.counter("a").inc();
        group.gauge("b").set(1.5);
        group.meter("c").mark(10, 2_000);
        group.histogram("d").record(7);
        let values: Vec<_> = registry
            .snapshot(2_000)
            .into_iter()
            .map(|s| s.value)
            .collect();
        assert_eq!(values[0], MetricValue::Counter(1));
        assert_eq!(values[1], MetricValue::Gauge(1.5));
        assert_eq!(
            values[2],
            MetricValue::Meter {
                count: 10,
                rate: 10.0
            }
        );
        assert!(matches!(values[3], MetricValue::Histogram(h) if h.count == 1 && h.p99 == 7));
        let json = serde_json::to_string(&registry.snapshot(0)).expect("serializable");
        assert!(
            json.contains(r#""name":"a","value":{"Counter":1}"#),
            "{json}"
        );
    }

    #[test]
    fn another_kind_under_the_same_name_is_detached_and_counted() {
        let registry = MetricRegistry::new();
        registry.root().counter("x").inc();
        registry.root().gauge("x").set(9.0);
        assert_eq!(registry.conflicts(), 1);
        assert_eq!(registry.snapshot(0).len(), 1);
    }

    #[test]
    fn a_job_takes_its_metrics_along() {
        let registry = MetricRegistry::new();
        for job in ["one", "two"] {
            let group = registry.root().add_label("job", job);
            group.counter("in").inc();
            group.counter("out").inc();
        }
        registry.root().gauge("load").set(0.1);
        assert_eq!(registry.remove_labelled("job", "one"), 2);
        assert_eq!(registry.snapshot(0).len(), 3);
    }

    #[test]
    fn handles_and_groups_cross_threads() {
        fn shared<T: Send + Sync + Clone>() {}
        shared::<Counter>();
        shared::<Gauge>();
        shared::<Meter>();
        shared::<Histogram>();
        shared::<MetricGroup>();
        shared::<MetricRegistry>();
    }
}
