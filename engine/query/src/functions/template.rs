//! `format('%I = %L', …)` with Postgres' positions, widths and flags (`text_format` in `varlena.c`).
//!
//! [`fill`] also serves the catalogs' evaluator. The arguments come as their types print them, NULL as `None`.

use std::{iter::Peekable, str::Chars, sync::Arc};

use datafusion::{
    arrow::{
        array::{Array, StringArray, StringBuilder},
        datatypes::DataType,
    },
    common::Result,
    logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility},
};
use sepal_types::{Error, SqlState, SqlType};

use super::{
    concat::{MAX_TEXT_BYTES, printed},
    constants::{all_constant, answer},
};
use crate::{
    catalog::{quote_ident, quote_literal},
    error::{carry, undefined_function_call},
};

/// Characters that one argument may be padded to.
const MOST_WIDTH: i64 = 1 << 20;

#[derive(Debug, PartialEq, Eq, Hash)]
struct Format {
    signature: Signature,
}

pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![Arc::new(ScalarUDF::from(Format { signature: Signature::variadic_any(Volatility::Immutable) }))]
}

impl ScalarUDFImpl for Format {
    fn name(&self) -> &'static str {
        "format"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        match arguments {
            [] => Err(carry(undefined_function_call("format", &[] as &[SqlType]))),
            _ => Ok(DataType::Utf8),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = all_constant(&args.args);
        let rows = if constant { 1 } else { args.number_rows };
        let mut texts: Vec<StringArray> = Vec::with_capacity(args.args.len());
        for (value, field) in args.args.iter().zip(&args.arg_fields) {
            texts.push(printed(&value.to_array(rows)?, field)?);
        }
        let Some((templates, texts)) = texts.split_first() else {
            return Err(carry(Error::bug("format() without a template")));
        };
        let mut out = StringBuilder::with_capacity(rows, 0);
        for row in 0..rows {
            if templates.is_null(row) {
                out.append_null();
                continue;
            }
            let arguments: Vec<Option<&str>> =
                texts.iter().map(|text| text.is_valid(row).then(|| text.value(row))).collect();
            let filled = fill(templates.value(row), &arguments).map_err(carry)?;
            if out.values_slice().len().saturating_add(filled.len()) > MAX_TEXT_BYTES {
                let message = "the results of format() exceed 1 GiB in one batch";
                return Err(carry(Error::new(SqlState::ProgramLimitExceeded, message)));
            }
            out.append_value(filled);
        }
        answer(Arc::new(out.finish()), constant)
    }
}

/// A specifier, `%2$-10s`.
struct Specifier {
    /// Which argument, from 1.
    position: Option<i64>,
    left: bool,
    width: Width,
    kind: char,
}

enum Width {
    None,
    Fixed(i64),
    /// That of the next argument, or of one by its number.
    Argument(Option<i64>),
}

/// Where the next argument comes from.
struct Arguments<'a> {
    all: &'a [Option<&'a str>],
    used: usize,
}

/// The template with its specifiers filled. Errors: 22023, 22004 for an identifier that is NULL.
pub fn fill(template: &str, arguments: &[Option<&str>]) -> std::result::Result<String, Error> {
    let mut arguments = Arguments { all: arguments, used: 0 };
    let mut out = String::with_capacity(template.len());
    let mut chars = template.chars().peekable();
    while let Some(char) = chars.next() {
        if char != '%' {
            out.push(char);
            continue;
        }
        if chars.next_if_eq(&'%').is_some() {
            out.push('%');
            continue;
        }
        let specifier = read(&mut chars)?;
        let (left, width) = arguments.width(&specifier)?;
        let value = arguments.take(specifier.position)?;
        pad(&mut out, &converted(specifier.kind, value)?, left, width)?;
    }
    Ok(out)
}

/// What follows the percent sign.
fn read(chars: &mut Peekable<Chars<'_>>) -> std::result::Result<Specifier, Error> {
    let mut specifier = Specifier { position: None, left: false, width: Width::None, kind: 's' };
    let number = digits(chars)?;
    match number {
        Some(number) if chars.next_if_eq(&'$').is_some() => specifier.position = Some(numbered(number)?),
        Some(width) => specifier.width = Width::Fixed(width),
        None => {}
    }
    if !matches!(specifier.width, Width::Fixed(_)) {
        while chars.next_if_eq(&'-').is_some() {
            specifier.left = true;
        }
        specifier.width = match chars.next_if_eq(&'*') {
            Some(_) => Width::Argument(star(chars)?),
            None => digits(chars)?.map_or(Width::None, Width::Fixed),
        };
    }
    specifier.kind = chars.next().ok_or_else(unterminated)?;
    match specifier.kind {
        's' | 'I' | 'L' => Ok(specifier),
        other => Err(invalid(format!("unrecognized format() type specifier \"{other}\"")).with_hint(PERCENT)),
    }
}

/// `*` or `*2$`
fn star(chars: &mut Peekable<Chars<'_>>) -> std::result::Result<Option<i64>, Error> {
    let Some(number) = digits(chars)? else { return Ok(None) };
    if chars.peek().is_none() {
        return Err(unterminated());
    }
    if chars.next_if_eq(&'$').is_none() {
        return Err(invalid("width argument position must be ended by \"$\""));
    }
    numbered(number).map(Some)
}

fn digits(chars: &mut Peekable<Chars<'_>>) -> std::result::Result<Option<i64>, Error> {
    let mut number: Option<i64> = None;
    while let Some(digit) = chars.peek().and_then(|char| char.to_digit(10)) {
        chars.next();
        let grown = number.unwrap_or(0) * 10 + i64::from(digit);
        if grown > i64::from(i32::MAX) {
            return Err(Error::new(SqlState::NumericValueOutOfRange, "number is out of range"));
        }
        number = Some(grown);
    }
    Ok(number)
}

fn numbered(position: i64) -> std::result::Result<i64, Error> {
    match position {
        0 => Err(invalid("format specifies argument 0, but arguments are numbered from 1")),
        _ => Ok(position),
    }
}

impl<'a> Arguments<'a> {
    /// Whether to stand on the left of so many characters.
    fn width(&mut self, specifier: &Specifier) -> std::result::Result<(bool, i64), Error> {
        let width = match specifier.width {
            Width::None => 0,
            Width::Fixed(width) => width,
            Width::Argument(position) => match self.take(position)? {
                Some(text) => text.trim().parse::<i32>().map(i64::from).map_err(|_| {
                    let message = format!("invalid input syntax for type integer: \"{text}\"");
                    Error::new(SqlState::InvalidTextRepresentation, message)
                })?,
                None => 0,
            },
        };
        Ok((specifier.left || width < 0, width.abs()))
    }

    /// Errors: 22023 where there is none.
    fn take(&mut self, position: Option<i64>) -> std::result::Result<Option<&'a str>, Error> {
        let place = match position {
            Some(position) => usize::try_from(position - 1).unwrap_or(usize::MAX),
            None => self.used,
        };
        // One without a number follows the one before it.
        self.used = place.saturating_add(1);
        self.all.get(place).copied().ok_or_else(|| invalid("too few arguments for format()"))
    }
}

fn converted(kind: char, value: Option<&str>) -> std::result::Result<String, Error> {
    Ok(match (kind, value) {
        ('I', Some(name)) => quote_ident(name),
        ('I', None) => {
            let message = "null values cannot be formatted as an SQL identifier";
            return Err(Error::new(SqlState::NullValueNotAllowed, message));
        }
        ('L', Some(text)) => quote_literal(text),
        ('L', None) => "NULL".to_owned(),
        (_, text) => text.unwrap_or_default().to_owned(),
    })
}

/// Errors: 54000 for a width without measure.
fn pad(out: &mut String, text: &str, left: bool, width: i64) -> std::result::Result<(), Error> {
    if width > MOST_WIDTH {
        let message = format!("a width of {width} in format() exceeds the limit of {MOST_WIDTH}");
        return Err(Error::new(SqlState::ProgramLimitExceeded, message));
    }
    let missing = usize::try_from(width).unwrap_or(0).saturating_sub(text.chars().count());
    let blanks = std::iter::repeat_n(' ', missing);
    if left {
        out.push_str(text);
        out.extend(blanks);
    } else {
        out.extend(blanks);
        out.push_str(text);
    }
    Ok(())
}

const PERCENT: &str = "For a single \"%\" use \"%%\".";

fn invalid(message: impl Into<String>) -> Error {
    Error::new(SqlState::InvalidParameterValue, message)
}

fn unterminated() -> Error {
    invalid("unterminated format() type specifier").with_hint(PERCENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_filled_as_in_postgres() {
        let arguments = [Some("foo"), Some("Bar"), Some("it's"), None];
        let cases = [
            ("Hello", "Hello"),
            ("%s and %%", "foo and %"),
            ("%3$L, %1$s, %s", "'it''s', foo, Bar"),
            ("%I.%I", "foo.\"Bar\""),
            ("|%10s|%-5s|", "|       foo|Bar  |"),
            ("%4$L%4$s", "NULL"),
            ("%2$-5s|", "Bar  |"),
        ];
        for (template, expected) in cases {
            assert_eq!(fill(template, &arguments).as_deref(), Ok(expected), "{template}");
        }
        let widths = [Some("-6"), Some("a"), Some("3")];
        assert_eq!(fill("|%*s|", &widths).as_deref(), Ok("|a     |"));
        assert_eq!(fill("|%2$*3$s|", &widths).as_deref(), Ok("|  a|"));
    }

    #[test]
    fn what_is_no_specifier_is_refused() {
        for (template, code) in [
            ("%", "22023"),
            ("%1", "22023"),
            ("%x", "22023"),
            ("%0$s", "22023"),
            ("%*1s", "22023"),
            ("%s %s", "22023"),
            ("%I", "22004"),
            ("%99999999999s", "22003"),
            ("%2000000000s", "54000"),
            ("%$s", "22023"),
        ] {
            let error = fill(template, &[None]).expect_err(template);
            assert_eq!(error.state().code(), code, "{template}: {error}");
        }
    }
}
