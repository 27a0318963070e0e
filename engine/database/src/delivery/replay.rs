//! `sepal_dlq_replay`: marks dead letters to be sent again. The pipeline takes them from there.

use std::{fmt, sync::Arc};

use sepal_query::DeliveryControl;
use sepal_storage::StoreError;
use sepal_types::{Error, Result, SqlState};

use super::{
    objects::Objects,
    system_tables::{Cell, SystemTable},
};
use crate::tenant::OpenTenant;

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

    /// One try. `None`: somebody else was writing dead letters.
    fn mark(&self, pipeline: &str, since_us: Option<i64>) -> Result<Option<i64>> {
        let store = &self.tenant.store;
        let snapshot = store.snapshot();
        let objects = Objects::of(&snapshot)?;
        let Some(def) = objects.pipeline(&self.environment, pipeline) else {
            return Err(Error::new(
                SqlState::UndefinedObject,
                format!("pipeline \"{pipeline}\" does not exist"),
            )
            .with_hint("SHOW PIPELINES lists those of this environment."));
        };
        let rows = SystemTable::DeadLetters.rows_where(&snapshot, "pipeline", &def.id)?;
        let waits = |row: usize| {
            let late = since_us.is_none_or(|since| rows.time("at", row).is_some_and(|at| at >= since));
            late && rows.flag("replay", row) != Some(true)
        };
        let marked = rows.filter(waits)?;
        if marked.is_empty() {
            return Ok(Some(0));
        }
        let cells: Vec<Vec<Cell>> = (0..marked.len())
            .map(|row| {
                let mut cells = marked.cells(SystemTable::DeadLetters, row);
                if let Some(replay) = cells.last_mut() {
                    *replay = Cell::Flag(true);
                }
                cells
            })
            .collect();
        let mut ops = SystemTable::DeadLetters.delete_rows(&snapshot, marked.row_ids());
        ops.extend(SystemTable::DeadLetters.insert_ops(store, &snapshot, &cells)?);
        match store.commit(&snapshot, ops) {
            Ok(after) => {
                self.tenant.committed(false, after.lsn());
                self.tenant.pipelines_changed.notify_one();
                Ok(Some(i64::try_from(marked.len()).unwrap_or(i64::MAX)))
            }
            Err(StoreError::WriteConflict { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
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
        loop {
            self.tenant.check_open()?;
            if let Some(marked) = self.mark(pipeline, since_us)? {
                return Ok(marked);
            }
        }
    }
}

impl fmt::Debug for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replay").field("environment", &self.environment).finish_non_exhaustive()
    }
}
