//! Places where a test can make things go wrong: with the feature `failpoints`, and nowhere else.

/// At this place the function fails, panics or pauses, as a test says or the environment variable
/// `FAILPOINTS`. Costs nothing unless the feature is on.
macro_rules! failpoint {
    ($name:expr) => {
        ::fail::fail_point!($name, |_| Err(tidegate_engine::fault::Fault::external(
            format_args!("failpoint {}", $name)
        )));
    };
}

pub(crate) use failpoint;
