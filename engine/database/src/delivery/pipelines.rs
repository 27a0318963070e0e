//! What pipelines leave behind.
//!
//! A dropped pipeline's position, dead letters and plugin state go after the commit that drops it, not with it: the
//! pipeline writes them all the time, and DROP would fail for as long as it is at work.

use std::collections::HashSet;

use sepal_storage::{Op, StoreError, TenantStore};
use sepal_types::{Error, Result, RowId, SqlState};

use super::{objects::Objects, system_tables::SystemTable};

/// Tables with the column that holds a pipeline's id.
const LEFT_BEHIND: [(SystemTable, &str); 3] = [
    (SystemTable::PipelineState, "id"),
    (SystemTable::PluginState, "pipeline"),
    (SystemTable::DeadLetters, "pipeline"),
];

/// Of two commits that collide with pipelines at work; then it is left to the next time.
const TRIES: usize = 8;

/// Removes what belongs to pipelines that are gone. Blocking. Called when some were dropped, and when the tenant is
/// opened, for what a crash left.
pub fn sweep(store: &TenantStore) -> Result<()> {
    for _ in 0..TRIES {
        let snapshot = store.snapshot();
        let objects = Objects::of(&snapshot)?;
        let known: HashSet<&str> = objects.pipelines().map(|pipeline| pipeline.id.as_str()).collect();
        let mut ops: Vec<Op> = Vec::new();
        for (table, column) in LEFT_BEHIND {
            let mut orphans: Vec<RowId> = Vec::new();
            table.each_chunk(&snapshot, &[column], |rows| {
                let is_known = |row: &usize| rows.text(column, *row).is_some_and(|id| known.contains(id));
                let gone = (0..rows.len()).filter(|row| !is_known(row));
                orphans.extend(gone.filter_map(|row| rows.row_id(row)));
                Ok(())
            })?;
            ops.extend(table.delete_rows(&snapshot, orphans));
        }
        if ops.is_empty() {
            return Ok(());
        }
        match store.commit(&snapshot, ops) {
            Ok(_) => return Ok(()),
            Err(StoreError::WriteConflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::new(SqlState::SerializationFailure, "what dropped pipelines left is being written"))
}
