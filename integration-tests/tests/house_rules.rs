//! The house rules, executable: what a reviewer would otherwise have to remember.
//!
//! A rule is a function from the checkout to a list of complaints, each of which names the file,
//! the line and the reason. `RULES` lists the rules, `BANS` the calls that are banned. Every entry
//! carries a sample that breaks it, and the tests at the end prove that it does: a rule that
//! can't fail guards nothing.

#[path = "house_rules/checkout.rs"]
mod checkout;
#[path = "house_rules/code.rs"]
mod code;

use checkout::{Checkout, File, Lengths};
use code::{code_of, contains_word, has_safety_comment, numbered};

struct Rule {
    name: &'static str,
    check: fn(&Checkout) -> Vec<String>,
    /// A file, by path and text, that breaks the rule.
    broken_by: (&'static str, &'static str),
}

const RULES: &[Rule] = &[
    Rule {
        name: "every file opens with its problem",
        check: opens_with_purpose,
        broken_by: (
            "engine/src/window.rs",
            "use std::fmt;\n\n// A window.\nstruct Window;\n",
        ),
    },
    Rule {
        name: "crates depend one way",
        check: manifests_point_down,
        broken_by: (
            "engine/Cargo.toml",
            "[dependencies]\ntidegate-actors.workspace = true\n",
        ),
    },
    Rule {
        name: "sources import one way",
        check: sources_point_down,
        broken_by: (
            "connectors/src/file.rs",
            "//! Files.\nuse tidegate_actors::Mailbox;\n",
        ),
    },
    Rule {
        name: "banned calls",
        check: banned_calls,
        broken_by: (
            "cluster/src/job.rs",
            "//! Jobs.\nfn f() { std::thread::sleep(LONG) }\n",
        ),
    },
    Rule {
        name: "unsafe code lives in one place",
        check: unsafe_in_its_place,
        broken_by: (
            "actors/src/ring.rs",
            "//! A ring.\n// SAFETY: trust me\nunsafe { f() }\n",
        ),
    },
    Rule {
        name: "unsafe code says why it is sound",
        check: unsafe_is_explained,
        broken_by: (
            "engine/src/memory/pool.rs",
            "//! A pool.\nunsafe impl Send for Pool {}\n",
        ),
    },
    Rule {
        name: "files stay small",
        check: files_stay_small,
        broken_by: LONG_FILE,
    },
    Rule {
        name: "the top level stays tidy",
        check: top_level_is_tidy,
        broken_by: ("notes.txt", "later"),
    },
];

/// Stands for a file with a line more than `MAX_LINES`, which no literal should spell out.
const LONG_FILE: (&str, &str) = ("engine/src/everything.rs", "");

/// Which crate may use which. The root package and the integration tests may use all.
const ARROWS: &[(&str, &[&str])] = &[
    ("engine", &[]),
    ("actors", &["tidegate-engine"]),
    ("connectors", &["tidegate-engine"]),
    ("cluster", &["tidegate-engine", "tidegate-actors"]),
];

const TOP_LEVEL: &[&str] = &[
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "Makefile",
    "README.md",
    "actors",
    "cluster",
    "connectors",
    "engine",
    "examples",
    "integration-tests",
    "src",
];

const UNSAFE_HOME: &str = "engine/src/memory/";

/// At most one source file in twenty may be longer.
const MAX_LINES: usize = 500;

struct Ban {
    call: &'static str,
    within: Within,
    because: &'static str,
    /// A line that breaks the ban.
    broken_by: &'static str,
}

#[derive(Clone, Copy, PartialEq)]
enum Within {
    /// Everything that ships: no tests, no examples.
    Product,
    /// What ships and the tests too.
    ProductAndTests,
    /// The four crates; the root package's command line talks to a person.
    Libraries,
    Engine,
}

const BANS: &[Ban] = &[
    Ban {
        call: "todo!(",
        within: Within::Product,
        because: "it panics in a user's job: finish it, or return an error that says what is missing",
        broken_by: "fn f() { todo!(\"windows\") }",
    },
    Ban {
        call: "unimplemented!(",
        within: Within::Product,
        because: "it panics in a user's job: finish it, or return an error that says what is missing",
        broken_by: "fn f() { unimplemented!() }",
    },
    Ban {
        call: ".unwrap()",
        within: Within::Product,
        because: "return the error, or say in `expect` why it can't happen",
        broken_by: "fn f(x: Option<u8>) -> u8 { x.unwrap() }",
    },
    Ban {
        call: "thread::sleep",
        within: Within::ProductAndTests,
        because: "a fixed sleep is too short or too long: wait for a condition with a deadline, \
                  or move the clock that the code is handed",
        broken_by: "fn f() { std::thread::sleep(PAUSE) }",
    },
    Ban {
        call: "println!(",
        within: Within::Libraries,
        because: "a library doesn't own the terminal: use tracing, or write to what it was handed",
        broken_by: "fn f() { println!(\"here\") }",
    },
    Ban {
        call: "Instant::now",
        within: Within::Engine,
        because: "the engine has no clock but the one handed in, so that tests move it by hand",
        broken_by: "fn f() -> Instant { Instant::now() }",
    },
    Ban {
        call: "SystemTime::now",
        within: Within::Engine,
        because: "the engine has no clock but the one handed in, so that tests move it by hand",
        broken_by: "fn f() -> SystemTime { std::time::SystemTime::now() }",
    },
    Ban {
        call: "thread::spawn",
        within: Within::Engine,
        because: "the engine is synchronous: what runs on which thread is the actors' affair",
        broken_by: "fn f() { std::thread::spawn(work); }",
    },
];

impl Within {
    fn covers(self, file: &File, in_tests: bool) -> bool {
        if file.is_example() {
            return false;
        }
        match self {
            Within::ProductAndTests => true,
            Within::Product => !in_tests,
            Within::Libraries => !in_tests && ARROWS.iter().any(|(folder, _)| file.is_in(folder)),
            Within::Engine => !in_tests && file.is_in("engine"),
        }
    }
}

fn opens_with_purpose(checkout: &Checkout) -> Vec<String> {
    let silent = |file: &&File| {
        !file
            .text
            .lines()
            .take(3)
            .any(|line| line.starts_with("//!"))
    };
    let complain = |file: &File| {
        format!(
            "{}: open with `//!` and say which problem the file solves",
            file.path
        )
    };
    checkout.sources().filter(silent).map(complain).collect()
}

fn manifests_point_down(checkout: &Checkout) -> Vec<String> {
    let mut complaints = Vec::new();
    for (folder, may_use) in ARROWS {
        let path = format!("{folder}/Cargo.toml");
        for manifest in checkout.files.iter().filter(|file| file.path == path) {
            for dependency in code::our_dependencies(&manifest.text) {
                if !may_use.contains(&dependency.as_str()) {
                    let allowance = allowance(may_use);
                    complaints.push(format!(
                        "{path}: {folder} must not depend on {dependency}; {allowance}"
                    ));
                }
            }
        }
    }
    complaints
}

fn sources_point_down(checkout: &Checkout) -> Vec<String> {
    let mut complaints = Vec::new();
    for (folder, may_use) in ARROWS {
        let own = format!("tidegate-{folder}");
        for file in checkout.sources().filter(|file| file.is_in(folder)) {
            for (number, line) in numbered(&code_of(&file.text)) {
                for used in code::our_crates_named_in(line) {
                    if used != own && !may_use.contains(&used.as_str()) {
                        let allowance = allowance(may_use);
                        complaints.push(format!(
                            "{}:{number}: {folder} must not use {used}; {allowance}",
                            file.path
                        ));
                    }
                }
            }
        }
    }
    complaints
}

fn allowance(may_use: &[&str]) -> String {
    let crates = if may_use.is_empty() {
        "none".to_owned()
    } else {
        may_use.join(" and ")
    };
    format!("of our crates it may use {crates} (the arrow runs one way)")
}

fn banned_calls(checkout: &Checkout) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in checkout.sources() {
        let tests_from = file.tests_from();
        for (number, line) in numbered(&code_of(&file.text)) {
            let in_tests = number >= tests_from;
            for ban in BANS.iter().filter(|ban| ban.within.covers(file, in_tests)) {
                if contains_word(line, ban.call) {
                    complaints.push(format!(
                        "{}:{number}: `{}`: {}",
                        file.path, ban.call, ban.because
                    ));
                }
            }
        }
    }
    complaints
}

fn unsafe_in_its_place(checkout: &Checkout) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in checkout
        .sources()
        .filter(|file| !file.path.starts_with(UNSAFE_HOME))
    {
        for (number, line) in numbered(&code_of(&file.text)) {
            if contains_word(line, "unsafe") {
                complaints.push(format!(
                    "{}:{number}: `unsafe` belongs into {UNSAFE_HOME}, behind a safe interface",
                    file.path
                ));
            }
        }
    }
    complaints
}

fn unsafe_is_explained(checkout: &Checkout) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in checkout.sources() {
        let lines: Vec<&str> = file.text.lines().collect();
        for (number, line) in numbered(&code_of(&file.text)) {
            let claims = contains_word(line, "unsafe {") || contains_word(line, "unsafe impl");
            if claims && !has_safety_comment(&lines, number - 1) {
                complaints.push(format!(
                    "{}:{number}: put a `// SAFETY:` comment above that says why it is sound",
                    file.path
                ));
            }
        }
    }
    complaints
}

fn files_stay_small(checkout: &Checkout) -> Vec<String> {
    let too_long = Lengths::of(checkout).filter(|lengths| lengths.p95 > MAX_LINES);
    let complain = |lengths| {
        format!("{lengths}: split by subject, so that 95 % have at most {MAX_LINES} lines")
    };
    too_long.map(complain).into_iter().collect()
}

fn top_level_is_tidy(checkout: &Checkout) -> Vec<String> {
    let mut entries: Vec<&str> = checkout
        .files
        .iter()
        .filter_map(|file| file.path.split('/').next())
        .collect();
    entries.sort_unstable();
    entries.dedup();
    entries.retain(|entry| !entry.starts_with('.') && !TOP_LEVEL.contains(entry));
    let complain = |entry: &str| {
        format!("{entry}: may not lie at the top level; what tools need goes into a dot folder")
    };
    entries.into_iter().map(complain).collect()
}

#[test]
fn the_house_keeps_its_rules() {
    let checkout = Checkout::here();
    let mut report = String::new();
    for rule in RULES {
        let complaints = (rule.check)(&checkout);
        if !complaints.is_empty() {
            report += &format!("\nRule: {}\n  {}\n", rule.name, complaints.join("\n  "));
        }
    }
    if let Some(lengths) = Lengths::of(&checkout) {
        println!("{lengths}");
    }
    assert!(report.is_empty(), "the house rules are broken:\n{report}");
}

fn checkout_of(files: &[(&str, &str)]) -> Checkout {
    let file = |(path, text): &(&str, &str)| File {
        path: (*path).into(),
        text: (*text).into(),
    };
    Checkout {
        files: files.iter().map(file).collect(),
    }
}

fn complaints_about(rule: fn(&Checkout) -> Vec<String>, path: &str, text: &str) -> Vec<String> {
    rule(&checkout_of(&[(path, text)]))
}

#[test]
fn every_rule_can_fail() {
    let long = "//! Too long.\n".repeat(MAX_LINES + 1);
    for rule in RULES {
        let (path, text) = rule.broken_by;
        let text = if rule.broken_by == LONG_FILE {
            &long
        } else {
            text
        };
        let complaints = complaints_about(rule.check, path, text);
        assert_eq!(complaints.len(), 1, "{}: {complaints:?}", rule.name);
        assert!(
            complaints[0].contains(path),
            "{} does not name {path}",
            complaints[0]
        );
    }
}

#[test]
fn every_ban_can_fail() {
    for ban in BANS {
        let text = format!("//! A file.\n\n{}\n", ban.broken_by);
        let expected = format!("engine/src/x.rs:3: `{}`: {}", ban.call, ban.because);
        assert_eq!(
            complaints_about(banned_calls, "engine/src/x.rs", &text),
            [expected]
        );

        let in_test = format!(
            "//! A file.\n\n#[cfg(test)]\nmod tests {{\n{}\n}}\n",
            ban.broken_by
        );
        let held_in_tests = usize::from(ban.within == Within::ProductAndTests);
        for (path, text) in [("engine/src/x.rs", &in_test), ("engine/tests/x.rs", &text)] {
            let complaints = complaints_about(banned_calls, path, text);
            assert_eq!(complaints.len(), held_in_tests, "{path}: {complaints:?}");
        }
        assert_eq!(
            complaints_about(banned_calls, "examples/x.rs", &text),
            [""; 0]
        );
    }
}

#[test]
fn bans_hold_where_they_are_meant_to() {
    let check = |path, text| complaints_about(banned_calls, path, text).len();
    let prints = "fn main() { println!(\"tidegate\") }\n";
    assert_eq!(check("actors/src/x.rs", prints), 1);
    assert_eq!(check("src/main.rs", prints), 0);
    assert_eq!(check("actors/src/x.rs", "eprintln!(\"x\")"), 0);
    assert_eq!(check("actors/src/x.rs", "fn f() { Instant::now(); }\n"), 0);

    // The module lies in another file; what follows the declaration still ships.
    let declares_tests = "#[cfg(test)]\nmod tests;\nfn f() { x.unwrap() }\n";
    assert_eq!(check("engine/src/x.rs", declares_tests), 1);
}

#[test]
fn arrows_are_read_from_every_kind_of_dependency() {
    let check = |path, manifest| complaints_about(manifests_point_down, path, manifest).len();
    let wrong = [
        "[dependencies]\ntidegate-cluster = { path = \"../cluster\" }\n",
        "[dependencies]\nrunner = { package = \"tidegate-actors\", path = \"../actors\" }\n",
        "[dependencies.tidegate-actors]\nworkspace = true\n",
        "[target.'cfg(unix)'.dependencies]\ntidegate.workspace = true\n",
        "[build-dependencies]\ntidegate-connectors.workspace = true\n",
    ];
    for manifest in wrong {
        assert_eq!(check("engine/Cargo.toml", manifest), 1, "{manifest}");
    }
    let right = [
        (
            "actors/Cargo.toml",
            "[dependencies]\ntidegate-engine.workspace = true\n",
        ),
        (
            "cluster/Cargo.toml",
            "[dependencies]\ntidegate-actors.workspace = true # not upward\n",
        ),
        (
            "engine/Cargo.toml",
            "[package]\nname = \"tidegate-engine\"\n",
        ),
        (
            "engine/Cargo.toml",
            "[dependencies]\nserde = \"1\" # not tidegate-actors\n",
        ),
        (
            "engine/Cargo.toml",
            "[dev-dependencies]\ntidegate-actors.workspace = true\n",
        ),
    ];
    for (path, manifest) in right {
        assert_eq!(check(path, manifest), 0, "{manifest}");
    }
}

#[test]
fn imports_are_seen_in_paths_and_not_in_prose() {
    let check = |text| complaints_about(sources_point_down, "actors/src/x.rs", text).len();
    assert_eq!(check("fn f() -> tidegate_cluster::Job {}"), 1);
    assert_eq!(check("use tidegate::prelude::*;"), 1);
    assert_eq!(
        check("use tidegate_engine::Record;\nuse tidegate_actors::Credit;"),
        0
    );
    assert_eq!(
        check("//! `tidegate_cluster` starts these.\nlet name = \"tidegate::x\";"),
        0
    );
}

#[test]
fn unsafe_is_found_in_code_and_explained_above_its_statement() {
    let check = |text| complaints_about(unsafe_is_explained, "engine/src/memory/x.rs", text).len();
    let explained =
        "// SAFETY: the pool owns it\n// alone.\n#[inline]\nlet x =\n    unsafe { f() };\n";
    let stale = "// SAFETY: of another statement\nlet y = 1;\nlet x = unsafe { f() };\n";
    assert_eq!((check(explained), check(stale)), (0, 1));

    let named = "#![deny(unsafe_code)]\n// unsafe\nlet s = \"unsafe\";\n";
    assert_eq!(
        complaints_about(unsafe_in_its_place, "actors/src/x.rs", named),
        [""; 0]
    );
}

#[test]
fn a_few_long_files_are_borne() {
    let long = "x\n".repeat(MAX_LINES + 1);
    let mut files = vec![("engine/src/long.rs", long.as_str())];
    files.resize(20, ("engine/src/short.rs", "x\n"));
    files.push(("engine/tests/long.rs", long.as_str()));
    assert_eq!(files_stay_small(&checkout_of(&files)), [""; 0]);
    files.push(("engine/src/long_too.rs", long.as_str()));
    assert_eq!(files_stay_small(&checkout_of(&files)).len(), 1);
}
