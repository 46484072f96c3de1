//! Reading code and manifests just well enough for the house rules: what is code and what is
//! prose, which of our crates a line names, whether an `unsafe` is explained.

pub fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line))
}

fn is_word_part(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether `line` contains `word` as such, and not as a part of a longer name.
pub fn contains_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(start, found)| {
        let (before, after) = (&line[..start], &line[start + found.len()..]);
        let glued_before = before.ends_with(is_word_part) && found.starts_with(is_word_part);
        let glued_after = after.starts_with(is_word_part) && found.ends_with(is_word_part);
        !glued_before && !glued_after
    })
}

/// The packages of ours that a line of code names: `tidegate_actors`, or `tidegate` before a `::`.
pub fn our_crates_named_in(line: &str) -> Vec<String> {
    let names = line.split(|c| !is_word_part(c));
    let crates = [
        "tidegate_engine",
        "tidegate_actors",
        "tidegate_connectors",
        "tidegate_cluster",
    ];
    let mut found: Vec<String> = names
        .filter(|name| crates.contains(name))
        .map(|name| name.replace('_', "-"))
        .collect();
    if contains_word(line, "tidegate::") {
        found.push("tidegate".to_owned());
    }
    found
}

/// The packages of ours among the dependencies that a manifest's crate ships with: in all tables
/// but `dev-dependencies`, and also under another name.
pub fn our_dependencies(manifest: &str) -> Vec<String> {
    let is_ours = |package: &&str| *package == "tidegate" || package.starts_with("tidegate-");
    let is_shipped = |part: &str| part == "dependencies" || part == "build-dependencies";
    let mut found = Vec::new();
    let mut in_shipped_table = false;
    for line in manifest
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
    {
        let is_header = line.starts_with('[');
        if is_header {
            in_shipped_table = line.trim_matches(['[', ']']).split('.').any(is_shipped);
        }
        if in_shipped_table {
            let names = line.split(|c: char| !is_word_part(c) && c != '-');
            let is_path = |name: &&str| line.contains(&format!("/{name}"));
            let ours = names.filter(|name| is_ours(name) && !is_path(name));
            found.extend(ours.map(str::to_owned));
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// Looks upwards from the line of an `unsafe`, through comments, attributes and the beginning of
/// its statement.
pub fn has_safety_comment(lines: &[&str], at: usize) -> bool {
    if lines[at].contains("SAFETY:") {
        return true;
    }
    for line in lines[..at].iter().rev().map(|line| line.trim()) {
        let is_note = line.starts_with("//") || line.starts_with("#[");
        if is_note && line.contains("SAFETY:") {
            return true;
        }
        if !is_note && (line.is_empty() || line.ends_with([';', '{', '}', ','])) {
            return false;
        }
    }
    false
}

/// The text with comments, strings and characters blanked, line by line: rules see only code.
pub fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let after_name = code.ends_with(is_word_part);
        let blanked = comment_at(rest).or_else(|| literal_at(rest, after_name));
        let (taken, others) = rest.split_at(blanked.unwrap_or(first.len_utf8()));
        let keep = |c: char| blanked.is_none() || c == '\n';
        code.extend(taken.chars().map(|c| if keep(c) { c } else { ' ' }));
        rest = others;
    }
    code
}

/// The length of the comment that `text` begins with.
fn comment_at(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    let mut inside = text.strip_prefix("/*")?;
    let mut depth = 1;
    while depth > 0 {
        let Some(close) = inside.find("*/") else {
            return Some(text.len());
        };
        let nested = inside[..close].find("/*");
        depth = if nested.is_some() {
            depth + 1
        } else {
            depth - 1
        };
        inside = &inside[nested.unwrap_or(close) + 2..];
    }
    Some(text.len() - inside.len())
}

/// The length of the string or character that `text` begins with. Right after a name, a letter is
/// part of that name and not the prefix of a literal.
fn literal_at(text: &str, after_name: bool) -> Option<usize> {
    let letters = if after_name { "" } else { "bc" };
    let literal = text.trim_start_matches(|c| letters.contains(c));
    let prefix = text.len() - literal.len();
    let length = match literal.chars().next()? {
        '"' => length_to_quote(literal, '"'),
        '\'' if is_character(literal) => length_to_quote(literal, '\''),
        'r' if !after_name => return raw_string_at(literal).map(|length| prefix + length),
        _ => return None,
    };
    Some(prefix + length)
}

/// A quote opens either a character or a lifetime: `'a'` or `'a`.
fn is_character(literal: &str) -> bool {
    let mut inside = literal.chars().skip(1);
    inside.next() == Some('\\') || inside.next() == Some('\'')
}

fn length_to_quote(literal: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in literal.char_indices().skip(1) {
        if c == quote && !escaped {
            return at + 1;
        }
        escaped = c == '\\' && !escaped;
    }
    literal.len()
}

fn raw_string_at(literal: &str) -> Option<usize> {
    let after_r = literal.strip_prefix('r')?;
    let quoted = after_r.trim_start_matches('#');
    let inside = quoted.strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(after_r.len() - quoted.len()));
    let before = literal.len() - inside.len();
    Some(
        inside
            .find(&close)
            .map_or(literal.len(), |end| before + end + close.len()),
    )
}

#[test]
fn code_is_told_from_comments_and_literals() {
    let cases = [
        ("a // b\nc", "a\nc"),
        ("a /* b /* c */ d */ e", "a e"),
        (r#"a("b \" c") d"#, "a( ) d"),
        ("a(r#\"b \" c\"#) d", "a( ) d"),
        (r"a(b'\'', '\n', 'x', '\\') d", "a( , , , ) d"),
        ("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}"),
        ("let r#type = bar; // \"", "let r#type = bar;"),
        ("\"b\nc\" d", "\nd"),
        ("a \"open", "a"),
    ];
    let squeeze = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    for (text, expected) in cases {
        let code: Vec<String> = code_of(text).split('\n').map(squeeze).collect();
        assert_eq!(code.join("\n"), expected, "{text}");
    }
}
