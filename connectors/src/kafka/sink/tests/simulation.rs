//! The rules of exactly-once against a broker that crashes processes between any two requests, loses answers,
//! applies requests late and wakes zombies. A seed tells it all.

use super::committable::{About, Committable, HEADER, Owner, Segment, Segments};
use super::committer::Committer;
use super::protocol::{Broker, Instance, Marker, Markers, Trouble};
use super::record::{Frames, KafkaRecord};
use super::takeover::Takeover;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use tidegate_engine::fault::{Fault, FaultKind, Flow};

const KEYS: u32 = 6;

/// What each key counts up to.
const NUMBERS: u32 = 60;

struct Dice(Cell<u64>);

impl Dice {
    fn below(&self, n: u64) -> u64 {
        let mut x = self.0.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.0.set(x);
        (x >> 11) % n
    }
}

struct Open {
    epoch: u64,
    records: Vec<(u32, u32)>,
    marker: Option<Marker>,
}

/// What Kafka holds.
#[derive(Default)]
pub(super) struct Kafka {
    epochs: BTreeMap<u32, u64>,
    open: BTreeMap<u32, Open>,
    pub(super) markers: Markers,
    /// Committed: key and number.
    pub(super) log: Vec<(u32, u32)>,
    /// Commits that were sent and may arrive at any time.
    late: Vec<(u32, u64)>,
}

impl Kafka {
    /// Ends a transaction; false where the epoch is an old one.
    fn end(&mut self, slot: u32, epoch: u64) -> bool {
        let current = self.open.get(&slot).is_some_and(|open| open.epoch == epoch);
        if current && let Some(open) = self.open.remove(&slot) {
            self.log.extend(open.records);
            self.markers
                .extend(open.marker.map(|marker| (slot, marker)));
        }
        current
    }
}

/// The newest complete checkpoint.
#[derive(Clone, Default)]
pub(super) struct Checkpoint {
    pub(super) id: u64,
    /// The next number of each key.
    positions: BTreeMap<u32, u32>,
    committables: Vec<Vec<u8>>,
    /// What they were too large for.
    files: Disk,
}

/// Segments by their names: those of one process, or copies of them in a checkpoint.
#[derive(Clone, Default)]
pub(super) struct Disk(BTreeMap<String, Vec<u8>>);

impl Segments for Disk {
    fn read(&self, name: &str) -> Flow<Vec<u8>> {
        let found = self.0.get(name).cloned();
        found.ok_or_else(|| Fault::user(format_args!("'{name}' is lost")))
    }
}

type Interruption = Box<dyn FnOnce(Rc<World>)>;

pub(super) struct World {
    pub(super) kafka: RefCell<Kafka>,
    dice: Dice,
    pub(super) latest: RefCell<Option<Checkpoint>>,
    next_id: Cell<u64>,
    /// The number of the youngest process: an older one can't complete checkpoints.
    pub(super) youngest: Cell<u64>,
    /// Requests until another process is started, while the one that makes them hangs.
    pub(super) interruption: RefCell<Option<(u32, Interruption)>>,
    /// No more trouble.
    pub(super) calm: Cell<bool>,
}

/// One process.
pub(super) struct Process {
    pub(super) world: Rc<World>,
    pub(super) number: u64,
    /// Requests until it dies.
    pub(super) dies_in: Cell<u32>,
}

fn dead() -> Trouble {
    Trouble::Fatal(Fault::internal("the process is dead"))
}

impl Process {
    /// Something happens before or after a request.
    fn moment(&self) -> Result<(), Trouble> {
        let world = &self.world;
        let due = {
            let mut interruption = world.interruption.borrow_mut();
            match &mut *interruption {
                Some((0, _)) => interruption.take(),
                Some((left, _)) => {
                    *left -= 1;
                    None
                }
                None => None,
            }
        };
        if let Some((_, run)) = due {
            run(world.clone());
        }
        if !world.kafka.borrow().late.is_empty() && world.dice.below(3) == 0 {
            let (slot, epoch) = world.kafka.borrow_mut().late.remove(0);
            world.kafka.borrow_mut().end(slot, epoch);
        }
        self.dies_in.set(self.dies_in.get().saturating_sub(1));
        if self.dies_in.get() == 0 && !world.calm.get() {
            return Err(dead());
        }
        Ok(())
    }

    /// A request: it may have its effect and no answer, or neither.
    fn request<R>(
        &self,
        effect: impl FnOnce(&mut Kafka) -> Result<R, Trouble>,
    ) -> Result<R, Trouble> {
        self.moment()?;
        let lost = !self.world.calm.get() && self.world.dice.below(25) == 0;
        if lost && self.world.dice.below(2) == 0 {
            return Err(Trouble::Unsure("the request was lost".into()));
        }
        let done = effect(&mut self.world.kafka.borrow_mut());
        self.moment()?;
        if lost {
            Err(Trouble::Unsure("the answer was lost".into()))
        } else {
            done
        }
    }
}

impl Broker for Rc<Process> {
    type Instance = FakeInstance;

    fn fence(&self, slot: u32) -> Result<FakeInstance, Trouble> {
        let epoch = self.request(|kafka| {
            kafka.open.remove(&slot);
            let epoch = kafka.epochs.entry(slot).or_default();
            *epoch += 1;
            Ok(*epoch)
        })?;
        Ok(FakeInstance {
            process: self.clone(),
            slot,
            epoch,
        })
    }

    fn glance(&self) -> Result<(BTreeSet<u32>, Markers), Trouble> {
        self.request(|kafka| {
            Ok((
                kafka.epochs.keys().copied().collect(),
                kafka.markers.clone(),
            ))
        })
    }

    fn markers(&self) -> Result<Markers, Trouble> {
        self.request(|kafka| Ok(kafka.markers.clone()))
    }

    fn pause(&self, tries: u32) -> bool {
        tries < 50
    }
}

pub(super) struct FakeInstance {
    process: Rc<Process>,
    slot: u32,
    epoch: u64,
}

impl FakeInstance {
    fn in_epoch<R>(&self, effect: impl FnOnce(&mut Kafka) -> R) -> Result<R, Trouble> {
        self.process.request(|kafka| {
            if kafka.epochs.get(&self.slot) == Some(&self.epoch) {
                Ok(effect(kafka))
            } else {
                Err(Trouble::Unsure("fenced".into()))
            }
        })
    }
}

impl Instance for FakeInstance {
    fn begin(&mut self) -> Result<(), Trouble> {
        let open = Open {
            epoch: self.epoch,
            records: Vec::new(),
            marker: None,
        };
        self.in_epoch(|kafka| drop(kafka.open.insert(self.slot, open)))
    }

    fn produce(&mut self, segment: &[u8]) -> Result<(), Trouble> {
        for frame in Frames::new(segment) {
            let frame = frame?;
            let number =
                |bytes: Option<&[u8]>| bytes.map(|b| u32::from_le_bytes(b.try_into().unwrap()));
            let record = (number(frame.key).unwrap(), number(frame.value).unwrap());
            self.in_epoch(|kafka| {
                kafka
                    .open
                    .get_mut(&self.slot)
                    .expect("it was begun")
                    .records
                    .push(record);
            })?;
        }
        Ok(())
    }

    fn mark(&mut self, marker: &Marker) -> Result<(), Trouble> {
        self.in_epoch(|kafka| {
            kafka.open.get_mut(&self.slot).expect("it was begun").marker = Some(marker.clone());
        })
    }

    fn commit(self) -> Result<(), Trouble> {
        if !self.process.world.calm.get() && self.process.world.dice.below(12) == 0 {
            self.process
                .world
                .kafka
                .borrow_mut()
                .late
                .push((self.slot, self.epoch));
            return Err(Trouble::Unsure("no answer yet".into()));
        }
        let ended = self.in_epoch(|kafka| kafka.end(self.slot, self.epoch))?;
        if ended {
            Ok(())
        } else {
            Err(Trouble::Unsure("the transaction is gone".into()))
        }
    }
}

/// What one subtask wrote since the last checkpoint, now and then on disk; `None` where it wrote nothing.
fn epoch(
    process: &Process,
    disk: &mut Disk,
    parallelism: u32,
    mut about: About,
    positions: &mut BTreeMap<u32, u32>,
) -> Option<Vec<u8>> {
    let (mut bytes, mut record, mut count) = (Committable::buffer(), KafkaRecord::default(), 0);
    let (mut segments, spills) = (Vec::new(), process.world.dice.below(2) == 0);
    for key in (0..KEYS).filter(|key| key % parallelism == about.slot) {
        let next = positions.entry(key).or_default();
        for _ in 0..process.world.dice.below(4) {
            if *next < NUMBERS {
                record.clear();
                record.key().extend(key.to_le_bytes());
                record.value().extend(next.to_le_bytes());
                record.write(&mut bytes);
                *next += 1;
                count += 1;
            }
            if spills && bytes.len() > HEADER && process.world.dice.below(2) == 0 {
                let records =
                    std::mem::replace(&mut bytes, Committable::buffer()).split_off(HEADER);
                let name = about.segment(segments.len());
                segments.push(Segment::of(&records));
                disk.0.insert(name, records);
            }
        }
    }
    about.records = count;
    (count > 0).then(|| Committable::close(bytes, about, &segments))
}

/// A life of the job: to its end, or to its death.
fn life(world: &Rc<World>, parallelism: u32, dies_in: u32) -> Flow {
    let number = world.youngest.get() + 1;
    world.youngest.set(number);
    let process = Process {
        world: world.clone(),
        number,
        dies_in: Cell::new(dies_in),
    };
    let process = Rc::new(process);
    let latest = world.latest.borrow().clone();
    let restored = latest.as_ref().map(|checkpoint| checkpoint.id);
    let latest = latest.unwrap_or_default();
    let committables = latest.committables.into_iter().map(Committable::decode);
    let committables = committables.collect::<Flow<Vec<_>>>()?;
    let owner = Owner(number);
    Takeover::new(owner, parallelism, restored, committables).run(&process, &latest.files)?;
    let mut disk = Disk::default();
    let mut positions = latest.positions;
    let mut committers: Vec<_> = (0..parallelism)
        .map(|slot| Committer::new(process.clone(), slot, owner))
        .collect();
    // What each subtask prepared and has not seen committed.
    let mut open: Vec<Vec<(u64, Vec<u8>)>> = vec![Vec::new(); parallelism as usize];
    loop {
        let id = world.next_id.get();
        world.next_id.set(id + 1);
        for slot in 0..parallelism {
            let about = About {
                slot,
                checkpoint: id,
                owner,
                records: 0,
            };
            let bytes = epoch(&process, &mut disk, parallelism, about, &mut positions);
            open[slot as usize].extend(bytes.map(|bytes| (id, bytes)));
            if world.dice.below(2) == 0 {
                committers[slot as usize].warm_up()?;
            }
        }
        let ended =
            positions.len() == KEYS as usize && positions.values().all(|next| *next == NUMBERS);
        // A checkpoint may be given up; what it was to cover goes with the next one.
        if process.number < world.youngest.get() || (!ended && world.dice.below(5) == 0) {
            if process.number < world.youngest.get() && world.dice.below(4) == 0 {
                return Ok(());
            }
            continue;
        }
        let saved: Vec<Vec<u8>> = open.iter().flatten().map(|(_, b)| b.clone()).collect();
        let mut files = Disk::default();
        for bytes in &saved {
            for name in Committable::decode(bytes.clone())?.segments() {
                files.0.insert(name.clone(), disk.read(&name)?);
            }
        }
        let checkpoint = Checkpoint {
            id,
            positions: positions.clone(),
            committables: saved,
            files,
        };
        *world.latest.borrow_mut() = Some(checkpoint);
        for (committer, open) in committers.iter_mut().zip(&mut open) {
            let all = open
                .iter()
                .map(|(_, bytes)| Committable::decode(bytes.clone()));
            let all = all.collect::<Flow<Vec<_>>>()?;
            // Each by itself, or several at once.
            let most = 1 + world.dice.below(3) as usize;
            for some in all.chunks(most) {
                committer.commit(some, &disk)?;
            }
            // That it is done may not be known in time for the next checkpoint.
            if world.dice.below(4) > 0 {
                open.clear();
            }
        }
        if ended {
            return Ok(());
        }
    }
}

pub(super) fn simulate(seed: u64) -> Rc<World> {
    let world = Rc::new(World {
        kafka: RefCell::default(),
        dice: Dice(Cell::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)),
        latest: RefCell::default(),
        next_id: Cell::new(1),
        youngest: Cell::new(0),
        interruption: RefCell::default(),
        calm: Cell::new(false),
    });
    for _ in 0..12 {
        if world.dice.below(3) == 0 {
            let (after, parallelism) = (
                1 + world.dice.below(120) as u32,
                1 + world.dice.below(4) as u32,
            );
            let dies_in = 20 + world.dice.below(300) as u32;
            let run: Interruption = Box::new(move |world| drop(life(&world, parallelism, dies_in)));
            *world.interruption.borrow_mut() = Some((after, run));
        }
        let (parallelism, dies_in) = (
            1 + world.dice.below(4) as u32,
            5 + world.dice.below(250) as u32,
        );
        if let Err(fault) = life(&world, parallelism, dies_in) {
            let expected = [FaultKind::Fenced, FaultKind::Internal, FaultKind::External];
            let stale = fault.message().contains("would be there twice");
            assert!(
                expected.contains(&fault.kind()) || stale,
                "seed {seed}: {fault}"
            );
        }
    }
    world.interruption.borrow_mut().take();
    world.calm.set(true);
    // A commit that came late looks like another run; a restart is what helps.
    let ended = (0..5)
        .map(|_| life(&world, 2, u32::MAX))
        .find(|life| !matches!(life, Err(f) if f.kind() == FaultKind::External));
    match ended {
        Some(Ok(())) => {}
        other => panic!("seed {seed}: {other:?}"),
    }
    world
}

#[test]
fn every_record_is_there_once_and_in_order_whatever_happens() {
    for seed in 1..=3000 {
        let world = simulate(seed);
        let kafka = world.kafka.borrow();
        for key in 0..KEYS {
            let numbers = kafka.log.iter().filter(|(k, _)| *k == key).map(|(_, n)| *n);
            assert!(
                numbers.clone().eq(0..NUMBERS),
                "seed {seed}, key {key}: {:?}",
                numbers.collect::<Vec<_>>()
            );
        }
        assert!(
            kafka.open.is_empty(),
            "seed {seed}: a transaction is left open"
        );
    }
}
