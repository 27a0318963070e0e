//! A segment's file to columns.
//!
//! Called by `chunk::sealed`, which caches what comes out. Reads whole columns only. parquet-rs may panic on bytes
//! that were cut or changed (it indexes before it authenticates), so every call into it is caught and becomes
//! [`StoreError::Corrupt`]. Never writes.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use arrow::{
    array::{Array, ArrayRef},
    datatypes::{DataType, Schema},
};
use bytes::{Buf, Bytes};
use parquet::{
    arrow::{
        ProjectionMask,
        arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder},
    },
    encryption::decrypt::FileDecryptionProperties,
    errors::ParquetError,
    file::reader::{ChunkReader, Length},
};
use sepal_types::ColumnId;

use super::{Identity, ROW_ID, layout};
use crate::{
    StoreError,
    arrow_types::stored_name,
    disk::{io_error, read_error},
    paths::show,
};

/// A segment's footer, opened once. It holds key material: it lives as long as its chunk and no longer.
pub(crate) struct Footer {
    metadata: ArrowReaderMetadata,
    rows: u32,
}

impl Footer {
    /// Opens the footer and checks it against what the manifest says.
    pub(crate) fn open(path: &Path, identity: &Identity, rows: u32, bytes: u64) -> Result<Self, StoreError> {
        crate::blob::check_length(path, bytes)?;
        let metadata = guarded(path, || {
            let decryption = FileDecryptionProperties::builder(identity.key.expose().to_vec())
                .with_aad_prefix(identity.aad_prefix())
                .build()?;
            let options = ArrowReaderOptions::new().with_file_decryption_properties(decryption);
            ArrowReaderMetadata::load(&File::open(path)?, options)
        })?;
        let found = metadata.metadata().file_metadata().num_rows();
        if found != i64::from(rows) {
            return Err(StoreError::corrupt(&show(path), format!("{found} rows, the manifest says {rows}")));
        }
        Ok(Self { metadata, rows })
    }

    /// The row ids, as `UInt64`.
    pub(crate) fn row_ids(&self, path: &Path) -> Result<ArrayRef, StoreError> {
        let column = self.read(path, ROW_ID)?;
        column.ok_or_else(|| StoreError::corrupt(&show(path), "no column of row ids"))
    }

    /// A column as `wanted`; `None` when the segment is older than the column.
    pub(crate) fn column(
        &self,
        path: &Path,
        column: ColumnId,
        wanted: &DataType,
    ) -> Result<Option<ArrayRef>, StoreError> {
        let Some(stored) = self.read(path, &stored_name(column))? else { return Ok(None) };
        let restored = layout::from_stored(&stored, wanted)
            .map_err(|why| StoreError::corrupt(&show(path), format!("column {column}: {why}")))?;
        Ok(Some(restored))
    }

    fn read(&self, path: &Path, name: &str) -> Result<Option<ArrayRef>, StoreError> {
        let schema: &Schema = self.metadata.schema();
        let Ok(root) = schema.index_of(name) else { return Ok(None) };
        let regions = self.regions(path, root)?;
        let array = guarded(path, || {
            let mask = ProjectionMask::roots(self.metadata.parquet_schema(), [root]);
            let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(regions, self.metadata.clone())
                .with_projection(mask)
                .with_batch_size(self.rows as usize)
                .build()?;
            let batches = reader.collect::<Result<Vec<_>, _>>()?;
            let arrays: Vec<&dyn Array> = batches.iter().map(|batch| batch.column(0).as_ref()).collect();
            match batches.as_slice() {
                [single] => Ok(single.column(0).clone()),
                _ => Ok(arrow::compute::concat(&arrays)?),
            }
        })?;
        if array.len() != self.rows as usize {
            let why = format!("{} rows in column {name}, {} in the footer", array.len(), self.rows);
            return Err(StoreError::corrupt(&show(path), why));
        }
        Ok(Some(array))
    }

    /// Reads the column's bytes, one read per row group: parquet-rs itself would read page by page.
    fn regions(&self, path: &Path, root: usize) -> Result<Regions, StoreError> {
        let file = File::open(path).map_err(|error| read_error(path, &error))?;
        let length = file.metadata().map_err(|error| io_error("read", path, &error))?.len();
        let schema = self.metadata.parquet_schema();
        let mut parts = Vec::new();
        for group in self.metadata.metadata().row_groups() {
            for (leaf, column) in group.columns().iter().enumerate() {
                if schema.get_column_root_idx(leaf) != root {
                    continue;
                }
                let start = column.dictionary_page_offset().unwrap_or_else(|| column.data_page_offset());
                let range = u64::try_from(start).ok().zip(u64::try_from(column.compressed_size()).ok());
                let inside =
                    range.filter(|(start, size)| start.checked_add(*size).is_some_and(|end| end <= length));
                let Some((start, size)) = inside else {
                    return Err(StoreError::corrupt(&show(path), "a column lies outside the file"));
                };
                let mut bytes = vec![0; usize::try_from(size).unwrap_or(usize::MAX)];
                file.read_exact_at(&mut bytes, start).map_err(|error| io_error("read", path, &error))?;
                parts.push((start, Bytes::from(bytes)));
            }
        }
        Ok(Regions { length, parts })
    }
}

fn guarded<T>(path: &Path, read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, StoreError> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(StoreError::corrupt(&show(path), error.to_string())),
        Err(_) => Err(StoreError::corrupt(&show(path), "its structure is broken")),
    }
}

/// The parts of a file that were read, at their offsets.
struct Regions {
    length: u64,
    parts: Vec<(u64, Bytes)>,
}

impl Regions {
    fn from(&self, start: u64) -> Result<Bytes, ParquetError> {
        let inside =
            |(offset, bytes): &&(u64, Bytes)| start >= *offset && start < *offset + bytes.len() as u64;
        let found = self.parts.iter().find(inside).and_then(|(offset, bytes)| {
            let skip = usize::try_from(start - offset).ok()?;
            Some(bytes.slice(skip..))
        });
        found.ok_or_else(|| ParquetError::General(format!("offset {start} is outside the column")))
    }
}

impl Length for Regions {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for Regions {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Ok(self.from(start)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let bytes = self.from(start)?;
        if length > bytes.len() {
            return Err(ParquetError::EOF(format!("{length} bytes at offset {start} run past the column")));
        }
        Ok(bytes.slice(..length))
    }
}
