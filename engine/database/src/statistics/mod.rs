//! What is remembered of tables: when they were vacuumed and analyzed, and what ANALYZE found in their columns.
//!
//! Rows of `$system`'s table `statistics`, a JSON for each table, so they are sealed, recovered and backed up as all
//! rows. Written by `session::maintenance`, shown by `pg_stats` and `pg_stat_user_tables`. They hold values of the
//! columns: VACUUM FULL makes them anew, so that none of a deleted row stays.

mod column;

use std::collections::{BTreeMap, HashMap};

use sepal_query::catalog::work::{ColumnStatistics, TableStatistics};
use sepal_storage::{Snapshot, StoreError, TenantStore};
use sepal_types::{ColumnId, Error, Result, SqlState, TableId};
use serde::{Deserialize, Serialize};

use crate::delivery::system_tables::{Cell, SystemTable, ensure};

pub use column::{SAMPLED_ROWS, analyze};

/// The JSON. Fields are only ever added, with a default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Known {
    /// Times are microseconds since 1970 UTC.
    #[serde(default)]
    pub vacuumed_us: Option<i64>,
    #[serde(default)]
    pub vacuums: u64,
    #[serde(default)]
    pub analyzed_us: Option<i64>,
    #[serde(default)]
    pub analyses: u64,
    #[serde(default)]
    pub columns: Vec<KnownColumn>,
}

/// As [`ColumnStatistics`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KnownColumn {
    pub column: u32,
    pub null_frac: f64,
    pub avg_width: u32,
    pub n_distinct: f64,
    #[serde(default)]
    pub common: Vec<(String, f64)>,
    #[serde(default)]
    pub histogram: Vec<String>,
}

impl Known {
    /// Takes over what was found, in the place of what was known of the same columns.
    pub fn analyzed(&mut self, found: &[KnownColumn], now_us: i64) {
        self.columns.retain(|known| found.iter().all(|found| found.column != known.column));
        self.columns.extend_from_slice(found);
        self.columns.sort_by_key(|known| known.column);
        self.analyzed_us = Some(now_us);
        self.analyses += 1;
    }

    pub fn vacuumed(&mut self, now_us: i64) {
        self.vacuumed_us = Some(now_us);
        self.vacuums += 1;
    }
}

/// What is remembered of each table. Errors: XX001 when it cannot be read.
pub fn all(snapshot: &Snapshot) -> Result<BTreeMap<TableId, Known>> {
    let rows = SystemTable::Statistics.rows(snapshot)?;
    let mut all = BTreeMap::new();
    for row in 0..rows.len() {
        let id = rows.int("id", row).and_then(|id| u32::try_from(id).ok());
        let (Some(id), Some(body)) = (id, rows.text("body", row)) else { continue };
        all.insert(TableId(id), read(body)?);
    }
    Ok(all)
}

/// Changes what is remembered of a table, and forgets those that are no more. A commit of its own. Blocking.
pub fn change(store: &TenantStore, table: TableId, edit: impl Fn(&mut Known)) -> Result<()> {
    loop {
        let snapshot = ensure(store)?;
        let mut known = all(&snapshot)?;
        let gone = known.keys().filter(|id| snapshot.table(**id).is_none());
        let gone: Vec<Vec<Cell>> = gone.map(|id| vec![cell(*id)]).collect();
        let mut own = known.remove(&table).unwrap_or_default();
        edit(&mut own);
        let body = serde_json::to_string(&own)
            .map_err(|problem| Error::bug(format!("statistics cannot be written: {problem}")))?;
        let mut ops = SystemTable::Statistics.delete_ops(&snapshot, &gone)?;
        if snapshot.table(table).is_some() {
            let row = vec![cell(table), Cell::Text(body)];
            ops.extend(SystemTable::Statistics.upsert_ops(store, &snapshot, &[row])?);
        }
        match store.commit(&snapshot, ops) {
            Ok(_) => return Ok(()),
            // Another session has changed them meanwhile.
            Err(StoreError::WriteConflict { .. } | StoreError::UniqueViolation { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// For the catalogs. `compacted`: when a table was compacted by itself, and how often.
pub fn rows(
    snapshot: &Snapshot,
    compacted: &HashMap<TableId, (i64, u64)>,
) -> Result<BTreeMap<TableId, TableStatistics>> {
    let mut rows: BTreeMap<TableId, TableStatistics> =
        all(snapshot)?.into_iter().map(|(table, known)| (table, shown(known))).collect();
    for (table, (at_us, times)) in compacted {
        let row = rows.entry(*table).or_default();
        (row.compacted_us, row.compactions) = (Some(*at_us), *times);
    }
    Ok(rows)
}

fn shown(known: Known) -> TableStatistics {
    let column = |known: KnownColumn| ColumnStatistics {
        column: ColumnId(known.column),
        null_frac: known.null_frac,
        avg_width: known.avg_width,
        n_distinct: known.n_distinct,
        common: known.common,
        histogram: known.histogram,
    };
    TableStatistics {
        vacuumed_us: known.vacuumed_us,
        analyzed_us: known.analyzed_us,
        vacuums: known.vacuums,
        analyses: known.analyses,
        columns: known.columns.into_iter().map(column).collect(),
        ..TableStatistics::default()
    }
}

fn cell(table: TableId) -> Cell {
    Cell::Int(i64::from(table.0))
}

fn read(body: &str) -> Result<Known> {
    serde_json::from_str(body).map_err(|problem| {
        Error::new(SqlState::DataCorrupted, format!("a table's statistics cannot be read: {problem}"))
            .with_hint("Restore the tenant from a backup.")
    })
}

#[cfg(test)]
mod tests;
