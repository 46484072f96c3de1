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
