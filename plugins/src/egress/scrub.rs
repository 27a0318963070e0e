//! Takes a sink's secrets out of texts: logs of guests, error messages, what destinations echo.
//!
//! One automaton (Aho-Corasick) over every value that the sink has used, as it is and as it travels: base64 in both
//! alphabets and at all three alignments, percent-encoded, hexadecimal, as JSON text. Letters match in either case.
//! Values under six bytes are left alone: they would match everywhere. The automaton holds copies of its patterns
//! that are freed without being wiped; it lives in the server's process, where the values are anyway.

use std::{
    borrow::Cow,
    collections::{HashMap, VecDeque},
    fmt,
    sync::Arc,
};

use aho_corasick::{AhoCorasick, MatchKind};
use base64::{Engine, prelude::BASE64_STANDARD_NO_PAD};
use parking_lot::RwLock;
use zeroize::Zeroizing;

/// Shorter values are not looked for.
pub const MIN_SECRET_BYTES: usize = 6;
/// Values per slot that are remembered: the newest, and those before it that a destination may still echo.
const REMEMBERED: usize = 3;
const REDACTED: &str = "<redacted>";

/// The secrets of one sink or resolver.
#[derive(Default)]
pub struct Scrubber {
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    /// By what the value is for, the newest last.
    values: HashMap<String, VecDeque<Zeroizing<Vec<u8>>>>,
    automaton: Option<Arc<AhoCorasick>>,
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
        state.automaton = state.build();
    }

    /// The text without secrets.
    pub fn scrub<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match self.automaton() {
            Some(automaton) if automaton.is_match(text) => {
                // Bytewise: a pattern that is not text may end inside of a character.
                Cow::Owned(String::from_utf8_lossy(&replace(&automaton, text.as_bytes())).into_owned())
            }
            _ => Cow::Borrowed(text),
        }
    }

    /// The bytes without secrets.
    pub fn scrub_bytes(&self, bytes: Vec<u8>) -> Vec<u8> {
        match self.automaton() {
            Some(automaton) if automaton.is_match(&bytes) => replace(&automaton, &bytes),
            _ => bytes,
        }
    }

    fn automaton(&self) -> Option<Arc<AhoCorasick>> {
        self.state.read().automaton.clone()
    }
}

impl State {
    fn knows(&self, key: &str, value: &[u8]) -> bool {
        self.values.get(key).is_some_and(|values| values.iter().any(|known| known.as_slice() == value))
    }

    fn build(&self) -> Option<Arc<AhoCorasick>> {
        let mut patterns: Vec<Zeroizing<Vec<u8>>> =
            self.values.values().flatten().flat_map(|value| spellings(value)).collect();
        patterns.sort_by(|a, b| a.as_slice().cmp(b.as_slice()));
        patterns.dedup();
        let built = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .ascii_case_insensitive(true)
            .build(patterns.iter().map(|pattern| pattern.as_slice()));
        match built {
            Ok(automaton) => Some(Arc::new(automaton)),
            Err(error) => {
                // Only for gigabytes of patterns. What is already known goes on being taken out.
                tracing::error!(%error, "a sink's secrets are too large to be looked for in its messages");
                self.automaton.clone()
            }
        }
    }
}

fn replace(automaton: &AhoCorasick, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    automaton.replace_all_with_bytes(bytes, &mut out, |_, _, out| {
        out.extend_from_slice(REDACTED.as_bytes());
        true
    });
    out
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
