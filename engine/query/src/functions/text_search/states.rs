//! The states of the default parser and their rules, as `states.txt` lists them.
//!
//! Used by `tokens` alone. A state's line has its name and its rules, which are tried in order: `class,act,next
//! state[,token[,special]]`. Classes: `=x` the character x, `*` anything, `EOF` the text's end. Acts: `next` goes on
//! to the next character; `push` does that with a copy of where it stands, to which `pop` returns and tries the rules
//! after that one; `clear` and `clrall` forget such places; `rerun` looks at the same character again; `bingo`: the
//! token ends here. `.` is the same state, or no token. States and rules are those of PostgreSQL
//! (src/backend/tsearch/wparser_def.c), checked against what its `ts_parse` says of some ten thousand texts.

use std::{collections::HashMap, sync::LazyLock};

use super::tokens::Kind;

/// What a character may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Any,
    AsciiLetter,
    Digit,
    End,
    HexDigit,
    /// A host, whole.
    Host,
    /// Whether the token before was a URL, whose host and path follow by themselves.
    HostWanted,
    /// Within a script.
    Ignored,
    Is(char),
    Letter,
    LetterOrDigit,
    Mark,
    NeitherNor,
    Space,
    UrlCharacter,
    /// The path of a URL, whole.
    UrlPath,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Clear,
    ClearAll,
    Merge,
    Next,
    Pop,
    Push,
    Rerun,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Special {
    /// The token is read again, as its parts.
    Again,
    AgainAsHost,
    /// It is read again, as another one.
    Anew,
    Tags,
}

#[derive(Debug)]
pub(super) struct Rule {
    pub class: Class,
    pub act: Act,
    pub next: Option<usize>,
    pub token: Option<Kind>,
    pub special: Option<Special>,
}

/// By number; the first one is where a text begins.
pub(super) static STATES: LazyLock<Vec<Vec<Rule>>> = LazyLock::new(|| {
    let lines: Vec<(&str, Vec<&str>)> = lines().collect();
    let numbers = numbers(&lines);
    let rules = |rules: &Vec<&str>| rules.iter().map(|rule| read(rule, &numbers)).collect();
    lines.iter().map(|(_, line)| rules(line)).collect()
});

/// States that mean something to the parser, by number.
pub(super) struct Named {
    /// Where the path behind a host is looked for.
    pub url_path: usize,
    comments: [usize; 3],
    /// Whether a state is within a tag or a comment.
    markup: Vec<bool>,
}

impl Named {
    pub(super) fn is_comment(&self, state: usize) -> bool {
        self.comments.contains(&state)
    }

    pub(super) fn is_markup(&self, state: usize) -> bool {
        self.markup[state]
    }
}

pub(super) static NAMED: LazyLock<Named> = LazyLock::new(|| {
    let lines: Vec<(&str, Vec<&str>)> = lines().collect();
    let numbers = numbers(&lines);
    let is_markup =
        |name: &str| ["InTag", "InComment", "InCloseComment"].iter().any(|of| name.starts_with(of));
    Named {
        url_path: numbers["InUrlPathFirst"],
        comments: ["InComment", "InCloseCommentFirst", "InCloseCommentLast"].map(|name| numbers[name]),
        markup: lines.iter().map(|(name, _)| is_markup(name)).collect(),
    }
});

/// The states with their rules, those that stand on the lines below among them.
fn lines() -> impl Iterator<Item = (&'static str, Vec<&'static str>)> {
    let mut lines = include_str!("states.txt").lines().peekable();
    std::iter::from_fn(move || {
        let (name, first) = lines.next()?.split_once(':').expect("a state has a name");
        let mut rules: Vec<&str> = first.split_whitespace().collect();
        while let Some(more) = lines.next_if(|line| line.starts_with(' ')) {
            rules.extend(more.split_whitespace());
        }
        Some((name, rules))
    })
}

fn numbers(lines: &[(&'static str, Vec<&'static str>)]) -> HashMap<&'static str, usize> {
    lines.iter().enumerate().map(|(number, (name, _))| (*name, number)).collect()
}

fn read(rule: &str, numbers: &HashMap<&str, usize>) -> Rule {
    let fields: Vec<&str> = rule.split(',').collect();
    let [class, acts, next, rest @ ..] = fields.as_slice() else { panic!("not a rule: {rule}") };
    let token = rest.first().filter(|token| **token != ".");
    Rule {
        class: class_named(class),
        act: act_named(acts),
        next: (*next != ".").then(|| numbers[next]),
        token: token.map(|token| kind_named(token)),
        special: rest.get(1).map(|special| special_named(special)),
    }
}

fn class_named(name: &str) -> Class {
    if let Some(character) = name.strip_prefix('=') {
        return Class::Is(character.chars().next().expect("a character after ="));
    }
    match name {
        "*" => Class::Any,
        "EOF" => Class::End,
        "alnum" => Class::LetterOrDigit,
        "alpha" => Class::Letter,
        "asclet" => Class::AsciiLetter,
        "digit" => Class::Digit,
        "host" => Class::Host,
        "ignore" => Class::Ignored,
        "notalnum" => Class::NeitherNor,
        "space" => Class::Space,
        "special" => Class::Mark,
        "stophost" => Class::HostWanted,
        "urlchar" => Class::UrlCharacter,
        "urlpath" => Class::UrlPath,
        "xdigit" => Class::HexDigit,
        other => panic!("no class of characters is called {other}"),
    }
}

fn act_named(name: &str) -> Act {
    match name {
        "bingo" | "next" => Act::Next,
        "bingo+clear" | "clear" => Act::Clear,
        "bingo+clrall" => Act::ClearAll,
        "merge" => Act::Merge,
        "pop" => Act::Pop,
        "push" => Act::Push,
        "rerun" => Act::Rerun,
        other => panic!("no act is called {other}"),
    }
}

fn special_named(name: &str) -> Special {
    match name {
        "furl" => Special::AgainAsHost,
        "hyphen" => Special::Again,
        "tags" => Special::Tags,
        "ver" => Special::Anew,
        other => panic!("nothing special is called {other}"),
    }
}

/// By the names of `ts_token_type('default')`.
fn kind_named(name: &str) -> Kind {
    match name {
        "asciihword" => Kind::HyphenAsciiWord,
        "asciiword" => Kind::AsciiWord,
        "blank" => Kind::Blank,
        "email" => Kind::Email,
        "entity" => Kind::Entity,
        "file" => Kind::File,
        "float" => Kind::Float,
        "host" => Kind::Host,
        "hword" => Kind::HyphenWord,
        "hword_asciipart" => Kind::HyphenAsciiPart,
        "hword_numpart" => Kind::HyphenNumPart,
        "hword_part" => Kind::HyphenPart,
        "int" => Kind::Int,
        "numhword" => Kind::HyphenNumWord,
        "numword" => Kind::NumWord,
        "protocol" => Kind::Protocol,
        "sfloat" => Kind::ScientificFloat,
        "tag" => Kind::Tag,
        "uint" => Kind::UnsignedInt,
        "url" => Kind::Url,
        "url_path" => Kind::UrlPath,
        "version" => Kind::Version,
        "word" => Kind::Word,
        other => panic!("no token is called {other}"),
    }
}
