//! A transaction's private view, moved onto a newer head.
//!
//! Called at every statement of an open transaction under READ COMMITTED. Applying all of the transaction's operations
//! again would make n statements cost n² of them; what it has made of a table is carried over instead:
//!
//! ```text
//! the head has the table as the base had it    the view's version is taken as it is
//! rows came or went meanwhile                  the head's chunks, less what the transaction deleted,
//!                                              and the transaction's own chunks after them
//! anything else                                the operations on the table are applied again
//! ```
//! Keys are not looked up again: the commit does that. Writes nothing.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use roaring::RoaringBitmap;
use sepal_types::{RowId, TableId};

use super::{Rules, Snapshot, State, TableVersion, apply::delete};
use crate::{Chunk, ChunkRef, Op, StoreError};

impl Snapshot {
    /// What `ops` make of this snapshot, when `view` is what they made of `base`.
    ///
    /// Errors: [`StoreError::WriteConflict`] and the others of a commit, where they no longer apply.
    pub fn rebase(&self, base: &Snapshot, view: &Snapshot, ops: &[Op]) -> Result<Snapshot, StoreError> {
        let touched: BTreeSet<TableId> = ops.iter().map(Op::table).collect();
        let (same, changed): (Vec<TableId>, Vec<TableId>) =
            touched.into_iter().partition(|table| match (self.table(*table), base.table(*table)) {
                (Some(now), Some(then)) => Arc::ptr_eq(now, then),
                (None, None) => true,
                _ => false,
            });
        let of_schemas = |op: &&Op| base.table(op.table()).is_some_and(|then| then.def.is_schema());
        ops.iter().filter(of_schemas).try_for_each(|op| self.check_base(base, op))?;
        let mut state = self.state().clone();
        adopt(&mut state, view, &same)?;
        for table in changed {
            let own = || ops.iter().filter(|op| op.table() == table);
            let rows_only =
                own().all(|op| matches!(op, Op::Insert { .. } | Op::Delete { .. } | Op::SetSequence { .. }));
            let carried = match (self.table(table), base.table(table), view.table(table)) {
                (Some(now), Some(then), Some(seen)) if rows_only => {
                    check(self, base, own())?;
                    carry(now, then, seen)?
                }
                _ => None,
            };
            if let Some(version) = carried {
                state.tables.insert(table, Arc::new(version));
                continue;
            }
            for op in own() {
                self.check_base(base, op)?;
                state.apply(op, Rules::PRIVATE)?;
            }
        }
        Ok(view.with(state))
    }
}

/// Takes tables, and their names, as the view has them. The names first, all of them: two tables may have exchanged
/// theirs.
fn adopt(state: &mut State, view: &Snapshot, tables: &[TableId]) -> Result<(), StoreError> {
    let redefined = |state: &State, table: &TableId| match (state.tables.get(table), view.table(*table)) {
        (Some(old), Some(new)) => !Arc::ptr_eq(&old.def, &new.def),
        (None, None) => false,
        _ => true,
    };
    let redefined: Vec<TableId> = tables.iter().copied().filter(|table| redefined(state, table)).collect();
    if !redefined.is_empty() {
        let names = Arc::make_mut(&mut state.names);
        for old in redefined.iter().filter_map(|table| state.tables.get(table)) {
            names.remove(&old.def);
        }
        for new in redefined.iter().filter_map(|table| view.table(*table)) {
            names.insert(&new.def)?;
        }
    }
    for table in tables {
        match view.table(*table) {
            Some(version) => state.tables.insert(*table, Arc::clone(version)),
            None => state.tables.remove(table),
        };
    }
    Ok(())
}

/// Asks once for each kind of operation whether it still means the same.
fn check<'a>(head: &Snapshot, base: &Snapshot, ops: impl Iterator<Item = &'a Op>) -> Result<(), StoreError> {
    let (mut inserts, mut deletes) = (false, false);
    for op in ops {
        let asked = match op {
            Op::Insert { .. } => &mut inserts,
            Op::Delete { .. } => &mut deletes,
            _ => continue,
        };
        if !std::mem::replace(asked, true) {
            head.check_base(base, op)?;
        }
    }
    Ok(())
}

/// The newer version with the transaction's rows: those it deleted less, those it inserted more. `None` when the view
/// does not tell the transaction's chunks from those it found.
fn carry(
    now: &TableVersion,
    then: &TableVersion,
    seen: &TableVersion,
) -> Result<Option<TableVersion>, StoreError> {
    let conflict = || StoreError::WriteConflict { table: now.def.name.clone() };
    let before: HashMap<*const Chunk, &ChunkRef> =
        then.chunks.iter().map(|reference| (Arc::as_ptr(&reference.chunk), reference)).collect();
    let places: HashMap<*const Chunk, usize> =
        now.chunks.iter().enumerate().map(|(at, reference)| (Arc::as_ptr(&reference.chunk), at)).collect();
    let mut next = now.clone();
    // Deleted rows of chunks that were merged meanwhile.
    let mut elsewhere: Vec<RowId> = Vec::new();
    let mut own: Vec<ChunkRef> = Vec::new();
    for reference in &seen.chunks {
        let chunk = Arc::as_ptr(&reference.chunk);
        let Some(old) = before.get(&chunk) else {
            own.push(reference.clone());
            continue;
        };
        if Arc::ptr_eq(&reference.deleted, &old.deleted) {
            continue;
        }
        let deleted: RoaringBitmap = &**reference.deleted - &**old.deleted;
        match places.get(&chunk) {
            Some(at) => {
                let held = &mut next.chunks[*at];
                if !held.deleted.is_disjoint(&deleted) {
                    return Err(conflict());
                }
                held.deleted = Arc::new((&**held.deleted | &deleted).into());
            }
            None => {
                for position in &deleted {
                    elsewhere.push(reference.chunk.row_at(position)?);
                }
            }
        }
    }
    if own.len() + then.chunks.len() != seen.chunks.len() {
        return Ok(None);
    }
    elsewhere.sort_unstable();
    delete(&mut next, &elsewhere)?;
    next.chunks.extend(own);
    Ok(Some(next))
}
