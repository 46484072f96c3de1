//! How do I write an operator of my own, with state per key, a side output, and a test?
//!
//! ```text
//! cargo run --release --example custom_operator
//! cargo test --release --example custom_operator
//! ```
//!
//! Gauges in three harbours report the level of the water every ten minutes. `TurnOfTide` finds the
//! moments at which it turns, and puts readings that can't be true to the side.

use std::f64::consts::TAU;
use tidegate::engine::state::KeyTable;
use tidegate::prelude::*;

const HARBOURS: [&str; 3] = ["Dover", "Brest", "Cuxhaven"];

#[derive(Clone, Debug, PartialEq)]
struct Reading {
    harbour: &'static str,
    metres: f64,
}

/// Emits a line at each high and low water, per harbour.
struct TurnOfTide {
    broken: SideOutput<Reading>,
    to_the_side: SideBuffer<Reading>,
    gauges: KeyTable<&'static str, Gauge>,
}

/// What is known of a harbour: its last reading, and whether the water was rising.
struct Gauge {
    at: Timestamp,
    metres: f64,
    rising: Option<bool>,
}

impl TurnOfTide {
    fn new(broken: &SideOutput<Reading>) -> Self {
        TurnOfTide {
            broken: broken.clone(),
            to_the_side: SideBuffer::default(),
            gauges: KeyTable::default(),
        }
    }
}

/// The operator that a job is defined with is a prototype; each subtask gets a clone, with fresh state.
impl Clone for TurnOfTide {
    fn clone(&self) -> Self {
        TurnOfTide::new(&self.broken)
    }
}

impl Operator<Keyed<&'static str, Reading>> for TurnOfTide {
    type Out = String;

    fn open(&mut self, context: &mut OpenContext<'_>) -> Flow {
        self.to_the_side = context.side_output(&self.broken);
        Ok(())
    }

    fn process<C: Collector<String>>(
        &mut self,
        at: Timestamp,
        record: Keyed<&'static str, Reading>,
        out: &mut C,
    ) -> Flow {
        // The key's hash has been computed once, on the way here.
        let Keyed {
            hash,
            key,
            value: reading,
        } = record;
        let Some(gauge) = self.gauges.get_mut(hash, &key) else {
            self.gauges.insert(
                hash,
                key,
                Gauge {
                    at,
                    metres: reading.metres,
                    rising: None,
                },
            );
            return Ok(());
        };
        if (reading.metres - gauge.metres).abs() > 1.0 {
            self.to_the_side.collect(at, reading);
            return Ok(());
        }
        let rising = Some(reading.metres > gauge.metres);
        let last = std::mem::replace(
            gauge,
            Gauge {
                at,
                metres: reading.metres,
                rising,
            },
        );
        let name = match (last.rising, rising) {
            (Some(true), Some(false)) => "high water",
            (Some(false), Some(true)) => "low water ",
            _ => return Ok(()),
        };
        out.collect(
            at,
            format!("{}  {key:<9} {name} {:>5.2} m", last.at, last.metres),
        )
    }
}

/// Reading `n` of the one feed that all gauges share: a tide every 12 h 25 min, and a gull now and then.
fn reading(n: u64) -> Reading {
    let (harbour, minutes) = ((n % 3) as usize, (n / 3 * 10) as f64);
    let height = [3.0, 3.2, 1.5][harbour];
    let gull = if n % 101 == 100 { 9.0 } else { 0.0 };
    let metres = height * (TAU * (minutes / 745.0 + harbour as f64 / 5.0)).sin() + gull;
    Reading {
        harbour: HARBOURS[harbour],
        metres,
    }
}

fn main() -> Result<()> {
    const MIDNIGHT: i64 = 1_767_225_600_000; // 2026-01-01
    let env = StreamEnv::from_args()?;
    let broken = SideOutput::new("broken");
    let feed = Generator::new(3 * 6 * 24, |n| {
        (MIDNIGHT + n as i64 / 3 * 600_000, reading(n))
    });
    let (turns, impossible) = env
        .source("gauges", feed)
        .parallelism(1) // several readers of one feed would mix up its order
        .watermarks(WatermarkStrategy::monotonous().timestamps(|(at, _): &(i64, _)| *at))
        .map(|(_, reading)| reading)
        .key_by(|reading| reading.harbour)
        .operate("turn of tide", TurnOfTide::new(&broken))
        .side_output(&broken);
    turns.sink("turns", Print::new());
    impossible
        .map(|r| {
            format!(
                "                      {:<9} can't be {:.2} m: a gull?",
                r.harbour, r.metres
            )
        })
        .sink("impossible", Print::new());
    env.execute("turn of tide")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate::testing::OperatorHarness;

    #[test]
    fn it_finds_turns_per_harbour_and_puts_leaps_aside() {
        let broken = SideOutput::new("broken");
        let operator = TurnOfTide::new(&broken);
        let key = |reading: &Reading| reading.harbour;
        let (mut harness, aside) = OperatorHarness::keyed_with_side(operator, key, &broken);
        for (minute, (harbour, metres)) in [
            ("Brest", 1.0),
            ("Brest", 1.5),
            ("Dover", 0.2),
            ("Brest", 9.9),
            ("Brest", 1.4),
        ]
        .into_iter()
        .enumerate()
        {
            let at = minute as i64 * 60_000;
            harness
                .push(at, Reading { harbour, metres })
                .expect("it takes any reading");
        }
        assert_eq!(
            harness.values(),
            ["1970-01-01T00:01:00Z  Brest     high water  1.50 m"]
        );
        let leap = Reading {
            harbour: "Brest",
            metres: 9.9,
        };
        assert_eq!(aside.drain(), [(Timestamp(180_000), leap)]);
    }
}
