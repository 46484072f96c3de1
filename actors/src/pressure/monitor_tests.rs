//! The pressure monitor with a clock moved by hand.

use super::*;
use crate::pressure::shape::VertexShape;

const TENTH: Duration = Duration::from_millis(100);

fn vertex(name: &str, producers: Vec<usize>) -> VertexShape {
    let (least_credits, most_credits) = (1_000, 16_000);
    VertexShape {
        name: name.to_owned(),
        task: 0,
        parallelism: 1,
        least_credits: if producers.is_empty() {
            0
        } else {
            least_credits
        },
        most_credits: if producers.is_empty() {
            0
        } else {
            most_credits
        },
        producers,
        mixed: false,
    }
}

fn line() -> Shape {
    Shape(vec![
        vertex("read", vec![]),
        vertex("work", vec![0]),
        vertex("out", vec![1]),
    ])
}

fn monitor(throttle: ThrottlePolicy) -> PressureMonitor {
    PressureMonitor::new(
        line(),
        PressureSettings {
            throttle,
            ..PressureSettings::default()
        },
    )
}

/// A line that flows: everything read is worked on and written, with little in flight.
fn flowing(tick: u64) -> Vec<Measured> {
    let at = |records: u64| Measured {
        records_in: records,
        records_out: records,
        credits: 8_000,
        ..Measured::default()
    };
    vec![at(10_000 * tick + 50), at(10_000 * tick), at(10_000 * tick)]
}

/// The same after it has come to a stop: the sink takes nothing, everything before it is full.
fn blocked(ticks: u64) -> Vec<Measured> {
    let pressed = ticks * 100_000_000;
    let base = Measured {
        backpressured_ns: pressed,
        ..Measured::default()
    };
    vec![
        Measured {
            records_in: 5_000,
            records_out: 4_000,
            buffered: 1_000,
            ..base
        },
        Measured {
            records_in: 3_000,
            records_out: 2_000,
            buffered: 1_000,
            ..base
        },
        Measured {
            records_in: 1_000,
            records_out: 1_000,
            credits: 0,
            ..base
        },
    ]
}

#[test]
fn a_line_that_flows_is_healthy() {
    let mut monitor = monitor(ThrottlePolicy::OnCritical);
    for tick in 1..=20 {
        let seen = monitor.tick(&flowing(tick), TENTH, 0.1);
        assert_eq!((seen.changes, seen.decisions), (vec![], vec![]));
        for report in seen.reports {
            assert_eq!(report.level, PressureLevel::Healthy, "{report:?}");
        }
    }
}

#[test]
fn a_blocked_sink_is_critical_and_so_is_all_before_it_but_nothing_is_held() {
    let mut monitor = monitor(ThrottlePolicy::OnCritical);
    let mut levels = Vec::new();
    let mut last = Tick::default();
    for tick in 1..=40 {
        last = monitor.tick(&blocked(tick), TENTH, 0.0);
        assert_eq!(last.decisions, [], "credits bound this already");
        levels.extend(last.changes.iter().map(|(id, before)| (*id, *before)));
    }
    let sink = &last.reports[2];
    assert_eq!((sink.sample.queue, sink.sample.credit), (1.0, 1.0));
    assert!(sink.sample.latency_ms >= 3_000.0, "{sink:?}");
    assert_eq!(
        PressureLevel::of(combine(&sink.sample, &super::super::VERTEX_WEIGHTS)),
        sink.level
    );
    assert_eq!(sink.level, PressureLevel::Critical);
    assert_eq!(last.reports[1].level, PressureLevel::Critical);
    assert!(
        last.reports[0].level >= PressureLevel::Moderate,
        "{:?}",
        last.reports[0]
    );
    let of_sink: Vec<_> = levels
        .iter()
        .filter(|(id, _)| *id == 2)
        .map(|(_, l)| *l)
        .collect();
    let all = [
        PressureLevel::Healthy,
        PressureLevel::Moderate,
        PressureLevel::High,
    ];
    assert_eq!(of_sink, all, "each level was passed once");
}

#[test]
fn critical_memory_holds_the_source_at_what_the_slowest_takes_until_it_is_below_high() {
    let mut monitor = monitor(ThrottlePolicy::OnCritical);
    let decided = |monitor: &mut PressureMonitor, tick, memory| {
        monitor.tick(&flowing(tick), TENTH, memory).decisions
    };
    for tick in 1..=30 {
        assert_eq!(decided(&mut monitor, tick, 0.89), []);
    }
    let [Decision::Hold { vertex: 0, rate }] = decided(&mut monitor, 31, 0.9)[..] else {
        panic!("the source is held")
    };
    assert!((99_000.0..101_000.0).contains(&rate), "{rate}");
    assert_eq!(decided(&mut monitor, 32, 1.0), [], "held once");
    assert_eq!(decided(&mut monitor, 33, 0.8), [], "0.8 is not below high");
    assert!(monitor.tick(&flowing(34), TENTH, 0.85).reports[0].held);
    assert_eq!(
        decided(&mut monitor, 35, 0.79),
        [Decision::Release { vertex: 0 }]
    );
    assert_eq!(decided(&mut monitor, 36, 0.79), []);
}

#[test]
fn a_filter_does_not_lower_the_rate_and_standstill_does_not_starve() {
    let mut monitor = monitor(ThrottlePolicy::OnCritical);
    for tick in 1..=30 {
        let mut now = flowing(tick);
        now[1].records_out = 100 * tick;
        now[2] = Measured {
            records_in: 100 * tick,
            ..now[2]
        };
        monitor.tick(&now, TENTH, 0.0);
    }
    let rate = monitor.sustained(0);
    assert!((99_000.0..101_000.0).contains(&rate), "{rate}");

    let mut stopped = self::monitor(ThrottlePolicy::OnCritical);
    let decisions = stopped.tick(&blocked(1), TENTH, 1.0).decisions;
    assert!(matches!(decisions[..], [Decision::Hold { rate, .. }] if rate >= LEAST_RATE));
}

#[test]
fn errors_behind_a_source_hold_it_and_those_of_reading_do_not() {
    for (failing, held) in [(0, false), (1, true), (2, true)] {
        let mut monitor = monitor(ThrottlePolicy::OnCritical);
        let mut now = flowing(1);
        now[failing].dead_letters = 1_000_000;
        let decisions = monitor.tick(&now, TENTH, 0.0).decisions;
        assert_eq!(
            !decisions.is_empty(),
            held,
            "vertex {failing}: {decisions:?}"
        );
    }
}

#[test]
fn switched_off_it_only_watches() {
    let mut monitor = monitor(ThrottlePolicy::Off);
    let seen = monitor.tick(&flowing(1), TENTH, 1.0);
    assert_eq!(seen.decisions, []);
    assert_eq!(seen.reports[0].sample.memory, 1.0);
}

#[test]
fn an_account_denies_at_the_high_mark_and_recovers_on_completion() {
    let mut monitor = monitor(ThrottlePolicy::Off);
    let sent = |sent, received| {
        let producer = Measured {
            records_out: sent,
            ..Measured::default()
        };
        let consumer = Measured {
            records_in: received,
            ..Measured::default()
        };
        vec![producer, consumer, Measured::default()]
    };
    monitor.tick(&sent(1_000, 0), TENTH, 0.0);
    let account = &monitor.vertices[1].flow;
    assert_eq!(
        (account.back_pressure_level(), account.status()[0].in_flight),
        (1.0, 1_000)
    );
    monitor.tick(&sent(2_000, 0), TENTH, 0.0);
    assert!(monitor.vertices[1].flow.is_throttled("work"));
    assert_eq!(monitor.vertices[1].unfunded, 1_000);
    for _ in 0..5 {
        monitor.tick(&sent(2_000, 2_000), TENTH, 0.0);
    }
    assert_eq!(monitor.vertices[1].unfunded, 0);
    assert_eq!(monitor.vertices[1].flow.back_pressure_level(), 0.0);
}
