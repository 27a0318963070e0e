//! Replacing keys while the store works: the tenant's, and those of its files.
//!
//! `database` calls [`TenantStore::rewrap`] with the new ring, and again until no file is under an older key any more:
//! then those may be destroyed. It calls [`TenantStore::begin_file_rotation`], and [`TenantStore::rotate_file_keys`] a
//! segment at a time. Both go on after a crash where they were: what is left to do is told by the files alone.
//!
//! | | the tenant's key (`keys`) | files' keys (`files`) |
//! |---|---|---|
//! | manifests | the next one is sealed under the new key, with every file key in it wrapped anew; named snapshots' are written anew under their numbers | – |
//! | data files | stay as they are | are copied under fresh keys, rows at the same positions; the next manifest and named snapshots name the copies |
//! | log | a new file is begun; older ones go | the same |
//! | history | ends here, but for what has a name: its log cannot be written anew | the same |
//!
//! What somebody still needs is waited for: log files that a pipeline holds, manifests that are copied or read, segments
//! with readers.

mod files;
mod keys;

use std::{collections::HashSet, sync::Arc};

use parking_lot::Mutex;
use sepal_types::FileId;

use crate::manifest::{Manifest, Rekey};

pub use files::{FileRotation, RekeyStep};
pub use keys::KeyUse;

/// What a store knows of its keys' replacement.
pub(crate) struct Rotation {
    /// As the newest manifest has it. Asked for without waiting for whoever makes the next one.
    known: Mutex<Known>,
    /// Segments whose copying failed: they come last.
    failed: Mutex<HashSet<FileId>>,
}

#[derive(Clone)]
struct Known {
    generation: u64,
    rekey: Option<Arc<Rekey>>,
}

impl Rotation {
    pub(crate) fn new(manifest: &Manifest) -> Self {
        Self { known: Mutex::new(Known::of(manifest)), failed: Mutex::default() }
    }

    /// A manifest has become the newest.
    pub(crate) fn note(&self, manifest: &Manifest) {
        *self.known.lock() = Known::of(manifest);
    }
}

impl Known {
    fn of(manifest: &Manifest) -> Self {
        Self { generation: manifest.key_generation, rekey: manifest.rekey.clone().map(Arc::new) }
    }
}

#[cfg(test)]
mod tests;
