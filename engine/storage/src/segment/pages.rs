//! Columns whose values stand in their pages as they are: opened page by page, straight to where they are wanted.
//!
//! Called by `read` for whole columns of vectors, by `rows` and `run` for some of their rows. parquet-rs would open a
//! page into memory of its own, copy it from there to an array, and that array be copied to the column. Where a page
//! lies and which rows it has is told by the file's offset index, and how it is encoded by the footer: both are sealed,
//! and the seal of a page says which one it is. So nothing is taken from the page's own header; that it is whole is seen
//! all the same. Never decodes: a column with NULLs, a dictionary or compression is parquet-rs' to read.

use std::{
    mem,
    ops::Range,
    path::Path,
    sync::mpsc::{Receiver, SyncSender, TrySendError, channel, sync_channel},
    thread,
};

use arrow::{
    buffer::Buffer,
    datatypes::{DataType, Field},
};
use parquet::{
    arrow::arrow_reader::ArrowReaderMetadata,
    basic::{Compression, Encoding, Type},
    file::metadata::{ColumnChunkMetaData, ParquetMetaData},
};
use sepal_crypto::{MODULE_OVERHEAD_BYTES, Module, ModuleOpener, OpenError, PageOf, SEALS};

use super::{Footer, opened::Opened, space::RunSpace};
use crate::{StoreError, disk::Disk, pieces::APART_BYTES};

/// Read at once, if so much lies together: it is still in the processor's cache when it is opened.
const PIECE_BYTES: u64 = 256 << 10;
/// Pieces that were read and are not opened yet, at most.
const AHEAD: usize = 4;

/// A column that can be read so.
pub(super) struct FixedColumn<'a> {
    opener: &'a ModuleOpener,
    metadata: &'a ParquetMetaData,
    leaf: usize,
    row_bytes: usize,
}

/// Where in its file such a column is, and the bytes of a value.
#[derive(Clone, Copy)]
pub(super) struct FixedLeaf {
    leaf: usize,
    row_bytes: usize,
}

struct Page {
    of: PageOf,
    /// In the file, with its header.
    span: Range<u64>,
    /// Of the column.
    rows: Range<usize>,
}

/// Pages that lie one behind the other, to be read at once.
struct Piece {
    span: Range<u64>,
    pages: Vec<Page>,
}

/// A piece that was read, and where its values go.
struct Job<'o> {
    piece: Piece,
    bytes: Vec<u8>,
    out: &'o mut [u8],
}

impl Footer {
    /// `None`: parquet-rs has to read the column.
    pub(super) fn fixed(
        &self,
        disk: &Disk,
        path: &Path,
        root: usize,
    ) -> Result<Option<FixedColumn<'_>>, StoreError> {
        let leaf = self.fixed_leaves.get(root).copied().flatten();
        let (Some(opener), Some(FixedLeaf { leaf, row_bytes })) = (&self.opener, leaf) else {
            return Ok(None);
        };
        let metadata = self.paged(disk, path)?.metadata();
        Ok(Some(FixedColumn { opener, metadata, leaf, row_bytes }))
    }
}

/// Of each column whether it can be read so, for [`Footer::fixed`].
pub(super) fn fixed_leaves(metadata: &ArrowReaderMetadata) -> Vec<Option<FixedLeaf>> {
    let (schema, groups) = (metadata.parquet_schema(), metadata.metadata().row_groups());
    let of = |root: usize, field: &Field| {
        let DataType::FixedSizeBinary(width) = field.data_type() else { return None };
        let row_bytes = usize::try_from(*width).ok().filter(|width| *width > 0)?;
        let mut leaves = (0..schema.num_columns()).filter(|leaf| schema.get_column_root_idx(*leaf) == root);
        let (leaf, None) = (leaves.next()?, leaves.next()) else { return None };
        groups.iter().all(|group| is_plain(group.column(leaf))).then_some(FixedLeaf { leaf, row_bytes })
    };
    metadata.schema().fields().iter().enumerate().map(|(root, field)| of(root, field)).collect()
}

/// Whether a page is its values and nothing else.
fn is_plain(column: &ColumnChunkMetaData) -> bool {
    let plain = |encoding| matches!(encoding, Encoding::PLAIN | Encoding::RLE);
    let described = column.column_descr();
    described.physical_type() == Type::FIXED_LEN_BYTE_ARRAY
        // Without levels, of which RLE would be the encoding.
        && (described.max_def_level(), described.max_rep_level()) == (0, 0)
        && column.compression() == Compression::UNCOMPRESSED
        && column.encodings().all(plain)
        && column.dictionary_page_offset().is_none()
        && column.offset_index_offset().is_some()
}

impl FixedColumn<'_> {
    /// All values of the column, as many as `out` has room for.
    pub(super) fn read(&self, file: &Opened<'_>, out: &mut [u8]) -> Result<(), StoreError> {
        let rows = 0..out.len() / self.row_bytes;
        let pages = self.pages_with(file, &rows)?;
        let all: usize = (0..self.metadata.num_row_groups()).map(|group| self.rows_of(group)).sum();
        if all != rows.end || rows_in(&pages) != rows {
            return Err(strange_pages(file));
        }
        self.open_pages(file, pages, out)
    }

    /// The values of some rows, which are one at least, in memory of `space`.
    pub(super) fn read_run(
        &self,
        file: &Opened<'_>,
        rows: &Range<usize>,
        space: &RunSpace,
    ) -> Result<Buffer, StoreError> {
        let pages = self.pages_with(file, rows)?;
        let found = rows_in(&pages);
        let mut lent = space.take(found.len() * self.row_bytes);
        self.open_pages(file, pages, lent.bytes_mut())?;
        let before = (rows.start - found.start) * self.row_bytes;
        Ok(lent.into_buffer().slice_with_length(before, rows.len() * self.row_bytes))
    }

    /// The pages that have these rows, without gaps; the first and the last may have others as well.
    fn pages_with(&self, file: &Opened<'_>, rows: &Range<usize>) -> Result<Vec<Page>, StoreError> {
        let mut pages: Vec<Page> = Vec::new();
        let mut first = 0;
        for group in 0..self.metadata.num_row_groups() {
            let end = first + self.rows_of(group);
            let count = match first < rows.end && rows.start < end {
                true => self.locations(group).map_or(0, <[_]>::len),
                false => 0,
            };
            for number in 0..count {
                let page = self.page(file, group, number, first)?;
                if page.rows.start < rows.end && rows.start < page.rows.end {
                    pages.push(page);
                }
            }
            first = end;
        }
        // Each page ends where the next begins; that of a row group's last one is its row group's.
        let gaps = pages.windows(2).any(|pair| pair[0].rows.end != pair[1].rows.start);
        let found = rows_in(&pages);
        if gaps || found.start > rows.start || found.end < rows.end {
            return Err(strange_pages(file));
        }
        Ok(pages)
    }

    /// Opens pages that lie one behind the other, in rows, to `out`.
    ///
    /// Many are opened by two threads. All reads are this one's, and in order, so that faults strike, and simulations
    /// replay, as if it were alone: it opens what it has read wherever the other one has enough to do.
    fn open_pages(&self, file: &Opened<'_>, pages: Vec<Page>, out: &mut [u8]) -> Result<(), StoreError> {
        let pieces = in_pieces(pages);
        if out.len() < APART_BYTES {
            return self.open_all(file, pieces, out, None);
        }
        thread::scope(|scope| {
            let (full, jobs) = sync_channel::<Job<'_>>(AHEAD);
            let (used, empty) = channel();
            let opened =
                thread::Builder::new().name("sepal-opening".to_owned()).spawn_scoped(scope, move || {
                    jobs.iter().try_for_each(|job| {
                        self.open_job(&mut *job.out, &job.piece, &job.bytes)?;
                        // Nobody takes it back once all is read.
                        let _ = used.send(job.bytes);
                        Ok::<(), OpenError>(())
                    })
                });
            // Where no thread can be had, this one opens everything.
            let Ok(other) = opened else { return self.open_all(file, pieces, out, None) };
            let here = self.open_all(file, pieces, out, Some((full, empty)));
            match other.join() {
                Ok(Ok(())) => here,
                Ok(Err(why)) => Err(file.damaged(why.to_string())),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Reads piece by piece, and opens those that `other` does not take. Ends early, without an error, where that has
    /// ended: it has one.
    fn open_all<'o>(
        &self,
        file: &Opened<'_>,
        pieces: Vec<Piece>,
        mut out: &'o mut [u8],
        other: Option<(SyncSender<Job<'o>>, Receiver<Vec<u8>>)>,
    ) -> Result<(), StoreError> {
        let mut spare = None;
        for piece in pieces {
            let returned = || other.as_ref().and_then(|(_, empty)| empty.try_recv().ok());
            let mut bytes = spare.take().or_else(returned).unwrap_or_default();
            file.read_into(&piece.span, &mut bytes)?;
            let rows: usize = piece.pages.iter().map(|page| page.rows.len()).sum();
            let (here, rest) = mem::take(&mut out).split_at_mut(rows * self.row_bytes);
            out = rest;
            let job = Job { piece, bytes, out: here };
            let kept = match &other {
                Some((full, _)) => full.try_send(job),
                None => Err(TrySendError::Full(job)),
            };
            match kept {
                Ok(()) => {}
                Err(TrySendError::Full(job)) => {
                    let opened = self.open_job(job.out, &job.piece, &job.bytes);
                    opened.map_err(|why| file.damaged(why.to_string()))?;
                    spare = Some(job.bytes);
                }
                Err(TrySendError::Disconnected(_)) => break,
            }
        }
        Ok(())
    }

    /// The rows at `positions`, which ascend, one behind the other.
    pub(super) fn rows(&self, file: &Opened<'_>, positions: &[u32]) -> Result<Vec<u8>, StoreError> {
        let mut values = Vec::with_capacity(positions.len() * self.row_bytes);
        let (mut bytes, mut page_values) = (Vec::new(), Vec::new());
        let mut rest = positions;
        for piece in in_pieces(self.pages_of(file, positions)?) {
            file.read_into(&piece.span, &mut bytes)?;
            for page in &piece.pages {
                page_values.resize(page.rows.len() * self.row_bytes, 0);
                let opened = self.open(page, &bytes[page.within(&piece.span)], &mut page_values);
                opened.map_err(|why| file.damaged(why.to_string()))?;
                let (here, later) =
                    rest.split_at(rest.partition_point(|position| (*position as usize) < page.rows.end));
                for position in here {
                    let begin = (*position as usize - page.rows.start) * self.row_bytes;
                    values.extend_from_slice(&page_values[begin..begin + self.row_bytes]);
                }
                rest = later;
            }
        }
        Ok(values)
    }

    /// Each page that has one of the rows, in order.
    fn pages_of(&self, file: &Opened<'_>, positions: &[u32]) -> Result<Vec<Page>, StoreError> {
        let mut pages: Vec<Page> = Vec::new();
        let (mut group, mut first) = (0, 0);
        for position in positions {
            let position = *position as usize;
            if pages.last().is_some_and(|page| position < page.rows.end) {
                continue;
            }
            while group < self.metadata.num_row_groups() && position >= first + self.rows_of(group) {
                first += self.rows_of(group);
                group += 1;
            }
            let row = i64::try_from(position - first).unwrap_or(i64::MAX);
            let locations = self.locations(group).unwrap_or_default();
            let after = locations.partition_point(|page| page.first_row_index <= row);
            let number = after.checked_sub(1).ok_or_else(|| file.damaged("a row is on none of its pages"))?;
            let page = self.page(file, group, number, first)?;
            if !page.rows.contains(&position) {
                return Err(file.damaged("a row is on none of its pages"));
            }
            pages.push(page);
        }
        Ok(pages)
    }

    fn rows_of(&self, group: usize) -> usize {
        usize::try_from(self.metadata.row_group(group).num_rows()).unwrap_or(0)
    }

    fn locations(&self, group: usize) -> Option<&[parquet::file::page_index::offset_index::PageLocation]> {
        Some(self.metadata.offset_index()?.get(group)?.get(self.leaf)?.page_locations())
    }

    /// A page of a row group whose first row is the column's `first`.
    fn page(&self, file: &Opened<'_>, group: usize, number: usize, first: usize) -> Result<Page, StoreError> {
        let found = || {
            let locations = self.locations(group)?;
            let page = locations.get(number)?;
            let end = page.offset.checked_add(i64::from(page.compressed_page_size))?;
            let row = |index: i64| usize::try_from(index).ok().filter(|row| *row <= self.rows_of(group));
            let begins = row(page.first_row_index)?;
            let ends = locations
                .get(number + 1)
                .map_or(Some(self.rows_of(group)), |next| row(next.first_row_index))?;
            let of = PageOf {
                row_group: u16::try_from(group).ok()?,
                column: u16::try_from(self.leaf).ok()?,
                page: u16::try_from(number).ok()?,
            };
            let rows = (begins < ends).then_some(first + begins..first + ends)?;
            Some(Page { of, span: file.span(page.offset, end)?, rows })
        };
        found().ok_or_else(|| file.damaged("its offset index leads outside of it"))
    }

    fn open_job(&self, mut out: &mut [u8], piece: &Piece, bytes: &[u8]) -> Result<(), OpenError> {
        for page in &piece.pages {
            let (values, rest) = mem::take(&mut out).split_at_mut(page.rows.len() * self.row_bytes);
            self.open(page, &bytes[page.within(&piece.span)], values)?;
            out = rest;
        }
        Ok(())
    }

    /// Header and values; of the header only that it is authentic.
    fn open(&self, page: &Page, sealed: &[u8], values: &mut [u8]) -> Result<(), OpenError> {
        if !SEALS {
            let header = sealed.len().checked_sub(values.len()).ok_or(OpenError::Malformed)?;
            values.copy_from_slice(&sealed[header..]);
            return Ok(());
        }
        let (header, sealed) = ModuleOpener::split(sealed)?;
        let mut plain = vec![0; header.len().checked_sub(MODULE_OVERHEAD_BYTES).ok_or(OpenError::Malformed)?];
        self.opener.open(Module::DataPageHeader, page.of, header, &mut plain)?;
        self.opener.open(Module::DataPage, page.of, sealed, values)
    }
}

impl Page {
    /// Where it lies in a span that was read.
    fn within(&self, span: &Range<u64>) -> Range<usize> {
        let place = |offset: u64| usize::try_from(offset - span.start).unwrap_or(usize::MAX);
        place(self.span.start)..place(self.span.end)
    }
}

/// The rows of pages that follow each other.
fn rows_in(pages: &[Page]) -> Range<usize> {
    pages.first().map_or(0, |page| page.rows.start)..pages.last().map_or(0, |page| page.rows.end)
}

fn strange_pages(file: &Opened<'_>) -> StoreError {
    file.damaged("its pages are not those of its rows")
}

/// Neighbours as one, until a piece is large enough.
fn in_pieces(pages: Vec<Page>) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    for page in pages {
        match pieces.last_mut() {
            Some(piece)
                if piece.span.end == page.span.start && piece.span.end - piece.span.start < PIECE_BYTES =>
            {
                piece.span.end = page.span.end;
                piece.pages.push(page);
            }
            _ => pieces.push(Piece { span: page.span.clone(), pages: vec![page] }),
        }
    }
    pieces
}

/// What is unique to a file, as its writer has put it into the associated data of all modules. `bytes` begin with the
/// file's `FileCryptoMetaData`, in Thrift's compact protocol and in plaintext; it is authentic if what is opened with it
/// is. `None` when it is not as our writer makes it.
pub(super) fn unique_of_file(bytes: &[u8]) -> Option<&[u8]> {
    // A struct (field 1: the algorithm) of a struct (field 1: AES-GCM) whose field 2 is a string, field 1 being left out.
    let (length, rest) = bytes.strip_prefix(&[0x1c, 0x1c, 0x28])?.split_first()?;
    // One byte of a length below 128.
    rest.get(..usize::from(*length)).filter(|_| *length < 0x80)
}

#[cfg(test)]
mod tests;
