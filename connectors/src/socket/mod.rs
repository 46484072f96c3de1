//! Lines of text over TCP: the simplest way to feed a job by hand, and to watch it.

mod read;
mod sink;
mod source;

pub use sink::{SocketSink, SocketWriter};
pub use source::{Reconnect, SocketLines, SocketReader};

#[cfg(test)]
mod tests;
