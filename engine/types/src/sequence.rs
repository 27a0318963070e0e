//! Sequences: which numbers they give, and what they are called.
//!
//! Each belongs to a column of a table: of a serial or identity column, or to the one column of a table that is a
//! sequence of its own ([`TableDef::is_sequence`]). How far it has counted is storage's to know.

use serde::{Deserialize, Serialize};

use crate::{ColumnDef, ColumnId, Generated, SqlType, TableDef, TableId, limits::MAX_IDENTIFIER_BYTES};

/// Ascending numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequenceDef {
    /// Of a column's sequence, where it is not what [`TableDef::sequence_name`] makes of table and column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `smallint`, `integer` or `bigint`.
    pub ty: SqlType,
    pub start: i64,
    /// At least 1.
    pub increment: i64,
    pub min: i64,
    pub max: i64,
    /// OWNED BY: the sequence goes when the column does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<(TableId, ColumnId)>,
}

impl SequenceDef {
    /// What CREATE SEQUENCE makes without options.
    pub fn new(ty: &SqlType) -> Self {
        let (ty, max) = (ty.clone(), Self::greatest(ty));
        Self { name: None, ty, start: 1, increment: 1, min: 1, max, owner: None }
    }

    /// The greatest value of the type.
    pub const fn greatest(ty: &SqlType) -> i64 {
        match ty {
            SqlType::Int2 => i16::MAX as i64,
            SqlType::Int4 => i32::MAX as i64,
            _ => i64::MAX,
        }
    }

    /// What Postgres shows as `last_value` and `is_called` when `next` comes next.
    pub const fn last_value(&self, next: i64) -> (i64, bool) {
        let last = next.saturating_sub(self.increment);
        if next == self.start || last < self.min {
            return (next, false);
        }
        (if last > self.max { self.max } else { last }, true)
    }
}

impl ColumnDef {
    /// What its sequence gives; `None` for a column that has none.
    pub fn sequence(&self) -> Option<SequenceDef> {
        if !self.is_counted() {
            return None;
        }
        Some(self.sequence.as_ref().map_or_else(|| SequenceDef::new(&self.ty), |own| (**own).clone()))
    }
}

impl TableDef {
    /// The column by which a table that is a sequence keeps it.
    pub const SEQUENCE_COLUMN: ColumnId = ColumnId(1);

    /// A sequence of its own, made by CREATE SEQUENCE. A program that knows no such refuses the definition for its
    /// column's [`Generated::Sequence`].
    pub fn of_sequence(
        id: TableId,
        environment: &str,
        (schema, name): (String, String),
        sequence: SequenceDef,
    ) -> Self {
        let column = ColumnDef {
            not_null: true,
            generated: Some(Generated::Sequence),
            sequence: Some(Box::new(sequence)),
            ..ColumnDef::new(Self::SEQUENCE_COLUMN, "last_value", SqlType::Int8)
        };
        Self::of_one_column(id, environment, (schema, name), column)
    }

    pub fn is_sequence(&self) -> bool {
        self.columns.first().is_some_and(|column| column.generated == Some(Generated::Sequence))
    }

    /// The column whose sequence has this name.
    pub fn sequence_named(&self, name: &str) -> Option<&ColumnDef> {
        let has = |column: &&ColumnDef| column.is_counted() && self.sequence_name(column) == name;
        self.columns.iter().find(has)
    }

    /// `items_id_seq`, unless it was given another name; long names are cut as Postgres cuts them: the longer of table
    /// and column first.
    pub fn sequence_name(&self, column: &ColumnDef) -> String {
        if column.generated == Some(Generated::Sequence) {
            return self.name.clone();
        }
        if let Some(name) = column.sequence.as_ref().and_then(|sequence| sequence.name.as_ref()) {
            return name.clone();
        }
        let (mut first, mut second) = (self.name.as_str(), column.name.as_str());
        while first.len() + second.len() + "__seq".len() > MAX_IDENTIFIER_BYTES {
            let longer = if first.len() > second.len() { &mut first } else { &mut second };
            let end = longer.char_indices().next_back().map_or(0, |(at, _)| at);
            *longer = &longer[..end];
        }
        format!("{first}_{second}_seq")
    }
}
