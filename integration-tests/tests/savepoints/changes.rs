//! Jobs that are not what they were when the savepoint was taken.

use super::job::{EVENTS, Run, env, finish, has_read, start};
use super::ledger::Ledger;
use super::{RATE, assert_whole, folder, stopped};
use serde::Serialize;
use serde::de::DeserializeOwned;
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

/// Counts by key, in a state of type `V`, with or without a way from `i32`.
struct Counts<V> {
    migrate: bool,
    state: &'static str,
    value: PhantomData<fn() -> V>,
}

impl<V> Clone for Counts<V> {
    fn clone(&self) -> Self {
        Counts { ..*self }
    }
}

impl<V> KeyedProcessFunction<u64, u64> for Counts<V>
where
    V: From<i32>
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
            states.migrate(self.state, |old: i32| V::from(old));
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

fn counts<V>(state: &'static str, migrate: bool) -> Counts<V> {
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
    let mut events = Generator::new(EVENTS, |n| n);
    if let Some(rate) = run.rate {
        events = events.per_second(rate);
    }
    env.source("events", events)
        .key_by(|n| n % 10)
        .process(function)
        .uid("counts")
        .sink("out", ledger.page("out"));
    env.start("counts").expect("starts")
}

fn stopped_counts(folder: &Path, ledger: &Ledger) -> PathBuf {
    let run = Run {
        rate: Some(RATE),
        ..Run::default()
    };
    let job = count(&run, folder, ledger, counts::<i32>("count", false));
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
        counts::<i64>("count", false),
    );
    let error = job.wait().expect_err("refused").to_string();
    for words in ["'counts'", "'count'", "i32", "i64", "migration"] {
        assert!(error.contains(words), "{error}");
    }
    let run = Run {
        parallelism: 3,
        ..run
    };
    let job = count(&run, folder.path(), &ledger, counts::<i64>("count", true));
    job.wait().expect("goes on");
    let mut want: Vec<String> = (0..EVENTS)
        .map(|n| format!("{} {}", n % 10, n / 10 + 1))
        .collect();
    want.sort_unstable();
    assert_eq!(ledger.lines(), want);
}

#[test]
fn a_state_that_the_operator_has_no_more_is_named() {
    let (folder, ledger) = (folder(), Ledger::default());
    let mut run = Run::from(&stopped_counts(folder.path(), &ledger));
    let job = count(
        &run,
        self::folder().path(),
        &ledger,
        counts::<i32>("other", false),
    );
    let error = job.wait().expect_err("refused").to_string();
    for words in ["'counts'", "'count'", "--allow-non-restored-state"] {
        assert!(error.contains(words), "{error}");
    }
    run.allow_non_restored_state = true;
    let job = count(&run, folder.path(), &ledger, counts::<i32>("other", false));
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
        .process(counts::<u64ish::Wide>("count", false))
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
    let first = load_path(&place).expect("loads").metadata.graph_hash;
    assert_eq!(first.len(), 16, "{first}");
    let other = super::folder();
    let same = load_path(&stopped(3, other.path(), &Ledger::default(), None)).expect("loads");
    assert_eq!(
        same.metadata.graph_hash, first,
        "parallelism is no part of it"
    );
}
