//! What a seed makes of a job: its steps, its input, its channels, and how much goes wrong.

use crate::network::Dice;
use std::time::Duration;
use tidegate_engine::checkpoint::{CheckpointMode, CheckpointSettings};
use tidegate_engine::exchange::ChannelSettings;

/// One step of a stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step {
    /// A running fold that minds the order.
    Fold,
    /// A running reduction that minds it too.
    Reduce,
    /// Counts how often each record came.
    Distinct,
    Tumbling,
    Sliding,
    Sessions,
    /// A keyed process with event timers.
    Stretches,
    /// Held until their time has come.
    Hold,
    /// Dealt out, held, dealt out again, without a boundary between.
    Deal,
    /// Copied to all, kept by one.
    Broadcast,
    /// An operator that begins an actor.
    Chain,
    /// An operator in an actor of its own.
    Alone,
    /// In two branches that unite again.
    Diamond,
    /// In two branches of one actor, one of which ends in a sink.
    Branch,
}

/// How two streams meet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Meeting {
    Union,
    Join,
    CoGroup,
    Interval,
}

/// How the stream ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ending {
    Plain,
    /// A keyed process with timers of both kinds.
    Parcels,
    /// In windows, while sources may be idle: what is late goes to another sink.
    Late,
    /// The same in sessions.
    LateSessions,
}

/// A job, what goes in, and in which surroundings.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    /// The lengths of the splits of each source.
    pub inputs: Vec<Vec<u64>>,
    pub pace: i64,
    pub jitter: i64,
    pub steps: [Vec<Step>; 3],
    pub meeting: Option<Meeting>,
    pub ending: Ending,
    /// Windows, gaps and stretches of time.
    pub size: i64,
    pub rekey: bool,
    pub channels: ChannelSettings,
    pub slice: usize,
    pub drift: Option<u64>,
    pub idle: Option<u64>,
    pub checkpoints: CheckpointSettings,
    pub crashes: usize,
    pub requests: u64,
}

const STEPS: [Step; 14] = [
    Step::Fold,
    Step::Reduce,
    Step::Distinct,
    Step::Tumbling,
    Step::Sliding,
    Step::Sessions,
    Step::Stretches,
    Step::Hold,
    Step::Deal,
    Step::Broadcast,
    Step::Chain,
    Step::Alone,
    Step::Diamond,
    Step::Branch,
];

/// Those of which each record comes out by itself.
const ONE_BY_ONE: [Step; 7] = [
    Step::Hold,
    Step::Deal,
    Step::Broadcast,
    Step::Chain,
    Step::Alone,
    Step::Diamond,
    Step::Branch,
];

fn steps(dice: &mut Dice, most: usize) -> Vec<Step> {
    let count = dice.roll(most + 1);
    let mut steps: Vec<Step> = Vec::new();
    for _ in 0..count {
        let step = STEPS[dice.roll(STEPS.len())];
        if step != Step::Diamond || !steps.contains(&step) {
            steps.push(step);
        }
    }
    steps
}

pub fn channels(dice: &mut Dice) -> ChannelSettings {
    let initial = 1 + dice.roll(15) as u32;
    ChannelSettings {
        initial_credits: initial,
        max_credits: initial * (1 + dice.roll(8) as u32),
        batch_records: 1 + dice.roll(23) as u32,
        flush_interval_ms: dice.roll(20) as u64,
        check_grammar: true,
        ..ChannelSettings::default()
    }
}

fn checkpoints(dice: &mut Dice) -> CheckpointSettings {
    let ms = |n: usize| Duration::from_millis(n as u64);
    CheckpointSettings {
        interval: (dice.roll(12) > 0).then(|| ms(5 + dice.roll(80))),
        timeout: ms(60 + dice.roll(60) * dice.roll(60)),
        min_pause: (dice.roll(2) == 0).then(|| ms(dice.roll(30))),
        max_concurrent: 1 + dice.roll(2) as u32,
        tolerable_failures: dice.roll(8) as u32,
        retained: 1 + dice.roll(3) as u32,
        ..CheckpointSettings::default()
    }
}

impl Plan {
    pub fn new(seed: u64) -> Self {
        let mut dice = Dice(seed.wrapping_mul(0x9E6C_63D0_876A_4F21) ^ 0x51);
        let dice = &mut dice;
        let meeting = [
            Meeting::Union,
            Meeting::Join,
            Meeting::CoGroup,
            Meeting::Interval,
        ];
        let meeting = (dice.roll(2) == 0).then(|| meeting[dice.roll(4)]);
        let ending = [Ending::Late, Ending::LateSessions, Ending::Parcels];
        let ending = ending.get(dice.roll(8)).copied().unwrap_or(Ending::Plain);
        let late = matches!(ending, Ending::Late | Ending::LateSessions);
        let meeting = if late {
            meeting.map(|_| Meeting::Union)
        } else {
            meeting
        };
        let sources = 1 + usize::from(meeting.is_some());
        let inputs = (0..sources).map(|_| {
            let splits = 1 + dice.roll(5);
            (0..splits).map(|_| dice.roll(80) as u64).collect()
        });
        let inputs = inputs.collect();
        let some = |dice: &mut Dice, most| if late { Vec::new() } else { steps(dice, most) };
        let plan = Plan {
            seed,
            inputs,
            pace: 1 + dice.roll(6) as i64,
            jitter: dice.roll(10) as i64,
            steps: [some(dice, 3), some(dice, 2), some(dice, 3)],
            meeting,
            ending,
            size: 4 + dice.roll(60) as i64,
            rekey: dice.roll(3) == 0,
            channels: channels(dice),
            slice: 1 + dice.roll(40),
            drift: (dice.roll(4) == 0).then(|| dice.roll(200) as u64),
            idle: (late && dice.roll(2) == 0).then(|| 1 + dice.roll(25) as u64),
            checkpoints: checkpoints(dice),
            crashes: dice.roll(7),
            requests: dice.roll(4) as u64,
        };
        if dice.roll(6) == 0 {
            plan.at_least_once()
        } else if dice.roll(2) == 0 {
            let after = [0, dice.roll(60)][dice.roll(2)];
            plan.unaligned(Duration::from_millis(after as u64))
        } else {
            plan
        }
    }

    /// The same with barriers that overtake, at once or when it takes too long.
    fn unaligned(mut self, after: Duration) -> Self {
        self.checkpoints.unaligned = true;
        self.checkpoints.aligned_timeout = after;
        self.checkpoints.max_concurrent = 1;
        self
    }

    /// The same where records may count twice after a recovery, with nothing that puts several into one.
    fn at_least_once(mut self) -> Self {
        self.checkpoints.mode = CheckpointMode::AtLeastOnce;
        self.meeting = self.meeting.map(|_| Meeting::Union);
        self.ending = Ending::Plain;
        for steps in &mut self.steps {
            steps.retain(|step| ONE_BY_ONE.contains(step));
        }
        self
    }

    /// Whether records may count twice after a recovery.
    pub fn repeats(&self) -> bool {
        self.checkpoints.mode == CheckpointMode::AtLeastOnce
    }
}
