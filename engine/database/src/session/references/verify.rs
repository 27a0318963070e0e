//! CHECK and FOREIGN KEY constraints that are new, or are validated: what they are asked of the rows that are there,
//! and what is locked while they come.
//!
//! Called by `define`. The table is its transaction's own by then, and nobody writes to a table that is referred to, so
//! what the newest head has is all there is.

use std::sync::Arc;

use arrow::array::{Array, BooleanArray};
use sepal_query::{
    StatementContext,
    dml::{
        Checks, DmlContext, parse_query,
        references::{missing, mixed, picked, wholeness},
    },
    planner::TemporaryTables,
    sql::{ParameterTypes, prepare_query},
};
use sepal_storage::{Op, Snapshot, TableVersion};
use sepal_types::{CheckDef, Error, Result, SqlState, TableDef, TableId};

use super::{
    Reference,
    lookup::{keys_found, version},
};
use crate::{
    blocking::blocking,
    locks::TableMode,
    session::{Session, write::serialization_failure},
};

impl Session {
    /// Nobody changes rows of the tables that new foreign keys refer to until the transaction ends.
    ///
    /// Errors: 40001 where a REPEATABLE READ transaction still sees a key that is gone.
    pub(in crate::session) async fn lock_parents(
        &mut self,
        new: &TableDef,
        old: Option<&TableDef>,
    ) -> Result<()> {
        let known: Vec<TableId> =
            old.iter().flat_map(|old| &old.constraints.foreign_keys).map(|key| key.id).collect();
        for key in new.constraints.foreign_keys.iter().filter(|key| !known.contains(&key.id)) {
            if key.parent == new.id {
                continue;
            }
            self.lock_table(key.parent, TableMode::ShareRowExclusive).await?;
            let latest = self.latest()?;
            let parent = latest.table(key.parent);
            let mut uniques = parent.into_iter().flat_map(|version| &version.def.uniques);
            let is_there = uniques.any(|unique| unique.id == key.key);
            if self.open_mut()?.repeatable && !is_there {
                return Err(serialization_failure("update"));
            }
        }
        Ok(())
    }

    /// A REPEATABLE READ transaction may not know of foreign keys that refer to a table that it changes.
    ///
    /// Errors: 40001.
    pub(in crate::session) fn check_known_references(&self, head: &Snapshot, ops: &[Op]) -> Result<()> {
        let Some(open) = self.open.as_ref().filter(|open| open.repeatable) else { return Ok(()) };
        let known = |child: TableId, key: TableId| {
            let base = open.base.table(child);
            base.is_some_and(|version| {
                version.def.constraints.foreign_keys.iter().any(|known| known.id == key)
            })
        };
        let changed = |table: TableId| ops.iter().any(|op| op.table() == table);
        for version in head.tables() {
            let keys = version.def.constraints.foreign_keys.iter();
            let mut unknown = keys.filter(|key| !known(version.def.id, key.id));
            if unknown.any(|key| changed(key.parent)) {
                return Err(serialization_failure("update"));
            }
        }
        Ok(())
    }

    /// Asks a constraint, which the transaction's view has, of the rows that are there.
    ///
    /// Errors: 23503, 23514; the planner's for an expression that cannot be evaluated.
    pub(in crate::session) async fn hold_constraint(&mut self, table: TableId, id: TableId) -> Result<()> {
        let context = self.statement_context()?;
        let latest = self.latest()?;
        self.shown.show(&context.snapshot, latest.clone());
        let child = version(&latest, table)?;
        if let Some(check) = child.def.constraints.checks.iter().find(|check| check.id == id) {
            let (tenant, engine) = (Arc::clone(&self.tenant), Arc::clone(&self.engine));
            let dml = DmlContext { engine: &engine, statement: &context, store: &tenant.store };
            Checks::of(&child.def, &[check], &dml)?;
            Checks::check_settled(&child.def, check, &dml)?;
            if !check.not_valid && child.live_rows() > 0 {
                self.hold_check(&child.def, check, &context).await?;
            }
            return Ok(());
        }
        let keys = &child.def.constraints.foreign_keys;
        let Some(key) = keys.iter().find(|key| key.id == id && !key.not_valid) else { return Ok(()) };
        let reference = Reference { child: table, key: key.clone() };
        let look = move || {
            let (child, parent) = (version(&latest, table)?, version(&latest, reference.key.parent)?);
            hold_foreign_key(child, parent, &reference)
        };
        self.cancel.guard(blocking("a foreign key", look)).await
    }

    async fn hold_check(
        &mut self,
        def: &TableDef,
        check: &CheckDef,
        context: &StatementContext,
    ) -> Result<()> {
        let quoted = |name: &str| name.replace('"', "\"\"");
        let sql = format!(
            "SELECT 1 FROM \"{}\".\"{}\" WHERE NOT ({}) LIMIT 1",
            quoted(&def.schema),
            quoted(&def.name),
            check.expression
        );
        let mut query = parse_query(&sql)?;
        let mut parameters = ParameterTypes::default();
        let columns = context.column_types(&query);
        prepare_query(&mut query, &mut parameters, &[], &columns);
        let plan = self.engine.plan(context, &TemporaryTables::default(), &query, &mut parameters)?;
        let found = self.cancel.guard(self.engine.collect(&plan, Vec::new())).await?;
        if found.iter().all(|batch| batch.num_rows() == 0) {
            return Ok(());
        }
        let message = format!(
            "check constraint \"{}\" of relation \"{}\" is violated by some row",
            check.name, def.name
        );
        Err(Error::new(SqlState::CheckViolation, message).with_constraint(
            &def.schema,
            &def.name,
            &check.name,
        ))
    }
}

/// Chunk by chunk.
fn hold_foreign_key(child: &TableVersion, parent: &TableVersion, reference: &Reference) -> Result<()> {
    let key = &reference.key;
    let columns: Vec<_> = key.columns.iter().filter_map(|id| child.def.column_by_id(*id)).collect();
    for chunk in child.chunks.iter().filter(|chunk| chunk.live_rows() > 0) {
        let arrays = columns.iter().map(|column| chunk.chunk.column(column));
        let arrays = arrays.collect::<std::result::Result<Vec<_>, _>>()?;
        let live: Vec<bool> = (0..chunk.chunk.rows()).map(|row| !chunk.deleted.contains(row)).collect();
        let arrays = picked(&arrays, &BooleanArray::from(live))?;
        let rows = arrays.first().map_or(0, |array| array.len());
        let (whole, none) = wholeness(&arrays, rows);
        if key.full && (0..rows).any(|row| !whole.value(row) && !none.value(row)) {
            return Err(mixed(&child.def, key));
        }
        let keys = picked(&arrays, &whole)?;
        let found = keys_found(parent, reference, &keys)?;
        if let Some(row) = found.iter().position(Option::is_none) {
            return Err(missing(&child.def, key, &parent.def, &keys, row));
        }
    }
    Ok(())
}
