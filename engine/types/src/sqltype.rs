//! SQL types: the ones a column may have, and the ones only a result or a catalog has.
//!
//! One enum serves the catalog, the planner and the wire, so that a column's declared type, its described
//! oid and its encoding cannot drift apart. Arrow's side of the mapping is `storage::arrow_type`.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::{
    EnumType, SparseVector, VectorKind,
    limits::{
        HALFVEC_ARRAY_OID, HALFVEC_OID, SPARSEVEC_ARRAY_OID, SPARSEVEC_OID, VECTOR_ARRAY_OID, VECTOR_OID,
    },
};

/// A Postgres type.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SqlType {
    Array(Box<SqlType>),
    /// Bits; `None` is a string of any length, which no column has.
    Bit(Option<u32>),
    Bool,
    /// `character(n)`: kept without the blanks that pad it, which no comparison sees; printed with them. `None` is a
    /// string of any length, which no column has.
    Bpchar(Option<u32>),
    Bytea,
    /// Postgres' internal one-byte `"char"`.
    Char,
    Date,
    Float4,
    Float8,
    /// Dimensions, of two bytes each; `None` accepts any.
    HalfVec(Option<u16>),
    Int2,
    Int2Vector,
    Int4,
    Int8,
    Interval,
    Json,
    Jsonb,
    Name,
    /// `(precision, scale)`; `None` keeps up to 38 digits, 16 of them after the point.
    Numeric(Option<(u8, i8)>),
    Oid,
    OidVector,
    Regclass,
    Regproc,
    Regtype,
    Text,
    Time,
    /// Microseconds, no zone.
    Timestamp,
    /// Microseconds, UTC.
    Timestamptz,
    /// The type of a literal or parameter that nothing has typed yet.
    Unknown,
    Uuid,
    Varchar(Option<u32>),
    /// Dimensions; `None` accepts any.
    Vector(Option<u16>),
    Void,
    /// Dimensions, of which only those are kept that are not zero; `None` accepts any.
    SparseVec(Option<u32>),
    /// What is looked for in a `tsvector`.
    TsQuery,
    /// The lexemes of a document, with their places.
    TsVector,
    /// One that CREATE TYPE made, with all its labels.
    Enum(EnumType),
}

impl SqlType {
    /// An integer, a float or `numeric`.
    pub const fn is_number(&self) -> bool {
        matches!(self, Self::Int2 | Self::Int4 | Self::Int8 | Self::Float4 | Self::Float8 | Self::Numeric(_))
    }

    /// Text of whatever length, or an untyped literal, which is text until something asks more of it.
    pub const fn is_text(&self) -> bool {
        matches!(
            self,
            Self::Bpchar(_) | Self::Char | Self::Name | Self::Text | Self::Unknown | Self::Varchar(_)
        )
    }

    /// Which vectors its values are; `None` for a type of other values.
    pub const fn vector_kind(&self) -> Option<VectorKind> {
        match self {
            Self::HalfVec(_) => Some(VectorKind::Half),
            Self::Vector(_) => Some(VectorKind::Single),
            _ => None,
        }
    }

    /// Whether its values are sparse vectors.
    pub const fn is_sparse(&self) -> bool {
        matches!(self, Self::SparseVec(_))
    }

    /// Which enum its values are of; `None` for another type, and for an array.
    pub const fn enum_type(&self) -> Option<&EnumType> {
        match self {
            Self::Enum(ty) => Some(ty),
            _ => None,
        }
    }

    /// The dimensions that a type of vectors was declared with.
    pub const fn dimensions(&self) -> Option<u16> {
        match self {
            Self::HalfVec(dimensions) | Self::Vector(dimensions) => *dimensions,
            _ => None,
        }
    }

    /// The type's oid, as in Postgres' `pg_type.dat`; ours are fixed numbers.
    pub fn oid(&self) -> u32 {
        match self {
            Self::Array(element) => element.array_oid(),
            Self::Bit(_) => 1560,
            Self::Bool => 16,
            Self::Bytea => 17,
            Self::Char => 18,
            Self::Name => 19,
            Self::Int8 => 20,
            Self::Int2 => 21,
            Self::Int2Vector => 22,
            Self::Int4 => 23,
            Self::Regproc => 24,
            Self::Text => 25,
            Self::Oid => 26,
            Self::OidVector => 30,
            Self::Json => 114,
            Self::Float4 => 700,
            Self::Float8 => 701,
            Self::Unknown => 705,
            Self::Bpchar(_) => 1042,
            Self::Varchar(_) => 1043,
            Self::Date => 1082,
            Self::Time => 1083,
            Self::Timestamp => 1114,
            Self::Timestamptz => 1184,
            Self::Interval => 1186,
            Self::Numeric(_) => 1700,
            Self::Regclass => 2205,
            Self::Regtype => 2206,
            Self::Void => 2278,
            Self::Uuid => 2950,
            Self::TsVector => 3614,
            Self::TsQuery => 3615,
            Self::Jsonb => 3802,
            Self::HalfVec(_) => HALFVEC_OID,
            Self::Vector(_) => VECTOR_OID,
            Self::SparseVec(_) => SPARSEVEC_OID,
            Self::Enum(ty) => ty.id.0,
        }
    }

    /// The oid of this type's array type (0 where Postgres has none).
    pub fn array_oid(&self) -> u32 {
        match self {
            Self::Array(_) => self.oid(),
            Self::Bit(_) => 1561,
            Self::Bool => 1000,
            Self::Bytea => 1001,
            Self::Char => 1002,
            Self::Name => 1003,
            Self::Int2 => 1005,
            Self::Int2Vector => 1006,
            Self::Int4 => 1007,
            Self::Regproc => 1008,
            Self::Text | Self::Unknown => 1009,
            Self::OidVector => 1013,
            Self::Bpchar(_) => 1014,
            Self::Varchar(_) => 1015,
            Self::Int8 => 1016,
            Self::Float4 => 1021,
            Self::Float8 => 1022,
            Self::Oid => 1028,
            Self::Timestamp => 1115,
            Self::Date => 1182,
            Self::Time => 1183,
            Self::Timestamptz => 1185,
            Self::Interval => 1187,
            Self::Json => 199,
            Self::Numeric(_) => 1231,
            Self::Regclass => 2210,
            Self::Regtype => 2211,
            Self::Uuid => 2951,
            Self::TsVector => 3643,
            Self::TsQuery => 3645,
            Self::Jsonb => 3807,
            Self::HalfVec(_) => HALFVEC_ARRAY_OID,
            Self::Vector(_) => VECTOR_ARRAY_OID,
            Self::SparseVec(_) => SPARSEVEC_ARRAY_OID,
            Self::Enum(ty) => ty.array.0,
            Self::Void => 0,
        }
    }

    /// The type with this oid, without modifier; `None` for an oid that Sepal does not have.
    pub fn from_oid(oid: u32) -> Option<SqlType> {
        Self::simple_types().find(|ty| ty.oid() == oid).or_else(|| {
            Self::simple_types()
                .find(|ty| oid != 0 && ty.array_oid() == oid && *ty != Self::Unknown)
                .map(|ty| Self::Array(Box::new(ty)))
        })
    }

    /// Every type that is not an array, without modifiers, in alphabetical order.
    pub fn simple_types() -> impl Iterator<Item = SqlType> {
        [
            Self::Bit(None),
            Self::Bool,
            Self::Bpchar(None),
            Self::Bytea,
            Self::Char,
            Self::Date,
            Self::Float4,
            Self::Float8,
            Self::HalfVec(None),
            Self::Int2,
            Self::Int2Vector,
            Self::Int4,
            Self::Int8,
            Self::Interval,
            Self::Json,
            Self::Jsonb,
            Self::Name,
            Self::Numeric(None),
            Self::Oid,
            Self::OidVector,
            Self::Regclass,
            Self::Regproc,
            Self::Regtype,
            Self::SparseVec(None),
            Self::Text,
            Self::Time,
            Self::Timestamp,
            Self::Timestamptz,
            Self::TsQuery,
            Self::TsVector,
            Self::Unknown,
            Self::Uuid,
            Self::Varchar(None),
            Self::Vector(None),
            Self::Void,
        ]
        .into_iter()
    }

    /// `pg_type.typlen`: bytes of a fixed-size type, -1 variable, -2 a C string.
    pub fn length_bytes(&self) -> i16 {
        match self {
            Self::Bool | Self::Char => 1,
            Self::Int2 => 2,
            Self::Int4
            | Self::Float4
            | Self::Date
            | Self::Oid
            | Self::Regclass
            | Self::Regproc
            | Self::Regtype
            | Self::Enum(_)
            | Self::Void => 4,
            Self::Int8 | Self::Float8 | Self::Time | Self::Timestamp | Self::Timestamptz => 8,
            Self::Interval | Self::Uuid => 16,
            Self::Name => 64,
            Self::Unknown => -2,
            _ => -1,
        }
    }

    /// The type modifier as `pg_attribute.atttypmod` and RowDescription carry it; -1 for none.
    pub fn typmod(&self) -> i32 {
        match self {
            Self::Array(element) => element.typmod(),
            Self::Bit(Some(length)) => i32::try_from(*length).unwrap_or(-1),
            Self::Numeric(Some((precision, scale))) => {
                ((i32::from(*precision) << 16) | i32::from(*scale)) + 4
            }
            Self::Bpchar(Some(length)) | Self::Varchar(Some(length)) => {
                i32::try_from(*length).map_or(-1, |length| length.saturating_add(4))
            }
            Self::HalfVec(Some(dimensions)) | Self::Vector(Some(dimensions)) => i32::from(*dimensions),
            Self::SparseVec(Some(dimensions)) => i32::try_from(*dimensions).unwrap_or(-1),
            _ => -1,
        }
    }

    /// The same type carrying a modifier from the wire or the catalog.
    #[must_use]
    pub fn with_typmod(self, typmod: i32) -> SqlType {
        match self {
            Self::Bit(_) if typmod > 0 => Self::Bit(u32::try_from(typmod).ok()),
            Self::Numeric(_) if typmod >= 4 => {
                let bits = typmod - 4;
                let precision = u8::try_from(bits >> 16).unwrap_or(38);
                Self::Numeric(Some((precision, i8::try_from(bits & 0xffff).unwrap_or(0))))
            }
            Self::Bpchar(_) if typmod >= 4 => Self::Bpchar(u32::try_from(typmod - 4).ok()),
            Self::Varchar(_) if typmod >= 4 => Self::Varchar(u32::try_from(typmod - 4).ok()),
            Self::HalfVec(_) if typmod > 0 => Self::HalfVec(u16::try_from(typmod).ok()),
            Self::Vector(_) if typmod > 0 => Self::Vector(u16::try_from(typmod).ok()),
            Self::SparseVec(_) if typmod > 0 => Self::SparseVec(u32::try_from(typmod).ok()),
            other => other,
        }
    }

    /// `pg_type.typname`: `int4`, `_text`, `vector`.
    pub fn internal_name(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Array(element) => return Cow::Owned(format!("_{}", element.internal_name())),
            Self::Bit(_) => "bit",
            Self::Bool => "bool",
            Self::Bpchar(_) => "bpchar",
            Self::Bytea => "bytea",
            Self::Char => "char",
            Self::Date => "date",
            Self::Float4 => "float4",
            Self::Float8 => "float8",
            Self::HalfVec(_) => VectorKind::Half.name(),
            Self::Int2 => "int2",
            Self::Int2Vector => "int2vector",
            Self::Int4 => "int4",
            Self::Int8 => "int8",
            Self::Interval => "interval",
            Self::Json => "json",
            Self::Jsonb => "jsonb",
            Self::Name => "name",
            Self::Numeric(_) => "numeric",
            Self::Oid => "oid",
            Self::OidVector => "oidvector",
            Self::Regclass => "regclass",
            Self::Regproc => "regproc",
            Self::Regtype => "regtype",
            Self::Text => "text",
            Self::Time => "time",
            Self::Timestamp => "timestamp",
            Self::Timestamptz => "timestamptz",
            Self::TsQuery => "tsquery",
            Self::TsVector => "tsvector",
            Self::Unknown => "unknown",
            Self::Uuid => "uuid",
            Self::Varchar(_) => "varchar",
            Self::Vector(_) => VectorKind::Single.name(),
            Self::Void => "void",
            Self::SparseVec(_) => SparseVector::NAME,
            Self::Enum(ty) => return Cow::Owned(ty.name.clone()),
        })
    }

    /// What `format_type` prints: `integer`, `character varying(64)`, `vector(3)`, `text[]`.
    pub fn display_name(&self) -> String {
        match self {
            Self::Array(element) => format!("{}[]", element.display_name()),
            Self::Bit(Some(length)) => format!("bit({length})"),
            Self::Bool => "boolean".into(),
            Self::Bpchar(Some(length)) => format!("character({length})"),
            Self::Char => "\"char\"".into(),
            Self::Float4 => "real".into(),
            Self::Float8 => "double precision".into(),
            Self::Int2 => "smallint".into(),
            Self::Int4 => "integer".into(),
            Self::Int8 => "bigint".into(),
            Self::Numeric(Some((precision, scale))) => format!("numeric({precision},{scale})"),
            Self::Time => "time without time zone".into(),
            Self::Timestamp => "timestamp without time zone".into(),
            Self::Timestamptz => "timestamp with time zone".into(),
            Self::Varchar(None) => "character varying".into(),
            Self::Varchar(Some(length)) => format!("character varying({length})"),
            Self::HalfVec(Some(dimensions)) | Self::Vector(Some(dimensions)) => {
                format!("{}({dimensions})", self.internal_name())
            }
            Self::SparseVec(Some(dimensions)) => format!("{}({dimensions})", self.internal_name()),
            Self::Enum(ty) => ty.shown(),
            other => other.internal_name().into_owned(),
        }
    }

    /// What a field of a plan says of its type: the name, or a whole definition where that is not enough.
    pub fn marker(&self) -> String {
        match self {
            Self::Enum(ty) => ty.marker(false),
            Self::Array(element) => match element.as_ref() {
                Self::Enum(ty) => ty.marker(true),
                _ => self.display_name(),
            },
            _ => self.display_name(),
        }
    }

    /// The type that a marker names.
    pub fn from_marker(marker: &str) -> Option<SqlType> {
        EnumType::from_marker(marker).or_else(|| Self::from_name(marker))
    }

    /// The type named so in SQL or by `to_regtype`: internal or display name, any case, `[]` or `_` arrays,
    /// optional `pg_catalog.` or `public.`, before `vector` and `halfvec` any schema; modifiers in parentheses are
    /// read. `char` is `character(1)`; the type of one byte has its name in quotes.
    pub fn from_name(name: &str) -> Option<SqlType> {
        let lower = name.trim().to_ascii_lowercase();
        let bare = lower
            .strip_prefix("pg_catalog.")
            .or_else(|| lower.strip_prefix("public."))
            .or_else(|| VectorKind::without_schema(&lower))
            .unwrap_or(&lower);
        if let Some(element) = bare.strip_suffix("[]").or_else(|| bare.strip_prefix('_')) {
            return Some(Self::Array(Box::new(Self::from_name(element)?)));
        }
        let (base, modifiers) = match bare.split_once('(') {
            Some((base, rest)) => {
                let (inside, after) = rest.split_once(')')?;
                (format!("{}{after}", base.trim_end()), Some(inside.to_owned()))
            }
            None => (bare.to_owned(), None),
        };
        let ty = Self::alias(&base).or_else(|| {
            Self::simple_types().find(|ty| ty.internal_name() == base || ty.display_name() == base)
        })?;
        match (ty, modifiers) {
            (ty, None) => Some(ty),
            (Self::Bit(_), Some(length)) => Some(Self::Bit(Some(length.trim().parse().ok()?))),
            (Self::Bpchar(_), Some(length)) => Some(Self::Bpchar(Some(length.trim().parse().ok()?))),
            (Self::Varchar(_), Some(length)) => Some(Self::Varchar(Some(length.trim().parse().ok()?))),
            (Self::HalfVec(_), Some(dimensions)) => {
                Some(Self::HalfVec(Some(dimensions.trim().parse().ok()?)))
            }
            (Self::Vector(_), Some(dimensions)) => Some(Self::Vector(Some(dimensions.trim().parse().ok()?))),
            (Self::SparseVec(_), Some(dimensions)) => {
                // A modifier is an int4.
                let dimensions: i32 = dimensions.trim().parse().ok()?;
                Some(Self::SparseVec(Some(u32::try_from(dimensions).ok()?)))
            }
            (Self::Numeric(_), Some(modifiers)) => {
                let (precision, scale) = modifiers.split_once(',').unwrap_or((&modifiers, "0"));
                Some(Self::Numeric(Some((precision.trim().parse().ok()?, scale.trim().parse().ok()?))))
            }
            (ty, Some(_)) => Some(ty),
        }
    }

    /// The type with this `pg_type.typname`, `[]` after it for its array: `char` is the type of one byte here.
    pub fn from_internal_name(name: &str) -> Option<SqlType> {
        match name {
            "char" => Some(Self::Char),
            "char[]" => Some(Self::Array(Box::new(Self::Char))),
            other => Self::from_name(other),
        }
    }

    fn alias(name: &str) -> Option<SqlType> {
        Some(match name {
            "int" => Self::Int4,
            "char" | "character" | "national character" | "nchar" => Self::Bpchar(Some(1)),
            "char varying" | "national character varying" => Self::Varchar(None),
            "decimal" => Self::Numeric(None),
            "float" => Self::Float8,
            "string" => Self::Text,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_oids_and_modifiers_agree() {
        for ty in SqlType::simple_types() {
            assert_eq!(SqlType::from_oid(ty.oid()), Some(ty.clone()));
            assert_eq!(SqlType::from_internal_name(&ty.internal_name()), Some(ty.clone()));
            assert_eq!(SqlType::from_name(&ty.display_name()), Some(ty));
        }
        for text in [
            "vector(384)",
            "bit(1024)",
            "halfvec(3)",
            "sparsevec(1000000000)",
            "numeric(10,2)",
            "character varying(64)",
            "character(5)",
            "text[]",
            "timestamp with time zone",
        ] {
            let ty = SqlType::from_name(text).unwrap();
            assert_eq!(ty.display_name(), text);
            assert_eq!(SqlType::from_oid(ty.oid()).unwrap().with_typmod(ty.typmod()), ty);
        }
        assert_eq!(SqlType::from_name("CHAR"), Some(SqlType::Bpchar(Some(1))));
        assert_eq!(SqlType::from_name("pg_catalog.\"char\""), Some(SqlType::Char));
    }
}
