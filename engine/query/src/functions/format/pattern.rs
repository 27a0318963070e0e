//! A pattern of dates and times, taken apart (`parse_format` in `formatting.c`).

/// A part of a pattern.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    Field {
        /// As it is written, for messages and for how names are spelled.
        name: &'static str,
        /// `FM`: neither zeros before nor blanks after it.
        bare: bool,
        /// `TH` or `th`: an ordinal.
        ordinal: Option<bool>,
    },
    /// Copied; `quoted` where no reader may take it for a separator.
    Literal { text: char, quoted: bool },
}

/// Longer ones before those that they begin with.
const FIELDS: &[&str] = &[
    "A.D.", "A.M.", "B.C.", "P.M.", "a.d.", "a.m.", "b.c.", "p.m.", "AD", "AM", "BC", "CC", "DAY", "Day",
    "DDD", "DD", "DY", "Dy", "D", "FF1", "FF2", "FF3", "FF4", "FF5", "FF6", "HH24", "HH12", "HH", "IDDD",
    "ID", "IW", "IYYY", "IYY", "IY", "I", "J", "MI", "MM", "MONTH", "Month", "MON", "Mon", "MS", "OF", "PM",
    "Q", "RM", "SSSSS", "SSSS", "SS", "TZH", "TZM", "TZ", "US", "WW", "W", "Y,YYY", "YYYY", "YYY", "YY", "Y",
    "ad", "am", "bc", "cc", "day", "ddd", "dd", "dy", "d", "ff1", "ff2", "ff3", "ff4", "ff5", "ff6", "hh24",
    "hh12", "hh", "iddd", "id", "iw", "iyyy", "iyy", "iy", "i", "j", "mi", "mm", "month", "mon", "ms", "of",
    "pm", "q", "rm", "sssss", "ssss", "ss", "tzh", "tzm", "tz", "us", "ww", "w", "y,yyy", "yyyy", "yyy",
    "yy", "y",
];

/// Every text is a pattern.
pub(super) fn parse(pattern: &str) -> Vec<Node> {
    let (mut nodes, mut rest) = (Vec::new(), pattern);
    let mut bare = false;
    while let Some(first) = rest.chars().next() {
        // `TM` asks for names in the locale's language: there is the C locale only, and names without blanks.
        let prefix = ["FM", "fm", "TM", "tm"].into_iter().find_map(|prefix| rest.strip_prefix(prefix));
        if let Some(after) = prefix {
            (bare, rest) = (true, after);
            continue;
        }
        if let Some((name, after)) = FIELDS.iter().find_map(|name| Some((*name, rest.strip_prefix(name)?))) {
            rest = after;
            let ordinal = match rest.get(..2) {
                Some("TH") => Some(true),
                Some("th") => Some(false),
                _ => None,
            };
            if ordinal.is_some() {
                rest = &rest[2..];
            }
            nodes.push(Node::Field { name, bare, ordinal });
        } else if first == '"' {
            rest = quoted(&rest[1..], &mut nodes);
        } else {
            let escaped = rest.starts_with("\\\"");
            let text = if escaped { '"' } else { first };
            nodes.push(Node::Literal { text, quoted: escaped });
            rest = &rest[if escaped { 2 } else { first.len_utf8() }..];
        }
        bare = false;
    }
    nodes
}

/// The rest after a text in quotes, in which a backslash takes the meaning from the next character.
fn quoted<'a>(text: &'a str, nodes: &mut Vec<Node>) -> &'a str {
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        let text_of = |text| Node::Literal { text, quoted: true };
        match char {
            '"' => return &text[at + 1..],
            '\\' => nodes.extend(chars.next().map(|(_, char)| text_of(char))),
            char => nodes.push(text_of(char)),
        }
    }
    ""
}
