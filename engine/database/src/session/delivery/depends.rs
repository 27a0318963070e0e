//! What DDL may not do to a table whose changes a pipeline reads, and what it does there in another way.
//!
//! Called by `define` between planning a definition and applying it; costs nothing for tables without a pipeline.

use std::sync::Arc;

use sepal_query::{
    CatalogSlot, SnapshotSlot, StatementContext,
    change::ChangeQuery,
    ddl::Ddl,
    dml::parse_query,
    sql::{Statement, StatementKind, ast},
};
use sepal_storage::{Op, Snapshot, TableVersion};
use sepal_types::{Error, Result, RowId, SearchPath, SqlState, TableDef, TableId};

use super::{Session, drop::Going};
use crate::delivery::objects::{Objects, PipelineDef};

impl Session {
    /// Makes TRUNCATE of a captured table a deletion of its rows, which the log then carries; refuses to take away
    /// what a pipeline reads; drops a dropped table's pipelines with it if CASCADE says so.
    ///
    /// Errors: 2BP01 with the pipelines' names.
    pub(in crate::session) async fn guard_captured(
        &mut self,
        ddl: &mut Ddl,
        statement: &Statement,
    ) -> Result<()> {
        let view = self.current_view()?;
        let captured = |table: TableId| view.table(table).is_some_and(|version| version.def.captured);
        if !ddl.ops.iter().any(|op| captured(op.table())) {
            return Ok(());
        }
        let reading = view.clone();
        let objects = self.off_thread(move || Objects::of(&reading)).await?;
        let mut going = Going::default();
        let mut ops = Vec::with_capacity(ddl.ops.len());
        for op in std::mem::take(&mut ddl.ops) {
            match &op {
                Op::Truncate(table) if captured(*table) => {
                    ops.extend(self.delete_all(view.table(*table).cloned()).await?);
                    continue;
                }
                Op::DropTable(table) if captured(*table) => {
                    let readers = readers(&objects, *table).map(|pipeline| pipeline.name.clone());
                    going.pipelines.extend(readers);
                }
                Op::AlterTable(def) if captured(def.id) => self.check_altered(&view, &objects, def)?,
                _ => {}
            }
            ops.push(op);
        }
        ddl.ops = ops;
        self.drop_readers(ddl, &view, &objects, (&going, statement))
    }

    /// Every live row of a table as one deletion.
    async fn delete_all(&self, version: Option<Arc<TableVersion>>) -> Result<Option<Op>> {
        let Some(version) = version else { return Ok(None) };
        let table = version.def.id;
        let rows = self.off_thread(move || live_rows(&version)).await?;
        Ok(if rows.is_empty() { None } else { Some(Op::Delete { table, rows }) })
    }

    fn drop_readers(
        &mut self,
        ddl: &mut Ddl,
        view: &Snapshot,
        objects: &Objects,
        (going, statement): (&Going, &Statement),
    ) -> Result<()> {
        if going.pipelines.is_empty() {
            return Ok(());
        }
        if !cascades(statement) {
            let names: Vec<String> = going.pipelines.iter().map(|name| format!("pipeline {name}")).collect();
            let detail: Vec<String> =
                names.iter().map(|name| format!("{name} depends on the table")).collect();
            let message = "cannot drop the table because other objects depend on it";
            return Err(Error::new(SqlState::DependentObjectsStillExist, message)
                .with_detail(detail.join("\n"))
                .with_hint("Use DROP ... CASCADE to drop the dependent objects too."));
        }
        let names: Vec<String> = going.pipelines.iter().map(|name| format!("pipeline {name}")).collect();
        self.notice_cascade(&names);
        let dropped: Vec<TableId> = ddl.ops.iter().filter_map(dropped_table).collect();
        let removed = going.ops(view, objects, &self.environment)?;
        // No mark is taken off a table that goes.
        let removed =
            removed.into_iter().filter(|op| !matches!(op, Op::AlterTable(def) if dropped.contains(&def.id)));
        ddl.ops.extend(removed);
        self.leave_behind(going);
        Ok(())
    }

    /// Errors: 2BP01 when a pipeline could not go on with the new definition.
    fn check_altered(&mut self, view: &Snapshot, objects: &Objects, def: &TableDef) -> Result<()> {
        let Some(old) = view.table(def.id).map(|version| Arc::clone(&version.def)) else { return Ok(()) };
        let mut readers = readers(objects, def.id).peekable();
        if readers.peek().is_none() {
            return Ok(());
        }
        // Under its new name the table may be in a schema that is not there yet.
        if let (Some(why), Some(pipeline)) = (moved(&old, def), readers.peek()) {
            return Err(cannot_alter(&old, pipeline, why));
        }
        let context = self.statement_context()?;
        // Of the definition alone: whether the rows fit it is asked where it is applied.
        // A pipeline knows no search path but the one that all begin with.
        let next = view.apply(&Op::AlterTable(def.clone()))?.searching(SearchPath::default());
        let context = StatementContext {
            catalog: CatalogSlot::new(self.catalog_context(next.clone())),
            snapshot: SnapshotSlot::new(next),
            ..context
        };
        for pipeline in readers {
            if let Some(why) = broken(&self.tenant.engine, &context, pipeline, (&old, def)) {
                return Err(cannot_alter(&old, pipeline, why));
            }
        }
        Ok(())
    }
}

fn cannot_alter(old: &TableDef, pipeline: &PipelineDef, why: String) -> Error {
    let message = format!("cannot alter table {} because pipeline {} reads it", old.name, pipeline.name);
    let hint = format!("DROP PIPELINE {} first, and create it again afterwards.", pipeline.name);
    Error::new(SqlState::DependentObjectsStillExist, message).with_detail(why).with_hint(hint)
}

fn readers(objects: &Objects, table: TableId) -> impl Iterator<Item = &PipelineDef> {
    objects.pipelines().filter(move |pipeline| pipeline.table == table)
}

/// Why no pipeline could go on.
fn moved(old: &TableDef, new: &TableDef) -> Option<String> {
    let moved = old.name != new.name || old.schema != new.schema;
    moved.then(|| format!("Its query names the table {}.", old.name))
}

/// Why a pipeline could not go on.
fn broken(
    engine: &sepal_query::planner::Engine,
    context: &StatementContext,
    pipeline: &PipelineDef,
    (old, new): (&TableDef, &TableDef),
) -> Option<String> {
    for id in &pipeline.reads {
        let before = old.column_by_id(*id)?;
        match new.column_by_id(*id) {
            None => return Some(format!("It reads column {}.", before.name)),
            Some(after) if after.name != before.name || after.ty != before.ty => {
                return Some(format!("It reads column {} under this name and type.", before.name));
            }
            Some(_) => {}
        }
    }
    let compiled = parse_query(&pipeline.query)
        .and_then(|query| ChangeQuery::compile(engine, context, &query, &pipeline.key));
    compiled.err().map(|error| format!("Its query would fail: {}", error.message()))
}

fn dropped_table(op: &Op) -> Option<TableId> {
    match op {
        Op::DropTable(table) => Some(*table),
        _ => None,
    }
}

fn cascades(statement: &Statement) -> bool {
    if let StatementKind::Schema(statement) = &statement.kind {
        return statement.cascades();
    }
    let StatementKind::Sql(ast) = &statement.kind else { return false };
    matches!(ast.as_ref(), ast::Statement::Drop { cascade: true, .. })
}

/// The ids of a table's live rows, ascending.
fn live_rows(version: &TableVersion) -> Result<Vec<RowId>> {
    let mut rows = Vec::new();
    for reference in version.chunks.iter().filter(|reference| reference.live_rows() > 0) {
        let ids = reference.chunk.row_ids()?;
        let live = (0..reference.chunk.rows()).filter(|position| !reference.deleted.contains(*position));
        rows.extend(live.map(|position| RowId(ids.value(position as usize))));
    }
    rows.sort_unstable();
    Ok(rows)
}
