//! What holds over all rows of a table, wherever they lie: what a commit checks before it is acknowledged.

use roaring::RoaringTreemap;
use sepal_types::RowId;

use super::{Examination, Finding, Severity};
use crate::{
    StoreError, TableVersion,
    paths::show,
    snapshot::{check_not_null, check_unique},
    store::load::Opened,
};

impl Examination<'_> {
    /// `opened`: what the manifest and the log come to.
    pub(super) fn rows(&mut self, opened: &Opened) {
        let next_rows = opened.counters.values().next_rows;
        let tables = opened.state.tables.values();
        self.checked.tables = tables.filter(|version| version.def.is_table()).count() as u64;
        for (id, version) in &opened.state.tables {
            self.checked.rows += version.live_rows();
            let next = next_rows.get(id).copied().unwrap_or(RowId(1));
            self.row_ids(version, next);
            self.constraints(version);
            self.references(opened, version);
        }
    }

    fn row_ids(&mut self, version: &TableVersion, next: RowId) {
        let mut known = RoaringTreemap::new();
        for reference in &version.chunks {
            let ids = match reference.chunk.row_ids() {
                Ok(ids) => ids,
                Err(error) => return self.failed(&error, "", None),
            };
            if let Some(twice) = ids.values().iter().find(|id| !known.insert(**id)) {
                let what = format!("row id {twice} is there twice");
                return self.table(version, what, "an UPDATE or DELETE may meet the wrong one of two rows");
            }
        }
        if let Some(last) = known.max().filter(|last| *last >= next.0) {
            let what = format!("the last row id is {last}, and {next} would be given next");
            self.table(version, what, "rows that are written from now on would share ids with those there");
        }
    }

    fn constraints(&mut self, version: &TableVersion) {
        for column in version.def.columns.iter().filter(|column| column.not_null) {
            match check_not_null(version, column) {
                Ok(()) => {}
                Err(StoreError::NullValues { column, .. }) => {
                    let what = format!("column \"{column}\" is NOT NULL and has NULLs");
                    self.table(version, what, "queries may rely on what does not hold");
                }
                Err(error) => self.failed(&error, "", None),
            }
        }
        for unique in &version.def.uniques {
            match check_unique(version, unique) {
                Ok(()) => {}
                // Which key it is the tenant sees with a query; here it would get into a log.
                Err(StoreError::UniqueViolation { constraint, .. }) => {
                    let what = format!("two rows have the same key of constraint \"{constraint}\"");
                    self.table(version, what, "delete one of them by its other columns");
                }
                Err(error) => self.failed(&error, "", None),
            }
        }
    }

    pub(super) fn table(&mut self, version: &TableVersion, what: String, consequence: &str) {
        let what = format!("table \"{}\" ({}): {what}", version.def.shown_name(), version.def.id);
        let file = show(self.context.paths.root());
        self.found(Finding::new(Severity::Error, file, what, consequence));
    }
}
