//! Shapes tell types apart that go by the same path, and keep together what can be read.

use super::*;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::num::NonZeroU32;
use std::time::Duration;

mod before {
    use super::*;

    #[derive(Serialize, Deserialize)]
    pub struct Total {
        count: u64,
        sum: u64,
    }

    #[derive(Serialize, Deserialize)]
    pub enum Kind {
        A,
        B(u64),
    }
}

#[derive(Serialize, Deserialize)]
struct Unit;

#[derive(Serialize, Deserialize)]
struct Wrapped(i64);

#[derive(Serialize, Deserialize)]
enum Kind {
    A,
    B(u64),
    C { at: i64, inner: Option<Box<Kind>> },
    D(Wrapped, Vec<String>),
}

#[derive(Serialize, Deserialize)]
struct All {
    kind: Kind,
    other: Result<u8, String>,
    named: HashMap<String, Vec<Wrapped>>,
    one: NonZeroU32,
    last: (Unit, [u8; 3], [u16; 20], Duration, char),
}

#[derive(Serialize, Deserialize)]
struct List {
    item: u8,
    next: Option<Box<List>>,
    more: Vec<List>,
}

#[derive(Serialize, Deserialize)]
enum Expression {
    Add(Box<Expression>, Box<Expression>),
    Number(f64),
}

/// Can't be made of what the tracer has.
#[derive(Serialize)]
struct Picky;

impl<'de> Deserialize<'de> for Picky {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match String::deserialize(from)?.as_str() {
            "picky" => Ok(Picky),
            _ => Err(serde::de::Error::custom("not picky")),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct HasPicky {
    before: u8,
    picky: Picky,
    behind: u8,
}

#[derive(Serialize)]
struct Panics;

impl<'de> Deserialize<'de> for Panics {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        panic!("not like this")
    }
}

fn shape<T: DeserializeOwned + 'static>() -> String {
    let name = stored_name::<T>();
    let shape = name.split_once(MARK).map(|(_, shape)| shape);
    shape.unwrap_or("none").to_owned()
}

#[test]
fn a_shape_tells_fields_variants_and_types() {
    assert_eq!(shape::<before::Total>(), "{count:u64,sum:u64}");
    assert_eq!(shape::<Wrapped>(), "i64");
    let kind = "<A|B(u64)|C{at:i64,inner:option(^)}|D(i64,seq(str))>";
    assert_eq!(shape::<Kind>(), kind);
    let rest = "other:<Ok(u8)|Err(str)>,named:map(str,seq(i64)),one:u32,\
                last:(unit,(u8,u8,u8),tuple20(u16),{secs:u64,nanos:u32},char)";
    assert_eq!(shape::<All>(), format!("{{kind:{kind},{rest}}}"));
}

#[test]
fn what_is_inside_itself_ends() {
    let list = "{item:u8,next:option(^),more:seq(^)}";
    assert_eq!(shape::<List>(), list);
    assert_eq!(shape::<Expression>(), "<Add(^,^)|Number(f64)>");
}

#[test]
fn types_of_the_standard_library_go_by_their_path_alone() {
    type Known = (u64, BTreeMap<String, Option<Vec<u8>>>, HashSet<Duration>);
    assert_eq!(stored_name::<Known>(), type_name::<Known>());
    assert_ne!(stored_name::<Vec<Unit>>(), type_name::<Vec<Unit>>());
}

#[test]
fn what_cant_be_traced_is_unknown_from_there_on_and_a_panic_is_no_matter() {
    assert_eq!(shape::<HasPicky>(), "{before:u8,picky:str,behind:?}");
    assert_eq!(shape::<Panics>(), "none");
}

#[test]
fn a_change_does_not_fit_and_what_changes_nothing_does() {
    let fits = |a: &str, b: &str| {
        fits(
            &format!("map of u8 to x::T ~{a}"),
            &format!("map of u8 to x::T ~{b}"),
        )
    };
    let total = "{count:u64,sum:u64}";
    assert!(fits(total, total));
    for other in [
        "{count:u64,sum:u64,last:u64}",
        "{sum:u64,count:u64}",
        "{count:u64}",
        "{count:u64,sum:i64}",
        "{count:u64,sum:option(u64)}",
        "(u64,u64)",
        "u64",
        "",
        "{count:u64,sum:u64",
        "}{",
    ] {
        assert!(!fits(total, other), "{other}");
        assert!(!fits(other, total), "{other}");
    }
    let kinds = "{k:<A|B(u64)>,n:u8}";
    assert!(
        fits(kinds, "{k:<A|B(u64)|C{x:<P|Q>}|D>,n:u8}"),
        "behind the others"
    );
    assert!(
        !fits("{k:<A|B(u64)|C>,n:u8}", kinds),
        "one was saved that is gone"
    );
    assert!(!fits(kinds, "{k:<C|A|B(u64)>,n:u8}"), "before the others");
    assert!(!fits(kinds, "{k:<A|B(u64)|C>,n:u16}"));
    assert!(fits(
        "{k:<A|B:?>,n:?}",
        "{k:<A|B{a:u8,b:(u8,u8)}>,n:seq(u8)}"
    ));
    assert!(!fits("{k:<A|B:?>,n:?}", "{k:<A|C>,n:?}"));
}

#[test]
fn a_name_from_before_there_were_shapes_fits_by_its_path() {
    let now = "map of k::K ~{a:u8} to expiring v::V ~<A|B(u8)>";
    assert!(fits("map of k::K to expiring v::V", now));
    assert!(fits(now, "map of k::K to expiring v::V"));
    assert!(!fits("map of k::K to v::V", now));
    assert_eq!(paths_only(now), "map of k::K to expiring v::V");
    let renamed = with_shape_of("b::New ~{a:u8}", "a::Old ~{b:u8}");
    assert_eq!(renamed.as_deref(), Some("b::New ~{b:u8}"));
}

#[test]
fn a_variant_behind_the_others_reads_what_was_saved() {
    assert!(
        !fits(stored_name::<before::Kind>(), stored_name::<Kind>()),
        "the paths"
    );
    let bytes = crate::checkpoint::codec::encode(&(before::Kind::B(7), 9u8)).expect("encodes");
    let read = crate::checkpoint::codec::decode::<(Kind, u8)>(&bytes).expect("decodes");
    assert!(matches!(read, (Kind::B(7), 9)));
}
