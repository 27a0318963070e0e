//! Casts between catalog types.

use sepal_types::{Error, Result, SqlState, SqlType};

use super::super::super::functions::instant;
use super::super::super::names::{reg_name, require_oid};
use super::super::super::value::{Value, parse_list};
use super::super::ty::{Class, Ty};
use super::Run;
use crate::zone::Zone;

impl Run<'_> {
    pub(super) fn cast(&self, value: Value, from: &Ty, to: &Ty) -> Result<Value> {
        if value.is_null() {
            return Ok(value);
        }
        if let Some(reg) = to.reg() {
            return match &value {
                Value::Int(_) => Ok(value),
                other => Ok(Value::Int(require_oid(self.context, reg, &other.to_text())?)),
            };
        }
        match to.class() {
            Class::Text | Class::Unknown => self.to_text(&value, from, to),
            Class::Int => whole(&value, to),
            Class::Float => value.as_float().map(Value::Float).ok_or_else(|| malformed(&value, to)),
            Class::Bool => value.as_bool().map(Value::Bool).ok_or_else(|| malformed(&value, to)),
            Class::List => self.to_list(&value, from, to),
            Class::Record => Ok(value),
            Class::Time => match value {
                Value::Time(micros) => across(micros, from, to).map(Value::Time),
                Value::Text(text) => Ok(instant(&text, &to.outward())?.map_or(Value::Null, Value::Time)),
                other => Err(malformed(&other, to)),
            },
        }
    }

    fn to_text(&self, value: &Value, from: &Ty, to: &Ty) -> Result<Value> {
        let text = match (from.reg(), value) {
            (Some(reg), Value::Int(oid)) => reg_name(self.context, reg, *oid),
            _ if from.class() == Class::List && from.lower_bound() == 0 => {
                let items: Vec<String> =
                    value.as_list().unwrap_or_default().iter().map(Value::to_text).collect();
                items.join(" ")
            }
            _ => match (value.as_list(), from.element().and_then(|element| element.reg())) {
                (Some(items), Some(reg)) => {
                    let name = |item: &Value| match item {
                        Value::Int(oid) => Value::text(reg_name(self.context, reg, *oid)),
                        other => other.clone(),
                    };
                    Value::list(items.iter().map(name)).to_text()
                }
                _ => value.to_text(),
            },
        };
        Ok(Value::text(match to {
            Ty::Sql(SqlType::Char) => text.chars().take(1).collect(),
            Ty::Sql(SqlType::Bpchar(Some(length)) | SqlType::Varchar(Some(length))) => {
                text.chars().take(usize::try_from(*length).unwrap_or(usize::MAX)).collect()
            }
            _ => text,
        }))
    }

    fn to_list(&self, value: &Value, from: &Ty, to: &Ty) -> Result<Value> {
        let element = to.element().unwrap_or(Ty::TEXT);
        if let Some(items) = value.as_list() {
            let from = from.element().unwrap_or(Ty::TEXT);
            let cast = items.iter().map(|item| self.cast(item.clone(), &from, &element));
            return Ok(Value::List(cast.collect::<Result<Vec<_>>>()?.into()));
        }
        let text = value.to_text();
        let items = if to.lower_bound() == 0 {
            Some(text.split_whitespace().map(|item| Some(item.to_owned())).collect())
        } else {
            parse_list(&text)
        };
        let items = items.ok_or_else(|| {
            let error = Error::new(
                SqlState::InvalidTextRepresentation,
                format!("malformed array literal: \"{text}\""),
            );
            error.with_detail("Array value must start with \"{\" and end with \"}\".")
        })?;
        let cast = items.into_iter().map(|item| match item {
            None => Ok(Value::Null),
            Some(item) => self.cast(Value::text(item), &Ty::TEXT, &element),
        });
        Ok(Value::List(cast.collect::<Result<Vec<_>>>()?.into()))
    }
}

/// Between `timestamptz` and `timestamp`, in the session's zone. Errors: 22008.
fn across(micros: i64, from: &Ty, to: &Ty) -> Result<i64> {
    let zone = Zone::current();
    match (from, to) {
        (Ty::Sql(SqlType::Timestamptz), Ty::Sql(SqlType::Timestamp)) => Ok(zone.clock(micros)),
        (Ty::Sql(SqlType::Timestamp), Ty::Sql(SqlType::Timestamptz)) => zone
            .instant(micros)
            .ok_or_else(|| Error::new(SqlState::DatetimeFieldOverflow, "timestamp out of range")),
        _ => Ok(micros),
    }
}

fn whole(value: &Value, to: &Ty) -> Result<Value> {
    let number = value.as_int().ok_or_else(|| malformed(value, to))?;
    let fits = match to {
        Ty::Sql(SqlType::Int2) => i16::try_from(number).is_ok(),
        Ty::Sql(SqlType::Int4) => i32::try_from(number).is_ok(),
        Ty::Sql(SqlType::Oid) => u32::try_from(number).is_ok(),
        _ => true,
    };
    if fits {
        Ok(Value::Int(number))
    } else {
        Err(Error::new(
            SqlState::NumericValueOutOfRange,
            format!("{number} is out of range for type {}", to.name()),
        ))
    }
}

fn malformed(value: &Value, to: &Ty) -> Error {
    let message = format!("invalid input syntax for type {}: \"{}\"", to.name(), value.to_text());
    Error::new(SqlState::InvalidTextRepresentation, message)
}
