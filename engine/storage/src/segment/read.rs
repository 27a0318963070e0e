//! A segment's file to columns.
//!
//! Called by `chunk::sealed`, which caches what comes out. Reads whole columns; `rows` and `run` read some rows of one,
//! `pages` both where values stand as they are. Never writes. parquet-rs is not trusted with the file:
//!
//! - It takes a plaintext footer ("PAR1") for a file without encryption, whatever key it is given, and would serve
//!   anybody's rows as ours. So the footer is read here, refused unless it is sealed, and every column that it
//!   names must be sealed under the file's key. What is read later is authenticated page by page, because the
//!   footer that was opened says so.
//! - It may panic on bytes that were cut or changed, because it indexes before it authenticates. So every call
//!   into it is caught and becomes [`StoreError::Corrupt`].
//! - It takes memory by the length that a page's header says in plaintext, up to 4 GiB of it, before it opens that: what
//!   the allocator refuses ends the process. So it gets no pages whose lengths do not lead from one to the next.
//! - It only ever gets bytes that were read here: a read that fails is [`StoreError::Io`], not damage.

use std::{
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Arc, OnceLock},
};

use arrow::{
    array::{Array, ArrayRef, AsArray, FixedSizeBinaryArray, NullBufferBuilder},
    buffer::{Buffer, MutableBuffer, NullBuffer},
    datatypes::{DataType, Schema},
    record_batch::RecordBatch,
};
use bytes::{Buf, Bytes};
use parquet::{
    arrow::{
        ProjectionMask,
        arrow_reader::{
            ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
            ParquetRecordBatchReaderBuilder,
        },
    },
    encryption::decrypt::FileDecryptionProperties,
    errors::ParquetError,
    file::{
        column_crypto_metadata::ColumnCryptoMetaData,
        reader::{ChunkReader, Length},
    },
};
use sepal_crypto::{ModuleOpener, OpenError, SEALS};
use sepal_types::{ColumnId, advise_large};

use super::{
    Identity, ROW_ID, layout,
    opened::Opened,
    pages::{FixedLeaf, fixed_leaves, unique_of_file},
};
use crate::{StoreError, arrow_types::stored_name, blob::wrong_length, disk::Disk, paths::show};

/// What a file with a sealed footer begins and ends with.
pub(super) const SEALED_MAGIC: [u8; 4] = if SEALS { *b"PARE" } else { *b"PAR1" };
/// Decoded at a time where values are copied on: they stay in the processor's cache.
const DECODED_BYTES: usize = 512 << 10;
/// Of the processor's cache: vectors begin where one does.
pub(super) const LINE_BYTES: usize = 64;
/// The footer's length and the magic.
const TAIL_BYTES: usize = 8;

/// A segment's footer, opened once. It holds key material: parquet-rs' own copy of the key, which is not wiped, and the
/// opener's, which is. They live as long as its chunk and no longer.
pub(crate) struct Footer {
    pub(super) metadata: ArrowReaderMetadata,
    /// The same with the places of all pages, once somebody read vectors or some rows only.
    pub(super) paged: OnceLock<ArrowReaderMetadata>,
    /// Opens pages without parquet-rs, where the file says what that takes in the way that ours do.
    pub(super) opener: Option<ModuleOpener>,
    /// By column, those whose pages need no more than that.
    pub(super) fixed_leaves: Vec<Option<FixedLeaf>>,
    rows: u32,
}

impl Footer {
    /// Opens the footer and checks it against what the manifest says.
    pub(crate) fn open(
        disk: &Disk,
        path: &Path,
        identity: &Identity,
        rows: u32,
        bytes: u64,
    ) -> Result<Self, StoreError> {
        let footer = sealed_footer(disk, path, bytes)?;
        let metadata = guarded(path, || {
            let decryption = FileDecryptionProperties::builder(identity.key.expose().to_vec())
                .with_aad_prefix(identity.aad_prefix())
                .build()?;
            let options = match SEALS {
                true => ArrowReaderOptions::new().with_file_decryption_properties(decryption),
                false => ArrowReaderOptions::new(),
            };
            ArrowReaderMetadata::load(&footer, options)
        })?;
        let mut columns = metadata.metadata().row_groups().iter().flat_map(|group| group.columns());
        let sealed = columns.all(|column| {
            matches!(column.crypto_metadata(), Some(ColumnCryptoMetaData::ENCRYPTION_WITH_FOOTER_KEY))
        });
        if !sealed && SEALS {
            return Err(StoreError::corrupt(&show(path), "a column is not sealed under the file's key"));
        }
        let found = metadata.metadata().file_metadata().num_rows();
        if found != i64::from(rows) {
            return Err(StoreError::corrupt(&show(path), format!("{found} rows, the manifest says {rows}")));
        }
        let unique = match SEALS {
            true => footer.parts.first().and_then(|(_, bytes)| unique_of_file(bytes)),
            false => Some(&[][..]),
        };
        let opener = unique.map(|unique| ModuleOpener::new(&identity.key, &identity.aad_prefix(), unique));
        let fixed_leaves = fixed_leaves(&metadata);
        Ok(Self { metadata, paged: OnceLock::new(), opener, fixed_leaves, rows })
    }

    /// The row ids, as `UInt64`.
    pub(crate) fn row_ids(&self, disk: &Disk, path: &Path) -> Result<ArrayRef, StoreError> {
        let column = self.read(disk, path, ROW_ID)?;
        column.ok_or_else(|| StoreError::corrupt(&show(path), "no column of row ids"))
    }

    /// A column as `wanted`; `None` when the segment is older than the column.
    pub(crate) fn column(
        &self,
        disk: &Disk,
        path: &Path,
        column: ColumnId,
        wanted: &DataType,
    ) -> Result<Option<ArrayRef>, StoreError> {
        let Some(stored) = self.read(disk, path, &stored_name(column))? else { return Ok(None) };
        let restored = layout::from_stored(&stored, wanted)
            .map_err(|why| StoreError::corrupt(&show(path), format!("column {column}: {why}")))?;
        Ok(Some(restored))
    }

    /// Whether the file has the column; it may be older.
    pub(crate) fn has_column(&self, column: ColumnId) -> bool {
        self.metadata.schema().column_with_name(&stored_name(column)).is_some()
    }

    /// Every column that the file has, the row ids included.
    pub(crate) fn names(&self) -> Vec<String> {
        self.metadata.schema().fields().iter().map(|field| field.name().clone()).collect()
    }

    /// Whether a column can be read, whatever it means.
    pub(crate) fn check(&self, disk: &Disk, path: &Path, name: &str) -> Result<(), StoreError> {
        self.read(disk, path, name).map(drop)
    }

    /// Every column as it is stored, the row ids first.
    pub(super) fn stored(&self, disk: &Disk, path: &Path) -> Result<RecordBatch, StoreError> {
        let fields = self.metadata.schema().fields().clone();
        let mut columns = Vec::with_capacity(fields.len());
        for field in &fields {
            let column = self.read(disk, path, field.name())?;
            columns.push(column.ok_or_else(|| StoreError::corrupt(&show(path), "a column has no name"))?);
        }
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
    }

    fn read(&self, disk: &Disk, path: &Path, name: &str) -> Result<Option<ArrayRef>, StoreError> {
        let schema: &Schema = self.metadata.schema();
        let Ok(root) = schema.index_of(name) else { return Ok(None) };
        let groups = self.metadata.metadata().num_row_groups();
        let array = match schema.field(root).data_type() {
            DataType::FixedSizeBinary(width) => self.read_fixed(disk, path, root, *width)?,
            _ => {
                let regions = self.regions(disk, path, root, 0..groups, Vec::new())?;
                guarded(path, || {
                    let reader = self.reader(regions, root, 0..groups, self.rows as usize)?;
                    let batches = reader.collect::<Result<Vec<_>, _>>()?;
                    let arrays: Vec<&dyn Array> =
                        batches.iter().map(|batch| batch.column(0).as_ref()).collect();
                    match batches.as_slice() {
                        [single] => Ok(single.column(0).clone()),
                        _ => Ok(arrow::compute::concat(&arrays)?),
                    }
                })?
            }
        };
        if array.len() != self.rows as usize {
            let why = format!("{} rows in column {name}, {} in the footer", array.len(), self.rows);
            return Err(StoreError::corrupt(&show(path), why));
        }
        Ok(Some(array))
    }

    /// A column of values of one width, vectors for one: into one buffer, so that no second copy of gigabytes is in
    /// memory meanwhile.
    fn read_fixed(&self, disk: &Disk, path: &Path, root: usize, width: i32) -> Result<ArrayRef, StoreError> {
        let column = match self.fixed(disk, path, root) {
            // Of the rows nothing is lost where only the places of their pages are: they can be read one behind the other,
            // and so be written anew.
            Err(error @ StoreError::Corrupt { .. }) => {
                tracing::error!(%error, "a column is read without the places of its pages");
                None
            }
            found => found?,
        };
        let Some(column) = column else { return self.decode_fixed(disk, path, root, width) };
        let bytes = usize::try_from(width).ok().and_then(|width| width.checked_mul(self.rows as usize));
        let bytes = bytes.ok_or_else(|| StoreError::corrupt(&show(path), "values of no length"))?;
        // Pages of zeros are the kernel's gift, at the first touch; of memory that must be aligned they would be written.
        let mut values = vec![0; bytes + LINE_BYTES];
        advise_large(values.as_ptr(), values.len());
        let aligned = values.as_ptr().align_offset(LINE_BYTES).min(LINE_BYTES);
        column.read(&Opened::new(disk, path)?, &mut values[aligned..aligned + bytes])?;
        fixed_array(path, width, Buffer::from_vec(values).slice_with_length(aligned, bytes), None)
    }

    /// By way of parquet-rs, some rows at a time: what is decoded is still in the processor's cache when it is copied,
    /// and the buffer that row groups are read into is used again: faults of fresh pages cost more than all else here.
    fn decode_fixed(
        &self,
        disk: &Disk,
        path: &Path,
        root: usize,
        width: i32,
    ) -> Result<ArrayRef, StoreError> {
        let rows = self.rows as usize;
        let row_bytes = usize::try_from(width).unwrap_or(0).max(1);
        let mut values = MutableBuffer::with_capacity(rows * row_bytes);
        advise_large(values.as_ptr(), values.capacity());
        let mut nulls = NullBufferBuilder::new(rows);
        let mut space = Vec::new();
        for group in 0..self.metadata.metadata().num_row_groups() {
            let regions = self.regions(disk, path, root, group..group + 1, space)?;
            guarded(path, || {
                let at_once = (DECODED_BYTES / row_bytes).max(1);
                for batch in self.reader(regions.clone(), root, group..group + 1, at_once)? {
                    let batch = batch?;
                    let part = batch.column(0).as_fixed_size_binary_opt();
                    let part =
                        part.ok_or_else(|| ParquetError::General("a column of two types".to_owned()))?;
                    values.extend_from_slice(part.value_data());
                    match part.nulls() {
                        Some(found) => nulls.append_buffer(found),
                        None => nulls.append_n_non_nulls(part.len()),
                    }
                }
                Ok(())
            })?;
            space = regions.into_space();
        }
        fixed_array(path, width, values.into(), nulls.finish())
    }

    /// Decodes a column of some row groups, so many rows at a time.
    pub(super) fn reader(
        &self,
        regions: Regions,
        root: usize,
        groups: Range<usize>,
        rows: usize,
    ) -> Result<ParquetRecordBatchReader, ParquetError> {
        ParquetRecordBatchReaderBuilder::new_with_metadata(regions, self.metadata.clone())
            .with_projection(ProjectionMask::roots(self.metadata.parquet_schema(), [root]))
            .with_row_groups(groups.collect())
            .with_batch_size(rows)
            .build()
    }

    /// Reads the column's bytes, one read per row group, the first into `space`: parquet-rs itself would read page by page.
    pub(super) fn regions(
        &self,
        disk: &Disk,
        path: &Path,
        root: usize,
        groups: Range<usize>,
        mut space: Vec<u8>,
    ) -> Result<Regions, StoreError> {
        let file = Opened::new(disk, path)?;
        let schema = self.metadata.parquet_schema();
        let mut parts = Vec::new();
        for group in &self.metadata.metadata().row_groups()[groups] {
            for (leaf, column) in group.columns().iter().enumerate() {
                if schema.get_column_root_idx(leaf) != root {
                    continue;
                }
                let start = column.dictionary_page_offset().unwrap_or_else(|| column.data_page_offset());
                let span = start.checked_add(column.compressed_size()).and_then(|end| file.span(start, end));
                let span = span.ok_or_else(|| file.damaged("a column lies outside the file"))?;
                let mut bytes = std::mem::take(&mut space);
                file.read_into(&span, &mut bytes)?;
                parts.push((span.start, Bytes::from(bytes)));
            }
        }
        Regions { length: file.length, parts }.of_pages(&file)
    }
}

pub(super) fn fixed_array(
    path: &Path,
    width: i32,
    values: Buffer,
    nulls: Option<NullBuffer>,
) -> Result<ArrayRef, StoreError> {
    let array = FixedSizeBinaryArray::try_new(width, values, nulls);
    let array = array.map_err(|error| StoreError::corrupt(&show(path), error.to_string()))?;
    Ok(Arc::new(array))
}

/// The end of the file from its footer on, as it was checked: nothing reads it a second time.
///
/// Errors: damage when the file is not `bytes` long or its footer is not sealed.
fn sealed_footer(disk: &Disk, path: &Path, bytes: u64) -> Result<Regions, StoreError> {
    let file = Opened::new(disk, path)?;
    let length = file.length;
    if length != bytes {
        return Err(wrong_length(path, bytes, length));
    }
    let Some(tail_at) = length.checked_sub(TAIL_BYTES as u64) else {
        return Err(file.damaged("it is too short for a segment"));
    };
    let (mut head, mut tail) = ([0; SEALED_MAGIC.len()], [0; TAIL_BYTES]);
    file.read_exact_at(&mut head, 0)?;
    file.read_exact_at(&mut tail, tail_at)?;
    let footer_bytes = u32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]]);
    let start = tail_at.checked_sub(u64::from(footer_bytes));
    let start = start.filter(|start| *start >= head.len() as u64);
    let start = start.ok_or_else(|| file.damaged("its footer lies outside the file"))?;
    let mut footer = vec![0; footer_bytes as usize + TAIL_BYTES];
    file.read_exact_at(&mut footer, start)?;
    // Of the bytes that are handed on, not of those read first: the file may be changed in between.
    if head != SEALED_MAGIC || !footer.ends_with(&SEALED_MAGIC) || !footer.ends_with(&tail) {
        return Err(file.damaged("its footer is not sealed"));
    }
    Ok(Regions { length, parts: vec![(start, Bytes::from(footer))] })
}

/// Whether what the modules say of their lengths leads from the first to the end of the last.
fn are_modules(mut bytes: &[u8]) -> bool {
    while SEALS && !bytes.is_empty() {
        let Ok((_, rest)) = ModuleOpener::split(bytes) else { return false };
        bytes = rest;
    }
    true
}

/// `read` works on bytes that are in memory: whatever it fails with is damage.
pub(super) fn guarded<T>(
    path: &Path,
    read: impl FnOnce() -> Result<T, ParquetError>,
) -> Result<T, StoreError> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(StoreError::corrupt(&show(path), why(&error))),
        Err(_) => Err(StoreError::corrupt(&show(path), "its structure is broken")),
    }
}

/// Parquet passes on that a tag does not match by the name of its library's type.
fn why(error: &ParquetError) -> String {
    let text = error.to_string();
    if text.contains("ring::error::Unspecified") { OpenError::NotAuthentic.to_string() } else { text }
}

/// The parts of a file that were read, at their offsets.
#[derive(Clone)]
pub(super) struct Regions {
    pub(super) length: u64,
    pub(super) parts: Vec<(u64, Bytes)>,
}

impl Regions {
    /// Errors: damage where a part does not consist of modules, one behind the other.
    pub(super) fn of_pages(self, file: &Opened<'_>) -> Result<Self, StoreError> {
        match self.parts.iter().all(|(_, bytes)| are_modules(bytes)) {
            true => Ok(self),
            false => Err(file.damaged("its pages are not as long as they say")),
        }
    }

    /// The memory of the first part, if nobody reads it any more.
    fn into_space(self) -> Vec<u8> {
        let first = self.parts.into_iter().next().and_then(|(_, bytes)| bytes.try_into_mut().ok());
        first.map(Vec::from).unwrap_or_default()
    }

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
