//! [`Control`] itself: opening, making, and what does not belong to tenants, keys or logins alone.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::ErrorKind,
    num::NonZeroUsize,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use rusqlite::Connection;
use sepal_crypto::Key;
use sepal_types::{Clock, SystemClock};

use crate::{
    ControlError, EnvNames, KeyCacheStats,
    api_keys::{KeyRow, LastUsed},
    control_error::Result,
    key_cache::KeyCache,
    keys::{KeyFiles, Wrappers, key_file::parent},
    schema,
    secrets::UseBuffer,
    vault::Vault,
};

/// What a [`Control`] is made with.
#[derive(Clone)]
pub struct ControlOptions {
    pub clock: Arc<dyn Clock>,
    /// How many valid tokens are remembered, for at most 60 s each.
    pub key_cache_slots: NonZeroUsize,
    /// How many refused tokens are remembered; apart from the valid ones, so that guessing evicts none.
    pub refused_cache_slots: NonZeroUsize,
    /// What secrets are called where they are environment variables, and what happens when two are called the same.
    pub secret_env_names: EnvNames,
    /// Reaches the providers that tenants brought.
    pub wrappers: Arc<dyn Wrappers>,
}

impl Default for ControlOptions {
    fn default() -> Self {
        const SLOTS: NonZeroUsize = NonZeroUsize::new(10_000).expect("10,000 is not zero");
        Self {
            clock: Arc::new(SystemClock),
            key_cache_slots: SLOTS,
            refused_cache_slots: SLOTS,
            secret_env_names: EnvNames::default(),
            wrappers: Arc::new(KeyFiles),
        }
    }
}

/// The control database of one data directory. Shared by all connections; calls block on SQLite except
/// [`Control::authenticate_token`] on a cache hit and [`Control::still_valid`] while nothing was revoked.
pub struct Control {
    /// Where `database` is.
    pub(crate) path: PathBuf,
    pub(crate) database: Mutex<Connection>,
    pub(crate) vault: Vault,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) cache: KeyCache,
    /// Rises with every revocation; whoever was checked at an older one asks again.
    pub(crate) generation: AtomicU64,
    pub(crate) last_used: LastUsed,
    pub(crate) env_names: EnvNames,
    pub(crate) wrappers: Arc<dyn Wrappers>,
    pub(crate) secret_uses: UseBuffer,
    /// Whoever keeps tenants' keys from being destroyed has it as well.
    pub(crate) held_keys: Arc<()>,
    /// Stands in for a key that does not exist, so that its refusal takes the same work.
    pub(crate) decoy: KeyRow,
    /// SQLite's `data_version` when it was last looked at.
    seen_version: AtomicI64,
}

impl Control {
    /// Makes `path` (mode 0600) for a new data directory and opens it. Never overwrites.
    pub fn create(path: &Path, root: &Key, options: ControlOptions) -> Result<Self> {
        let io = |source| ControlError::Io { path: path.to_owned(), source };
        if path.try_exists().map_err(io)? {
            return Err(ControlError::DatabaseExists(path.to_owned()));
        }
        // Built under another name: a crash half-way leaves no control.db that would neither open nor be
        // replaced.
        let unfinished = path.with_extension("unfinished");
        for left_over in [&unfinished, &journal_of(&unfinished), &journal_of(path)] {
            remove_if_there(left_over).map_err(io)?;
        }
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished).map_err(io)?;
        let mut connection = schema::connect(&unfinished)?;
        schema::settle(&connection)?;
        schema::create(&mut connection, root)?;
        connection.close().map_err(|(_, error)| error)?;
        remove_if_there(&journal_of(&unfinished)).map_err(io)?;
        fs::rename(&unfinished, path).map_err(io)?;
        File::open(parent(path)).and_then(|directory| directory.sync_all()).map_err(io)?;
        Self::open(path, root, options)
    }

    /// Opens `path`. Writes nothing unless the root key is the one that the file was made under
    /// ([`ControlError::WrongRootKey`]).
    pub fn open(path: &Path, root: &Key, options: ControlOptions) -> Result<Self> {
        if !path.try_exists().map_err(|source| ControlError::Io { path: path.to_owned(), source })? {
            return Err(ControlError::NoDatabase(path.to_owned()));
        }
        // SQLite takes an empty file for a new database, and removes its journal.
        if fs::metadata(path).is_ok_and(|file| file.len() == 0) {
            let why = format!("{} is empty", path.display());
            return Err(ControlError::Corrupt { what: "control.db", why });
        }
        let (control, migrated) = Self::over(schema::connect(path)?, path, root, options)?;
        if migrated {
            tracing::info!(database = %path.display(), "brought to today's format");
        }
        // A crash between the destruction of a key and this.
        control.clear_journal(&mut control.database.lock());
        Ok(control)
    }

    /// What `connection` leads to: the file at `path`, or a copy of it. Also whether it was brought to today's format.
    pub(crate) fn over(
        mut connection: Connection,
        path: &Path,
        root: &Key,
        options: ControlOptions,
    ) -> Result<(Self, bool)> {
        schema::check(&connection, path, root)?;
        schema::settle(&connection)?;
        let migrated = schema::migrate(&mut connection, root, options.clock.unix_seconds())?;
        let vault = Vault::load(&connection, root)?;
        let version = data_version(&connection)?;
        let control = Self {
            path: path.to_owned(),
            decoy: KeyRow::decoy(&vault),
            database: Mutex::new(connection),
            vault,
            clock: options.clock,
            cache: KeyCache::new(options.key_cache_slots, options.refused_cache_slots),
            generation: AtomicU64::new(1),
            last_used: LastUsed::default(),
            env_names: options.secret_env_names,
            wrappers: options.wrappers,
            secret_uses: UseBuffer::default(),
            held_keys: Arc::default(),
            seen_version: AtomicI64::new(version),
        };
        Ok((control, migrated))
    }

    /// Whether `root` is the key that the file is under now. Reads only.
    pub fn opens_with(path: &Path, root: &Key) -> Result<bool> {
        if !path.try_exists().map_err(|source| ControlError::Io { path: path.to_owned(), source })? {
            return Err(ControlError::NoDatabase(path.to_owned()));
        }
        match schema::check(&schema::connect(path)?, path, root) {
            Ok(()) => Ok(true),
            Err(ControlError::WrongRootKey { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Unix seconds by the clock that this was opened with.
    pub fn now(&self) -> i64 {
        self.clock.unix_seconds()
    }

    /// What authenticates the entries of a backup repository. It outlives the root key.
    pub fn backup_key(&self) -> Key {
        self.vault.instance.backup.derive("backup entries 1", &[])
    }

    /// The root key that this was opened with, or that replaced it since: what a backup is tried with. Its caller keeps
    /// it no longer than that takes.
    pub fn root_key(&self) -> Key {
        Key::clone(&self.vault.roots.read().key)
    }

    /// Counters of the key cache since the start.
    pub fn key_cache_stats(&self) -> KeyCacheStats {
        self.cache.stats()
    }

    /// Notices changes that another process made to control.db (`sepal keys revoke` beside a running server):
    /// all principals are then checked again. Call it every second; it costs one look at the file's header.
    /// Gives whether there were any.
    pub fn poll_external_changes(&self) -> Result<bool> {
        let version = data_version(&self.database.lock())?;
        let changed = self.seen_version.swap(version, Ordering::AcqRel) != version;
        if changed {
            self.revoke_trust();
        }
        Ok(changed)
    }

    /// Once a key is destroyed: SQLite's journal has the page that it was on. Under the lock that it was destroyed
    /// under. What was committed stands, so a failure is told and not returned; the next one does it, and the next
    /// opening.
    pub(crate) fn clear_journal(&self, database: &mut Connection) {
        if let Err(error) = schema::wipe_journal(database, &self.path) {
            let journal = journal_of(&self.path);
            tracing::error!(%error, "destroyed keys may be in {} still", journal.display());
        }
    }

    /// Makes every principal and cache entry be checked again. Call it after the change is durable, never
    /// before: a check in between would renew the old answer.
    pub(crate) fn revoke_trust(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Rises whenever keys lose their validity: what was permitted under an older one is to be asked anew.
    pub fn current_generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").finish_non_exhaustive()
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        if let Err(error) = self.flush_last_used() {
            tracing::warn!(%error, "the last uses of API keys were not recorded");
        }
        if let Err(error) = self.flush_secret_uses() {
            tracing::warn!(%error, "the last uses of secrets were not recorded");
        }
    }
}

/// SQLite's rollback journal. One left beside a new file would be rolled back into it.
pub(crate) fn journal_of(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push("-journal");
    name.into()
}

pub(crate) fn remove_if_there(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn data_version(connection: &Connection) -> Result<i64> {
    Ok(connection.pragma_query_value(None, "data_version", |row| row.get(0))?)
}
