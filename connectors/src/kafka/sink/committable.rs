//! What a checkpoint keeps of one subtask's output: the records themselves, so that any process can send them
//! however much later, with what tells whether that was done already.
//!
//! ```text
//! magic and version    4 bytes
//! slot                 4 bytes
//! checkpoint, owner, records, checksum of all that follows: 8 bytes each
//! version 2 only: how many segments there are, 4 bytes; of each its length and its checksum, 8 bytes each
//! records
//! ```
//!
//! Most output is small and lies in the committable whole. What is larger was spilled, segment by segment: these
//! are files of the checkpoint, whose names follow from the committable's own numbers.

use tidegate_engine::checkpoint::Checksum;
use tidegate_engine::fault::{Fault, Flow};

/// An attempt of a job, by a number that no other has. Written into the progress record when it takes the sink
/// over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Owner(pub(crate) u64);

/// The first bytes of each: what it is, and its version.
const MAGIC: &[u8; 4] = b"TGK\x01";

/// Of those with segments.
const WITH_SEGMENTS: &[u8; 4] = b"TGK\x02";

/// Bytes before the records.
pub(crate) const HEADER: usize = 4 + 4 + 8 + 8 + 8 + 8;

/// A part of the output that lies in a file of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) length: u64,
    pub(crate) checksum: Checksum,
}

impl Segment {
    /// Of these bytes.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Segment {
            length: bytes.len() as u64,
            checksum: Checksum::of(bytes),
        }
    }
}

/// Where segments are read: on this machine by who has written them, from a checkpoint by who restores it.
pub(crate) trait Segments {
    /// The bytes of the file of this name.
    fn read(&self, name: &str) -> Flow<Vec<u8>>;
}

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
    /// What was spilled of it, which comes first.
    segments: Vec<Segment>,
    /// All of its own bytes, and where the records among them begin.
    bytes: Vec<u8>,
    rest: usize,
}

/// What a committable tells of itself, but for its records.
#[derive(Clone, Copy, Debug)]
pub(crate) struct About {
    pub(crate) slot: u32,
    pub(crate) checkpoint: u64,
    pub(crate) owner: Owner,
    pub(crate) records: u64,
}

impl About {
    /// The name of one of its segments, which no other file has.
    pub(crate) fn segment(&self, n: usize) -> String {
        let (owner, slot, checkpoint) = (self.owner.0, self.slot, self.checkpoint);
        format!("{owner:016x}-{slot}-{checkpoint}-{n}")
    }
}

impl Committable {
    /// An empty buffer, to which records are appended.
    pub(crate) fn buffer() -> Vec<u8> {
        vec![0; HEADER]
    }

    /// Makes a committable of a buffer with records, and of what was spilled before these.
    pub(crate) fn close(mut buffer: Vec<u8>, about: About, segments: &[Segment]) -> Vec<u8> {
        let magic = match segments {
            [] => MAGIC,
            _ => WITH_SEGMENTS,
        };
        if !segments.is_empty() {
            let mut list = (segments.len() as u32).to_le_bytes().to_vec();
            for segment in segments {
                list.extend(segment.length.to_le_bytes());
                list.extend(segment.checksum.0.to_le_bytes());
            }
            buffer.splice(HEADER..HEADER, list);
        }
        let sum = Checksum::of(&buffer[HEADER..]).0;
        let numbers = [about.checkpoint, about.owner.0, about.records, sum];
        let header = magic.iter().copied().chain(about.slot.to_le_bytes());
        let header = header.chain(numbers.into_iter().flat_map(u64::to_le_bytes));
        buffer
            .iter_mut()
            .zip(header)
            .for_each(|(to, from)| *to = from);
        buffer
    }

    /// Appends one to others that are committed with it.
    pub(crate) fn append(bytes: &[u8], into: &mut Vec<u8>) {
        into.extend((bytes.len() as u64).to_le_bytes());
        into.extend_from_slice(bytes);
    }

    /// Reads those that are committed together, and verifies them.
    pub(crate) fn decode_all(mut bytes: &[u8]) -> Flow<Vec<Self>> {
        let mut all = Vec::new();
        while let Some((length, rest)) = bytes.split_first_chunk::<8>() {
            let length = usize::try_from(u64::from_le_bytes(*length)).ok();
            let split = length.and_then(|length| rest.split_at_checked(length));
            let (one, rest) = split.ok_or_else(damaged)?;
            all.push(Committable::decode(one.to_vec())?);
            bytes = rest;
        }
        Ok(all)
    }

    /// Reads one, and verifies it.
    pub(crate) fn decode(bytes: Vec<u8>) -> Flow<Self> {
        let (magic, rest) = bytes.split_first_chunk::<4>().ok_or_else(damaged)?;
        let (slot, rest) = rest.split_first_chunk::<4>().ok_or_else(damaged)?;
        if magic != MAGIC && magic != WITH_SEGMENTS {
            return Err(Fault::user(
                "what the checkpoint holds for this sink is no output for Kafka, or of another version",
            ));
        }
        let mut numbers = [0; 4];
        let (header, mut records_from) = rest.split_at_checked(32).ok_or_else(damaged)?;
        for (number, bytes) in numbers.iter_mut().zip(header.as_chunks::<8>().0) {
            *number = u64::from_le_bytes(*bytes);
        }
        let [checkpoint, owner, records, sum] = numbers;
        if Checksum::of(records_from).0 != sum {
            return Err(damaged());
        }
        let mut segments = Vec::new();
        if magic == WITH_SEGMENTS {
            (segments, records_from) = list(records_from).ok_or_else(damaged)?;
        }
        Ok(Committable {
            slot: u32::from_le_bytes(*slot),
            checkpoint,
            owner: Owner(owner),
            records,
            segments,
            rest: bytes.len() - records_from.len(),
            bytes,
        })
    }

    fn about(&self) -> About {
        About {
            slot: self.slot,
            checkpoint: self.checkpoint,
            owner: self.owner,
            records: self.records,
        }
    }

    /// The names of its segments.
    pub(crate) fn segments(&self) -> impl Iterator<Item = String> {
        let about = self.about();
        (0..self.segments.len()).map(move |n| about.segment(n))
    }

    /// How many bytes of records there are, spilled ones too.
    pub(crate) fn length(&self) -> u64 {
        let spilled: u64 = self.segments.iter().map(|segment| segment.length).sum();
        spilled + (self.bytes.len() - self.rest) as u64
    }

    /// Calls `each` with all records in their order, some of them at a time: never is more than a segment in memory.
    pub(crate) fn for_each<E: From<Fault>>(
        &self,
        segments: &dyn Segments,
        mut each: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        for (segment, name) in self.segments.iter().zip(self.segments()) {
            let bytes = segments.read(&name)?;
            if Segment::of(&bytes) != *segment {
                return Err(Fault::user(format_args!(
                    "output for Kafka is damaged: '{name}' is not what was written"
                ))
                .into());
            }
            each(&bytes)?;
        }
        each(&self.bytes[self.rest..])
    }
}

#[cold]
fn damaged() -> Fault {
    Fault::user("output for Kafka in the checkpoint is damaged")
}

/// The segments, and what stands behind them.
fn list(bytes: &[u8]) -> Option<(Vec<Segment>, &[u8])> {
    let (count, rest) = bytes.split_first_chunk::<4>()?;
    let length = (u32::from_le_bytes(*count) as usize).checked_mul(16)?;
    let (all, rest) = rest.split_at_checked(length)?;
    let segment = |numbers: &[[u8; 8]]| Segment {
        length: u64::from_le_bytes(numbers[0]),
        checksum: Checksum(u64::from_le_bytes(numbers[1])),
    };
    Some((
        all.as_chunks::<8>().0.chunks(2).map(segment).collect(),
        rest,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const ABOUT: About = About {
        slot: 3,
        checkpoint: 70,
        owner: Owner(9),
        records: 2,
    };

    struct Memory(BTreeMap<String, Vec<u8>>);

    impl Segments for Memory {
        fn read(&self, name: &str) -> Flow<Vec<u8>> {
            let found = self.0.get(name).cloned();
            found.ok_or_else(|| Fault::user(format_args!("no '{name}'")))
        }
    }

    /// A committable of two segments and a rest, and where they are.
    fn spilled() -> (Vec<u8>, Memory) {
        let parts = [&b"first"[..], b"second"];
        let segments = parts.map(Segment::of);
        let names = (0..).map(|n| ABOUT.segment(n));
        let memory = Memory(names.zip(parts.map(<[u8]>::to_vec)).collect());
        let mut buffer = Committable::buffer();
        buffer.extend(b"rest");
        (Committable::close(buffer, ABOUT, &segments), memory)
    }

    fn read(bytes: Vec<u8>, memory: &Memory) -> Flow<String> {
        let mut all = String::new();
        Committable::decode(bytes)?.for_each(memory, |part| {
            all += std::str::from_utf8(part).expect("text");
            Ok::<_, Fault>(())
        })?;
        Ok(all)
    }

    #[test]
    fn what_is_closed_is_decoded_and_damage_is_found() {
        let mut buffer = Committable::buffer();
        buffer.extend(b"records");
        let whole = Committable::close(buffer, ABOUT, &[]);
        let (in_parts, memory) = spilled();
        for (bytes, records) in [(whole, "records"), (in_parts, "firstsecondrest")] {
            let one = Committable::decode(bytes.clone()).unwrap();
            assert_eq!((one.slot, one.checkpoint), (3, 70));
            assert_eq!((one.owner, one.records), (Owner(9), 2));
            assert_eq!(one.length(), records.len() as u64);
            assert_eq!(read(bytes.clone(), &memory).unwrap(), records);
            for at in [0, HEADER - 1, HEADER + 2, bytes.len() - 1] {
                let mut bytes = bytes.clone();
                bytes[at] ^= 1;
                assert!(Committable::decode(bytes).is_err(), "byte {at}");
            }
            for length in 0..bytes.len() {
                assert!(Committable::decode(bytes[..length].to_vec()).is_err());
            }
        }
    }

    #[test]
    fn those_that_are_committed_together_are_read_in_their_order() {
        let (bytes, _) = spilled();
        let mut together = Vec::new();
        Committable::append(&bytes, &mut together);
        let later = About {
            checkpoint: 71,
            ..ABOUT
        };
        let later = Committable::close(Committable::buffer(), later, &[]);
        Committable::append(&later, &mut together);
        let all = Committable::decode_all(&together).unwrap();
        let checkpoints: Vec<_> = all.iter().map(|one| one.checkpoint).collect();
        assert_eq!(checkpoints, [70, 71]);
        assert!(Committable::decode_all(&together[..together.len() - 1]).is_err());
    }

    #[test]
    fn a_segment_that_is_another_one_or_gone_is_an_error() {
        let (bytes, mut memory) = spilled();
        let name = ABOUT.segment(1);
        memory.0.insert(name.clone(), b"other!".to_vec());
        let fault = read(bytes.clone(), &memory).unwrap_err();
        assert!(fault.message().contains(&name), "{fault}");
        memory.0.remove(&name);
        assert!(read(bytes, &memory).is_err());
    }

    #[test]
    fn a_list_that_lies_about_its_length_allocates_nothing() {
        let mut buffer = Committable::buffer();
        buffer.extend(u32::MAX.to_le_bytes());
        let mut bytes = Committable::close(buffer, ABOUT, &[]);
        bytes[3] = 2;
        assert!(Committable::decode(bytes).is_err());
    }
}
