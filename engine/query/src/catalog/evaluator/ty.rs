//! The type of a catalog expression, and how two types meet.
//!
//! `SqlType` plus what only expressions have: `regnamespace`, `regrole` and the records of row-returning
//! functions. Used by `bind` to put casts where representations differ, and by `run::cast`.

use std::sync::Arc;

use sepal_types::SqlType;

use super::super::functions::element_type;
use super::super::names::Reg;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Ty {
    Sql(SqlType),
    Namespace,
    Role,
    Record(Arc<[(String, Ty)]>),
}

/// What a type's values look like in memory: equal classes compare without a cast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Bool,
    Float,
    Int,
    List,
    Record,
    Text,
    Time,
    Unknown,
}

impl Ty {
    pub const BOOL: Ty = Ty::Sql(SqlType::Bool);
    pub const FLOAT: Ty = Ty::Sql(SqlType::Float8);
    pub const INT4: Ty = Ty::Sql(SqlType::Int4);
    pub const INT8: Ty = Ty::Sql(SqlType::Int8);
    pub const TEXT: Ty = Ty::Sql(SqlType::Text);
    pub const UNKNOWN: Ty = Ty::Sql(SqlType::Unknown);

    /// The kind of object that a `reg*` type names.
    pub fn reg(&self) -> Option<Reg> {
        match self {
            Ty::Sql(SqlType::Regclass) => Some(Reg::Class),
            Ty::Sql(SqlType::Regproc) => Some(Reg::Procedure),
            Ty::Sql(SqlType::Regtype) => Some(Reg::Type),
            Ty::Namespace => Some(Reg::Namespace),
            Ty::Role => Some(Reg::Role),
            Ty::Sql(_) | Ty::Record(_) => None,
        }
    }

    pub fn class(&self) -> Class {
        match self {
            Ty::Namespace | Ty::Role => Class::Int,
            Ty::Record(_) => Class::Record,
            Ty::Sql(ty) => match ty {
                SqlType::Unknown => Class::Unknown,
                SqlType::Bool => Class::Bool,
                SqlType::Float4 | SqlType::Float8 | SqlType::Numeric(_) => Class::Float,
                SqlType::Int2
                | SqlType::Int4
                | SqlType::Int8
                | SqlType::Oid
                | SqlType::Regclass
                | SqlType::Regproc
                | SqlType::Regtype => Class::Int,
                SqlType::Timestamp | SqlType::Timestamptz => Class::Time,
                SqlType::Array(_) | SqlType::Int2Vector | SqlType::OidVector => Class::List,
                _ => Class::Text,
            },
        }
    }

    pub fn is_unknown(&self) -> bool {
        self.class() == Class::Unknown
    }

    /// The element type of an array or vector of numbers.
    pub fn element(&self) -> Option<Ty> {
        match self {
            Ty::Sql(ty) => element_type(ty).map(Ty::Sql),
            _ => None,
        }
    }

    /// `int2vector` and `oidvector` count from 0.
    pub fn lower_bound(&self) -> i64 {
        i64::from(!matches!(self, Ty::Sql(SqlType::Int2Vector | SqlType::OidVector)))
    }

    /// What the client is told: names of schemas and roles are text, an untyped literal is too.
    pub fn outward(&self) -> SqlType {
        match self {
            Ty::Sql(SqlType::Unknown) | Ty::Record(_) => SqlType::Text,
            Ty::Sql(SqlType::Array(element)) if **element == SqlType::Unknown => {
                SqlType::Array(Box::new(SqlType::Text))
            }
            Ty::Sql(ty) => ty.clone(),
            Ty::Namespace | Ty::Role => SqlType::Text,
        }
    }

    /// The array of this type.
    pub fn array(&self) -> Ty {
        Ty::Sql(SqlType::Array(Box::new(self.outward())))
    }

    /// The type in which values of both can be compared; `None` when there is none.
    pub fn common(&self, other: &Ty) -> Option<Ty> {
        use Class::{Float, Int, Text, Unknown};
        Some(match (self.class(), other.class()) {
            (Unknown, Unknown) => Ty::TEXT,
            (Unknown, _) => other.clone(),
            (_, Unknown) => self.clone(),
            (Int, Int) if *self == Ty::INT4 || *self == Ty::Sql(SqlType::Int2) => other.clone(),
            (Int, Float) | (Float, Int) => Ty::FLOAT,
            // Postgres has no such operator; a parameter sent as text means a number all the same.
            (Int, Text) => self.clone(),
            (Text, Int) => other.clone(),
            // Types of text differ in what they hold, not in how they compare.
            (Text, Text) if self != other => Ty::TEXT,
            (left, right) if left == right => self.clone(),
            _ => return None,
        })
    }

    /// The name for an error message.
    pub fn name(&self) -> String {
        match self {
            Ty::Sql(ty) => ty.display_name(),
            Ty::Namespace => "regnamespace".to_owned(),
            Ty::Role => "regrole".to_owned(),
            Ty::Record(_) => "record".to_owned(),
        }
    }
}
