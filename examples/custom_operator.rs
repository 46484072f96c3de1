//! How do I write an operator of my own, with state per key, a side output, and a test?
//!
//! ```text
//! cargo run --release --example custom_operator
//! cargo test --release --example custom_operator
//! ```
//!
//! Gauges in three harbours report the level of the water every ten minutes. `TurnOfTide` finds the
//! moments at which it turns, and puts readings that can't be true to the side.

use serde::{Deserialize, Serialize};
use std::f64::consts::TAU;
use tidegate::engine::checkpoint::StateVisitor;
use tidegate::engine::state::KeyTable;
use tidegate::prelude::*;

/// Moving texts between threads is work for the allocator first.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// A harbour and the level of its water, in metres.
type Reading = (String, f64);

/// What is known of a harbour: its last reading, and whether the water was rising.
#[derive(Clone, Serialize, Deserialize)]
struct Gauge {
    at: Timestamp,
    level: f64,
    rising: Option<bool>,
}

/// Emits a line at each high and low water. A job is defined with a prototype: each subtask works on
/// a clone, and opens it before the first record.
#[derive(Clone)]
struct TurnOfTide {
    impossible: SideOutput<Reading>,
    aside: SideBuffer<Reading>,
    gauges: KeyTable<String, Gauge>,
}

impl TurnOfTide {
    fn new(impossible: SideOutput<Reading>) -> Self {
        let (aside, gauges) = (SideBuffer::default(), KeyTable::default());
        TurnOfTide {
            impossible,
            aside,
            gauges,
        }
    }
}

impl Operator<Keyed<String, Reading>> for TurnOfTide {
    type Out = String;

    fn open(&mut self, context: &mut OpenContext<'_>) -> Flow {
        self.aside = context.side_output(&self.impossible);
        Ok(())
    }

    fn process<C: Collector<String>>(
        &mut self,
        at: Timestamp,
        record: Keyed<String, Reading>,
        out: &mut C,
    ) -> Flow {
        // The hash of the key was computed once, on the way here.
        let Keyed {
            hash,
            key: harbour,
            value: (_, level),
        } = record;
        let first = Gauge {
            at,
            level,
            rising: None,
        };
        let gauge = self
            .gauges
            .get_or_insert_with(hash, harbour.clone(), || first);
        if (level - gauge.level).abs() > 1.0 {
            self.aside.collect(at, (harbour, level));
            return Ok(());
        }
        if level == gauge.level {
            return Ok(());
        }
        let rising = Some(level > gauge.level);
        let last = std::mem::replace(gauge, Gauge { at, level, rising });
        let name = match (last.rising, rising) {
            (Some(true), Some(false)) => "high water",
            (Some(false), Some(true)) => "low water ",
            _ => return Ok(()),
        };
        let (at, level) = (last.at, last.level);
        out.collect(at, format!("{at}  {harbour:<8}  {name}  {level:>5.2} m"))
    }

    /// What a checkpoint keeps, by key. An operator that says nothing here forgets its state when its job goes on
    /// after a failure.
    fn state(&mut self, state: &mut StateVisitor<'_>) -> Flow {
        state.keyed("gauges", &mut self.gauges)
    }
}

/// Reading `n` of the feed: a tide takes 12 h 25 min, and now and then a gull sits on a gauge.
fn reading(n: u64) -> Reading {
    let (harbour, phase, height) = [
        ("Dover", 0.0, 3.0),
        ("Brest", 0.2, 3.2),
        ("Cuxhaven", 0.5, 1.5),
    ][n as usize % 3];
    let tides = (n / 3 * 10) as f64 / 745.0 + phase;
    let gull = if n % 101 == 100 { 9.0 } else { 0.0 };
    (harbour.to_owned(), height * (TAU * tides).sin() + gull)
}

fn main() -> Result<()> {
    let env = StreamEnv::from_args()?;
    let impossible = SideOutput::new("impossible");
    // Ten minutes between the readings of a gauge, from the first hour of 2026.
    let time = |n: u64| Timestamp(1_767_225_600_000 + n as i64 / 3 * 600_000);
    let readings = (0..3 * 6 * 24).map(|n| (time(n), reading(n)));
    let (turns, gulls) = env
        .source("gauges", Values::timestamped(readings))
        .parallelism(1) // several readers of one feed would mix up its order
        .key_by(|(harbour, _)| harbour.clone())
        .operate("turn of tide", TurnOfTide::new(impossible.clone()))
        .side_output(&impossible);
    turns.sink("turns", Print::new());
    gulls
        .map(|(harbour, level)| format!("{harbour}: {level:.2} m can't be. A gull?"))
        .sink("gulls", Print::new());
    env.execute("turn of tide")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate::engine::testing::Attempt;
    use tidegate::testing::OperatorHarness;

    fn brest(level: f64) -> Reading {
        ("Brest".to_owned(), level)
    }

    #[test]
    fn it_finds_turns_per_harbour_and_puts_leaps_aside() {
        let impossible = SideOutput::new("impossible");
        let operator = TurnOfTide::new(impossible.clone());
        let (mut harness, aside) =
            OperatorHarness::keyed_with_side(operator, |r: &Reading| r.0.clone(), &impossible);
        for (at, level) in [(0, 1.0), (1_000, 1.5), (3_000, 9.9), (4_000, 1.4)] {
            harness.push(at, brest(level)).expect("it takes any level");
        }
        harness
            .push(5_000, ("Dover".to_owned(), 0.2))
            .expect("it takes any level");
        assert_eq!(
            harness.values(),
            ["1970-01-01T00:00:01Z  Brest     high water   1.50 m"]
        );
        assert_eq!(aside.drain(), [(Timestamp(3_000), brest(9.9))]);
    }

    #[test]
    fn after_a_failure_it_still_knows_whether_the_water_was_rising() {
        let operator = TurnOfTide::new(SideOutput::new("impossible"));
        let mut before = OperatorHarness::keyed(operator.clone(), |r: &Reading| r.0.clone());
        for (at, level) in [(0, 1.0), (1_000, 1.5)] {
            before.push(at, brest(level)).expect("it takes any level");
        }
        let saved = before.save().expect("a checkpoint");
        let mut after = Attempt::new()
            .restored(vec![(0, saved)])
            .keyed(operator, |r: &Reading| r.0.clone())
            .expect("it goes on");
        after.push(4_000, brest(1.4)).expect("it takes any level");
        assert_eq!(
            after.values(),
            ["1970-01-01T00:00:01Z  Brest     high water   1.50 m"]
        );
    }
}
