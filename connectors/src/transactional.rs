//! Sinks whose output is a transaction of another system: written in user code that may block, and committed
//! when a checkpoint covers it.

use crate::background::{Background, Write};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use tidegate_engine::build::{OpenContext, Prototype};
use tidegate_engine::checkpoint::{CheckpointId, codec};
use tidegate_engine::fault::Flow;
use tidegate_engine::sink::{Sink, SinkWriter, TwoPhase};
use tidegate_engine::time::Timestamp;

/// Records that are handed to the thread at a time.
const BATCH: usize = 1024;

/// The name of a transaction, such as `0-7-3`: no other transaction of this sink that a checkpoint can
/// cover has it. One of the same name that is still there was begun by an attempt that died, and can be
/// thrown away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TransactionId {
    /// The subtask that began it.
    pub subtask: u32,
    /// The checkpoint that the attempt went on from, 0 for none.
    pub restored_from: CheckpointId,
    /// Its number in this attempt, from 0.
    pub number: u64,
}

impl fmt::Display for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.subtask, self.restored_from, self.number)
    }
}

/// What a sink with transactions has to know of the system that it writes to. All of it runs on a thread of
/// its own and may block. Each subtask works with a clone of its own.
///
/// A transaction is begun with the first record after a checkpoint, and pre-committed at the next one. When
/// that checkpoint is complete it is committed; if the process dies before it could say so, the next
/// attempt commits it again. In a job without checkpoints one transaction per subtask is committed at the
/// end of its input.
///
/// A table in which each row counts once:
///
/// ```
/// use std::collections::BTreeMap;
/// use std::sync::{Arc, Mutex};
/// use tidegate_connectors::{TransactionId, Transactional, TransactionalSink};
/// use tidegate_engine::fault::{Fault, Flow};
///
/// /// What the database holds: rows that everybody sees, and those of open transactions.
/// #[derive(Default)]
/// struct Database { rows: Vec<u64>, open: BTreeMap<String, Vec<u64>> }
///
/// #[derive(Clone)]
/// struct Table(Arc<Mutex<Database>>);
///
/// impl TransactionalSink<u64> for Table {
///     type Transaction = String;
///
///     fn begin_transaction(&mut self, id: TransactionId) -> Flow<String> {
///         let name = format!("totals-{id}");
///         self.0.lock().unwrap().open.insert(name.clone(), Vec::new());
///         Ok(name)
///     }
///
///     fn write(&mut self, name: &mut String, row: u64) -> Flow {
///         let mut database = self.0.lock().unwrap();
///         let open = database.open.get_mut(name);
///         open.ok_or_else(|| Fault::external("the transaction timed out"))?.push(row);
///         Ok(())
///     }
///
///     // The rows are where a crash of this process leaves them.
///     fn pre_commit(&mut self, _name: &mut String) -> Flow { Ok(()) }
///
///     // A transaction that is not there any more was committed before.
///     fn commit(&mut self, name: String) -> Flow {
///         let mut database = self.0.lock().unwrap();
///         let rows = database.open.remove(&name).unwrap_or_default();
///         database.rows.extend(rows);
///         Ok(())
///     }
///
///     fn abort(&mut self, name: String) -> Flow {
///         self.0.lock().unwrap().open.remove(&name);
///         Ok(())
///     }
///
///     fn recover(&mut self, pre_committed: Vec<String>) -> Flow {
///         for name in pre_committed {
///             self.commit(name)?;
///         }
///         self.0.lock().unwrap().open.clear();
///         Ok(())
///     }
/// }
///
/// let database = Arc::new(Mutex::new(Database::default()));
/// // stream.sink("totals", Transactional::new(Table(database)))
/// let sink = Transactional::new(Table(database));
/// # fn is_sink(_: impl tidegate_engine::sink::Sink<u64>) {}
/// # is_sink(sink);
/// ```
pub trait TransactionalSink<T>: Clone + Send + 'static {
    /// What it takes to go on with a transaction, or to commit it from another process: its name, say. It
    /// becomes part of the checkpoint.
    type Transaction: Serialize + DeserializeOwned + Send + 'static;

    /// Begins a transaction.
    fn begin_transaction(&mut self, id: TransactionId) -> Flow<Self::Transaction>;

    /// Writes a record as part of it.
    fn write(&mut self, transaction: &mut Self::Transaction, record: T) -> Flow;

    /// A checkpoint is being taken: makes sure that the transaction can be committed, whatever happens to
    /// this process. No record follows.
    fn pre_commit(&mut self, transaction: &mut Self::Transaction) -> Flow;

    /// Shows its records. It may have been committed before, and then this must change nothing.
    fn commit(&mut self, transaction: Self::Transaction) -> Flow;

    /// Throws it away: it was not pre-committed, and no checkpoint covers its records.
    fn abort(&mut self, transaction: Self::Transaction) -> Flow;

    /// Called once in each attempt, before any transaction begins, with all that the checkpoint covers
    /// which the attempt goes on from; with none where it begins from scratch. Commits these, and should
    /// throw away every other transaction that earlier attempts of this sink left open.
    fn recover(&mut self, pre_committed: Vec<Self::Transaction>) -> Flow {
        pre_committed
            .into_iter()
            .try_for_each(|transaction| self.commit(transaction))
    }
}

/// Runs a [`TransactionalSink`] as the sink of a stream.
pub struct Transactional<S>(Prototype<S>);

impl<S: Clone> Transactional<S> {
    /// Each subtask writes with a clone of `sink`.
    pub fn new(sink: S) -> Self {
        Transactional(Prototype::new(sink))
    }
}

impl<T: Send + 'static, S: TransactionalSink<T>> Sink<T> for Transactional<S> {
    type Writer = TransactionalWriter<T>;

    fn recover(&self, committables: Option<Vec<Vec<u8>>>) -> Flow {
        let committables = committables.unwrap_or_default();
        let decoded = committables.iter().map(|bytes| codec::decode(bytes));
        let transactions = decoded.collect::<Flow<Vec<S::Transaction>>>()?;
        self.0.get().recover(transactions)
    }

    fn open(&self, context: &mut OpenContext<'_>) -> Flow<TransactionalWriter<T>> {
        let checkpointed = context.checkpointed();
        let transactions = Transactions {
            sink: self.0.get(),
            next: TransactionId {
                subtask: context.subtask(),
                restored_from: context.restored_from(),
                number: 0,
            },
            open: None,
            checkpointed,
        };
        let thread = Background::start(transactions, context.waker())?;
        Ok(TransactionalWriter {
            thread,
            batch: Vec::new(),
            checkpointed,
        })
    }
}

/// The transactions of one subtask, on their thread.
struct Transactions<T, S: TransactionalSink<T>> {
    sink: S,
    next: TransactionId,
    open: Option<S::Transaction>,
    checkpointed: bool,
}

impl<T: Send + 'static, S: TransactionalSink<T>> Write<T> for Transactions<T, S> {
    fn write(&mut self, records: &mut Vec<T>) -> Flow {
        let transaction = match &mut self.open {
            Some(transaction) => transaction,
            None => {
                let begun = self.sink.begin_transaction(self.next)?;
                self.next.number += 1;
                self.open.insert(begun)
            }
        };
        let sink = &mut self.sink;
        records
            .drain(..)
            .try_for_each(|record| sink.write(transaction, record))
    }

    fn prepare(&mut self) -> Flow<Vec<u8>> {
        let Some(transaction) = &mut self.open else {
            return Ok(Vec::new());
        };
        self.sink.pre_commit(transaction)?;
        let committable = codec::encode(transaction)?;
        self.open = None;
        Ok(committable)
    }

    fn commit(&mut self, committable: Vec<u8>, _last: bool) -> Flow {
        self.sink.commit(codec::decode(&committable)?)
    }

    fn end(&mut self) -> Flow {
        if self.checkpointed {
            return Ok(());
        }
        let Some(mut transaction) = self.open.take() else {
            return Ok(());
        };
        self.sink.pre_commit(&mut transaction)?;
        self.sink.commit(transaction)
    }
}

impl<T, S: TransactionalSink<T>> Drop for Transactions<T, S> {
    fn drop(&mut self) {
        if let Some(transaction) = self.open.take()
            && let Err(fault) = self.sink.abort(transaction)
        {
            tracing::warn!(%fault, "a transaction could not be aborted");
        }
    }
}

/// Hands the records of one subtask to its thread.
pub struct TransactionalWriter<T> {
    thread: Background<T>,
    batch: Vec<T>,
    checkpointed: bool,
}

impl<T: Send + 'static> TransactionalWriter<T> {
    fn hand_over(&mut self) -> Flow {
        if self.batch.is_empty() {
            return self.thread.pump();
        }
        let full = std::mem::replace(&mut self.batch, self.thread.buffer());
        self.thread.write(full)
    }
}

impl<T: Send + 'static> SinkWriter<T> for TransactionalWriter<T> {
    fn write(&mut self, _at: Timestamp, value: T) -> Flow {
        self.batch.push(value);
        if self.batch.len() >= BATCH {
            self.hand_over()
        } else {
            Ok(())
        }
    }

    fn has_room(&self) -> bool {
        self.thread.has_room()
    }

    fn turn(&mut self, _now: Timestamp) -> Flow<Timestamp> {
        if self.thread.has_room() {
            self.hand_over()?
        } else {
            self.thread.pump()?
        }
        Ok(Timestamp::MAX)
    }

    fn flush(&mut self) -> Flow {
        self.hand_over()?;
        self.thread.flush()
    }

    fn flushed(&mut self) -> Flow<bool> {
        self.thread.flushed()
    }

    fn two_phase(&mut self) -> Option<&mut dyn TwoPhase> {
        if self.checkpointed { Some(self) } else { None }
    }

    fn close(&mut self) -> Flow {
        self.hand_over()?;
        self.thread.end()
    }

    fn closed(&self) -> bool {
        self.thread.done()
    }
}

impl<T: Send + 'static> TwoPhase for TransactionalWriter<T> {
    fn prepare(&mut self, _checkpoint: CheckpointId) -> Flow {
        self.hand_over()?;
        self.thread.prepare()
    }

    fn prepared(&mut self) -> Flow<Option<Vec<u8>>> {
        self.thread.prepared()
    }

    fn commit(&mut self, committable: Vec<u8>, last: bool) -> Flow {
        self.thread.commit(committable, last)
    }

    fn committed(&mut self) -> Flow<bool> {
        self.thread.committed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Attempt, Writing, write_all};
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex, MutexGuard};
    use tidegate_engine::fault::Fault;

    #[derive(Default)]
    struct Database {
        rows: Vec<u32>,
        /// With whether each was pre-committed.
        open: BTreeMap<String, (Vec<u32>, bool)>,
    }

    #[derive(Clone, Default)]
    struct Table(Arc<Mutex<Database>>);

    impl Table {
        fn database(&self) -> MutexGuard<'_, Database> {
            self.0.lock().unwrap()
        }

        fn rows(&self) -> Vec<u32> {
            self.database().rows.clone()
        }

        fn open(&self) -> Vec<String> {
            self.database().open.keys().cloned().collect()
        }
    }

    impl TransactionalSink<u32> for Table {
        type Transaction = String;

        fn begin_transaction(&mut self, id: TransactionId) -> Flow<String> {
            let name = id.to_string();
            let old = self
                .database()
                .open
                .insert(name.clone(), Default::default());
            assert!(old.is_none(), "{name} is open");
            Ok(name)
        }

        fn write(&mut self, name: &mut String, row: u32) -> Flow {
            if row == 13 {
                return Err(Fault::external("13 brings bad luck"));
            }
            let mut database = self.database();
            let open = database.open.get_mut(name).expect("it is open");
            assert!(!open.1, "written behind the pre-commit");
            open.0.push(row);
            Ok(())
        }

        fn pre_commit(&mut self, name: &mut String) -> Flow {
            let mut database = self.database();
            database.open.get_mut(name).expect("it is open").1 = true;
            Ok(())
        }

        fn commit(&mut self, name: String) -> Flow {
            let mut database = self.database();
            if let Some((rows, pre_committed)) = database.open.remove(&name) {
                assert!(pre_committed, "{name} is not pre-committed");
                database.rows.extend(rows);
            }
            Ok(())
        }

        fn abort(&mut self, name: String) -> Flow {
            let (_, pre_committed) = self.database().open.remove(&name).expect("it is open");
            assert!(!pre_committed, "{name} may be covered");
            Ok(())
        }

        fn recover(&mut self, pre_committed: Vec<String>) -> Flow {
            for name in pre_committed {
                self.commit(name)?;
            }
            self.database().open.clear();
            Ok(())
        }
    }

    #[test]
    fn without_checkpoints_all_is_committed_in_the_end() {
        let table = Table::default();
        write_all(&Transactional::new(table.clone()), 1, 20..5000).unwrap();
        assert_eq!(table.rows(), (20..5000).collect::<Vec<_>>());
        let fault = write_all(&Transactional::new(table.clone()), 1, 12..14).unwrap_err();
        assert_eq!(fault.to_string(), "13 brings bad luck");
        assert_eq!(
            (table.rows().len(), table.open()),
            (4980, vec![]),
            "it was aborted"
        );
    }

    #[test]
    fn a_transaction_is_committed_when_a_checkpoint_covers_it_even_by_a_later_attempt() {
        let table = Table::default();
        let sink = Transactional::new(table.clone());
        let mut writing = Writing::begin(&sink, 0, 1, &Attempt::first()).unwrap();
        assert_eq!(
            writing.prepare::<u32>(1).unwrap(),
            [0; 0],
            "nothing was written"
        );
        writing.write(1).unwrap();
        let second = writing.prepare::<u32>(2).unwrap();
        writing.write(2).unwrap();
        let third = writing.prepare::<u32>(3).unwrap();
        assert_eq!(
            (table.rows(), table.open()),
            (vec![], vec!["0-0-0".to_owned(), "0-0-1".to_owned()])
        );
        writing.commit::<u32>(second.clone(), false).unwrap();
        assert_eq!(table.rows(), [1]);
        writing.write(3).unwrap();
        writing.flush::<u32>().unwrap();
        drop(writing);
        assert_eq!(table.open(), ["0-0-1"], "what nothing can cover is aborted");
        // The second was committed, and nobody noted it.
        Sink::<u32>::recover(&sink, Some(vec![second, third])).unwrap();
        assert_eq!(table.rows(), [1, 2]);
        let mut writing = Writing::begin(&sink, 0, 1, &Attempt::after(3, vec![])).unwrap();
        writing.write(3).unwrap();
        writing.close::<u32>().unwrap();
        let last = writing.prepare::<u32>(4).unwrap();
        assert_eq!(table.open(), ["0-3-0"]);
        writing.commit::<u32>(last, true).unwrap();
        assert_eq!(table.rows(), [1, 2, 3]);
        drop(writing);
        Sink::<u32>::recover(&sink, None).unwrap();
        assert_eq!((table.rows(), table.open()), (vec![1, 2, 3], vec![]));
    }
}
