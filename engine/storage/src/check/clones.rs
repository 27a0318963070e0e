//! What clones in the log share: segments and indexes that no table of the manifest may name any more.
//!
//! Asked before a commit of the log is applied, so that what is damaged is left out of the clone. What older log shares
//! is asked in the end: no recovery needs it.

use sepal_types::FileId;

use super::{
    ClonedSegment, Damage, Examination,
    data::{BUILT_AGAIN, consequence},
};
use crate::{Op, manifest::TableEntry, ops::CloneSource, paths::DataKind, store::lost::Lost};

impl Examination<'_> {
    pub(super) fn clones(&mut self, ops: &[Op], lost: &mut Lost) {
        for op in ops {
            if let Op::Clone { def, source } = op {
                let table = TableEntry { def: def.clone(), next_row: source.next_row, segments: Vec::new() };
                self.shared(&table, source, lost);
                self.in_log.extend(source.files().into_keys());
            }
        }
    }

    /// What clones before the newest manifest share and no manifest names any more: moments between two manifests are
    /// reached through it. A file that is gone is no damage: whether the past that needed it has ended since only the
    /// server's settings say.
    pub(super) fn old_clones(&mut self) {
        for (lsn, def, source) in std::mem::take(&mut self.old_clones) {
            let table = TableEntry { def, next_row: source.next_row, segments: Vec::new() };
            for entry in source.segments.iter().map(|segment| &segment.entry) {
                if self.is_unread(DataKind::Segment, entry.file)
                    && let Some((error, _)) = self.segment_file(&table, entry)
                {
                    let what = format!("{} rows", entry.rows);
                    self.failed(&error, consequence(&table, Some(lsn), &what), Some(Damage::Past));
                }
                // Without its segment an index is of no use.
                if !matches!(self.seen.get(&(DataKind::Segment, entry.file)), Some(None)) {
                    continue;
                }
                for index in &entry.indexes {
                    if self.is_unread(DataKind::Index, index.blob.file)
                        && let Some((error, _)) = self.index_file(&table, entry, index)
                    {
                        self.past_index(&error, lsn);
                    }
                }
            }
        }
    }

    /// Whether a file is there that nothing else has asked for.
    fn is_unread(&self, kind: DataKind, file: FileId) -> bool {
        let path = self.context.paths.data(kind, file);
        !self.seen.contains_key(&(kind, file)) && self.context.disk.length(&path).is_ok()
    }

    fn shared(&mut self, table: &TableEntry, source: &CloneSource, lost: &mut Lost) {
        let def = &table.def;
        for segment in &source.segments {
            let entry = &segment.entry;
            if let Some((error, _)) = self.segment_file(table, entry) {
                lost.add_file(DataKind::Segment, entry.file);
                // A bitmap that does not open is damage of the log, which is told when the commit is applied.
                let deleted = segment.deleted().map_or(0, |deleted| deleted.len());
                let live = u64::from(entry.rows).saturating_sub(deleted);
                let (environment, name) = (def.environment.clone(), def.shown_name());
                let cloned = ClonedSegment { table: def.id, environment, name, entry: entry.clone(), live };
                let consequence = consequence(table, None, &format!("{live} rows"));
                self.failed(&error, consequence, Some(Damage::Cloned(Box::new(cloned))));
                continue;
            }
            for index in &entry.indexes {
                if let Some((error, _)) = self.index_file(table, entry, index) {
                    lost.add_file(DataKind::Index, index.blob.file);
                    let known = def.indexes.iter().find(|def| def.id == index.index);
                    let name = known.map_or_else(String::new, |def| def.name.clone());
                    let (table, index, blob) = (def.id, index.index, index.blob.file);
                    let damage = Damage::ClonedIndex { table, name, index, blob };
                    self.failed(&error, BUILT_AGAIN, Some(damage));
                }
            }
        }
    }
}
