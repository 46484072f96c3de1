//! One open file: its bytes, decompressed where needed, cut into blocks of whole records.

use super::cutter::{Cutter, newlines, trimmed};
use super::fetch::{Block, FileMark, Oversized};
use super::format::Framing;
use super::plan::{Split, unreadable};
use flate2::read::MultiGzDecoder;
use memchr::memchr;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use tidegate_engine::fault::{Fault, Flow};

/// How many bytes of a record that is too long are kept to show it.
const SAMPLE: usize = 64 * 1024;
/// How many bytes are passed over before it is looked whether the subtask is still there.
const SKIPPED: u64 = 1 << 20;
const BOM: &[u8] = b"\xef\xbb\xbf";

/// How files are read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadOptions {
    pub(crate) framing: Framing,
    pub(crate) has_header: bool,
    pub(crate) block_bytes: usize,
    pub(crate) max_record_bytes: usize,
}

/// What the next bytes of a file are.
pub(crate) enum Piece {
    Block(Block),
    Oversized(Oversized),
    /// Nothing more for now; for a file that doesn't grow, nothing more at all.
    Dry,
}

enum Input {
    Plain(File),
    Gzip(Box<MultiGzDecoder<BufReader<File>>>),
}

impl Read for Input {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Input::Plain(file) => file.read(into),
            Input::Gzip(decoder) => decoder.read(into),
        }
    }
}

/// A file, or a range of it, that is being read.
pub(crate) struct OpenFile {
    path: Arc<Path>,
    number: usize,
    /// Bytes to pass over before anything is read: compressed data has no other way to go on.
    to_skip: u64,
    input: Input,
    /// A pipe or a device: the next read may wait for long.
    is_stream: bool,
    options: ReadOptions,
    mark: Option<Arc<FileMark>>,
    /// Where the buffer's first byte stands in the file, and on which line.
    offset: u64,
    line: u64,
    /// Records that begin here or later belong to another split.
    limit: u64,
    buffer: Vec<u8>,
    filled: usize,
    /// The end of the last whole record in the buffer.
    whole: usize,
    cutter: Cutter,
    /// A record that is too long, while its end is being looked for.
    oversized: Option<Oversized>,
    ended: bool,
    broken: Option<Fault>,
}

impl OpenFile {
    /// Opens split number `number` where it begins, or where an earlier attempt got to.
    pub(crate) fn open(split: &Split, number: usize, options: ReadOptions) -> Flow<Self> {
        let path = &split.path;
        let failed = |error: io::Error| unreadable(path, &error);
        let mut file = File::open(path).map_err(|error| missing(split, &error))?;
        let meta = file.metadata().map_err(failed)?;
        let is_stream = !meta.is_file();
        let ranged = split.range.is_some();
        let (mut mark, mut offset) = (None, 0);
        let named = |header| Some(Arc::new(FileMark::new(path, header, ranged, number)));
        if let Some(at) = &split.at {
            mark = match &at.header {
                Some(header) => named(header.clone()),
                None if options.has_header => None,
                None => named(Vec::new()),
            };
        } else if let Some((begin, _)) = split.range {
            let header = if options.has_header {
                read_header(split, options)?
            } else {
                (vec![], 0)
            };
            offset = first_record(&mut file, begin.max(header.1)).map_err(failed)?;
            mark = named(header.0);
        } else if !options.has_header {
            mark = named(Vec::new());
        }
        let mut input = if split.range.is_none() && is_gzip_file(&mut file).map_err(failed)? {
            Input::Gzip(Box::new(MultiGzDecoder::new(BufReader::with_capacity(
                1 << 16,
                file,
            ))))
        } else {
            Input::Plain(file)
        };
        let (mut line, mut to_skip) = (1, 0);
        if let Some(at) = split.at.as_ref().filter(|_| !is_stream) {
            (offset, line) = (at.offset, at.line);
            match &mut input {
                Input::Plain(file) => {
                    let least = split.range.map_or(0, |(_, end)| end).max(offset);
                    if meta.len() < least {
                        return Err(shorter(path, offset, meta.len()));
                    }
                    file.seek(SeekFrom::Start(offset)).map_err(failed)?;
                }
                Input::Gzip(_) => to_skip = offset,
            }
        }
        Ok(OpenFile {
            path: path.clone(),
            number,
            to_skip,
            input,
            is_stream,
            options,
            mark,
            offset,
            line,
            limit: split.range.map_or(u64::MAX, |(_, end)| end),
            buffer: Vec::new(),
            filled: 0,
            whole: 0,
            cutter: Cutter::new(options.framing),
            oversized: None,
            ended: false,
            broken: None,
        })
    }

    /// Whether more can be appended to it.
    pub(crate) fn can_grow(&self) -> bool {
        matches!(self.input, Input::Plain(_)) && self.limit == u64::MAX
    }

    /// Passes over some of what an earlier attempt has read; false when there is no more of that.
    pub(crate) fn skip_some(&mut self) -> Flow<bool> {
        if self.to_skip == 0 {
            return Ok(false);
        }
        let piece = self.to_skip.min(SKIPPED);
        let skipped = io::copy(&mut (&mut self.input).take(piece), &mut io::sink());
        let skipped = skipped.map_err(|error| self.damaged(&error))?;
        self.to_skip -= skipped;
        if skipped < piece {
            return Err(shorter(&self.path, self.offset, self.offset - self.to_skip));
        }
        Ok(true)
    }

    /// Begins again where a growing file became shorter: it was truncated to be filled anew. Tells whether it does.
    pub(crate) fn restart_if_truncated(&mut self) -> Flow<bool> {
        let Input::Plain(file) = &mut self.input else {
            return Ok(false);
        };
        let failed = |error: io::Error| unreadable(&self.path, &error);
        let length = file.metadata().map_err(failed)?.len();
        if self.is_stream || length >= self.offset + self.filled as u64 {
            return Ok(false);
        }
        tracing::warn!(file = %self.path.display(), "the file was truncated: reading it anew");
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        if self.options.has_header {
            self.mark = None;
        }
        (self.offset, self.line, self.filled, self.whole) = (0, 1, 0, 0);
        self.cutter = Cutter::new(self.options.framing);
        self.oversized = None;
        Ok(true)
    }

    /// The next piece. With `complete`, what stands behind the last newline is a record too. `spare`
    /// gives emptied buffers.
    pub(crate) fn next(
        &mut self,
        complete: bool,
        spare: &mut dyn FnMut() -> Vec<u8>,
    ) -> Flow<Piece> {
        loop {
            let oversized = self.fill(spare);
            // It stands before what is in the buffer.
            if let Some(mut oversized) = oversized {
                oversized.behind = (self.line, self.offset);
                return Ok(Piece::Oversized(oversized));
            }
            if let Some(block) = self.take_block(spare) {
                return Ok(Piece::Block(block));
            }
            if let Some(fault) = self.broken.take() {
                self.ended = true;
                return Err(fault);
            }
            if !complete && !self.ended {
                return Ok(Piece::Dry);
            }
            if let Some(mut oversized) = self.oversized.take() {
                oversized.behind = (self.line, self.offset);
                return Ok(Piece::Oversized(oversized));
            }
            if self.filled == 0 {
                return Ok(Piece::Dry);
            }
            // The last record has no newline.
            self.ended = true;
            self.whole = self.filled;
        }
    }

    /// Reads until a block is full, a record that is too long has ended, or nothing more comes.
    fn fill(&mut self, spare: &mut dyn FnMut() -> Vec<u8>) -> Option<Oversized> {
        let mut stalls = false;
        while !self.ended && self.broken.is_none() && !(stalls && self.whole > 0) {
            if self.offset >= self.limit {
                self.end();
                break;
            }
            if self.filled == self.buffer.len() && !self.make_room(spare) {
                break;
            }
            let from = self.filled;
            match self.input.read(&mut self.buffer[from..]) {
                Ok(0) => break,
                Ok(count) => {
                    self.filled += count;
                    stalls = self.is_stream;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => self.broken = Some(self.damaged(&error)),
            }
            if self.oversized.is_some() {
                let found = self.skip();
                if found.is_some() {
                    return found;
                }
            } else if let Some(end) = self.cutter.last_end(&self.buffer[from..self.filled]) {
                self.whole = from + end;
            }
        }
        None
    }

    /// Makes room in a full buffer; false where a block has to be taken first.
    fn make_room(&mut self, spare: &mut dyn FnMut() -> Vec<u8>) -> bool {
        if self.whole > 0 {
            return false;
        }
        if self.buffer.is_empty() {
            self.buffer = spare();
        } else if self.filled > self.options.max_record_bytes {
            self.begin_oversized();
        }
        let size = self
            .options
            .block_bytes
            .max(self.filled * 2)
            .max(self.buffer.len());
        self.buffer.resize(size, 0);
        true
    }

    /// The record in the buffer is too long: keeps a sample of it and looks for its newline.
    #[cold]
    fn begin_oversized(&mut self) {
        let raw = self.buffer[..self.filled.min(SAMPLE)].to_vec();
        let (line, offset, mark) = (self.line, self.offset, self.mark.clone());
        let mark = mark.unwrap_or_else(|| {
            let mark = FileMark::new(&self.path, Vec::new(), false, self.number);
            Arc::new(mark.provisional())
        });
        self.oversized = Some(Oversized {
            mark,
            raw,
            length: self.filled as u64,
            line,
            offset,
            behind: (line, offset),
        });
        self.line += newlines(&self.buffer[..self.filled]);
        self.offset += self.filled as u64;
        self.filled = 0;
    }

    /// Skips to the next newline, inside quotes or not: a quote that is never closed must not take
    /// the rest of the file with it.
    #[cold]
    fn skip(&mut self) -> Option<Oversized> {
        let newline = memchr(b'\n', &self.buffer[..self.filled]);
        let skipped = newline.map_or(self.filled, |at| at + 1);
        if let Some(oversized) = &mut self.oversized {
            oversized.length += newline.unwrap_or(self.filled) as u64;
        }
        self.offset += skipped as u64;
        self.buffer.copy_within(skipped..self.filled, 0);
        self.filled -= skipped;
        newline?;
        self.line += 1;
        self.cutter = Cutter::new(self.options.framing);
        self.whole = self
            .cutter
            .last_end(&self.buffer[..self.filled])
            .unwrap_or(0);
        self.oversized.take()
    }

    /// Takes the whole records in the buffer, as far as they are this split's, without the header.
    fn take_block(&mut self, spare: &mut dyn FnMut() -> Vec<u8>) -> Option<Block> {
        if self.whole == 0 {
            return None;
        }
        let (mut start, mut end) = (0, self.whole);
        let left = self.limit - self.offset;
        if (end as u64) > left {
            // The last record of a range is the one that holds the byte before its end.
            let last = left.saturating_sub(1) as usize;
            end = memchr(b'\n', &self.buffer[last..end]).map_or(end, |at| last + at + 1);
        }
        if self.offset == 0 && self.buffer[..end].starts_with(BOM) {
            start = BOM.len();
        }
        let header_line = self.line;
        if self.mark.is_none() {
            let all = &self.buffer[start..end];
            let header = Cutter::first_end(self.options.framing, all).unwrap_or(all.len());
            let header = start..start + header;
            let names = trimmed(&self.buffer[header.clone()]).to_vec();
            self.mark = Some(Arc::new(FileMark::new(
                &self.path,
                names,
                false,
                self.number,
            )));
            start = header.end;
        }
        let skipped = newlines(&self.buffer[..start]);
        let (line, offset) = (header_line + skipped, self.offset + start as u64);
        self.line = line + newlines(&self.buffer[start..end]);
        self.offset += end as u64;
        let mut next = spare();
        let tail = self.filled - end;
        next.resize(self.options.block_bytes.max(tail).max(next.len()), 0);
        next[..tail].copy_from_slice(&self.buffer[end..self.filled]);
        let bytes = std::mem::replace(&mut self.buffer, next);
        (self.filled, self.whole) = (tail, 0);
        if self.offset >= self.limit {
            self.end();
        }
        let mark = self.mark.clone().expect("the mark was made above");
        Some(Block {
            mark,
            bytes,
            start,
            end,
            line,
            offset,
        })
    }

    fn end(&mut self) {
        self.ended = true;
        self.filled = 0;
        self.whole = 0;
    }

    #[cold]
    fn damaged(&self, error: &io::Error) -> Fault {
        match self.input {
            Input::Plain(_) => unreadable(&self.path, error),
            Input::Gzip(_) => Fault::external(format_args!(
                "{} is damaged: {error}, after {} bytes of decompressed data; fetch it again",
                self.path.display(),
                self.offset + self.filled as u64
            )),
        }
    }
}

/// A file that an earlier attempt read and that can't be opened.
#[cold]
fn missing(split: &Split, error: &io::Error) -> Fault {
    let Some(at) = split
        .at
        .as_ref()
        .filter(|_| error.kind() == io::ErrorKind::NotFound)
    else {
        return unreadable(&split.path, error);
    };
    Fault::external(format_args!(
        "{} is gone, and the job goes on from a checkpoint that has read {} bytes of it; put it back, or \
         start without the checkpoint",
        split.path.display(),
        at.offset
    ))
}

#[cold]
fn shorter(path: &Path, read: u64, length: u64) -> Fault {
    Fault::external(format_args!(
        "{} has only {length} bytes, and the job goes on from a checkpoint that has read {read} bytes of \
         it; put back the file that it was, or start without the checkpoint",
        path.display()
    ))
}

/// Whether the file at `path` begins like a gzip file.
pub(crate) fn is_gzip(path: &Path) -> Flow<bool> {
    let mut file = File::open(path).map_err(|error| unreadable(path, &error))?;
    is_gzip_file(&mut file).map_err(|error| unreadable(path, &error))
}

/// The same for an open file, which is left at its beginning. Only regular files can be gzip: looking
/// into a pipe would take what it holds.
fn is_gzip_file(file: &mut File) -> io::Result<bool> {
    if !file.metadata()?.is_file() {
        return Ok(false);
    }
    let mut magic = Vec::new();
    file.take(2).read_to_end(&mut magic)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(magic == [0x1f, 0x8b])
}

/// The header of a file of which a range is read, and where it ends.
fn read_header(split: &Split, options: ReadOptions) -> Flow<(Vec<u8>, u64)> {
    let failed = |error: io::Error| unreadable(&split.path, &error);
    let file = File::open(&split.path).map_err(failed)?;
    let mut bytes = Vec::new();
    let mut line = BufReader::new(file).take(options.max_record_bytes as u64);
    line.read_until(b'\n', &mut bytes).map_err(failed)?;
    let end = bytes.len() as u64;
    let header = bytes.strip_prefix(BOM).unwrap_or(&bytes);
    Ok((trimmed(header).to_vec(), end))
}

/// Moves to the first record that begins at `begin` or later, and returns where that is.
fn first_record(file: &mut File, begin: u64) -> io::Result<u64> {
    if begin == 0 {
        return Ok(0);
    }
    let mut at = begin - 1;
    file.seek(SeekFrom::Start(at))?;
    let mut piece = vec![0; 64 * 1024];
    loop {
        let count = file.read(&mut piece)?;
        if count == 0 {
            return Ok(at);
        }
        if let Some(newline) = memchr(b'\n', &piece[..count]) {
            let found = at + newline as u64 + 1;
            return file.seek(SeekFrom::Start(found));
        }
        at += count as u64;
    }
}
