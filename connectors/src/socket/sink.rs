//! A sink that sends lines to a TCP server.

use super::read::connect;
use crate::background::{self, Background};
use std::fmt::Display;
use std::io::Write;
use std::net::{Shutdown, TcpStream};
use tidegate_engine::build::OpenContext;
use tidegate_engine::fault::{Fault, Flow};
use tidegate_engine::sink::{Sink, SinkWriter};
use tidegate_engine::time::Timestamp;

const BUFFER: usize = 64 * 1024;

/// Sends each record, as it displays itself, as a line to a TCP server. Each subtask has a connection of
/// its own. A connection that breaks ends the job: nobody knows what of it arrived.
///
/// A checkpoint waits until what it covers is sent, which is not to say received: this protocol has no
/// answers. What was sent behind it is sent again after a recovery.
#[derive(Clone, Debug)]
pub struct SocketSink {
    address: String,
}

impl SocketSink {
    /// Lines to `host:port`.
    pub fn connect(address: impl Into<String>) -> Self {
        SocketSink {
            address: address.into(),
        }
    }
}

impl<T: Display + 'static> Sink<T> for SocketSink {
    type Writer = SocketWriter;

    fn open(&self, context: &mut OpenContext<'_>) -> Flow<SocketWriter> {
        let connection = Connection {
            address: self.address.clone(),
            stream: None,
        };
        let thread = Background::start(connection, context.waker())?.detached();
        Ok(SocketWriter {
            buffer: Vec::new(),
            thread,
        })
    }
}

struct Connection {
    address: String,
    stream: Option<TcpStream>,
}

impl Connection {
    #[cold]
    fn failed(&self, error: &std::io::Error) -> Fault {
        Fault::external(format_args!(
            "can't send to {}: {error}; is the server running there?",
            self.address
        ))
    }
}

impl background::Write for Connection {
    fn write(&mut self, bytes: &mut Vec<u8>) -> Flow {
        let stream = match self.stream.take() {
            Some(stream) => stream,
            None => connect(&self.address).map_err(|error| self.failed(&error))?,
        };
        self.stream
            .insert(stream)
            .write_all(bytes)
            .map_err(|error| self.failed(&error))
    }

    fn end(&mut self) -> Flow {
        let Some(stream) = self.stream.take() else {
            return Ok(());
        };
        stream
            .shutdown(Shutdown::Write)
            .map_err(|error| self.failed(&error))
    }
}

/// Sends the records of one subtask.
pub struct SocketWriter {
    buffer: Vec<u8>,
    thread: Background,
}

impl SocketWriter {
    fn hand_over(&mut self) -> Flow {
        if self.buffer.is_empty() {
            return self.thread.pump();
        }
        let full = std::mem::replace(&mut self.buffer, self.thread.buffer());
        self.thread.write(full)
    }
}

impl<T: Display + 'static> SinkWriter<T> for SocketWriter {
    fn write(&mut self, _at: Timestamp, value: T) -> Flow {
        writeln!(self.buffer, "{value}").map_err(Fault::internal)?;
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
