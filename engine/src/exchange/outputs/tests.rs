//! What leaves when, and what waits.

use super::*;
use crate::exchange::Outbox;

#[derive(Default)]
struct Sent(Vec<usize>);

impl Outbox for Sent {
    fn send(&mut self, _edge: EdgeId, _to: u32, message: Message) {
        if let Message::Batch { batch, .. } = message {
            let batch = batch.downcast::<Batch<u32>>().expect("of this type");
            self.0.push(batch.records.len());
        }
    }
}

/// What left in a turn, and whether it asks for another one.
fn turn(outputs: &mut Outputs<u32>) -> (Vec<usize>, bool, Timestamp) {
    let mut sent = Sent::default();
    let mut turn = Turn::new(Timestamp(0), &mut sent);
    outputs.turn(&mut turn).expect("encodes nothing");
    let Turn { again, wake_at, .. } = turn;
    (sent.0, again, wake_at)
}

fn push(outputs: &mut Outputs<u32>, records: u32) {
    for value in 0..records {
        let (at, hash) = (Timestamp(0), 0);
        outputs.push(1, Rec { at, hash, value });
    }
}

#[test]
fn room_that_comes_within_a_turn_asks_for_another_turn() {
    let settings = ChannelSettings {
        initial_credits: 8,
        batch_records: 4,
        flush_interval_ms: 10,
        ..ChannelSettings::default()
    };
    let mut outputs = Outputs::new(EdgeId(0), 0, 1..2, 2, settings);
    push(&mut outputs, 14);
    assert_eq!(turn(&mut outputs), (vec![4, 4], false, Timestamp::MAX));
    assert!(!outputs.room(), "the third batch waits for credit");
    outputs.credit(1, 4, &mut Vec::new());
    assert_eq!(turn(&mut outputs), (vec![4], true, Timestamp::MAX));
    assert!(outputs.room());
    let flushes = Timestamp(10);
    assert_eq!(turn(&mut outputs), (vec![], false, flushes), "two are left");
}

#[test]
fn a_burst_for_one_of_many_leaves_room_for_the_others() {
    let settings = ChannelSettings {
        initial_credits: 8,
        batch_records: 16,
        flush_interval_ms: 10,
        ..ChannelSettings::default()
    };
    // Batches of half of the first grant; of three channels besides one, twelve records may wait.
    let mut outputs = Outputs::new(EdgeId(0), 0, 1..5, 5, settings);
    push(&mut outputs, 12);
    assert_eq!(turn(&mut outputs).0, [4, 4]);
    push(&mut outputs, 8);
    assert!(outputs.room(), "twelve wait");
    push(&mut outputs, 4);
    assert!(!outputs.room());
    outputs.credit(1, 4, &mut Vec::new());
    assert_eq!(turn(&mut outputs), (vec![4], true, Timestamp::MAX));
    assert!(outputs.room(), "and who waited for that is asked again");
    assert_eq!(turn(&mut outputs), (vec![], false, Timestamp::MAX));
}

#[test]
fn news_of_event_time_waits_for_credit_and_the_newest_is_told() {
    let settings = ChannelSettings {
        initial_credits: 2,
        flush_interval_ms: 0,
        ..ChannelSettings::default()
    };
    let mut outputs = Outputs::new(EdgeId(0), 0, 1..2, 2, settings);
    let mut left = Vec::new();
    for at in 0..100 {
        outputs.signal(Signal::Watermark(Timestamp(at)));
        left.extend(turn(&mut outputs).0);
    }
    assert_eq!(left, [0, 0], "as much as was granted, and no more");
    let waiting = outputs.channels[0].sealed.len();
    assert_eq!(
        (waiting, outputs.channels[0].watermark),
        (1, Some(Timestamp(99)))
    );
    outputs.signal(Signal::Barrier(Barrier::checkpoint(1)));
    outputs.credit(1, 1, &mut Vec::new());
    assert_eq!(
        turn(&mut outputs).0,
        [0, 0],
        "a barrier needs none of its own"
    );
}

#[test]
fn emptied_batches_are_filled_again_the_last_one_first() {
    let settings = ChannelSettings {
        batch_records: 4,
        ..ChannelSettings::default()
    };
    let mut outputs = Outputs::new(EdgeId(0), 0, 1..2, 2, settings);
    let batch = || Box::new(Batch::<u32>::with_capacity(4));
    assert!(
        outputs.reuse(Box::new(Batch::with_capacity(0))).is_some(),
        "without room it is of no use"
    );
    let mut kept = Vec::new();
    let refused = loop {
        let batch = batch();
        let place = batch.records.as_ptr();
        match outputs.reuse(batch) {
            None => kept.push(place),
            Some(refused) => break refused.records.as_ptr() == place,
        }
    };
    assert!(refused, "it comes back");
    assert_eq!(
        kept.len(),
        SPARE_BUFFERS + KEPT_BUFFERS,
        "some for the channel and some more"
    );

    push(&mut outputs, 12);
    let sealed = outputs.channels[0].sealed.iter();
    let sealed: Vec<_> = sealed.map(|batch| batch.records.as_ptr()).collect();
    kept.reverse();
    assert_eq!(sealed[1..], kept[..2], "behind the first, which was new");
}

#[test]
fn batches_grow_with_what_is_granted_within_bounds() {
    let settings = |initial_credits, batch_records| ChannelSettings {
        initial_credits,
        batch_records,
        ..ChannelSettings::default()
    };
    let full = |credit| full_batch(settings(1_000, 1_024), credit);
    // Half of the first grant; from there on a quarter of what there is; a full batch at most.
    let sizes = [0, 1_000, 2_000, 2_400, 4_096, 16_384].map(full);
    assert_eq!(sizes, [500, 500, 500, 600, 1_024, 1_024]);
    assert_eq!(
        full_batch(settings(1_000, 16), 9_999),
        16,
        "no more than is wished"
    );
    assert_eq!(full_batch(settings(1, 1_024), 1), 1, "and never none");

    let mut outputs = Outputs::new(EdgeId(0), 0, 1..2, 2, settings(8, 16));
    push(&mut outputs, 8);
    assert_eq!(turn(&mut outputs).0, [4, 4]);
    outputs.credit(1, 48, &mut Vec::new());
    push(&mut outputs, 11);
    assert!(
        turn(&mut outputs).0.is_empty(),
        "twelve are a quarter of 48"
    );
    push(&mut outputs, 1);
    assert_eq!(turn(&mut outputs).0, [12]);
}
