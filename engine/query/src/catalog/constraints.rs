//! CHECK and FOREIGN KEY constraints as the catalogs show them: found by oid, and as SQL text.
//!
//! Used by `relations` and `functions`. The text is Postgres' own form, since tools parse it.

use std::collections::BTreeSet;

use sepal_storage::TableVersion;
use sepal_types::{CheckDef, ColumnId, ForeignKeyDef, ReferenceAction, TableDef, TableId};

use super::CatalogContext;
use super::definitions::unwrapped;
use super::names::quote_ident;

/// One of them.
#[derive(Clone, Copy)]
pub(crate) enum Constraint<'a> {
    Check(&'a CheckDef),
    Foreign(&'a ForeignKeyDef),
}

/// Those of a table: CHECKs first.
pub(crate) fn constraints(table: &TableDef) -> impl Iterator<Item = Constraint<'_>> {
    let checks = table.constraints.checks.iter().map(Constraint::Check);
    checks.chain(table.constraints.foreign_keys.iter().map(Constraint::Foreign))
}

impl CatalogContext {
    /// The CHECK or foreign key with this oid, and its table.
    pub(crate) fn constraint(&self, oid: i64) -> Option<(&TableVersion, Constraint<'_>)> {
        self.snapshot.tables().filter(|table| table.def.environment == self.environment).find_map(|table| {
            let found = constraints(&table.def).find(|constraint| i64::from(constraint.oid()) == oid)?;
            Some((table.as_ref(), found))
        })
    }

    /// The tables that foreign keys refer to.
    pub(crate) fn referenced(&self) -> BTreeSet<TableId> {
        let keys = self.snapshot.tables().flat_map(|table| &table.def.constraints.foreign_keys);
        keys.map(|key| key.parent).collect()
    }

    /// As `pg_get_constraintdef` prints it.
    pub(crate) fn constraint_text(
        &self,
        table: &TableDef,
        constraint: Constraint<'_>,
        pretty: bool,
    ) -> String {
        let (mut text, not_valid) = match constraint {
            Constraint::Check(check) => {
                let shown = if pretty { unwrapped(&check.shown) } else { check.shown.as_str() };
                (format!("CHECK ({shown})"), check.not_valid)
            }
            Constraint::Foreign(key) => (self.foreign_key_text(table, key), key.not_valid),
        };
        if not_valid {
            text.push_str(" NOT VALID");
        }
        text
    }

    fn foreign_key_text(&self, table: &TableDef, key: &ForeignKeyDef) -> String {
        let parent = self.table(i64::from(key.parent.0)).map_or(table, |parent| parent.def.as_ref());
        let mut text = format!(
            "FOREIGN KEY ({}) REFERENCES {}({})",
            columns(table, &key.columns),
            self.shown(&parent.schema, &parent.name),
            columns(parent, &key.parent_columns)
        );
        if key.full {
            text.push_str(" MATCH FULL");
        }
        for (event, action) in [("UPDATE", key.on_update), ("DELETE", key.on_delete)] {
            if action != ReferenceAction::NoAction {
                text.push_str(&format!(" ON {event} {}", action.sql()));
            }
        }
        if key.deferrable {
            text.push_str(" DEFERRABLE");
        }
        if key.initially_deferred {
            text.push_str(" INITIALLY DEFERRED");
        }
        text
    }
}

impl<'a> Constraint<'a> {
    pub const fn oid(self) -> u32 {
        match self {
            Self::Check(check) => check.id.0,
            Self::Foreign(key) => key.id.0,
        }
    }

    pub fn name(self) -> &'a str {
        match self {
            Self::Check(check) => &check.name,
            Self::Foreign(key) => &key.name,
        }
    }
}

fn columns(table: &TableDef, columns: &[ColumnId]) -> String {
    let known = columns.iter().filter_map(|id| table.column_by_id(*id));
    known.map(|column| quote_ident(&column.name)).collect::<Vec<_>>().join(", ")
}
