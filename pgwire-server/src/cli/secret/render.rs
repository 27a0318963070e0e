//! `SECRET[name]` in a YAML text becomes `${SEPAL_SECRET_NAME}`: what a child process reads, with the values delivered
//! beside it.
//!
//! ```text
//! reference := "SECRET[" name "]"       name as in CREATE SECRET
//! value     := reference                the whole scalar, plain or quoted; never a part of one
//! literal   := "\SECRET[" …             the text SECRET[…
//! ```
//! It rewrites line by line, so that comments and layout stay. Every plain text value comes out in double quotes;
//! numbers, booleans and nulls stay as they are. Whatever could hide a reference from it (a value over several lines, a flow
//! collection, a reference inside a longer text) is an error that names the line: no reference becomes a literal
//! because it was overlooked.

use sepal_database::SecretName;

const REFERENCE: &str = "SECRET[";

/// Gives the variable of a secret; `None` when there is no such secret.
pub type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Rewrites a YAML text. The error is for the person who wrote the text.
pub fn render(text: &str, variables: Variables<'_>) -> Result<String, String> {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let mut out = String::with_capacity(text.len() + 64);
    // The column whose block scalar (`|`, `>`) the lines belong to, while they are indented deeper.
    let mut block: Option<usize> = None;
    for (number, line) in lines.iter().enumerate() {
        let content = line.trim_end_matches(['\n', '\r']);
        let ending = &line[content.len()..];
        let at_line = |problem: String| format!("line {}: {problem}", number + 1);
        let blank = content.trim().is_empty();
        if block.is_some_and(|column| blank || indent(content) > column) {
            out.push_str(&literal(content).map_err(at_line)?);
        } else {
            block = None;
            let following = lines[number + 1..].iter().find(|next| !is_empty(next)).map(|next| indent(next));
            let entry = Entry::read(content).map_err(at_line)?;
            if entry.opens_block() {
                block = Some(entry.column);
            }
            entry.render(following, variables, &mut out).map_err(at_line)?;
        }
        out.push_str(ending);
    }
    Ok(out)
}

/// One line of YAML: what stands before its value, and the value.
struct Entry<'a> {
    /// Indentation, dashes, key, anchor and tag.
    before: &'a str,
    /// Without the comment; empty where the line has no value.
    value: &'a str,
    /// White space and comment.
    after: &'a str,
    /// Of the key or dash that the value belongs to; a value goes on in lines that are indented deeper.
    column: usize,
}

impl<'a> Entry<'a> {
    fn read(content: &'a str) -> Result<Self, String> {
        let start = indent(content);
        let whole = Self { before: content, value: "", after: "", column: start };
        let text = &content[start..];
        let marker = ["---", "..."].iter().any(|marker| text.trim_end() == *marker);
        if text.trim().is_empty() || text.starts_with(['#', '%']) || marker {
            return Ok(whole);
        }
        let (mut at, mut column, mut is_entry) = (start, start, false);
        while content[at..] == *"-" || content[at..].starts_with("- ") {
            (column, is_entry) = (at, true);
            at += 1 + indent(&content[at + 1..]);
        }
        if let Some(length) = key_length(&content[at..]) {
            (column, is_entry) = (at, true);
            at += length + indent(&content[at + length..]);
        }
        if !is_entry {
            return Err("neither `key: value` nor `- value` on one line, so it cannot be rendered".into());
        }
        // Anchors and tags.
        while content[at..].starts_with(['&', '!']) {
            let word = content[at..].find(' ').unwrap_or(content.len() - at);
            at += word + indent(&content[at + word..]);
        }
        let rest = &content[at..];
        let length = value_length(rest)?;
        Ok(Self { before: &content[..at], value: &rest[..length], after: &rest[length..], column })
    }

    fn opens_block(&self) -> bool {
        self.value.starts_with(['|', '>'])
    }

    /// `following`: the indentation of the next line that says something.
    fn render(
        &self,
        following: Option<usize>,
        variables: Variables<'_>,
        out: &mut String,
    ) -> Result<(), String> {
        out.push_str(before_checked(self.before)?);
        let goes_on = following.is_some_and(|column| column > self.column);
        match self.value.chars().next() {
            None => {}
            Some('|' | '>' | '*') => out.push_str(&literal(self.value)?),
            Some('[' | '{') => {
                if self.value.contains(REFERENCE) {
                    return Err(format!("{REFERENCE} inside brackets: give it a line of its own"));
                }
                out.push_str(self.value);
            }
            Some(_) if goes_on => {
                return Err("a text over several lines: write it on one, or as a block (`|`)".into());
            }
            Some(quote @ ('"' | '\'')) => {
                let inner = &self.value[1..self.value.len() - 1];
                match reference(inner)? {
                    Some(name) => push_placeholder(&name, variables, out)?,
                    None => {
                        out.push(quote);
                        out.push_str(&literal(inner)?);
                        out.push(quote);
                    }
                }
            }
            Some(_) => match reference(self.value)? {
                Some(name) => push_placeholder(&name, variables, out)?,
                None if is_text(self.value) => push_quoted(&literal(self.value)?, out),
                None => out.push_str(&literal(self.value)?),
            },
        }
        out.push_str(self.after);
        Ok(())
    }
}

/// How far a value reaches: up to its closing quote or bracket, or to the comment.
fn value_length(rest: &str) -> Result<usize, String> {
    let uncommented = rest.find(" #").map_or(rest, |comment| &rest[..comment]).trim_end().len();
    match rest.chars().next() {
        Some('#') => Ok(0),
        Some(quote @ ('"' | '\'')) => {
            let end = quoted_length(rest, quote)
                .ok_or("a quoted text over several lines: write it on one, or as a block (`|`)")?;
            let behind = rest[end..].trim_start();
            if behind.is_empty() || behind.starts_with('#') {
                return Ok(end);
            }
            Err("something follows the closing quote".into())
        }
        Some(open @ ('[' | '{')) => {
            let close = if open == '[' { ']' } else { '}' };
            // A bracket may close on a later line, whose look is then not that of an entry.
            let (opened, closed) = (rest.matches(open).count(), rest.matches(close).count());
            if rest[..uncommented].ends_with(close) && opened == closed {
                return Ok(uncommented);
            }
            Err("brackets over several lines: write one entry a line".into())
        }
        _ => Ok(uncommented),
    }
}

/// Up to and with the closing quote. In single quotes a quote is written twice, in double quotes with `\`.
fn quoted_length(rest: &str, quote: char) -> Option<usize> {
    let bytes = rest.as_bytes();
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if quote == '"' => at += 1,
            b'\'' if quote == '\'' && bytes.get(at + 1) == Some(&b'\'') => at += 1,
            byte if char::from(byte) == quote => return Some(at + 1),
            _ => {}
        }
        at += 1;
    }
    None
}

/// Up to and with the colon behind a key; `None` where the line has no key.
fn key_length(rest: &str) -> Option<usize> {
    let is_end = |at: usize| rest[at..].is_empty() || rest[at..].starts_with([' ', '\t']);
    match rest.chars().next()? {
        quote @ ('"' | '\'') => {
            let end = quoted_length(rest, quote)?;
            let colon = end + rest[end..].find(':')?;
            (rest[end..colon].trim().is_empty() && is_end(colon + 1)).then_some(colon + 1)
        }
        '[' | '{' | '?' | '&' | '!' | '*' => None,
        _ => {
            let key = rest.find(" #").map_or(rest, |comment| &rest[..comment]);
            key.match_indices(':').map(|(at, _)| at + 1).find(|end| is_end(*end))
        }
    }
}

/// The secret's name if the text is a reference and nothing else.
fn reference(text: &str) -> Result<Option<SecretName>, String> {
    let Some(name) = text.strip_prefix(REFERENCE).and_then(|rest| rest.strip_suffix(']')) else {
        return Ok(None);
    };
    SecretName::parse(name).map(Some).map_err(|error| error.to_string())
}

/// The text with `\SECRET[` as `SECRET[`. Errors: a reference that is only a part of it.
fn literal(text: &str) -> Result<String, String> {
    let references = text.matches(REFERENCE).count();
    let escaped = format!("\\{REFERENCE}");
    if references == text.matches(&escaped).count() {
        return Ok(text.replace(&escaped, REFERENCE));
    }
    Err(format!(
        "{REFERENCE} as a part of a longer text: a reference is a value of its own. Write \\{REFERENCE} for the text \
         itself"
    ))
}

/// What stands before a value refers to nothing, unless it is a comment.
fn before_checked(before: &str) -> Result<&str, String> {
    if before.contains(REFERENCE) && !before.trim_start().starts_with('#') {
        return Err(format!("{REFERENCE} in a key: only values refer to secrets"));
    }
    Ok(before)
}

fn push_placeholder(name: &SecretName, variables: Variables<'_>, out: &mut String) -> Result<(), String> {
    let variable = variables(name.as_str())
        .ok_or_else(|| format!("secret \"{name}\" does not exist: make it with `sepal secret set {name}`"))?;
    out.push_str("\"${");
    out.push_str(&variable);
    out.push_str("}\"");
    Ok(())
}

fn push_quoted(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
}

/// Whether a plain scalar is surely text for every reader of YAML 1.1 and 1.2. The others stay as they are, which is
/// right for text too.
fn is_text(plain: &str) -> bool {
    const WORDS: [&str; 9] = ["null", "true", "false", "yes", "no", "on", "off", "y", "n"];
    let begins = plain.starts_with(|c: char| c.is_alphabetic() || matches!(c, '_' | '/' | '$' | '\\'));
    begins && !WORDS.contains(&plain.to_lowercase().as_str())
}

/// Leading spaces.
fn indent(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

/// Whether a line says nothing: blank, or a comment.
fn is_empty(line: &str) -> bool {
    let text = line.trim();
    text.is_empty() || text.starts_with('#')
}

#[cfg(test)]
mod tests;
