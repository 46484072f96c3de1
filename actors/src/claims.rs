//! Whose a job's checkpoints are, where more than one process believes to run it: one that hung and comes back, or
//! one that was thought dead.
//!
//! A process claims the job's folder before it reads the newest checkpoint: `claims/<number>`, which only one process
//! can write. Before a checkpoint is published, and again before anybody is told of it, its process looks whether
//! there is a greater number. So after a claim an older process publishes one checkpoint at most, the one that was
//! under way; its files were there before the claim, and so the newer process has greater numbers for all of its
//! own: what it completes is newer. And nobody commits what that checkpoint covers, unless the newer process has
//! begun with it.

use std::sync::Arc;
use tidegate_engine::checkpoint::storage::{CLAIMS, join};
use tidegate_engine::checkpoint::{CheckpointStorage, Error, Result};
use tidegate_engine::fault::Fault;

/// A process's claim to a job's folder.
pub(crate) struct Claim {
    storage: Arc<dyn CheckpointStorage>,
    number: u64,
}

impl Claim {
    /// Claims the folder, from whomever has it.
    pub fn take(storage: Arc<dyn CheckpointStorage>) -> Result<Self> {
        let content = format!("process {}\n", std::process::id());
        loop {
            let claims = numbers(&*storage)?;
            let number = claims.iter().max().map_or(1, |newest| newest + 1);
            match storage.publish(&path(number), content.as_bytes()) {
                Err(Error::Exists { .. }) => continue,
                published => published?,
            }
            // Greater ones say all that these do.
            for old in claims {
                drop(storage.delete(&path(old)));
            }
            return Ok(Claim { storage, number });
        }
    }

    /// Whether another process has claimed the folder since.
    pub fn lost(&self) -> Result<bool> {
        let claims = numbers(&*self.storage)?;
        Ok(claims.iter().any(|number| *number > self.number))
    }
}

/// What ends a job that another process has taken over from.
pub(crate) fn taken_over() -> Fault {
    Fault::fenced(
        "another run of this job has begun since, and its checkpoints are those that count; this one stops",
    )
}

fn path(number: u64) -> String {
    join(CLAIMS, &number.to_string())
}

fn numbers(storage: &dyn CheckpointStorage) -> Result<Vec<u64>> {
    let all = storage.list(CLAIMS)?;
    let number = |path: &str| path.rsplit('/').next()?.parse().ok();
    Ok(all
        .iter()
        .filter_map(|stored| number(&stored.path))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_engine::testing::MemoryStorage;

    #[test]
    fn the_last_one_to_claim_has_it() {
        let storage: Arc<dyn CheckpointStorage> = Arc::new(MemoryStorage::default());
        let claim = || Claim::take(storage.clone()).expect("it can be claimed");
        let first = claim();
        assert!(!first.lost().expect("it can be looked up"));
        let second = claim();
        let third = claim();
        assert_eq!((first.number, second.number, third.number), (1, 2, 3));
        assert!(first.lost().expect("it can be looked up"));
        assert!(second.lost().expect("it can be looked up"));
        assert!(!third.lost().expect("it can be looked up"));
        assert_eq!(numbers(&*storage).expect("they can be listed"), [3]);
    }
}
