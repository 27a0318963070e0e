//! PostgreSQL's default text search parser: a text as words, numbers, addresses, paths, tags and what lies between.
//!
//! Called by `dictionary`. A machine of states (`states`) that looks at one character at a time. Where a token may be
//! longer, it goes on with a copy of its state on a stack, to which it returns if that comes to nothing: `1.2.` is a
//! number and a point. What is a letter, and each token's extent, is as in src/backend/tsearch/wparser_def.c.

use std::collections::HashMap;

use super::states::{Act, Class, NAMED, Rule, STATES, Special};

/// Hosts within hosts that are looked for at `@`, at most: whoever writes more has no e-mail address.
const MOST_HOSTS: u32 = 64;
/// Bytes up to which a token is followed that may turn out to be another one. Longer hosts and paths are taken apart:
/// for texts in which every word could begin one, looking to the end each time would take forever.
const MOST_FOLLOWED: usize = 8_192;

/// What a token is, as `ts_token_type('default')` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    AsciiWord,
    Word,
    NumWord,
    Email,
    Url,
    Host,
    ScientificFloat,
    Version,
    HyphenNumPart,
    HyphenPart,
    HyphenAsciiPart,
    Blank,
    Tag,
    Protocol,
    HyphenNumWord,
    HyphenAsciiWord,
    HyphenWord,
    UrlPath,
    File,
    Float,
    Int,
    UnsignedInt,
    Entity,
}

/// Where the parser stands, and what it has read of the token.
#[derive(Clone, Copy, Debug)]
struct Frame {
    state: usize,
    at: usize,
    /// Bytes of the token that end at `at`.
    length: usize,
    /// The first rule that has not been tried.
    rule: usize,
}

/// What was found at the places at which hosts were looked for: the bytes of the host.
type Hosts = HashMap<usize, Option<usize>>;

/// The tokens of a text, in order.
pub(super) struct Tokens<'a> {
    text: &'a str,
    frames: Vec<Frame>,
    /// Within `<script>` and `<style>` all is blank.
    ignore: bool,
    want_host: bool,
    /// A comment was begun, and nothing ends one from there on.
    is_never_closed: bool,
    depth: u32,
    hosts: Option<Box<Hosts>>,
}

impl<'a> Tokens<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let first = Frame { state: 0, at: 0, length: 0, rule: 0 };
        Self {
            text,
            frames: vec![first],
            ignore: false,
            want_host: false,
            is_never_closed: false,
            depth: 0,
            hosts: None,
        }
    }

    fn frame(&self) -> Frame {
        self.frames.last().copied().unwrap_or(Frame { state: 0, at: self.text.len(), length: 0, rule: 0 })
    }

    fn top(&mut self) -> &mut Frame {
        if self.frames.is_empty() {
            self.frames.push(Frame { state: 0, at: self.text.len(), length: 0, rule: 0 });
        }
        let last = self.frames.len() - 1;
        &mut self.frames[last]
    }

    fn token(&mut self) -> Option<(Kind, &'a str)> {
        let start = self.frame().at;
        if start >= self.text.len() {
            return None;
        }
        self.top().rule = 0;
        loop {
            let before = self.frame();
            let here = self.text[before.at..].chars().next();
            if self.gives_up(before, here.is_none()) {
                self.frames.pop();
                continue;
            }
            let (place, rule) = self.choose(before, here);
            self.top().rule = 0;
            self.prepare(rule, start);
            let found = rule.token.map(|kind| {
                let top = self.top();
                let length = std::mem::take(&mut top.length);
                (kind, length)
            });
            self.act(rule.act, place);
            if let Some(state) = rule.next {
                self.top().state = state;
            }
            if let Some((kind, length)) = found {
                return Some((kind, &self.text[start..start + length]));
            }
            if self.frame().at >= self.text.len() && rule.act != Act::Rerun {
                return None;
            }
            if let (Some(here), false) = (here, matches!(rule.act, Act::Rerun | Act::Pop)) {
                let top = self.top();
                top.at += here.len_utf8();
                top.length += here.len_utf8();
            }
        }
    }

    /// Whether what was begun comes to nothing, whatever follows.
    fn gives_up(&mut self, frame: Frame, at_end: bool) -> bool {
        if self.frames.len() < 2 {
            return false;
        }
        if NAMED.is_comment(frame.state) {
            let known = self.is_never_closed;
            self.is_never_closed |= at_end;
            return known;
        }
        frame.length > MOST_FOLLOWED && !NAMED.is_markup(frame.state)
    }

    /// The first rule from the frame's on whose class has the character; the last rule of a state has every one.
    fn choose(&mut self, frame: Frame, here: Option<char>) -> (usize, &'static Rule) {
        let rules = &STATES[frame.state];
        let last = rules.len() - 1;
        for (place, rule) in rules.iter().enumerate().take(last).skip(frame.rule) {
            if self.is_in(rule.class, here) {
                return (place, rule);
            }
        }
        (last, &rules[last])
    }

    fn is_in(&mut self, class: Class, here: Option<char>) -> bool {
        match class {
            Class::Ignored => return self.ignore,
            Class::HostWanted => return std::mem::take(&mut self.want_host),
            Class::Host => return self.is_host(),
            Class::UrlPath => return self.is_url_path(),
            _ => {}
        }
        let Some(here) = here else { return matches!(class, Class::End | Class::NeitherNor) };
        match class {
            Class::Is(wanted) => here == wanted,
            Class::AsciiLetter => here.is_ascii_alphabetic(),
            Class::Letter => is_letter(here),
            Class::Digit => here.is_ascii_digit(),
            Class::LetterOrDigit => is_letter(here) || here.is_ascii_digit(),
            Class::NeitherNor => !is_letter(here) && !here.is_ascii_digit(),
            Class::Space => matches!(here, ' ' | '\t' | '\n' | '\r' | '\u{b}' | '\u{c}'),
            Class::Mark => is_mark(here),
            Class::HexDigit => here.is_ascii_hexdigit(),
            Class::UrlCharacter => is_url_character(here),
            Class::Any => true,
            Class::End | Class::Ignored | Class::HostWanted | Class::Host | Class::UrlPath => false,
        }
    }

    /// What a rule does beside its act.
    fn prepare(&mut self, rule: &Rule, start: usize) {
        match rule.special {
            None => {}
            Some(Special::Tags) => {
                let length = self.frame().length;
                let name = &self.text[start..start + length];
                if name.eq_ignore_ascii_case("<script") || name.eq_ignore_ascii_case("<style") {
                    self.ignore = true;
                } else if name.eq_ignore_ascii_case("</script") || name.eq_ignore_ascii_case("</style") {
                    self.ignore = false;
                }
            }
            // The parts follow the whole.
            Some(Special::Again) => {
                let top = self.top();
                top.at -= top.length;
            }
            Some(Special::AgainAsHost) => {
                self.want_host = true;
                let top = self.top();
                top.at -= top.length;
            }
            Some(Special::Anew) => {
                let top = self.top();
                top.at -= top.length;
                top.length = 0;
            }
        }
    }

    /// `place`: the rule's in its state.
    fn act(&mut self, act: Act, place: usize) {
        let last = self.frames.len().saturating_sub(1);
        match act {
            Act::Next | Act::Rerun => {}
            Act::Push => {
                let mut copy = self.frame();
                self.top().rule = place + 1;
                copy.rule = 0;
                self.frames.push(copy);
            }
            Act::Pop => {
                self.frames.pop();
            }
            Act::Clear => {
                if last > 0 {
                    self.frames.remove(last - 1);
                }
            }
            Act::ClearAll => {
                self.frames.drain(..last);
            }
            Act::Merge => {
                let merged = self.frame();
                self.frames.pop();
                let top = self.top();
                (top.at, top.length) = (merged.at, merged.length);
            }
        }
    }

    /// Whether a host begins here; goes behind it.
    fn is_host(&mut self) -> bool {
        let at = self.frame().at;
        let known = self.hosts.as_ref().and_then(|hosts| hosts.get(&at).copied());
        let found = known.unwrap_or_else(|| self.look_for_host(at));
        self.go_behind(found)
    }

    fn look_for_host(&mut self, at: usize) -> Option<usize> {
        if self.depth >= MOST_HOSTS {
            return None;
        }
        let mut inner = Tokens::new(&self.text[at..]);
        inner.want_host = true;
        inner.depth = self.depth + 1;
        let found = match inner.token() {
            Some((Kind::Host, host)) => Some(host.len()),
            _ => None,
        };
        let hosts = self.hosts.get_or_insert_default();
        for (place, host) in inner.hosts.into_iter().flat_map(|hosts| *hosts) {
            hosts.insert(at + place, host);
        }
        hosts.insert(at, found);
        found
    }

    /// Whether the path of a URL begins here; goes behind it.
    fn is_url_path(&mut self) -> bool {
        let mut inner = Tokens::new(&self.text[self.frame().at..]);
        inner.frames.push(Frame { state: NAMED.url_path, at: 0, length: 0, rule: 0 });
        let found = match inner.token() {
            Some((Kind::UrlPath, path)) => Some(path.len()),
            _ => None,
        };
        self.go_behind(found)
    }

    fn go_behind(&mut self, bytes: Option<usize>) -> bool {
        if let Some(bytes) = bytes {
            let top = self.top();
            top.at += bytes;
            top.length += bytes;
        }
        bytes.is_some()
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = (Kind, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        self.token()
    }
}

/// A letter of any script. Digits of other scripts than ours count as letters, as C libraries say.
fn is_letter(here: char) -> bool {
    here.is_alphabetic() || (!here.is_ascii() && here.is_numeric() && !is_symbol(here))
}

/// Superscripts, fractions, enclosed numbers: numeric, but no digits.
fn is_symbol(here: char) -> bool {
    matches!(here, '\u{b2}'..='\u{be}' | '\u{2070}'..='\u{33ff}')
}

/// A mark that has no width of its own: it belongs to the word before it.
fn is_mark(here: char) -> bool {
    matches!(here,
        '\u{300}'..='\u{36f}' | '\u{483}'..='\u{489}' | '\u{591}'..='\u{5c7}' | '\u{610}'..='\u{61a}'
        | '\u{64b}'..='\u{65f}' | '\u{670}' | '\u{6d6}'..='\u{6ed}' | '\u{711}' | '\u{730}'..='\u{74a}'
        | '\u{900}'..='\u{903}' | '\u{93a}'..='\u{94f}' | '\u{951}'..='\u{957}' | '\u{962}' | '\u{963}'
        | '\u{9bc}' | '\u{9cd}' | '\u{a3c}' | '\u{a4d}' | '\u{abc}' | '\u{acd}' | '\u{b3c}' | '\u{b4d}'
        | '\u{bcd}' | '\u{c4d}' | '\u{cbc}' | '\u{ccd}' | '\u{d4d}' | '\u{dca}' | '\u{e47}'..='\u{e4e}'
        | '\u{200b}'..='\u{200f}' | '\u{2060}'..='\u{2064}' | '\u{20d0}'..='\u{20f0}' | '\u{3099}' | '\u{309a}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{fe20}'..='\u{fe2f}' | '\u{feff}')
}

/// What RFC 3986 allows behind a host.
fn is_url_character(here: char) -> bool {
    here.is_ascii_graphic() && !matches!(here, '"' | '<' | '>' | '\\' | '^' | '`' | '{' | '|' | '}')
}
