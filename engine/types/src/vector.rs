//! The text form of a `vector`, with pgvector's checks and wording (`src/vector.c`, version 0.8).
//!
//! Used by the planner for literals and by the wire for text parameters, COPY and results.

use crate::{Error, Result, SqlState, format_float4, limits::MAX_DIMENSIONS};

/// Parses `[1,2,3]`. Spaces are allowed around numbers and outside the brackets.
///
/// Errors: 22P02 malformed, 22003 a number out of `float4`'s range, 22000 NaN, infinity or no dimension,
/// 54000 more than 16,000 dimensions.
pub fn parse_vector(text: &str) -> Result<Vec<f32>> {
    let body = text.trim_matches(is_space);
    let malformed = || {
        Error::new(
            SqlState::InvalidTextRepresentation,
            format!("invalid input syntax for type vector: \"{text}\""),
        )
    };
    let Some(inner) = body.strip_prefix('[') else {
        return Err(malformed().with_detail("Vector contents must start with \"[\"."));
    };
    let Some(end) = inner.find(']') else {
        return Err(malformed());
    };
    if end + 1 != inner.len() {
        return Err(malformed().with_detail("Junk after closing right brace."));
    }
    let inner = inner[..end].trim_matches(is_space);
    if inner.is_empty() {
        return Err(Error::new(SqlState::DataException, "vector must have at least 1 dimension"));
    }
    let mut values = Vec::with_capacity(inner.len() / 8 + 1);
    for part in inner.split(',') {
        if values.len() == MAX_DIMENSIONS {
            return Err(too_many_dimensions());
        }
        let number = part.trim_matches(is_space);
        let value: f32 = parse_number(number).ok_or_else(malformed)?;
        if value.is_infinite() && !number.to_ascii_lowercase().contains("inf") {
            return Err(Error::new(
                SqlState::NumericValueOutOfRange,
                format!("\"{number}\" is out of range for type vector"),
            ));
        }
        values.push(value);
    }
    check_finite(&values)?;
    Ok(values)
}

/// Refuses NaN and infinity with pgvector's words (22000).
pub fn check_finite(values: &[f32]) -> Result<()> {
    // One pass that vectorises: NaN and infinity are the values whose exponent bits are all set.
    const EXPONENT: u32 = 0x7f80_0000;
    if values.iter().fold(0, |any, value| any | u32::from(value.to_bits() & EXPONENT == EXPONENT)) == 0 {
        return Ok(());
    }
    let message = if values.iter().any(|value| value.is_nan()) {
        "NaN not allowed in vector"
    } else {
        "infinite value not allowed in vector"
    };
    Err(Error::new(SqlState::DataException, message))
}

/// Appends `[1,2,3]` with each element's shortest digits.
pub fn format_vector(values: &[f32], out: &mut String) {
    out.push('[');
    for (position, value) in values.iter().enumerate() {
        if position > 0 {
            out.push(',');
        }
        format_float4(*value, out);
    }
    out.push(']');
}

fn too_many_dimensions() -> Error {
    Error::new(
        SqlState::ProgramLimitExceeded,
        format!("vector cannot have more than {MAX_DIMENSIONS} dimensions"),
    )
}

/// C's `strtof` accepts what Rust does, except Rust's bare sign and `infinity` spellings, which agree here.
fn parse_number(text: &str) -> Option<f32> {
    text.parse().ok()
}

/// pgvector's `vector_isspace`.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{b}' | '\u{c}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_pgvector_reads() {
        assert_eq!(parse_vector(" [1, 2.5 ,-3e-2] ").unwrap(), vec![1.0, 2.5, -0.03]);
        let mut out = String::new();
        format_vector(&[1.0, 2.5, -0.03, 1e-7], &mut out);
        assert_eq!(out, "[1,2.5,-0.03,1e-07]");
    }

    #[test]
    fn refuses_with_pgvectors_words() {
        let cases = [
            ("1,2", "22P02", "invalid input syntax for type vector: \"1,2\""),
            ("[1,2", "22P02", "invalid input syntax for type vector: \"[1,2\""),
            ("[1,,2]", "22P02", "invalid input syntax for type vector: \"[1,,2]\""),
            ("[1,2]x", "22P02", "invalid input syntax for type vector: \"[1,2]x\""),
            ("[]", "22000", "vector must have at least 1 dimension"),
            ("[NaN]", "22000", "NaN not allowed in vector"),
            ("[inf]", "22000", "infinite value not allowed in vector"),
            ("[1e40]", "22003", "\"1e40\" is out of range for type vector"),
        ];
        for (text, code, message) in cases {
            let error = parse_vector(text).unwrap_err();
            assert_eq!((error.state().code(), error.message()), (code, message), "{text}");
        }
    }
}
