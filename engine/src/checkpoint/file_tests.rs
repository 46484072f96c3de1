//! A file of state comes back as it was, and whatever is changed in it is found.

use super::*;
use crate::checkpoint::image::{OperatorImage, StateImage, StateKind};
use crate::checkpoint::index::GroupIndex;
use crate::checkpoint::metadata::{FileRef, SubtaskFile};
use crate::checkpoint::shared::{FilesIndex, SharedFile};
use crate::checkpoint::storage::join;
use crate::checkpoint::write_image_to;
use crate::checkpoint::{Barrier, CheckpointId, Timing};
use crate::testing::MemoryStorage;
use crate::time::Timestamp;
use proptest::collection::vec;
use proptest::prelude::*;

fn data() -> impl Strategy<Value = StateData> {
    let bytes = || vec(any::<u8>(), 0..20);
    let group = (any::<u32>(), any::<u64>(), bytes());
    let group = group.prop_map(|(group, entries, bytes)| GroupImage {
        group,
        entries,
        bytes: bytes.into(),
    });
    let shared = ("[a-z]{1,4}", any::<u64>(), any::<u64>());
    let shared = shared.prop_map(|(name, since, length)| SharedFile {
        file: FileRef {
            path: format!("shared/{name}"),
            length,
            checksum: Checksum(since),
        },
        name,
        since: CheckpointId(since),
    });
    let groups = prop::option::of((0..9u32, 9..12u32));
    let files = (groups, bytes(), vec(shared, 0..3));
    let files = files.prop_map(|(groups, manifest, files)| FilesImage {
        index: FilesIndex {
            format: "rocksdb".to_owned(),
            groups,
            entries: manifest.len() as u64,
            files,
        },
        manifest,
        local: Local::default(),
    });
    prop_oneof![
        files.prop_map(StateData::Files),
        vec(group, 0..4).prop_map(StateData::Groups),
        vec(bytes(), 0..4).prop_map(StateData::Elements),
    ]
}

fn state() -> impl Strategy<Value = StateImage> {
    ("\\PC{0,6}", data()).prop_map(|(name, data)| StateImage {
        name,
        kind: match data {
            StateData::Elements(_) => StateKind::Union,
            _ => StateKind::Keyed,
        },
        key_type: "u64".to_owned(),
        value_type: String::new(),
        data,
    })
}

fn image() -> impl Strategy<Value = SubtaskImage> {
    let operator = ("\\PC{0,6}", any::<i64>(), vec(state(), 0..3));
    let operator = operator.prop_map(|(uid, watermark, states)| OperatorImage {
        name: uid.clone(),
        uid,
        max_parallelism: 128,
        parallelism: 2,
        watermark: Timestamp(watermark),
        states,
    });
    (any::<u64>(), any::<u32>(), vec(operator, 0..3)).prop_map(|(id, subtask, operators)| {
        SubtaskImage {
            barrier: Barrier::checkpoint(id),
            task: 3,
            subtask,
            operators,
            timing: Timing::default(),
            positions: Vec::new(),
        }
    })
}

/// What is known of a file, and the file.
fn written(image: &SubtaskImage) -> (SubtaskFile, Vec<u8>) {
    let storage = MemoryStorage::default();
    let known = write_image_to(&storage, "f", image).expect("writes");
    let bytes = storage.read(&join("f", &known.file.path), u64::MAX);
    (known, bytes.expect("reads"))
}

proptest! {
    #[test]
    fn an_image_comes_back_as_it_was(image in image()) {
        let (known, bytes) = written(&image);
        prop_assert_eq!(known.file.length, bytes.len() as u64);
        let (checksum, index) = verify("f", &bytes).expect("undamaged");
        prop_assert_eq!(checksum, known.file.checksum);
        prop_assert_eq!(&index, &known.index);
        prop_assert_eq!(decode("f", &bytes).expect("undamaged"), image);
    }

    #[test]
    fn what_is_no_file_of_state_is_an_error(mut bytes in vec(any::<u8>(), 0..200)) {
        prop_assert!(decode("f", &bytes).is_err());
        // The same behind the right first bytes and before the right last ones.
        bytes.splice(0..0, MAGIC);
        bytes.extend(END);
        prop_assert!(decode("f", &bytes).is_err());
    }
}

fn small() -> SubtaskImage {
    let group = |group| GroupImage {
        group,
        entries: 2,
        bytes: vec![group as u8; 9].into(),
    };
    let state = |name: &str, kind, data| StateImage {
        name: name.to_owned(),
        kind,
        key_type: "u64".to_owned(),
        value_type: "i32".to_owned(),
        data,
    };
    SubtaskImage {
        barrier: Barrier::checkpoint(7),
        task: 1,
        subtask: 0,
        operators: vec![OperatorImage {
            uid: "count".to_owned(),
            name: "count by user".to_owned(),
            max_parallelism: 128,
            parallelism: 1,
            watermark: Timestamp(5),
            states: vec![
                state(
                    "counts",
                    StateKind::Keyed,
                    StateData::Groups(vec![group(3), group(90)]),
                ),
                state(
                    "splits",
                    StateKind::List,
                    StateData::Elements(vec![vec![1, 2], vec![]]),
                ),
            ],
        }],
        timing: Timing::default(),
        positions: Vec::new(),
    }
}

fn error(bytes: &[u8]) -> String {
    decode("chk-7/f", bytes).expect_err("damaged").to_string()
}

#[test]
fn every_flipped_bit_and_every_changed_byte_is_found() {
    let good = written(&small()).1;
    for at in 0..good.len() {
        for change in 1..=255 {
            let mut bytes = good.clone();
            bytes[at] ^= change;
            assert!(decode("f", &bytes).is_err(), "byte {at} xor {change:#x}");
        }
    }
}

#[test]
fn every_length_but_the_right_one_is_found() {
    let good = written(&small()).1;
    for length in 0..good.len() {
        assert!(decode("f", &good[..length]).is_err(), "{length} bytes");
        assert!(decode("f", &good[good.len() - length..]).is_err());
    }
    for extra in [&b"\0"[..], &END] {
        assert!(decode("f", &[&good, extra].concat()).is_err());
    }
}

#[test]
fn an_error_names_the_file_and_the_section() {
    let good = written(&small()).1;
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        error(&bytes)
    };
    let found = flipped(HEADER + 9);
    let expected = "chk-7/f is damaged (operator 'count', state 'counts', key group 90): ";
    assert!(found.starts_with(expected), "{found}");
    let found = flipped(HEADER + 18);
    assert!(found.contains("operator 'count', state 'splits')"));
    assert!(flipped(good.len() - TRAILER - 1).contains("(the index)"));
    assert!(flipped(8).contains("its beginning or end"));
    assert!(error(&good[..good.len() - 1]).contains("(the end): it is cut off"));
}

/// An index that was made to lie, with checksums that fit the lie.
fn forged(change: impl FnOnce(&mut SubtaskIndex)) -> String {
    let image = small();
    let (known, good) = written(&image);
    let mut index = known.index;
    let old = codec::encode(&index).expect("encodes").len();
    change(&mut index);
    let index = codec::encode(&index).expect("encodes");
    let mut bytes = good[..good.len() - TRAILER - old].to_vec();
    bytes.extend(&index);
    bytes.extend((index.len() as u64).to_le_bytes());
    bytes.extend(Checksum::of(&index).0.to_le_bytes());
    bytes.extend(Checksum::of(&bytes).0.to_le_bytes());
    bytes.extend(END);
    error(&bytes)
}

fn first_group(index: &mut SubtaskIndex) -> &mut GroupIndex {
    match &mut index.operators[0].states[0].data {
        DataIndex::Groups(groups) => &mut groups[0],
        _ => panic!("the first state is keyed"),
    }
}

#[test]
fn a_length_or_place_that_lies_is_found_before_it_is_believed() {
    let impossible = "puts it where it can't be";
    for (offset, length) in [(12, u64::MAX), (12, 1 << 40), (13, 9), (u64::MAX, 9)] {
        let found = forged(|index| {
            let section = &mut first_group(index).section;
            (section.offset, section.length) = (offset, length);
        });
        assert!(found.contains(impossible), "{found}");
    }
    let found = forged(|index| drop(index.operators.pop()));
    assert!(found.contains("bytes belong to no section"), "{found}");
    let found = forged(|index| {
        let data = &mut index.operators[0].states[1].data;
        if let DataIndex::Elements { count, .. } = data {
            *count = u64::MAX;
        }
    });
    assert!(found.contains("don't add up"), "{found}");
}

#[test]
fn a_later_format_is_told_from_damage() {
    let mut bytes = written(&small()).1;
    bytes[8] = FORMAT as u8 + 1;
    let end = bytes.len() - 16;
    let sum = Checksum::of(&bytes[..end]).0.to_le_bytes();
    bytes[end..end + 8].copy_from_slice(&sum);
    assert!(error(&bytes).contains("written in format 3"));
}
