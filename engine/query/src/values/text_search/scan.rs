//! A word of a written `tsvector` or `tsquery`: plain, or in quotes.
//!
//! Called by `vector` and `query`, which read what follows it.

/// What ends a plain word beside blanks and a colon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ends {
    /// Nothing: `a&b` is a word.
    Never,
    /// Operators of `tsquery`.
    Operators,
    /// These and a double quote; neither `'` nor `\` means anything.
    Web,
}

/// Why there is no word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Malformed {
    /// After the backslash.
    NothingEscaped,
    Syntax,
}

pub(super) fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{b}' | '\u{c}')
}

pub(super) fn is_operator(c: char) -> bool {
    matches!(c, '!' | '&' | '|' | '(' | ')' | '<')
}

/// Takes the next word from the front; `None` at the end of the text.
pub(super) fn word(rest: &mut &str, ends: Ends) -> Result<Option<String>, Malformed> {
    *rest = rest.trim_start_matches(is_space);
    let stops = |c: char| match ends {
        Ends::Never => false,
        Ends::Operators => is_operator(c),
        Ends::Web => is_operator(c) || c == '"',
    };
    let is_web = ends == Ends::Web;
    let mut word = String::new();
    let mut characters = rest.char_indices();
    let was_quoted = match rest.chars().next() {
        None => return Ok(None),
        Some('\'') if !is_web => {
            characters.next();
            true
        }
        Some(c) if stops(c) => return Err(Malformed::Syntax),
        Some(_) => false,
    };
    let mut first = true;
    let end = loop {
        let Some((at, c)) = characters.next() else {
            if was_quoted {
                return Err(Malformed::Syntax);
            }
            break rest.len();
        };
        match c {
            '\\' if !is_web => word.push(characters.next().ok_or(Malformed::NothingEscaped)?.1),
            '\'' if was_quoted => match characters.clone().next() {
                Some((_, '\'')) => {
                    characters.next();
                    word.push('\'');
                }
                _ => break at + 1,
            },
            _ if was_quoted => word.push(c),
            // A colon that begins a word is a part of it.
            ':' if !first => break at,
            _ if is_space(c) || (!first && stops(c)) => break at,
            _ => word.push(c),
        }
        first = false;
    };
    *rest = &rest[end..];
    if word.is_empty() { Err(Malformed::Syntax) } else { Ok(Some(word)) }
}
