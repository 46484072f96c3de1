//! The receiver's side of one channel: how many credits to hand back, and when.
//!
//! Returning a credit per record would cost a message per record, and a fixed window is either too
//! small for a fast channel or too large for a slow receiver. So credits go back in bulk, and the
//! window follows what both ends see: it doubles when the sender starved while the receiver had
//! nothing to do, and halves when records pile up at the receiver. It changes by returning more or
//! fewer credits than were processed; a credit once granted is never revoked.
//!
//! The contract with the sender: it may send while its balance is above zero. If its last batch is
//! larger than the balance, the balance goes below zero, and the ledger remembers that overdraft,
//! so no credit is lost and none is invented. Then no exchange of partial batches can deadlock:
//! after everything sent has been processed, the sender has a positive balance, or
//! [`CreditWindow::take_return`] gives it one.

/// The credit ledger of one channel at its receiver. A credit stands for one record.
///
/// ```
/// use tidegate_engine::flow::CreditWindow;
///
/// let mut window = CreditWindow::new(100, 1000);
/// window.on_processed(40);
/// assert_eq!(window.take_return(false, 10), None); // less than half of the window
/// window.on_processed(20);
/// assert_eq!(window.take_return(false, 10), Some(60));
/// window.on_processed(100);
/// assert_eq!(window.take_return(true, 0), Some(200)); // the window doubles
/// ```
#[derive(Debug, Clone)]
pub struct CreditWindow {
    initial: u32,
    max: u32,
    window: u32,
    /// Granted minus processed; below zero while the sender has overdrawn.
    balance: i64,
    /// Processed since the last decision.
    processed: u64,
    /// Whether the sender said so since the last decision.
    starved: bool,
    /// The longest queue seen since the last decision, in records.
    longest_queue: usize,
}

impl CreditWindow {
    /// A ledger that has granted `initial` credits already, and whose window grows to `max` at
    /// most. Both are raised to sane values: `initial` to 1, `max` to `initial`.
    pub fn new(initial: u32, max: u32) -> Self {
        let initial = initial.max(1);
        Self {
            initial,
            max: max.max(initial),
            window: initial,
            balance: i64::from(initial),
            processed: 0,
            starved: false,
            longest_queue: 0,
        }
    }

    /// Takes note that `records` of this channel have been processed.
    pub fn on_processed(&mut self, records: u32) {
        self.balance -= i64::from(records);
        self.processed += u64::from(records);
    }

    /// The credits to hand back now, if it is time: at least half of the window has been processed
    /// since the last time. Call it after processing a batch.
    ///
    /// `starved`: the sender reported that it ran out of credits; remembered until the next
    /// return. `queue_len`: records that wait at this receiver, of this and its other channels.
    /// The window doubles if the sender starved while nothing waits, and halves if more than half
    /// of the window was waiting at any call since the last return.
    pub fn take_return(&mut self, starved: bool, queue_len: usize) -> Option<u32> {
        self.starved |= starved;
        self.longest_queue = self.longest_queue.max(queue_len);
        if self.processed < u64::from(self.window.div_ceil(2)) {
            return None;
        }
        let half = usize::try_from(self.window / 2).unwrap_or(usize::MAX);
        if self.starved && queue_len == 0 {
            self.window = self.window.saturating_mul(2).min(self.max);
        } else if self.longest_queue > half {
            self.window = (self.window / 2).max(self.initial);
        }
        self.processed = 0;
        self.starved = false;
        self.longest_queue = 0;
        let missing = i64::from(self.window) - self.balance;
        let returned = u32::try_from(missing.max(0)).unwrap_or(u32::MAX);
        self.balance += i64::from(returned);
        (returned > 0).then_some(returned)
    }

    /// Credits granted and not processed yet: what the sender may still send, plus what is on its
    /// way or waits here. At most [`CreditWindow::window`], or the window before it halved.
    pub fn outstanding(&self) -> u32 {
        u32::try_from(self.balance.max(0)).unwrap_or(u32::MAX)
    }

    /// Records processed beyond all credits granted, because the sender overdrew.
    pub fn overdraft(&self) -> u64 {
        self.balance.min(0).unsigned_abs()
    }

    /// The present size of the window, in credits.
    pub fn window(&self) -> u32 {
        self.window
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    #[test]
    fn returns_in_bulk_from_half_a_window() {
        let mut w = CreditWindow::new(1000, 8000);
        w.on_processed(499);
        assert_eq!(w.take_return(false, 0), None);
        w.on_processed(1);
        assert_eq!(w.take_return(false, 0), Some(500));
        assert_eq!((w.outstanding(), w.window()), (1000, 1000));
        w.on_processed(499);
        assert_eq!(w.take_return(false, 0), None, "the count starts anew");
    }

    #[test]
    fn doubles_for_a_starved_sender_up_to_the_maximum() {
        let mut w = CreditWindow::new(100, 300);
        w.on_processed(50);
        assert_eq!(
            w.take_return(true, 1),
            Some(50),
            "we had work: the window is enough"
        );
        w.on_processed(100);
        assert_eq!(w.take_return(true, 0), Some(200));
        w.on_processed(200);
        assert_eq!(w.take_return(true, 0), Some(300));
        w.on_processed(300);
        assert_eq!(w.take_return(true, 0), Some(300));
        assert_eq!(w.window(), 300);
    }

    #[test]
    fn a_starved_report_is_remembered_until_the_return() {
        let mut w = CreditWindow::new(100, 800);
        w.on_processed(10);
        assert_eq!(w.take_return(true, 0), None);
        w.on_processed(90);
        assert_eq!(w.take_return(false, 0), Some(200));
    }

    #[test]
    fn halves_down_to_the_initial_size_without_revoking() {
        let mut w = CreditWindow::new(100, 800);
        for _ in 0..3 {
            w.on_processed(w.outstanding());
            w.take_return(true, 0);
        }
        assert_eq!(w.window(), 800);
        w.on_processed(400);
        assert_eq!(
            w.take_return(true, 401),
            None,
            "nothing is due at half the size"
        );
        assert_eq!((w.window(), w.outstanding()), (400, 400));
        w.on_processed(300);
        assert_eq!(w.take_return(false, 300), Some(100));
        w.on_processed(200);
        assert_eq!(w.take_return(false, 10_000), Some(100));
        assert_eq!(w.window(), 100);
    }

    #[test]
    fn an_overdraft_is_repaid_and_leaks_nothing() {
        let mut w = CreditWindow::new(10, 10);
        w.on_processed(25);
        assert_eq!((w.outstanding(), w.overdraft()), (0, 15));
        assert_eq!(w.take_return(false, 0), Some(25));
        assert_eq!((w.outstanding(), w.overdraft()), (10, 0));
        let mut degenerate = CreditWindow::new(0, 0);
        degenerate.on_processed(1);
        assert_eq!(degenerate.take_return(false, 0), Some(1));
    }

    /// A sender, a wire and a receiver, driven by a script of turns.
    struct Link {
        window: CreditWindow,
        sender_balance: i64,
        wire: VecDeque<u32>,
        returning: VecDeque<u32>,
        sent: u64,
        processed: u64,
    }

    impl Link {
        fn send(&mut self, batch: u32, overdraw: bool) {
            if self.sender_balance <= 0 {
                return;
            }
            let credit = u32::try_from(self.sender_balance).expect("window fits");
            let batch = if overdraw { batch } else { batch.min(credit) };
            self.sender_balance -= i64::from(batch);
            self.sent += u64::from(batch);
            self.wire.push_back(batch);
        }

        fn process(&mut self, others: usize) {
            let Some(batch) = self.wire.pop_front() else {
                return;
            };
            self.processed += u64::from(batch);
            self.window.on_processed(batch);
            let waiting: u32 = self.wire.iter().sum();
            let starved = self.sender_balance <= 0;
            let back = self.window.take_return(starved, waiting as usize + others);
            self.returning.extend(back);
        }

        fn deliver_credit(&mut self) {
            if let Some(credit) = self.returning.pop_front() {
                self.sender_balance += i64::from(credit);
            }
        }
    }

    proptest! {
        #[test]
        fn bounded_never_negative_never_stuck(
            initial in 1u32..200,
            growth in 1u32..20,
            overdraw: bool,
            turns in prop::collection::vec((0..3u8, 1..300u32, 0..400usize), 0..300),
        ) {
            let max = initial * growth;
            let mut link = Link {
                window: CreditWindow::new(initial, max),
                sender_balance: i64::from(initial),
                wire: VecDeque::new(), returning: VecDeque::new(), sent: 0, processed: 0,
            };
            for (what, batch, others) in turns {
                match what {
                    0 => link.send(batch, overdraw),
                    1 => link.process(others),
                    _ => link.deliver_credit(),
                }
                let w = &link.window;
                prop_assert!(w.outstanding() <= max);
                prop_assert!(initial <= w.window() && w.window() <= max);
                let on_wire: i64 = link.wire.iter().map(|b| i64::from(*b)).sum();
                let on_return: i64 = link.returning.iter().map(|c| i64::from(*c)).sum();
                let ledger = i64::from(w.outstanding()) - w.overdraft() as i64;
                prop_assert_eq!(ledger, link.sender_balance + on_wire + on_return);
                if !overdraw {
                    prop_assert!(link.sender_balance >= 0);
                    prop_assert!(link.sent - link.processed <= u64::from(max));
                }
            }
            while !link.wire.is_empty() { link.process(0); }
            while !link.returning.is_empty() { link.deliver_credit(); }
            prop_assert!(link.sender_balance > 0, "a drained channel can always send");
        }
    }
}
