//! What a type consists of, as serde shows it: the type is deserialized from nothing, a few times over,
//! and what it asks for is written down.
//!
//! Each time another variant of its enums is handed out, until all have been seen. What is inside itself
//! is not followed, and what can't be made of zeros and empty lists stays unknown from there on.

use super::node::{Node, Variant};
use serde::de::value::U32Deserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error, IntoDeserializer,
    MapAccess, SeqAccess, VariantAccess, Visitor,
};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How often a type is deserialized at most, how much is written down of it, and how deep it is.
const PASSES: usize = 256;
const NODES: usize = 2_000;
const DEPTH: usize = 48;
/// Tuples that are longer are arrays.
const TUPLE: usize = 16;

/// The shape of a type; `None` where nothing is known of it.
pub(super) fn trace<T: DeserializeOwned>() -> Option<String> {
    let mut root = Node::Unseen;
    let mut budget = Budget::default();
    for _ in 0..PASSES {
        let from = Tracer {
            node: &mut root,
            budget: &mut budget,
        };
        // Code of others that was never meant to see such values.
        let pass = catch_unwind(AssertUnwindSafe(|| T::deserialize(from).is_ok()));
        if pass.is_err() {
            return None;
        }
        if !root.is_open() {
            break;
        }
    }
    let shape = root.to_string();
    (shape != "?").then_some(shape)
}

#[derive(Default)]
struct Budget {
    nodes: usize,
    /// What is being deserialized: name and fields of each, and a variant that can be made.
    within: Vec<(&'static str, usize, Option<usize>)>,
    /// Above zero inside of something that is inside itself.
    cut: usize,
}

/// It can't be seen what is here.
#[derive(Debug)]
struct Stuck;

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the type can't be traced")
    }
}

impl std::error::Error for Stuck {}

impl Error for Stuck {
    fn custom<M: fmt::Display>(_: M) -> Self {
        Stuck
    }
}

/// Which variant to hand out.
fn choose(variants: &[Variant]) -> usize {
    let find = |is: &dyn Fn(&Variant) -> bool| variants.iter().position(is);
    find(&|v| v.tries == 0)
        .or_else(|| find(&|v| v.good && v.is_open()))
        .or_else(|| find(&|v| v.is_open() && v.tries < 2))
        .or_else(|| find(&|v| v.good))
        .unwrap_or(0)
}

struct Tracer<'n, 'b> {
    node: &'n mut Node,
    budget: &'b mut Budget,
}

impl Tracer<'_, '_> {
    fn is(&mut self, new: impl FnOnce() -> Node) {
        if matches!(self.node, Node::Unseen) {
            self.budget.nodes += 1;
            *self.node = new();
        }
    }

    /// Goes into something with a name and fields, or variants.
    fn enter<R>(
        mut self,
        (name, names): (&'static str, &'static [&'static str]),
        new: impl FnOnce() -> Node,
        inside: impl FnOnce(&mut Node, &mut Budget) -> Result<R, Stuck>,
    ) -> Result<R, Stuck> {
        if self.budget.within.len() > DEPTH || self.budget.nodes > NODES {
            return Err(Stuck);
        }
        let id = names.as_ptr() as usize + names.len();
        let mut outer = self.budget.within.iter();
        let outer = outer.find(|(known, other, _)| *known == name && *other == id);
        let known = outer.filter(|_| !name.is_empty()).copied();
        self.budget.within.push(known.unwrap_or((name, id, None)));
        let cut = known.is_some() || self.budget.cut > 0;
        let done = if cut {
            self.is(|| Node::Itself);
            let mut scratch = new();
            self.budget.cut += 1;
            let done = inside(&mut scratch, self.budget);
            self.budget.cut -= 1;
            done
        } else {
            self.is(new);
            inside(self.node, self.budget)
        };
        self.budget.within.pop();
        done
    }

    fn tuple<'de, V: Visitor<'de>>(
        self,
        name: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Stuck> {
        let new = || match length > TUPLE {
            true => Node::Many(format!("tuple{length}"), Node::unseen(1)),
            false => Node::Tuple(Node::unseen(length)),
        };
        self.enter((name, &[]), new, |node, budget| match node {
            Node::Many(_, parts) | Node::Tuple(parts) => visitor.visit_seq(Parts {
                parts,
                at: 0,
                length,
                budget,
            }),
            _ => Err(Stuck),
        })
    }

    fn fields<'de, V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stuck> {
        let new = || Node::Struct(fields, Node::unseen(fields.len()));
        self.enter((name, fields), new, |node, budget| match node {
            Node::Struct(_, parts) => visitor.visit_seq(Parts {
                parts,
                at: 0,
                length: fields.len(),
                budget,
            }),
            _ => Err(Stuck),
        })
    }

    /// An option, a sequence or a map, with an element of each unless that never ends.
    fn many<R>(
        self,
        what: &str,
        parts: usize,
        inside: impl FnOnce(&mut Vec<Node>, &mut Budget, bool) -> Result<R, Stuck>,
    ) -> Result<R, Stuck> {
        let new = || Node::Many(what.to_owned(), Node::unseen(parts));
        self.enter(("", &[]), new, |node, budget| {
            let empty = budget.cut > 0;
            match node {
                Node::Many(_, parts) => inside(parts, budget, empty),
                _ => Err(Stuck),
            }
        })
    }
}

macro_rules! plain {
    ($($method:ident $visit:ident $value:expr, $name:literal;)*) => {$(
        fn $method<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Stuck> {
            self.is(|| Node::Plain($name));
            visitor.$visit($value)
        }
    )*};
}

/// Ones rather than zeros, for types that can't be zero.
impl<'de> Deserializer<'de> for Tracer<'_, '_> {
    type Error = Stuck;

    plain! {
        deserialize_bool visit_bool true, "bool";
        deserialize_i8 visit_i8 1, "i8";
        deserialize_i16 visit_i16 1, "i16";
        deserialize_i32 visit_i32 1, "i32";
        deserialize_i64 visit_i64 1, "i64";
        deserialize_i128 visit_i128 1, "i128";
        deserialize_u8 visit_u8 1, "u8";
        deserialize_u16 visit_u16 1, "u16";
        deserialize_u32 visit_u32 1, "u32";
        deserialize_u64 visit_u64 1, "u64";
        deserialize_u128 visit_u128 1, "u128";
        deserialize_f32 visit_f32 1.0, "f32";
        deserialize_f64 visit_f64 1.0, "f64";
        deserialize_char visit_char '1', "char";
        deserialize_str visit_borrowed_str "1", "str";
        deserialize_string visit_string "1".to_owned(), "str";
        deserialize_bytes visit_borrowed_bytes b"1", "bytes";
        deserialize_byte_buf visit_byte_buf b"1".to_vec(), "bytes";
    }

    fn deserialize_unit<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Stuck> {
        self.is(|| Node::Plain("unit"));
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Stuck> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stuck> {
        self.many("option", 1, |parts, budget, empty| match empty {
            true => visitor.visit_none(),
            false => visitor.visit_some(Tracer {
                node: &mut parts[0],
                budget,
            }),
        })
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Stuck> {
        // It is stored as what it holds.
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stuck> {
        self.many("seq", 1, |parts, budget, empty| {
            visitor.visit_seq(Parts {
                parts,
                at: 0,
                length: usize::from(!empty),
                budget,
            })
        })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stuck> {
        self.many("map", 2, |parts, budget, empty| {
            visitor.visit_map(Parts {
                parts,
                at: 0,
                length: if empty { 0 } else { 2 },
                budget,
            })
        })
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Stuck> {
        self.tuple("", length, visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Stuck> {
        self.tuple(name, length, visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stuck> {
        self.fields(name, fields, visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stuck> {
        let variant = |name: &&'static str| Variant {
            name,
            tries: 0,
            good: false,
            content: Node::Unseen,
        };
        let new = || Node::Enum(variants.iter().map(variant).collect());
        self.enter((name, variants), new, |node, budget| {
            hand_out(node, budget, visitor)
        })
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Stuck> {
        Err(Stuck)
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Stuck> {
        Err(Stuck)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Stuck> {
        Err(Stuck)
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

fn hand_out<'de, V: Visitor<'de>>(
    node: &mut Node,
    budget: &mut Budget,
    visitor: V,
) -> Result<V::Value, Stuck> {
    let Node::Enum(variants) = node else {
        return Err(Stuck);
    };
    let cut = budget.cut > 0;
    let known = budget.within.last().and_then(|(_, _, good)| *good);
    let index = match cut {
        true => known.unwrap_or(0),
        false => choose(variants),
    };
    let first_good = variants.iter().position(|v| v.good);
    if let (false, Some((_, _, good))) = (cut, budget.within.last_mut()) {
        *good = first_good;
    }
    let chosen = variants.get_mut(index).ok_or(Stuck)?;
    chosen.tries += 1;
    let made = visitor.visit_enum(Choice {
        index: index as u32,
        content: &mut chosen.content,
        budget,
    })?;
    chosen.good = true;
    Ok(made)
}

/// The parts of a tuple, a struct, a sequence or a map; the last of them as often as asked.
struct Parts<'n, 'b> {
    parts: &'n mut [Node],
    at: usize,
    length: usize,
    budget: &'b mut Budget,
}

impl Parts<'_, '_> {
    fn next<'de, S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Stuck> {
        if self.at >= self.length {
            return Ok(None);
        }
        let place = self.at.min(self.parts.len().saturating_sub(1));
        self.at += 1;
        let node = self.parts.get_mut(place).ok_or(Stuck)?;
        let budget = &mut *self.budget;
        seed.deserialize(Tracer { node, budget }).map(Some)
    }
}

impl<'de> SeqAccess<'de> for Parts<'_, '_> {
    type Error = Stuck;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Stuck> {
        self.next(seed)
    }
}

impl<'de> MapAccess<'de> for Parts<'_, '_> {
    type Error = Stuck;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Stuck> {
        self.next(seed)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Stuck> {
        self.next(seed)?.ok_or(Stuck)
    }
}

/// A variant that is handed out.
struct Choice<'n, 'b> {
    index: u32,
    content: &'n mut Node,
    budget: &'b mut Budget,
}

impl<'de, 'n, 'b> EnumAccess<'de> for Choice<'n, 'b> {
    type Error = Stuck;
    type Variant = Tracer<'n, 'b>;

    fn variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, Self::Variant), Stuck> {
        let index: U32Deserializer<Stuck> = self.index.into_deserializer();
        let (node, budget) = (self.content, self.budget);
        Ok((seed.deserialize(index)?, Tracer { node, budget }))
    }
}

impl<'de> VariantAccess<'de> for Tracer<'_, '_> {
    type Error = Stuck;

    fn unit_variant(mut self) -> Result<(), Stuck> {
        self.is(|| Node::Plain(""));
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(mut self, seed: S) -> Result<S::Value, Stuck> {
        self.is(|| Node::Tuple(Node::unseen(1)));
        let Node::Tuple(parts) = self.node else {
            return Err(Stuck);
        };
        let (node, budget) = (parts.first_mut().ok_or(Stuck)?, self.budget);
        seed.deserialize(Tracer { node, budget })
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Stuck> {
        self.tuple("", length, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stuck> {
        self.fields("", fields, visitor)
    }
}
