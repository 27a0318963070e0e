//! Segments, deletion vectors and index blobs that a manifest names.
//!
//! Each is opened alone, as `store::open` would, so that one that does not open hides none of the others.

use std::path::Path;

use arrow::array::{Array, UInt64Array};
use sepal_types::{Lsn, RowId};

use super::{Damage, Examination};
use crate::{
    Chunk, ChunkRef, StoreError,
    arrow_types::stored_column,
    disk::io_error,
    manifest::{IndexEntry, Manifest, SegmentEntry, TableEntry},
    paths::{DataKind, show},
    store::lost::Lost,
};

/// Bytes read at once where nobody looks at them.
const PIECE_BYTES: usize = 1 << 20;

/// A manifest without what is damaged of it.
pub(crate) struct Sound {
    pub manifest: Manifest,
    /// Rows of the segments that were left out.
    pub lost: Lost,
}

impl Examination<'_> {
    /// `past`: the last commit of a manifest that is not the newest. What newer ones name, too, is not read again.
    pub(crate) fn data(&mut self, manifest: &Manifest, past: Option<Lsn>) -> Sound {
        let mut sound = Sound { manifest: manifest.clone(), lost: Lost::default() };
        for table in &mut sound.manifest.tables {
            let (of, lost) = (table.clone(), &mut sound.lost);
            table.segments.retain_mut(|entry| {
                let whole = self.segment(&of, entry, past);
                if !whole {
                    lost.add(of.def.id, entry.first_row, entry.last_row);
                }
                whole
            });
        }
        sound
    }

    /// Whether the segment can be served. Indexes that cannot are taken from its entry.
    fn segment(&mut self, table: &TableEntry, entry: &mut SegmentEntry, past: Option<Lsn>) -> bool {
        let new = self.seen.insert((DataKind::Segment, entry.file));
        let id = (table.def.id, entry.file);
        if new {
            let live = u64::from(entry.rows)
                - entry.deleted.as_ref().map_or(0, |gone| gone.rows).min(entry.rows.into());
            let consequence = consequence(table, past, &format!("{live} rows"));
            let bare = SegmentEntry { deleted: None, indexes: Vec::new(), ..entry.clone() };
            let read = self.alone(table, bare).and_then(|found| self.columns(table, entry, &found.chunk));
            if let Err(error) = read {
                let damage = Damage::Segment { table: id.0, segment: id.1 };
                self.failed(&error, consequence, past.is_none().then_some(damage));
                return false;
            }
            self.read(entry.bytes);
        }
        let whole = self.vector(table, entry, past);
        let indexes = std::mem::take(&mut entry.indexes);
        entry.indexes = indexes.into_iter().filter(|index| self.index(table, entry, index, past)).collect();
        whole
    }

    /// Reads all of a segment's file, and decodes all of its columns.
    fn columns(&mut self, table: &TableEntry, entry: &SegmentEntry, chunk: &Chunk) -> Result<(), StoreError> {
        let bug = || StoreError::Bug("a segment that is none".to_owned());
        let sealed = chunk.as_sealed().ok_or_else(bug)?;
        let names = sealed.stored_columns()?;
        if self.options.fast {
            return Ok(());
        }
        let path = self.context.paths.data(DataKind::Segment, entry.file);
        self.sweep(&path)?;
        check_row_ids(entry, &chunk.row_ids()?).map_err(|why| StoreError::corrupt(&show(&path), why))?;
        for name in names {
            match stored_column(&name).and_then(|id| table.def.column_by_id(id)) {
                Some(column) => chunk.column(column).map(drop)?,
                None => sealed.check_stored(&name)?,
            }
        }
        Ok(())
    }

    /// Reads a file to its end: nothing uses the few bytes that no page and no footer holds, but a device that does not
    /// give them will not give others either.
    fn sweep(&self, path: &Path) -> Result<(), StoreError> {
        let failed = |error| io_error("read", path, &error);
        let file = self.context.disk.open(path)?;
        let length = file.length().map_err(failed)?;
        let mut piece = vec![0; PIECE_BYTES];
        let mut offset = 0;
        while offset < length {
            let bytes = usize::try_from(length - offset).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
            file.read_exact_at(&mut piece[..bytes], offset).map_err(failed)?;
            offset += bytes as u64;
        }
        Ok(())
    }

    /// Whether it is known which of the segment's rows are deleted.
    fn vector(&mut self, table: &TableEntry, entry: &SegmentEntry, past: Option<Lsn>) -> bool {
        let Some(deleted) = &entry.deleted else { return true };
        if !self.seen.insert((DataKind::Deleted, deleted.blob.file)) {
            return true;
        }
        let file = show(&self.context.paths.data(DataKind::Deleted, deleted.blob.file));
        let with_vector = SegmentEntry { indexes: Vec::new(), ..entry.clone() };
        let fits = self.alone(table, with_vector).and_then(|found| {
            let (count, last) = (found.deleted.len(), found.deleted.max());
            if count != deleted.rows {
                let why = format!("{count} deleted rows, the manifest says {}", deleted.rows);
                return Err(StoreError::corrupt(&file, why));
            }
            match last.filter(|last| *last >= entry.rows) {
                None => Ok(()),
                Some(last) => {
                    let why = format!("row {last} is deleted, the segment has {}", entry.rows);
                    Err(StoreError::corrupt(&file, why))
                }
            }
        });
        if let Err(error) = fits {
            let what = format!("which of {} rows are deleted is not known, so these", entry.rows);
            let damage = Damage::Vector { table: table.def.id, segment: entry.file };
            self.failed(&error, consequence(table, past, &what), past.is_none().then_some(damage));
            return false;
        }
        self.read(deleted.blob.bytes);
        true
    }

    /// Whether an index can be searched.
    fn index(
        &mut self,
        table: &TableEntry,
        entry: &SegmentEntry,
        index: &IndexEntry,
        past: Option<Lsn>,
    ) -> bool {
        if !self.seen.insert((DataKind::Index, index.blob.file)) {
            return true;
        }
        let one = SegmentEntry { deleted: None, indexes: vec![index.clone()], ..entry.clone() };
        let judged = self.alone(table, one).and_then(|found| self.blob(table, index, &found.chunk));
        if let Err(error) = judged {
            let damage = Damage::Index { table: table.def.id, segment: entry.file, index: index.index };
            let consequence = match past {
                None => "no row is lost: the segment is searched exactly until the index is built again"
                    .to_owned(),
                Some(lsn) => format!("searches of the past as of commit {lsn} fail"),
            };
            self.failed(&error, consequence, past.is_none().then_some(damage));
            return false;
        }
        self.read(index.blob.bytes);
        true
    }

    fn blob(&self, table: &TableEntry, index: &IndexEntry, chunk: &Chunk) -> Result<(), StoreError> {
        if self.options.fast {
            return Ok(());
        }
        let file = show(&self.context.paths.data(DataKind::Index, index.blob.file));
        let bug = || StoreError::Bug("an index that its segment has not".to_owned());
        let bytes = chunk.index_blob(index.index).ok_or_else(bug)??;
        // One that was dropped stays named until the next checkpoint.
        let Some(def) = table.def.indexes.iter().find(|def| def.id == index.index) else { return Ok(()) };
        let Some(column) = def.columns.first().and_then(|id| table.def.column_by_id(*id)) else {
            return Ok(());
        };
        let column = chunk.column(column)?;
        self.blobs.check(&table.def, def, &column, &bytes).map_err(|why| StoreError::corrupt(&file, why))
    }

    /// A segment as an opening store has it, with what the entry names and nothing else.
    fn alone(&self, table: &TableEntry, entry: SegmentEntry) -> Result<ChunkRef, StoreError> {
        let one = TableEntry { def: table.def.clone(), next_row: table.next_row, segments: vec![entry] };
        let version = self.context.read_table(&one, &mut Vec::new())?;
        let chunk = version.chunks.into_iter().next();
        chunk.ok_or_else(|| StoreError::Bug("a table without its segment".to_owned()))
    }
}

fn consequence(table: &TableEntry, past: Option<Lsn>, what: &str) -> String {
    let (name, id) = (&table.def.name, table.def.id);
    match past {
        None => format!("{what} of table \"{name}\" ({id}) cannot be read"),
        Some(lsn) => format!("{what} of table \"{name}\" ({id}) cannot be read as of commit {lsn}"),
    }
}

/// Strictly ascending, from the first to the last that the manifest names.
fn check_row_ids(entry: &SegmentEntry, ids: &UInt64Array) -> Result<(), String> {
    let values = ids.values();
    let SegmentEntry { first_row, last_row, .. } = entry;
    if ids.null_count() > 0 || !values.windows(2).all(|pair| pair[0] < pair[1]) {
        return Err("its row ids do not ascend".to_owned());
    }
    match (values.first(), values.last()) {
        (Some(first), Some(last)) if RowId(*first) == *first_row && RowId(*last) == *last_row => Ok(()),
        (Some(first), Some(last)) => {
            Err(format!("row ids from {first} to {last}, the manifest says {first_row} to {last_row}"))
        }
        _ => Err("it has no rows".to_owned()),
    }
}
