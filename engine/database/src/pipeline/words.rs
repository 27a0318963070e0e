//! What others say of a failure, and who may hear it.
//!
//! A destination quotes what it refuses, and an expression the value that it fails on: such a text may hold rows of the
//! tenant's. It goes to the tenant's own views, cut and without control characters ([`shown`]), and never to the
//! server's log, which has its code ([`code`]).

use sepal_types::{Error, ErrorKind};

use crate::connector::Fault;

/// Longest text that is kept, in bytes.
const MOST_BYTES: usize = 4 << 10;
const MOST_CODE_BYTES: usize = 64;
const CUT: char = '…';

/// For a view.
pub fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len().min(MOST_BYTES));
    for character in text.chars() {
        let before = shown.len();
        if character.is_control() {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
        if shown.len() > MOST_BYTES - CUT.len_utf8() {
            shown.truncate(before);
            shown.push(CUT);
            break;
        }
    }
    shown
}

/// For the log and for programs: the fault's code if that is one word, else its kind.
pub fn code(fault: &Fault) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let is_word = |code: &&String| (1..=MOST_CODE_BYTES).contains(&code.len()) && code.bytes().all(is_plain);
    fault.code.as_ref().filter(is_word).map_or_else(|| fault.kind.name().to_owned(), String::clone)
}

/// For the log: what an error of ours says. Of any other kind the message is about the tenant's values.
pub fn logged(error: &Error) -> &str {
    match error.kind() {
        ErrorKind::Bug | ErrorKind::Corrupt | ErrorKind::Exhausted | ErrorKind::Unavailable => {
            error.message()
        }
        ErrorKind::Cancelled
        | ErrorKind::Conflict
        | ErrorKind::Invalid
        | ErrorKind::Refused
        | ErrorKind::Unsupported => "the view sepal_pipeline_status tells its tenant why",
    }
}

#[cfg(test)]
mod tests {
    use sepal_types::SqlState;

    use super::*;
    use crate::connector::FaultKind;

    #[test]
    fn texts_are_cut_and_have_no_control_characters() {
        assert_eq!(shown("plain, ünïcode"), "plain, ünïcode");
        assert_eq!(shown("a\nb\u{1b}[31m"), "a\\nb\\u{1b}[31m");
        for character in ["x", "ü", "\n", "🦀"] {
            let cut = shown(&character.repeat(MOST_BYTES));
            assert!(cut.len() <= MOST_BYTES && cut.ends_with(CUT), "{character:?}: {}", cut.len());
            assert!(cut.len() > MOST_BYTES - 16);
        }
    }

    #[test]
    fn the_log_has_words_only() {
        let fault = |code: &str| Fault::new(FaultKind::Rejected, "value 4711").with_code(code);
        assert_eq!(code(&fault("pg.23505")), "pg.23505");
        for text in ["", "two words", "line\nbreak", &"x".repeat(65)] {
            assert_eq!(code(&fault(text)), "rejected", "{text:?}");
        }
        assert_eq!(code(&Fault::new(FaultKind::Transient, "")), "transient");
        let theirs = Error::new(SqlState::InvalidTextRepresentation, "invalid input: 'value 4711'");
        assert!(!logged(&theirs).contains("4711"));
        assert_eq!(logged(&Error::bug("ours")), "ours");
    }
}
