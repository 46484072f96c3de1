//! Jobs that are not what they were when the savepoint was taken.

use super::job::{EVENTS, Run, env, finish, has_read, start};
use super::ledger::Ledger;
use super::pace::{Pace, Paced};
use super::{RATE, assert_whole, folder, stopped};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use tidegate::actors::checkpoint_storage::load_path;
use tidegate::engine::checkpoint::SavepointKind;
use tidegate::prelude::*;

fn refused(run: &Run, ledger: &Ledger) -> String {
    let other = folder();
    let job = start(run, other.path(), ledger).expect("starts");
    job.wait().expect_err("refused").to_string()
}

#[test]
fn an_added_operator_begins_empty() {
    let (folder, ledger) = (folder(), Ledger::default());
    let place = stopped(2, folder.path(), &ledger, None);
    let run = Run {
        with_totals: true,
        ..Run::from(&place)
    };
    finish(&run, folder.path(), &ledger);
    assert_whole(&ledger, "with totals");
}

#[test]
fn a_removed_operator_is_named_and_left_behind_only_when_told_to() {
    let (folder, ledger) = (folder(), Ledger::default());
    let place = stopped(2, folder.path(), &ledger, None);
    let mut run = Run {
        with_sessions: false,
        ..Run::from(&place)
    };
    let error = refused(&run, &ledger);
    for words in ["'sessions'", "--allow-non-restored-state", "'all kinds'"] {
        assert!(error.contains(words), "{error}");
    }
    run.allow_non_restored_state = true;
    finish(&run, folder.path(), &ledger);
    let lines = ledger.lines();
    assert!(lines.iter().any(|line| line.starts_with("window")));
}

#[test]
fn another_number_of_key_groups_is_an_error() {
    let (folder, ledger) = (folder(), Ledger::default());
    let place = stopped(2, folder.path(), &ledger, None);
    let run = Run {
        max_parallelism: 64,
        ..Run::from(&place)
    };
    let error = refused(&run, &ledger);
    for words in ["max_parallelism 128", "64", "operator '"] {
        assert!(error.contains(words), "{error}");
    }
}

/// Counts by key, in a state of type `V`, with or without a way from `Old`.
struct Counts<V, Old = i32> {
    migrate: bool,
    state: &'static str,
    value: PhantomData<fn(Old) -> V>,
}

impl<V, Old> Clone for Counts<V, Old> {
    fn clone(&self) -> Self {
        Counts { ..*self }
    }
}

impl<V, Old> KeyedProcessFunction<u64, u64> for Counts<V, Old>
where
    Old: Serialize + DeserializeOwned + 'static,
    V: From<i32>
        + From<Old>
        + Copy
        + std::ops::Add<Output = V>
        + ToString
        + Serialize
        + DeserializeOwned
        + 'static,
{
    type Out = String;
    type State = ValueState<u64, V>;

    fn open(
        &mut self,
        states: &mut KeyedStates<u64>,
        _: &mut OpenContext<'_>,
    ) -> Flow<ValueState<u64, V>> {
        if self.migrate {
            states.migrate(self.state, |old: Old| V::from(old));
        }
        states.value(self.state)
    }

    fn process<C: Collector<String>>(
        &mut self,
        count: &mut ValueState<u64, V>,
        cx: &ProcessContext<'_, u64>,
        _: u64,
        out: &mut C,
    ) -> Flow {
        let one = V::from(1);
        let now = count.get(cx).map_or(one, |n| n + one);
        count.set(cx, now);
        out.collect(cx.timestamp(), format!("{} {}", cx.key(), now.to_string()))
    }
}

fn counts<V, Old>(state: &'static str, migrate: bool) -> Counts<V, Old> {
    Counts {
        migrate,
        state,
        value: PhantomData,
    }
}

/// Starts a job that counts with this function.
fn count<F>(run: &Run, folder: &Path, ledger: &Ledger, function: F) -> RunningJob
where
    F: KeyedProcessFunction<u64, u64, Out = String>,
{
    let env = env(run, folder);
    let events = Paced::new(EVENTS, |n| n, run.pace.as_ref());
    env.source("events", events)
        .key_by(|n| n % 10)
        .process(function)
        .uid("counts")
        .sink("out", ledger.page("out"));
    env.start("counts").expect("starts")
}

fn stopped_counts(folder: &Path, ledger: &Ledger) -> PathBuf {
    stopped_at(folder, ledger, counts::<i32, i32>("count", false))
}

/// The savepoint of a job that counted with this function.
fn stopped_at<F>(folder: &Path, ledger: &Ledger, function: F) -> PathBuf
where
    F: KeyedProcessFunction<u64, u64, Out = String>,
{
    let run = Run {
        pace: Some(Pace::of(RATE)),
        ..Run::default()
    };
    let job = count(&run, folder, ledger, function);
    has_read(&job, EVENTS / 3);
    let place = job
        .savepoint(SavepointKind::Stop, None)
        .expect("a savepoint");
    job.wait().expect("ends well");
    PathBuf::from(place)
}

#[test]
fn another_type_is_an_error_that_names_both_and_a_migration_leads_over() {
    let (folder, ledger) = (folder(), Ledger::default());
    let run = Run::from(&stopped_counts(folder.path(), &ledger));
    let job = count(
        &run,
        self::folder().path(),
        &ledger,
        counts::<i64, i32>("count", false),
    );
    let error = job.wait().expect_err("refused").to_string();
    for words in ["'counts'", "'count'", "i32", "i64", "migration"] {
        assert!(error.contains(words), "{error}");
    }
    let run = Run {
        parallelism: 3,
        ..run
    };
    let job = count(
        &run,
        folder.path(),
        &ledger,
        counts::<i64, i32>("count", true),
    );
    job.wait().expect("goes on");
    assert_eq!(ledger.lines(), all_counts());
}

fn all_counts() -> Vec<String> {
    let counts = (0..EVENTS).map(|n| format!("{} {}", n % 10, n / 10 + 1));
    let mut counts: Vec<String> = counts.collect();
    counts.sort_unstable();
    counts
}

/// A number of several fields; defined in blocks of one function, all have the same path.
macro_rules! number {
    ($name:ident { $($field:ident),* }) => {
        #[derive(Clone, Copy, Serialize, Deserialize)]
        struct $name {
            $($field: i32),*
        }

        impl From<i32> for $name {
            fn from(n: i32) -> Self {
                $name { $($field: n),* }
            }
        }

        impl std::ops::Add for $name {
            type Output = $name;

            fn add(self, other: $name) -> $name {
                $name { $($field: self.$field + other.$field),* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.count.fmt(f)
            }
        }
    };
}

fn refused_to_count<F>(run: &Run, function: F) -> String
where
    F: KeyedProcessFunction<u64, u64, Out = String>,
{
    let job = count(run, folder().path(), &Ledger::default(), function);
    job.wait().expect_err("refused").to_string()
}

#[test]
fn a_type_whose_fields_have_changed_is_another_type() {
    let (folder, ledger) = (folder(), Ledger::default());
    let run = Run::from(&{
        number!(Total { count, seen });
        stopped_at(folder.path(), &ledger, counts::<Total, i32>("count", false))
    });
    let added = {
        number!(Total { count, seen, lost });
        refused_to_count(&run, counts::<Total, i32>("count", false))
    };
    let swapped = {
        number!(Total { seen, count });
        refused_to_count(&run, counts::<Total, i32>("count", false))
    };
    for (error, now) in [
        (added, "{count:i32,seen:i32,lost:i32}"),
        (swapped, "{seen:i32,count:i32}"),
    ] {
        for words in [
            "'counts'",
            "'count'",
            "::Total ~{count:i32,seen:i32} and",
            now,
            "migration",
        ] {
            assert!(error.contains(words), "{error}");
        }
    }
    number!(Old { count, seen });
    number!(Total { count, seen, lost });
    impl From<Old> for Total {
        fn from(Old { count, seen }: Old) -> Self {
            let lost = 0;
            Total { count, seen, lost }
        }
    }
    let function = counts::<Total, Old>("count", true);
    let job = count(&run, folder.path(), &ledger, function);
    job.wait().expect("the old type goes by another path now");
    assert_eq!(ledger.lines(), all_counts());
}

/// A number that is one variant of an enum.
macro_rules! variants {
    ($($other:ident)?) => {
        #[derive(Clone, Copy, Serialize, Deserialize)]
        enum Total {
            Number(i32),
            $(#[allow(dead_code)] $other,)?
        }

        impl Total {
            fn number(self) -> i32 {
                match self {
                    Total::Number(n) => n,
                    $(Total::$other => 0,)?
                }
            }
        }

        impl From<i32> for Total {
            fn from(n: i32) -> Self {
                Total::Number(n)
            }
        }

        impl std::ops::Add for Total {
            type Output = Total;

            fn add(self, other: Total) -> Total {
                Total::Number(self.number() + other.number())
            }
        }

        impl std::fmt::Display for Total {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.number().fmt(f)
            }
        }
    };
}

#[test]
fn a_variant_may_be_added_behind_the_others_and_not_be_taken_away() {
    let (folder, ledger) = (folder(), Ledger::default());
    let more = || {
        variants!(Lost);
        counts::<Total, i32>("count", false)
    };
    let less = || {
        variants!();
        counts::<Total, i32>("count", false)
    };
    let run = Run::from(&stopped_at(folder.path(), &ledger, less()));
    let job = count(&run, folder.path(), &ledger, more());
    job.wait().expect("goes on");
    assert_eq!(ledger.lines(), all_counts());
    let other = self::folder();
    let run = Run::from(&stopped_at(other.path(), &Ledger::default(), more()));
    let error = refused_to_count(&run, less());
    assert!(error.contains("<Number(i32)|Lost>"), "{error}");
}

#[test]
fn an_operator_that_has_no_state_any_more_does_not_lose_it_without_a_word() {
    let (folder, ledger) = (folder(), Ledger::default());
    let mut run = Run::from(&stopped_counts(folder.path(), &ledger));
    let start = |run: &Run, ledger: &Ledger| {
        let other = self::folder();
        let env = env(run, other.path());
        env.source("events", Generator::new(EVENTS, |n| n))
            .map(|n| format!("{n}"))
            .uid("counts")
            .sink("out", ledger.page("out"));
        env.start("counts").expect("starts").wait()
    };
    let error = start(&run, &ledger).expect_err("refused").to_string();
    for words in ["'counts'", "'count'", "--allow-non-restored-state"] {
        assert!(error.contains(words), "{error}");
    }
    run.allow_non_restored_state = true;
    start(&run, &Ledger::default()).expect("goes on without");
}

#[test]
fn a_state_that_the_operator_has_no_more_is_named() {
    let (folder, ledger) = (folder(), Ledger::default());
    let mut run = Run::from(&stopped_counts(folder.path(), &ledger));
    let job = count(
        &run,
        self::folder().path(),
        &ledger,
        counts::<i32, i32>("other", false),
    );
    let error = job.wait().expect_err("refused").to_string();
    for words in ["'counts'", "'count'", "--allow-non-restored-state"] {
        assert!(error.contains(words), "{error}");
    }
    run.allow_non_restored_state = true;
    let job = count(
        &run,
        folder.path(),
        &ledger,
        counts::<i32, i32>("other", false),
    );
    job.wait().expect("begins its counts anew");
}

#[test]
fn a_hopeless_restore_is_not_tried_again_and_again() {
    let (folder, ledger) = (folder(), Ledger::default());
    let run = Run::from(&stopped_counts(folder.path(), &ledger));
    let mut env = env(&run, self::folder().path());
    let checkpointing = env.run_settings_mut().checkpointing.as_mut().expect("set");
    checkpointing.restart = tidegate::engine::checkpoint::RestartStrategy::default();
    env.source("events", Generator::new(EVENTS, |n| n))
        .key_by(|n| n % 10)
        .process(counts::<u64ish::Wide, i32>("count", false))
        .uid("counts")
        .sink("out", ledger.page("out"));
    let error = env
        .execute("counts")
        .expect_err("refused at once")
        .to_string();
    assert!(error.contains("Wide"), "{error}");
}

/// A type that nothing was saved with.
mod u64ish {
    use serde::{Deserialize, Serialize};

    #[derive(Clone, Copy, Serialize, Deserialize)]
    pub struct Wide(i64);

    impl From<i32> for Wide {
        fn from(n: i32) -> Self {
            Wide(n.into())
        }
    }

    impl std::ops::Add for Wide {
        type Output = Wide;

        fn add(self, other: Wide) -> Wide {
            Wide(self.0 + other.0)
        }
    }

    impl std::fmt::Display for Wide {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            self.0.fmt(f)
        }
    }
}

#[test]
fn what_was_saved_says_of_which_graph_it_is() {
    let (folder, ledger) = (folder(), Ledger::default());
    let place = stopped(2, folder.path(), &ledger, None);
    let metadata = load_path(&place).expect("loads").metadata;
    let mut positions = metadata.subtasks.iter().flat_map(|s| &s.positions);
    let of_the_events = format!(" of those below {EVENTS}");
    assert!(
        positions.any(|position| position.ends_with(&of_the_events)),
        "how far its sources had read: {metadata:?}"
    );
    let first = metadata.graph_hash;
    assert_eq!(first.len(), 16, "{first}");
    let other = super::folder();
    let same = load_path(&stopped(3, other.path(), &Ledger::default(), None)).expect("loads");
    assert_eq!(
        same.metadata.graph_hash, first,
        "parallelism is no part of it"
    );
}
