//! What stands in for the databases where RocksDB was not compiled in: a clear refusal.

use tidegate_engine::fault::{Fault, Flow};
use tidegate_engine::metrics::MetricRegistry;
use tidegate_engine::state::RocksDbSettings;

/// There is none.
#[derive(Clone, Copy, Debug)]
pub enum StateCoordinator {}

impl StateCoordinator {
    /// Refuses.
    pub fn new(_: RocksDbSettings) -> Flow<Self> {
        Err(Fault::user(
            "this program was built without RocksDB, and its job asks for state in it; build it with \
             --features rocksdb, or keep state in memory",
        ))
    }

    /// Nothing to tell.
    pub fn publish(&self, _: &MetricRegistry) {
        match *self {}
    }
}
