//! Brokers that stop answering while a job runs: it waits for them, shows for how long, and fails with one clear
//! error when that is longer than it was told to bear.

use rdkafka::Statistics;
use rdkafka::statistics::Broker;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tidegate_engine::fault::Fault;
use tidegate_engine::metrics::Gauge;
use tidegate_engine::observe::SubtaskStats;

/// How long brokers may be silent while a job runs, by default: longer than one takes to be restarted, or another
/// to take over.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// How often it can be looked, in milliseconds, by what librdkafka counts.
pub(crate) const LOOKS: RangeInclusive<u64> = 1..=10_000;

/// Why not never.
pub(crate) const WHY_LOOK: &str = "it is how often it is seen whether brokers answer";

/// Shorter silences are everyday life.
const NOTABLE: Duration = Duration::from_secs(3);

/// How often it is said that one lasts.
const REPEATED: Duration = Duration::from_secs(30);

/// A broker that owes an answer and has said nothing for so long is silent too.
const LATE: Duration = Duration::from_secs(5);

/// A silence, as what is to be told of it: the rules, with time handed in.
#[derive(Debug, Default)]
struct Silence {
    since: Option<Duration>,
    told: Option<Duration>,
    why: String,
}

/// What is to be told.
#[derive(Debug, PartialEq, Eq)]
enum Word {
    /// Nothing new.
    Nothing,
    /// It has lasted so long.
    Lasts(Duration),
    /// It is over, and was as long.
    Over(Duration),
}

impl Silence {
    fn goes_on(&mut self, now: Duration, why: &str) -> Word {
        let since = *self.since.get_or_insert(now);
        if !why.is_empty() {
            why.clone_into(&mut self.why);
        }
        let lasts = now.saturating_sub(since);
        let due = self.told.map_or(since + NOTABLE, |told| told + REPEATED);
        if now < due {
            return Word::Nothing;
        }
        self.told = Some(now);
        Word::Lasts(lasts)
    }

    fn ends(&mut self, now: Duration) -> Word {
        let ended = std::mem::take(self);
        match (ended.since, ended.told) {
            (Some(since), Some(_)) => Word::Over(now.saturating_sub(since)),
            _ => Word::Nothing,
        }
    }

    fn length(&self, now: Duration) -> Duration {
        self.since
            .map_or(Duration::ZERO, |since| now.saturating_sub(since))
    }
}

/// The silence of the brokers that one subtask speaks to. Clones share it.
#[derive(Clone)]
pub(crate) struct Outage(Arc<Shared>);

struct Shared {
    servers: String,
    patience: Duration,
    /// Where it is shown, for as long as the subtask runs.
    gauge: Gauge,
    stats: Option<Arc<SubtaskStats>>,
    epoch: Instant,
    silence: Mutex<Silence>,
    /// Milliseconds of silence, 0 for none: to be looked at in each turn.
    millis: AtomicU64,
}

impl fmt::Debug for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Outage({} ms)", self.0.millis.load(Relaxed))
    }
}

impl Outage {
    /// Of these brokers, shown by a gauge and in the subtask's numbers.
    pub(crate) fn new(
        servers: &str,
        patience: Duration,
        gauge: Gauge,
        stats: Option<Arc<SubtaskStats>>,
    ) -> Self {
        Outage(Arc::new(Shared {
            servers: servers.to_owned(),
            patience,
            gauge,
            stats,
            epoch: Instant::now(),
            silence: Mutex::default(),
            millis: AtomicU64::new(0),
        }))
    }

    fn change(&self, change: impl FnOnce(&mut Silence, Duration) -> Word) -> Word {
        let Shared {
            gauge,
            stats,
            epoch,
            silence,
            millis,
            ..
        } = &*self.0;
        let mut silence = silence.lock().unwrap_or_else(PoisonError::into_inner);
        let now = epoch.elapsed();
        let word = change(&mut silence, now);
        let length = silence.length(now);
        let before = millis.swap(length.as_millis() as u64, Relaxed);
        if before > 0 || !length.is_zero() {
            gauge.set(length.as_secs_f64());
            if let Some(stats) = stats {
                stats.silence_ms.store(length.as_millis() as u64, Relaxed);
            }
        }
        word
    }

    /// A broker has answered.
    pub(crate) fn answered(&self) {
        if let Word::Over(lasted) = self.change(Silence::ends) {
            tracing::info!(servers = self.0.servers, ?lasted, "Kafka answers again");
        }
    }

    /// None has, for what reason is heard.
    pub(crate) fn silent(&self, why: &str) {
        if let Word::Lasts(lasts) = self.change(|silence, now| silence.goes_on(now, why)) {
            let (servers, patience) = (&self.0.servers, self.0.patience);
            tracing::warn!(
                servers,
                ?lasts,
                ?patience,
                "Kafka doesn't answer; the job waits{why}"
            );
        }
    }

    /// What a client counts says whether brokers answer.
    pub(crate) fn look(&self, statistics: &Statistics, why: &str) {
        if statistics.brokers.values().any(answers) {
            self.answered();
        } else {
            self.silent(why);
        }
    }

    /// What is said when it has lasted too long.
    pub(crate) fn unbearable(&self) -> Option<Fault> {
        let Shared {
            servers,
            patience,
            silence,
            millis,
            ..
        } = &*self.0;
        let lasts = Duration::from_millis(millis.load(Relaxed));
        if lasts <= *patience {
            return None;
        }
        let silence = silence.lock().unwrap_or_else(PoisonError::into_inner);
        Some(Fault::external(format_args!(
            "no broker of {servers} has answered for {} s (.broker_timeout(..) is how long the job waits){}",
            lasts.as_secs(),
            silence.why
        )))
    }
}

/// Whether a broker is connected and in time with its answers.
fn answers(broker: &Broker) -> bool {
    let late = broker.waitresp_cnt > 0 && broker.rxidle > LATE.as_micros() as i64;
    broker.state == "UP" && !late
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_silence_is_told_when_it_is_notable_and_now_and_then_while_it_lasts() {
        let mut silence = Silence::default();
        assert_eq!(silence.goes_on(s(10), ": refused"), Word::Nothing);
        assert_eq!(silence.goes_on(s(12), ""), Word::Nothing);
        assert_eq!(silence.goes_on(s(13), ""), Word::Lasts(s(3)));
        assert_eq!(silence.why, ": refused", "the reason that was heard stays");
        assert_eq!(silence.goes_on(s(42), ""), Word::Nothing);
        assert_eq!(silence.goes_on(s(43), ""), Word::Lasts(s(33)));
        assert_eq!(silence.length(s(50)), s(40));
        assert_eq!(silence.ends(s(50)), Word::Over(s(40)));
        assert_eq!(silence.ends(s(51)), Word::Nothing);
        silence.goes_on(s(60), "");
        assert_eq!(silence.ends(s(61)), Word::Nothing, "nobody was told of it");
        assert_eq!(silence.length(s(70)), s(0));
    }

    fn broker(state: &str, waitresp_cnt: i64, rxidle: i64) -> Broker {
        Broker {
            state: state.to_owned(),
            waitresp_cnt,
            rxidle,
            ..Broker::default()
        }
    }

    #[test]
    fn a_broker_that_is_frozen_is_silent_and_one_that_is_asked_nothing_is_not() {
        assert!(answers(&broker("UP", 1, 400_000)));
        assert!(answers(&broker("UP", 0, 99_000_000)));
        assert!(!answers(&broker("UP", 1, 9_000_000)));
        assert!(!answers(&broker("CONNECT", 0, 0)));
    }

    #[test]
    fn it_is_borne_for_as_long_as_was_said() {
        let gauge = Gauge::default();
        let outage = Outage::new("here:9092", Duration::ZERO, gauge.clone(), None);
        assert!(outage.unbearable().is_none());
        outage.silent(": refused");
        std::thread::park_timeout(Duration::from_millis(5));
        outage.silent("");
        let fault = outage.unbearable().expect("it lasts");
        assert!(
            fault.message().starts_with("no broker of here:9092"),
            "{fault}"
        );
        assert!(fault.message().ends_with(": refused"), "{fault}");
        assert!(gauge.get() > 0.0);
        outage.answered();
        assert!(outage.unbearable().is_none());
        assert_eq!(gauge.get(), 0.0);
    }
}
