//! Foreign keys: whether the rows that refer to others have them.
//!
//! A session holds every write against them. A repair does not: rows that it gives up may be referred to.

use std::sync::Arc;

use arrow::{array::Array, compute};
use sepal_types::ForeignKeyDef;

use super::Examination;
use crate::{StoreError, TableVersion, arrow_type, store::load::Opened};

impl Examination<'_> {
    pub(super) fn references(&mut self, opened: &Opened, version: &TableVersion) {
        let keys = &version.def.constraints.foreign_keys;
        // Of one that is not validated nothing is said of older rows.
        for key in keys.iter().filter(|key| !key.not_valid) {
            match dangling(version, opened.state.tables.get(&key.parent), key) {
                Ok(0) => {}
                Ok(rows) => {
                    let what = format!("{rows} rows refer to none by foreign key \"{}\"", key.name);
                    self.table(version, what, "delete them, or insert what they refer to");
                }
                Err(error) => self.failed(&error, "", None),
            }
        }
    }
}

/// How many live rows have a key without NULLs that no row of the other table has.
fn dangling(
    version: &TableVersion,
    parent: Option<&Arc<TableVersion>>,
    key: &ForeignKeyDef,
) -> Result<u64, StoreError> {
    let lost = || StoreError::Bug(format!("foreign key \"{}\" refers to what is not there", key.name));
    let parent = parent.ok_or_else(lost)?;
    let unique = parent.def.uniques.iter().find(|unique| unique.id == key.key).ok_or_else(lost)?;
    // As the constraint that is referred to has its columns.
    let mut columns = Vec::with_capacity(unique.columns.len());
    for id in &unique.columns {
        let place = key.parent_columns.iter().position(|referred| referred == id);
        let own = place.and_then(|place| key.columns.get(place));
        let own = own.and_then(|own| version.def.column_by_id(*own)).ok_or_else(lost)?;
        columns.push((own, arrow_type(&parent.def.column_by_id(*id).ok_or_else(lost)?.ty)));
    }
    let mut rows = 0;
    for reference in version.chunks.iter().filter(|reference| reference.live_rows() > 0) {
        let own = columns.iter().map(|(column, _)| reference.chunk.column(column));
        let own = own.collect::<Result<Vec<_>, _>>()?;
        // A number that the other column cannot hold becomes NULL, and is not found.
        let wanted = own.iter().zip(&columns).map(|(array, (_, ty))| compute::cast(array, ty));
        let found = parent.lookup_unique(unique, &wanted.collect::<Result<Vec<_>, _>>()?)?;
        for (position, found) in (0_u32..).zip(&found) {
            let refers = || own.iter().all(|array| array.is_valid(position as usize));
            if found.is_none() && !reference.deleted.contains(position) && refers() {
                rows += 1;
            }
        }
    }
    Ok(rows)
}
