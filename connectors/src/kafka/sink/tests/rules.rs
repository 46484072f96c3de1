//! Rules of exactly-once that hold at one moment: what a takeover refuses, and who has been taken over from.

use super::committable::{About, Committable, Owner};
use super::committer::Committer;
use super::protocol::Marker;
use super::record::KafkaRecord;
use super::simulation::{Disk, Process, World, simulate};
use super::takeover::Takeover;
use std::cell::Cell;
use std::rc::Rc;
use tidegate_engine::fault::FaultKind;

fn calm_world() -> Rc<World> {
    let world = simulate(7);
    world.calm.set(true);
    world
}

fn process(world: &Rc<World>) -> Rc<Process> {
    let number = world.youngest.get() + 1;
    world.youngest.set(number);
    Rc::new(Process {
        world: world.clone(),
        number,
        dies_in: Cell::new(u32::MAX),
    })
}

fn committable(slot: u32, checkpoint: u64, owner: u64) -> Committable {
    let mut bytes = Committable::buffer();
    let mut record = KafkaRecord::default();
    record.key().extend(99u32.to_le_bytes());
    record.value().extend(1u32.to_le_bytes());
    record.write(&mut bytes);
    let about = About {
        slot,
        checkpoint,
        owner: Owner(owner),
        records: 1,
    };
    Committable::decode(Committable::close(bytes, about, &[])).unwrap()
}

#[test]
fn an_older_checkpoint_is_refused_unless_allowed() {
    let world = calm_world();
    let newest = world.latest.borrow().as_ref().unwrap().id;
    let older = || Takeover::new(Owner(1000), 2, Some(newest - 1), Vec::new());
    let fault = older().run(&process(&world), &Disk::default()).unwrap_err();
    assert!(fault.message().contains("would be there twice"), "{fault}");
    older()
        .allow_reemit(true)
        .run(&process(&world), &Disk::default())
        .unwrap();
    assert_eq!(world.kafka.borrow().markers[&0].checkpoint, newest - 1);
}

/// An older run that still commits, at any moment of a takeover, doesn't end the new one for good: it begins again.
#[test]
fn a_takeover_that_an_older_run_commits_into_begins_again() {
    let mut again = 0;
    for (moment, reemits) in (0..24).flat_map(|moment| [(moment, false), (moment, true)]) {
        let world = calm_world();
        let newest = world.latest.borrow().as_ref().unwrap().id;
        let (old, new) = (process(&world), process(&world));
        Takeover::new(Owner(50), 2, Some(newest), Vec::new())
            .run(&old, &Disk::default())
            .unwrap();
        let commits = move |_| {
            let mut old = Committer::new(old, 1, Owner(50));
            drop(old.commit(&[committable(1, newest + 1, 50)], &Disk::default()));
        };
        *world.interruption.borrow_mut() = Some((moment, Box::new(commits)));
        let takes_over = |restored| {
            let takeover = Takeover::new(Owner(51), 2, Some(restored), Vec::new());
            let takeover = takeover.allow_reemit(reemits);
            takeover.run(&new, &Disk::default())
        };
        let Err(fault) = takes_over(newest) else {
            continue;
        };
        assert!(!reemits, "it may pass over what was committed: {fault}");
        let stale = fault.message().contains("would be there twice");
        assert!(
            fault.kind() == FaultKind::External || stale,
            "at moment {moment}: {fault}"
        );
        again += u32::from(!stale);
        takes_over(newest + 1).unwrap();
    }
    assert!(again > 0, "it comes in between");
}

/// As when somebody forgets to say that the job goes on from its checkpoint.
#[test]
fn a_start_from_scratch_over_what_is_committed_is_refused_unless_allowed() {
    let world = calm_world();
    let newest = world.latest.borrow().as_ref().unwrap().id;
    let scratch = || Takeover::new(Owner(1000), 2, None, Vec::new());
    let fault = scratch()
        .run(&process(&world), &Disk::default())
        .unwrap_err();
    let words = format!("up to checkpoint {newest} is in Kafka already");
    assert!(fault.message().contains(&words), "{fault}");
    let allowed = scratch().allow_reemit(true);
    allowed.run(&process(&world), &Disk::default()).unwrap();
    let marker = world.kafka.borrow().markers[&0].clone();
    assert_eq!((marker.checkpoint, marker.owner), (0, Owner(1000)));
    // What an attempt left that had not come to a checkpoint is none of that.
    let again = Takeover::new(Owner(1001), 2, None, Vec::new());
    again.run(&process(&world), &Disk::default()).unwrap();
}

#[test]
fn output_of_a_run_that_was_taken_over_from_is_refused() {
    let world = calm_world();
    let newest = world.latest.borrow().as_ref().unwrap().id;
    let strange = vec![committable(0, newest + 1, 12345)];
    let takeover = Takeover::new(Owner(1000), 2, Some(newest + 1), strange.clone());
    let fault = takeover
        .run(&process(&world), &Disk::default())
        .unwrap_err();
    assert!(fault.message().contains("taken over from since"), "{fault}");
    world.kafka.borrow_mut().markers.clear();
    let takeover = Takeover::new(Owner(1000), 2, Some(newest + 1), strange);
    let fault = takeover
        .run(&process(&world), &Disk::default())
        .unwrap_err();
    assert!(
        fault.message().contains("progress topic knows nothing"),
        "{fault}"
    );
    takeover
        .allow_reemit(true)
        .run(&process(&world), &Disk::default())
        .unwrap();
    assert_eq!(world.kafka.borrow().log.last(), Some(&(99, 1)));
}

#[test]
fn a_zombie_stops_at_once_and_a_marker_reads_as_it_was_written() {
    let world = calm_world();
    let (old, new) = (process(&world), process(&world));
    let newest = world.latest.borrow().as_ref().unwrap().id;
    Takeover::new(Owner(50), 1, Some(newest), Vec::new())
        .run(&old, &Disk::default())
        .unwrap();
    let mut zombie = Committer::new(old, 0, Owner(50));
    zombie.warm_up().unwrap();
    Takeover::new(Owner(51), 1, Some(newest), Vec::new())
        .run(&new, &Disk::default())
        .unwrap();
    let fault = zombie
        .commit(&[committable(0, newest + 1, 50)], &Disk::default())
        .unwrap_err();
    assert_eq!(fault.kind(), FaultKind::Fenced);
    Committer::new(new, 0, Owner(51))
        .commit(&[committable(0, newest + 1, 51)], &Disk::default())
        .unwrap();
    let marker = Marker::take_over(7, Owner(u64::MAX), &Marker::new(6, Owner(3)));
    assert_eq!(Marker::decode(&marker.encode().unwrap()), Ok(marker));
    assert!(Marker::decode(br#"{"checkpoint":7}"#).is_err());
    assert!(Marker::decode(b"\xff poison").is_err());
}
