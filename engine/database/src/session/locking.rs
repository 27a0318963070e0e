//! A statement's locks: asking, waiting, and what of its rows has changed meanwhile.
//!
//! Used by `write` for what a statement replaces, by `select_for` for what a query locks, by `define` for tables. The
//! lock table itself is `crate::locks`; here are the settings, the cancelling, and the isolation level.

use std::{ops::ControlFlow, sync::Arc, time::Duration};

use arrow::array::{Array, ArrayRef};
use roaring::RoaringTreemap;
use sepal_query::{
    ddl::relation_name,
    locking::{LockedRelation, RowMode, WaitPolicy},
    planner::undefined_table,
    sql::{Statement, ast},
};
use sepal_storage::{StoreError, TableVersion};
use sepal_types::{Error, RelationName, Result, RowId, SqlState, TableId};

use super::{Session, prepare::read_only_key, prepared::PlanKind, seen::Moved, write::serialization_failure};
use crate::locks::{Asked, TableMode, Waiting, Want};

/// How rows are claimed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    pub table: TableId,
    pub mode: RowMode,
    /// To replace or remove them.
    pub write: bool,
    pub wait: WaitPolicy,
}

/// What became of rows that were to be locked.
#[derive(Debug)]
pub(super) enum Claimed {
    /// They are locked and are as the statement saw them.
    Current,
    /// Some were replaced or removed meanwhile.
    Moved(Moved),
    /// Somebody else has these, and they are not to be waited for.
    Taken(RoaringTreemap),
}

impl Session {
    /// Takes a lock for the transaction, waiting if need be. Whether it had to.
    ///
    /// Errors: 40P01, 55P03 after `lock_timeout`, 57014 once cancelled.
    pub(super) async fn lock(&mut self, want: Want) -> Result<bool> {
        let Some(open) = &self.open else { return Err(Error::bug("a lock outside of a transaction")) };
        match open.locks.ask(want, true)? {
            Asked::Granted => Ok(false),
            Asked::Waits(waiting) => self.wait_for(waiting).await.map(|()| true),
            Asked::Refused(_) => Err(Error::bug("a lock that was to be waited for was refused")),
        }
    }

    /// Takes a lock if that needs no waiting; else the part of it that is somebody else's.
    pub(super) fn try_lock(&self, want: Want) -> Result<Option<Want>> {
        let Some(open) = &self.open else { return Err(Error::bug("a lock outside of a transaction")) };
        match open.locks.ask(want, false)? {
            Asked::Refused(part) => Ok(Some(part)),
            Asked::Granted | Asked::Waits(_) => Ok(None),
        }
    }

    pub(super) async fn wait_for(&mut self, waiting: Waiting) -> Result<()> {
        let (limit, patrol) = {
            let settings = self.settings.lock();
            (settings.timeout("lock_timeout"), settings.timeout("deadlock_timeout"))
        };
        let patrol = patrol.unwrap_or(Duration::from_secs(1));
        let _asleep = self.watches.sleep(|| self.tenant.store.row_ends());
        let granted = waiting.granted(patrol);
        let cancel = self.cancel.clone();
        let Some(limit) = limit else { return cancel.guard(granted).await };
        let timed = async {
            tokio::time::timeout(limit, granted).await.unwrap_or_else(|_| {
                Err(Error::new(SqlState::LockNotAvailable, "canceling statement due to lock timeout"))
            })
        };
        cancel.guard(timed).await
    }

    pub(super) async fn lock_table(&mut self, table: TableId, mode: TableMode) -> Result<bool> {
        self.lock(Want::Table { table, mode }).await
    }

    /// LOCK TABLE. The command tag.
    pub(super) async fn lock_tables(
        &mut self,
        names: &[RelationName],
        mode: TableMode,
        nowait: bool,
    ) -> Result<String> {
        self.in_block("LOCK TABLE")?;
        if !self.principal.scopes.write && mode != TableMode::AccessShare {
            return Err(read_only_key());
        }
        for name in names {
            let mut locked = None;
            loop {
                // The snapshot of a REPEATABLE READ transaction is not taken by this.
                let view = self.current_view()?;
                let Some(version) = view.find(&self.environment, name) else {
                    return Err(undefined_table(&name.to_string()));
                };
                let table = version.def.id;
                if locked == Some(table) {
                    break;
                }
                locked = Some(table);
                if !nowait {
                    self.lock_table(table, mode).await?;
                } else if self.try_lock(Want::Table { table, mode })?.is_some() {
                    let message = format!("could not obtain lock on relation \"{}\"", name.name);
                    return Err(Error::new(SqlState::LockNotAvailable, message));
                }
            }
        }
        Ok("LOCK TABLE".to_owned())
    }

    /// A plan's tables are locked before it takes its snapshot. Whoever altered one of them is done then: the caller
    /// plans anew if definitions changed.
    ///
    /// A statement by itself has its snapshot to the end, whatever becomes of a table that it only reads. It waits for
    /// whoever has or wants the table to himself, and while nobody does it asks for nothing.
    pub(super) async fn lock_plan(&mut self, locks: &[(TableId, TableMode)]) -> Result<()> {
        if self.moments.whole().is_some() {
            return Ok(());
        }
        let block = self.open.as_ref().is_some_and(|open| open.explicit);
        for (table, mode) in locks {
            if *mode == TableMode::AccessShare && !block && !self.tenant.locks.has_exclusive() {
                continue;
            }
            self.lock_table(*table, *mode).await?;
        }
        Ok(())
    }

    /// A statement could not be planned for want of a table or column. Waits for whoever has one of its tables to
    /// himself: he may be bringing just that.
    pub(super) async fn await_definitions(&mut self, statement: &Statement, error: &Error) -> Result<()> {
        let wanting = matches!(error.state(), SqlState::UndefinedColumn | SqlState::UndefinedTable);
        let Some(parsed) = statement.kind.ast() else { return Ok(()) };
        if !wanting || self.moments.whole().is_some() || !self.tenant.locks.has_exclusive() {
            return Ok(());
        }
        let view = self.current_view()?;
        let mut tables = Vec::new();
        let _ = ast::visit_relations(parsed, |name| {
            let found = relation_name(name).ok().and_then(|name| view.find(&self.environment, &name));
            tables.extend(found.map(|version| version.def.id));
            ControlFlow::<()>::Continue(())
        });
        for table in tables {
            self.lock_table(table, TableMode::AccessShare).await?;
        }
        Ok(())
    }

    /// Locks rows that the statement found in its snapshot.
    ///
    /// Errors: 40001 under REPEATABLE READ when one of them was changed since, 55P03 for NOWAIT.
    pub(super) async fn claim(&mut self, claim: Claim, rows: RoaringTreemap) -> Result<Claimed> {
        let mut moved = Moved { still: rows.clone(), ..Moved::default() };
        let mut next = rows;
        loop {
            let asked: Vec<RowId> = next.iter().map(RowId).collect();
            if let Some(taken) = self.lock_rows(claim, next).await? {
                return Ok(Claimed::Taken(taken));
            }
            let gone = self.gone(claim.table, &asked)?;
            if gone.is_empty() {
                return Ok(if moved.gone.is_empty() { Claimed::Current } else { Claimed::Moved(moved) });
            }
            next = RoaringTreemap::new();
            for row in gone {
                moved.still.remove(row.0);
                moved.newer.remove(row.0);
                moved.gone.insert(row.0);
                if let Some(newest) = self.successor(claim, row).await? {
                    next.insert(newest.0);
                }
            }
            moved.still |= &next;
            moved.newer |= &next;
        }
    }

    /// The row that stands in the place of one that is gone; `None` when nothing took its place.
    ///
    /// Who only relies on a row's key does not wait for whoever replaces the row, and may find it gone a moment before
    /// it is told what took its place: that is noted after the commit is seen, and before the row is given back.
    async fn successor(&mut self, claim: Claim, row: RowId) -> Result<Option<RowId>> {
        let newest = self.tenant.updates.newest(claim.table, row);
        if newest.is_some() || claim.mode != RowMode::KeyShare {
            return Ok(newest);
        }
        self.lock(Want::Unwritten { table: claim.table, rows: [row.0].into() }).await?;
        Ok(self.tenant.updates.newest(claim.table, row))
    }

    /// The part of the rows that somebody else has, if there is one and it is to be passed over.
    async fn lock_rows(&mut self, claim: Claim, rows: RoaringTreemap) -> Result<Option<RoaringTreemap>> {
        let rows = match &self.open {
            Some(open) if claim.write && claim.mode == RowMode::Update => {
                open.replaced.with_origins(claim.table, rows)
            }
            _ => rows,
        };
        let want = Want::Rows { table: claim.table, mode: claim.mode, rows, write: claim.write };
        if claim.wait == WaitPolicy::Wait {
            self.lock(want).await?;
            return Ok(None);
        }
        let Some(Want::Rows { rows: taken, .. }) = self.try_lock(want)? else { return Ok(None) };
        if claim.wait == WaitPolicy::Skip {
            return Ok(Some(taken));
        }
        let name = self.tenant.store.snapshot().table(claim.table).map(|version| version.def.name.clone());
        let message = format!("could not obtain lock on row in relation \"{}\"", name.unwrap_or_default());
        Err(Error::new(SqlState::LockNotAvailable, message))
    }

    /// Those of the locked rows, ascending, that others have replaced or removed since the transaction's base. Nobody
    /// can any more, so the newest head is asked once.
    fn gone(&mut self, table: TableId, rows: &[RowId]) -> Result<Vec<RowId>> {
        let head = self.tenant.store.snapshot();
        let Some(open) = &mut self.open else { return Ok(Vec::new()) };
        let view = open.view()?.clone();
        // A table of the transaction's own is in neither.
        let Some(base) = open.base.table(table) else { return Ok(Vec::new()) };
        let Some(now) = head.table(table) else { return Ok(Vec::new()) };
        if Arc::ptr_eq(base, now) {
            return Ok(Vec::new());
        }
        let absent = now.absent(rows)?;
        // What the view has and the base has not is the transaction's own.
        let ids = |rows: Vec<RowId>| rows.into_iter().map(|row| row.0).collect::<RoaringTreemap>();
        let mut own = ids(base.absent(&absent)?);
        if let Some(view) = view.table(table) {
            own -= ids(view.absent(&absent)?);
        }
        let gone: Vec<RowId> = absent.into_iter().filter(|row| !own.contains(row.0)).collect();
        match gone.first() {
            Some(first) if open.repeatable => Err(changed_meanwhile(base, now, *first)),
            _ => Ok(gone),
        }
    }

    /// Waits until nobody is replacing or removing these rows. Whether somebody was, or they are gone by now.
    pub(super) async fn await_writers(&mut self, table: TableId, rows: &[RowId]) -> Result<bool> {
        if rows.is_empty() {
            return Ok(false);
        }
        let want = Want::Unwritten { table, rows: rows.iter().map(|row| row.0).collect() };
        if self.lock(want).await? {
            return Ok(true);
        }
        // One who was may have committed a moment before he was asked about.
        let head = self.tenant.store.snapshot();
        Ok(match head.table(table) {
            Some(version) => !version.absent(rows)?.is_empty(),
            None => true,
        })
    }
}

/// What a statement locks before it runs, each table once. Catalogs are not locked, nor is the past.
pub(super) fn plan_locks(kind: &PlanKind) -> Vec<(TableId, TableMode)> {
    let context = match kind {
        PlanKind::Dml { context, .. } | PlanKind::ExplainWrite { context, .. } => context,
        PlanKind::Query(query) | PlanKind::CopyOut { query, .. } | PlanKind::Explain { query, .. } => {
            &query.context
        }
        PlanKind::CreateAs { source, .. } | PlanKind::Declare { source, .. } => return plan_locks(source),
        PlanKind::ExplainExecute { explain, .. } => return plan_locks(explain),
        _ => return Vec::new(),
    };
    let shared = |relation: &LockedRelation| (relation.table, TableMode::RowShare);
    let nested = context.nested.iter().flat_map(|nested| nested.query.relations());
    let mut locks: Vec<(TableId, TableMode)> = nested.map(shared).collect();
    match kind {
        PlanKind::Dml { dml, .. } | PlanKind::ExplainWrite { dml, analyze: true, .. } => {
            locks.push((dml.target(), TableMode::RowExclusive));
        }
        PlanKind::Query(query) | PlanKind::CopyOut { query, .. } | PlanKind::Explain { query, .. } => {
            locks.extend(query.locking.iter().flat_map(|locking| locking.relations()).map(shared));
        }
        _ => {}
    }
    for table in context.reads.ids() {
        if !locks.iter().any(|(locked, _)| *locked == table) {
            locks.push((table, TableMode::AccessShare));
        }
    }
    locks
}

/// 40001. Whether a row was updated or deleted its primary key tells; without one it counts as updated.
fn changed_meanwhile(base: &TableVersion, now: &TableVersion, row: RowId) -> Error {
    let survives = survives(base, now, row).unwrap_or(true);
    serialization_failure(if survives { "update" } else { "delete" })
}

fn survives(base: &TableVersion, now: &TableVersion, row: RowId) -> Result<bool, StoreError> {
    let Some(key) = base.def.uniques.iter().find(|unique| unique.primary) else { return Ok(true) };
    let Some((chunk, position)) = base.locate(row)? else { return Ok(true) };
    let mut arrays: Vec<ArrayRef> = Vec::new();
    for column in key.columns.iter().filter_map(|id| base.def.column_by_id(*id)) {
        arrays.push(base.chunks[chunk].chunk.column(column)?.slice(position as usize, 1));
    }
    Ok(now.lookup_unique(key, &arrays)?.iter().any(Option::is_some))
}

#[cfg(test)]
mod tests;
