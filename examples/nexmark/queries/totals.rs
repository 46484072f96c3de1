//! count, q15, q16, q17: totals per key.

use super::Job;
use crate::answer_rows::RunningCount;
use crate::events::Event;

pub fn count<E: Event>(job: &Job<E>) {
    job.events()
        .filter_map(|event: E| event.bid().map(|bid| bid.bidder))
        .key_by(|bidder| *bidder)
        .fold(0u64, |bids, bidder, _| {
            *bids += 1;
            RunningCount {
                bidder: *bidder,
                bids: *bids,
            }
        })
        .sink("rows", job.rows.clone());
}
