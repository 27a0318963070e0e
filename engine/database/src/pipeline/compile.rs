//! A pipeline's query, compiled over its table as it is now.

use std::{sync::Arc, time::Duration};

use parking_lot::RwLock;
use sepal_query::{
    AdvisoryCall, AdvisoryNumber, CatalogSlot, SearchSettings, SequenceSource, SettingSink, SnapshotSlot,
    StatementContext, TablesRead,
    catalog::CatalogContext,
    change::ChangeQuery,
    sql::{StatementKind, ast, parse_statements},
};
use sepal_storage::Snapshot;
use sepal_types::{Error, Result, SqlState};

use super::event::View;
use crate::{connector::Envelope, delivery::objects::PipelineDef, tenant::OpenTenant};

/// Blocking.
///
/// Errors: 42P01 when the table is gone; what `ChangeQuery::compile` says when a column is.
pub fn compile(tenant: &OpenTenant, snapshot: &Snapshot, def: &PipelineDef) -> Result<View> {
    let unreadable = || {
        let message = format!("the query of pipeline \"{}\" cannot be read", def.name);
        Error::new(SqlState::DataCorrupted, message).with_hint("Drop the pipeline and create it again.")
    };
    let statements = parse_statements(&def.query)?;
    let [statement] = statements.as_slice() else { return Err(unreadable()) };
    let StatementKind::Sql(parsed) = &statement.kind else { return Err(unreadable()) };
    let ast::Statement::Query(query) = parsed.as_ref() else { return Err(unreadable()) };
    let context = context(tenant, snapshot, &def.environment);
    let query = ChangeQuery::compile(&tenant.engine, &context, query, &def.key)?;
    // It ran on nothing yet, and will on batches: the segments of now are not its own to keep.
    context.snapshot.clear();
    context.catalog.clear();
    let version = snapshot.table(query.table()).ok_or_else(unreadable)?;
    if query.table() != def.table {
        let message = format!("the table of pipeline \"{}\" is another one by now", def.name);
        return Err(
            Error::new(SqlState::UndefinedTable, message).with_hint("Drop the pipeline and create it again.")
        );
    }
    Ok(View { query, def: Arc::clone(&version.def), keeps_before: def.envelope == Envelope::Debezium })
}

/// Nobody's session: it reads nothing but the definition, and its query has no function that would ask for more.
fn context(tenant: &OpenTenant, snapshot: &Snapshot, environment: &str) -> StatementContext {
    let tenant_name = tenant.id.to_string();
    let catalog = CatalogContext::bare(snapshot.clone(), environment, &tenant_name, "pipeline");
    StatementContext {
        catalog: CatalogSlot::new(catalog),
        snapshot: SnapshotSlot::new(snapshot.clone()),
        environment: Arc::from(environment),
        indexes: Arc::clone(&tenant.indexes),
        search: Arc::new(RwLock::new(SearchSettings::default())),
        sequences: Arc::new(Nobody),
        settings: Arc::new(Nobody),
        nested: Arc::default(),
        past: Arc::default(),
        reads: TablesRead::default(),
    }
}

/// Has neither sequences nor settings.
#[derive(Debug)]
struct Nobody;

fn refused() -> Error {
    Error::unsupported("a pipeline's query can call neither sequence nor setting functions")
}

impl SequenceSource for Nobody {
    fn reserve(&self, _: &str, _: u64) -> Result<i64> {
        Err(refused())
    }

    fn current(&self, _: &str) -> Result<i64> {
        Err(refused())
    }

    fn last(&self) -> Result<i64> {
        Err(refused())
    }

    fn set(&self, _: &str, _: i64, _: bool) -> Result<()> {
        Err(refused())
    }
}

impl SettingSink for Nobody {
    fn set(&self, _: &str, _: &str, _: bool) -> Result<String> {
        Err(refused())
    }

    fn sleep(&self, _: Duration) {}

    fn advisory(&self, _: AdvisoryCall, _: AdvisoryNumber) -> Result<bool> {
        Err(refused())
    }
}
