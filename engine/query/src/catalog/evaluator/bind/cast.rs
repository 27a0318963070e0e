//! Casts: SQL's type names as types.

use datafusion::sql::sqlparser::ast::{self, ArrayElemTypeDef, DataType};
use sepal_types::SqlType;

use super::super::plan::Expr;
use super::super::ty::Ty;
use super::{Binder, Bound, Stop, name_parts};

impl Binder<'_> {
    pub(super) fn cast(&mut self, value: &ast::Expr, data_type: &DataType) -> Bound<(Expr, Ty)> {
        let to = type_named(data_type)?;
        // A reg* cast makes a query one about the catalogs.
        if to.reg().is_some() {
            self.touched = true;
        }
        let typed = self.expr(value)?;
        let value = self.coerce(typed, &to)?;
        Ok((value, to))
    }
}

/// The type that a cast names.
pub(super) fn type_named(data_type: &DataType) -> Bound<Ty> {
    if let DataType::Array(ArrayElemTypeDef::SquareBracket(element, _)) = data_type {
        return Ok(type_named(element)?.array());
    }
    let name = data_type_name(data_type);
    let modified = match data_type {
        DataType::Custom(_, modifiers) if !modifiers.is_empty() => format!("{name}({})", modifiers.join(",")),
        DataType::Varchar(Some(length)) | DataType::CharacterVarying(Some(length)) => {
            format!("{name}({length})")
        }
        _ => name.clone(),
    };
    Ok(match name.as_str() {
        "regnamespace" => Ty::Namespace,
        "regrole" => Ty::Role,
        "regprocedure" => Ty::Sql(SqlType::Regproc),
        "xid" | "cid" | "xid8" => Ty::INT8,
        "information_schema.sql_identifier" | "sql_identifier" => Ty::Sql(SqlType::Name),
        "character_data" | "yes_or_no" | "cstring" => Ty::TEXT,
        "cardinal_number" => Ty::INT4,
        // Values of these are not made here.
        "bit" | "bpchar" | "date" | "halfvec" | "interval" | "sparsevec" | "time" | "vector" | "bytea"
        | "regconfig" | "tsquery" | "tsvector" => {
            return Err(Stop::Decline);
        }
        // The parser has a type of its own for `char` without quotes. Types that somebody made are not known here.
        _ => Ty::Sql(SqlType::from_internal_name(&modified).ok_or(Stop::Decline)?),
    })
}

/// Postgres' internal name of a type as the parser read it: `int4`, `varchar`, `regclass`.
pub(super) fn data_type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Custom(name, _) => {
            let parts = name_parts(name).unwrap_or_default();
            parts.last().cloned().unwrap_or_default()
        }
        DataType::Array(ArrayElemTypeDef::SquareBracket(element, _)) => data_type_name(element),
        DataType::Varchar(_) | DataType::CharacterVarying(_) | DataType::CharVarying(_) => {
            "varchar".to_owned()
        }
        DataType::Character(_) | DataType::Char(_) => "bpchar".to_owned(),
        DataType::Int(_) | DataType::Integer(_) | DataType::Int4(_) => "int4".to_owned(),
        DataType::SmallInt(_) | DataType::Int2(_) => "int2".to_owned(),
        DataType::BigInt(_) | DataType::Int8(_) => "int8".to_owned(),
        DataType::Real | DataType::Float4 => "float4".to_owned(),
        DataType::Float(_) | DataType::Float8 | DataType::Double(_) | DataType::DoublePrecision => {
            "float8".to_owned()
        }
        DataType::Numeric(_) | DataType::Decimal(_) | DataType::Dec(_) => "numeric".to_owned(),
        DataType::Bool | DataType::Boolean => "bool".to_owned(),
        DataType::Timestamp(_, ast::TimezoneInfo::WithTimeZone | ast::TimezoneInfo::Tz) => {
            "timestamptz".to_owned()
        }
        DataType::Timestamp(..) => "timestamp".to_owned(),
        DataType::Time(..) => "time".to_owned(),
        DataType::Interval { .. } => "interval".to_owned(),
        other => other.to_string().to_lowercase(),
    }
}
