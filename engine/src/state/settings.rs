//! Where keyed state is kept, and the numbers of what it spills to.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Where the keyed state of a job is kept while it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StateBackend {
    /// In tables of this process, all of it.
    #[default]
    Memory,
    /// In tables as far as memory goes, the rest in RocksDB.
    RocksDb(RocksDbSettings),
    /// In tables of this process until it has become large, and from then on as with RocksDB.
    Auto(AutoState),
}

/// When state moves to RocksDB by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AutoState {
    /// How many bytes the process has in memory by then. Default: half of what it may have.
    pub moves_at: Option<u64>,
    /// Where to.
    pub rocksdb: RocksDbSettings,
}

impl StateBackend {
    /// The settings of RocksDB, where state may come to be there.
    pub fn rocksdb(&self) -> Option<&RocksDbSettings> {
        match self {
            StateBackend::Memory => None,
            StateBackend::RocksDb(rocksdb) => Some(rocksdb),
            StateBackend::Auto(auto) => Some(&auto.rocksdb),
        }
    }
}

/// The settings of RocksDB state. Sizes are bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RocksDbSettings {
    /// The folder in which each process has a folder of its own while it runs. What a recovery needs is
    /// in checkpoints, not here. Default: `/tmp/flink-state`.
    pub state_dir: PathBuf,
    /// Column families that are there from the beginning; each state adds one of its own. Default:
    /// `default`, `user_state`, `operator_state`.
    pub column_families: Vec<String>,
    /// Of one column family, before it is written to a file. Default: 64 MiB.
    pub write_buffer_size: u64,
    /// The unit of reading from a file. Default: 64 KiB.
    pub block_size: u64,
    /// The cache of blocks and the write buffers of all databases of the process together. Default:
    /// 256 MiB.
    pub cache_size: u64,
    /// Of the filters that tell which file can't hold a key. Default: 10.
    pub bloom_bits_per_key: u32,
    /// Whether RocksDB counts what it does, to be shown as metrics. Default: yes.
    pub statistics: bool,
    /// The typed tables in front of RocksDB, all of the process together. Default: 512 MiB.
    pub table_memory: u64,
}

impl Default for RocksDbSettings {
    fn default() -> Self {
        let families = ["default", "user_state", "operator_state"];
        RocksDbSettings {
            state_dir: PathBuf::from("/tmp/flink-state"),
            column_families: families.map(str::to_owned).to_vec(),
            write_buffer_size: 64 << 20,
            block_size: 64 << 10,
            cache_size: 256 << 20,
            bloom_bits_per_key: 10,
            statistics: true,
            table_memory: 512 << 20,
        }
    }
}

impl RocksDbSettings {
    /// What is wrong with them, in words for the person who wrote them.
    pub fn check(&self) -> Result<(), String> {
        let sizes = [
            ("write_buffer_size", self.write_buffer_size, 64 << 10),
            ("block_size", self.block_size, 1 << 10),
            ("cache_size", self.cache_size, 1 << 20),
            ("table_memory", self.table_memory, 1 << 10),
        ];
        for (name, size, least) in sizes {
            if size < least {
                return Err(format!(
                    "state backend: {name} is {size} and has to be at least {least} bytes"
                ));
            }
        }
        if self.bloom_bits_per_key > 64 {
            return Err("state backend: bloom_bits_per_key is more than 64".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_has_its_default_and_what_makes_no_sense_is_told() {
        let read = serde_json::from_str::<RocksDbSettings>;
        let settings = read(r#"{"block_size": 4096}"#).unwrap();
        let defaults = RocksDbSettings::default();
        assert_eq!((settings.block_size, defaults.block_size), (4096, 65_536));
        assert_eq!(settings.write_buffer_size, 67_108_864);
        assert_eq!(settings.column_families, defaults.column_families);
        assert_eq!((defaults.check(), settings.check()), (Ok(()), Ok(())));
        assert!(read(r#"{"blocksize": 1}"#).is_err());
        assert!(read(r#"{"cache_size": 0}"#).unwrap().check().is_err());
    }
}
