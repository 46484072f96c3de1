//! How much of a job's memory is in use: its pooled segments, and the process as a whole.

use tidegate_engine::memory::MemoryManager;
use tidegate_engine::state::backing::StateMemory;

/// What is measured against what.
#[derive(Clone, Debug, Default)]
pub struct MemoryUse {
    /// The budget of pooled memory.
    pub budget: MemoryManager,
    /// The bytes that the process may have resident, if that is limited.
    pub resident_limit: Option<u64>,
    /// The memory of the tables whose state spills.
    pub state: Option<StateMemory>,
    /// The bytes that the process has resident when state that is in memory moves, if it ever does.
    pub state_moves_at: Option<u64>,
}

impl MemoryUse {
    /// Has state that is in memory move, once the process has become too large for that.
    pub fn watch_state(&self) {
        let (Some(state), Some(limit)) = (&self.state, self.state_moves_at) else {
            return;
        };
        if !state.is_short() && resident_bytes().is_some_and(|bytes| bytes > limit) {
            tracing::info!(limit, "the process has grown: state moves to RocksDB");
            state.run_short();
        }
    }

    /// The greatest share in use, 0 to 1: of the budget, of the resident limit, or of what the tables of
    /// state may use beyond theirs before they make a turn wait. Up to their limit they are meant to be full.
    pub fn share(&self) -> f64 {
        let figures = self.budget.stats();
        let pooled = figures.current_usage as f64 / figures.max_bytes.max(1) as f64;
        let resident = match (self.resident_limit, resident_bytes()) {
            (Some(limit), Some(bytes)) => bytes as f64 / limit.max(1) as f64,
            _ => 0.0,
        };
        let beyond = self.state.as_ref().map_or(0.0, |s| s.pressure() - 1.0);
        pooled.max(resident).max(beyond).min(1.0)
    }
}

/// The bytes of this process that are in memory; `None` where the system does not say.
pub fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let figure = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = figure.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// Half of the bytes that this process may have in memory: of the machine's, or of its control group's
/// limit. `None` where the system does not say.
pub fn half_of_what_there_is() -> Option<u64> {
    let number = |path: &str| {
        std::fs::read_to_string(path)
            .ok()?
            .trim()
            .parse::<u64>()
            .ok()
    };
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let total = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = total.trim().strip_suffix("kB")?.trim().parse().ok()?;
    let limits = [
        number("/sys/fs/cgroup/memory.max"),
        number("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        kib.checked_mul(1024),
    ];
    limits.into_iter().flatten().min().map(|bytes| bytes / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greater_share_counts() {
        let mut memory = MemoryUse {
            budget: MemoryManager::new(1 << 20),
            resident_limit: None,
            state: None,
            state_moves_at: None,
        };
        assert_eq!(memory.share(), 0.0);
        let _half = memory.budget.allocate(1 << 19).expect("within the budget");
        assert_eq!(memory.share(), 0.5);
        let resident = resident_bytes().expect("Linux says it");
        assert!(resident > 100_000, "{resident}");
        memory.resident_limit = Some(resident / 2);
        assert_eq!(memory.share(), 1.0);
        memory.resident_limit = None;
        let state = StateMemory::new(100);
        let mut tables = state.claim();
        memory.state = Some(state);
        tables.set(100);
        assert_eq!(memory.share(), 0.5, "full is as it should be");
        tables.set(180);
        assert_eq!(memory.share(), 0.8);
        let half = half_of_what_there_is().expect("Linux says it");
        assert!(half > resident / 2, "{half}");
        memory.state_moves_at = Some(u64::MAX);
        memory.watch_state();
        let short = |memory: &MemoryUse| memory.state.as_ref().is_some_and(StateMemory::is_short);
        assert!(!short(&memory));
        memory.state_moves_at = Some(1);
        memory.watch_state();
        assert!(short(&memory));
    }
}
