//! Windows go on from a checkpoint, wherever it is taken and into however many subtasks, as if nothing
//! had happened.

use super::*;
use crate::exchange::{Either, Keyed};
use crate::graph::JobSettings;
use crate::hash::{key_group, key_hash, owner_of_group};
use crate::operator::Operator;
use crate::side::SideOutput;
use crate::testing::cut::{Case, Cuts, Numbered, Step, cuts, script};
use crate::testing::{Attempt, OperatorHarness};
use proptest::prelude::*;
use std::fmt::Debug;
use std::time::Duration;

type Met = Either<Numbered, Numbered>;
type All = AllWindows<Numbered, Places>;

fn ms(n: i64) -> Duration {
    Duration::from_millis(n as u64)
}

/// Which records are in a window.
#[derive(Clone)]
struct Places;

impl Aggregator<Numbered> for Places {
    type Acc = Vec<u32>;
    type Out = Vec<u32>;

    fn create(&self) -> Vec<u32> {
        Vec::new()
    }

    fn add(&self, acc: &mut Vec<u32>, record: Numbered) {
        acc.push(record.1);
    }

    fn merge(&self, into: &mut Vec<u32>, other: &Vec<u32>) {
        into.extend(other);
    }

    fn result(&self, acc: &Vec<u32>) -> Vec<u32> {
        let mut all = acc.clone();
        all.sort_unstable();
        all
    }
}

fn list(
    context: &WindowContext<'_, u8>,
    elements: &Elements<Numbered>,
    out: &mut WindowOutput<(u8, i64, Vec<u32>)>,
) {
    let places = elements.iter().map(|(_, record)| record.1).collect();
    out.emit((*context.key, context.window.end.0, places));
}

fn check<Op>(
    make: impl Fn(SideOutput<Numbered>) -> Op,
    script: &[Step<Numbered>],
    cuts: &Cuts,
) -> Result<(), TestCaseError>
where
    Op: Operator<Keyed<u8, Numbered>>,
    Op::Out: Ord + Debug,
{
    let tag = SideOutput::new("late");
    let case = Case {
        make: &|| make(tag.clone()),
        key: |record: &Numbered| record.0,
        tag: &tag,
    };
    case.holds(script, cuts)
}

fn check_general<As, Tr, Fun>(
    of: (As, Tr, Fun),
    lateness: i64,
    script: &[Step<Numbered>],
    cuts: &Cuts,
) -> Result<(), TestCaseError>
where
    As: WindowAssigner<Numbered>,
    Tr: Trigger<Numbered>,
    Fun: PaneFunction<u8, Numbered>,
    Fun::Out: Ord + Debug,
{
    let make = |tag| {
        let (assigner, trigger, function) = of.clone();
        GeneralWindows::new(assigner, trigger, function)
            .allowed_lateness(ms(lateness))
            .late_output(Some(tag))
    };
    check(make, script, cuts)
}

fn aligned(by_clock: bool, size: i64, slide: i64, offset: i64) -> Aligned {
    let (size, slide) = (ms(size), ms(slide.min(size)));
    let spec = if by_clock {
        Sliding::processing_time(size, slide)
    } else {
        Sliding::event_time(size, slide)
    };
    spec.offset_ms(offset)
}

fn owner(record: &Numbered, parallelism: u32) -> u32 {
    let groups = JobSettings::default().max_parallelism;
    owner_of_group(key_group(key_hash(&record.0), groups), groups, parallelism)
}

proptest! {
    #[test]
    fn aligned_windows(
        script in script(), cuts in cuts(), by_clock: bool,
        size in 1i64..40, slide in 1i64..40, offset in -50i64..50, lateness in 0i64..30,
    ) {
        let make = |tag| {
            SlicedWindows::new(aligned(by_clock, size, slide, offset), Places)
                .allowed_lateness(ms(lateness))
                .late_output(Some(tag))
        };
        check(make, &script, &cuts)?;
    }

    #[test]
    fn sessions(
        script in script(), cuts in cuts(), by_clock: bool, gap in 1i64..30, lateness in 0i64..30,
    ) {
        let make = |tag| {
            let gap = move |record: &Numbered| ms(gap + i64::from(record.0 % 3));
            let spec = Session::dynamic(gap);
            let spec = if by_clock { spec.in_processing_time() } else { spec };
            SessionWindows::new(spec, Places).allowed_lateness(ms(lateness)).late_output(Some(tag))
        };
        check(make, &script, &cuts)?;
    }

    #[test]
    fn count_windows(script in script(), cuts in cuts(), size in 1u64..9, slide in 1u64..9) {
        let make = |_| CountWindows::new(CountWindow::sliding(size, slide), Places);
        check(make, &script, &cuts)?;
    }

    #[test]
    fn windows_with_triggers(
        script in script(), cuts in cuts(), by_clock: bool,
        size in 1i64..40, slide in 1i64..40, lateness in 0i64..30, every in 1i64..20,
    ) {
        let spec = aligned(by_clock, size, slide, 0);
        let aggregated = || Aggregated(Places);
        let trigger = ContinuousEventTimeTrigger::of(ms(every));
        check_general((spec, trigger, aggregated()), lateness, &script, &cuts)?;
        let trigger = ContinuousProcessingTimeTrigger::of(ms(every));
        check_general((spec, trigger, aggregated()), lateness, &script, &cuts)?;
        let trigger = PurgingTrigger::of(CountTrigger::new(every as u64 / 4 + 1));
        check_general((spec, trigger, aggregated()), lateness, &script, &cuts)?;
        let spec = Session::event_time(ms(size));
        let trigger = PurgingTrigger::of(CountTrigger::new(3));
        check_general((spec, trigger, aggregated()), lateness, &script, &cuts)?;
        let trigger = ContinuousEventTimeTrigger::of(ms(every));
        check_general((spec, trigger, aggregated()), lateness, &script, &cuts)?;
    }

    #[test]
    fn windows_with_evictors(
        script in script(), cuts in cuts(), size in 1i64..40, keep in 1usize..5,
    ) {
        let function = || Buffered::new(CountEvictor::new(keep).and_after(keep), ProcessFn::new(list));
        let trigger = CountTrigger::new(3);
        check_general((GlobalWindows, trigger, function()), 0, &script, &cuts)?;
        let delta = |a: &Numbered, b: &Numbered| f64::from(b.1) - f64::from(a.1);
        let trigger = DeltaTrigger::new(keep as f64 * 4.0, delta);
        check_general((GlobalWindows, trigger, function()), 0, &script, &cuts)?;
        let trigger = EventTimeTrigger::new();
        let function = Buffered::new(TimeEvictor::after(ms(size / 2)), ProcessFn::new(list));
        let spec = Session::event_time(ms(size));
        check_general((spec, trigger, function), 20, &script, &cuts)?;
    }

    #[test]
    fn groups_of_two_streams(
        script in script(), cuts in cuts(),
        size in 1i64..40, slide in 1i64..40, offset in -50i64..50, lateness in 0i64..30,
    ) {
        let script: Vec<Step<Met>> = script.into_iter().map(|step| step.map(either)).collect();
        let tag = SideOutput::new("late");
        let make = || {
            let group = |key: &u8, window: TimeWindow, a: &[Numbered], b: &[Numbered], out: &mut Vec<_>| {
                out.push((*key, window, a.to_vec(), b.to_vec()));
            };
            CoGroupWindows::new(aligned(false, size, slide, offset), Groups::new(group))
                .allowed_lateness(ms(lateness))
                .late_output(Some(tag.clone()))
        };
        let key = |record: &Met| match record {
            Either::First((key, _)) | Either::Second((key, _)) => *key,
        };
        Case { make: &make, key, tag: &tag }.holds(&script, &cuts)?;
    }

    #[test]
    fn windows_over_all_records(
        script in script(), at: prop::sample::Index, old in 1u32..4, new in 1u32..4, by_clock: bool,
        size in 1i64..40, slide in 1i64..40, offset in -50i64..50, lateness in 0i64..30,
    ) {
        let spec = aligned(by_clock, size, slide, offset);
        let at = at.index(script.len() + 1);
        let cut = run_all(spec, lateness, &script, Some((at, new)), old);
        prop_assert_eq!(cut, run_all(spec, lateness, &script, None, old));
    }

    /// Subtasks may differ in how far they have come; the later attempt begins with the least.
    #[test]
    fn no_window_fires_twice_where_subtasks_had_come_to_different_times(
        scripts in [script(), script()], tail in script(), parallelism in 1u32..4,
        size in 1i64..40, slide in 1i64..40, lateness in 0i64..2,
    ) {
        let make = || {
            SlicedWindows::new(aligned(false, size, slide, 0), Places).allowed_lateness(ms(20 * lateness))
        };
        let key = |record: &Numbered| record.0;
        let reached = scripts.iter().flatten().filter_map(|step| match step {
            Step::Watermark(at) => Some(*at),
            _ => None,
        });
        let reached = reached.max().unwrap_or(0);
        let play = |all: &mut Vec<OperatorHarness<_, _, _>>, me: Option<usize>, script: &[Step<Numbered>], by| {
            for step in script {
                match step {
                    Step::Record(at, record) => {
                        let owner = owner(record, all.len() as u32) as usize;
                        if me.is_none_or(|me| me == owner) {
                            all[owner].push(at + by, *record).expect("takes it");
                        }
                    }
                    Step::Watermark(at) => for (i, harness) in all.iter_mut().enumerate() {
                        if me.is_none_or(|me| me == i) {
                            harness.watermark(at + by).expect("fires");
                        }
                    },
                    Step::Advance(_) => {}
                }
            }
        };
        let run = |cut: bool| {
            let attempt = |me| Attempt::new().subtask(me, 2).keyed(make(), key).expect("begins");
            let mut all: Vec<_> = (0..2).map(attempt).collect();
            let mut emitted = Vec::new();
            for (me, script) in scripts.iter().enumerate() {
                play(&mut all, Some(me), script, 0);
            }
            if cut {
                let images = all.iter_mut().zip(0..).map(|(h, me)| (me, h.save().expect("saves")));
                let images: Vec<_> = images.collect();
                all.iter_mut().for_each(|h| emitted.extend(h.records()));
                let attempt = |me| {
                    let attempt = Attempt::new().subtask(me, parallelism).restored(images.clone());
                    attempt.keyed(make(), key).expect("begins")
                };
                all = (0..parallelism).map(attempt).collect();
            }
            play(&mut all, None, &[Step::Watermark(reached)], 0);
            play(&mut all, None, &tail, reached + 25);
            for harness in &mut all {
                harness.end().expect("ends");
                emitted.extend(harness.records());
            }
            emitted.sort_unstable();
            emitted
        };
        prop_assert_eq!(run(true), run(false));
    }
}

fn either(record: Numbered) -> Met {
    if record.1.is_multiple_of(2) {
        Either::First(record)
    } else {
        Either::Second(record)
    }
}

/// Both phases of windows over all records, the first in several subtasks, `cut` at a place into so
/// many: the results, and how many records were late.
fn run_all(
    spec: Aligned,
    lateness: i64,
    script: &[Step<Numbered>],
    cut: Option<(usize, u32)>,
    parallelism: u32,
) -> (Vec<Windowed<(), Vec<u32>>>, u64) {
    let local = || LocalSlices::new(spec, Places, ms(lateness), true);
    let merge = || -> All { AllWindows::new(spec, Places, ms(lateness), None) };
    let begin = |me, parallelism| Attempt::new().subtask(me, parallelism);
    let mut locals: Vec<_> = (0..parallelism)
        .map(|me| begin(me, parallelism).plain(local()).expect("begins"))
        .collect();
    let mut merged = begin(0, 1).plain(merge()).expect("begins");
    let (mut now, mut results, mut late) = (0, Vec::new(), 0);
    let count = |locals: &[OperatorHarness<_, _, LocalSlices<_, _>>]| -> u64 {
        let late = locals
            .iter()
            .map(|h| h.stats().late.load(std::sync::atomic::Ordering::Relaxed));
        late.sum()
    };
    for (place, step) in script
        .iter()
        .chain([&Step::Watermark(i64::MAX)])
        .enumerate()
    {
        if let Some((_, parallelism)) = cut.filter(|(at, _)| *at == place) {
            let saved = locals
                .iter_mut()
                .zip(0..)
                .map(|(h, me)| (me, h.save().expect("saves")));
            let (saved, last) = (
                saved.collect::<Vec<_>>(),
                vec![(0, merged.save().expect("saves"))],
            );
            late += count(&locals);
            results.extend(merged.values());
            let again = |me| begin(me, parallelism).at(now).restored(saved.clone());
            locals = (0..parallelism)
                .map(|me| again(me).plain(local()).expect("begins"))
                .collect();
            merged = begin(0, 1)
                .at(now)
                .restored(last)
                .plain(merge())
                .expect("begins");
        }
        match step {
            Step::Record(at, record) => {
                let subtask = record.1 as usize % locals.len();
                locals[subtask].push(*at, *record).expect("takes it");
            }
            Step::Watermark(at) => locals
                .iter_mut()
                .for_each(|h| h.watermark(*at).expect("ships")),
            Step::Advance(by) => {
                now += *by as i64;
                merged.advance(Duration::from_millis(*by)).expect("fires");
            }
        }
        for local in &mut locals {
            for (at, part) in local.records() {
                merged.push(at.0, part).expect("merges");
            }
        }
        if let Step::Watermark(at) = step {
            merged.watermark(*at).expect("fires");
        }
    }
    results.extend(merged.values());
    results.sort_unstable();
    (results, late + count(&locals))
}
