//! Whatever the parallelism was and is: what was saved is dealt out once, and to whom it belongs.

use super::*;
use crate::checkpoint::image::GroupImage;
use crate::checkpoint::shared::FilesIndex;
use proptest::prelude::*;

fn state(name: &str, kind: StateKind, data: StateData) -> StateImage {
    StateImage {
        name: name.to_owned(),
        kind,
        key_type: if kind == StateKind::Keyed { "u64" } else { "" }.to_owned(),
        value_type: "u64".to_owned(),
        data,
    }
}

/// What subtask `me` of `parallelism` saves: its key groups as entries and as files, and two elements.
fn saved(me: u32, parallelism: u32, max_parallelism: u32) -> OperatorImage {
    let mine =
        (0..max_parallelism).filter(|g| owner_of_group(*g, max_parallelism, parallelism) == me);
    let mine: Vec<u32> = mine.collect();
    let group = |group: &u32| GroupImage {
        group: *group,
        entries: 1,
        bytes: group.to_le_bytes().to_vec().into(),
    };
    let files = FilesImage {
        index: FilesIndex {
            format: "map".to_owned(),
            groups: mine.first().copied().zip(mine.last().copied()),
            entries: mine.len() as u64,
            files: Vec::new(),
        },
        manifest: me.to_le_bytes().to_vec(),
        local: Default::default(),
    };
    let elements = || vec![vec![me as u8, 0], vec![me as u8, 1]];
    OperatorImage {
        uid: "uid".to_owned(),
        name: "name".to_owned(),
        max_parallelism,
        parallelism,
        watermark: Timestamp(i64::from(me)),
        states: vec![
            state(
                "keyed",
                StateKind::Keyed,
                StateData::Groups(mine.iter().map(group).collect()),
            ),
            state("files", StateKind::Keyed, StateData::Files(files)),
            state("list", StateKind::List, StateData::Elements(elements())),
            state("union", StateKind::Union, StateData::Elements(elements())),
        ],
    }
}

proptest! {
    /// From any parallelism to any other, up to the number of key groups: each key group and each element of a list
    /// goes to one subtask, and files to all that own some of their groups.
    #[test]
    fn whatever_the_parallelism_was_and_is_everything_is_dealt_out_once(
        (max, old, new) in (1..200u32).prop_flat_map(|max| {
            let any = || prop_oneof![1 => Just(max), 1 => Just(1), 4 => 1..=max];
            (Just(max), any(), any())
        }),
    ) {
        let images = (0..old).map(|me| (me, saved(me, old, max)));
        let job = RestoredJob::new(CheckpointId(1), images);
        let (mut groups, mut elements) = (Vec::new(), Vec::new());
        for me in 0..new {
            let mut mine = job.operator("uid", me, new, max).expect("fits").expect("was saved");
            prop_assert_eq!(mine.watermark(), Timestamp(0));
            prop_assert_eq!(mine.rescaled_from(), (old != new).then_some(old));
            let own = mine.groups("keyed", ("u64", "u64")).expect("of these types");
            for group in own {
                prop_assert_eq!(owner_of_group(group.group, max, new), me);
                let bytes = mine.read(group).expect("is here");
                prop_assert_eq!(&*bytes, &group.group.to_le_bytes()[..]);
                groups.push(group.group);
            }
            let of_files = mine.files("files").expect("there are as many groups as subtasks");
            let from: Vec<u32> = of_files.images.iter().map(|image| image.manifest[0].into()).collect();
            let needed = (0..max).filter(|g| owner_of_group(*g, max, new) == me);
            for group in needed {
                prop_assert!(from.contains(&owner_of_group(group, max, old)));
                prop_assert!(of_files.groups.contains(&group));
            }
            let list = mine.elements("list", StateKind::List, "u64").expect("a list");
            elements.extend(list.into_iter().map(<[u8]>::to_vec));
            let union = mine.elements("union", StateKind::Union, "u64").expect("a union");
            prop_assert_eq!(union.len() as u32, old * 2);
        }
        groups.sort_unstable();
        prop_assert_eq!(groups, (0..max).collect::<Vec<_>>());
        elements.sort_unstable();
        let all: Vec<Vec<u8>> = (0..old).flat_map(|me| [vec![me as u8, 0], vec![me as u8, 1]]).collect();
        prop_assert_eq!(elements, all);
    }
}

#[test]
fn the_advice_for_a_changed_type_fits_what_has_changed() {
    let refused = |name: &str| {
        let image = OperatorImage {
            name: name.to_owned(),
            ..saved(0, 1, 4)
        };
        let job = RestoredJob::new(CheckpointId(1), [(0, image)]);
        let share = job.operator("uid", 0, 1, 4).expect("it fits");
        let mut share = share.expect("there is one");
        let elements = share.elements("list", StateKind::List, "alloc::string::String");
        elements.expect_err("another type").to_string()
    };
    let of_state = refused("total");
    assert!(of_state.contains("declare a migration"), "{of_state}");
    let of_records = refused(IN_FLIGHT);
    assert!(!of_records.contains("migration"), "{of_records}");
    assert!(
        of_records.contains("a savepoint holds none"),
        "{of_records}"
    );
}
