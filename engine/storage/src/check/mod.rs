//! Reading every byte of a tenant's directory, to say what is wrong with it.
//!
//! [`TenantStore::check`] is asked by `database` when nobody has the store open, and by `repair`, which does what can
//! be done about it. It changes nothing and ends with no error: what cannot be read is a [`Finding`]. It opens files as
//! `store::open` does, so that it means by sound what an opening store means, and goes on where that one stops.
//!
//! 1. `manifests`: each opens, follows the one before, the newest is there, and so is each that has a name.
//! 2. `data`: what the newest names is there with its length and key; every page of every column opens and decodes; row
//!    ids ascend; deletion vectors fit; index blobs open and belong to their column ([`BlobChecker`]).
//! 3. `log`: every frame opens, commits count up, each applies to what the manifest says. What clones in it share is
//!    looked at like what the manifest names (`clones`).
//! 4. `rows`: of the state that comes out, keys are unique, NOT NULL holds, no row id is there twice, and rows that
//!    refer to others have them (`references`).
//! 5. `past`: of what only older manifests name, the same as of the newest's. It is the past, which no recovery needs.
//! 6. `names`: files that nothing names.
//!
//! Holds a column, an index and the log's rows in memory, and for a constraint the keys of its table.

mod clones;
mod data;
mod finding;
mod log;
mod manifests;
mod names;
mod past;
mod references;
mod rows;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use arrow::array::ArrayRef;
use sepal_crypto::KeyRing;
use sepal_types::{FileId, IndexDef, LogEnd, Lsn, TableDef, TenantId};

use crate::{
    ColumnCache, Files, LocalFiles, NoBlobs, StoreError, StoreOptions, TenantStore, ops::CloneSource,
    paths::DataKind, store::open::Context,
};

pub(crate) use data::Sound;
pub(crate) use finding::{ClonedSegment, Damage};
pub use finding::{Finding, Severity};
pub(crate) use names::{DataFiles, Named};

/// Decoded columns that are kept for the second look at them.
const CACHE_BYTES: usize = 64 << 20;

/// What a check is to do.
#[derive(Clone)]
pub struct CheckOptions {
    /// Leave out the columns' content and what follows from it: structure, lengths, keys and the log only.
    pub fast: bool,
    /// What [`TenantStore::log_end`] gave last: the log must reach as far.
    pub log_end: Option<LogEnd>,
    /// Where the files are.
    pub files: Arc<dyn Files>,
}

impl Default for CheckOptions {
    fn default() -> Self {
        Self { fast: false, log_end: None, files: Arc::new(LocalFiles) }
    }
}

/// Judges an index's bytes, which storage does not understand.
pub trait BlobChecker {
    /// Whether `bytes` are the index `index` over `column`, the whole column of the segment with its NULLs; or what is
    /// wrong with them.
    fn check(&self, def: &TableDef, index: &IndexDef, column: &ArrayRef, bytes: &[u8]) -> Result<(), String>;
}

impl BlobChecker for NoBlobs {
    fn check(&self, _: &TableDef, _: &IndexDef, _: &ArrayRef, _: &[u8]) -> Result<(), String> {
        Ok(())
    }
}

/// Hears of a check while it runs.
pub trait CheckObserver {
    fn found(&mut self, finding: Finding);

    /// A file of so many bytes was read.
    fn read(&mut self, bytes: u64);
}

/// What a check has read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    pub files: u64,
    pub bytes: u64,
    pub tables: u64,
    /// Live rows of the tables as they would be served; 0 when that is not known.
    pub rows: u64,
    /// Commits read from the log.
    pub commits: u64,
    /// The last commit that can be served.
    pub lsn: Lsn,
}

impl TenantStore {
    /// Checks the directory of a store that nobody has open. See the module.
    pub fn check(
        dir: &Path,
        tenant: TenantId,
        keys: impl Into<KeyRing>,
        options: &CheckOptions,
        blobs: &dyn BlobChecker,
        observer: &mut dyn CheckObserver,
    ) -> Checked {
        Examination::new(dir, tenant, keys.into(), options, blobs, observer).run().0
    }
}

/// One check under way.
pub(crate) struct Examination<'a> {
    context: Arc<Context>,
    options: &'a CheckOptions,
    blobs: &'a dyn BlobChecker,
    observer: &'a mut dyn CheckObserver,
    checked: Checked,
    /// Data files that were looked at, and what is wrong with them.
    seen: BTreeMap<(DataKind, FileId), Option<StoreError>>,
    /// What clones name in the log.
    in_log: DataFiles,
    /// Clones in the log before it.
    old_clones: Vec<(Lsn, TableDef, CloneSource)>,
}

impl<'a> Examination<'a> {
    pub(crate) fn new(
        dir: &Path,
        tenant: TenantId,
        keys: KeyRing,
        options: &'a CheckOptions,
        blobs: &'a dyn BlobChecker,
        observer: &'a mut dyn CheckObserver,
    ) -> Self {
        let store = StoreOptions {
            log_end: options.log_end,
            files: Arc::clone(&options.files),
            ..StoreOptions::new(ColumnCache::new(CACHE_BYTES))
        };
        let context = Arc::new(Context::new(dir, tenant, keys, store));
        let (checked, seen, in_log) = (Checked::default(), BTreeMap::new(), BTreeSet::new());
        Self { context, options, blobs, observer, checked, seen, in_log, old_clones: Vec::new() }
    }

    /// Also what names which files: a repair moves away only what nothing that is sound names.
    pub(crate) fn run(mut self) -> (Checked, Named) {
        let mut manifests = self.manifests();
        let Some(newest) = &manifests.newest else { return (self.checked, Named::default()) };
        self.checked.tables = newest.tables.iter().filter(|table| table.def.is_table()).count() as u64;
        let sound = self.data(newest, None);
        match self.log(&sound) {
            Some(opened) if !self.options.fast => self.rows(&opened),
            Some(_) => {}
            // What clones name behind the break nobody knows.
            None => manifests.complete = false,
        }
        self.past(&manifests);
        self.old_clones();
        self.names(&manifests);
        let named = manifests.named(std::mem::take(&mut self.in_log));
        (self.checked, named)
    }

    fn found(&mut self, finding: Finding) {
        self.observer.found(finding);
    }

    /// Something that an opening store, or a reader, would fail with.
    fn failed(&mut self, error: &StoreError, consequence: impl Into<String>, damage: Option<Damage>) {
        self.observer.found(Finding::of(error, consequence.into(), damage));
    }

    fn read(&mut self, bytes: u64) {
        self.checked.files += 1;
        self.checked.bytes += bytes;
        self.observer.read(bytes);
    }
}
