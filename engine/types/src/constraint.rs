//! CHECK and FOREIGN KEY constraints of a table, as its definition has them.
//!
//! Written with the definition (`definition`). `query` makes and evaluates them, `database` enforces foreign keys;
//! nothing here looks at a row.

use serde::{Deserialize, Serialize};

use crate::{ColumnId, TableDef, TableId};

/// What a table's rows must keep to beside NOT NULL and its unique keys. Each in the order in which it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Constraints {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<CheckDef>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub foreign_keys: Vec<ForeignKeyDef>,
}

/// CHECK.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckDef {
    /// The oid of the constraint.
    pub id: TableId,
    pub name: String,
    /// SQL over the table's columns, which it names quoted and without the table.
    pub expression: String,
    /// As `pg_get_expr` prints it.
    pub shown: String,
    /// The columns that it names, ascending.
    pub columns: Vec<ColumnId>,
    /// Rows from before may break it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub not_valid: bool,
}

/// FOREIGN KEY. It belongs to the table that refers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignKeyDef {
    /// The oid of the constraint.
    pub id: TableId,
    pub name: String,
    pub columns: Vec<ColumnId>,
    /// The table that is referred to.
    pub parent: TableId,
    /// Its columns, in the order of `columns`.
    pub parent_columns: Vec<ColumnId>,
    /// Its unique constraint or index over these columns.
    pub key: TableId,
    #[serde(default, skip_serializing_if = "ReferenceAction::is_no_action")]
    pub on_delete: ReferenceAction,
    #[serde(default, skip_serializing_if = "ReferenceAction::is_no_action")]
    pub on_update: ReferenceAction,
    /// MATCH FULL; else MATCH SIMPLE.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub full: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deferrable: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub initially_deferred: bool,
    /// Rows from before may break it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub not_valid: bool,
}

/// What becomes of rows that refer to a key that goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReferenceAction {
    #[default]
    NoAction,
    Restrict,
    Cascade,
    SetNull,
    SetDefault,
}

impl ReferenceAction {
    const fn is_no_action(&self) -> bool {
        matches!(self, Self::NoAction)
    }

    /// As after ON DELETE and ON UPDATE.
    pub const fn sql(self) -> &'static str {
        match self {
            Self::NoAction => "NO ACTION",
            Self::Restrict => "RESTRICT",
            Self::Cascade => "CASCADE",
            Self::SetNull => "SET NULL",
            Self::SetDefault => "SET DEFAULT",
        }
    }

    /// `pg_constraint.confdeltype`.
    pub const fn letter(self) -> &'static str {
        match self {
            Self::NoAction => "a",
            Self::Restrict => "r",
            Self::Cascade => "c",
            Self::SetNull => "n",
            Self::SetDefault => "d",
        }
    }
}

impl Constraints {
    pub fn is_empty(&self) -> bool {
        self.checks.is_empty() && self.foreign_keys.is_empty()
    }
}

impl TableDef {
    /// Whether a constraint of the table has this name. A unique index is none.
    pub fn has_constraint(&self, name: &str) -> bool {
        self.uniques.iter().any(|unique| unique.is_constraint() && unique.name == name)
            || self.constraints.checks.iter().any(|check| check.name == name)
            || self.constraints.foreign_keys.iter().any(|key| key.name == name)
    }
}
