//! Options of sequences, checked as Postgres checks them.

use datafusion::sql::sqlparser::ast::{self, Expr};
use sepal_types::{ColumnDef, Error, Result, SequenceDef, SqlState, SqlType};

use super::super::names::relation_name;
use crate::sql::SequenceOption;

/// A sequence with options, and where it is to restart (`init_params`, `sequence.c`). `current`: the one that is
/// altered.
///
/// Errors: 22023, 0A000 for descending ones and CYCLE.
pub fn with_options(
    current: Option<SequenceDef>,
    ty: &SqlType,
    options: &[SequenceOption],
) -> Result<(SequenceDef, Option<i64>)> {
    use SequenceOption as O;
    let creating = current.is_none();
    let mut sequence = current.unwrap_or_else(|| SequenceDef::new(ty));
    let (mut start, mut restart) = (None, None);
    if let Some(ty) = options.iter().find_map(|option| if let O::As(ty) = option { Some(ty) } else { None }) {
        set_type(&mut sequence, ty)?;
    }
    for option in options {
        match option {
            O::Increment(0) => return Err(invalid("INCREMENT must not be zero".to_owned())),
            O::Increment(step) if *step < 0 => {
                return Err(Error::unsupported("descending sequences are not supported"));
            }
            O::Cycle(true) => return Err(Error::unsupported("CYCLE is not supported")),
            O::Cache(size) if *size < 1 => {
                return Err(invalid(format!("CACHE ({size}) must be greater than zero")));
            }
            O::Increment(step) => sequence.increment = *step,
            O::MaxValue(max) => sequence.max = max.unwrap_or_else(|| SequenceDef::greatest(&sequence.ty)),
            O::MinValue(min) => sequence.min = min.unwrap_or(1),
            O::Start(value) => start = Some(*value),
            O::Restart(value) => restart = Some(*value),
            O::SequenceName(name) => sequence.name = Some(relation_name(name)?.name),
            O::As(_) | O::Cache(_) | O::Cycle(false) | O::OwnedBy(_) => {}
        }
    }
    sequence.start = match start {
        Some(start) => start,
        None if creating => sequence.min,
        None => sequence.start,
    };
    check_bounds(&sequence)?;
    check_within("START", sequence.start, &sequence)?;
    let restart = restart.map(|value| value.unwrap_or(sequence.start));
    if let Some(restart) = restart {
        check_within("RESTART", restart, &sequence)?;
    }
    Ok((sequence, restart))
}

fn invalid(message: String) -> Error {
    Error::new(SqlState::InvalidParameterValue, message)
}

fn set_type(sequence: &mut SequenceDef, name: &str) -> Result<()> {
    let ty = SqlType::from_name(name)
        .filter(|ty| matches!(ty, SqlType::Int2 | SqlType::Int4 | SqlType::Int8))
        .ok_or_else(|| invalid("sequence type must be smallint, integer, or bigint".to_owned()))?;
    if sequence.max == SequenceDef::greatest(&sequence.ty) {
        sequence.max = SequenceDef::greatest(&ty);
    }
    sequence.ty = ty;
    Ok(())
}

fn check_bounds(sequence: &SequenceDef) -> Result<()> {
    let SequenceDef { ty, min, max, .. } = sequence;
    let greatest = SequenceDef::greatest(ty);
    let least = -greatest - 1;
    for (what, value) in [("MAXVALUE", *max), ("MINVALUE", *min)] {
        if !(least..=greatest).contains(&value) {
            let ty = ty.display_name();
            return Err(invalid(format!("{what} ({value}) is out of range for sequence data type {ty}")));
        }
    }
    if min >= max {
        return Err(invalid(format!("MINVALUE ({min}) must be less than MAXVALUE ({max})")));
    }
    Ok(())
}

fn check_within(what: &str, value: i64, sequence: &SequenceDef) -> Result<()> {
    let SequenceDef { min, max, .. } = sequence;
    if value < *min {
        return Err(invalid(format!("{what} value ({value}) cannot be less than MINVALUE ({min})")));
    }
    if value > *max {
        return Err(invalid(format!("{what} value ({value}) cannot be greater than MAXVALUE ({max})")));
    }
    Ok(())
}

/// Errors: 22023.
pub fn check_identity_type(ty: &SqlType) -> Result<()> {
    if matches!(ty, SqlType::Int2 | SqlType::Int4 | SqlType::Int8) {
        return Ok(());
    }
    Err(invalid("identity column type must be smallint, integer, or bigint".to_owned()))
}

/// The options of an identity column in CREATE TABLE.
pub fn identity_options(column: &mut ColumnDef, options: &[ast::SequenceOptions]) -> Result<()> {
    use ast::SequenceOptions as S;
    let mut read = Vec::with_capacity(options.len());
    for option in options {
        read.push(match option {
            S::IncrementBy(value, _) => SequenceOption::Increment(number(value)?),
            S::MinValue(value) => SequenceOption::MinValue(value.as_ref().map(number).transpose()?),
            S::MaxValue(value) => SequenceOption::MaxValue(value.as_ref().map(number).transpose()?),
            S::StartWith(value, _) => SequenceOption::Start(number(value)?),
            S::Cache(value) => SequenceOption::Cache(number(value)?),
            // True is what sqlparser has for NO CYCLE.
            S::Cycle(no) => SequenceOption::Cycle(!no),
        });
    }
    let (sequence, _) = with_options(None, &column.ty, &read)?;
    set_sequence(column, sequence);
    Ok(())
}

/// Kept only where it is not what the column has anyway.
pub fn set_sequence(column: &mut ColumnDef, sequence: SequenceDef) {
    column.sequence = (sequence != SequenceDef::new(&column.ty)).then(|| Box::new(sequence));
}

fn number(expr: &Expr) -> Result<i64> {
    let text = expr.to_string();
    text.parse().map_err(|_| {
        let message = format!("value \"{text}\" is out of range for type bigint");
        Error::new(SqlState::NumericValueOutOfRange, message)
    })
}
