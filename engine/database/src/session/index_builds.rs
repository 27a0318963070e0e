//! Vector indexes after the commit of their definitions: built, then usable, or gone.
//!
//! Called by `execute` at the end of a transaction. An index is in its table's definition, not valid, while it
//! is built; a crash meanwhile leaves it so, and the next opening of the tenant drops it. REINDEX builds beside
//! the old index, which serves until the new one takes its name.

use std::sync::Arc;

use sepal_query::sql::Reindexed;
use sepal_storage::{Op, Snapshot, StoreError, TableVersion, TenantStore};
use sepal_types::{Error, IndexDef, IndexMethod, RelationName, Result, SqlState, TableDef, TableId};

use super::{Outcome, Session};
use crate::{
    blocking::blocking,
    locks::{Asked, TableMode, TransactionLocks, Want},
    maintain,
};

/// An index to build.
#[derive(Clone, Copy, Debug)]
pub struct Build {
    pub table: TableId,
    pub index: TableId,
    /// The index that goes when this one is usable.
    replaces: Option<TableId>,
    /// It stays when the build fails: the rows were written anew, and what they lack is built in the background.
    stays: bool,
}

impl Build {
    pub fn new(table: TableId, index: TableId) -> Self {
        Self { table, index, replaces: None, stays: false }
    }

    /// Of a usable index, over rows that were written anew.
    pub fn again(table: TableId, index: TableId) -> Self {
        Self { stays: true, ..Self::new(table, index) }
    }
}

impl Session {
    /// Builds the indexes of a transaction. After a failure the rest is not built: the definitions are taken back.
    pub(super) async fn build_all(&mut self, builds: Vec<Build>) -> Result<()> {
        let mut outcome = Ok(());
        for build in builds {
            let built = match &outcome {
                Ok(()) => self.build(build).await,
                Err(_) => self.settle(build, false).await,
            };
            outcome = outcome.and(built);
        }
        outcome
    }

    /// Builds one index and makes it usable; on failure takes its definition back.
    async fn build(&mut self, build: Build) -> Result<()> {
        let (tenant, cancel, pid) = (Arc::clone(&self.tenant), self.cancel.clone(), self.pid.number());
        let memory = self.settings.lock().maintenance_bytes();
        let work = move || maintain::build_index(&tenant, build.table, build.index, pid, memory, &cancel);
        let built = match blocking("an index build", work).await {
            // The transaction, or somebody since, has dropped what was there before it.
            Err(error) if build.stays && error.state() == SqlState::UndefinedObject => Ok(None),
            built => built,
        };
        if let Ok(Some(short)) = &built {
            self.notice("NOTICE", short.notice());
        }
        let settled = self.settle(build, built.is_ok()).await;
        // What was flushed while it was built has no part of it yet.
        self.tenant.missing.notify_one();
        built.and(settled)
    }

    async fn settle(&mut self, build: Build, usable: bool) -> Result<()> {
        let _held = match build.stays {
            // Its definition is as it was.
            true => None,
            false => Some(self.await_definition(build.table).await),
        };
        let tenant = Arc::clone(&self.tenant);
        let mark = move || settle_index(&tenant.store, build, usable);
        let settled = blocking("marking an index", mark).await;
        self.tenant.committed(true, self.tenant.store.snapshot().lsn());
        settled
    }

    /// Waits for whoever is defining the table: what he has made of its definition he could not commit any more. Where
    /// he cannot be waited for, because the statement was cancelled, the index has to be settled nonetheless.
    async fn await_definition(&mut self, table: TableId) -> TransactionLocks {
        let locks = self.locks.begin();
        let want = Want::Table { table, mode: TableMode::ShareUpdateExclusive };
        if let Ok(Asked::Waits(waiting)) = locks.ask(want, true)
            && let Err(error) = self.wait_for(waiting).await
        {
            tracing::debug!(tenant = %self.tenant.id, %error, "an index is settled beside a definition");
        }
        locks
    }

    /// Builds indexes anew beside those that serve, which go when it is done. CONCURRENTLY makes no difference.
    pub(super) async fn reindex(&mut self, what: &Reindexed) -> Result<Outcome> {
        self.check_writable("REINDEX")?;
        let (view, owners) = self.indexed_tables(what).await?;
        for owner in owners {
            let mut def = owner.def.as_ref().clone();
            let mut builds = Vec::new();
            for old in &owner.def.indexes {
                let other = matches!(what, Reindexed::Index(name) if name.name != old.name);
                if other || !old.valid || !matches!(old.method, IndexMethod::Vector(_)) {
                    continue;
                }
                let new = IndexDef {
                    id: self.tenant.store.next_object_id(),
                    name: spare_name(&view, &self.environment, &def.schema, &old.name),
                    valid: false,
                    ..old.clone()
                };
                builds.push(Build { replaces: Some(old.id), ..Build::new(def.id, new.id) });
                def.indexes.push(new);
            }
            if let Some(open) = &mut self.open
                && !builds.is_empty()
            {
                open.apply(vec![Op::AlterTable(def)])?;
                open.builds.extend(builds);
            }
        }
        Ok(Outcome::Done { tag: "REINDEX".to_owned() })
    }

    /// The tables with the indexes that are meant, locked against others that define.
    async fn indexed_tables(&mut self, what: &Reindexed) -> Result<(Snapshot, Vec<Arc<TableVersion>>)> {
        let mut locked: Vec<TableId> = Vec::new();
        loop {
            let view = self.pinned_view()?;
            let owners = self.reindexed(&view, what)?;
            let next = owners.iter().map(|owner| owner.def.id).find(|table| !locked.contains(table));
            let Some(next) = next else { return Ok((view, owners)) };
            locked.push(next);
            self.lock_table(next, TableMode::ShareRowExclusive).await?;
        }
    }

    /// The same, not locked.
    ///
    /// Errors: 42P01, 42809 for a table in place of an index and the other way round, 3F000, 0A000.
    fn reindexed(&self, view: &Snapshot, what: &Reindexed) -> Result<Vec<Arc<TableVersion>>> {
        let own = || view.tables().filter(|version| version.def.environment == *self.environment);
        let owner = |name: &RelationName| view.find_indexed(&self.environment, name);
        let table = |name: &RelationName| view.find(&self.environment, name);
        let missing = |name: &RelationName| {
            Error::new(SqlState::UndefinedTable, format!("relation \"{name}\" does not exist"))
        };
        let wrong = |name: &RelationName, kind| {
            Error::new(SqlState::WrongObjectType, format!("\"{}\" is not {kind}", name.name))
        };
        match what {
            Reindexed::Index(name) => match owner(name) {
                Some(owner) => Ok(vec![Arc::clone(owner)]),
                None if table(name).is_some() => Err(wrong(name, "an index")),
                None => Err(missing(name)),
            },
            Reindexed::Table(name) => match table(name) {
                Some(table) => Ok(vec![Arc::clone(table)]),
                None if owner(name).is_some() => Err(wrong(name, "a table or materialized view")),
                None => Err(missing(name)),
            },
            Reindexed::Schema(name) if !view.has_schema(&self.environment, name) => {
                Err(Error::new(SqlState::InvalidSchemaName, format!("schema \"{name}\" does not exist")))
            }
            Reindexed::Database(Some(name)) if **name != *self.environment => {
                Err(Error::unsupported("can only reindex the currently open database"))
            }
            Reindexed::Schema(name) => {
                Ok(own().filter(|version| version.def.schema == *name).cloned().collect())
            }
            Reindexed::Database(_) => Ok(own().cloned().collect()),
        }
    }
}

/// A name for the index that is built beside `name` of a schema, as REINDEX CONCURRENTLY calls it.
fn spare_name(view: &Snapshot, environment: &str, schema: &str, name: &str) -> String {
    let mut spare = format!("{name}_ccnew");
    let mut number = 0_u32;
    while view.is_taken(environment, schema, &spare) {
        number += 1;
        spare = format!("{name}_ccnew{number}");
    }
    spare
}

/// Makes an index usable, or removes it. Repeats when another change of the table comes between.
fn settle_index(store: &TenantStore, build: Build, usable: bool) -> Result<()> {
    loop {
        let snapshot = store.snapshot();
        let Some(version) = snapshot.table(build.table) else {
            return Ok(());
        };
        let mut def = version.def.as_ref().clone();
        settle(&mut def, build, usable);
        if def == *version.def {
            return Ok(());
        }
        match store.commit(&snapshot, vec![Op::AlterTable(def)]) {
            Err(StoreError::WriteConflict { .. }) => {}
            other => return other.map(|_| ()).map_err(Into::into),
        }
    }
}

fn settle(def: &mut TableDef, build: Build, usable: bool) {
    if build.stays {
        return;
    }
    let Some(at) = def.indexes.iter().position(|index| index.id == build.index) else { return };
    let mut new = def.indexes.remove(at);
    if !usable {
        return;
    }
    new.valid = true;
    let Some(replaced) = build.replaces else {
        def.indexes.insert(at, new);
        return;
    };
    // An index that was dropped while it was built anew stays dropped.
    if let Some(old) = def.indexes.iter_mut().find(|index| index.id == replaced) {
        new.name.clone_from(&old.name);
        *old = new;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sepal_types::{Constraints, Metric, VectorIndexOptions};

    use super::*;
    use crate::fixtures::{Fixture, run};

    fn index(id: u32, name: &str, valid: bool) -> IndexDef {
        let options = VectorIndexOptions::Flat { metric: Metric::Cosine };
        IndexDef {
            id: TableId(id),
            name: name.into(),
            columns: Vec::new(),
            method: IndexMethod::Vector(options),
            valid,
            clauses: None,
        }
    }

    /// What settling leaves: id, name, valid.
    fn settled(indexes: &[IndexDef], build: Build, usable: bool) -> Vec<(u32, String, bool)> {
        let mut def = TableDef {
            id: TableId(20_000),
            environment: "default".into(),
            schema: "public".into(),
            name: "t".into(),
            columns: Vec::new(),
            next_column: sepal_types::ColumnId(1),
            uniques: Vec::new(),
            indexes: indexes.to_vec(),
            captured: false,
            constraints: Constraints::default(),
        };
        settle(&mut def, build, usable);
        def.indexes.into_iter().map(|index| (index.id.0, index.name, index.valid)).collect()
    }

    #[test]
    fn a_new_index_becomes_usable_or_goes() {
        let made = [index(1, "a", true), index(2, "b", false), index(3, "c", true)];
        let build = Build::new(TableId(20_000), TableId(2));
        let after = |rows: &[(u32, &str)]| {
            rows.iter().map(|(id, name)| (*id, (*name).to_owned(), true)).collect::<Vec<_>>()
        };
        assert_eq!(settled(&made, build, true), after(&[(1, "a"), (2, "b"), (3, "c")]));
        assert_eq!(settled(&made, build, false), after(&[(1, "a"), (3, "c")]));
        let again = Build { replaces: Some(TableId(1)), ..build };
        assert_eq!(settled(&made, again, true), after(&[(2, "a"), (3, "c")]), "under the old one's name");
        assert_eq!(settled(&made, again, false), after(&[(1, "a"), (3, "c")]), "the old one stays");
        let anew = Build::again(TableId(20_000), TableId(1));
        assert_eq!(settled(&made[..1], anew, false), after(&[(1, "a")]), "what is missing comes later");
        let dropped = Build { replaces: Some(TableId(9)), ..build };
        assert_eq!(settled(&made, dropped, true), after(&[(1, "a"), (3, "c")]), "dropped meanwhile");
    }

    /// An index is done while somebody alters its table: he commits what he has made of the definition.
    #[tokio::test(flavor = "multi_thread")]
    async fn an_index_is_settled_after_the_definition_that_is_under_way() {
        let fixture = Fixture::new();
        let (mut builder, mut other) = (fixture.session().await, fixture.session().await);
        run(&mut builder, "CREATE TABLE t (v vector(3))").await;
        run(&mut builder, "CREATE INDEX i ON t USING hnsw (v vector_l2_ops)").await;
        let tenant = fixture.tenant().await;
        let defined = || {
            let snapshot = tenant.store.snapshot();
            snapshot.find("default", "t").map(|version| version.def.as_ref().clone()).unwrap()
        };
        let mut def = defined();
        let build = Build::new(def.id, def.indexes[0].id);
        def.indexes[0].valid = false;
        tenant.store.commit(&tenant.store.snapshot(), vec![Op::AlterTable(def)]).unwrap();
        tenant.committed(true, tenant.store.snapshot().lsn());

        run(&mut other, "BEGIN; ALTER TABLE t ADD COLUMN x int").await;
        let pid = builder.backend_pid();
        let settling = tokio::spawn(async move { builder.settle(build, true).await });
        while tenant.locks.blocking(pid).is_empty() {
            assert!(!settling.is_finished(), "it did not wait");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        run(&mut other, "INSERT INTO t (x) VALUES (1); COMMIT").await;
        settling.await.unwrap().unwrap();
        let def = defined();
        assert_eq!((def.columns.len(), def.indexes[0].valid), (2, true));
    }
}
