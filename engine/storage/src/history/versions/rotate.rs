//! Versions whose manifests are written anew, because keys in them were replaced.
//!
//! Called by `rotation`. A version that somebody copies or reads stays as it is meanwhile: whoever has read its manifest
//! will ask for the files that it named.

use sepal_types::FileId;

use super::{History, State, Version};
use crate::{
    manifest::{FileSizes, Manifest, NamedFile},
    paths::DataKind,
};

impl History {
    /// Versions besides the newest that nobody copies or reads.
    pub(crate) fn at_rest(&self) -> Vec<u64> {
        let state = self.state.lock();
        let newest = state.newest();
        state.versions.keys().copied().filter(|number| *number != newest && !state.is_busy(*number)).collect()
    }

    /// The versions that name a segment, the newest last. `None`: one besides the newest is copied or read now.
    pub(crate) fn naming(&self, file: FileId) -> Option<Vec<u64>> {
        let state = self.state.lock();
        let newest = state.newest();
        let naming = state.versions.values().filter(|version| version.names(file));
        let numbers: Vec<u64> = naming.map(|version| version.number).collect();
        let busy = |number: &u64| *number != newest && state.is_busy(*number);
        (!numbers.iter().any(busy)).then_some(numbers)
    }

    /// Whether a snapshot's name keeps the version.
    pub(crate) fn is_named(&self, number: u64) -> bool {
        self.state.lock().is_named(number)
    }

    /// Calls `publish`, which replaces the file of an older version's manifest, unless somebody copies or reads that
    /// version, or it has gone. Nobody begins to meanwhile. Gives whether it was called.
    pub(crate) fn rewrite<E>(
        &self,
        manifest: &Manifest,
        publish: impl FnOnce() -> Result<(), E>,
    ) -> Result<bool, E> {
        let mut state = self.state.lock();
        if state.is_busy(manifest.number) || !state.versions.contains_key(&manifest.number) {
            return Ok(false);
        }
        publish()?;
        state.versions.insert(manifest.number, Version::of(manifest));
        Ok(true)
    }

    /// Whether a log file before `wal_from`, or one of the files, is there only because the policy keeps the past: then
    /// a trim without any history lets it go. A name keeps its version's files, but no log.
    pub(crate) fn is_passing(&self, wal_from: u64, files: &[NamedFile]) -> bool {
        let state = self.state.lock();
        let (newest, from) = (state.newest(), state.read_from());
        let listed =
            |sizes: &FileSizes| files.iter().any(|named| sizes.contains_key(&(named.kind, named.file)));
        let passes = |version: &Version| {
            let (older, reached) = (version.number != newest, version.number > from);
            let replayed = older && version.number >= from && version.wal_from < wal_from;
            let free = older && !state.is_named(version.number);
            let needed = replayed || (free && listed(&version.files)) || (reached && listed(&version.cloned));
            needed && !state.is_busy(version.number)
        };
        state.versions.values().any(passes)
    }
}

impl State {
    fn newest(&self) -> u64 {
        self.versions.keys().next_back().copied().unwrap_or(0)
    }

    fn is_named(&self, number: u64) -> bool {
        self.named.iter().any(|named| named.manifest == number)
    }

    fn is_busy(&self, number: u64) -> bool {
        self.holds.contains_key(&number) || self.readers.contains_key(&number)
    }
}

impl Version {
    fn names(&self, segment: FileId) -> bool {
        self.files.contains_key(&(DataKind::Segment, segment))
    }
}
