//! The points at which a test can make a process die, as the sources name them.

use crate::processes::root;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Where there are some.
const FOLDERS: [&str; 2] = ["actors/src", "connectors/src"];
/// What each macro's use begins with.
const USES: [&str; 3] = ["failpoint!(\"", "fail_point!(\"", "may_fail!(\""];

/// All points, by name: so no test leaves one out that somebody adds.
pub fn all() -> Vec<String> {
    let mut points = BTreeSet::new();
    for folder in FOLDERS {
        collect(&root().join(folder), &mut points);
    }
    points.into_iter().collect()
}

/// Of points that only a job with a server of its own comes by: what their names begin with.
const ELSEWHERE: [&str; 2] = ["object_store::", "kafka_"];

/// Of points that only a job comes by whose state spills: what their names begin with.
const SPILLING: &str = "state_backend::";

/// Those that a job with files alone can come by, its state in memory.
pub fn local() -> Vec<String> {
    let mut points = all();
    let elsewhere = |point: &String| ELSEWHERE.iter().any(|begin| point.starts_with(begin));
    points.retain(|point| !elsewhere(point) && !point.starts_with(SPILLING));
    points
}

/// Those around what state does that spills.
pub fn spilling() -> Vec<String> {
    let mut points = all();
    points.retain(|point| point.starts_with(SPILLING) || point.ends_with("_shared"));
    points
}

fn collect(folder: &Path, points: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, points);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(&path).unwrap_or_default();
            for used in USES {
                let names = text.split(used).skip(1);
                points.extend(names.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
            }
        }
    }
}
