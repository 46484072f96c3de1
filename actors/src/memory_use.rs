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
}

impl MemoryUse {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greater_share_counts() {
        let mut memory = MemoryUse {
            budget: MemoryManager::new(1 << 20),
            resident_limit: None,
            state: None,
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
    }
}
