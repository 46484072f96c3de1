//! Sends what a complete checkpoint covers, once: in one transaction with a record that says so.
//!
//! Before each transaction the slot is fenced by a new producer instance, and then its marker is read. As no
//! other instance can commit from then on without fencing this one, the marker that was read is the truth
//! until this transaction commits. Whether a commit whose answer was lost has happened is read from the marker
//! too, after a new fence: nothing is ever concluded from what the client says.

use super::committable::{Committable, Owner, Segments};
use super::protocol::{Broker, Instance, Marker, Trouble};
use crate::failpoints::failpoint;
use tidegate_engine::fault::{Fault, Flow};

/// Commits the output of one slot.
pub(crate) struct Committer<B: Broker> {
    broker: B,
    slot: u32,
    owner: Owner,
    /// An instance that has made no transaction yet, and the marker that was read behind its fence.
    ready: Option<(B::Instance, Marker)>,
}

impl<B: Broker> Committer<B> {
    /// For an attempt that has recovered as `owner`.
    pub(crate) fn new(broker: B, slot: u32, owner: Owner) -> Self {
        Committer {
            broker,
            slot,
            owner,
            ready: None,
        }
    }

    /// Has the next instance ready before it is needed. That it can't be had now is no failure.
    pub(crate) fn warm_up(&mut self) -> Flow {
        if self.ready.is_none() {
            match self.fresh() {
                Ok(ready) => self.ready = Some(ready),
                Err(Trouble::Fatal(fault)) => return Err(fault),
                Err(Trouble::Unsure(why)) => {
                    tracing::debug!(slot = self.slot, "no producer is ready yet: {why}");
                }
            }
        }
        Ok(())
    }

    /// Commits what complete checkpoints cover, in their order and in one transaction, unless that was done.
    pub(crate) fn commit(&mut self, all: &[Committable], segments: &dyn Segments) -> Flow {
        debug_assert!(all.iter().all(|committable| committable.slot == self.slot));
        let Some(last) = all.last() else {
            return Ok(());
        };
        for tries in 0.. {
            match self.attempt(all, last.checkpoint, segments) {
                Ok(()) => break,
                Err(Trouble::Fatal(fault)) => return Err(fault),
                Err(Trouble::Unsure(why)) => {
                    let (slot, checkpoint) = (self.slot, last.checkpoint);
                    tracing::warn!(slot, checkpoint, "looks whether a commit was done: {why}");
                    if !self.broker.pause(tries) {
                        return Err(Fault::external(format_args!(
                            "the output of checkpoint {checkpoint} can't be committed to Kafka: {why}"
                        )));
                    }
                }
            }
        }
        Ok(())
    }

    fn attempt(
        &mut self,
        all: &[Committable],
        upto: u64,
        segments: &dyn Segments,
    ) -> Result<(), Trouble> {
        let (mut instance, marker) = match self.ready.take() {
            Some(ready) => ready,
            None => self.fresh()?,
        };
        if marker.checkpoint >= upto {
            self.ready = Some((instance, marker));
            return Ok(());
        }
        point("before_begin")?;
        instance.begin()?;
        point("in_transaction")?;
        for committable in all.iter().filter(|c| c.checkpoint > marker.checkpoint) {
            committable.for_each(segments, |records| {
                instance.produce(records)?;
                point("after_part")
            })?;
        }
        point("after_produce")?;
        instance.mark(&Marker::new(upto, self.owner))?;
        point("before_commit")?;
        instance.commit()?;
        point("after_commit")?;
        Ok(())
    }

    /// Fences, and reads the marker then. In this order, or an older instance could commit in between.
    fn fresh(&self) -> Result<(B::Instance, Marker), Trouble> {
        let instance = self.broker.fence(self.slot)?;
        point("after_fence")?;
        let marker = self.broker.markers()?.remove(&self.slot);
        let marker = marker.ok_or_else(|| no_marker(self.slot))?;
        if marker.owner == self.owner {
            return Ok((instance, marker));
        }
        Err(taken_over(self.slot).into())
    }
}

#[cold]
pub(super) fn taken_over(slot: u32) -> Fault {
    Fault::fenced(format_args!(
        "another run of this job has taken over its output to Kafka (subtask {slot}); this one stops"
    ))
}

#[cold]
fn no_marker(slot: u32) -> Fault {
    Fault::user(format_args!(
        "the progress record of subtask {slot} is gone; was the progress topic deleted or changed?"
    ))
}

/// A place at which a test can make the process fail.
pub(super) fn point(place: &str) -> Result<(), Trouble> {
    let reach = || -> Flow {
        failpoint!(format!("kafka_sink::{place}").as_str());
        let _ = place;
        Ok(())
    };
    reach().map_err(Trouble::Fatal)
}
