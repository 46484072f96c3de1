//! Under what name a type is stored: its path, and what it consists of where the path doesn't tell.
//!
//! A struct that gains, loses or swaps fields keeps its path. The encoding holds no names, so what was
//! saved before would be read as something else. So the shape stands behind the path, as in
//! `job::Total ~{count:u64,last:option(str)}`. A name without a shape, from before there were any, is
//! compared by its path alone.

mod node;
mod trace;

use serde::de::DeserializeOwned;
use std::any::{TypeId, type_name};
use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};

/// What stands between a path and a shape.
const MARK: &str = " ~";

/// The longest shape that is stored as it is; of longer ones the checksum is enough to tell them apart.
const LONGEST: usize = 2_000;

/// The name that a type is stored under. It is worked out once for each type of a program, and kept.
pub fn stored_name<T: DeserializeOwned + 'static>() -> &'static str {
    static KNOWN: OnceLock<Mutex<HashMap<TypeId, &'static str>>> = OnceLock::new();
    let path = type_name::<T>();
    if !has_foreign_path(path) {
        return path;
    }
    let known = KNOWN.get_or_init(Mutex::default);
    if let Some(name) = lock(known).get(&TypeId::of::<T>()) {
        return name;
    }
    // Without the lock: it calls code of the type.
    let name: &'static str = match trace::trace::<T>() {
        Some(shape) => Box::leak(format!("{path}{MARK}{}", shortened(shape)).into_boxed_str()),
        None => path,
    };
    lock(known).entry(TypeId::of::<T>()).or_insert(name)
}

fn lock<'a>(
    known: &'a Mutex<HashMap<TypeId, &'static str>>,
) -> std::sync::MutexGuard<'a, HashMap<TypeId, &'static str>> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

fn shortened(shape: String) -> String {
    match shape.len() > LONGEST {
        true => format!("h{:016x}", super::Checksum::of(shape.as_bytes()).0),
        false => shape,
    }
}

/// Whether a type has parts that are not of the standard library, whose paths don't tell what they hold.
fn has_foreign_path(path: &str) -> bool {
    let mut words = path.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
    words.any(|word| {
        let root = word.split_once("::").map(|(root, _)| root);
        root.is_some_and(|root| !matches!(root, "alloc" | "core" | "std" | ""))
    })
}

/// A stored name without the shapes in it.
pub fn paths_only(name: &str) -> String {
    let mut paths = String::new();
    let mut rest = name;
    while let Some((path, shape)) = rest.split_once(MARK) {
        paths.push_str(path);
        rest = shape;
        skip(&mut rest);
    }
    paths + rest
}

/// Whether a stored name has a shape in it.
pub(crate) fn has_shape(name: &str) -> bool {
    name.contains(MARK)
}

/// The name of a type as if it had the shape of another one, where both are known.
pub(crate) fn with_shape_of(name: &str, other: &str) -> Option<String> {
    let (path, _) = name.split_once(MARK)?;
    let (_, shape) = other.split_once(MARK)?;
    Some(format!("{path}{MARK}{shape}"))
}

/// Whether what was saved under this name can be read under that one. An enum may have got more variants
/// behind those that it had; and what isn't known of one of them is not compared.
pub(crate) fn fits<'a>(mut saved: &'a str, mut now: &'a str) -> bool {
    loop {
        let (marked, marks) = (saved.starts_with(MARK), now.starts_with(MARK));
        if marked && marks {
            advance(&mut saved, MARK.len());
            advance(&mut now, MARK.len());
            if !same(&mut saved, &mut now) {
                return false;
            }
        } else if marked || marks {
            for shaped in [&mut saved, &mut now] {
                if shaped.starts_with(MARK) {
                    advance(shaped, MARK.len());
                    skip(shaped);
                }
            }
        } else {
            match (saved.chars().next(), now.chars().next()) {
                (None, None) => return true,
                (Some(a), Some(b)) if a == b => {
                    advance(&mut saved, a.len_utf8());
                    advance(&mut now, b.len_utf8());
                }
                _ => return false,
            }
        }
    }
}

fn advance(text: &mut &str, by: usize) {
    *text = &text[by..];
}

/// The word at the beginning, taken off.
fn word<'a>(text: &mut &'a str) -> &'a str {
    let end = text.find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '^')));
    let (word, rest) = text.split_at(end.unwrap_or(text.len()));
    *text = rest;
    word
}

fn take(text: &mut &str, char: char) -> bool {
    let rest = text.strip_prefix(char);
    *text = rest.unwrap_or(text);
    rest.is_some()
}

/// Compares the parts at the beginning of both, and takes them off.
fn same(saved: &mut &str, now: &mut &str) -> bool {
    if saved.starts_with('?') || now.starts_with('?') {
        skip(saved);
        skip(now);
        return true;
    }
    if word(saved) != word(now) {
        return false;
    }
    if saved.starts_with(":?") || now.starts_with(":?") {
        skip(saved);
        skip(now);
        return true;
    }
    match (take(saved, ':'), take(now, ':')) {
        (true, true) => return same(saved, now),
        (false, false) => {}
        _ => return false,
    }
    for (open, close) in [('{', '}'), ('(', ')'), ('<', '>')] {
        match (take(saved, open), take(now, open)) {
            (true, true) => return same_parts(saved, now, close),
            (false, false) => {}
            _ => return false,
        }
    }
    true
}

fn same_parts(saved: &mut &str, now: &mut &str, close: char) -> bool {
    loop {
        match (take(saved, close), take(now, close)) {
            (true, true) => return true,
            // What was saved can't be of a variant that is new.
            (true, false) if close == '>' => {
                while !now.is_empty() && !take(now, close) {
                    separator(now);
                    skip(now);
                }
                return true;
            }
            (false, false) if saved.is_empty() || now.is_empty() => return false,
            (false, false) => {}
            _ => return false,
        }
        if !same(saved, now) {
            return false;
        }
        separator(saved);
        separator(now);
    }
}

fn separator(text: &mut &str) {
    let _ = take(text, ',') || take(text, '|');
}

/// Takes the part at the beginning off.
fn skip(text: &mut &str) {
    if take(text, '?') {
        return;
    }
    word(text);
    if take(text, ':') {
        return skip(text);
    }
    for (open, close) in [('{', '}'), ('(', ')'), ('<', '>')] {
        if take(text, open) {
            while !text.is_empty() && !take(text, close) {
                let before = text.len();
                separator(text);
                skip(text);
                if text.len() == before {
                    // Not of our making: it fits nothing.
                    return;
                }
            }
            return;
        }
    }
}

#[cfg(test)]
#[path = "shape_tests.rs"]
mod tests;
