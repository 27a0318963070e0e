//! The past: what of it stays, and how it is read again.
//!
//! `database` asks for it by time, by commit or by name, names snapshots, clones tables and holds what it backs up.
//!
//! Nothing is written for the past alone. Each manifest is a version of all tables; old ones stay with the files that
//! they name and the log after them (`versions` knows which, `checkpoint::gc` removes the others). A moment is read
//! from the newest version before it and the log from there to the moment, applied by the same code as in a recovery
//! (`past`). A name keeps one version for as long as one likes (`named`). A clone is a table that shares another one's
//! segments (`clones`).
//!
//! History never breaks a recovery: that needs the newest manifest only. An old one that does not open is told when it
//! is asked for, and as long as it is there, no data file is removed: nobody knows what it names. Each collection of
//! garbage tries it again.

mod clones;
mod named;
mod past;
#[cfg(test)]
mod tests;
mod versions;

use std::{
    fmt,
    path::{Path, PathBuf},
};

use arrow::temporal_conversions::timestamp_us_to_datetime;
use sepal_types::Lsn;

use crate::{StoreError, TenantStore, manifest::FileSizes, paths::Paths};

pub use named::NamedSnapshot;
pub(crate) use past::Past;
pub(crate) use versions::{History, Version};

/// A moment of the past.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AsOf {
    /// After every commit up to this time, in microseconds since 1970-01-01 00:00 UTC.
    Time(i64),
    /// After this commit.
    Commit(Lsn),
    /// As the named snapshot of the environment has it.
    Named { environment: String, name: String },
}

/// How much of the past stays. What has a name or is being read stays besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryPolicy {
    /// Moments that are no older than this, in microseconds, can be read.
    pub keep_us: i64,
    /// At most so many manifests besides the newest. Each checkpoint makes one.
    pub keep_versions: usize,
    /// At most so many bytes of files that only the past needs: beyond, the oldest of it goes first.
    pub max_bytes: u64,
}

impl HistoryPolicy {
    /// Nothing of the past stays but what has a name.
    pub const NONE: Self = Self { keep_us: 0, keep_versions: 0, max_bytes: 0 };
}

/// An hour, 64 versions, 4 GiB.
impl Default for HistoryPolicy {
    fn default() -> Self {
        Self { keep_us: 3_600_000_000, keep_versions: 64, max_bytes: 4 << 30 }
    }
}

/// How far back the past can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistorySpan {
    /// Every moment from this time on, in microseconds since 1970.
    pub oldest_us: i64,
    /// Every commit from this one on.
    pub oldest_lsn: Lsn,
    /// Manifests besides the newest.
    pub versions: usize,
    /// Of files that only the past needs.
    pub bytes: u64,
}

/// Keeps the files of the newest manifest, and of named snapshots, until it is dropped: somebody copies them.
pub struct ManifestPin {
    pub number: u64,
    pub lsn: Lsn,
    pub time_us: i64,
    /// The first log file with commits after the manifest. Kept as well, with those that follow.
    pub wal_from: u64,
    /// The manifests and everything that they name, each once.
    pub files: Vec<PinnedFile>,
    hold: versions::Hold,
}

/// A file that never changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinnedFile {
    /// Within the store's directory.
    pub path: PathBuf,
    pub bytes: u64,
}

impl TenantStore {
    /// How far back [`Self::snapshot_as_of`] reaches.
    pub fn history(&self) -> HistorySpan {
        let (oldest, versions) = self.history.span(|| self.log.oldest());
        let head = self.snapshot();
        let (oldest_us, oldest_lsn) =
            oldest.map_or_else(|| (head.time_us(), head.lsn()), |version| (version.time_us, version.lsn));
        HistorySpan { oldest_us, oldest_lsn, versions, bytes: self.history.bytes() }
    }

    /// How much of the past is to stay.
    pub fn history_policy(&self) -> HistoryPolicy {
        self.history.policy()
    }

    /// Whether some of the past is older than the policy keeps it: then [`Self::trim_history`] pays. A checkpoint
    /// trims, too; a store that nobody writes to has none.
    pub fn has_expired_history(&self) -> bool {
        self.poison.check().is_ok() && self.history.is_due(self.clock.now_us())
    }

    /// Removes what the policy no longer keeps. Returns the bytes that were freed. Waits for a checkpoint that is under
    /// way.
    pub fn trim_history(&self) -> Result<u64, StoreError> {
        let maintenance = self.maintenance.lock();
        self.poison.check()?;
        Ok(self.collect(&maintenance, None)?.bytes)
    }

    /// Removes all of the past but what has a name, is being read or copied, as VACUUM FULL asks for: after a
    /// checkpoint, rows that were deleted before it are in no file any more. Returns the bytes that were freed;
    /// segments that somebody reads go with their last reader.
    pub fn forget_history(&self) -> Result<u64, StoreError> {
        let maintenance = self.maintenance.lock();
        self.poison.check()?;
        Ok(self.collect(&maintenance, Some(HistoryPolicy::NONE))?.bytes)
    }

    /// Keeps the newest manifest with everything that it names, and the log after it, for as long as the pin lives. No
    /// checkpoint is made. Waits for one that is under way.
    pub fn pin_manifest(&self) -> Result<ManifestPin, StoreError> {
        let maintenance = self.maintenance.lock();
        let (versions, hold) = self.history.to_copy();
        let mut named = FileSizes::new();
        for version in &versions {
            named.extend(version.files.iter().map(|(file, bytes)| (*file, *bytes)));
        }
        let within = Paths::new(Path::new(""));
        let mut files = pinned(named);
        for version in &versions {
            let bytes = self.disk.length(&self.paths.manifest(version.number))?;
            files.push(PinnedFile { path: within.manifest(version.number), bytes });
        }
        let manifest = &maintenance.manifest;
        let (number, lsn, time_us) = (manifest.number, manifest.lsn, manifest.time_us);
        let mut pin = ManifestPin { number, lsn, time_us, wal_from: manifest.wal_from, files, hold };
        self.pin_cloned(&mut pin);
        Ok(pin)
    }

    /// Adds to what a pin keeps the files that clones name in the log by now: that log is copied with the manifest, and
    /// whoever replays it asks for them, even of a clone that was dropped since.
    pub fn pin_cloned(&self, pin: &mut ManifestPin) {
        // Held until they are kept: nobody collects meanwhile. First what no manifest has, as below.
        let cloned = self.cloned.lock();
        let mut named = FileSizes::new();
        for (_, files) in cloned.iter() {
            named.extend(files.iter().map(|(file, bytes)| (*file, *bytes)));
        }
        named.extend(self.history.cloned());
        // What only log before the manifest names may have gone with that past.
        named.retain(|(kind, file), _| self.disk.length(&self.paths.data(*kind, *file)).is_ok());
        pin.hold.keep_files(named.keys().copied());
        drop(cloned);
        for file in pinned(named) {
            if !pin.files.contains(&file) {
                pin.files.push(file);
            }
        }
    }

    /// The files that clones name in the log, as far back as the past is kept: whoever copies the log away copies them
    /// as well. None of them is held.
    pub fn cloned_files(&self) -> Vec<PinnedFile> {
        // First what no manifest has: a checkpoint in between writes its own down before it takes it from here.
        let mut named = FileSizes::new();
        for (_, files) in self.cloned.lock().iter() {
            named.extend(files.iter().map(|(file, bytes)| (*file, *bytes)));
        }
        named.extend(self.history.cloned());
        pinned(named)
    }
}

fn pinned(named: FileSizes) -> Vec<PinnedFile> {
    let within = Paths::new(Path::new(""));
    named
        .into_iter()
        .map(|((kind, file), bytes)| PinnedFile { path: within.data(kind, file), bytes })
        .collect()
}

/// A moment that has a place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    Time(i64),
    Commit(Lsn),
}

impl Until {
    /// `None` for a name.
    pub(crate) fn of(at: &AsOf) -> Option<Self> {
        match at {
            AsOf::Time(time_us) => Some(Self::Time(*time_us)),
            AsOf::Commit(lsn) => Some(Self::Commit(*lsn)),
            AsOf::Named { .. } => None,
        }
    }

    /// Whether the moment lies before a commit of that number and time.
    pub(crate) fn is_before(self, lsn: Lsn, time_us: i64) -> bool {
        match self {
            Self::Time(asked) => asked < time_us,
            Self::Commit(asked) => asked < lsn,
        }
    }

    /// Whether a version shows the moment without any log.
    fn is_at(self, version: &Version) -> bool {
        match self {
            Self::Time(asked) => asked == version.time_us,
            Self::Commit(asked) => asked == version.lsn,
        }
    }

    /// Another moment, said in the same way.
    pub(crate) fn moment(self, (lsn, time_us): (Lsn, i64)) -> String {
        match self {
            Self::Time(_) => Self::Time(time_us).to_string(),
            Self::Commit(_) => Self::Commit(lsn).to_string(),
        }
    }
}

impl fmt::Display for Until {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Commit(lsn) => write!(f, "commit {lsn}"),
            Self::Time(time_us) => match timestamp_us_to_datetime(*time_us) {
                Some(time) => write!(f, "{time}+00"),
                None => write!(f, "microsecond {time_us} since 1970"),
            },
        }
    }
}

impl fmt::Debug for ManifestPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManifestPin")
            .field("number", &self.number)
            .field("lsn", &self.lsn)
            .field("files", &self.files.len())
            .finish_non_exhaustive()
    }
}
