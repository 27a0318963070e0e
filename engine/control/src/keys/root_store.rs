//! Where a data directory's root key is kept, and how its file follows when the key is replaced.
//!
//! ```text
//! root.key        the key in hexadecimal                    one of the two
//! root.seal       the key, wrapped by a provider
//! <either>.new    the next key, from before control.db goes over to it until it has taken the place of the first
//! <either>.same   the present key, on its way into the place of the first
//! ```
//! Replacing it, with what a crash after each step finds:
//! 1. The file is replaced by one with the same key, through `.same`: whatever keeps it from being renamed shows now,
//!    when nothing is at stake.
//! 2. `.new` is written and synced: control.db is still under the first file's key.
//! 3. [`Control::begin_root_rotation`] commits: it is under the key of `.new`, and [`RootStore::unlock`] takes that.
//! 4. `.new` is renamed over the first, the directory synced: as ever.
//! 5. [`Control::resume_root_rotation`] goes on from any state.
//!
//! `.new` may be the only copy of the key that control.db is under. So it is removed only when the first file was read
//! and control.db itself, not what a process remembers of it, is under the key in there.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::Arc,
};

use sepal_crypto::Key;

use crate::{Control, ControlError, KeyFileError, RootKeyError, control_error::Result, schema};

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
        Self { path: resolved(path), wrapper: None }
    }

    /// Wrapped by `wrapper`, in `root.seal` of the data directory.
    pub fn sealed(data: &Path, wrapper: Arc<dyn KeyWrapper>) -> Self {
        Self { path: resolved(&data.join(SEAL)), wrapper: Some(wrapper) }
    }

    /// Who wraps the root key of a data directory; `None`: nobody, it is in a file.
    pub fn provider_of(data: &Path) -> Result<Option<Provider>, RootKeyError> {
        let path = data.join(SEAL);
        match path.try_exists() {
            Ok(true) => seal_file::provider(&path).map(Some),
            Ok(false) => Ok(None),
            Err(source) => Err(KeyFileError::Unreadable { path, source }.into()),
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

    /// Keeps the key that control.db is under in this store's way, in place of the file: with another passphrase.
    pub fn overwrite(&self, key: &Key) -> Result<(), RootKeyError> {
        self.take_place(|same| self.write(same, key))?;
        key_file::remove(&self.staged())
    }

    /// Removes the file, and what is beside it, when the key is kept elsewhere.
    pub fn remove(&self) -> Result<(), RootKeyError> {
        for path in [&self.path, &self.staged(), &self.beside(".same")] {
            key_file::remove(path)?;
        }
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
        match (first, self.read_from(&staged)) {
            (_, Ok(next)) if Control::opens_with(database, &next)? => {
                let in_place = schema::sync_journal(database).and_then(|()| Ok(self.promote()?));
                if let Err(error) = in_place {
                    tracing::warn!(%error, "the root key in force is in {}: keep that file", staged.display());
                }
                Ok(next)
            }
            // What the first has to say counts: it is the one that the operator knows of.
            (Err(error), _) => Err(error.into()),
            (Ok(_), Ok(_) | Err(RootKeyError::Malformed { .. } | RootKeyError::BadSeal { .. })) => {
                Err(ControlError::WrongRootKey { database: database.to_owned() })
            }
            // It may be the one.
            (Ok(_), Err(error)) => Err(error.into()),
        }
    }

    /// Replaces the root key of an open control database by a new one, kept in the same way. `progress` hears after
    /// each batch of tenants' keys.
    ///
    /// When it fails after its third step, the new key is in `.new` beside the file and the next start finds it.
    pub fn rotate(&self, control: &Control, progress: &mut dyn FnMut(RootStatus)) -> Result<RootStatus> {
        self.settle(control)?;
        if control.root_status()?.rotating {
            return control.resume_root_rotation(progress);
        }
        let present = self.read()?;
        if !control.is_under(&present)? {
            return Err(ControlError::WrongRootKey { database: control.path.clone() });
        }
        self.rehearse()?;
        let next = self.stage()?;
        control.begin_root_rotation(&next).map_err(|error| self.unsettled(error))?;
        self.promote()?;
        control.resume_root_rotation(progress)
    }

    /// Sees to what an earlier replacement left in `.new`: what control.db is under takes its place, what never came
    /// into force goes. Nothing is touched that cannot be read.
    fn settle(&self, control: &Control) -> Result<()> {
        let staged = self.staged();
        if !staged.try_exists().map_err(|source| ControlError::Io { path: staged.clone(), source })? {
            return Ok(());
        }
        let first = self.read();
        if let Ok(key) = &first
            && control.is_under(key)?
        {
            return Ok(key_file::remove(&staged)?);
        }
        let next = self.read_from(&staged)?;
        if !control.is_under(&next)? {
            first?;
            return Err(ControlError::WrongRootKey { database: control.path.clone() });
        }
        schema::sync_journal(&control.path)?;
        self.promote()?;
        if control.is_root(&next) {
            return Ok(());
        }
        Err(ControlError::Busy(format!(
            "control.db is under the root key in {}, which this process has not: start it again",
            self.path.display()
        )))
    }

    /// Step 1. No provider is asked: the content stays what it is.
    fn rehearse(&self) -> Result<(), RootKeyError> {
        let content = key_file::read_private(&self.path, seal_file::MAX_BYTES)?;
        self.take_place(|same| key_file::write_private(same, &content))
    }

    /// Replaces the file by what `write` writes, of the same key.
    fn take_place(&self, write: impl FnOnce(&Path) -> Result<(), RootKeyError>) -> Result<(), RootKeyError> {
        let same = self.beside(".same");
        key_file::remove(&same)?;
        write(&same)?;
        if let Err(source) = key_file::replace(&same, &self.path) {
            key_file::remove(&same)?;
            return Err(RootKeyError::NotReplaceable { path: self.path.clone(), source });
        }
        key_file::sync_parent(&self.path)
    }

    /// A commit that failed may have happened.
    fn unsettled(&self, error: ControlError) -> ControlError {
        let ControlError::Database(error) = error else { return error };
        let (path, staged) = (self.path.clone(), self.staged());
        RootKeyError::Unsettled { path, staged, why: error.to_string() }.into()
    }

    /// Step 2.
    pub(crate) fn stage(&self) -> Result<Key, RootKeyError> {
        let key = Key::random();
        self.write(&self.staged(), &key)?;
        Ok(key)
    }

    /// Step 4.
    pub(crate) fn promote(&self) -> Result<(), RootKeyError> {
        let staged = self.staged();
        match key_file::replace(&staged, &self.path) {
            // Another process that was started meanwhile has done it.
            Err(error) if error.kind() == ErrorKind::NotFound && self.path.exists() => {}
            Err(source) => {
                return Err(RootKeyError::NotInPlace { path: self.path.clone(), staged, source });
            }
            Ok(()) => {}
        }
        key_file::sync_parent(&self.path)
    }

    fn staged(&self) -> PathBuf {
        self.beside(".new")
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(suffix);
        name.into()
    }

    fn read_from(&self, path: &Path) -> Result<Key, RootKeyError> {
        match &self.wrapper {
            Some(wrapper) => seal_file::read(path, &**wrapper),
            None => Ok(key_file::read(path)?),
        }
    }

    fn write(&self, path: &Path, key: &Key) -> Result<(), RootKeyError> {
        match &self.wrapper {
            Some(wrapper) => seal_file::write(path, &**wrapper, key),
            None => key_file::write(path, key),
        }
    }
}

/// Where the file is itself: in a symbolic link's place a rename would put the key, and leave the link's target behind.
fn resolved(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests;
