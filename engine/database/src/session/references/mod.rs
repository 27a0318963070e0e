//! Foreign keys: what a statement wrote is held against them once its operations are in the transaction's view.
//!
//! 1. Rows that came, or got another key, must have a row to refer to. It is looked up by its unique key and locked FOR
//!    KEY SHARE: whoever removes it, or gives it another key, waits for the end of this transaction (`lookup`).
//! 2. Keys that went must not be referred to any more. Who locked their rows to remove them has waited for everybody
//!    who refers to them, so the newest head has all rows that refer. They follow, with CASCADE and its kin, which is a
//!    write of its own and held against foreign keys in turn (`actions`), or the statement is refused.
//! 3. What a constraint defers is kept for the commit (`deferred`).
//!
//! Called by `write` for statements and COPY, by `define` for new constraints (`verify`). Whatever snapshot a
//! REPEATABLE READ transaction sees, definitions and rows that refer are those of the newest head, as in Postgres
//! (`ri_triggers.c`); rows referred to are those that it sees.

mod actions;
mod deferred;
mod lookup;
mod verify;

use std::collections::VecDeque;

use arrow::{
    array::{Array, ArrayRef, BooleanArray},
    compute::concat,
    record_batch::RecordBatch,
};
use sepal_query::dml::references::{
    at_places, equal_rows, inserted_columns, picked, stored_columns, wholeness,
};
use sepal_storage::{Op, Snapshot, TableVersion};
use sepal_types::{ColumnId, Error, ForeignKeyDef, ReferenceAction, Result, RowId, TableId};

use super::Session;

pub(super) use deferred::{ConstraintModes, Deferred};

/// What was done to the rows of one table.
pub(super) struct Changed {
    pub table: TableId,
    /// Where the rows that went are still.
    pub before: Snapshot,
    /// Ascending.
    pub gone: Vec<RowId>,
    pub inserted: Vec<(RowId, RecordBatch)>,
    /// Rows that went, and what took their places.
    pub replaced: Vec<(RowId, RowId)>,
}

impl Changed {
    /// What operations on the rows of one table do.
    pub fn of(table: TableId, ops: &[Op], before: Snapshot, replaced: Vec<(RowId, RowId)>) -> Self {
        let mut changed = Self { table, before, gone: Vec::new(), inserted: Vec::new(), replaced };
        for op in ops.iter().filter(|op| op.table() == table) {
            match op {
                Op::Delete { rows, .. } => changed.gone.extend(rows),
                Op::Insert { first_row, rows, .. } => changed.inserted.push((*first_row, rows.clone())),
                _ => {}
            }
        }
        changed.gone.sort_unstable();
        changed.replaced.sort_unstable();
        changed
    }
}

/// A foreign key of a table.
#[derive(Clone, Debug)]
pub(super) struct Reference {
    /// The table that refers.
    pub child: TableId,
    pub key: ForeignKeyDef,
}

/// Rows that refer, ascending, and their keys: no NULL among them.
#[derive(Clone, Debug)]
pub(super) struct Referring {
    pub rows: Vec<RowId>,
    pub keys: Vec<ArrayRef>,
    /// Rows with a key of which only a part is NULL, ascending, where MATCH FULL does not allow that.
    pub mixed: Vec<RowId>,
}

/// Keys that went, of the referenced columns, and for an update what they are now.
#[derive(Clone, Debug)]
pub(super) struct Lost {
    pub old: Vec<ArrayRef>,
    pub new: Option<Vec<ArrayRef>>,
}

/// What is to be held against one foreign key.
enum Task {
    Refer(Reference, Referring),
    Lose(Reference, Lost),
}

impl Session {
    /// Whether foreign keys want to know what a statement does to a table: `keys` says whether it may take keys away.
    pub(super) fn concerns_references(&mut self, table: TableId, keys: bool) -> Result<bool> {
        let concerns = |snapshot: &Snapshot| {
            let own = snapshot.table(table);
            own.is_some_and(|version| !version.def.constraints.foreign_keys.is_empty())
                || (keys && snapshot.tables().any(|version| refers_to(version, table)))
        };
        if concerns(&self.tenant.store.snapshot()) {
            return Ok(true);
        }
        let open = self.open_mut()?;
        Ok(open.edition() != 0 && concerns(open.view()?))
    }

    /// The newest head with what the transaction did.
    ///
    /// Errors: 40001 where that no longer goes together.
    pub(super) fn latest(&mut self) -> Result<Snapshot> {
        let head = self.tenant.store.snapshot();
        let open = self.open_mut()?;
        if !open.stays() {
            open.refresh(head)?;
            return Ok(open.view()?.clone());
        }
        let view = open.view()?.clone();
        if head.lsn() == open.base.lsn() {
            return Ok(view);
        }
        Ok(head.rebase(&open.base, &view, &open.ops)?)
    }

    /// Holds what was done to a table, which is in the transaction's view, against all foreign keys.
    ///
    /// Errors: 23503, and those of what actions write.
    pub(super) async fn enforce_references(&mut self, changed: Changed) -> Result<()> {
        // What an action did is asked about after all that was there to be asked before, as Postgres queues triggers: a
        // row that another action is yet to remove refers to nothing then.
        let mut tasks = self.reference_tasks(&changed)?;
        while let Some(task) = tasks.pop_front() {
            match task {
                Task::Refer(reference, referring) if self.defers(&reference.key)? => {
                    self.open_mut()?.deferred.push(Deferred::refer(&reference, referring));
                }
                Task::Refer(reference, referring) => self.look_up_live(&reference, referring).await?,
                Task::Lose(reference, lost) => {
                    let action = match lost.new {
                        Some(_) => reference.key.on_update,
                        None => reference.key.on_delete,
                    };
                    match action {
                        ReferenceAction::NoAction if self.defers(&reference.key)? => {
                            self.open_mut()?.deferred.push(Deferred::lose(&reference, lost));
                        }
                        ReferenceAction::NoAction => self.refuse_lost(&reference, &lost, false).await?,
                        ReferenceAction::Restrict => self.refuse_lost(&reference, &lost, true).await?,
                        ReferenceAction::Cascade | ReferenceAction::SetNull => {
                            if let Some(changed) = self.act(&reference, &lost, action).await? {
                                tasks.extend(self.reference_tasks(&changed)?);
                            }
                        }
                        ReferenceAction::SetDefault => {
                            let changed = self.act(&reference, &lost, action).await?;
                            // The default may be the very key that went.
                            self.refuse_lost(&reference, &lost, false).await?;
                            if let Some(changed) = changed {
                                tasks.extend(self.reference_tasks(&changed)?);
                            }
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn defers(&mut self, key: &ForeignKeyDef) -> Result<bool> {
        Ok(self.open_mut()?.constraint_modes.defer(key))
    }

    /// What a change is to be held against, in the order in which that is done: first the keys that went, then the rows
    /// that refer, each by the age of their constraints.
    fn reference_tasks(&mut self, changed: &Changed) -> Result<VecDeque<Task>> {
        let latest = self.latest()?;
        let mut lost = Vec::new();
        if !changed.gone.is_empty() {
            for version in latest.tables().filter(|version| refers_to(version, changed.table)) {
                let keys = version.def.constraints.foreign_keys.iter();
                for key in keys.filter(|key| key.parent == changed.table) {
                    let reference = Reference { child: version.def.id, key: key.clone() };
                    let keys = lost_keys(changed, key)?.into_iter();
                    lost.extend(keys.map(|keys| (key.id, Task::Lose(reference.clone(), keys))));
                }
            }
        }
        lost.sort_by_key(|(id, _)| *id);
        let mut tasks: VecDeque<Task> = lost.into_iter().map(|(_, task)| task).collect();
        if let Some(version) = latest.table(changed.table).filter(|_| !changed.inserted.is_empty()) {
            let mut keys: Vec<&ForeignKeyDef> = version.def.constraints.foreign_keys.iter().collect();
            keys.sort_by_key(|key| key.id);
            for key in keys {
                let reference = Reference { child: changed.table, key: key.clone() };
                let referring = self.referring(changed, key)?;
                tasks.extend(referring.map(|referring| Task::Refer(reference, referring)));
            }
        }
        Ok(tasks)
    }

    /// The rows that came with a key, or with another one than the rows had whose places they took.
    fn referring(&mut self, changed: &Changed, key: &ForeignKeyDef) -> Result<Option<Referring>> {
        let kept = self.kept_keys(changed, key)?;
        let (mut rows, mut mixed) = (Vec::new(), Vec::new());
        let mut parts: Vec<Vec<ArrayRef>> = vec![Vec::new(); key.columns.len()];
        for (first, batch) in &changed.inserted {
            let keys = inserted_columns(batch, &key.columns)?;
            let (whole, none) = wholeness(&keys, batch.num_rows());
            let ids = (first.0..).take(batch.num_rows()).map(RowId);
            if key.full {
                let kinds = whole.values().iter().zip(none.values());
                mixed.extend(
                    ids.clone().zip(kinds).filter(|(_, (whole, none))| !whole && !none).map(|(row, _)| row),
                );
            }
            let asked: Vec<bool> = ids
                .clone()
                .zip(whole.values())
                .map(|(row, whole)| whole && kept.binary_search(&row).is_err())
                .collect();
            rows.extend(ids.zip(&asked).filter(|(_, asked)| **asked).map(|(row, _)| row));
            let asked = BooleanArray::from(asked);
            for (part, array) in parts.iter_mut().zip(picked(&keys, &asked)?) {
                part.push(array);
            }
        }
        if rows.is_empty() && mixed.is_empty() {
            return Ok(None);
        }
        let keys = parts.iter().map(|part| joined(part)).collect::<Result<Vec<_>>>()?;
        Ok(Some(Referring { rows, keys, mixed }))
    }

    /// New versions of rows whose key is as it was, ascending: nothing is asked of them. But a row that is this
    /// transaction's own may not have been asked either, if the constraint is deferred.
    fn kept_keys(&mut self, changed: &Changed, key: &ForeignKeyDef) -> Result<Vec<RowId>> {
        if changed.replaced.is_empty() {
            return Ok(Vec::new());
        }
        let old: Vec<RowId> = changed.replaced.iter().map(|(old, _)| *old).collect();
        let own = match self.open_mut()?.base.table(changed.table) {
            Some(base) => base.absent(&old)?,
            None => old,
        };
        let pairs: Vec<(RowId, RowId)> =
            changed.replaced.iter().copied().filter(|(old, _)| own.binary_search(old).is_err()).collect();
        let same = equal_keys(changed, &pairs, &key.columns)?;
        let mut kept: Vec<RowId> =
            pairs.iter().zip(same).filter(|(_, same)| *same).map(|((_, new), _)| *new).collect();
        kept.sort_unstable();
        Ok(kept)
    }
}

fn refers_to(version: &TableVersion, parent: TableId) -> bool {
    version.def.constraints.foreign_keys.iter().any(|key| key.parent == parent)
}

/// Keys that nothing has now among the changed rows: of those that were removed, and of those that got others.
fn lost_keys(changed: &Changed, key: &ForeignKeyDef) -> Result<Vec<Lost>> {
    let is_replaced = |row: &RowId| changed.replaced.binary_search_by_key(row, |(old, _)| *old).is_ok();
    let removed: Vec<RowId> = changed.gone.iter().copied().filter(|row| !is_replaced(row)).collect();
    let mut lost = Vec::new();
    if !removed.is_empty() {
        let old = stored_columns(before(changed)?, &removed, &key.parent_columns)?;
        let (whole, _) = wholeness(&old, removed.len());
        if whole.true_count() > 0 {
            lost.push(Lost { old: picked(&old, &whole)?, new: None });
        }
    }
    if !changed.replaced.is_empty() {
        let (old_rows, new_rows): (Vec<RowId>, Vec<RowId>) = changed.replaced.iter().copied().unzip();
        let old = stored_columns(before(changed)?, &old_rows, &key.parent_columns)?;
        let new = new_keys(changed, &new_rows, &key.parent_columns)?;
        let (whole, _) = wholeness(&old, old_rows.len());
        let same = equal_rows(&old, &new)?;
        let other: Vec<bool> = whole.values().iter().zip(same).map(|(whole, same)| whole && !same).collect();
        let other = BooleanArray::from(other);
        let (old, new) = (picked(&old, &other)?, picked(&new, &other)?);
        if old.first().is_some_and(|array| !array.is_empty()) {
            lost.push(Lost { old, new: Some(new) });
        }
    }
    Ok(lost)
}

/// Whether rows and what took their places have the same values.
fn equal_keys(changed: &Changed, pairs: &[(RowId, RowId)], columns: &[ColumnId]) -> Result<Vec<bool>> {
    if pairs.is_empty() {
        return Ok(Vec::new());
    }
    let (old_rows, new_rows): (Vec<RowId>, Vec<RowId>) = pairs.iter().copied().unzip();
    let old = stored_columns(before(changed)?, &old_rows, columns)?;
    equal_rows(&old, &new_keys(changed, &new_rows, columns)?)
}

fn before(changed: &Changed) -> Result<&TableVersion> {
    match changed.before.table(changed.table) {
        Some(version) => Ok(version),
        None => Err(Error::bug("rows were written to a table that was not there")),
    }
}

/// Columns of rows that came, in the order of `rows`.
fn new_keys(changed: &Changed, rows: &[RowId], columns: &[ColumnId]) -> Result<Vec<ArrayRef>> {
    let mut parts: Vec<Vec<ArrayRef>> = vec![Vec::new(); columns.len()];
    let mut starts = Vec::with_capacity(changed.inserted.len());
    let mut total = 0;
    for (first, batch) in &changed.inserted {
        starts.push((first.0, batch.num_rows() as u64, total));
        total += batch.num_rows();
        for (part, array) in parts.iter_mut().zip(inserted_columns(batch, columns)?) {
            part.push(array);
        }
    }
    let place = |row: &RowId| {
        let found = starts.iter().find(|(first, count, _)| (*first..first + count).contains(&row.0));
        let (first, _, start) = found.ok_or_else(|| Error::bug("a row's new version was not inserted"))?;
        Ok(start + usize::try_from(row.0 - first).unwrap_or(usize::MAX))
    };
    let places = rows.iter().map(place).collect::<Result<Vec<usize>>>()?;
    let whole = parts.iter().map(|part| joined(part)).collect::<Result<Vec<_>>>()?;
    at_places(&whole, &places)
}

fn joined(parts: &[ArrayRef]) -> Result<ArrayRef> {
    if let [one] = parts {
        return Ok(ArrayRef::clone(one));
    }
    let parts: Vec<&dyn Array> = parts.iter().map(|part| part.as_ref()).collect();
    concat(&parts).map_err(sepal_query::arrow_error)
}
