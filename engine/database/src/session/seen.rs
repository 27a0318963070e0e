//! What a statement sees once it has waited: under READ COMMITTED still what it saw at first, but for the rows that it
//! waited for, of which it sees the newest versions. Postgres' EvalPlanQual shows a statement the same mixture.
//!
//! Used by `write` for UPDATE and DELETE and by `select_for`. The transaction's own view, which operations are applied
//! to, is always the newest.

use std::collections::BTreeMap;

use roaring::RoaringTreemap;
use sepal_query::{Shown, StatementContext};
use sepal_storage::Snapshot;
use sepal_types::{Result, TableId};

/// Rows that a statement had found and was to lock, when others had changed some of them.
#[derive(Debug, Default)]
pub(super) struct Moved {
    /// Locked: those that are as they were, and what took the places of the others.
    pub still: RoaringTreemap,
    /// Replaced or removed.
    pub gone: RoaringTreemap,
    /// What took their places.
    pub newer: RoaringTreemap,
}

/// A statement's snapshot, and what has become of its rows since.
pub(super) struct Seen {
    first: Snapshot,
    moved: BTreeMap<TableId, Rows>,
}

#[derive(Default)]
struct Rows {
    gone: RoaringTreemap,
    newer: RoaringTreemap,
}

impl Seen {
    /// `context` is bound to the statement's snapshot.
    pub fn of(context: &StatementContext) -> Self {
        Self { first: context.snapshot.get(), moved: BTreeMap::new() }
    }

    /// Rows moved; some perhaps not for the first time.
    pub fn note(&mut self, table: TableId, moved: &Moved) {
        let rows = self.moved.entry(table).or_default();
        rows.gone |= &moved.gone;
        rows.newer -= &moved.gone;
        rows.newer |= &moved.newer;
    }

    /// Shows that to the plans of `context`, which is bound to a newer snapshot that has the rows. `slots` are the
    /// session's.
    pub fn show(&self, slots: &mut Shown, context: &StatementContext) -> Result<()> {
        let newest = context.snapshot.get();
        let mut shown = self.first.clone();
        for (table, rows) in &self.moved {
            shown = shown.with_newer(&newest, *table, &rows.gone, &rows.newer)?;
        }
        slots.show(&context.snapshot, shown);
        Ok(())
    }
}
