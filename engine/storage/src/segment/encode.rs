//! Rows to the bytes of a segment's file: Parquet under modular encryption.
//!
//! Called by `write`, with rows in the order that they get. parquet-rs encodes the columns of a row group to a small file
//! in memory, in plaintext; its pages are sealed on their way into ours. Vectors, of which a segment consists for the most
//! part, do not go that way: their pages are their bytes, and are sealed from where they lie. Never opens or syncs a file.
//!
//! With nothing sealed (`null-cipher`) the same is a Parquet file without encryption.

use std::{io, mem, path::Path, sync::Arc};

use arrow::{
    array::{Array, AsArray},
    datatypes::{DataType, Schema},
    record_batch::RecordBatch,
};
use parquet::{
    arrow::{ArrowWriter, arrow_writer::ArrowWriterOptions},
    basic::{Compression, Encoding},
    errors::ParquetError,
    file::{
        column_crypto_metadata::ColumnCryptoMetaData,
        metadata::{
            ColumnChunkMetaData, ColumnChunkMetaDataBuilder, FileMetaData, ParquetMetaData,
            ParquetMetaDataWriter, RowGroupMetaData,
        },
        properties::WriterProperties,
    },
};
use sepal_crypto::{MODULE_OVERHEAD_BYTES, Module, ModuleSealer, PageOf, SEALS};

use super::{
    Identity,
    layout::{self, MAX_COLUMN_BYTES, MAX_ROW_GROUP_BYTES, MAX_ROW_GROUP_ROWS, rows_per_page},
    read::SEALED_MAGIC,
    thrift::{self, PagePlace},
};
use crate::{
    StoreError,
    paths::show,
    pieces::{Pieces, runs},
    row_bytes::{array_bytes, longest_span, varying_bytes},
};

/// What follows the file's metadata: its length, and the magic.
const TAIL_BYTES: usize = 8;
/// Parquet numbers row groups, columns and pages of a sealed file in 16 bits with a sign.
const MAX_ORDINAL: usize = i16::MAX as usize;
/// How far the offsets of a column go in memory, which is read as one array.
const MAX_SPAN: u64 = i32::MAX as u64;

/// Bytes of the arrays that were written.
#[derive(Clone, Copy, Default)]
pub(super) struct PlainBytes {
    pub all: u64,
    /// Of columns whose values vary in length.
    pub variable: u64,
}

/// How far the offsets go of each column that was written.
struct Spans(Vec<u64>);

impl Spans {
    /// Errors: a column that no array could hold, so that it would never be read again.
    fn add(&mut self, rows: &RecordBatch) -> Result<(), Failure> {
        for (span, (array, field)) in
            self.0.iter_mut().zip(rows.columns().iter().zip(rows.schema_ref().fields()))
        {
            *span += longest_span(array.as_ref()) as u64;
            if *span > MAX_SPAN {
                return Err(bug(format!("more than 2 GiB in column {}", field.name())));
            }
        }
        Ok(())
    }
}

/// Encodes and seals `batches`, which have `schema`, to `out`.
pub(super) fn encode(
    out: &mut Pieces<'_>,
    path: &Path,
    identity: &Identity,
    schema: &Arc<Schema>,
    batches: impl Iterator<Item = Result<RecordBatch, StoreError>>,
) -> Result<PlainBytes, StoreError> {
    let failed = |failure: Failure| match failure {
        Failure::Store(error) => error,
        Failure::Parquet(error) => {
            StoreError::Io { action: "write", file: show(path), why: error.to_string() }
        }
        Failure::Io(error) => crate::disk::io_error("write", path, &error),
    };
    let mut encoder = Encoder::new(out, identity, schema).map_err(failed)?;
    for batch in batches {
        encoder.add(batch?).map_err(failed)?;
    }
    encoder.finish().map_err(failed)
}

/// Why a file could not be made.
enum Failure {
    Store(StoreError),
    Parquet(ParquetError),
    /// The writer's, who tells of it.
    Io(io::Error),
}

impl From<ParquetError> for Failure {
    fn from(error: ParquetError) -> Self {
        Self::Parquet(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn bug(what: impl std::fmt::Display) -> Failure {
    Failure::Store(StoreError::Bug(format!("a segment that is written: {what}")))
}

/// How a column of the file is made.
#[derive(Clone, Copy)]
enum Leaf {
    /// Column `root` of the rows, whose values have `width` bytes each.
    Fixed { root: usize, width: usize },
    /// The next column of parquet-rs' file.
    Encoded(usize),
}

struct Encoder<'a, 'p> {
    file: Sealed<'a, 'p>,
    identity: &'a Identity,
    /// What the footer says of the file as a whole.
    about: FileMetaData,
    leaves: Vec<Leaf>,
    /// The columns of the rows that parquet-rs encodes.
    encoded: Vec<usize>,
    properties: WriterProperties,
    /// Rows of the next row group, and the bytes of their arrays.
    rows: Vec<RecordBatch>,
    row_bytes: usize,
    groups: Vec<Group>,
    plain: PlainBytes,
    spans: Spans,
    scratch: Vec<u8>,
}

struct Group {
    rows: usize,
    columns: Vec<Column>,
}

/// A column of a row group that was written, but for its indexes.
struct Column {
    chunk: ColumnChunkMetaDataBuilder,
    pages: Vec<PagePlace>,
    /// As the file has it; empty for none.
    column_index: Vec<u8>,
    /// Where the indexes are, once they are.
    column_index_at: Option<(i64, i32)>,
    offset_index_at: Option<(i64, i32)>,
    bytes: i64,
}

impl Column {
    fn build(self) -> Result<ColumnChunkMetaData, ParquetError> {
        let (column, offset) = (self.column_index_at, self.offset_index_at);
        self.chunk
            .set_column_index_offset(column.map(|(offset, _)| offset))
            .set_column_index_length(column.map(|(_, length)| length))
            .set_offset_index_offset(offset.map(|(offset, _)| offset))
            .set_offset_index_length(offset.map(|(_, length)| length))
            .build()
    }
}

impl<'a, 'p> Encoder<'a, 'p> {
    fn new(out: &'a mut Pieces<'p>, identity: &'a Identity, schema: &Arc<Schema>) -> Result<Self, Failure> {
        let properties = layout::writer_properties(schema).build();
        // A file without rows says what the one with all of them is to say of itself.
        let empty = ArrowWriter::try_new(Vec::new(), Arc::clone(schema), Some(properties.clone()))?;
        let about = empty.close()?.file_metadata().clone();
        let columns = about.schema_descr();
        let width = |root: usize| match schema.field(root).data_type() {
            DataType::FixedSizeBinary(width) if !schema.field(root).is_nullable() => {
                usize::try_from(*width).ok().filter(|width| *width > 0)
            }
            _ => None,
        };
        let mut others = 0..;
        let leaves = (0..columns.num_columns()).filter_map(|leaf| {
            let root = columns.get_column_root_idx(leaf);
            let fixed = width(root).map(|width| Leaf::Fixed { root, width });
            fixed.or_else(|| others.next().map(Leaf::Encoded))
        });
        let leaves = leaves.collect();
        let encoded = (0..schema.fields().len()).filter(|root| width(*root).is_none()).collect();
        let mut file = Sealed { out, offset: 0, sealer: sealer(identity) };
        file.put(&SEALED_MAGIC)?;
        Ok(Self {
            file,
            identity,
            about,
            leaves,
            encoded,
            properties,
            rows: Vec::new(),
            row_bytes: 0,
            groups: Vec::new(),
            plain: PlainBytes::default(),
            spans: Spans(vec![0; schema.fields().len()]),
            scratch: Vec::new(),
        })
    }

    fn add(&mut self, rows: RecordBatch) -> Result<(), Failure> {
        self.spans.add(&rows)?;
        for array in rows.columns() {
            let bytes = array_bytes(array.as_ref());
            self.row_bytes += bytes;
            self.plain.all += bytes as u64;
            self.plain.variable += varying_bytes(array.as_ref()) as u64;
        }
        let count = self.rows.iter().map(RecordBatch::num_rows).sum::<usize>() + rows.num_rows();
        self.rows.push(rows);
        let most = MAX_ROW_GROUP_BYTES.max(self.leaves.len() * MAX_COLUMN_BYTES);
        if self.row_bytes >= most || count >= MAX_ROW_GROUP_ROWS { self.end_group() } else { Ok(()) }
    }

    fn end_group(&mut self) -> Result<(), Failure> {
        let batches = mem::take(&mut self.rows);
        self.row_bytes = 0;
        let rows = batches.iter().map(RecordBatch::num_rows).sum();
        if rows == 0 {
            return Ok(());
        }
        if self.groups.len() > MAX_ORDINAL || self.leaves.len() > MAX_ORDINAL {
            return Err(bug("more row groups or columns than Parquet can number"));
        }
        let (bytes, made) = self.encoded(&batches)?;
        let mut columns = Vec::with_capacity(self.leaves.len());
        for number in 0..self.leaves.len() {
            let of = PageOf { row_group: self.groups.len() as u16, column: number as u16, page: 0 };
            columns.push(match self.leaves[number] {
                Leaf::Fixed { root, width } => self.fixed(of, &batches, root, width)?,
                Leaf::Encoded(leaf) => self.sealed(of, &bytes, &made, leaf)?,
            });
        }
        self.groups.push(Group { rows, columns });
        Ok(())
    }

    /// One row group, of the columns that parquet-rs encodes, as a file of its own.
    fn encoded(&self, batches: &[RecordBatch]) -> Result<(Vec<u8>, ParquetMetaData), Failure> {
        let projected = batches.iter().map(|rows| rows.project(&self.encoded));
        let projected = projected.collect::<Result<Vec<_>, _>>().map_err(ParquetError::from)?;
        let schema = projected.first().ok_or_else(|| bug("a row group without rows"))?.schema();
        let mut bytes = Vec::new();
        let options =
            ArrowWriterOptions::new().with_properties(self.properties.clone()).with_skip_arrow_metadata(true);
        let mut writer = ArrowWriter::try_new_with_options(&mut bytes, schema, options)?;
        for rows in &projected {
            writer.write(rows)?;
        }
        let made = writer.close()?;
        if made.num_row_groups() != 1 {
            return Err(bug("parquet-rs made several row groups of one"));
        }
        Ok((bytes, made))
    }

    /// Pages of values as they lie in memory.
    fn fixed(
        &mut self,
        mut of: PageOf,
        batches: &[RecordBatch],
        root: usize,
        width: usize,
    ) -> Result<Column, Failure> {
        let mut parts = Vec::with_capacity(batches.len());
        for rows in batches {
            let array = rows.column(root).as_fixed_size_binary();
            let values = array.value_data().get(..array.len() * width);
            parts.push(values.ok_or_else(|| bug("an array shorter than its rows"))?);
        }
        let (begin, mut first_row, mut pages, mut plain) = (self.file.offset, 0, Vec::new(), 0_i64);
        let mut scratch = mem::take(&mut self.scratch);
        runs(&parts, rows_per_page(width) * width, &mut scratch, |values, _| {
            let stored = number(stored_bytes(values.len()))?;
            let header =
                thrift::data_page_header(number(values.len() / width)?, number(values.len())?, stored);
            let offset = self.file.offset;
            self.file.module(Module::DataPageHeader, of, &header)?;
            self.file.module(Module::DataPage, of, values)?;
            pages.push(self.file.place(offset, first_row)?);
            plain += (stored_bytes(header.len()) + values.len()) as i64;
            first_row += (values.len() / width) as i64;
            of.page = next_page(of.page)?;
            Ok::<(), Failure>(())
        })?;
        self.scratch = scratch;
        let chunk = ColumnChunkMetaData::builder(self.about.schema_descr().column(of.column.into()))
            .set_encodings(vec![Encoding::PLAIN, Encoding::RLE])
            .set_compression(Compression::UNCOMPRESSED)
            .set_num_values(first_row)
            .set_total_uncompressed_size(plain)
            .set_data_page_offset(begin.cast_signed());
        Ok(self.column(chunk, begin, pages, Vec::new()))
    }

    /// The pages that parquet-rs has made of a column: `bytes` and `made` are its file.
    fn sealed(
        &mut self,
        mut of: PageOf,
        bytes: &[u8],
        made: &ParquetMetaData,
        leaf: usize,
    ) -> Result<Column, Failure> {
        let strange = || bug("parquet-rs' file is not as it was");
        let slice = |offset: i64, length: i64| {
            let begin = usize::try_from(offset).ok()?;
            bytes.get(begin..begin.checked_add(usize::try_from(length).ok()?)?)
        };
        let of_file = made.row_group(0).column(leaf);
        let index = made.offset_index().and_then(|groups| groups.first()?.get(leaf)).ok_or_else(strange)?;
        let begin = self.file.offset;
        let mut chunk = of_file.clone().into_builder();
        if let Some(dictionary) = of_file.dictionary_page_offset() {
            let page = slice(dictionary, of_file.data_page_offset() - dictionary).ok_or_else(strange)?;
            chunk = chunk.set_dictionary_page_offset(Some(begin.cast_signed()));
            self.page(Module::DictionaryPageHeader, Module::DictionaryPage, of, page)?;
        }
        chunk = chunk.set_data_page_offset(self.file.offset.cast_signed());
        // With the headers as they are stored, by convention.
        let headers = index.page_locations().len() + usize::from(of_file.dictionary_page_offset().is_some());
        let plain = of_file.uncompressed_size() + (headers * stored_bytes(0)) as i64;
        chunk = chunk.set_total_uncompressed_size(plain);
        let mut pages = Vec::new();
        for location in index.page_locations() {
            let page = slice(location.offset, location.compressed_page_size.into()).ok_or_else(strange)?;
            let offset = self.file.offset;
            self.page(Module::DataPageHeader, Module::DataPage, of, page)?;
            pages.push(self.file.place(offset, location.first_row_index)?);
            of.page = next_page(of.page)?;
        }
        let column_index = match of_file.column_index_offset().zip(of_file.column_index_length()) {
            Some((offset, length)) => slice(offset, length.into()).ok_or_else(strange)?.to_vec(),
            None => Vec::new(),
        };
        Ok(self.column(chunk, begin, pages, column_index))
    }

    /// A page of parquet-rs, whose header is to say how long it is when it is sealed.
    fn page(&mut self, header: Module, values: Module, of: PageOf, page: &[u8]) -> Result<(), Failure> {
        let stored = |bytes: usize| i32::try_from(stored_bytes(bytes)).unwrap_or(i32::MAX);
        let (length, resized) =
            thrift::resized(page, stored).ok_or_else(|| bug("parquet-rs' page has another header"))?;
        self.file.module(header, of, &resized)?;
        Ok(self.file.module(values, of, &page[length..])?)
    }

    fn column(
        &self,
        chunk: ColumnChunkMetaDataBuilder,
        begin: u64,
        pages: Vec<PagePlace>,
        column_index: Vec<u8>,
    ) -> Column {
        let bytes = (self.file.offset - begin).cast_signed();
        let crypto = SEALS.then_some(ColumnCryptoMetaData::ENCRYPTION_WITH_FOOTER_KEY);
        let chunk = chunk.set_total_compressed_size(bytes).set_column_crypto_metadata(crypto);
        Column { chunk, pages, column_index, column_index_at: None, offset_index_at: None, bytes }
    }

    /// The last row group, the indexes and the footer.
    fn finish(mut self) -> Result<PlainBytes, Failure> {
        self.end_group()?;
        let Self { mut file, identity, about, mut groups, plain, .. } = self;
        index(&mut file, &mut groups)?;
        let rows = groups.iter().map(|group| group.rows as i64).sum();
        let groups = groups.into_iter().zip(0..).map(|(group, ordinal)| {
            let bytes = group.columns.iter().map(|column| column.bytes).sum();
            let columns = group.columns.into_iter().map(Column::build);
            RowGroupMetaData::builder(about.schema_descr_ptr())
                .set_num_rows(group.rows as i64)
                .set_total_byte_size(bytes)
                .set_ordinal(ordinal)
                .set_column_metadata(columns.collect::<Result<_, _>>()?)
                .build()
        });
        let groups = groups.collect::<Result<Vec<_>, _>>()?;
        let about = FileMetaData::new(
            about.version(),
            rows,
            about.created_by().map(str::to_owned),
            about.key_value_metadata().cloned(),
            about.schema_descr_ptr(),
            about.column_orders().cloned(),
        );
        let mut footer = Vec::new();
        ParquetMetaDataWriter::new(&mut footer, &ParquetMetaData::new(about, groups)).finish()?;
        footer.truncate(footer.len().saturating_sub(TAIL_BYTES));
        file.end(identity, &footer)?;
        Ok(plain)
    }
}

/// Writes the columns' indexes behind all pages.
fn index(file: &mut Sealed<'_, '_>, groups: &mut [Group]) -> Result<(), Failure> {
    let mut write = |kind, (row_group, column), index: &[u8]| {
        let offset = file.offset;
        file.module(kind, PageOf { row_group, column, page: 0 }, index)?;
        Ok::<_, Failure>((offset.cast_signed(), number((file.offset - offset) as usize)?))
    };
    for (row_group, group) in (0..).zip(&mut *groups) {
        for (column, made) in (0..).zip(&mut group.columns) {
            if !made.column_index.is_empty() {
                let index = write(Module::ColumnIndex, (row_group, column), &made.column_index)?;
                made.column_index_at = Some(index);
            }
        }
    }
    for (row_group, group) in (0..).zip(groups) {
        for (column, made) in (0..).zip(&mut group.columns) {
            let index = thrift::offset_index(&made.pages);
            made.offset_index_at = Some(write(Module::OffsetIndex, (row_group, column), &index)?);
        }
    }
    Ok(())
}

/// The file, as it is written from front to back.
struct Sealed<'a, 'p> {
    out: &'a mut Pieces<'p>,
    offset: u64,
    sealer: ModuleSealer,
}

fn sealer(identity: &Identity) -> ModuleSealer {
    ModuleSealer::new(&identity.key, &identity.aad_prefix())
}

/// Of what has `plain` bytes.
const fn stored_bytes(plain: usize) -> usize {
    if SEALS { plain + MODULE_OVERHEAD_BYTES } else { plain }
}

fn number(bytes: usize) -> Result<i32, Failure> {
    i32::try_from(bytes).map_err(|_| bug("a part of 2 GiB"))
}

fn next_page(page: u16) -> Result<u16, Failure> {
    let next = usize::from(page) + 1;
    if next > MAX_ORDINAL { Err(bug("more pages than Parquet can number")) } else { Ok(next as u16) }
}

impl Sealed<'_, '_> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.put(bytes)?;
        self.offset += bytes.len() as u64;
        Ok(())
    }

    fn module(&mut self, module: Module, of: PageOf, plain: &[u8]) -> io::Result<()> {
        let stored = stored_bytes(plain.len());
        let space = self.out.space(stored)?;
        if SEALS {
            self.sealer.seal(module, of, plain, space);
        } else {
            space.copy_from_slice(plain);
        }
        self.offset += stored as u64;
        Ok(())
    }

    /// Of the page that begins at `offset` and ends here.
    fn place(&self, offset: u64, first_row: i64) -> Result<PagePlace, Failure> {
        let bytes = number((self.offset - offset) as usize)?;
        Ok(PagePlace { offset: offset.cast_signed(), bytes, first_row })
    }

    fn end(&mut self, identity: &Identity, footer: &[u8]) -> Result<(), Failure> {
        let begin = self.offset;
        if SEALS {
            let crypto = thrift::file_crypto_metadata(self.sealer.unique(), identity.file.as_bytes());
            self.put(&crypto)?;
        }
        self.module(Module::Footer, PageOf::default(), footer)?;
        let length = number((self.offset - begin) as usize)?;
        self.put(&length.to_le_bytes())?;
        Ok(self.put(&SEALED_MAGIC)?)
    }
}

#[cfg(test)]
mod tests;
