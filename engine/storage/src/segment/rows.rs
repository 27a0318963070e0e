//! Some rows of a column: the pages that they lie on are read, and no others.
//!
//! Called by `chunk::sealed` for the few rows of more vectors than memory holds that a search scores: 64 KiB of them are a
//! page; by `run` for a part of a row group. Where the pages lie is told by the file's offset index, which is sealed
//! like the rest, read on first use, and stays with the footer: 24 bytes a page. Never caches rows. What `read` says of
//! parquet-rs holds here too.

use std::{ops::Range, path::Path, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, new_empty_array},
    buffer::Buffer,
    datatypes::DataType,
};
use parquet::{
    arrow::{
        ProjectionMask,
        arrow_reader::{
            ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection,
            RowSelectionPolicy,
        },
    },
    file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader},
};
use sepal_types::ColumnId;

use super::{
    Footer, layout,
    opened::Opened,
    read::{fixed_array, guarded},
};
use crate::{StoreError, arrow_types::stored_name, disk::Disk};

/// A row group, and a column of it.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub group: usize,
    pub root: usize,
}

impl Footer {
    /// The rows of a column at `positions`, which ascend, as `wanted`; `None` when the segment is older than the
    /// column.
    ///
    /// Errors: [`StoreError::Corrupt`] for a page that is damaged; those that nobody reads are not looked at.
    pub(crate) fn rows(
        &self,
        disk: &Disk,
        path: &Path,
        column: ColumnId,
        wanted: &DataType,
        positions: &[u32],
    ) -> Result<Option<ArrayRef>, StoreError> {
        let Ok(root) = self.metadata.schema().index_of(&stored_name(column)) else { return Ok(None) };
        if positions.is_empty() {
            return Ok(Some(new_empty_array(wanted)));
        }
        let file = Opened::new(disk, path)?;
        let fixed = match self.metadata.schema().field(root).data_type() {
            DataType::FixedSizeBinary(width) => self.fixed(disk, path, root)?.zip(Some(*width)),
            _ => None,
        };
        let stored = match fixed {
            Some((fixed, width)) => {
                fixed_array(path, width, Buffer::from_vec(fixed.rows(&file, positions)?), None)?
            }
            None => self.decoded_rows(disk, &file, root, positions)?,
        };
        if stored.len() != positions.len() {
            let why = format!("{} rows of column {column} where {} were read", stored.len(), positions.len());
            return Err(file.damaged(why));
        }
        let restored = layout::from_stored(&stored, wanted)
            .map_err(|why| file.damaged(format!("column {column}: {why}")))?;
        Ok(Some(restored))
    }

    /// Some rows as they are stored, by way of parquet-rs.
    fn decoded_rows(
        &self,
        disk: &Disk,
        file: &Opened<'_>,
        root: usize,
        positions: &[u32],
    ) -> Result<ArrayRef, StoreError> {
        let paged = self.paged(disk, file.path)?;
        let mut parts: Vec<ArrayRef> = Vec::new();
        let (mut first, mut rest) = (0, positions);
        for (group, meta) in paged.metadata().row_groups().iter().enumerate() {
            let end = first + u64::try_from(meta.num_rows()).unwrap_or(0);
            let (here, later) = rest.split_at(rest.partition_point(|position| u64::from(*position) < end));
            if !here.is_empty() {
                let rows = here.iter().map(|row| (u64::from(*row) - first) as usize).map(|row| row..row + 1);
                parts.extend(rows_of_group(paged, file, Place { group, root }, rows)?);
            }
            (first, rest) = (end, later);
        }
        let arrays: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
        guarded(file.path, || Ok(arrow::compute::concat(&arrays)?))
    }

    /// Whether the places of all pages can be read.
    pub(crate) fn check_places(&self, disk: &Disk, path: &Path) -> Result<(), StoreError> {
        self.paged(disk, path).map(drop)
    }

    /// What the footer says, with the places of all pages.
    pub(super) fn paged(&self, disk: &Disk, path: &Path) -> Result<&ArrowReaderMetadata, StoreError> {
        if let Some(paged) = self.paged.get() {
            return Ok(paged);
        }
        let file = Opened::new(disk, path)?;
        let metadata: &ParquetMetaData = self.metadata.metadata();
        let spans = metadata.row_groups().iter().flat_map(|group| group.columns()).map(|column| {
            let (start, bytes) = (column.offset_index_offset()?, column.offset_index_length()?);
            file.span(start, start.checked_add(i64::from(bytes))?)
        });
        // They stand one behind the other: one read, and what is between them does no harm.
        let spans: Option<Vec<Range<u64>>> = spans.collect();
        let all = spans.and_then(|spans| {
            spans.into_iter().reduce(|one, next| one.start.min(next.start)..one.end.max(next.end))
        });
        let outside = || file.damaged("its offset index is missing or outside the file");
        let region = file.read(&[all.ok_or_else(outside)?])?;
        let paged = guarded(path, || {
            let mut reader = ParquetMetaDataReader::new_with_metadata(metadata.clone())
                .with_column_index_policy(PageIndexPolicy::Skip)
                .with_offset_index_policy(PageIndexPolicy::Required);
            reader.read_page_indexes(&region)?;
            ArrowReaderMetadata::try_new(Arc::new(reader.finish()?), ArrowReaderOptions::new())
        })?;
        Ok(self.paged.get_or_init(|| paged))
    }
}

/// Some rows of a row group, counted from its first, in arrays one after the other. The ranges ascend; none is empty.
pub(super) fn rows_of_group(
    paged: &ArrowReaderMetadata,
    file: &Opened<'_>,
    place: Place,
    rows: impl Iterator<Item = Range<usize>> + Clone,
) -> Result<Vec<ArrayRef>, StoreError> {
    let spans = pages(paged, file, place, rows.clone());
    let spans = spans.ok_or_else(|| file.damaged("a page lies outside the file"))?;
    let regions = file.read(&spans)?.of_pages(file)?;
    guarded(file.path, || {
        let mask = ProjectionMask::roots(paged.parquet_schema(), [place.root]);
        let all = usize::try_from(paged.metadata().row_group(place.group).num_rows()).unwrap_or(0);
        let count: usize = rows.clone().map(|rows| rows.len()).sum();
        let selection = RowSelection::from_consecutive_ranges(rows, all);
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(regions, paged.clone())
            .with_projection(mask)
            .with_row_groups(vec![place.group])
            .with_row_selection(selection)
            // A mask over all rows would want the pages between, too.
            .with_row_selection_policy(RowSelectionPolicy::Selectors)
            .with_batch_size(count)
            .build()?;
        let batches = reader.collect::<Result<Vec<_>, _>>()?;
        Ok(batches.iter().map(|batch| Arc::clone(batch.column(0))).collect())
    })
}

/// Where the pages of some rows lie in the file, and the dictionary if there is one; neighbours as one. `None` when the
/// footer leads outside of the file.
fn pages(
    paged: &ArrowReaderMetadata,
    file: &Opened<'_>,
    place: Place,
    rows: impl Iterator<Item = Range<usize>> + Clone,
) -> Option<Vec<Range<u64>>> {
    let index = paged.metadata().offset_index()?.get(place.group)?;
    let mut spans: Vec<Range<u64>> = Vec::new();
    let mut add = |span: Range<u64>| match spans.last_mut() {
        Some(last) if last.end == span.start => last.end = span.end,
        _ => spans.push(span),
    };
    for (leaf, column) in paged.metadata().row_group(place.group).columns().iter().enumerate() {
        if paged.parquet_schema().get_column_root_idx(leaf) != place.root {
            continue;
        }
        let pages = index.get(leaf)?.page_locations();
        if let (Some(start), Some(first)) = (column.dictionary_page_offset(), pages.first()) {
            add(file.span(start, first.offset)?);
        }
        // Pages before it are added.
        let mut next = 0;
        for rows in rows.clone() {
            let (first, end) = (i64::try_from(rows.start).ok()?, i64::try_from(rows.end).ok()?);
            let begin = pages.partition_point(|page| page.first_row_index <= first).checked_sub(1)?;
            let behind = begin + pages[begin..].partition_point(|page| page.first_row_index < end);
            for page in pages.get(begin.max(next)..behind)? {
                add(file.span(page.offset, page.offset.checked_add(i64::from(page.compressed_page_size))?)?);
            }
            next = behind;
        }
    }
    Some(spans)
}

#[cfg(test)]
pub(super) mod tests;
