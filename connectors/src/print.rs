//! A sink that prints: the quickest way to see a stream.

use crate::background::{self, Background};
use std::fmt::{self, Debug, Display};
use std::io::{self, Write};
use tidegate_engine::build::OpenContext;
use tidegate_engine::fault::{Fault, Flow};
use tidegate_engine::sink::{Sink, SinkWriter};
use tidegate_engine::time::Timestamp;

const BUFFER: usize = 16 * 1024;

/// Prints each record on a line of standard output; where several subtasks print, each line begins
/// with the subtask's number, as in `2> record`.
///
/// A checkpoint waits until what it covers is printed. What was printed behind it is printed again after a
/// recovery.
pub struct Print<T> {
    show: fn(&T, &mut fmt::Formatter<'_>) -> fmt::Result,
}

impl<T: Display> Print<T> {
    /// Prints records as they display themselves.
    #[allow(
        clippy::new_without_default,
        reason = "what a default prints would be a guess"
    )]
    pub fn new() -> Self {
        Print { show: T::fmt }
    }
}

impl<T: Debug> Print<T> {
    /// Prints records as `{:?}` shows them.
    pub fn debug() -> Self {
        Print { show: T::fmt }
    }
}

impl<T: 'static> Sink<T> for Print<T> {
    type Writer = PrintWriter<T>;

    fn open(&self, context: &mut OpenContext<'_>) -> Flow<PrintWriter<T>> {
        let prefix = if context.parallelism() > 1 {
            format!("{}> ", context.subtask())
        } else {
            String::new()
        };
        let thread = Background::start(Stdout(io::stdout()), context.waker())?.detached();
        Ok(PrintWriter {
            show: self.show,
            prefix,
            buffer: Vec::new(),
            thread,
        })
    }
}

/// Where lines go.
struct Stdout<W>(W);

impl<W: Write + Send + 'static> background::Write for Stdout<W> {
    fn write(&mut self, bytes: &mut Vec<u8>) -> Flow {
        self.0
            .write_all(bytes)
            .and_then(|()| self.0.flush())
            .map_err(|error| {
                Fault::external(match error.kind() {
                    io::ErrorKind::BrokenPipe => {
                        "can't print: whoever read the standard output is gone".to_owned()
                    }
                    _ => format!("can't print: {error}"),
                })
            })
    }

    fn end(&mut self) -> Flow {
        Ok(())
    }
}

/// Prints the records of one subtask.
pub struct PrintWriter<T> {
    show: fn(&T, &mut fmt::Formatter<'_>) -> fmt::Result,
    prefix: String,
    buffer: Vec<u8>,
    thread: Background,
}

impl<T> PrintWriter<T> {
    fn hand_over(&mut self) -> Flow {
        if self.buffer.is_empty() {
            return self.thread.pump();
        }
        let full = std::mem::replace(&mut self.buffer, self.thread.buffer());
        self.thread.write(full)
    }
}

impl<T: 'static> SinkWriter<T> for PrintWriter<T> {
    fn write(&mut self, _at: Timestamp, value: T) -> Flow {
        let show = fmt::from_fn(|f| (self.show)(&value, f));
        writeln!(self.buffer, "{}{show}", self.prefix)
            .map_err(|error| Fault::user(format_args!("a record can't be printed: {error}")))?;
        if self.buffer.len() >= BUFFER {
            self.hand_over()
        } else {
            Ok(())
        }
    }

    fn has_room(&self) -> bool {
        self.thread.has_room()
    }

    fn turn(&mut self, _now: Timestamp) -> Flow<Timestamp> {
        // While the last lines still wait to be printed, these can wait for more.
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

    fn close(&mut self) -> Flow {
        self.hand_over()?;
        self.thread.end()
    }

    fn closed(&self) -> bool {
        self.thread.done()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_engine::source::Waker;

    struct Gone;

    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn writer<T: 'static>(
        show: Print<T>,
        prefix: &str,
        to: impl Write + Send + 'static,
    ) -> PrintWriter<T> {
        let thread = Background::start(Stdout(to), Waker::none()).unwrap();
        PrintWriter {
            show: show.show,
            prefix: prefix.to_owned(),
            buffer: Vec::new(),
            thread,
        }
    }

    #[test]
    fn each_record_is_a_line_with_its_subtask() {
        let (mut read, to) = io::pipe().unwrap();
        let mut writer = writer(Print::debug(), "1> ", to);
        writer.write(Timestamp::MIN, "a").unwrap();
        writer.write(Timestamp::MIN, "b\n").unwrap();
        SinkWriter::<&str>::close(&mut writer).unwrap();
        writer.thread.finish().unwrap();
        let mut text = String::new();
        io::Read::read_to_string(&mut read, &mut text).unwrap();
        assert_eq!(text, "1> \"a\"\n1> \"b\\n\"\n");
    }

    #[test]
    fn a_reader_that_is_gone_ends_the_job_in_words() {
        let mut writer = writer(Print::new(), "", Gone);
        writer.write(Timestamp::MIN, 1).unwrap();
        SinkWriter::<i32>::close(&mut writer).unwrap();
        let fault = writer.thread.finish().unwrap_err().to_string();
        assert_eq!(
            fault,
            "can't print: whoever read the standard output is gone"
        );
    }
}
