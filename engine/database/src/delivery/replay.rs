//! `sepal_dlq_replay`: marks dead letters to be sent again. The pipeline takes them from there.
//!
//! Many are marked in several commits. When one of those fails, the ones before it stay marked, and the statement can
//! be repeated for the rest.

use std::{collections::HashSet, fmt, sync::Arc};

use sepal_query::DeliveryControl;
use sepal_storage::StoreError;
use sepal_types::{Error, Result, SqlState};

use super::{
    objects::Objects,
    system_tables::{Cell, Rows, SystemTable},
};
use crate::tenant::OpenTenant;

/// Letters that one commit marks: it holds them in memory, up to a batch's worth of a row each.
const AT_ONCE: usize = 256;

/// One session's reach into its environment's pipelines.
pub struct Replay {
    tenant: Arc<OpenTenant>,
    environment: String,
    may_write: bool,
}

impl Replay {
    pub fn new(tenant: Arc<OpenTenant>, environment: &str, may_write: bool) -> Arc<Self> {
        Arc::new(Self { tenant, environment: environment.to_owned(), may_write })
    }

    /// The dead letters that are to be marked, by id. What is set aside again meanwhile gets another id: it is not
    /// marked a second time.
    fn waiting(&self, pipeline: &str, since_us: Option<i64>) -> Result<Vec<i64>> {
        let snapshot = self.tenant.store.snapshot();
        let objects = Objects::of(&snapshot)?;
        let Some(def) = objects.pipeline(&self.environment, pipeline) else {
            return Err(Error::new(
                SqlState::UndefinedObject,
                format!("pipeline \"{pipeline}\" does not exist"),
            )
            .with_hint("SHOW PIPELINES lists those of this environment."));
        };
        let mut ids: Vec<i64> = Vec::new();
        SystemTable::DeadLetters.each_chunk(&snapshot, &["id", "pipeline", "at", "replay"], |rows| {
            let waits = |row: &usize| {
                let late = since_us.is_none_or(|since| rows.time("at", *row).is_some_and(|at| at >= since));
                late && is_unmarked(&rows, *row) && rows.text("pipeline", *row) == Some(def.id.as_str())
            };
            ids.extend((0..rows.len()).filter(waits).filter_map(|row| rows.int("id", row)));
            Ok(())
        })?;
        ids.sort_unstable();
        Ok(ids)
    }

    /// One try to mark some of them; how many were. `None`: somebody else was writing dead letters.
    fn mark(&self, ids: &HashSet<i64>) -> Result<Option<i64>> {
        let store = &self.tenant.store;
        let snapshot = store.snapshot();
        let table = SystemTable::DeadLetters;
        let (mut old, mut marked) = (Vec::new(), Vec::new());
        let wanted = |rows: &Rows, row: usize| {
            is_unmarked(rows, row) && rows.int("id", row).is_some_and(|id| ids.contains(&id))
        };
        table.each_match(&snapshot, &["id", "replay"], wanted, |rows| {
            old.extend(rows.row_ids());
            marked.extend((0..rows.len()).map(|row| {
                let mut cells = rows.cells(table, row);
                if let Some(replay) = cells.last_mut() {
                    *replay = Cell::Flag(true);
                }
                cells
            }));
            Ok(())
        })?;
        if marked.is_empty() {
            return Ok(Some(0));
        }
        let mut ops = table.delete_rows(&snapshot, old);
        ops.extend(table.insert_ops(store, &snapshot, &marked)?);
        match store.commit(&snapshot, ops) {
            Ok(after) => {
                self.tenant.committed(false, after.lsn());
                Ok(Some(i64::try_from(marked.len()).unwrap_or(i64::MAX)))
            }
            Err(StoreError::WriteConflict { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

fn is_unmarked(rows: &Rows, row: usize) -> bool {
    rows.flag("replay", row) != Some(true)
}

impl DeliveryControl for Replay {
    fn replay(&self, pipeline: &str, since_us: Option<i64>) -> Result<i64> {
        if !self.may_write {
            return Err(Error::new(
                SqlState::InsufficientPrivilege,
                "permission denied: this API key may only read",
            )
            .with_hint("Use a key with the write scope: sepal key create --scope read-write."));
        }
        let ids = self.waiting(pipeline, since_us)?;
        let mut marked = 0;
        for ids in ids.chunks(AT_ONCE) {
            let ids: HashSet<i64> = ids.iter().copied().collect();
            marked += loop {
                self.tenant.check_open()?;
                if let Some(marked) = self.mark(&ids)? {
                    break marked;
                }
            };
        }
        self.tenant.pipelines_changed.notify_one();
        Ok(marked)
    }
}

impl fmt::Debug for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replay").field("environment", &self.environment).finish_non_exhaustive()
    }
}
