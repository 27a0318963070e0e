//! `information_schema.columns`: each column of each table with the numbers of its type.

use sepal_types::{ColumnDef, Generated, SequenceDef, SqlType, TableDef};

use super::super::CatalogContext;
use super::super::definitions::column_default;
use super::super::objects::attribute_number;
use super::super::shape::Rows;
use super::super::value::Value;

pub(super) fn columns(context: &CatalogContext, rows: &mut Rows) {
    for table in context.tables() {
        for column in &table.def.columns {
            push_column(context, &table.def, column, rows);
        }
    }
}

fn push_column(context: &CatalogContext, table: &TableDef, column: &ColumnDef, rows: &mut Rows) {
    let environment = || Value::text(&context.environment);
    let number = Numbers::of(&column.ty);
    let identity = matches!(column.generated, Some(Generated::IdentityAlways | Generated::IdentityByDefault));
    let sequence = column.sequence().filter(|_| identity);
    let of_identity =
        |number: fn(&SequenceDef) -> i64| Value::from(sequence.as_ref().map(|own| number(own).to_string()));
    let generation = match column.generated {
        Some(Generated::IdentityAlways) => Some("ALWAYS"),
        Some(Generated::IdentityByDefault) => Some("BY DEFAULT"),
        Some(
            Generated::Serial | Generated::Sequence | Generated::Stored | Generated::Schema | Generated::Type,
        )
        | None => None,
    };
    let is_generated = column.generated == Some(Generated::Stored);
    let (default, expression) = match column_default(context, table, column) {
        expression if is_generated => (None, expression),
        default => (default, None),
    };
    rows.push([
        ("table_catalog", environment()),
        ("table_schema", table.schema.as_str().into()),
        ("table_name", table.name.as_str().into()),
        ("column_name", column.name.as_str().into()),
        ("ordinal_position", attribute_number(table, column.id).into()),
        ("column_default", default.into()),
        ("is_nullable", if column.not_null { "NO" } else { "YES" }.into()),
        ("data_type", data_type(&column.ty).into()),
        ("character_maximum_length", number.characters.into()),
        ("character_octet_length", number.octets.into()),
        ("numeric_precision", number.precision.into()),
        ("numeric_precision_radix", number.radix.into()),
        ("numeric_scale", number.scale.into()),
        ("datetime_precision", number.datetime.into()),
        ("udt_catalog", environment()),
        ("udt_schema", udt_schema(&column.ty).into()),
        ("udt_name", column.ty.internal_name().as_ref().into()),
        ("dtd_identifier", attribute_number(table, column.id).to_string().into()),
        ("is_self_referencing", "NO".into()),
        ("is_identity", if identity { "YES" } else { "NO" }.into()),
        ("identity_generation", generation.into()),
        ("identity_start", of_identity(|own| own.start)),
        ("identity_increment", of_identity(|own| own.increment)),
        ("identity_maximum", of_identity(|own| own.max)),
        ("identity_minimum", of_identity(|own| own.min)),
        ("identity_cycle", "NO".into()),
        ("is_generated", if is_generated { "ALWAYS" } else { "NEVER" }.into()),
        ("generation_expression", expression.into()),
        ("is_updatable", "YES".into()),
    ]);
}

/// The standard's type name; arrays and extension types have none.
fn data_type(ty: &SqlType) -> String {
    match ty {
        SqlType::Array(_) => "ARRAY".to_owned(),
        SqlType::Bit(_) => "bit".to_owned(),
        SqlType::Enum(_) | SqlType::HalfVec(_) | SqlType::SparseVec(_) | SqlType::Vector(_) => {
            "USER-DEFINED".to_owned()
        }
        SqlType::Numeric(_) => "numeric".to_owned(),
        SqlType::Bpchar(_) => "character".to_owned(),
        SqlType::Varchar(_) => "character varying".to_owned(),
        other => other.display_name(),
    }
}

fn udt_schema(ty: &SqlType) -> &str {
    match ty {
        SqlType::Array(element) => udt_schema(element),
        SqlType::Enum(ty) => &ty.schema,
        SqlType::HalfVec(_) | SqlType::SparseVec(_) | SqlType::Vector(_) => "public",
        _ => "pg_catalog",
    }
}

/// Lengths and precisions of a type as `columns` shows them.
#[derive(Default)]
pub(super) struct Numbers {
    characters: Option<u32>,
    octets: Option<u32>,
    pub precision: Option<i32>,
    radix: Option<i32>,
    scale: Option<i32>,
    datetime: Option<i32>,
}

impl Numbers {
    pub fn of(ty: &SqlType) -> Numbers {
        let binary = |precision, scale| Numbers {
            precision: Some(precision),
            radix: Some(2),
            scale,
            ..Numbers::default()
        };
        match ty {
            SqlType::Int2 => binary(16, Some(0)),
            SqlType::Int4 => binary(32, Some(0)),
            SqlType::Int8 => binary(64, Some(0)),
            SqlType::Float4 => binary(24, None),
            SqlType::Float8 => binary(53, None),
            SqlType::Numeric(modifiers) => Numbers {
                precision: modifiers.map(|(precision, _)| i32::from(precision)),
                radix: Some(10),
                scale: modifiers.map(|(_, scale)| i32::from(scale)),
                ..Numbers::default()
            },
            SqlType::Bit(length) => Numbers { characters: *length, ..Numbers::default() },
            SqlType::Bpchar(length) | SqlType::Varchar(length) => Numbers {
                characters: *length,
                // Four bytes for each UTF-8 character, at most Postgres' largest field.
                octets: Some(length.map_or(1 << 30, |length| length.saturating_mul(4))),
                ..Numbers::default()
            },
            SqlType::Text => Numbers { octets: Some(1 << 30), ..Numbers::default() },
            SqlType::Date => Numbers { datetime: Some(0), ..Numbers::default() },
            SqlType::Time | SqlType::Timestamp | SqlType::Timestamptz | SqlType::Interval => {
                Numbers { datetime: Some(6), ..Numbers::default() }
            }
            _ => Numbers::default(),
        }
    }
}
