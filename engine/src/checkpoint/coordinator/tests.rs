//! The coordinator by hand: each rule of the protocol.

use super::*;
use crate::checkpoint::protocol::{Outcome, Phase, Publication};
use crate::checkpoint::{Barrier, Notice, Passing, Timing};
use std::time::Duration;

type Actions = Vec<Action<u64>>;

/// A coordinator of two subtasks with a checkpoint each 100 ms, and its time.
struct Desk {
    coordinator: Coordinator<u64>,
    now: i64,
}

fn id(n: u64) -> CheckpointId {
    CheckpointId(n)
}

fn who(subtask: u32) -> SubtaskRef {
    SubtaskRef { task: 0, subtask }
}

fn every_100_ms() -> CheckpointSettings {
    CheckpointSettings {
        timeout: Duration::from_millis(1_000),
        ..CheckpointSettings::every(Duration::from_millis(100))
    }
}

impl Desk {
    fn new(settings: CheckpointSettings) -> Self {
        let subtasks = vec![who(0), who(1)];
        let coordinator = Coordinator::new(settings, subtasks, id(1), Timestamp(0));
        Desk {
            coordinator,
            now: 0,
        }
    }

    fn at(&mut self, now: i64, event: Event<u64>) -> Actions {
        self.now = now;
        self.coordinator.handle(event, Timestamp(now))
    }

    fn tick(&mut self, now: i64) -> Actions {
        self.at(now, Event::Tick)
    }

    fn done(&mut self, n: u64, subtask: u32) -> Actions {
        let event = Event::SnapshotDone {
            id: id(n),
            subtask: who(subtask),
            file: n * 10 + u64::from(subtask),
            bytes: 100,
            timing: Timing::default(),
        };
        self.at(self.now, event)
    }

    fn outcome(&mut self, n: u64, outcome: Outcome) -> Actions {
        self.at(self.now, Event::MetadataPublished { id: id(n), outcome })
    }

    fn declined(&mut self, n: u64, phase: Phase) -> Actions {
        let (subtask, reason) = (who(1), "no space left".to_owned());
        let event = Event::SnapshotDeclined {
            id: id(n),
            subtask,
            reason,
            phase,
        };
        self.at(self.now, event)
    }

    fn request(&mut self, n: u64, kind: SavepointKind) -> Actions {
        let request = RequestId(n);
        self.at(self.now, Event::SavepointRequested { request, kind })
    }

    fn drain(&mut self) -> Actions {
        let first = self.at(self.now, Event::Drained { subtask: who(0) });
        assert_eq!(first, []);
        self.at(self.now, Event::Drained { subtask: who(1) })
    }

    /// All subtasks answer, and it is published.
    fn whole(&mut self, n: u64) -> Actions {
        self.done(n, 0);
        assert!(matches!(self.done(n, 1)[..], [Action::Publish(_)]));
        self.outcome(n, Outcome::Published)
    }
}

fn trigger(n: u64, kind: BarrierKind) -> Action<u64> {
    let passing = Passing::InOrder;
    let id = id(n);
    Action::Trigger(Barrier { id, kind, passing })
}

fn completed(n: u64, last: bool) -> Action<u64> {
    Action::Notify(Notice::Completed { id: id(n), last })
}

fn aborted(n: u64) -> Action<u64> {
    Action::Notify(Notice::Aborted { id: id(n) })
}

fn reply(request: u64, result: Result<u64, &str>) -> Action<u64> {
    Action::ReplySavepoint {
        request: RequestId(request),
        result: result.map(id).map_err(str::to_owned),
    }
}

use BarrierKind::{Checkpoint, Savepoint, Stop};

#[test]
fn a_checkpoint_is_triggered_published_and_only_then_complete() {
    let mut desk = Desk::new(every_100_ms());
    assert_eq!(desk.tick(99), []);
    assert_eq!(desk.coordinator.next_wakeup(), Timestamp(100));
    assert_eq!(desk.tick(100), [trigger(1, Checkpoint)]);
    assert_eq!(desk.done(1, 1), []);
    let published = desk.done(1, 0);
    let expected = Publication {
        id: id(1),
        kind: Checkpoint,
        request: None,
        last: false,
        recovery_point: true,
        triggered: Timestamp(100),
        files: vec![(who(0), 10), (who(1), 11)],
    };
    assert_eq!(published, [Action::Publish(expected)]);
    assert_eq!(desk.tick(5_000), [], "no timeout once it was asked for");
    assert_eq!(desk.outcome(1, Outcome::Published), [completed(1, false)]);
    assert_eq!(desk.outcome(1, Outcome::Published), [], "told twice");
    assert_eq!(desk.coordinator.ignored().outcome, 1);
}

#[test]
fn the_pause_is_kept_and_a_missed_interval_is_not_made_up_for() {
    let mut desk = Desk::new(every_100_ms());
    desk.tick(100);
    desk.now = 480;
    assert_eq!(desk.whole(1), [completed(1, false)]);
    assert_eq!(desk.coordinator.next_wakeup(), Timestamp(530));
    assert_eq!(desk.tick(530), [trigger(2, Checkpoint)]);
    desk.now = 535;
    desk.whole(2);
    assert_eq!(desk.coordinator.next_wakeup(), Timestamp(630));
}

#[test]
fn late_duplicate_and_strange_answers_are_counted_and_ignored() {
    let mut desk = Desk::new(every_100_ms());
    desk.tick(100);
    assert_eq!(desk.done(7, 0), []);
    assert_eq!(desk.done(1, 0), []);
    assert_eq!(desk.done(1, 0), [], "the same subtask twice");
    assert_eq!(desk.done(1, 9), [], "no such subtask");
    desk.done(1, 1);
    desk.outcome(1, Outcome::Published);
    assert_eq!(desk.done(1, 1), [], "its files are in use");
    desk.tick(200);
    assert_eq!(desk.tick(1_200), [aborted(2)]);
    let discard = Action::Discard {
        id: id(2),
        files: vec![(who(0), 20)],
    };
    assert_eq!(desk.done(2, 0), [discard]);
    let ignored = desk.coordinator.ignored();
    assert_eq!(
        (ignored.late, ignored.duplicate, ignored.stranger),
        (3, 1, 1)
    );
}

#[test]
fn an_unknown_outcome_is_looked_up_and_neither_failed_nor_done_before() {
    let mut desk = Desk::new(every_100_ms());
    desk.tick(100);
    desk.done(1, 0);
    desk.done(1, 1);
    let look = Action::Resolve { id: id(1) };
    assert_eq!(
        desk.outcome(1, Outcome::Unknown),
        std::slice::from_ref(&look)
    );
    assert_eq!(desk.outcome(1, Outcome::Unknown), []);
    assert_eq!(desk.coordinator.next_wakeup(), Timestamp(200));
    assert_eq!(desk.tick(200), std::slice::from_ref(&look));
    assert_eq!(desk.outcome(1, Outcome::Unknown), []);
    assert_eq!(desk.tick(399), []);
    assert_eq!(desk.declined(1, Phase::Async), [], "too late for that");
    assert_eq!(desk.tick(400), [look]);
    assert_eq!(desk.outcome(1, Outcome::Published), [completed(1, false)]);
}

#[test]
fn failures_in_a_row_are_tolerated_up_to_a_number() {
    let mut desk = Desk::new(every_100_ms());
    let mut now = 0;
    for n in 1..=3 {
        now += 200;
        assert_eq!(desk.tick(now), [trigger(n, Checkpoint)]);
        assert_eq!(desk.declined(n, Phase::Async), [aborted(n)]);
    }
    assert_eq!(desk.tick(800), [trigger(4, Checkpoint)]);
    assert_eq!(desk.whole(4), [completed(4, false)]);
    assert_eq!(desk.coordinator.consecutive_failures(), 0);
    now = 800;
    for n in 5..=8 {
        now += 200;
        desk.tick(now);
        desk.done(n, 0);
        desk.done(n, 1);
        let actions = desk.outcome(n, Outcome::Failed("disk full".into()));
        assert_eq!(actions[0], aborted(n));
        assert!(matches!(actions[1], Action::Discard { .. }));
        if n == 8 {
            let Action::FailJob(reason) = &actions[2] else {
                panic!("{actions:?}");
            };
            assert!(reason.contains("disk full") && reason.contains("4 checkpoints"));
            assert_eq!(actions[3..], [Action::Settled]);
        } else {
            assert_eq!(actions.len(), 2);
        }
    }
    assert_eq!(desk.tick(9_000), [], "it is over");
    assert_eq!(desk.coordinator.next_wakeup(), Timestamp::MAX);
}

#[test]
fn a_snapshot_that_fails_while_the_stream_stands_still_fails_the_job() {
    let mut desk = Desk::new(every_100_ms());
    desk.tick(100);
    let actions = desk.declined(1, Phase::Sync);
    assert!(matches!(
        &actions[..],
        [Action::FailJob(_), Action::Settled]
    ));
}

#[test]
fn a_failed_attempt_is_settled_only_when_its_publication_is() {
    let mut desk = Desk::new(every_100_ms());
    desk.tick(100);
    desk.done(1, 0);
    desk.done(1, 1);
    let gone = Event::SubtaskGone { subtask: who(0) };
    assert_eq!(desk.at(120, gone), []);
    assert_eq!(
        desk.outcome(1, Outcome::Unknown),
        [Action::Resolve { id: id(1) }]
    );
    assert_eq!(desk.outcome(1, Outcome::Published), [Action::Settled]);
    assert!(desk.coordinator.retained().eq([id(1)]));
}

#[test]
fn the_oldest_checkpoints_become_superfluous_but_never_through_a_savepoint() {
    let mut desk = Desk::new(every_100_ms());
    desk.coordinator = desk.coordinator.retaining([id(0)]);
    for n in 1..=2 {
        desk.tick(n as i64 * 200);
        assert_eq!(desk.whole(n), [completed(n, false)]);
    }
    assert_eq!(
        desk.request(1, SavepointKind::Savepoint),
        [trigger(3, Savepoint)]
    );
    assert_eq!(
        desk.whole(3),
        [reply(1, Ok(3))],
        "no commit and nothing deleted"
    );
    desk.tick(600);
    let superfluous = Action::Subsumed(vec![id(0)]);
    assert_eq!(desk.whole(4), [completed(4, false), superfluous]);
    assert!(desk.coordinator.retained().eq([id(1), id(2), id(4)]));
}

#[test]
fn savepoints_wait_their_turn_and_not_for_the_pause() {
    let mut desk = Desk::new(every_100_ms());
    desk.tick(100);
    assert_eq!(desk.request(1, SavepointKind::Savepoint), []);
    assert_eq!(desk.request(1, SavepointKind::Savepoint), [], "told twice");
    assert_eq!(desk.request(2, SavepointKind::Savepoint), []);
    let next = trigger(2, Savepoint);
    assert_eq!(desk.whole(1), [completed(1, false), next]);
    assert_eq!(desk.tick(500), [], "nothing beside a savepoint");
    let next = trigger(3, Savepoint);
    assert_eq!(desk.whole(2), [reply(1, Ok(2)), next]);
    let withdrawn = Event::AbortRequested {
        request: RequestId(2),
    };
    let answer = reply(2, Err("the request was withdrawn"));
    let next = trigger(4, Checkpoint);
    assert_eq!(desk.at(510, withdrawn), [aborted(3), answer, next]);
    assert_eq!(desk.coordinator.consecutive_failures(), 0);
}

#[test]
fn concurrent_checkpoints_are_published_in_order_and_overtake_each_other() {
    let mut desk = Desk::new(CheckpointSettings {
        max_concurrent: 3,
        ..every_100_ms()
    });
    for n in 1..=3 {
        assert_eq!(desk.tick(n as i64 * 100), [trigger(n, Checkpoint)]);
    }
    assert_eq!(desk.tick(400), [], "three are enough");
    desk.done(1, 0);
    desk.done(2, 0);
    assert!(matches!(desk.done(2, 1)[..], [Action::Publish(_)]));
    assert_eq!(desk.done(1, 1), [], "one publication at a time");
    desk.done(3, 0);
    assert_eq!(desk.done(3, 1), []);
    let actions = desk.outcome(2, Outcome::Published);
    assert_eq!(actions[0], completed(2, false));
    assert!(matches!(
        actions[1],
        Action::Discard {
            id: CheckpointId(1),
            ..
        }
    ));
    assert!(matches!(&actions[2], Action::Publish(p) if p.id == id(3)));
    assert_eq!(actions.len(), 3);
}

#[test]
fn the_end_of_all_input_is_committed_by_a_last_checkpoint_that_is_tried_again() {
    let mut desk = Desk::new(CheckpointSettings::default());
    desk.coordinator = desk.coordinator.two_phase_sinks(true);
    assert_eq!(desk.tick(1_000_000), [], "there is no interval");
    assert_eq!(desk.drain(), [trigger(1, Checkpoint)]);
    assert_eq!(desk.declined(1, Phase::Async), [aborted(1)]);
    assert_eq!(desk.coordinator.next_wakeup(), Timestamp(1_000_100));
    assert_eq!(desk.tick(1_000_100), [trigger(2, Checkpoint)]);
    assert_eq!(desk.whole(2), [completed(2, true), Action::Finish]);
    let answer = reply(1, Err("the job has ended"));
    assert_eq!(desk.request(1, SavepointKind::Savepoint), [answer]);
}

#[test]
fn the_last_checkpoint_waits_for_one_that_may_not_cover_the_end() {
    let mut desk = Desk::new(every_100_ms());
    desk.tick(100);
    assert_eq!(desk.drain(), []);
    assert_eq!(desk.whole(1), [completed(1, false), trigger(2, Checkpoint)]);
    for n in 2..=4 {
        desk.declined(n, Phase::Async);
        desk.tick(desk.now + 10_000);
    }
    let last = desk.declined(5, Phase::Async);
    assert!(matches!(last[1], Action::FailJob(_)), "not for ever");
}

#[test]
fn without_checkpoints_and_two_phase_sinks_the_end_is_the_end() {
    let mut desk = Desk::new(CheckpointSettings::default());
    assert_eq!(desk.drain(), [Action::Finish]);
}

#[test]
fn a_stop_ends_the_job_and_a_failed_stop_does_not() {
    let mut desk = Desk::new(every_100_ms());
    assert_eq!(desk.request(1, SavepointKind::Stop), [trigger(1, Stop)]);
    let refused = reply(2, Err("the job is being stopped already"));
    assert_eq!(desk.request(2, SavepointKind::Drain), [refused]);
    assert_eq!(desk.tick(900), [], "nothing beside it");
    let answer = reply(1, Err("task 0, subtask 1: no space left"));
    let goes_on = trigger(2, Checkpoint);
    assert_eq!(
        desk.declined(1, Phase::Async),
        [aborted(1), answer, goes_on]
    );
    assert_eq!(desk.request(3, SavepointKind::Stop), []);
    desk.done(2, 0);
    desk.done(2, 1);
    let actions = desk.outcome(2, Outcome::Published);
    assert_eq!(actions, [completed(2, false), trigger(3, Stop)]);
    let end = [completed(3, true), reply(3, Ok(3)), Action::Finish];
    assert_eq!(desk.whole(3), end);
    assert!(desk.coordinator.retained().eq([id(2)]), "it is its owner's");
    let gone = Event::SubtaskGone { subtask: who(0) };
    assert_eq!(
        desk.at(desk.now, gone),
        [Action::Settled],
        "before its last commit"
    );
}

#[test]
fn a_drain_ends_the_input_and_its_savepoint_is_the_last_checkpoint() {
    let mut desk = Desk::new(every_100_ms());
    assert_eq!(desk.request(1, SavepointKind::Drain), [Action::EndInput]);
    assert_eq!(desk.tick(900), [], "no checkpoint half way to the end");
    assert_eq!(desk.drain(), [trigger(1, Stop)]);
    assert_eq!(
        desk.declined(1, Phase::Async),
        [aborted(1)],
        "no answer yet"
    );
    assert_eq!(desk.tick(1_000), [trigger(2, Stop)]);
    let gone = Event::SubtaskGone { subtask: who(0) };
    let answer = reply(1, Err("task 0, subtask 0 is gone"));
    assert_eq!(desk.at(1_000, gone), [answer, Action::Settled]);
}

#[test]
fn the_history_tells_what_became_of_each_checkpoint() {
    use crate::checkpoint::history::CheckpointStatus::{Completed, Failed, InProgress};
    let mut desk = Desk::new(CheckpointSettings {
        retained: 1,
        history: 3,
        ..every_100_ms()
    });
    desk.coordinator = desk.coordinator.restored(id(0));
    for n in 1..=2 {
        desk.tick(n as i64 * 200);
        desk.now += 10;
        desk.whole(n);
    }
    desk.tick(600);
    desk.declined(3, Phase::Async);
    desk.request(1, SavepointKind::Savepoint);
    desk.now += 5;
    desk.done(4, 1);
    let history = desk.coordinator.history();
    let all = history
        .history
        .iter()
        .map(|f| (f.id.0, f.status, f.discarded));
    let expected = [
        (4, InProgress, false),
        (3, Failed, false),
        (2, Completed, false),
    ];
    assert!(all.eq(expected), "{history:?}");
    let newest = &history.history[0];
    assert_eq!(
        (newest.num_acknowledged_subtasks, newest.state_size),
        (1, 100)
    );
    assert_eq!((newest.end_to_end_duration, newest.is_savepoint), (5, true));
    let failed = history.latest.failed.as_ref().unwrap();
    assert!(
        failed
            .failure_message
            .as_ref()
            .unwrap()
            .contains("no space left")
    );
    assert_eq!(history.summary().state_size.avg, 200);
    assert_eq!(history.summary().end_to_end_duration.max, 10);
    let json = serde_json::to_value(history).unwrap();
    let counts = r#"{"restored":1,"total":4,"in_progress":1,"completed":2,"failed":1}"#;
    assert_eq!(
        json["counts"],
        serde_json::from_str::<serde_json::Value>(counts).unwrap()
    );
    assert_eq!(json["history"][0]["checkpoint_type"], "SAVEPOINT");
    assert_eq!(json["history"][2]["subtasks"][1]["task"], 0);
    assert_eq!(json["latest"]["completed"]["id"], 2);
    let again: CheckpointHistory = serde_json::from_value(json).unwrap();
    assert_eq!(&again, history);
}

#[test]
fn a_checkpoint_that_takes_too_long_in_order_is_triggered_once_more_to_overtake() {
    let passing = |passing| Barrier {
        passing,
        ..Barrier::checkpoint(1)
    };
    let mut desk = Desk::new(CheckpointSettings {
        unaligned: true,
        aligned_timeout: Duration::from_millis(30),
        ..every_100_ms()
    });
    let at_first = passing(Passing::InOrderAtFirst);
    assert_eq!(desk.tick(100), [Action::Trigger(at_first)]);
    assert_eq!(desk.coordinator.next_wakeup(), Timestamp(130));
    let then = passing(Passing::Ahead);
    assert_eq!(desk.tick(130), [Action::Trigger(then)]);
    assert_eq!(desk.tick(500), [], "and no third time");
    assert_eq!(desk.whole(1), [completed(1, false)]);
    let owned = desk.request(1, SavepointKind::Savepoint);
    assert_eq!(owned, [trigger(2, Savepoint)], "in order, always");
}
