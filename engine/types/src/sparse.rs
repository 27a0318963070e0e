//! `sparsevec`: its text form, with pgvector's checks and wording (`src/sparsevec.c`, version 0.8), and the words that
//! one is kept as.
//!
//! Used by the wire for parameters, COPY and results, by the planner for literals, by storage for the default of a
//! column and by `index` for distances.
//!
//! ```text
//! per element, by index: its place i32, its value i32 | the end i32
//!
//! element    | place (index from 0)   | value
//! above zero | 0x7fffffff - index     | the bits of the f32
//! below zero | -2^31 + 2 × index + 1  | the bits of the f32, all but the sign inverted
//! the end    | -2^31 + 2 × dimensions |
//! ```
//!
//! Compared word by word, a shorter list first, these words have the order of pgvector's `sparsevec_cmp`: element by
//! element as if the zeros were there, then by dimensions. Equal vectors have equal words.

use crate::{
    Error, Result, SqlState, format_float4,
    limits::{MAX_SPARSE_DIMENSIONS, MAX_SPARSE_ELEMENTS},
    vector::is_space,
};

/// A vector of which only the elements are kept that are not zero.
#[derive(Clone, Debug, PartialEq)]
pub struct SparseVector {
    pub dimensions: u32,
    /// By ascending index, counted from 0; none is zero.
    pub elements: Vec<(u32, f32)>,
}

impl SparseVector {
    /// The type's name.
    pub const NAME: &'static str = "sparsevec";

    /// Reads `{1:1.5,3:2}/5`, in which indices count from 1 and may come in any order. `declared`: of the column.
    ///
    /// Errors: 22P02 malformed, 22003 a number out of a `float4`'s range, 22000 NaN, infinity, an index twice or out of
    /// bounds, no dimension or another number of them than was declared, 54000 too many elements or dimensions.
    pub fn parse(text: &str, declared: Option<u32>) -> Result<Self> {
        if text.bytes().filter(|byte| *byte == b',').count() >= MAX_SPARSE_ELEMENTS {
            return Err(too_many_elements());
        }
        let mut reader = Reader { text, rest: text };
        let mut written = reader.elements()?;
        let dimensions = Self::check_dimensions(reader.dimensions()?)?;
        Self::check_expected(dimensions, declared)?;
        written.sort_by_key(|(index, _)| *index);
        let mut elements: Vec<(u32, f32)> = Vec::with_capacity(written.len());
        for (index, value) in written {
            let before = elements.last().map(|(index, _)| *index);
            elements.push((Self::check_index(index.saturating_sub(1), before, dimensions)?, value));
        }
        Ok(Self { dimensions, elements })
    }

    /// The elements of a dense vector that are not zero. Errors: 22000 no dimension, NaN or infinity, 54000 too many.
    pub fn of_dense(values: impl ExactSizeIterator<Item = f32>) -> Result<Self> {
        let dimensions = Self::check_dimensions(i64::try_from(values.len()).unwrap_or(i64::MAX))?;
        let mut elements = Vec::new();
        for (index, value) in (0..dimensions).zip(values) {
            Self::check_value(value)?;
            if value != 0.0 {
                elements.push((index, value));
            }
        }
        if elements.len() > MAX_SPARSE_ELEMENTS {
            return Err(too_many_elements());
        }
        Ok(Self { dimensions, elements })
    }

    /// The modifier in `sparsevec(3)`. Errors: 22023 as pgvector's `sparsevec_typmod_in`.
    pub fn declared(dimensions: i64) -> Result<u32> {
        let refuse = |what: String| Err(Error::new(SqlState::InvalidParameterValue, what));
        if dimensions < 1 {
            return refuse("dimensions for type sparsevec must be at least 1".to_owned());
        }
        match u32::try_from(dimensions) {
            Ok(dimensions) if dimensions <= MAX_SPARSE_DIMENSIONS => Ok(dimensions),
            _ => refuse(format!("dimensions for type sparsevec cannot exceed {MAX_SPARSE_DIMENSIONS}")),
        }
    }

    /// pgvector's `CheckDim`. Errors: 22000 without a dimension, 54000 with more than 1,000,000,000.
    pub fn check_dimensions(dimensions: i64) -> Result<u32> {
        if dimensions < 1 {
            let message = "sparsevec must have at least 1 dimension";
            return Err(Error::new(SqlState::DataException, message));
        }
        match u32::try_from(dimensions) {
            Ok(dimensions) if dimensions <= MAX_SPARSE_DIMENSIONS => Ok(dimensions),
            _ => {
                let message = format!("sparsevec cannot have more than {MAX_SPARSE_DIMENSIONS} dimensions");
                Err(Error::new(SqlState::ProgramLimitExceeded, message))
            }
        }
    }

    /// pgvector's `CheckNnz`. Errors: 22000 fewer than none, 54000 too many.
    pub fn check_count(elements: i32, dimensions: u32) -> Result<usize> {
        let Ok(elements) = usize::try_from(elements) else {
            let message = "sparsevec cannot have negative number of elements";
            return Err(Error::new(SqlState::DataException, message));
        };
        if elements > MAX_SPARSE_ELEMENTS {
            return Err(too_many_elements());
        }
        if elements > dimensions as usize {
            let message = "sparsevec cannot have more elements than dimensions";
            return Err(Error::new(SqlState::ProgramLimitExceeded, message));
        }
        Ok(elements)
    }

    /// pgvector's `CheckExpectedDim`. Errors: 22000.
    pub fn check_expected(found: u32, declared: Option<u32>) -> Result<()> {
        match declared {
            Some(declared) if declared != found => {
                let message = format!("expected {declared} dimensions, not {found}");
                Err(Error::new(SqlState::DataException, message))
            }
            _ => Ok(()),
        }
    }

    /// pgvector's `CheckDims`: an operator's two vectors have as many dimensions. Errors: 22000.
    pub fn check_same(left: u32, right: u32) -> Result<()> {
        if left == right {
            return Ok(());
        }
        let message = format!("different sparsevec dimensions {left} and {right}");
        Err(Error::new(SqlState::DataException, message))
    }

    /// pgvector's `CheckIndex`, of an index from 0 and the one before it. Errors: 22000.
    pub fn check_index(index: i64, before: Option<u32>, dimensions: u32) -> Result<u32> {
        let refuse = |what: &str| Err(Error::new(SqlState::DataException, what));
        let Some(index) = u32::try_from(index).ok().filter(|index| *index < dimensions) else {
            return refuse("sparsevec index out of bounds");
        };
        match before {
            Some(before) if index < before => refuse("sparsevec indices must be in ascending order"),
            Some(before) if index == before => refuse("sparsevec indices must not contain duplicates"),
            _ => Ok(index),
        }
    }

    /// pgvector's `CheckElement`. Errors: 22000 NaN or infinity.
    pub fn check_value(value: f32) -> Result<()> {
        if value.is_finite() {
            return Ok(());
        }
        let what = if value.is_nan() { "NaN" } else { "infinite value" };
        Err(Error::new(SqlState::DataException, format!("{what} not allowed in sparsevec")))
    }

    /// Appends the words that it is kept as.
    pub fn append_words(&self, words: &mut Vec<i32>) {
        words.reserve(2 * self.elements.len() + 1);
        for (index, value) in &self.elements {
            words.extend(element_words(*index, *value));
        }
        words.push(i32::MIN.wrapping_add_unsigned(2 * self.dimensions));
    }
}

const fn element_words(index: u32, value: f32) -> [i32; 2] {
    let bits = value.to_bits().cast_signed();
    if bits < 0 {
        [i32::MIN.wrapping_add_unsigned(2 * index + 1), bits ^ i32::MAX]
    } else {
        [i32::MAX.wrapping_sub_unsigned(index), bits]
    }
}

/// A `sparsevec` as it is kept, to be read without a copy. Ordered as pgvector's `sparsevec_cmp` orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SparseWords<'a>(&'a [i32]);

impl<'a> SparseWords<'a> {
    /// Of words that [`SparseVector::append_words`] wrote; of none, as behind a NULL, a vector of nothing.
    pub const fn new(words: &'a [i32]) -> Self {
        Self(words)
    }

    pub fn dimensions(self) -> u32 {
        self.0.last().map_or(0, |end| end.wrapping_sub(i32::MIN).cast_unsigned() / 2)
    }

    /// How many elements are not zero.
    pub const fn count(self) -> usize {
        self.0.len() / 2
    }

    /// Indices from 0, ascending, and what is there.
    pub fn elements(self) -> impl ExactSizeIterator<Item = (u32, f32)> {
        let (elements, _) = self.0.as_chunks::<2>();
        elements.iter().map(|[place, value]| {
            if *place < 0 {
                let index = place.wrapping_sub(i32::MIN).cast_unsigned() / 2;
                (index, f32::from_bits((value ^ i32::MAX).cast_unsigned()))
            } else {
                ((i32::MAX - place).cast_unsigned(), f32::from_bits(value.cast_unsigned()))
            }
        })
    }

    /// Appends `{1:1.5,3:2}/5`.
    pub fn format(self, out: &mut String) {
        out.push('{');
        for (position, (index, value)) in self.elements().enumerate() {
            if position > 0 {
                out.push(',');
            }
            out.push_str(&(index + 1).to_string());
            out.push(':');
            format_float4(value, out);
        }
        out.push_str("}/");
        out.push_str(&self.dimensions().to_string());
    }
}

fn too_many_elements() -> Error {
    let message = format!("sparsevec cannot have more than {MAX_SPARSE_ELEMENTS} non-zero elements");
    Error::new(SqlState::ProgramLimitExceeded, message)
}

/// The text form, from the left.
struct Reader<'a> {
    text: &'a str,
    rest: &'a str,
}

impl Reader<'_> {
    /// What is between the braces: indices from 1 in the order in which they stand, without those of zeros.
    fn elements(&mut self) -> Result<Vec<(i64, f32)>> {
        self.skip_spaces();
        if !self.take('{') {
            return Err(self.malformed().with_detail("Vector contents must start with \"{\"."));
        }
        self.skip_spaces();
        let mut elements = Vec::new();
        if self.take('}') {
            return Ok(elements);
        }
        loop {
            self.skip_spaces();
            let index = self.integer()?;
            self.skip_spaces();
            if !self.take(':') {
                return Err(self.malformed());
            }
            self.skip_spaces();
            let value = self.number()?;
            if value != 0.0 {
                elements.push((index, value));
            }
            self.skip_spaces();
            if self.take('}') {
                return Ok(elements);
            }
            if !self.take(',') {
                return Err(self.malformed());
            }
        }
    }

    /// What is behind them.
    fn dimensions(&mut self) -> Result<i64> {
        self.skip_spaces();
        if !self.take('/') {
            return Err(self.malformed().with_detail("Unexpected end of input."));
        }
        self.skip_spaces();
        let dimensions = self.integer()?;
        self.skip_spaces();
        if !self.rest.is_empty() {
            return Err(self.malformed().with_detail("Junk after closing."));
        }
        Ok(dimensions)
    }

    fn skip_spaces(&mut self) {
        self.rest = self.rest.trim_start_matches(is_space);
    }

    fn take(&mut self, wanted: char) -> bool {
        match self.rest.strip_prefix(wanted) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// As C's `strtol` reads it: what is too large is the largest.
    fn integer(&mut self) -> Result<i64> {
        let negative = self.rest.starts_with('-');
        let digits = self.rest.strip_prefix(['-', '+']).unwrap_or(self.rest);
        let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        if end == 0 {
            return Err(self.malformed());
        }
        let add = |value: i64, digit: u8| value.saturating_mul(10).saturating_add(i64::from(digit - b'0'));
        let value = digits[..end].bytes().fold(0, add);
        self.rest = &digits[end..];
        Ok(if negative { -value } else { value })
    }

    fn number(&mut self) -> Result<f32> {
        let ends = |c: char| matches!(c, ',' | '}') || is_space(c);
        let (number, rest) = self.rest.split_at(self.rest.find(ends).unwrap_or(self.rest.len()));
        let Ok(value) = number.parse::<f32>() else {
            return Err(self.malformed());
        };
        let mantissa = number.split(['e', 'E']).next().unwrap_or_default();
        let overflow = value.is_infinite() && mantissa.bytes().any(|byte| byte.is_ascii_digit());
        let underflow = value == 0.0 && mantissa.bytes().any(|byte| matches!(byte, b'1'..=b'9'));
        if overflow || underflow {
            let message = format!("\"{number}\" is out of range for type sparsevec");
            return Err(Error::new(SqlState::NumericValueOutOfRange, message));
        }
        SparseVector::check_value(value)?;
        self.rest = rest;
        Ok(value)
    }

    fn malformed(&self) -> Error {
        Error::new(
            SqlState::InvalidTextRepresentation,
            format!("invalid input syntax for type sparsevec: \"{}\"", self.text),
        )
    }
}

#[cfg(test)]
mod tests;
