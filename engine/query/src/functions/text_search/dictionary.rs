//! Text search configurations: from a text to its lexemes.
//!
//! Called for documents and queries alike. A configuration is what PostgreSQL's initdb makes of it (snowball.sql):
//! words go to the stemmer of the language, everything else that is no blank, tag, protocol or entity is put into
//! lower case. `stop_words/` are PostgreSQL's lists (src/backend/snowball/stopwords, under the PostgreSQL licence). A
//! word that is on the list counts as a place, and is no lexeme.

use std::{
    collections::{HashMap, HashSet},
    sync::LazyLock,
};

use rust_stemmers::{Algorithm, Stemmer};
use sepal_types::{Error, Result, SqlState};

use super::tokens::{Kind, Tokens};

/// Bytes of the longest token that is looked at (`MAXSTRLEN`).
const LONGEST_TOKEN: usize = 2_046;
/// Longer words are not stemmed (`dsnowball_lexize`).
const LONGEST_STEMMED: usize = 1_000;
/// Words whose lexemes are remembered.
const MOST_KNOWN: usize = 8_192;

/// A language with its stemmer and its stop words.
struct Language {
    name: &'static str,
    algorithm: Algorithm,
    stop_words: &'static str,
}

const fn language(name: &'static str, algorithm: Algorithm, stop_words: &'static str) -> Language {
    Language { name, algorithm, stop_words }
}

static LANGUAGES: [Language; 15] = [
    language("danish", Algorithm::Danish, include_str!("stop_words/danish.stop")),
    language("dutch", Algorithm::Dutch, include_str!("stop_words/dutch.stop")),
    language("english", Algorithm::English, include_str!("stop_words/english.stop")),
    language("finnish", Algorithm::Finnish, include_str!("stop_words/finnish.stop")),
    language("french", Algorithm::French, include_str!("stop_words/french.stop")),
    language("german", Algorithm::German, include_str!("stop_words/german.stop")),
    language("hungarian", Algorithm::Hungarian, include_str!("stop_words/hungarian.stop")),
    language("italian", Algorithm::Italian, include_str!("stop_words/italian.stop")),
    language("norwegian", Algorithm::Norwegian, include_str!("stop_words/norwegian.stop")),
    language("portuguese", Algorithm::Portuguese, include_str!("stop_words/portuguese.stop")),
    language("romanian", Algorithm::Romanian, ""),
    language("russian", Algorithm::Russian, include_str!("stop_words/russian.stop")),
    language("spanish", Algorithm::Spanish, include_str!("stop_words/spanish.stop")),
    language("swedish", Algorithm::Swedish, include_str!("stop_words/swedish.stop")),
    language("turkish", Algorithm::Turkish, include_str!("stop_words/turkish.stop")),
];

/// Those that PostgreSQL has besides.
const OTHERS: [&str; 12] = [
    "arabic",
    "armenian",
    "basque",
    "catalan",
    "greek",
    "hindi",
    "indonesian",
    "irish",
    "lithuanian",
    "nepali",
    "serbian",
    "tamil",
];

/// A stemmer and the words before it.
struct Dictionary {
    stemmer: Stemmer,
    stop_words: HashSet<&'static str>,
}

static DICTIONARIES: LazyLock<Vec<Dictionary>> = LazyLock::new(|| {
    let dictionary = |language: &Language| Dictionary {
        stemmer: Stemmer::create(language.algorithm),
        stop_words: language.stop_words.lines().filter(|word| !word.is_empty()).collect(),
    };
    LANGUAGES.iter().map(dictionary).collect()
});

/// A configuration at work. Remembers what it has found out: texts repeat their words.
pub(super) struct Analyzer {
    /// Of words in ASCII, and of others; `None` puts them into lower case.
    ascii: Option<&'static Dictionary>,
    words: Option<&'static Dictionary>,
    known: HashMap<Box<str>, Option<Box<str>>>,
    lower: String,
}

/// The name of a configuration as `regconfig` prints it.
///
/// Errors: 42704 there is none, 0A000 Sepal has not got it.
pub fn configuration(name: &str) -> Result<&'static str> {
    let lower = name.trim().to_ascii_lowercase();
    let bare = lower.strip_prefix("pg_catalog.").unwrap_or(&lower);
    let bare = bare.strip_prefix('"').and_then(|bare| bare.strip_suffix('"')).unwrap_or(bare);
    if bare == "simple" {
        return Ok("simple");
    }
    if let Some(language) = LANGUAGES.iter().find(|language| language.name == bare) {
        return Ok(language.name);
    }
    let unknown = bare != "yiddish" && !OTHERS.contains(&bare);
    Err(match unknown {
        true => {
            let message = format!("text search configuration \"{name}\" does not exist");
            Error::new(SqlState::UndefinedObject, message)
        }
        false => Error::unsupported(format!("text search configuration \"{bare}\" is not supported"))
            .with_hint("\"simple\" takes texts of every language, word by word."),
    })
}

impl Analyzer {
    /// Errors: as [`configuration`].
    pub(super) fn new(name: &str) -> Result<Self> {
        let name = configuration(name)?;
        let of = |name: &str| {
            let place = LANGUAGES.iter().position(|language| language.name == name)?;
            DICTIONARIES.get(place)
        };
        let words = of(name);
        // Latin words in a Russian text are taken for English ones.
        let ascii = if name == "russian" { of("english") } else { words };
        Ok(Self { ascii, words, known: HashMap::new(), lower: String::new() })
    }

    /// Calls with each word of a text: which one it is, from 1, and its lexeme; `None` for a stop word.
    pub(super) fn each_word(&mut self, text: &str, mut each: impl FnMut(u32, Option<&str>)) {
        let mut place = 0;
        for (kind, token) in Tokens::new(text) {
            let dictionary = match kind {
                Kind::Blank | Kind::Tag | Kind::Protocol | Kind::Entity => continue,
                _ if token.len() > LONGEST_TOKEN => continue,
                Kind::AsciiWord | Kind::HyphenAsciiPart | Kind::HyphenAsciiWord => self.ascii,
                Kind::Word | Kind::HyphenPart | Kind::HyphenWord => self.words,
                _ => None,
            };
            place += 1;
            self.lower.clear();
            if token.is_ascii() {
                self.lower.push_str(token);
                self.lower.make_ascii_lowercase();
            } else {
                // One character for each, as `towlower` gives.
                self.lower.extend(token.chars().map(|here| here.to_lowercase().next().unwrap_or(here)));
            }
            match dictionary {
                None => each(place, Some(self.lower.as_str())),
                Some(_) if self.lower.len() > LONGEST_STEMMED => each(place, Some(self.lower.as_str())),
                Some(dictionary) => {
                    if let Some(known) = self.known.get(self.lower.as_str()) {
                        each(place, known.as_deref());
                        continue;
                    }
                    let lexeme = dictionary.lexeme(&self.lower);
                    each(place, lexeme.as_deref());
                    if self.known.len() < MOST_KNOWN {
                        self.known.insert(self.lower.as_str().into(), lexeme);
                    }
                }
            }
        }
    }
}

impl Dictionary {
    /// `None` for a stop word.
    fn lexeme(&self, word: &str) -> Option<Box<str>> {
        if self.stop_words.contains(word) {
            return None;
        }
        Some(self.stemmer.stem(word).into_owned().into_boxed_str())
    }
}

/// The configurations by the oids that PostgreSQL 15's initdb gives them.
pub fn text_search_configurations() -> impl Iterator<Item = (u32, &'static str)> {
    const OIDS: [u32; 15] = [
        13_160, 13_162, 13_164, 13_166, 13_168, 13_170, 13_176, 13_182, 13_188, 13_190, 13_192, 13_194,
        13_198, 13_200, 13_204,
    ];
    let languages = OIDS.into_iter().zip(LANGUAGES.iter().map(|language| language.name));
    std::iter::once((3_748, "simple")).chain(languages)
}
