//! From one life of the store to the next: how it ends, how it opens, and what must be there.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use sepal_types::{ColumnId, Lsn};

use super::{
    machine::Faults,
    world::{Before, Verdict, World, root},
};
use crate::{
    StoreError, TenantStore,
    disk::Disk,
    fixtures::TENANT,
    manifest,
    paths::{Paths, data_file, number},
};

/// How a life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Closed and dropped.
    Orderly,
    /// The process is killed: the page cache stays.
    Killed,
    PowerCut,
}

/// Openings that may fail before the faults are taken away.
const TRIES: u64 = 3;

impl World {
    pub(super) fn restart(&mut self, end: End) -> Verdict {
        let end = if self.machine.is_read_only() { End::PowerCut } else { end };
        let end = if end == End::Orderly && self.machine.is_down() { End::Killed } else { end };
        self.note(format!("{end:?}"));
        if end == End::Orderly
            && let Some(store) = &self.store
            && store.close().is_ok()
        {
            self.known = Some(store.log_end());
        }
        match end {
            // What is dropped below still runs.
            End::Orderly => {}
            End::Killed => self.machine.kill(),
            End::PowerCut => self.machine.power_cut(),
        }
        self.sessions.clear();
        self.pins.clear();
        self.holds.iter_mut().for_each(|(hold, _)| *hold = None);
        self.store = None;
        if end == End::Orderly {
            self.machine.kill();
        }
        self.open()
    }

    /// Opens the store, over as many deaths as it takes, and checks it.
    pub(super) fn open(&mut self) -> Verdict {
        for attempt in 0.. {
            if attempt < TRIES {
                self.disturb();
            } else {
                self.machine.disarm();
                self.machine.set_faults(Faults::default());
            }
            let before = self.before();
            match self.try_open() {
                Ok(store) => return self.opened(store, before),
                Err(error) => {
                    self.note(format!("does not open: {error}"));
                    self.excused(before, &error).map_err(|why| format!("opening failed {why}"))?;
                    self.misdeeds()?;
                    self.fall();
                }
            }
        }
        Ok(())
    }

    /// Whether an opening is to be cut short or to meet faults.
    fn disturb(&mut self) {
        if self.calm {
            return;
        }
        if self.dice.once_in(6) {
            let steps = 1 + self.dice.below(24);
            self.machine.arm(steps);
        }
        if self.dice.once_in(4) {
            self.machine.set_faults(Faults { flip: 0, ..self.faults });
        }
    }

    fn try_open(&mut self) -> Result<Arc<TenantStore>, StoreError> {
        let options = self.options();
        let manifests = Paths::new(&root()).manifests();
        let made = options
            .files
            .list(&manifests)
            .is_ok_and(|names| names.iter().any(|name| number(name, "manifest").is_some()));
        if made {
            TenantStore::open(&root(), TENANT, self.keys.ring(), options)
        } else {
            TenantStore::create(&root(), TENANT, self.keys.ring(), options)
        }
    }

    /// After a failed opening: the process ends in one way or another.
    fn fall(&mut self) {
        if self.machine.is_read_only() || self.dice.once_in(2) {
            self.note("power cut");
            self.machine.power_cut();
        } else {
            self.machine.kill();
        }
    }

    fn opened(&mut self, store: Arc<TenantStore>, before: Before) -> Verdict {
        let lsn = store.snapshot().lsn();
        self.known = Some(store.log_end());
        self.store = Some(Arc::clone(&store));
        let clean = self.machine.struck().0 == before.struck;
        self.machine.set_faults(Faults::default());
        self.note(format!("open at commit {lsn}, {} was acknowledged", self.head));
        let exact = lsn.0 == self.head;
        self.adopt(lsn)?;
        self.check_head()?;
        if exact {
            self.check_serials(&store)?;
        }
        self.check_manifest()?;
        self.check_indexes(&store)?;
        self.check_names(&store)?;
        self.check_file_keys(&store)?;
        self.hold_again(&store, clean)?;
        if clean {
            self.check_orphans(&store)?;
        }
        let before = self.before();
        if let Err(error) = store.release_unheld_log() {
            self.excused(before, &error)?;
        }
        self.misdeeds()
    }

    /// Serials never fall behind what committed rows have used.
    fn check_serials(&self, store: &TenantStore) -> Verdict {
        for (table, least) in &self.serials {
            let found = store.peek_sequence(*table, ColumnId(1));
            if found < *least {
                return Err(format!("the serial of table {table} is back at {found}, it was {least}"));
            }
        }
        Ok(())
    }

    /// Manifests count up.
    pub(super) fn check_manifest(&mut self) -> Verdict {
        let disk = self.disk();
        let names = disk.list(&Paths::new(&root()).manifests()).unwrap_or_default();
        let newest = names.iter().filter_map(|name| number(name, "manifest")).max().unwrap_or(0);
        // A machine that is down says nothing.
        if newest < self.manifest && !self.machine.is_down() {
            return Err(format!("manifest {newest} is the newest, {} was there", self.manifest));
        }
        self.manifest = self.manifest.max(newest);
        Ok(())
    }

    /// A manifest was made, or another one instead of an older one.
    pub(super) fn note_manifest(&mut self) -> Verdict {
        self.check_manifest()?;
        let store = self.store()?;
        self.remember_indexes(&store);
        Ok(())
    }

    /// An index that a durable manifest named is there as long as its segment is.
    fn check_indexes(&mut self, store: &TenantStore) -> Verdict {
        for version in store.snapshot().tables() {
            for (chunk, index) in version
                .chunks
                .iter()
                .flat_map(|reference| version.def.indexes.iter().map(move |index| (&reference.chunk, index)))
            {
                let named = chunk.segment().is_some_and(|file| self.blobs.contains(&(file, index.id)));
                if named && !chunk.has_index(index.id) {
                    return Err(format!("index {} of a segment is gone", index.id));
                }
            }
        }
        self.remember_indexes(store);
        Ok(())
    }

    fn remember_indexes(&mut self, store: &TenantStore) {
        self.blobs.clear();
        for version in store.snapshot().tables() {
            for chunk in version.chunks.iter().map(|reference| &reference.chunk) {
                let Some(file) = chunk.segment() else { continue };
                let there = version.def.indexes.iter().filter(|index| chunk.has_index(index.id));
                self.blobs.extend(there.map(|index| (file, index.id)));
            }
        }
    }

    /// What a hold keeps is there after every crash.
    fn hold_again(&mut self, store: &TenantStore, clean: bool) -> Verdict {
        for (hold, after) in &mut self.holds {
            match store.hold_log(Lsn(*after)) {
                Ok(held) => *hold = Some(held),
                // A file that could not be read counts as lost for this opening.
                Err(StoreError::Io { .. }) if !clean => {}
                Err(error) => return Err(format!("the log after commit {after} is gone: {error}")),
            }
        }
        self.holds.retain(|(hold, _)| hold.is_some());
        Ok(())
    }

    /// What no manifest and no clone in the log names goes with an opening, and so does what was being made.
    pub(super) fn check_orphans(&self, store: &TenantStore) -> Verdict {
        let (disk, paths, ring) = (self.disk(), Paths::new(&root()), self.keys.ring());
        let named = manifest::all_named(&disk, &paths, TENANT, &ring).map_err(|error| error.to_string())?;
        let cloned: BTreeSet<PathBuf> =
            store.cloned_files().into_iter().map(|file| root().join(file.path)).collect();
        let list = |path: &Path| disk.list(path).map_err(|error| error.to_string());
        for name in list(&paths.segments())? {
            let in_manifest = data_file(&name).is_some_and(|file| named.contains(&file));
            if !in_manifest && !cloned.contains(&paths.segments().join(&name)) {
                return Err(format!("segments/{name} belongs to nothing"));
            }
        }
        for (directory, kind) in [(paths.manifests(), "manifest"), (paths.wal(), "wal")] {
            for name in list(&directory)? {
                if number(&name, kind).is_none() {
                    return Err(format!("{}/{name} belongs to nothing", directory.display()));
                }
            }
        }
        Ok(())
    }

    pub(super) fn misdeeds(&self) -> Verdict {
        let misdeeds = self.machine.misdeeds();
        if misdeeds.is_empty() { Ok(()) } else { Err(misdeeds.join("; ")) }
    }

    fn disk(&self) -> Disk {
        let options = self.options();
        Disk::new(options.files, options.random, None)
    }
}
