//! The parser's tokens, and what no SQL shows: hostile texts, rows that share what is made ready.
//!
//! Expected tokens are those of PostgreSQL 15's `ts_parse('default', …)`. `tests/slt/postgres/text_search*.slt` hold
//! the rest against it.

use std::time::Instant;

use super::{
    compose::{Reading, query},
    dictionary::{Analyzer, configuration},
    document::Gathered,
    matching::Matcher,
    rank,
    tokens::{Kind, Tokens},
};
use crate::values::text_search::TsQuery;

fn tokens(text: &str) -> Vec<(Kind, &str)> {
    Tokens::new(text).filter(|(kind, _)| *kind != Kind::Blank).collect()
}

fn document(text: &str) -> String {
    let mut out = String::new();
    let mut analyzer = Analyzer::new("english").expect("a configuration");
    Gathered::default().document(&mut analyzer, text, &mut out).expect("a document");
    out
}

#[test]
fn tokens_are_those_of_postgres() {
    use Kind::{
        AsciiWord, Email, Entity, File, Float, Host, HyphenAsciiPart, HyphenAsciiWord, HyphenNumPart,
        HyphenNumWord, Int, NumWord, Protocol, ScientificFloat, Tag, UnsignedInt, Url, UrlPath, Version,
        Word,
    };
    let cases: &[(&str, &[(Kind, &str)])] = &[
        ("a b", &[(AsciiWord, "a"), (AsciiWord, "b")]),
        ("über x1", &[(Word, "über"), (NumWord, "x1")]),
        ("co-op2", &[(HyphenNumWord, "co-op2"), (HyphenAsciiPart, "co"), (HyphenNumPart, "op2")]),
        ("x-ray", &[(HyphenAsciiWord, "x-ray"), (HyphenAsciiPart, "x"), (HyphenAsciiPart, "ray")]),
        ("jo@ex.org", &[(Email, "jo@ex.org")]),
        (
            "http://a.bc/d?e=f",
            &[(Protocol, "http://"), (Url, "a.bc/d?e=f"), (Host, "a.bc"), (UrlPath, "/d?e=f")],
        ),
        ("/usr/bin", &[(File, "/usr/bin")]),
        (
            "1.5 -3 7 1e5 1.2.3",
            &[(Float, "1.5"), (Int, "-3"), (UnsignedInt, "7"), (ScientificFloat, "1e5"), (Version, "1.2.3")],
        ),
        ("<b>x</b> &amp;", &[(Tag, "<b>"), (AsciiWord, "x"), (Tag, "</b>"), (Entity, "&amp;")]),
        ("-1.2.3", &[(Version, "1.2.3")]),
        ("", &[]),
        ("é", &[(Word, "é")]),
        ("a@", &[(AsciiWord, "a")]),
    ];
    for (text, expected) in cases {
        assert_eq!(&tokens(text), expected, "{text}");
    }
}

#[test]
fn tokens_cover_the_text_and_end() {
    let hostile = ["a@", "a.bc@", "a-", "<a ", "/a", "1.", "a/b.", "<!--", "é-", "&#x", "-1.2.", "a.bc/d@"];
    for piece in hostile {
        for times in [1, 2, 70, 1_500] {
            let text = piece.repeat(times);
            let started = Instant::now();
            // Parts repeat their whole, and hosts and paths their URL.
            let longest = Tokens::new(&text).map(|(_, token)| token.len()).max();
            assert!(longest.is_some(), "{piece}");
            assert!(started.elapsed().as_secs() < 20, "{piece} {times} times");
        }
    }
}

#[test]
fn places_and_stop_words_are_counted() {
    assert_eq!(document("The cats and the dogs, the CATS"), "'cat':2,7 'dog':5");
    assert_eq!(document("the and of"), "");
    let many = document(&"cat ".repeat(300));
    assert_eq!(many.matches(',').count(), 254);
    assert_eq!(document(&format!("{} dog", "x".repeat(3_000))), "'dog':1");
}

#[test]
fn a_matcher_serves_one_document_after_the_other() {
    let parsed = TsQuery::parse("cat <-> dog | bird & !fish").expect("a query");
    let mut matcher = Matcher::new(&parsed);
    let cases = [
        ("'cat':1 'dog':2", true),
        ("'cat':1 'dog':3", false),
        ("'bird':1", true),
        ("'bird':1 'fish':2", false),
        ("", false),
        ("'cat':4 'dog':1,5", true),
    ];
    for (document, expected) in cases {
        assert_eq!(matcher.matches(document), expected, "{document}");
    }
    assert!(!Matcher::new(&TsQuery::default()).matches("'a':1"));
}

/// As long a query as a text has words, deeper than any stack.
#[test]
fn a_long_query_needs_no_stack() {
    let text: String = (0..50_000).map(|number| format!("word{number} the ")).collect();
    let mut analyzer = Analyzer::new("english").expect("a configuration");
    for reading in [Reading::Plain, Reading::Phrase, Reading::Web] {
        let query = query(&mut analyzer, &text, reading).expect("a query");
        assert_eq!(query.items.len(), 99_999);
        let mut written = String::new();
        query.write(&mut written);
        assert_eq!(TsQuery::parse(&written).expect("what was written"), query);
        assert!(!Matcher::new(&query).matches("'word1':1"));
    }
    let deep = format!("{}a{}", "(!".repeat(100_000), ")".repeat(100_000));
    assert!(Matcher::new(&TsQuery::parse(&deep).expect("a query")).matches("'a':1"));
}

#[test]
fn configurations_are_found_by_name() {
    assert_eq!(configuration("pg_catalog.English").map_err(|error| error.state().code()), Ok("english"));
    assert_eq!(configuration("greek").map_err(|error| error.state().code()), Err("0A000"));
    assert_eq!(configuration("klingon").map_err(|error| error.state().code()), Err("42704"));
}

#[test]
fn ranks_are_those_of_postgres() {
    let parsed = TsQuery::parse("cat & dog").expect("a query");
    let mut matcher = Matcher::new(&parsed);
    let text = document("The cat sat near the other cat while a dog slept near the cat");
    assert_eq!(rank::rank(&rank::WEIGHTS, &matcher, &text, 0), 0.235_972_52);
    assert_eq!(super::cover::rank(&rank::WEIGHTS, &mut matcher, &text, 0), 0.058_333_334);
    assert_eq!(super::cover::rank(&rank::WEIGHTS, &mut matcher, &text, 1), 0.026_548_645);
    assert_eq!(rank::rank(&rank::WEIGHTS, &matcher, "", 0), 0.0);
}
