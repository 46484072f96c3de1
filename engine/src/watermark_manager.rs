//! Aligns event time across inputs known by name.
//!
//! Where a subtask counts its channels, people and configuration speak of `input-1`. The manager
//! maps names to the channels of a [`WatermarkFrontier`], which holds all the rules.

use crate::frontier::{FrontierChange, WatermarkFrontier};
use crate::time::Timestamp;
use std::collections::HashMap;

/// The combined watermark of named inputs.
///
/// ```
/// use tidegate_engine::time::Timestamp;
/// use tidegate_engine::watermark_manager::WatermarkManager;
///
/// let mut manager = WatermarkManager::new();
/// manager.register_input("input-1");
/// manager.register_input("input-2");
/// assert_eq!(manager.update_watermark("input-1", Timestamp(500)), None);
/// assert_eq!(manager.update_watermark("input-2", Timestamp(300)), Some(Timestamp(300)));
/// ```
#[derive(Debug, Clone)]
pub struct WatermarkManager {
    inputs: HashMap<String, usize>,
    frontier: WatermarkFrontier,
}

impl Default for WatermarkManager {
    fn default() -> Self {
        Self::new()
    }
}

impl WatermarkManager {
    /// A manager without inputs, at [`Timestamp::MIN`].
    pub fn new() -> Self {
        Self {
            inputs: HashMap::new(),
            frontier: WatermarkFrontier::new(0),
        }
    }

    /// Makes an input known, so that the others wait for its first watermark. Returns false if it
    /// was known already. Register every input before the first watermark arrives.
    pub fn register_input(&mut self, name: &str) -> bool {
        let known = self.inputs.len();
        self.index_or_register(name);
        self.inputs.len() > known
    }

    /// Takes the watermark of one input and returns the combined one if it advanced. An input not
    /// seen before is registered; an idle one becomes active; an ended one stays ended.
    pub fn update_watermark(&mut self, name: &str, watermark: Timestamp) -> Option<Timestamp> {
        let index = self.index_or_register(name);
        advanced(self.frontier.update(index, watermark))
    }

    /// Stops waiting for an input until its next watermark. Returns the combined watermark if it
    /// advanced by that. An unknown input changes nothing.
    pub fn mark_idle(&mut self, name: &str) -> Option<Timestamp> {
        let index = *self.inputs.get(name)?;
        advanced(self.frontier.idle(index))
    }

    /// Waits for an idle input again, at the watermark it had.
    pub fn mark_active(&mut self, name: &str) -> Option<Timestamp> {
        let index = *self.inputs.get(name)?;
        advanced(self.frontier.active(index))
    }

    /// Takes an input out for good. After the last one the combined watermark is
    /// [`Timestamp::MAX`]. An unknown input changes nothing.
    pub fn mark_ended(&mut self, name: &str) -> Option<Timestamp> {
        let index = *self.inputs.get(name)?;
        advanced(self.frontier.end(index))
    }

    /// The combined watermark; it never goes back.
    pub fn current(&self) -> Timestamp {
        self.frontier.current()
    }

    /// Whether every input that has not ended is idle.
    pub fn is_idle(&self) -> bool {
        self.frontier.is_idle()
    }

    /// The number of inputs ever registered.
    pub fn inputs(&self) -> usize {
        self.inputs.len()
    }

    fn index_or_register(&mut self, name: &str) -> usize {
        if let Some(&index) = self.inputs.get(name) {
            return index;
        }
        let index = self.frontier.add_channel();
        self.inputs.insert(name.to_owned(), index);
        index
    }
}

fn advanced(change: Option<FrontierChange>) -> Option<Timestamp> {
    match change {
        Some(FrontierChange::Advanced(to)) => Some(to),
        Some(FrontierChange::Idle | FrontierChange::Active) | None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_for_every_registered_input() {
        let mut m = WatermarkManager::new();
        assert!(m.register_input("input-1"));
        assert!(m.register_input("input-2"));
        assert!(!m.register_input("input-2"));
        assert_eq!(m.update_watermark("input-1", Timestamp(9)), None);
        assert_eq!(m.current(), Timestamp::MIN);
        assert_eq!(
            m.update_watermark("input-2", Timestamp(4)),
            Some(Timestamp(4))
        );
    }

    #[test]
    fn idleness_releases_and_return_does_not_pull_back() {
        let mut m = WatermarkManager::new();
        m.register_input("a");
        m.register_input("b");
        m.update_watermark("a", Timestamp(100));
        assert_eq!(m.mark_idle("b"), Some(Timestamp(100)));
        assert_eq!(m.update_watermark("b", Timestamp(1)), None);
        assert_eq!(m.current(), Timestamp(100));
        assert_eq!(m.mark_idle("a"), None);
        assert_eq!(m.mark_idle("b"), None);
        assert!(m.is_idle());
        assert_eq!(m.mark_active("a"), None);
        assert!(!m.is_idle());
    }

    #[test]
    fn ends_with_the_last_input() {
        let mut m = WatermarkManager::default();
        assert_eq!(m.update_watermark("a", Timestamp(1)), Some(Timestamp(1)));
        assert_eq!(m.mark_idle("never-seen"), None);
        assert_eq!(m.mark_ended("never-seen"), None);
        assert_eq!(m.mark_ended("a"), Some(Timestamp::MAX));
        assert_eq!(m.update_watermark("a", Timestamp(2)), None);
        assert_eq!(m.inputs(), 1);
    }
}
