//! Where a data directory's root key is kept, and how its file follows when the key is replaced.
//!
//! ```text
//! root.key        the key in hexadecimal                    one of the two
//! root.seal       the key, wrapped by a provider
//! <either>.new    the next key, from before control.db goes over to it until it has taken the place of the first
//! ```
//! Replacing it, with what a crash after each step finds:
//! 1. `.new` is written and synced: control.db is still under the first file's key.
//! 2. [`Control::begin_root_rotation`] commits: it is under the key of `.new`, and [`RootStore::unlock`] takes that.
//! 3. `.new` is renamed over the first, the directory synced: as ever.
//! 4. [`Control::resume_root_rotation`] goes on from any state.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::Arc,
};

use sepal_crypto::Key;

use crate::{Control, ControlError, RootKeyError, control_error::Result};

use super::{KeyWrapper, Provider, RootStatus, key_file, seal_file};

/// The file's name in the data directory where a provider wraps the root key.
const SEAL: &str = "root.seal";

/// A root key's place.
#[derive(Clone)]
pub struct RootStore {
    path: PathBuf,
    /// `None`: the file holds the key itself.
    wrapper: Option<Arc<dyn KeyWrapper>>,
}

impl RootStore {
    /// The key itself, in a file.
    pub fn file(path: &Path) -> Self {
        Self { path: path.to_owned(), wrapper: None }
    }

    /// Wrapped by `wrapper`, in `root.seal` of the data directory.
    pub fn sealed(data: &Path, wrapper: Arc<dyn KeyWrapper>) -> Self {
        Self { path: data.join(SEAL), wrapper: Some(wrapper) }
    }

    /// Who wraps the root key of a data directory; `None`: nobody, it is in a file.
    pub fn provider_of(data: &Path) -> Result<Option<Provider>, RootKeyError> {
        let path = data.join(SEAL);
        match path.try_exists() {
            Ok(true) => seal_file::provider(&path).map(Some),
            Ok(false) => Ok(None),
            Err(source) => Err(RootKeyError::Unreadable { path, source }),
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `key file /x/root.key`, or the provider, for people.
    pub fn describe(&self) -> String {
        match &self.wrapper {
            Some(wrapper) => wrapper.provider().to_string(),
            None => Provider::KeyFile { path: self.path.clone() }.to_string(),
        }
    }

    /// Makes a new root key. Never overwrites.
    pub fn create(&self) -> Result<Key, RootKeyError> {
        let key = Key::random();
        self.save(&key)?;
        Ok(key)
    }

    /// Keeps a root key that is there already: recovered, or moved from another place. Never overwrites.
    pub fn save(&self, key: &Key) -> Result<(), RootKeyError> {
        self.write(&self.path, key)
    }

    /// Keeps the key that is in the file already in this store's way, in place of the file: with another passphrase.
    pub fn overwrite(&self, key: &Key) -> Result<(), RootKeyError> {
        remove_if_there(&self.staged())?;
        self.write(&self.staged(), key)?;
        self.promote()
    }

    /// Removes the file, when the key is kept elsewhere.
    pub fn remove(&self) -> Result<(), RootKeyError> {
        remove_if_there(&self.path)?;
        key_file::sync_parent(&self.path)
    }

    /// The key in the file.
    pub fn read(&self) -> Result<Key, RootKeyError> {
        self.read_from(&self.path)
    }

    /// The key that opens `database`, also when its replacement was cut short. Changes nothing in `database`.
    ///
    /// Errors: the file or the provider; none of the keys is the database's.
    pub fn unlock(&self, database: &Path) -> Result<Key> {
        let staged = self.staged();
        if !staged.try_exists().map_err(|source| ControlError::Io { path: staged.clone(), source })? {
            return Ok(self.read()?);
        }
        // The staged file may be half written, or of a replacement that another process is just beginning: it is
        // taken when the database wants it, and never removed here.
        let first = self.read();
        if let Ok(key) = &first
            && Control::opens_with(database, key)?
        {
            return Ok(key.clone());
        }
        match self.read_from(&staged) {
            Ok(next) if Control::opens_with(database, &next)? => {
                self.promote()?;
                Ok(next)
            }
            // What the first has to say counts: it is the one that the operator knows of.
            _ => match first {
                Ok(_) => Err(ControlError::WrongRootKey { database: database.to_owned() }),
                Err(error) => Err(error.into()),
            },
        }
    }

    /// Replaces the root key of an open control database by a new one, kept in the same way. `progress` hears after
    /// each batch of tenants' keys.
    ///
    /// When it fails after its second step, the new key is in `.new` beside the file and the next start finds it.
    pub fn rotate(&self, control: &Control, progress: &mut dyn FnMut(RootStatus)) -> Result<RootStatus> {
        self.settle(control)?;
        if control.root_status()?.rotating {
            return control.resume_root_rotation(progress);
        }
        let next = self.stage()?;
        control.begin_root_rotation(&next)?;
        self.promote()?;
        control.resume_root_rotation(progress)
    }

    /// Step 3 again, if it failed: what control.db is under must not be taken for a leftover.
    fn settle(&self, control: &Control) -> Result<()> {
        let staged = self.staged();
        let is_there =
            staged.try_exists().map_err(|source| ControlError::Io { path: staged.clone(), source })?;
        if is_there && self.read_from(&staged).is_ok_and(|key| control.is_root(&key)) {
            self.promote()?;
        }
        Ok(())
    }

    /// Step 1. One that was left by a replacement that never began is taken away.
    pub(crate) fn stage(&self) -> Result<Key, RootKeyError> {
        let staged = self.staged();
        remove_if_there(&staged)?;
        let key = Key::random();
        self.write(&staged, &key)?;
        Ok(key)
    }

    /// Step 3.
    pub(crate) fn promote(&self) -> Result<(), RootKeyError> {
        match fs::rename(self.staged(), &self.path) {
            // Another process that was started meanwhile has done it.
            Err(error) if error.kind() == ErrorKind::NotFound && self.path.exists() => {}
            Err(source) => return Err(RootKeyError::Unwritable { path: self.path.clone(), source }),
            Ok(()) => {}
        }
        key_file::sync_parent(&self.path)
    }

    fn staged(&self) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(".new");
        name.into()
    }

    fn read_from(&self, path: &Path) -> Result<Key, RootKeyError> {
        match &self.wrapper {
            Some(wrapper) => seal_file::read(path, &**wrapper),
            None => key_file::read(path),
        }
    }

    fn write(&self, path: &Path, key: &Key) -> Result<(), RootKeyError> {
        match &self.wrapper {
            Some(wrapper) => seal_file::write(path, &**wrapper, key),
            None => key_file::write(path, key),
        }
    }
}

fn remove_if_there(path: &Path) -> Result<(), RootKeyError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != ErrorKind::NotFound => {
            Err(RootKeyError::Unwritable { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
