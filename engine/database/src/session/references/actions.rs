//! ON DELETE and ON UPDATE: rows that refer to keys that went are removed, or get other keys.

use std::sync::Arc;

use sepal_query::{
    dml::{Checks, DmlContext, Generation, affected, references::acted_on, write_rows},
    locking::{RowMode, WaitPolicy},
};
use sepal_storage::{Op, TableVersion};
use sepal_types::{ColumnId, Error, ReferenceAction, Result, RowId, TableDef, TableId};

use super::{
    Changed, Lost, Reference,
    lookup::{referring_table, rows_referring},
};
use crate::{
    locks::TableMode,
    session::{
        Session,
        locking::{Claim, Claimed},
    },
};

impl Session {
    /// Does to the rows that refer to lost keys what the constraint says. What was done, if any refer.
    ///
    /// Errors: those of an UPDATE or DELETE of these rows.
    pub(super) async fn act(
        &mut self,
        reference: &Reference,
        lost: &Lost,
        action: ReferenceAction,
    ) -> Result<Option<Changed>> {
        self.lock_table(reference.child, TableMode::RowExclusive).await?;
        // Before the snapshot: whatever is replaced from now on can be followed.
        let _watch = self.watches.begin(&self.tenant.updates);
        loop {
            let latest = self.latest()?;
            let Some(child) = referring_table(&latest, reference) else { return Ok(None) };
            let found = rows_referring(child, reference, &lost.old).await?;
            if found.is_empty() {
                return Ok(None);
            }
            let (places, rows): (Vec<usize>, Vec<RowId>) = found.into_iter().unzip();
            let removes = action == ReferenceAction::Cascade && lost.new.is_none();
            let columns = written_columns(&child.def, reference);
            let mode = if removes || in_a_key(&child.def, &columns) {
                RowMode::Update
            } else {
                RowMode::NoKeyUpdate
            };
            let claim = Claim { table: reference.child, mode, write: true, wait: WaitPolicy::Wait };
            match self.claim(claim, rows.iter().map(|row| row.0).collect()).await? {
                Claimed::Current => {}
                Claimed::Moved(_) => continue,
                Claimed::Taken(_) => return Err(Error::bug("rows to be waited for were passed over")),
            }
            let inserted = match removes {
                true => None,
                false => {
                    self.replacements(child, &rows, reference, action, (lost, places.as_slice())).await?
                }
            };
            return self.take_action(reference.child, rows, inserted, &columns).await.map(Some);
        }
    }

    /// The rows with other keys.
    async fn replacements(
        &mut self,
        child: &TableVersion,
        rows: &[RowId],
        reference: &Reference,
        action: ReferenceAction,
        (lost, places): (&Lost, &[usize]),
    ) -> Result<Option<Op>> {
        let statement = self.statement_context()?;
        let (tenant, engine) = (Arc::clone(&self.tenant), Arc::clone(&self.engine));
        let context = DmlContext { engine: &engine, statement: &statement, store: &tenant.store };
        let new = lost.new.as_deref().unwrap_or_default();
        let mut target = acted_on(child, rows, &reference.key, action, (new, places), &context)?;
        let computed = Generation::after_change(&child.def, &reference.key.columns, &context)?;
        computed.fill(&child.def, &mut target, &engine)?;
        if let Some(checks) = Checks::prepare(&child.def, &context)? {
            let cancel = self.cancel.clone();
            cancel.guard(checks.hold(&child.def, &target, &context)).await?;
        }
        write_rows(&child.def, &target, &tenant.store)
    }

    /// Makes it part of the transaction.
    async fn take_action(
        &mut self,
        table: TableId,
        rows: Vec<RowId>,
        inserted: Option<Op>,
        columns: &[ColumnId],
    ) -> Result<Changed> {
        let replaced: Vec<(RowId, RowId)> = match &inserted {
            Some(Op::Insert { first_row, .. }) => {
                rows.iter().copied().zip((first_row.0..).map(RowId)).collect()
            }
            _ => Vec::new(),
        };
        let mut ops = vec![Op::Delete { table, rows }];
        ops.extend(inserted);
        let before = self.take_rows(ops.clone(), columns, &replaced).await?;
        self.follow_replaced(table, replaced.clone());
        Ok(Changed::of(table, &ops, before, replaced))
    }
}

/// The columns that refer, and those that are computed from them.
fn written_columns(child: &TableDef, reference: &Reference) -> Vec<ColumnId> {
    let mut columns = reference.key.columns.clone();
    columns.extend(affected(child, &reference.key.columns));
    columns
}

/// Whether rows of the child are known by one of these columns.
fn in_a_key(child: &TableDef, columns: &[ColumnId]) -> bool {
    child.uniques.iter().any(|unique| unique.columns.iter().any(|column| columns.contains(column)))
}
