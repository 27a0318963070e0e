//! A run: rows that lie one behind the other, read for one who wants each of them once.
//!
//! Called by `chunk::sealed` for scans of more than memory should hold. A run is whole row groups where that is not too
//! much: pages are decoded once then. It may begin and end within one, where the pages are read that its rows lie on.
//! Never caches rows. What `read` says of parquet-rs holds here too.

use std::{ops::Range, path::Path};

use arrow::{
    array::{Array, ArrayRef},
    datatypes::DataType,
};
use parquet::{
    basic::Type,
    file::metadata::{ColumnChunkMetaData, RowGroupMetaData},
};
use sepal_types::ColumnId;

use super::{
    Footer, ROW_ID, layout,
    opened::Opened,
    read::{fixed_array, guarded},
    rows::{Place, rows_of_group},
    space::RunSpace,
};
use crate::{StoreError, arrow_types::stored_name, disk::Disk, paths::show};

/// A row group is read in parts if it is more than so many times what a run may be.
const LARGE: usize = 2;
/// Parts have a multiple of so many rows.
const PART_ROWS: u32 = 64;

/// Rows of a chunk that are read together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    pub rows: Range<u32>,
    /// What its columns take decoded, about.
    pub bytes: usize,
}

impl Footer {
    /// The first of `rows`, as many as of these columns take up to `most_bytes`, or twice that where a row group ends
    /// there; one at least. `None` is the row ids.
    ///
    /// Errors: [`StoreError::Corrupt`] when the file has no such rows.
    pub(crate) fn run(
        &self,
        path: &Path,
        columns: &[Option<ColumnId>],
        rows: Range<u32>,
        most_bytes: usize,
    ) -> Result<Run, StoreError> {
        let leaves = self.leaves(columns);
        let (mut end, mut bytes, mut first) = (rows.start, 0_usize, 0_u32);
        for group in self.metadata.metadata().row_groups() {
            let behind = first.saturating_add(row_count(group));
            let here = rows.start.max(first)..rows.end.min(behind);
            if !here.is_empty() {
                let all = leaves.iter().map(|leaf| decoded_bytes(group.column(*leaf)));
                let all = all.fold(0, usize::saturating_add);
                let share = |rows: usize| (all / row_count(group).max(1) as usize).saturating_mul(rows);
                let begun = end > rows.start;
                if all / LARGE > most_bytes {
                    if !begun {
                        let part = part_end(row_count(group), all / most_bytes.max(1), here.start - first);
                        end = here.end.min(first.saturating_add(part));
                        bytes = share((end - rows.start) as usize);
                    }
                    break;
                }
                if begun && bytes.saturating_add(share(here.len())) > most_bytes {
                    break;
                }
                (end, bytes) = (here.end, bytes.saturating_add(share(here.len())));
            }
            first = behind;
        }
        if end == rows.start {
            let why = format!("rows {} to {} are in none of its row groups", rows.start, rows.end);
            return Err(StoreError::corrupt(&show(path), why));
        }
        Ok(Run { rows: rows.start..end, bytes })
    }

    /// The row ids of a run, as `UInt64`.
    pub(crate) fn row_ids_run(
        &self,
        disk: &Disk,
        path: &Path,
        rows: &Range<u32>,
    ) -> Result<ArrayRef, StoreError> {
        let ids = self.stored_run(disk, path, ROW_ID, rows, &RunSpace::default())?;
        ids.ok_or_else(|| StoreError::corrupt(&show(path), "no column of row ids"))
    }

    /// A column of a run as `wanted`, in `space` where that is possible; `None` when the segment is older than the
    /// column.
    pub(crate) fn column_run(
        &self,
        disk: &Disk,
        path: &Path,
        (column, wanted): (ColumnId, &DataType),
        rows: &Range<u32>,
        space: &RunSpace,
    ) -> Result<Option<ArrayRef>, StoreError> {
        let stored = self.stored_run(disk, path, &stored_name(column), rows, space)?;
        let Some(stored) = stored else { return Ok(None) };
        let restored = layout::from_stored(&stored, wanted)
            .map_err(|why| StoreError::corrupt(&show(path), format!("column {column}: {why}")))?;
        Ok(Some(restored))
    }

    /// The columns of the file that these are made of.
    fn leaves(&self, columns: &[Option<ColumnId>]) -> Vec<usize> {
        let name = |column: &Option<ColumnId>| column.map_or_else(|| ROW_ID.to_owned(), stored_name);
        let names: Vec<String> = columns.iter().map(name).collect();
        let schema = self.metadata.parquet_schema();
        let wanted = |leaf: &usize| names.iter().any(|name| name == schema.get_column_root(*leaf).name());
        (0..schema.num_columns()).filter(wanted).collect()
    }

    fn stored_run(
        &self,
        disk: &Disk,
        path: &Path,
        name: &str,
        rows: &Range<u32>,
        space: &RunSpace,
    ) -> Result<Option<ArrayRef>, StoreError> {
        let Ok(root) = self.metadata.schema().index_of(name) else { return Ok(None) };
        let rows = rows.start as usize..rows.end as usize;
        let file = Opened::new(disk, path)?;
        let fixed = match self.metadata.schema().field(root).data_type() {
            DataType::FixedSizeBinary(width) => self.fixed(disk, path, root)?.zip(Some(*width)),
            _ => None,
        };
        let array = match fixed {
            Some((column, width)) => fixed_array(path, width, column.read_run(&file, &rows, space)?, None)?,
            None => self.decoded_run(disk, &file, root, &rows)?,
        };
        if array.len() != rows.len() {
            let why = format!("{} rows of column {name} where {} were read", array.len(), rows.len());
            return Err(file.damaged(why));
        }
        Ok(Some(array))
    }

    /// By way of parquet-rs: row groups that are wanted as a whole together, parts of others by their pages.
    fn decoded_run(
        &self,
        disk: &Disk,
        file: &Opened<'_>,
        root: usize,
        rows: &Range<usize>,
    ) -> Result<ArrayRef, StoreError> {
        let mut parts: Vec<ArrayRef> = Vec::new();
        let mut whole: Option<Range<usize>> = None;
        let mut first = 0;
        for (group, meta) in self.metadata.metadata().row_groups().iter().enumerate() {
            let behind = first + row_count(meta) as usize;
            let here = rows.start.max(first)..rows.end.min(behind);
            if !here.is_empty() && here == (first..behind) {
                whole = Some(whole.map_or(group, |groups| groups.start)..group + 1);
            } else if !here.is_empty() {
                if let Some(groups) = whole.take() {
                    parts.extend(self.whole_groups(disk, file.path, root, groups)?);
                }
                let part = std::iter::once(here.start - first..here.end - first);
                let paged = self.paged(disk, file.path)?;
                parts.extend(rows_of_group(paged, file, Place { group, root }, part)?);
            }
            first = behind;
        }
        if let Some(groups) = whole {
            parts.extend(self.whole_groups(disk, file.path, root, groups)?);
        }
        if let [one] = parts.as_slice() {
            return Ok(ArrayRef::clone(one));
        }
        let arrays: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
        guarded(file.path, || Ok(arrow::compute::concat(&arrays)?))
    }

    fn whole_groups(
        &self,
        disk: &Disk,
        path: &Path,
        root: usize,
        groups: Range<usize>,
    ) -> Result<Vec<ArrayRef>, StoreError> {
        let regions = self.regions(disk, path, root, groups.clone(), Vec::new())?;
        let metas = &self.metadata.metadata().row_groups()[groups.clone()];
        let rows: usize = metas.iter().map(|group| row_count(group) as usize).sum();
        guarded(path, || {
            let batches = self.reader(regions, root, groups, rows)?.collect::<Result<Vec<_>, _>>()?;
            Ok(batches.iter().map(|batch| ArrayRef::clone(batch.column(0))).collect())
        })
    }
}

fn row_count(group: &RowGroupMetaData) -> u32 {
    u32::try_from(group.num_rows()).unwrap_or(0)
}

/// Where the part ends that has row `at` of a row group, which is cut into about as many of one length as told.
fn part_end(rows: u32, parts: usize, at: u32) -> u32 {
    let parts = u32::try_from(parts).unwrap_or(u32::MAX).saturating_add(1);
    let step = rows.div_ceil(parts).div_ceil(PART_ROWS).max(1).saturating_mul(PART_ROWS);
    (at / step + 1).saturating_mul(step)
}

/// What a column of a row group takes in memory, about: what is said of it in the footer is by values, and of those of
/// no fixed length what they are before a dictionary stands for them.
fn decoded_bytes(column: &ColumnChunkMetaData) -> usize {
    let described = column.column_descr();
    let (width, variable) = match described.physical_type() {
        Type::BOOLEAN => (1, 0),
        Type::INT32 | Type::FLOAT => (4, 0),
        Type::INT64 | Type::DOUBLE => (8, 0),
        Type::INT96 => (12, 0),
        Type::FIXED_LEN_BYTE_ARRAY => (usize::try_from(described.type_length()).unwrap_or(0), 0),
        // An offset each.
        Type::BYTE_ARRAY => {
            (4, column.unencoded_byte_array_data_bytes().unwrap_or_else(|| column.uncompressed_size()))
        }
    };
    let values = usize::try_from(column.num_values()).unwrap_or(0);
    width.saturating_mul(values).saturating_add(usize::try_from(variable).unwrap_or(0))
}

#[cfg(test)]
mod tests;
