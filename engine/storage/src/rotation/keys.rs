//! The tenant's key: everything under the new one, no data touched.
//!
//! 1. The ring is exchanged: whatever is written from here on is under the new key.
//! 2. A checkpoint: a log file under the new key, and a manifest that needs no older one. A recovery takes the new key
//!    alone from here on.
//! 3. History goes, as far as older log files are its.
//! 4. Manifests that stay (names) are written anew over themselves: the same content, every key in it wrapped anew.
//! 5. What is left under older keys is counted. Somebody may need it yet; then all of this is to be called again.

use std::collections::BTreeSet;

use sepal_crypto::KeyRing;

use crate::{
    BlobBuilder, HistoryPolicy, StoreError, TenantStore,
    checkpoint::Maintenance,
    disk::PublishError,
    manifest::{self, Manifest},
    paths::number,
    planted::{self, Bug},
    wal,
};

/// Files that still need an older key of the tenant's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyUse {
    /// With what they name.
    pub manifests: usize,
    pub log_files: usize,
}

impl KeyUse {
    pub fn files(self) -> usize {
        self.manifests + self.log_files
    }
}

impl TenantStore {
    /// Makes the ring's current key the one that everything is sealed under; the ring has the present key as well.
    /// Writes no data anew. Readers and writers go on. History ends here, but for named snapshots.
    ///
    /// Gives what is still under older keys, because somebody needs it now: none, and they may be destroyed. To be
    /// called again until then, and after a crash; what is done already is not done twice. The builder is as in
    /// [`Self::checkpoint`].
    pub fn rewrap(&self, keys: KeyRing, builder: &dyn BlobBuilder) -> Result<KeyUse, StoreError> {
        let mut maintenance = self.maintenance.lock();
        self.poison.check()?;
        if !keys.holds(self.keys().current()) {
            return Err(StoreError::Bug("the new keys of a store do not include its present one".to_owned()));
        }
        self.set_keys(keys);
        let keys = self.keys();
        if self.recovers_with_older(&maintenance, &keys)? {
            self.checkpoint_locked(&mut maintenance, builder)?;
        }
        self.collect(&maintenance, None)?;
        let last = self.older_log_files(&keys)?.last().copied();
        if last.is_some_and(|last| self.history.is_passing(last + 1, &[])) {
            self.collect(&maintenance, Some(HistoryPolicy::NONE))?;
        }
        self.reseal_versions(&keys)?;
        self.count_key_use(&keys)
    }

    /// How many files are still under older keys than the ring's current one. Waits for a checkpoint that is under way.
    pub fn key_use(&self) -> Result<KeyUse, StoreError> {
        let _maintenance = self.maintenance.lock();
        self.count_key_use(&self.keys())
    }

    /// Whether the ring has keys besides the current one: something may be under them.
    pub fn has_older_keys(&self) -> bool {
        self.keys().has_older()
    }

    /// Forgets the keys before the current one: [`Self::key_use`] has said that nothing needs them.
    pub fn forget_older_keys(&self) {
        let _maintenance = self.maintenance.lock();
        let keys = self.keys();
        if keys.has_older() {
            self.set_keys(keys.without_older());
        }
    }

    /// Whether a recovery that began now would need an older key.
    fn recovers_with_older(&self, maintenance: &Maintenance, keys: &KeyRing) -> Result<bool, StoreError> {
        let newest = &maintenance.manifest;
        let logged = self.older_log_files(keys)?.last().is_some_and(|last| *last >= newest.wal_from);
        Ok(logged || !self.is_under(newest.number, &keys.without_older()))
    }

    /// Numbers of the log files whose keys are under older ones.
    fn older_log_files(&self, keys: &KeyRing) -> Result<BTreeSet<u64>, StoreError> {
        let mut older = BTreeSet::new();
        for name in self.disk.list(&self.paths.wal())? {
            if let Some(number) = number(&name, "wal")
                && !wal::is_under_current(&self.disk, &self.paths, keys, number)?
            {
                older.insert(number);
            }
        }
        Ok(older)
    }

    /// Whether a manifest and all that it names open with this key alone.
    fn is_under(&self, number: u64, alone: &KeyRing) -> bool {
        let read = manifest::read(&self.disk, &self.paths, self.tenant, alone, number);
        read.is_ok_and(|(manifest, _)| manifest.is_under(alone))
    }

    /// Writes the manifests of older versions anew, as far as nobody copies or reads them.
    fn reseal_versions(&self, keys: &KeyRing) -> Result<(), StoreError> {
        let alone = keys.without_older();
        for number in self.history.at_rest() {
            if self.is_under(number, &alone) {
                continue;
            }
            match self.read_version(keys, number) {
                Ok(mut manifest) => {
                    manifest.rewrap(self.tenant, keys)?;
                    self.rewrite_version(keys, &manifest)?;
                }
                // It is counted: the older key stays for as long as this does.
                Err(error) => {
                    tracing::warn!(tenant = %self.tenant, %error, "a part of the past stays under an older key");
                }
            }
        }
        Ok(())
    }

    /// An older version's manifest, to be written anew: it remembers as what it was committed.
    pub(super) fn read_version(&self, keys: &KeyRing, number: u64) -> Result<Manifest, StoreError> {
        let (mut manifest, hash) = manifest::read(&self.disk, &self.paths, self.tenant, keys, number)?;
        manifest.committed = manifest.committed_as(&hash).to_owned();
        Ok(manifest)
    }

    /// Puts an older version's manifest in the place of its file, durably, whole or not at all. `false`: somebody copies
    /// or reads that version, and it stays as it is.
    pub(super) fn rewrite_version(&self, keys: &KeyRing, manifest: &Manifest) -> Result<bool, StoreError> {
        self.poison.check()?;
        let publish = || match manifest::commit(&self.disk, &self.paths, self.tenant, keys, manifest) {
            Ok(_) => Ok(()),
            Err(PublishError::Before(error)) => Err(error),
            // Either of the two may be there, and says the same. But a directory that failed to sync once is not
            // trusted again.
            Err(PublishError::Unknown(error)) => Err(self.poison.stop(error)),
        };
        self.history.rewrite(manifest, publish)
    }

    fn count_key_use(&self, keys: &KeyRing) -> Result<KeyUse, StoreError> {
        if planted::is(Bug::OlderKeyNotCounted) {
            return Ok(KeyUse::default());
        }
        let alone = keys.without_older();
        let numbers = manifest::numbers(&self.disk, &self.paths)?;
        let manifests = numbers.iter().filter(|number| !self.is_under(**number, &alone)).count();
        let left = KeyUse { manifests, log_files: self.older_log_files(keys)?.len() };
        if left == KeyUse::default() {
            self.keep_removed()?;
        }
        Ok(left)
    }

    /// Makes it durable that files are gone: once their key is destroyed, a power cut must not bring them back.
    fn keep_removed(&self) -> Result<(), StoreError> {
        for (what, path) in [("wal", self.paths.wal()), ("manifest", self.paths.manifests())] {
            let directory = self.disk.open_directory(what, &path)?;
            self.disk.sync_directory(what, &directory).map_err(|error| self.poison.stop(error))?;
        }
        Ok(())
    }
}
