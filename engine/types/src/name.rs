//! Names of tables, indexes and sequences as statements write them, and the schemas in which bare ones are looked up.
//!
//! `query` reads names out of SQL, storage's snapshots resolve them. Nothing here knows which schemas there are.

use std::{
    fmt,
    sync::{Arc, LazyLock},
};

use crate::limits::MAX_IDENTIFIER_BYTES;

/// The schema that every environment has.
pub const PUBLIC_SCHEMA: &str = "public";

/// A name as it was written, its identifiers folded.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RelationName {
    /// `None`: the search path tells.
    pub schema: Option<String>,
    pub name: String,
}

impl RelationName {
    pub fn bare(name: impl Into<String>) -> Self {
        Self { schema: None, name: name.into() }
    }

    pub fn qualified(schema: impl Into<String>, name: impl Into<String>) -> Self {
        Self { schema: Some(schema.into()), name: name.into() }
    }
}

/// As messages show it: `s.t`.
impl fmt::Display for RelationName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.schema {
            Some(schema) => write!(f, "{schema}.{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// A name to be looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelationRef<'a> {
    pub schema: Option<&'a str>,
    pub name: &'a str,
}

impl<'a> From<&'a str> for RelationRef<'a> {
    fn from(name: &'a str) -> Self {
        Self { schema: None, name }
    }
}

impl<'a> From<&'a String> for RelationRef<'a> {
    fn from(name: &'a String) -> Self {
        Self { schema: None, name }
    }
}

impl<'a> From<&'a RelationName> for RelationRef<'a> {
    fn from(name: &'a RelationName) -> Self {
        Self { schema: name.schema.as_deref(), name: &name.name }
    }
}

impl fmt::Display for RelationRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.schema {
            Some(schema) => write!(f, "{schema}.{}", self.name),
            None => f.write_str(self.name),
        }
    }
}

/// The schemas that a bare name is looked for in, first to last; they need not exist.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SearchPath(Arc<[String]>);

impl Default for SearchPath {
    /// `public` alone.
    fn default() -> Self {
        static PUBLIC: LazyLock<Arc<[String]>> = LazyLock::new(|| Arc::from([PUBLIC_SCHEMA.to_owned()]));
        Self(Arc::clone(&PUBLIC))
    }
}

impl SearchPath {
    /// A value of the setting `search_path`, in which `"$user"` stands for the schema that is called like the user;
    /// `None` where it is no list of names (`SplitIdentifierString`, `varlena.c`).
    pub fn parse(setting: &str, user: &str) -> Option<Self> {
        let names = split_names(setting)?;
        let resolved = names.into_iter().map(|name| if name == "$user" { user.to_owned() } else { name });
        Some(Self(resolved.collect()))
    }

    pub fn schemas(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

/// Names between commas, folded unless quoted, cut to 63 bytes; none of an empty text.
fn split_names(text: &str) -> Option<Vec<String>> {
    let mut names = Vec::new();
    let mut rest = text.trim();
    if rest.is_empty() {
        return Some(names);
    }
    loop {
        let name: String;
        (name, rest) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_name(quoted)?,
            None => {
                let end = rest.find(|c: char| c == ',' || c.is_whitespace()).unwrap_or(rest.len());
                let (bare, after) = rest.split_at(end);
                (Some(bare).filter(|bare| !bare.is_empty())?.to_lowercase(), after)
            }
        };
        names.push(cut(name));
        rest = rest.trim_start();
        if rest.is_empty() {
            return Some(names);
        }
        rest = rest.strip_prefix(',')?.trim_start();
        if rest.is_empty() {
            return None;
        }
    }
}

/// What stands before the closing quote, and what follows it.
fn quoted_name(text: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut chars = text.char_indices().peekable();
    while let Some((_, c)) = chars.next() {
        if c != '"' {
            name.push(c);
        } else if chars.next_if(|(_, next)| *next == '"').is_some() {
            name.push('"');
        } else {
            let rest = chars.peek().map_or("", |(at, _)| &text[*at..]);
            return Some((name, rest));
        }
    }
    None
}

fn cut(mut name: String) -> String {
    while name.len() > MAX_IDENTIFIER_BYTES {
        name.pop();
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(setting: &str) -> Option<Vec<String>> {
        let parsed = SearchPath::parse(setting, "key1")?;
        Some(parsed.schemas().map(str::to_owned).collect())
    }

    #[test]
    fn a_path_is_a_list_of_names() {
        for (setting, names) in [
            ("\"$user\", public", &["key1", "public"][..]),
            ("$user,Public", &["key1", "public"][..]),
            (" a , \"B c\",\"d\"\"e\" ", &["a", "B c", "d\"e"][..]),
            ("", &[][..]),
            ("\"\"", &[""][..]),
        ] {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(path(setting), Some(names), "{setting}");
        }
        for setting in ["a,", ",a", "a b", "\"a", "a,,b", "\"a\"b"] {
            assert_eq!(path(setting), None, "{setting}");
        }
        assert_eq!(path(&"x".repeat(70)), Some(vec!["x".repeat(63)]));
    }

    #[test]
    fn names_are_shown_with_the_schema_that_was_written() {
        assert_eq!(RelationName::bare("t").to_string(), "t");
        let name = RelationName::qualified("s", "t");
        assert_eq!((name.to_string(), RelationRef::from(&name).to_string()), ("s.t".into(), "s.t".into()));
    }
}
