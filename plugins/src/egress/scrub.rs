//! Takes a sink's secrets out of texts: logs of guests, error messages, what destinations echo.
//!
//! One automaton (Aho-Corasick) over every value that the sink has used, as it is and as it travels: base64 in both
//! alphabets and at all three alignments, percent-encoded, hexadecimal, as JSON text. Letters match in either case.
//! Values under six bytes are left alone: they would match everywhere. The automaton holds copies of its patterns
//! that are freed without being wiped; it lives in the server's process, where the values are anyway.
//!
//! The automaton knows the first 256 bytes of each spelling; what comes behind is compared where one was found, so
//! that a key of 64 KiB is taken out whole and costs no more states than a short one. It is never a DFA: one over a
//! long secret would take hundreds of MiB for each opened sink.

use std::{
    borrow::Cow,
    collections::{HashMap, VecDeque},
    fmt,
    ops::Range,
    sync::Arc,
};

use aho_corasick::{AhoCorasick, AhoCorasickKind, Input, MatchKind};
use base64::{Engine, prelude::BASE64_STANDARD_NO_PAD};
use parking_lot::RwLock;
use zeroize::Zeroizing;

/// Shorter values are not looked for.
pub const MIN_SECRET_BYTES: usize = 6;
/// Values per slot that are remembered: the newest, and those before it that a destination may still echo.
const REMEMBERED: usize = 3;
const REDACTED: &[u8] = b"<redacted>";
/// What the automaton knows of a spelling. Who cuts a text has to look this much further: a secret that begins before
/// the cut is known by then.
pub(super) const ANCHOR_BYTES: usize = 256;

/// The secrets of one sink or resolver.
#[derive(Default)]
pub struct Scrubber {
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    /// By what the value is for, the newest last.
    values: HashMap<String, VecDeque<Zeroizing<Vec<u8>>>>,
    finder: Option<Arc<Finder>>,
}

/// Where secrets stand in a text.
struct Finder {
    automaton: AhoCorasick,
    /// By the automaton's pattern: how the spellings that begin with it go on, in lower case.
    tails: Vec<Vec<Zeroizing<Vec<u8>>>>,
}

impl Scrubber {
    /// From now on `value` is taken out. `key` says what it is for: a newer value under the same key pushes out old
    /// ones in time.
    pub fn learn(&self, key: &str, value: &[u8]) {
        if value.len() < MIN_SECRET_BYTES || self.state.read().knows(key, value) {
            return;
        }
        let mut state = self.state.write();
        if state.knows(key, value) {
            return;
        }
        let values = state.values.entry(key.to_owned()).or_default();
        values.push_back(Zeroizing::new(value.to_vec()));
        if values.len() > REMEMBERED {
            values.pop_front();
        }
        state.finder = state.build();
    }

    /// Nothing was learned: there is nothing to take out.
    pub fn is_empty(&self) -> bool {
        self.state.read().finder.is_none()
    }

    /// The text without secrets.
    pub fn scrub<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match self.finder().and_then(|finder| finder.without(text.as_bytes(), text.len())) {
            // Bytewise: a pattern that is not text may end inside of a character.
            Some(clean) => Cow::Owned(String::from_utf8_lossy(&clean).into_owned()),
            None => Cow::Borrowed(text),
        }
    }

    /// The first `most` bytes without secrets, those included that go on behind them: `bytes` reaches
    /// [`ANCHOR_BYTES`] further if there is more.
    pub fn scrub_start(&self, mut bytes: Vec<u8>, most: usize) -> Vec<u8> {
        match self.finder().and_then(|finder| finder.without(&bytes, most)) {
            Some(clean) => clean,
            None => {
                bytes.truncate(most);
                bytes
            }
        }
    }

    fn finder(&self) -> Option<Arc<Finder>> {
        self.state.read().finder.clone()
    }

    #[cfg(test)]
    pub(super) fn automaton_bytes(&self) -> usize {
        self.finder().map_or(0, |finder| finder.automaton.memory_usage())
    }
}

impl State {
    fn knows(&self, key: &str, value: &[u8]) -> bool {
        self.values.get(key).is_some_and(|values| values.iter().any(|known| known.as_slice() == value))
    }

    fn build(&self) -> Option<Arc<Finder>> {
        let mut spelt: Vec<Zeroizing<Vec<u8>>> =
            self.values.values().flatten().flat_map(|value| spellings(value)).collect();
        spelt.iter_mut().for_each(|spelling| spelling.make_ascii_lowercase());
        spelt.sort_by(|a, b| a.as_slice().cmp(b.as_slice()));
        spelt.dedup();
        match Finder::new(&spelt) {
            Ok(finder) => Some(Arc::new(finder)),
            Err(error) => {
                // Only for gigabytes of patterns. What is already known goes on being taken out.
                tracing::error!(%error, "a sink's secrets are too many to be looked for in its messages");
                self.finder.clone()
            }
        }
    }
}

impl Finder {
    /// Of spellings in order: those that begin alike stand together.
    fn new(spelt: &[Zeroizing<Vec<u8>>]) -> Result<Self, aho_corasick::BuildError> {
        let mut anchors = Vec::new();
        let mut tails = Vec::new();
        for alike in spelt.chunk_by(|one, other| anchor(one) == anchor(other)) {
            anchors.push(anchor(&alike[0]));
            tails.push(
                alike
                    .iter()
                    .map(|spelling| Zeroizing::new(spelling[anchor(spelling).len()..].to_vec()))
                    .collect(),
            );
        }
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .ascii_case_insensitive(true)
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .build(anchors)?;
        Ok(Self { automaton, tails })
    }

    /// The first secret at or behind `from`.
    fn next(&self, bytes: &[u8], from: usize) -> Option<Range<usize>> {
        let found = self.automaton.find(Input::new(bytes).range(from..))?;
        let behind = &bytes[found.end()..];
        let longest = self.tails[found.pattern().as_usize()].iter().map(|tail| alike(tail, behind)).max();
        Some(found.start()..found.end() + longest.unwrap_or_default())
    }

    /// The first `most` bytes without the secrets that begin there. `None`: there are none.
    fn without(&self, bytes: &[u8], most: usize) -> Option<Vec<u8>> {
        let most = most.min(bytes.len());
        let mut out = Vec::new();
        let mut from = 0;
        while let Some(found) = self.next(bytes, from).filter(|found| found.start < most) {
            out.extend_from_slice(&bytes[from..found.start]);
            out.extend_from_slice(REDACTED);
            from = found.end;
        }
        // Past the end where a secret goes on behind it.
        out.extend_from_slice(bytes.get(from..most).unwrap_or_default());
        (from > 0).then_some(out)
    }
}

fn anchor(spelling: &[u8]) -> &[u8] {
    &spelling[..spelling.len().min(ANCHOR_BYTES)]
}

/// How many bytes are the same from the beginning, in either case.
fn alike(one: &[u8], other: &[u8]) -> usize {
    one.iter().zip(other).take_while(|(one, other)| one.eq_ignore_ascii_case(other)).count()
}

/// The value as it may appear.
fn spellings(value: &[u8]) -> Vec<Zeroizing<Vec<u8>>> {
    let mut out = vec![Zeroizing::new(value.to_vec()), percent_encoded(value), hexadecimal(value)];
    for skipped in 0..3 {
        let standard = base64_inside(value, skipped);
        out.push(Zeroizing::new(standard.iter().map(|digit| url_digit(*digit)).collect()));
        out.push(standard);
    }
    if let Ok(text) = std::str::from_utf8(value)
        && let Ok(json) = serde_json::to_string(text).map(Zeroizing::new)
    {
        out.push(Zeroizing::new(json.as_bytes()[1..json.len() - 1].to_vec()));
    }
    out.retain(|pattern| pattern.len() >= MIN_SECRET_BYTES);
    out
}

/// The digits that any text has that holds `value` after `skipped` bytes (modulo 3): those at the ends depend on
/// what stands beside the value and are left out.
fn base64_inside(value: &[u8], skipped: usize) -> Zeroizing<Vec<u8>> {
    let mut padded = Zeroizing::new(vec![0_u8; skipped]);
    padded.extend_from_slice(value);
    let digits = Zeroizing::new(BASE64_STANDARD_NO_PAD.encode(&*padded));
    let first = (skipped * 8).div_ceil(6);
    let last = padded.len() * 8 / 6;
    Zeroizing::new(digits.as_bytes()[first..last].to_vec())
}

const fn url_digit(digit: u8) -> u8 {
    match digit {
        b'+' => b'-',
        b'/' => b'_',
        other => other,
    }
}

/// Everything but unreserved characters (RFC 3986, 2.3).
pub(super) fn percent_encoded(value: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(Vec::with_capacity(value.len() * 3));
    for byte in value {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
            out.push(*byte);
        } else {
            out.extend_from_slice(&[b'%', hex_digit(byte >> 4), hex_digit(byte & 15)]);
        }
    }
    out
}

fn hexadecimal(value: &[u8]) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(value.iter().flat_map(|byte| [hex_digit(byte >> 4), hex_digit(byte & 15)]).collect())
}

fn hex_digit(nibble: u8) -> u8 {
    b"0123456789ABCDEF"[usize::from(nibble & 15)]
}

impl fmt::Debug for Scrubber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scrubber").field("slots", &self.state.read().values.len()).finish_non_exhaustive()
    }
}
