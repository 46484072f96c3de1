//! Process functions: user code that sees each record with its context, and keeps state and timers.
//!
//! A function is a prototype like any operator. What it needs at work (handles of state, side outputs)
//! is made in each subtask by its `open` and handed to each of its calls: nothing is ever unset.
//!
//! ```
//! use tidegate_engine::prelude::*;
//!
//! /// Emits the number of a key's records when none came for a minute.
//! #[derive(Clone)]
//! struct Quiet;
//!
//! struct Seen { count: ValueState<String, u64>, last: ValueState<String, Timestamp> }
//!
//! impl KeyedProcessFunction<String, String> for Quiet {
//!     type Out = (String, u64);
//!     type State = Seen;
//!
//!     fn open(&mut self, states: &mut KeyedStates<String>, _: &mut OpenContext<'_>) -> Flow<Seen> {
//!         Ok(Seen { count: states.value("count")?, last: states.value("last")? })
//!     }
//!
//!     fn process<C: Collector<Self::Out>>(
//!         &mut self,
//!         seen: &mut Seen,
//!         cx: &ProcessContext<'_, String>,
//!         _record: String,
//!         _out: &mut C,
//!     ) -> Flow {
//!         seen.count.update(cx, |n| *n += 1);
//!         seen.last.set(cx, cx.timestamp());
//!         cx.register_event_timer(cx.timestamp().plus(Duration::from_secs(60)));
//!         Ok(())
//!     }
//!
//!     fn on_timer<C: Collector<Self::Out>>(
//!         &mut self,
//!         seen: &mut Seen,
//!         cx: &TimerContext<'_, String>,
//!         at: Timestamp,
//!         out: &mut C,
//!     ) -> Flow {
//!         if seen.last.get(cx).is_some_and(|last| last.plus(Duration::from_secs(60)) <= at) {
//!             let count = seen.count.take(cx).unwrap_or_default();
//!             out.collect(at, (cx.key().clone(), count))?;
//!         }
//!         Ok(())
//!     }
//! }
//! ```

mod broadcast;
mod co;
mod context;
mod keyed;
mod plain;
mod timer_service;

pub use broadcast::{BroadcastProcessFunction, KeyedBroadcastProcessFunction};
pub use co::{CoProcess, CoProcessFunction};
pub use context::{BroadcastContext, ProcessContext, RecordContext, TimeDomain, TimerContext};
pub use keyed::KeyedProcessFunction;
pub use plain::ProcessFunction;
pub(crate) use timer_service::TimerService;
