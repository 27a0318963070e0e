//! `vector` and `halfvec`: their text form, with pgvector's checks and wording (`src/vector.c`, `src/halfvec.c`,
//! version 0.8).
//!
//! Used by the planner for literals and by the wire for text parameters, COPY and results.

use half::f16;

use crate::{Error, Result, SparseVector, SqlState, SqlType, format_float4, limits::MAX_DIMENSIONS};

/// The types whose values are vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VectorKind {
    /// `halfvec`: elements of IEEE 754's half precision.
    Half,
    /// `vector`: elements of single precision.
    Single,
}

impl VectorKind {
    pub const ALL: [VectorKind; 2] = [VectorKind::Half, VectorKind::Single];

    /// The type's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Half => "halfvec",
            Self::Single => "vector",
        }
    }

    /// What follows the schema in `extensions.vector(3)`, whatever schema that is: CREATE EXTENSION may have named any.
    /// `None` for other types, and without a schema.
    pub fn without_schema(type_name: &str) -> Option<&str> {
        let modifier = type_name.find('(').unwrap_or(type_name.len());
        let bare = &type_name[type_name[..modifier].rfind('.')? + 1..];
        let base = bare.split(['(', '[']).next()?.trim_end();
        let known = base == SparseVector::NAME || Self::ALL.iter().any(|kind| kind.name() == base);
        known.then_some(bare)
    }

    pub const fn sql_type(self, dimensions: Option<u16>) -> SqlType {
        match self {
            Self::Half => SqlType::HalfVec(dimensions),
            Self::Single => SqlType::Vector(dimensions),
        }
    }

    /// What both are where an operator takes two of one type: pgvector casts `vector` to `halfvec` by itself, but not
    /// the other way.
    #[must_use]
    pub const fn beside(self, other: Self) -> Self {
        match (self, other) {
            (Self::Single, Self::Single) => Self::Single,
            _ => Self::Half,
        }
    }

    /// The modifier in `vector(3)`. Errors: 22023 as pgvector's `vector_typmod_in`.
    pub fn declared(self, dimensions: i64) -> Result<u16> {
        let refuse = |what: String| Err(Error::new(SqlState::InvalidParameterValue, what));
        if dimensions < 1 {
            return refuse(format!("dimensions for type {} must be at least 1", self.name()));
        }
        match u16::try_from(dimensions) {
            Ok(dimensions) if usize::from(dimensions) <= MAX_DIMENSIONS => Ok(dimensions),
            _ => refuse(format!("dimensions for type {} cannot exceed {MAX_DIMENSIONS}", self.name())),
        }
    }

    /// pgvector's `CheckDim`. Errors: 22000 without a dimension, 54000 with more than 16,000.
    pub fn check_count(self, dimensions: usize) -> Result<()> {
        if dimensions == 0 {
            let message = format!("{} must have at least 1 dimension", self.name());
            return Err(Error::new(SqlState::DataException, message));
        }
        if dimensions > MAX_DIMENSIONS {
            let message = format!("{} cannot have more than {MAX_DIMENSIONS} dimensions", self.name());
            return Err(Error::new(SqlState::ProgramLimitExceeded, message));
        }
        Ok(())
    }

    /// pgvector's `CheckDims`: an operator's two vectors have as many elements. Errors: 22000.
    pub fn check_same(self, left: usize, right: usize) -> Result<()> {
        if left == right {
            return Ok(());
        }
        let message = format!("different {} dimensions {left} and {right}", self.name());
        Err(Error::new(SqlState::DataException, message))
    }
}

/// An element of a vector.
pub trait VectorElement: Copy {
    const KIND: VectorKind;

    /// The nearest, ties to even; infinite past the type's range.
    fn nearest(value: f32) -> Self;

    /// The same number.
    fn widened(self) -> f32;

    /// NaN or infinite: the values whose exponent bits are all set.
    fn is_special(self) -> bool;
}

impl VectorElement for f32 {
    const KIND: VectorKind = VectorKind::Single;

    #[inline]
    fn nearest(value: f32) -> Self {
        value
    }

    #[inline]
    fn widened(self) -> f32 {
        self
    }

    #[inline]
    fn is_special(self) -> bool {
        const EXPONENT: u32 = 0x7f80_0000;
        self.to_bits() & EXPONENT == EXPONENT
    }
}

impl VectorElement for f16 {
    const KIND: VectorKind = VectorKind::Half;

    #[inline]
    fn nearest(value: f32) -> Self {
        Self::from_f32(value)
    }

    #[inline]
    fn widened(self) -> f32 {
        self.to_f32()
    }

    #[inline]
    fn is_special(self) -> bool {
        const EXPONENT: u16 = 0x7c00;
        self.to_bits() & EXPONENT == EXPONENT
    }
}

/// [`parse_elements`] of a `vector`.
pub fn parse_vector(text: &str) -> Result<Vec<f32>> {
    parse_elements(text)
}

/// Parses `[1,2,3]`. Spaces are allowed around numbers and outside the brackets.
///
/// Errors: 22P02 malformed, 22003 a number out of the elements' range, 22000 NaN, infinity or no dimension,
/// 54000 more than 16,000 dimensions.
pub fn parse_elements<E: VectorElement>(text: &str) -> Result<Vec<E>> {
    let name = E::KIND.name();
    let body = text.trim_matches(is_space);
    let malformed = || {
        Error::new(
            SqlState::InvalidTextRepresentation,
            format!("invalid input syntax for type {name}: \"{text}\""),
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
        E::KIND.check_count(0)?;
    }
    let mut values = Vec::with_capacity(inner.len() / 8 + 1);
    for part in inner.split(',') {
        E::KIND.check_count(values.len() + 1)?;
        let number = part.trim_matches(is_space);
        let value = E::nearest(parse_number(number).ok_or_else(malformed)?);
        if value.widened().is_infinite() && !number.to_ascii_lowercase().contains("inf") {
            return Err(out_of_range(number, E::KIND));
        }
        values.push(value);
    }
    check_finite(&values)?;
    Ok(values)
}

/// Refuses NaN and infinity with pgvector's words (22000).
pub fn check_finite<E: VectorElement>(values: &[E]) -> Result<()> {
    // One pass that vectorises.
    if !values.iter().fold(false, |any, value| any | value.is_special()) {
        return Ok(());
    }
    let what = if values.iter().any(|value| value.widened().is_nan()) { "NaN" } else { "infinite value" };
    Err(Error::new(SqlState::DataException, format!("{what} not allowed in {}", E::KIND.name())))
}

/// Appends `[1,2,3]` with each element's shortest digits; those of a half are its digits as `float4`.
pub fn format_vector<E: VectorElement>(values: &[E], out: &mut String) {
    out.push('[');
    for (position, value) in values.iter().enumerate() {
        if position > 0 {
            out.push(',');
        }
        format_float4(value.widened(), out);
    }
    out.push(']');
}

/// pgvector's `Float4ToHalf`. Errors: 22003 for a number that is past the range of half precision.
pub fn round_to_half(value: f32) -> Result<f16> {
    let half = f16::from_f32(value);
    if half.is_infinite() && !value.is_infinite() {
        let mut digits = String::new();
        format_float4(value, &mut digits);
        return Err(out_of_range(&digits, VectorKind::Half));
    }
    Ok(half)
}

fn out_of_range(number: &str, kind: VectorKind) -> Error {
    Error::new(
        SqlState::NumericValueOutOfRange,
        format!("\"{number}\" is out of range for type {}", kind.name()),
    )
}

/// C's `strtof` accepts what Rust does, except Rust's bare sign and `infinity` spellings, which agree here.
fn parse_number(text: &str) -> Option<f32> {
    text.parse().ok()
}

/// pgvector's `vector_isspace`.
pub(crate) fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{b}' | '\u{c}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_pgvector_reads() {
        assert_eq!(parse_vector(" [1, 2.5 ,-3e-2] ").unwrap(), vec![1.0, 2.5, -0.03]);
        let mut out = String::new();
        format_vector(&[1.0_f32, 2.5, -0.03, 1e-7], &mut out);
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

    #[test]
    fn halves_are_read_rounded_and_printed_as_pgvector_does() {
        let halves: Vec<f16> = parse_elements(" [1, 2.5 ,-0.1, 1e-8, 65519] ").unwrap();
        assert_eq!(
            halves.iter().map(|half| half.to_bits()).collect::<Vec<_>>(),
            [0x3c00, 0x4100, 0xae66, 0, 0x7bff]
        );
        let mut out = String::new();
        format_vector(&halves, &mut out);
        assert_eq!(out, "[1,2.5,-0.099975586,0,65504]");
        let cases = [
            ("1,2", "22P02", "invalid input syntax for type halfvec: \"1,2\""),
            ("[]", "22000", "halfvec must have at least 1 dimension"),
            ("[NaN]", "22000", "NaN not allowed in halfvec"),
            ("[-inf]", "22000", "infinite value not allowed in halfvec"),
            ("[65520]", "22003", "\"65520\" is out of range for type halfvec"),
        ];
        for (text, code, message) in cases {
            let error = parse_elements::<f16>(text).unwrap_err();
            assert_eq!((error.state().code(), error.message()), (code, message), "{text}");
        }
        assert_eq!(
            round_to_half(-70000.0).unwrap_err().message(),
            "\"-70000\" is out of range for type halfvec"
        );
        assert_eq!(round_to_half(65519.0).unwrap(), f16::MAX);
    }
}
