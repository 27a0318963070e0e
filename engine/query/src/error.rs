//! DataFusion's errors, as Postgres would say them.
//!
//! Our own errors travel through DataFusion as `External` and come out unchanged. DataFusion's own carry a
//! kind and a message; the SQLSTATE is taken from the kind where it is precise and from the wording where it
//! is not. Anything unrecognised stays XX000, so that a missing case shows.

use datafusion::{
    arrow::{datatypes::DataType, error::ArrowError},
    common::SchemaError,
    error::DataFusionError,
};
use sepal_storage::StoreError;
use sepal_types::{Error, SqlState, SqlType};

use crate::{output::natural_type, sql::matched};

/// Our error as one that DataFusion carries.
pub fn carry(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// A storage error as one that DataFusion carries.
pub fn carry_store(error: StoreError) -> DataFusionError {
    carry(error.into())
}

/// What the client is told.
pub fn translate(error: DataFusionError) -> Error {
    match error {
        DataFusionError::External(inner) => external(inner),
        DataFusionError::Context(_, inner) => translate(*inner),
        DataFusionError::Diagnostic(_, inner) => translate(*inner),
        DataFusionError::Shared(inner) => shared(&inner),
        DataFusionError::Collection(mut errors) if !errors.is_empty() => translate(errors.swap_remove(0)),
        DataFusionError::ArrowError(inner, _) => arrow(*inner),
        DataFusionError::IoError(inner) => io(inner),
        DataFusionError::SchemaError(inner, _) => schema(&inner),
        DataFusionError::SQL(inner, _) => Error::new(SqlState::SyntaxError, inner.to_string()),
        DataFusionError::NotImplemented(message) => unsupported(message),
        DataFusionError::ResourcesExhausted(message) => out_of_memory(message),
        DataFusionError::Plan(message) => wording(&message, SqlState::SyntaxError),
        DataFusionError::Execution(message) => wording(&message, SqlState::DataException),
        other => wording(&other.strip_backtrace(), SqlState::InternalError),
    }
}

/// DataFusion prints whole expressions where it means that a subquery cannot be taken out of its place.
fn unsupported(message: String) -> Error {
    let correlated = ["undecorrelated Subquery", "OuterReferenceColumn", "expression ScalarSubquery"];
    if !correlated.iter().any(|words| message.contains(words)) {
        return Error::unsupported(message);
    }
    Error::unsupported("this subquery depends on the rows beside it in a way that is not supported").with_hint(
        "LATERAL takes SELECT … FROM one table WHERE … ORDER BY a distance LIMIT n. Write others as joins or with \
         aggregates.",
    )
}

fn external(inner: Box<dyn std::error::Error + Send + Sync>) -> Error {
    match inner.downcast::<Error>() {
        Ok(error) => *error,
        Err(inner) => match inner.downcast::<DataFusionError>() {
            Ok(error) => translate(*error),
            Err(other) => Error::bug(other.to_string()),
        },
    }
}

/// Temporary files carry ours inside (`budget::spill`).
fn io(error: std::io::Error) -> Error {
    if error.get_ref().is_none() {
        return Error::new(SqlState::IoError, error.to_string());
    }
    error.into_inner().map_or_else(|| Error::bug("an I/O error without a reason"), external)
}

fn shared_io(error: &std::io::Error) -> Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(error) => error.clone(),
        None => Error::new(SqlState::IoError, error.to_string()),
    }
}

/// `why` names who asked, for how much, and the setting that bounds it.
fn out_of_memory(why: String) -> Error {
    Error::new(SqlState::OutOfMemory, "out of memory")
        .with_detail(why)
        .with_hint("Add a LIMIT or a filter, or raise the server's setting.")
}

/// A shared error cannot be taken apart by value: look for ours inside it, else keep its words.
fn shared(error: &DataFusionError) -> Error {
    match error {
        DataFusionError::External(inner) => match inner.downcast_ref::<Error>() {
            Some(error) => error.clone(),
            None => Error::bug(inner.to_string()),
        },
        DataFusionError::Context(_, inner) => shared(inner),
        DataFusionError::Shared(inner) => shared(inner),
        DataFusionError::ArrowError(inner, _) => match inner.as_ref() {
            ArrowError::ExternalError(inner) => match inner.downcast_ref::<Error>() {
                Some(error) => error.clone(),
                None => Error::bug(inner.to_string()),
            },
            ArrowError::IoError(_, inner) => shared_io(inner),
            other => wording(&other.to_string(), SqlState::DataException),
        },
        DataFusionError::IoError(inner) => shared_io(inner),
        DataFusionError::ResourcesExhausted(message) => out_of_memory(message.clone()),
        DataFusionError::SchemaError(inner, _) => schema(inner),
        DataFusionError::Plan(message) => wording(message, SqlState::SyntaxError),
        DataFusionError::Execution(message) => wording(message, SqlState::DataException),
        other => wording(&other.strip_backtrace(), SqlState::InternalError),
    }
}

/// Arrow's errors from casts and arithmetic.
pub fn arrow(error: ArrowError) -> Error {
    match error {
        ArrowError::ExternalError(inner) => external(inner),
        ArrowError::IoError(_, inner) => io(inner),
        ArrowError::DivideByZero => Error::new(SqlState::DivisionByZero, "division by zero"),
        ArrowError::ArithmeticOverflow(message) => {
            Error::new(SqlState::NumericValueOutOfRange, "value out of range").with_detail(message)
        }
        ArrowError::CastError(message) | ArrowError::ParseError(message) => {
            if let Some(error) = out_of_range(&message) {
                return error;
            }
            Error::new(SqlState::InvalidTextRepresentation, message)
        }
        other => wording(&other.to_string(), SqlState::DataException),
    }
}

fn schema(error: &SchemaError) -> Error {
    match error {
        SchemaError::AmbiguousReference { field } => {
            Error::new(SqlState::AmbiguousColumn, format!("column reference \"{}\" is ambiguous", field.name))
        }
        SchemaError::DuplicateQualifiedField { name, .. }
        | SchemaError::DuplicateUnqualifiedField { name } => {
            Error::new(SqlState::DuplicateAlias, format!("column name \"{name}\" specified more than once"))
                .with_hint("Give one of the two another name with AS.")
        }
        SchemaError::FieldNotFound { field, valid_fields } => {
            let known = |relation: &datafusion::common::TableReference| {
                valid_fields.iter().any(|valid| valid.relation.as_ref() == Some(relation))
            };
            if let Some(relation) = field.relation.as_ref().filter(|relation| !known(relation)) {
                let message = format!("missing FROM-clause entry for table \"{}\"", relation.table());
                return Error::new(SqlState::UndefinedTable, message);
            }
            let name = match &field.relation {
                Some(relation) => format!("{relation}.{}", field.name),
                None => format!("\"{}\"", field.name),
            };
            let error = Error::new(SqlState::UndefinedColumn, format!("column {name} does not exist"));
            match nearest(&field.name, valid_fields.iter().map(|column| column.name.as_str())) {
                Some(near) => {
                    error.with_hint(format!("Perhaps you meant to reference the column \"{near}\"."))
                }
                None => error,
            }
        }
    }
}

/// The candidate within two edits, as Postgres hints only at near misses.
fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .filter(|candidate| !candidate.starts_with("__"))
        .map(|candidate| (edit_distance(name, candidate), candidate))
        .filter(|(edits, _)| *edits <= 2)
        .min()
        .map(|(_, candidate)| candidate)
}

fn wording(message: &str, otherwise: SqlState) -> Error {
    if let Some(error) = set_widths(message).or_else(|| absolute(message)).or_else(|| mistyped_call(message))
    {
        return error;
    }
    let lower = message.to_ascii_lowercase();
    let is = |part: &str| lower.contains(part);
    if is("divide by zero") || is("division by zero") {
        return Error::new(SqlState::DivisionByZero, "division by zero");
    }
    if is("invalid function") {
        let name = message.split('\'').nth(1).unwrap_or("?").to_owned();
        return undefined_function(&name);
    }
    if is("limit must be >=") {
        return Error::new(SqlState::InvalidRowCountInLimitClause, "LIMIT must not be negative");
    }
    if is("offset must be >=") {
        return Error::new(SqlState::InvalidRowCountInResultOffsetClause, "OFFSET must not be negative");
    }
    if is("overflow") {
        return Error::new(SqlState::NumericValueOutOfRange, "value out of range")
            .with_detail(message.to_owned());
    }
    if is("ambiguous reference") {
        return Error::new(SqlState::AmbiguousColumn, message.to_owned());
    }
    if is("cannot cast") || is("cast error") || is("could not parse") || is("error parsing") {
        return Error::new(SqlState::InvalidTextRepresentation, message.to_owned());
    }
    if is("scalar subquery") && is("more than one row") {
        return Error::new(
            SqlState::CardinalityViolation,
            "more than one row returned by a subquery used as an expression",
        );
    }
    if is("aggregate functions are not allowed in the where") {
        return Error::new(SqlState::GroupingError, "aggregate functions are not allowed in WHERE");
    }
    if is("must appear in the group by")
        || is("must be in group by")
        || is("must be in the group by")
        || is("could not be resolved from available columns")
    {
        return ungrouped(message);
    }
    if is("coerce") || is("signature") || is("no function matches") {
        return Error::new(SqlState::UndefinedFunction, message.to_owned())
            .with_hint("No function or operator matches the given argument types. You might need to add explicit type casts.");
    }
    if is("not implemented") || is("unsupported") || is("not supported") {
        return Error::unsupported(message.to_owned());
    }
    Error::new(otherwise, message.to_owned())
}

/// `UNION queries have different number of columns`: DataFusion names the operation first.
fn set_widths(message: &str) -> Option<Error> {
    let (before, _) = message.split_once(" queries have different number of columns")?;
    let operation = before.rsplit(' ').next()?;
    let message = format!("each {operation} query must have the same number of columns");
    Some(Error::new(SqlState::SyntaxError, message))
}

/// `value of 9223372036854775808 is out of range Int64`: a decimal that does not fit an integer.
fn out_of_range(message: &str) -> Option<Error> {
    let (_, data_type) = message.split_once(" is out of range ")?;
    let number = match data_type.split_whitespace().next()? {
        "Int16" => SqlType::Int2,
        "Int32" => SqlType::Int4,
        "Int64" => SqlType::Int8,
        _ => return None,
    };
    let message = format!("{} out of range", number.display_name());
    Some(Error::new(SqlState::NumericValueOutOfRange, message))
}

/// `Int32Array overflow on abs(-2147483648)`.
fn absolute(message: &str) -> Option<Error> {
    let (before, _) = message.split_once("Array overflow on abs(")?;
    let number = match before.rsplit(' ').next()? {
        "Int16" => SqlType::Int2,
        "Int64" => SqlType::Int8,
        _ => SqlType::Int4,
    };
    let message = format!("{} out of range", number.display_name());
    Some(Error::new(SqlState::NumericValueOutOfRange, message))
}

/// The column that DataFusion complains about in `… column "t.c" must appear in the GROUP BY clause or …`.
fn ungrouped(message: &str) -> Error {
    let column = message.split_once("column \"").and_then(|(_, rest)| rest.split('"').next());
    let Some(column) = column else {
        return Error::new(SqlState::GroupingError, message.to_owned());
    };
    let message =
        format!("column \"{column}\" must appear in the GROUP BY clause or be used in an aggregate function");
    Error::new(SqlState::GroupingError, message)
}

/// DataFusion's `No function matches the given name and argument types 'lower(Boolean, Int64)'. …`
fn mistyped_call(message: &str) -> Option<Error> {
    let (_, rest) = message.split_once("No function matches the given name and argument types '")?;
    let (name, rest) = rest.split_once('(')?;
    let (arguments, _) = rest.split_once(")'")?;
    let mut types = Vec::new();
    for argument in split_arguments(arguments) {
        types.push(argument.parse::<DataType>().ok()?);
    }
    // Of these any types will do, as long as they match. A NULL has none.
    let construct = match name {
        "coalesce" => Some("COALESCE"),
        "greatest" => Some("GREATEST"),
        "least" => Some("LEAST"),
        _ => None,
    };
    if let Some(construct) = construct {
        let typed = types.iter().filter(|ty| !ty.is_null()).map(natural_type);
        if let Err(error) = matched(construct, &typed.collect::<Vec<_>>()) {
            return Some(error);
        }
    }
    let types: Vec<SqlType> = types.iter().map(natural_type).collect();
    Some(undefined_function_call(name, &types))
}

/// Splits at the commas that stand in no parentheses: `Decimal128(10, 2), Utf8`.
fn split_arguments(arguments: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0_u32);
    for (at, byte) in arguments.bytes().enumerate() {
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => {
                parts.push(arguments[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    if !arguments[start..].trim().is_empty() {
        parts.push(arguments[start..].trim());
    }
    parts
}

/// 42883 with Postgres' wording.
pub fn undefined_function(name: &str) -> Error {
    Error::new(SqlState::UndefinedFunction, format!("function {name} does not exist")).with_hint(
        "No function matches the given name and argument types. You might need to add explicit type casts.",
    )
}

/// 42883 for a call of a function with arguments of these types.
pub fn undefined_function_call(name: &str, arguments: &[SqlType]) -> Error {
    let arguments: Vec<String> = arguments.iter().map(type_name).collect();
    undefined_function(&format!("{name}({})", arguments.join(", ")))
}

/// 42883 for an operator; a prefix operator has no left operand.
pub fn undefined_operator(left: Option<&SqlType>, operator: &str, right: &SqlType) -> Error {
    let left = left.map_or_else(String::new, |left| format!("{} ", type_name(left)));
    let message = format!("operator does not exist: {left}{operator} {}", type_name(right));
    Error::new(SqlState::UndefinedFunction, message).with_hint(
        "No operator matches the given name and argument types. You might need to add explicit type casts.",
    )
}

/// As errors name a type: without its modifier.
pub fn type_name(ty: &SqlType) -> String {
    match ty {
        SqlType::Array(element) => format!("{}[]", type_name(element)),
        SqlType::Numeric(_) => "numeric".to_owned(),
        SqlType::Bpchar(_) => "character".to_owned(),
        SqlType::Varchar(_) => "character varying".to_owned(),
        SqlType::Bit(_) | SqlType::HalfVec(_) | SqlType::SparseVec(_) | SqlType::Vector(_) => {
            ty.internal_name().into_owned()
        }
        other => other.display_name(),
    }
}

/// Levenshtein distance; names are short, so the plain table is enough.
fn edit_distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, from) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in right.iter().enumerate() {
            let substitute = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}
