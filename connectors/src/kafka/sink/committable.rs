//! What a checkpoint keeps of one subtask's output: the records themselves, so that any process can send them
//! however much later, with what tells whether that was done already.

use tidegate_engine::checkpoint::Checksum;
use tidegate_engine::fault::{Fault, Flow};

/// An attempt of a job, by a number that no other has. Written into the progress record when it takes the sink
/// over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Owner(pub(crate) u64);

/// The first bytes of each: what it is, and its version.
const MAGIC: &[u8; 4] = b"TGK\x01";

/// Bytes before the records.
pub(crate) const HEADER: usize = 4 + 4 + 8 + 8 + 8 + 8;

/// The output of one subtask between two checkpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Committable {
    /// The subtask whose transactional id it is sent with.
    pub(crate) slot: u32,
    /// The checkpoint that covers it.
    pub(crate) checkpoint: u64,
    /// The attempt that wrote it.
    pub(crate) owner: Owner,
    /// How many records there are.
    pub(crate) records: u64,
    /// All of its bytes, header included.
    bytes: Vec<u8>,
}

impl Committable {
    /// An empty buffer, to which records are appended.
    pub(crate) fn buffer() -> Vec<u8> {
        vec![0; HEADER]
    }

    /// Fills in what stands before the records.
    pub(crate) fn close(bytes: &mut [u8], slot: u32, checkpoint: u64, owner: Owner, records: u64) {
        let sum = Checksum::of(&bytes[HEADER..]).0;
        let numbers = [checkpoint, owner.0, records, sum];
        let header = MAGIC.iter().copied().chain(slot.to_le_bytes());
        let header = header.chain(numbers.into_iter().flat_map(u64::to_le_bytes));
        bytes
            .iter_mut()
            .zip(header)
            .for_each(|(to, from)| *to = from);
    }

    /// Reads one, and verifies it.
    pub(crate) fn decode(bytes: Vec<u8>) -> Flow<Self> {
        let damaged = || Fault::user("output for Kafka in the checkpoint is damaged");
        let (magic, rest) = bytes.split_first_chunk::<4>().ok_or_else(damaged)?;
        let (slot, rest) = rest.split_first_chunk::<4>().ok_or_else(damaged)?;
        if magic != MAGIC {
            return Err(Fault::user(
                "what the checkpoint holds for this sink is no output for Kafka, or of another version",
            ));
        }
        let mut numbers = [0; 4];
        let (header, segment) = rest.split_at_checked(32).ok_or_else(damaged)?;
        for (number, bytes) in numbers.iter_mut().zip(header.as_chunks::<8>().0) {
            *number = u64::from_le_bytes(*bytes);
        }
        let [checkpoint, owner, records, sum] = numbers;
        if Checksum::of(segment).0 != sum {
            return Err(damaged());
        }
        Ok(Committable {
            slot: u32::from_le_bytes(*slot),
            checkpoint,
            owner: Owner(owner),
            records,
            bytes,
        })
    }

    /// The records.
    pub(crate) fn segment(&self) -> &[u8] {
        &self.bytes[HEADER..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_closed_is_decoded_and_damage_is_found() {
        let mut bytes = Committable::buffer();
        bytes.extend(b"records");
        Committable::close(&mut bytes, 3, 70, Owner(9), 2);
        let read = Committable::decode(bytes.clone()).unwrap();
        assert_eq!(
            (read.slot, read.checkpoint, read.owner, read.records),
            (3, 70, Owner(9), 2)
        );
        assert_eq!(read.segment(), b"records");
        for at in [0, HEADER - 1, HEADER + 2] {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1;
            assert!(Committable::decode(bytes).is_err(), "byte {at}");
        }
        for length in 0..HEADER {
            assert!(Committable::decode(bytes[..length].to_vec()).is_err());
        }
    }
}
