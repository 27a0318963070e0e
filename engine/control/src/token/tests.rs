//! What a token looks like, and that no near miss passes.

use proptest::prelude::*;

use super::*;

#[test]
fn form() {
    for (environment, slug) in [
        (None, "all"),
        (Some("production"), "production"),
        (Some("my-app_2"), "myapp2"),
        (Some("-_-"), "env"),
    ] {
        let token = Token::generate(environment);
        let text = token.expose();
        let parts: Vec<&str> = text.split('_').collect();
        assert_eq!(parts.len(), 6, "double-click selects it, splitting gives six parts");
        assert_eq!((parts[0], parts[1], parts[2]), ("sepal", "live", slug));
        assert_eq!((parts[3].len(), parts[4].len(), parts[5].len()), (12, 43, 6));
        assert_eq!(token.key_id(), parts[3]);
        assert_eq!(Token::parse(text).unwrap().expose(), text);
    }
    let long = Token::generate(Some("a-very-long-environment-name-indeed"));
    assert!(Token::parse(long.expose()).is_some());
}

/// The CRC was computed with Python's zlib.crc32 over everything before it.
#[test]
fn checksum_is_golden() {
    let text = "sepal_live_all_000000000000_0000000000000000000000000000000000000000000_11myvN";
    assert!(Token::parse(text).is_some());
}

#[test]
fn debug_and_errors_show_no_secret() {
    let token = Token::generate(None);
    let shown = format!("{token:?}");
    assert!(shown.contains(token.key_id()) && shown.contains("redacted"));
    assert!(!shown.contains(token.expose().split('_').nth(4).unwrap()));
}

#[test]
fn every_character_and_token_differs() {
    let mut seen = std::collections::HashSet::new();
    for _ in 0..200 {
        let token = Token::generate(None);
        assert!(seen.insert(token.key_id().to_owned()));
        assert!(seen.insert(token.expose().to_owned()));
    }
    let letters: std::collections::HashSet<char> =
        seen.iter().filter(|text| text.len() == 12).flat_map(|text| text.chars()).collect();
    assert_eq!(letters.len(), 62, "2,400 draws use the whole alphabet");
}

/// The server tells key ids from tenants' names by it, and offers SCRAM to the former only.
#[test]
fn every_key_id_has_a_capital() {
    for _ in 0..20_000 {
        let token = Token::generate(None);
        assert!(token.key_id().bytes().any(|byte| byte.is_ascii_uppercase()), "{}", token.key_id());
        assert!(crate::TenantName::parse(token.key_id()).is_err());
    }
    // Keys made before that rule still work, with the token as password.
    assert!(
        Token::parse("sepal_live_all_000000000000_0000000000000000000000000000000000000000000_11myvN")
            .is_some()
    );
}

proptest! {
    #[test]
    fn one_changed_character_is_refused(position in 0usize..78, replacement in any::<char>()) {
        let token = Token::generate(None);
        let mut characters: Vec<char> = token.expose().chars().collect();
        prop_assert_eq!(characters.len(), 11 + 3 + 1 + 12 + 1 + 43 + 1 + 6);
        prop_assume!(characters[position] != replacement);
        characters[position] = replacement;
        let changed: String = characters.into_iter().collect();
        prop_assert!(Token::parse(&changed).is_none());
    }

    #[test]
    fn one_swapped_base62_character_is_refused(position in 0usize..78, replacement in 0usize..62) {
        let token = Token::generate(None);
        let mut bytes = token.expose().as_bytes().to_vec();
        prop_assume!(bytes[position] != BASE62[replacement]);
        bytes[position] = BASE62[replacement];
        prop_assert!(Token::parse(std::str::from_utf8(&bytes).unwrap()).is_none());
    }

    #[test]
    fn parsing_never_panics(text in "(sepal_live_)?.{0,80}") {
        let _ = Token::parse(&text);
    }
}
