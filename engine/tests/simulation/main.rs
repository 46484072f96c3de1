//! Whole jobs without a runtime: every subtask's core, and a network that delivers in any order.
//!
//! A seed decides which message arrives next, who is given a step, when sinks have no room and when time
//! passes; a failure prints the plan that led to it. At every step the network checks that no channel
//! carries more than was granted (invariant 1), the operators that channels keep their order and that no
//! record is older than the watermark before it (2 and 3), and in the end that every record arrived as
//! often as it should have, and that every subtask came to its end.
//!
//! The protocol of checkpoints has a world of its own: see `recovery`. Jobs under checkpoints and crashes
//! are in `whole`.

mod jobs;
mod network;
mod recovery;
mod whole;

use jobs::{Plan, Shape};
use proptest::prelude::*;
use tidegate_engine::exchange::ChannelSettings;

fn shapes() -> impl Strategy<Value = Shape> {
    prop_oneof![
        Just(Shape::Keyed),
        Just(Shape::Copies),
        Just(Shape::Union),
        Just(Shape::Chains),
        Just(Shape::Diamond),
    ]
}

fn channels() -> impl Strategy<Value = ChannelSettings> {
    (1u32..16, 1u32..9, 1u32..24, 0u64..20).prop_map(|(initial, times, batch, flush)| {
        ChannelSettings {
            initial_credits: initial,
            max_credits: initial * times,
            batch_records: batch,
            flush_interval_ms: flush,
            check_grammar: true,
            ..ChannelSettings::default()
        }
    })
}

fn plans() -> impl Strategy<Value = Plan> {
    let width = prop::array::uniform3(1u32..5);
    let drift = prop::option::of(0u64..200);
    let idle = prop::option::of(1u64..30);
    (
        (shapes(), width, channels(), 1usize..64),
        (0u64..150, drift, idle, any::<u64>()),
    )
        .prop_map(
            |((shape, width, channels, slice), (records, drift, idle, seed))| Plan {
                shape,
                width,
                channels,
                slice,
                records,
                drift,
                idle,
                seed,
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_job_comes_to_its_end_with_every_record_and_within_its_credits(plan in plans()) {
        jobs::run(&plan);
    }
}
