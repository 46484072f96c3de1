//! Parses records from the blocks that the reading thread hands over.

use super::cutter::{Cutter, newlines, trimmed};
use super::fetch::{Block, Event, Fetcher, FileMark, Oversized};
use super::format::{Bad, Format, Framing};
use super::progress::Progress;
use crate::dead_letters::BadRecords;
use std::sync::Arc;
use std::time::Duration;
use tidegate_engine::fault::{Fault, Flow};
use tidegate_engine::source::{Poll, SourceReader};
use tidegate_engine::stage::Collector;
use tidegate_engine::time::Timestamp;

/// How long a reader rests that is going to be woken anyway.
const UNTIL_WOKEN: Duration = Duration::from_secs(60);

/// Reads the files, or ranges of files, of one subtask.
pub struct FileReader<F> {
    format: F,
    framing: Framing,
    max_record_bytes: usize,
    fetcher: Option<Fetcher>,
    bad: BadRecords,
    progress: Progress,
    block: Option<Block>,
    /// Where records end in this block: in one without quotes, at every newline.
    ends: Framing,
    /// The file that the format was told of last.
    mark: Option<Arc<FileMark>>,
    /// Where the record at hand stands.
    line: u64,
    offset: u64,
}

impl<F: Format> FileReader<F> {
    pub(crate) fn new(
        format: F,
        framing: Framing,
        max_record_bytes: usize,
        fetcher: Fetcher,
        progress: Progress,
        bad: BadRecords,
    ) -> Self {
        let fetcher = Some(fetcher);
        let (block, mark) = (None, None);
        FileReader {
            format,
            framing,
            ends: framing,
            max_record_bytes,
            fetcher,
            bad,
            progress,
            block,
            mark,
            line: 0,
            offset: 0,
        }
    }

    /// Takes what the thread hands over; says what to do next where that is not a block to parse.
    fn receive(&mut self) -> Flow<Option<Poll>> {
        let Some(fetcher) = &self.fetcher else {
            return Ok(Some(Poll::End));
        };
        match fetcher.next()? {
            None => return Ok(Some(Poll::Wait(UNTIL_WOKEN))),
            Some(Event::End) => {
                self.fetcher = None;
                return Ok(Some(Poll::End));
            }
            Some(Event::Failed(fault)) => {
                self.mark = None;
                return Err(fault);
            }
            Some(Event::Found(split)) => self.progress.add(split),
            Some(Event::Finished(split)) => self.progress.finish(split),
            Some(Event::Restarted(split)) => self.progress.restart(split),
            Some(Event::Forgotten(split)) => self.progress.forget(split),
            Some(Event::Oversized(oversized)) => self.refuse(oversized)?,
            Some(Event::Block(block)) => {
                if self
                    .mark
                    .as_ref()
                    .is_none_or(|mark| !Arc::ptr_eq(mark, &block.mark))
                {
                    self.mark = Some(block.mark.clone());
                    (self.line, self.offset) = (1, 0);
                    self.format.begin(&block.mark.header).map_err(unusable)?;
                }
                let quotes = memchr::memchr(b'"', &block.bytes[block.start..block.end]);
                self.ends = quotes.map_or(Framing::Lines, |_| self.framing);
                self.block = Some(block);
            }
        }
        Ok(None)
    }

    #[cold]
    fn refuse(&mut self, oversized: Oversized) -> Flow {
        let Oversized {
            mark,
            raw,
            length,
            line,
            offset,
            behind,
        } = oversized;
        (self.line, self.offset) = (line, offset);
        self.progress.note(&mark, behind.0, behind.1);
        self.mark = Some(mark.clone());
        self.format.begin(&mark.header).map_err(unusable)?;
        let reason = too_long(length, self.max_record_bytes);
        self.bad
            .add(&reason, &raw, length, || mark.position(line, offset))
    }

    #[cold]
    fn reject(bad: &mut BadRecords, why: Bad, record: &[u8], at: impl FnOnce() -> String) -> Flow {
        match why {
            Bad::File(_) => Err(unusable(why)),
            Bad::Record(reason) => bad.add(&reason, record, record.len() as u64, at),
        }
    }

    /// Parses at most `budget` records of a block; returns how many were emitted.
    fn parse<C: Collector<F::Item>>(
        &mut self,
        block: &mut Block,
        budget: usize,
        out: &mut C,
    ) -> Flow<usize> {
        let mut emitted = 0;
        for _ in 0..budget {
            let rest = &block.bytes[block.start..block.end];
            if rest.is_empty() {
                break;
            }
            let end = Cutter::first_end(self.ends, rest).unwrap_or(rest.len());
            let record = trimmed(&rest[..end]);
            (self.line, self.offset) = (block.line, block.offset);
            let lines = if self.ends == Framing::Lines {
                1
            } else {
                newlines(&rest[..end])
            };
            block.line += lines;
            block.offset += end as u64;
            block.start += end;
            let decoded = if record.len() > self.max_record_bytes {
                Err(Bad::Record(too_long(
                    record.len() as u64,
                    self.max_record_bytes,
                )))
            } else {
                self.format.decode(record)
            };
            match decoded {
                Ok(Some(item)) => {
                    out.collect(Timestamp::MIN, item)?;
                    emitted += 1;
                }
                Ok(None) => {}
                Err(why) => {
                    let (mark, line, offset) = (&block.mark, self.line, self.offset);
                    Self::reject(&mut self.bad, why, record, || mark.position(line, offset))?;
                    if !self.bad.has_room()? {
                        break;
                    }
                }
            }
        }
        Ok(emitted)
    }
}

#[cold]
fn too_long(length: u64, max: usize) -> String {
    format!("it has {length} bytes, more than the {max} of .max_record_bytes(..)")
}

#[cold]
fn unusable(why: Bad) -> Fault {
    let (Bad::File(reason) | Bad::Record(reason)) = why;
    Fault::user(format_args!("the file can't be read: {reason}"))
}

impl<F: Format> SourceReader for FileReader<F> {
    type Item = F::Item;

    fn poll<C: Collector<F::Item>>(&mut self, budget: usize, out: &mut C) -> Flow<Poll> {
        if !self.bad.has_room()? {
            return Ok(Poll::Wait(Duration::from_millis(1)));
        }
        let mut emitted = 0;
        while emitted < budget {
            let Some(mut block) = self.block.take() else {
                match self.receive()? {
                    None => continue,
                    Some(Poll::End | Poll::Wait(_)) if emitted > 0 => break,
                    Some(Poll::End) => return Ok(Poll::End),
                    Some(other) => return Ok(other),
                }
            };
            let before = block.start;
            let result = self.parse(&mut block, budget - emitted, out);
            let done = block.start == block.end;
            debug_assert!(done || block.start > before || budget == 0);
            if done {
                self.progress.note(&block.mark, block.line, block.offset);
                if let Some(fetcher) = &self.fetcher {
                    fetcher.recycle(block.bytes);
                }
            } else {
                self.block = Some(block);
            }
            emitted += result?;
            if !done {
                break;
            }
        }
        Ok(Poll::Read(emitted))
    }

    fn position(&self) -> String {
        let here = self
            .mark
            .as_ref()
            .map(|mark| mark.position(self.line, self.offset));
        here.unwrap_or_default()
    }

    fn dead_letters(&self) -> u64 {
        self.bad.count()
    }

    fn splits(&mut self) -> Flow<Vec<Vec<u8>>> {
        if let Some(block) = &self.block {
            self.progress.note(&block.mark, block.line, block.offset);
        }
        self.bad.flush()?;
        self.progress.save()
    }

    fn positions(&self) -> Vec<String> {
        self.progress.positions()
    }

    fn close(&mut self) -> Flow {
        self.fetcher = None;
        self.block = None;
        self.bad.flush()
    }

    fn flushed(&mut self) -> Flow<bool> {
        self.bad.flushed()
    }
}
