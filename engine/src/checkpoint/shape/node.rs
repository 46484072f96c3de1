//! What is known of a type, and how it is written down.

use std::fmt;

/// What is known of a part of a type.
pub(super) enum Node {
    Unseen,
    /// What it is inside of.
    Itself,
    Plain(&'static str),
    /// An option, a sequence, a map, a long tuple.
    Many(String, Vec<Node>),
    Tuple(Vec<Node>),
    Struct(&'static [&'static str], Vec<Node>),
    Enum(Vec<Variant>),
}

pub(super) struct Variant {
    pub name: &'static str,
    pub tries: usize,
    pub good: bool,
    pub content: Node,
}

impl Node {
    pub fn unseen(count: usize) -> Vec<Node> {
        (0..count).map(|_| Node::Unseen).collect()
    }

    /// Whether there are variants that have not been handed out.
    pub fn is_open(&self) -> bool {
        match self {
            Node::Many(_, parts) | Node::Tuple(parts) | Node::Struct(_, parts) => {
                parts.iter().any(Node::is_open)
            }
            Node::Enum(variants) => variants.iter().any(Variant::is_open),
            _ => false,
        }
    }
}

impl Variant {
    /// One that failed is tried again: by then, what it is made of may be known.
    pub fn is_open(&self) -> bool {
        self.tries == 0 || (!self.good && self.tries < 2) || self.content.is_open()
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Node::Unseen => f.write_str("?"),
            Node::Itself => f.write_str("^"),
            Node::Plain(name) => f.write_str(name),
            Node::Many(what, parts) => {
                f.write_str(what)?;
                list(f, ('(', ',', ')'), parts, |f, part| part.fmt(f))
            }
            Node::Tuple(parts) => list(f, ('(', ',', ')'), parts, |f, part| part.fmt(f)),
            Node::Struct(names, parts) => list(
                f,
                ('{', ',', '}'),
                names.iter().zip(parts),
                |f, (name, part)| write!(f, "{}:{part}", plain_word(name)),
            ),
            Node::Enum(variants) => list(f, ('<', '|', '>'), variants, |f, variant| {
                write!(f, "{}", plain_word(variant.name))?;
                match &variant.content {
                    Node::Unseen => f.write_str(":?"),
                    content => content.fmt(f),
                }
            }),
        }
    }
}

fn list<T>(
    f: &mut fmt::Formatter<'_>,
    (open, between, close): (char, char, char),
    parts: impl IntoIterator<Item = T>,
    mut one: impl FnMut(&mut fmt::Formatter<'_>, T) -> fmt::Result,
) -> fmt::Result {
    write!(f, "{open}")?;
    for (place, part) in parts.into_iter().enumerate() {
        if place > 0 {
            write!(f, "{between}")?;
        }
        one(f, part)?;
    }
    write!(f, "{close}")
}

/// Names that serde was told can have any character in them.
fn plain_word(name: &str) -> String {
    let plain = |c: char| if c.is_alphanumeric() { c } else { '_' };
    name.chars().map(plain).collect()
}
