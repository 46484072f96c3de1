//! What catches up with a history is that history, whatever happened in between.

use super::*;
use crate::checkpoint::Barrier;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Event {
    Triggered,
    Acknowledged(u64, u32),
    Completed(u64),
    Failed(u64),
    Discarded(u64),
    /// Somebody looks.
    Shown,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => Just(Event::Triggered),
        6 => (0..3u64, 0..5u32).prop_map(|(back, subtask)| Event::Acknowledged(back, subtask)),
        2 => (0..3u64).prop_map(Event::Completed),
        1 => (0..3u64).prop_map(Event::Failed),
        1 => (0..5u64).prop_map(Event::Discarded),
        3 => Just(Event::Shown),
    ]
}

proptest! {
    #[test]
    fn what_catches_up_is_the_same(events in prop::collection::vec(event(), 0..120), keep in 0..5u32) {
        let mut history = CheckpointHistory::new(keep);
        let mut shown = CheckpointHistory::default();
        let mut newest = 0;
        let in_progress = |history: &CheckpointHistory, id: u64| {
            let found = history.history.iter().find(|f| f.id == CheckpointId(id));
            found.is_some_and(|f| f.status == CheckpointStatus::InProgress)
        };
        for (now, event) in events.into_iter().enumerate() {
            let now = Timestamp(now as i64);
            match event {
                Event::Triggered => {
                    newest += 1;
                    history.triggered(Barrier::checkpoint(newest), 5, now);
                }
                Event::Acknowledged(back, subtask) => {
                    let id = CheckpointId(newest.saturating_sub(back));
                    let who = SubtaskRef { task: 0, subtask };
                    history.acknowledged(id, who, (10, Timing::default()), now);
                }
                Event::Completed(back) if in_progress(&history, newest.saturating_sub(back)) => {
                    history.completed(CheckpointId(newest.saturating_sub(back)), now);
                }
                Event::Failed(back) if in_progress(&history, newest.saturating_sub(back)) => {
                    history.failed(CheckpointId(newest.saturating_sub(back)), "no room", now);
                }
                Event::Discarded(back) => {
                    history.discarded(&[CheckpointId(newest.saturating_sub(back))]);
                }
                Event::Completed(_) | Event::Failed(_) => {}
                Event::Shown => {
                    shown.catch_up(&history);
                    prop_assert_eq!(&shown, &history);
                }
            }
        }
        shown.catch_up(&history);
        prop_assert_eq!(&shown, &history);
        // An attempt later the numbers go on, and what is remembered begins anew.
        shown.catch_up(&CheckpointHistory::new(keep));
        prop_assert_eq!(&shown, &CheckpointHistory::new(keep));
    }
}

#[test]
fn a_later_attempt_goes_on_from_what_became_of_the_earlier_ones() {
    let mut first = CheckpointHistory::new(5);
    for (id, now) in [(1, 10), (2, 20)] {
        first.triggered(Barrier::checkpoint(id), 1, Timestamp(now));
    }
    first.completed(CheckpointId(1), Timestamp(15));
    let mut shown = CheckpointHistory::default();
    shown.catch_up(&first);
    let mut second = CheckpointHistory::new(5);
    second.follow(shown.clone(), Timestamp(30));
    second.restored(CheckpointId(1));
    assert_eq!(second.counts.in_progress, 0);
    assert_eq!((second.counts.completed, second.counts.failed), (1, 1));
    assert_eq!((second.counts.restored, second.counts.total), (1, 2));
    let failed = second.latest.failed.as_ref().expect("it was under way");
    assert_eq!(
        (failed.id, failed.failure_timestamp),
        (CheckpointId(2), Some(30))
    );
    shown.catch_up(&second);
    assert_eq!(shown, second);
    // The number of one that was not recorded is given once more.
    second.triggered(Barrier::checkpoint(2), 1, Timestamp(40));
    shown.catch_up(&second);
    assert_eq!(shown, second);
    assert_eq!(shown.history.len(), 3);
    second.failed(CheckpointId(2), "no room", Timestamp(50));
    shown.catch_up(&second);
    assert_eq!(shown, second);
    assert_eq!(shown.history[1].failure_timestamp, Some(30));
}
