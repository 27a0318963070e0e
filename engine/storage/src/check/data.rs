//! Segments, deletion vectors and index blobs that a manifest names.
//!
//! Each is opened alone, as `store::open` would, so that one that does not open hides none of the others.

use std::path::Path;

use arrow::array::{Array, UInt64Array};
use sepal_types::{FileId, Lsn, RowId};

use super::{Damage, Examination, Finding, Severity};
use crate::{
    Chunk, ChunkRef, StoreError,
    arrow_types::stored_column,
    blob::{Blob, Owner},
    disk::io_error,
    manifest::{DeletedEntry, IndexEntry, Manifest, SegmentEntry, TableEntry},
    paths::{DataKind, show},
    store::{
        load::{Opener, Registry},
        lost::Lost,
        open::Context,
    },
};

pub(super) const BUILT_AGAIN: &str =
    "no row is lost: its segment is searched exactly until the server has built the index again";

/// Bytes read at once where nobody looks at them.
const PIECE_BYTES: usize = 1 << 20;

/// A manifest without what is damaged of it.
pub(crate) struct Sound {
    pub manifest: Manifest,
    /// What was left out.
    pub lost: Lost,
}

/// What is wrong with a file, and whether it was looked at for the first time.
type Judged = Option<(StoreError, bool)>;

impl Examination<'_> {
    /// `past`: the last commit of a manifest that is not the newest. What newer ones name, too, is not told again.
    pub(crate) fn data(&mut self, manifest: &Manifest, past: Option<Lsn>) -> Sound {
        let mut sound = Sound { manifest: manifest.clone(), lost: Lost::default() };
        for table in &mut sound.manifest.tables {
            let (of, lost) = (table.clone(), &mut sound.lost);
            table.segments.retain_mut(|entry| {
                let whole = self.segment(&of, entry, past, lost);
                if !whole {
                    lost.add(of.def.id, entry.first_row, entry.last_row);
                }
                whole
            });
        }
        sound
    }

    /// Whether the segment can be served. Indexes that cannot are taken from its entry.
    fn segment(
        &mut self,
        table: &TableEntry,
        entry: &mut SegmentEntry,
        past: Option<Lsn>,
        lost: &mut Lost,
    ) -> bool {
        if let Some((error, new)) = self.segment_file(table, entry) {
            lost.add_file(DataKind::Segment, entry.file);
            let deleted = entry.deleted.as_ref().map_or(0, |deleted| deleted.rows);
            let live = u64::from(entry.rows).saturating_sub(deleted);
            let consequence = consequence(table, past, &format!("{live} rows"));
            let damage = Damage::Segment { table: table.def.id, segment: entry.file };
            self.damaged((&error, new), consequence, past, damage);
            return false;
        }
        if past.is_none() && !self.options.fast {
            self.places(table, entry);
        }
        let whole = self.vector(table, entry, past);
        let indexes = std::mem::take(&mut entry.indexes);
        entry.indexes =
            indexes.into_iter().filter(|index| self.index(table, entry, index, past, lost)).collect();
        whole
    }

    /// Tells of a damaged file: once for each entry of today's that names it, once for all of the past.
    fn damaged(
        &mut self,
        found: (&StoreError, bool),
        consequence: String,
        past: Option<Lsn>,
        damage: Damage,
    ) {
        let (error, new) = found;
        match past {
            None => self.failed(error, consequence, Some(damage)),
            Some(_) if new => self.failed(error, consequence, Some(Damage::Past)),
            Some(_) => {}
        }
    }

    /// Looks at a file, the first time that somebody names it.
    fn judge(
        &mut self,
        file: (DataKind, FileId),
        bytes: u64,
        look: impl FnOnce(&Self) -> Result<(), StoreError>,
    ) -> Judged {
        if let Some(known) = self.seen.get(&file) {
            return known.clone().map(|error| (error, false));
        }
        let error = look(self).err();
        if error.is_none() {
            self.read(bytes);
        }
        self.seen.insert(file, error.clone());
        error.map(|error| (error, true))
    }

    /// A segment's own file.
    pub(super) fn segment_file(&mut self, table: &TableEntry, entry: &SegmentEntry) -> Judged {
        let bare = SegmentEntry { deleted: None, indexes: Vec::new(), ..entry.clone() };
        self.judge((DataKind::Segment, entry.file), entry.bytes, |this| {
            let found = this.alone(table, bare)?;
            this.columns(table, entry, &found.chunk)
        })
    }

    /// An index's file.
    pub(super) fn index_file(
        &mut self,
        table: &TableEntry,
        entry: &SegmentEntry,
        index: &IndexEntry,
    ) -> Judged {
        let one = SegmentEntry { deleted: None, indexes: vec![index.clone()], ..entry.clone() };
        self.judge((DataKind::Index, index.blob.file), index.blob.bytes, |this| {
            let Context { disk, paths, tenant, keys, .. } = &*this.context;
            let owner = Owner { tenant: *tenant, table: entry.sealed_for(table.def.id), segment: entry.file };
            // An opening store goes on without it where this fails, and says nothing to whoever asked.
            Blob::named(disk, paths, keys, owner, DataKind::Index, &index.blob)?;
            let found = this.alone(table, one)?;
            this.blob(table, index, &found.chunk)
        })
    }

    /// Reads all of a segment's file, and decodes all of its columns.
    fn columns(&self, table: &TableEntry, entry: &SegmentEntry, chunk: &Chunk) -> Result<(), StoreError> {
        let bug = || StoreError::Bug("a segment that is none".to_owned());
        let sealed = chunk.as_sealed().ok_or_else(bug)?;
        let names = sealed.stored_columns()?;
        if self.options.fast {
            return Ok(());
        }
        let path = self.context.paths.data(DataKind::Segment, entry.file);
        self.sweep(&path)?;
        let ids = chunk.row_ids()?;
        check_row_ids(entry, &ids).map_err(|why| StoreError::corrupt(&show(&path), why))?;
        for name in names {
            match stored_column(&name).and_then(|id| table.def.column_by_id(id)) {
                Some(column) => chunk.column(column).map(drop)?,
                None => sealed.check_stored(&name)?,
            }
        }
        Ok(())
    }

    /// Whether some of the segment's rows can be read without the others. Where not, all can, and be written anew.
    fn places(&mut self, table: &TableEntry, entry: &SegmentEntry) {
        let bare = SegmentEntry { deleted: None, indexes: Vec::new(), ..entry.clone() };
        let found = self.alone(table, bare);
        let looked = found.and_then(|found| match found.chunk.as_sealed() {
            Some(sealed) => sealed.check_places(),
            None => Ok(()),
        });
        let Err(error) = looked else { return };
        let (name, id) = (table.def.shown_name(), table.def.id);
        let what = "what reads only some of its rows fails until VACUUM FULL has written them anew";
        let mut finding =
            Finding::of(&error, format!("no row of table \"{name}\" ({id}) is lost: {what}"), None);
        if matches!(error, StoreError::Corrupt { .. }) {
            finding.severity = Severity::Warning;
        }
        self.found(finding);
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
        let file = (DataKind::Deleted, deleted.blob.file);
        let Some((error, new)) =
            self.judge(file, deleted.blob.bytes, |this| this.fits(table, entry, deleted))
        else {
            return true;
        };
        let what = format!("which of {} rows are deleted is not known, so these", entry.rows);
        let damage = Damage::Vector { table: table.def.id, segment: entry.file };
        self.damaged((&error, new), consequence(table, past, &what), past, damage);
        false
    }

    /// Whether a deletion vector is one of this segment.
    fn fits(
        &self,
        table: &TableEntry,
        entry: &SegmentEntry,
        deleted: &DeletedEntry,
    ) -> Result<(), StoreError> {
        let file = show(&self.context.paths.data(DataKind::Deleted, deleted.blob.file));
        let found = self.alone(table, SegmentEntry { indexes: Vec::new(), ..entry.clone() })?;
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
    }

    /// Whether an index can be searched.
    fn index(
        &mut self,
        table: &TableEntry,
        entry: &SegmentEntry,
        index: &IndexEntry,
        past: Option<Lsn>,
        lost: &mut Lost,
    ) -> bool {
        let Some((error, new)) = self.index_file(table, entry, index) else { return true };
        lost.add_file(DataKind::Index, index.blob.file);
        match past {
            None => {
                let damage = Damage::Index { table: table.def.id, segment: entry.file, index: index.index };
                self.failed(&error, BUILT_AGAIN, Some(damage));
            }
            Some(lsn) if new => self.past_index(&error, lsn),
            Some(_) => {}
        }
        false
    }

    /// Of the past nobody builds an index again, and nothing is lost by it.
    pub(super) fn past_index(&mut self, error: &StoreError, lsn: Lsn) {
        let consequence = format!("no row is lost: the past as of commit {lsn} is searched exactly there");
        let mut finding = Finding::of(error, consequence, Some(Damage::Past));
        if finding.damage == Some(Damage::Past) {
            finding.severity = Severity::Warning;
        }
        self.found(finding);
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
        // Of its own: what another entry has opened of the same file is not what this one names.
        let registry = Registry::default();
        let version = Opener { registry: &registry, ..self.context.opener() }.table(&one)?;
        let chunk = version.chunks.into_iter().next();
        chunk.ok_or_else(|| StoreError::Bug("a table without its segment".to_owned()))
    }
}

pub(super) fn consequence(table: &TableEntry, past: Option<Lsn>, what: &str) -> String {
    let (name, id) = (table.def.shown_name(), table.def.id);
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
