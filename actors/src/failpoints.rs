//! Points at which a test makes a process fail or die: with the feature `failpoints`, and nowhere else.
//!
//! `FAILPOINTS=name=actions;...` sets them when a job starts. Besides the actions of the crate `fail` there is one
//! more: `exit` ends the process at the point as a kill does, without any destructor; `3*exit` when it is reached
//! for the third time. What stands in the log then is the moment.

/// At this place the process fails, dies or pauses, as `FAILPOINTS` says. Costs nothing unless the feature is on.
macro_rules! failpoint {
    ($name:expr) => {
        ::fail::fail_point!($name)
    };
}

pub(crate) use failpoint;

/// Sets the points that `FAILPOINTS` names, once for the whole process.
#[cfg(feature = "failpoints")]
pub(crate) fn from_environment() {
    static SET: std::sync::Once = std::sync::Once::new();
    SET.call_once(|| {
        let Ok(points) = std::env::var("FAILPOINTS") else {
            return;
        };
        for point in points.split(';').filter(|point| !point.is_empty()) {
            if let Err(error) = set(point) {
                tracing::error!("FAILPOINTS: '{point}': {error}");
            }
        }
    });
}

/// Nothing is to be set.
#[cfg(not(feature = "failpoints"))]
pub(crate) fn from_environment() {}

#[cfg(feature = "failpoints")]
fn set(point: &str) -> Result<(), String> {
    let (name, actions) = point.split_once('=').ok_or("it is not name=actions")?;
    let times = match actions.strip_suffix("exit") {
        None => return fail::cfg(name, actions),
        Some("") => 1,
        Some(times) => times
            .strip_suffix('*')
            .and_then(|times| times.parse::<u64>().ok())
            .ok_or("give exit, or TIMES*exit")?,
    };
    let (reached, place) = (std::sync::atomic::AtomicU64::new(0), name.to_owned());
    fail::cfg_callback(name, move || {
        let before = reached.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        if before + 1 == times {
            tracing::warn!(times, "dies at {place}");
            std::process::abort();
        }
    })
}

#[cfg(all(test, feature = "failpoints"))]
mod tests {
    use super::set;

    #[test]
    fn what_makes_no_sense_is_told() {
        assert!(set("nowhere").is_err());
        assert!(set("nowhere::at_all=often*exit").is_err());
        assert!(set("nowhere::at_all=7*exit").is_ok());
        fail::remove("nowhere::at_all");
    }
}
