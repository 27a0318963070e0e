//! INSERT, UPDATE, DELETE and COPY: their rows and keys are locked, then they become operations of the transaction.
//!
//! 1. The plan runs on the statement's snapshot and names the rows to replace or remove.
//! 2. They are locked. Where one was replaced or removed meanwhile, the plan runs again on the same snapshot with the
//!    newest versions of just these (`seen`), and of its rows those count that it had named before, or what became of
//!    them: Postgres' EvalPlanQual, but for the whole plan. Rows that only now match are not touched.
//! 3. New keys of unique constraints are locked. So a second insertion of a key waits for the first one's end, and is
//!    then refused, or goes through.
//! 4. The transaction's view of the newest head is asked whether it takes the operations, which tells of duplicates at
//!    once. A key whose row somebody is removing is waited for, and is not locked meanwhile. Rows that only come are
//!    put into the view when somebody looks at it: after a statement by itself nobody does.
//!
//! 5. What foreign keys say of it is done, or refuses it (`references`).
//!
//! What ON CONFLICT finds in its way is looked for again, on the newest snapshot, whenever a wait may have changed it.

use std::sync::Arc;

use arrow::{array::ArrayRef, record_batch::RecordBatch};
use roaring::RoaringTreemap;
use sepal_query::{
    StatementContext,
    dml::{Dml, DmlContext, Draft, Written},
    locking::{RowMode, WaitPolicy},
    planner::parameter_values,
};
use sepal_storage::{Op, Snapshot, StoreError};
use sepal_types::{ColumnId, Error, Result, RowId, SqlState, TableId, UniqueDef};

use super::{
    Open, Session,
    locking::{Claim, Claimed},
    references::Changed,
    seen::{Moved, Seen},
};
use crate::locks::Want;

/// What applying operations came to.
enum Applied {
    /// And what the operations were applied to.
    Done(Snapshot),
    /// A key is somebody else's by now, and ON CONFLICT says what to do then.
    InTheWay,
}

/// What a statement may do with the keys of unique constraints.
struct Keys<'a> {
    /// Whether it may put new ones into a constraint.
    adds: &'a (dyn Fn(&UniqueDef) -> bool + Sync),
    /// Whether ON CONFLICT takes care of one that is there.
    gives_way: &'a (dyn Fn(&UniqueDef) -> bool + Sync),
    /// New versions of rows: of them ON CONFLICT says nothing.
    updated: RoaringTreemap,
}

/// Rows of a table.
type TableRows = (TableId, Vec<RowId>);

impl Session {
    /// Runs a write and makes it part of the transaction. Its table is locked already.
    ///
    /// Errors: 23505, 40001 (REPEATABLE READ), 40P01, 55P03, …; the transaction's view is as before then. Not so after
    /// 23503 and what else foreign keys lead to: the transaction, or its last savepoint, has to be rolled back.
    pub(super) async fn write(
        &mut self,
        dml: &Dml,
        context: &StatementContext,
        parameters: &[ArrayRef],
    ) -> Result<Written> {
        self.check_writable(dml.verb())?;
        let values = parameter_values(parameters, parameters.len())?;
        self.run_nested(context, &values).await?;
        // Before the snapshot: whatever is replaced from now on can be followed.
        let _watch = self.watches.begin(&self.tenant.updates);
        self.bind(context)?;
        let mut seen = Seen::of(context);
        let (tenant, engine) = (Arc::clone(&self.tenant), Arc::clone(&self.engine));
        let cancel = self.cancel.clone();
        let dml_context = DmlContext { engine: &engine, statement: context, store: &tenant.store };
        let mut draft = cancel.guard(dml.draft(&values, &dml_context)).await?;
        loop {
            if let Some(moved) = self.lock_draft(dml, &draft).await? {
                self.bind(context)?;
                if let Draft::Change(_) = draft {
                    seen.note(dml.target(), &moved);
                    seen.show(&mut self.shown, context)?;
                }
                draft = cancel.guard(dml.draft_again(draft, &moved.still, &values, &dml_context)).await?;
                continue;
            }
            let mut written = cancel.guard(dml.write(&draft, &values, &dml_context)).await?;
            let keys = Keys {
                adds: &|unique: &UniqueDef| dml.adds_keys(unique),
                gives_way: &|unique: &UniqueDef| dml.gives_way(unique),
                updated: written.replaced.iter().map(|(_, new)| new.0).collect(),
            };
            let table = dml.target();
            let concerned = self
                .concerns_references(table, !draft.rows().is_empty() && dml.row_mode() == RowMode::Update)?;
            // For the foreign keys: the transaction takes the operations themselves.
            let ops = if concerned { written.ops.clone() } else { Vec::new() };
            let replaced = if concerned { written.replaced.clone() } else { Vec::new() };
            match self.take(&mut written, &keys).await? {
                Applied::Done(before) => {
                    if concerned {
                        self.enforce_references(Changed::of(table, &ops, before, replaced)).await?;
                    }
                    return Ok(written);
                }
                Applied::InTheWay => {
                    self.bind(context)?;
                    let still = RoaringTreemap::new();
                    draft = cancel.guard(dml.draft_again(draft, &still, &values, &dml_context)).await?;
                }
            }
        }
    }

    /// Locks the rows of a draft. If they are not as it saw them, what became of them: it is to be made again.
    async fn lock_draft(&mut self, dml: &Dml, draft: &Draft) -> Result<Option<Moved>> {
        let table = dml.target();
        if !draft.rows().is_empty() {
            let claim = Claim { table, mode: dml.row_mode(), write: true, wait: WaitPolicy::Wait };
            let rows = draft.rows().iter().map(|row| row.0).collect();
            match self.claim(claim, rows).await? {
                Claimed::Current => {}
                Claimed::Moved(moved) => return Ok(Some(moved)),
                Claimed::Taken(_) => return Err(Error::bug("rows to be waited for were passed over")),
            }
        }
        let standing = self.committed(table, draft.standing())?;
        if self.await_writers(table, &standing).await? {
            self.refuse_if_repeatable(table, &standing)?;
            return Ok(Some(Moved::default()));
        }
        Ok(None)
    }

    /// Those of rows that the transaction sees which are not its own: these nobody else can be removing, and the head
    /// has none of them.
    fn committed(&mut self, table: TableId, rows: &[RowId]) -> Result<Vec<RowId>> {
        let Some(base) = self.open_mut()?.base.table(table) else { return Ok(Vec::new()) };
        let own = base.absent(rows)?;
        Ok(rows.iter().copied().filter(|row| own.binary_search(row).is_err()).collect())
    }

    /// Under REPEATABLE READ a row that is gone cannot be left out of account: the snapshot still has it.
    fn refuse_if_repeatable(&self, table: TableId, rows: &[RowId]) -> Result<()> {
        let head = self.tenant.store.snapshot();
        let repeatable = self.open.as_ref().is_some_and(|open| open.repeatable);
        let Some(version) = head.table(table).filter(|_| repeatable) else { return Ok(()) };
        if version.absent(rows)?.is_empty() { Ok(()) } else { Err(serialization_failure("delete")) }
    }

    async fn take(&mut self, written: &mut Written, keys: &Keys<'_>) -> Result<Applied> {
        let ops = std::mem::take(&mut written.ops);
        let table = ops.last().map(Op::table);
        let applied = self.take_ops(ops, keys).await?;
        if let (Applied::Done(_), Some(table)) = (&applied, table) {
            self.follow_replaced(table, std::mem::take(&mut written.replaced));
        }
        Ok(applied)
    }

    /// Locks of rows that the transaction replaced go to their new versions, for it and for those who wait for it.
    pub(super) fn follow_replaced(&mut self, table: TableId, replaced: Vec<(RowId, RowId)>) {
        if let (Some(open), false) = (&mut self.open, replaced.is_empty()) {
            open.locks.follow(table, &replaced);
            open.replaced.push(table, replaced);
        }
    }

    /// Makes operations on rows part of the transaction that a foreign key has made, by which these columns got other
    /// values. What they were applied to.
    ///
    /// Errors: those of [`Self::write`].
    pub(super) async fn take_rows(
        &mut self,
        ops: Vec<Op>,
        columns: &[ColumnId],
        replaced: &[(RowId, RowId)],
    ) -> Result<Snapshot> {
        let keys = Keys {
            adds: &|unique: &UniqueDef| unique.columns.iter().any(|column| columns.contains(column)),
            gives_way: &|_: &UniqueDef| false,
            updated: replaced.iter().map(|(_, new)| new.0).collect(),
        };
        match self.take_ops(ops, &keys).await? {
            Applied::Done(before) => Ok(before),
            Applied::InTheWay => Err(Error::bug("rows of a foreign key gave way to others")),
        }
    }

    /// Makes operations part of the transaction.
    async fn take_ops(&mut self, ops: Vec<Op>, keys: &Keys<'_>) -> Result<Applied> {
        let keyed = self.lock_keys(&ops, keys).await?;
        loop {
            let head = self.tenant.store.snapshot();
            let open = self.open_mut()?;
            if keyed {
                open.refresh(head.clone())?;
            }
            let repeatable = open.repeatable;
            let refusal = match open.with(&ops) {
                Ok(admitted) => {
                    // A row that an older snapshot does not show may have the key.
                    if !(keyed && repeatable) || self.key_holders(&head, &ops)?.is_empty() {
                        let open = self.open_mut()?;
                        let before = open.view()?.clone();
                        open.accept(ops, admitted)?;
                        return Ok(Applied::Done(before));
                    }
                    None
                }
                Err(refusal @ StoreError::UniqueViolation { .. }) => Some(refusal),
                Err(other) => return Err(other.into()),
            };
            let rows = self.key_holders(&head, &ops)?;
            if self.await_each_writer(rows, &ops, keys).await? {
                continue;
            }
            if self.gives_way(&head, &ops, keys)? {
                self.give_back_keys(&ops, keys)?;
                return if repeatable { Err(serialization_failure("update")) } else { Ok(Applied::InTheWay) };
            }
            return Err(match refusal {
                Some(refusal) if !repeatable => refusal.into(),
                _ => self.duplicate(&head, &ops)?.into(),
            });
        }
    }

    pub(super) fn open_mut(&mut self) -> Result<&mut Open> {
        self.open.as_mut().ok_or_else(|| Error::bug("a write outside of a transaction"))
    }

    /// Locks the keys that operations add. Whether they add any.
    async fn lock_keys(&mut self, ops: &[Op], keys: &Keys<'_>) -> Result<bool> {
        let view = self.open_mut()?.view()?.clone();
        let mut wants = Vec::new();
        for (table, rows) in ops.iter().filter_map(inserted) {
            let Some(version) = view.table(table) else { continue };
            for unique in version.def.uniques.iter().filter(|unique| (keys.adds)(unique)) {
                wants.push(Want::keys((table, unique.id), version.key_hashes(unique, rows)?));
            }
        }
        let keyed = !wants.is_empty();
        for want in wants {
            self.lock(want).await?;
        }
        Ok(keyed)
    }

    /// The rows of `head` that have a key of `ops` and are not removed by this transaction.
    fn key_holders(&self, head: &Snapshot, ops: &[Op]) -> Result<Vec<TableRows>> {
        let mut found = Vec::new();
        for (table, rows) in ops.iter().filter_map(inserted) {
            let Some(version) = head.table(table) else { continue };
            let removed = self.removed(table, ops);
            let mut holders = Vec::new();
            for unique in &version.def.uniques {
                holders.extend(version.rows_with_keys_of(unique, rows)?.into_iter().flatten());
            }
            holders.retain(|row| !removed.contains(row.0));
            holders.sort_unstable();
            holders.dedup();
            if !holders.is_empty() {
                found.push((table, holders));
            }
        }
        Ok(found)
    }

    /// Whether a row to be inserted meets one of `head` under a constraint of which ON CONFLICT speaks.
    fn gives_way(&self, head: &Snapshot, ops: &[Op], keys: &Keys<'_>) -> Result<bool> {
        for op in ops {
            let Op::Insert { table, first_row, rows } = op else { continue };
            let Some(version) = head.table(*table) else { continue };
            let removed = self.removed(*table, ops);
            for unique in version.def.uniques.iter().filter(|unique| (keys.gives_way)(unique)) {
                let found = version.rows_with_keys_of(unique, rows)?;
                let meets = |(new, held): (u64, &Option<RowId>)| {
                    held.is_some_and(|held| !removed.contains(held.0)) && !keys.updated.contains(new)
                };
                if (first_row.0..).zip(&found).any(meets) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// The rows of a table that this transaction deletes, with `ops`.
    fn removed(&self, table: TableId, ops: &[Op]) -> RoaringTreemap {
        let own = self.open.iter().flat_map(|open| &open.ops).chain(ops);
        let deleted = own.filter_map(|op| match op {
            Op::Delete { table: of, rows } if *of == table => Some(rows),
            _ => None,
        });
        deleted.flatten().map(|row| row.0).collect()
    }

    /// The violation of a key by this transaction's rows, as the head sees it. A key that is free there, and taken in
    /// an older snapshot only, is no violation: that row was deleted meanwhile.
    fn duplicate(&self, head: &Snapshot, ops: &[Op]) -> Result<StoreError> {
        let mut view = head.clone();
        for op in self.open.iter().flat_map(|open| &open.ops).chain(ops) {
            match view.apply(op) {
                Ok(next) => view = next,
                Err(refusal @ StoreError::UniqueViolation { .. }) => return Ok(refusal),
                Err(_) => return Err(serialization_failure("update")),
            }
        }
        Err(serialization_failure("delete"))
    }

    /// Waits for whoever is removing one of these rows, without the keys that `ops` are to bring: he may take one of
    /// them back, and must not wait for somebody who waits for him. Whether somebody was, or they are gone by now.
    async fn await_each_writer(&mut self, rows: Vec<TableRows>, ops: &[Op], keys: &Keys<'_>) -> Result<bool> {
        for (table, rows) in rows {
            let want = Want::Unwritten { table, rows: rows.iter().map(|row| row.0).collect() };
            let is_written = self.try_lock(want)?.is_some();
            if is_written {
                self.give_back_keys(ops, keys)?;
            }
            let waited = self.await_writers(table, &rows).await?;
            if is_written {
                self.lock_keys(ops, keys).await?;
            }
            if is_written || waited {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Gives back the keys that operations are to add, but for those that the transaction has added before.
    fn give_back_keys(&mut self, ops: &[Op], keys: &Keys<'_>) -> Result<()> {
        let open = self.open_mut()?;
        let view = open.view()?.clone();
        for (table, rows) in ops.iter().filter_map(inserted) {
            let Some(version) = view.table(table) else { continue };
            for unique in version.def.uniques.iter().filter(|unique| (keys.adds)(unique)) {
                let mut hashes = version.key_hashes(unique, rows)?;
                for (_, own) in open.ops.iter().filter_map(inserted).filter(|(of, _)| *of == table) {
                    // Rows that came before one of the columns did have brought no key.
                    let Ok(mut kept) = version.key_hashes(unique, own) else { continue };
                    kept.sort_unstable();
                    hashes.retain(|hash| kept.binary_search(hash).is_err());
                }
                open.locks.give_back(&Want::keys((table, unique.id), hashes));
            }
        }
        Ok(())
    }

    /// Makes COPY's rows part of the transaction. `last`: it is committed next, which judges them.
    ///
    /// Errors: those of [`Self::write`].
    pub(super) async fn take_copied(&mut self, ops: Vec<Op>, last: bool) -> Result<()> {
        let keys = Keys {
            adds: &|_: &UniqueDef| true,
            gives_way: &|_: &UniqueDef| false,
            updated: RoaringTreemap::new(),
        };
        let table = ops.first().map(Op::table);
        let concerned = match table {
            Some(table) => self.concerns_references(table, false)?,
            None => false,
        };
        if let (Some(table), true) = (table, concerned) {
            let Applied::Done(before) = self.take_ops(ops.clone(), &keys).await? else {
                return Err(Error::bug("rows of a COPY gave way to others"));
            };
            return self.enforce_references(Changed::of(table, &ops, before, Vec::new())).await;
        }
        if !last {
            return self.take_ops(ops, &keys).await.map(|_| ());
        }
        self.lock_keys(&ops, &keys).await?;
        // Looking keys up costs as much as the commit's own look: only if somebody may be removing one of the rows.
        let locks = &self.open_mut()?.locks;
        if ops.iter().any(|op| locks.others_write(op.table())) {
            loop {
                let rows = self.key_holders(&self.tenant.store.snapshot(), &ops)?;
                if !self.await_each_writer(rows, &ops, &keys).await? {
                    break;
                }
            }
        }
        let head = self.tenant.store.snapshot();
        let open = self.open_mut()?;
        open.refresh(head)?;
        open.extend_unseen(ops)
    }
}

fn inserted(op: &Op) -> Option<(TableId, &RecordBatch)> {
    match op {
        Op::Insert { table, rows, .. } => Some((*table, rows)),
        _ => None,
    }
}

pub(super) fn serialization_failure(what: &str) -> Error {
    let message = format!("could not serialize access due to concurrent {what}");
    Error::new(SqlState::SerializationFailure, message).with_hint("Retry the transaction.")
}
