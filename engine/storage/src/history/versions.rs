//! Which manifests are on disk besides the newest, and why each of them stays.
//!
//! Kept in memory beside the files, without the tables: what a manifest names is all that the collection of garbage
//! asks for. Touches no file. A version that has left here is nobody's any more: `checkpoint::gc` removes its manifest,
//! and then what no other names.
//!
//! A version stays while
//! - it is the newest;
//! - a moment within the policy's time can be reached only from it: the newest that is older than that time, and all
//!   later ones, up to the policy's count and bytes;
//! - a snapshot's name, a [`Hold`] on it, or somebody who is reading on from an earlier one asks for it.

mod rotate;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use parking_lot::Mutex;
use sepal_types::{FileId, Lsn};

use super::{HistoryPolicy, Until};
use crate::{
    StoreError,
    manifest::{FileSizes, Manifest, NamedEntry},
    paths::DataKind,
    planted::{self, Bug},
};

/// A manifest without its tables.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    pub number: u64,
    pub lsn: Lsn,
    pub time_us: i64,
    /// The first log file with commits after it.
    pub wal_from: u64,
    /// What it names.
    pub files: Arc<FileSizes>,
    /// What the log before it names.
    pub cloned: Arc<FileSizes>,
}

impl Version {
    fn of(manifest: &Manifest) -> Self {
        let cloned = manifest.cloned.iter().map(|named| ((named.kind, named.file), named.bytes));
        Self {
            number: manifest.number,
            lsn: manifest.lsn,
            time_us: manifest.time_us,
            wal_from: manifest.wal_from,
            files: Arc::new(manifest.files()),
            cloned: Arc::new(cloned.collect()),
        }
    }

    /// What it takes to open it, and to come to it from an earlier one if somebody may read from `reach_from` on.
    fn needed(&self, reach_from: u64) -> impl Iterator<Item = (&(DataKind, FileId), &u64)> {
        let cloned = (self.number > reach_from).then(|| self.cloned.iter());
        self.files.iter().chain(cloned.into_iter().flatten())
    }
}

/// The versions of one store.
pub(crate) struct History {
    policy: HistoryPolicy,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By number, the newest among them.
    versions: BTreeMap<u64, Version>,
    /// Manifests that are there and do not open.
    unreadable: BTreeMap<u64, StoreError>,
    /// As the newest manifest has them.
    named: Vec<NamedEntry>,
    /// From this version on the log is kept.
    reach_from: u64,
    /// How often each version is held.
    holds: BTreeMap<u64, usize>,
    /// How often somebody reads on from a version.
    readers: BTreeMap<u64, usize>,
    /// How often files are held that no version may name.
    copied: BTreeMap<(DataKind, FileId), usize>,
    /// Of files that only the past needs, when that was last counted.
    bytes: u64,
}

/// What keeps a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// A copy of it is being made.
    Copied,
    /// Somebody replays the log after it, so later versions stay as well: they know what that log names.
    Read,
}

/// Keeps versions until it is dropped.
pub(crate) struct Hold {
    history: Arc<History>,
    numbers: Vec<u64>,
    files: Vec<(DataKind, FileId)>,
    why: Why,
}

impl History {
    pub(crate) fn new(policy: HistoryPolicy, newest: &Manifest) -> Self {
        let history = Self { policy, state: Mutex::default() };
        history.push(newest);
        history
    }

    pub(crate) fn policy(&self) -> HistoryPolicy {
        self.policy
    }

    /// A manifest has become the newest.
    pub(crate) fn push(&self, manifest: &Manifest) {
        let mut state = self.state.lock();
        state.named.clone_from(&manifest.snapshots);
        state.versions.insert(manifest.number, Version::of(manifest));
    }

    /// A manifest that was found when the store opened, or opens since. One without a time was left behind by a program
    /// that kept no history, and had removed files by then.
    pub(crate) fn add_older(&self, manifest: &Manifest) {
        let mut state = self.state.lock();
        state.unreadable.remove(&manifest.number);
        if manifest.time_us > 0 {
            state.versions.insert(manifest.number, Version::of(manifest));
        }
    }

    /// The log begins with this file: nobody reads on from a version before it, whatever keeps that.
    pub(crate) fn begins_at(&self, log_from: u64) {
        let mut state = self.state.lock();
        let reached = state.versions.values().find(|version| version.wal_from >= log_from);
        let reached = reached.or_else(|| state.versions.values().next_back()).map(|version| version.number);
        state.reach_from = reached.unwrap_or(0);
    }

    pub(crate) fn add_unreadable(&self, number: u64, error: StoreError) {
        self.state.lock().unreadable.insert(number, error);
    }

    /// The manifests that are there and did not open.
    pub(crate) fn unreadable(&self) -> Vec<u64> {
        self.state.lock().unreadable.keys().copied().collect()
    }

    /// Lets go of the versions that nothing keeps at `now_us`. Returns the numbers of the manifests that stay.
    /// `log_bytes` are those of the log's files from a number on that no recovery needs.
    pub(crate) fn trim(
        &self,
        now_us: i64,
        policy: Option<HistoryPolicy>,
        log_bytes: &dyn Fn(u64) -> u64,
    ) -> BTreeSet<u64> {
        let mut state = self.state.lock();
        let chain = state.chain(now_us, policy.unwrap_or(self.policy), log_bytes);
        let reader = state.readers.keys().next().copied().unwrap_or(u64::MAX);
        let is_named = |number: &u64| {
            !planted::is(Bug::NameNotKept) && state.named.iter().any(|named| named.manifest == *number)
        };
        let stays = |number: &u64| {
            chain.contains(number)
                || *number >= reader
                || state.holds.contains_key(number)
                || is_named(number)
        };
        let numbers = state.versions.keys().chain(state.unreadable.keys());
        let keep: BTreeSet<u64> = numbers.copied().filter(stays).collect();
        state.versions.retain(|number, _| keep.contains(number));
        state.unreadable.retain(|number, _| keep.contains(number));
        state.reach_from = chain.first().copied().unwrap_or(0);
        state.bytes = state.only_past(&keep) + log_bytes(state.floor());
        keep
    }

    /// Whether [`Self::trim`] would let go of something for its age.
    pub(crate) fn is_due(&self, now_us: i64) -> bool {
        let state = self.state.lock();
        let horizon = now_us.saturating_sub(self.policy.keep_us);
        // The second one is old enough to stand for everything before the horizon.
        state.versions.range(state.reach_from..).nth(1).is_some_and(|(_, next)| next.time_us <= horizon)
    }

    /// Calls `trim` with the first log file that somebody may replay. Nobody begins to meanwhile.
    pub(crate) fn with_floor<T>(&self, trim: impl FnOnce(u64) -> T) -> T {
        let state = self.state.lock();
        trim(state.floor())
    }

    /// Every file under `segments/` that some version names; `None` when nobody can know.
    pub(crate) fn needed(&self) -> Option<HashSet<(DataKind, FileId)>> {
        let state = self.state.lock();
        let from = state.read_from();
        let named =
            || state.versions.values().flat_map(|version| version.needed(from)).map(|(file, _)| *file);
        state.unreadable.is_empty().then(|| named().chain(state.copied.keys().copied()).collect())
    }

    /// What the log names that later versions than the first one kept come after.
    pub(crate) fn cloned(&self) -> FileSizes {
        let state = self.state.lock();
        let from = state.read_from();
        let later = state.versions.values().filter(|version| version.number > from);
        later.flat_map(|version| version.cloned.iter()).map(|(file, bytes)| (*file, *bytes)).collect()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.state.lock().bytes
    }

    /// The version that `until` is reached from, held for reading: the newest that is not after it. `log_from` is the
    /// oldest log file.
    ///
    /// Errors: what was the oldest moment that can be reached, or why it cannot be read.
    pub(crate) fn base(
        self: &Arc<Self>,
        until: Until,
        log_from: impl FnOnce() -> u64,
    ) -> Result<(Version, Hold), StoreError> {
        let mut state = self.state.lock();
        let log_from = log_from();
        // One of an older program has no time; that it is there can be relied on nevertheless.
        let timed = |version: &Version| version.time_us > 0 || matches!(until, Until::Commit(_));
        let before = |version: &&Version| !until.is_before(version.lsn, version.time_us) && timed(version);
        let found = state.versions.values().rev().find(before);
        let found = found.filter(|version| version.wal_from >= log_from || until.is_at(version)).cloned();
        let Some(version) = found else {
            let asked = until.to_string();
            let unreadable = state.unreadable.values().next_back().cloned();
            let oldest = state.oldest(log_from).map(|version| until.moment((version.lsn, version.time_us)));
            return Err(unreadable.unwrap_or(StoreError::NoSuchPast {
                asked,
                oldest: oldest.unwrap_or_else(|| "the next checkpoint".to_owned()),
            }));
        };
        let hold = state.hold(self, vec![version.number], Why::Read);
        Ok((version, hold))
    }

    /// The first moment that a later version than this one has. `None` for the newest, and for one that no name keeps:
    /// what was logged after it is kept with it.
    pub(crate) fn after_named(&self, number: u64) -> Option<(Lsn, i64)> {
        let state = self.state.lock();
        let named = state.named.iter().any(|named| named.manifest == number);
        let later = state.versions.range(number + 1..).next().filter(|_| named);
        later.map(|(_, version)| (version.lsn, version.time_us))
    }

    /// A named snapshot's version, held for reading.
    pub(crate) fn named(
        self: &Arc<Self>,
        environment: &str,
        name: &str,
    ) -> Result<(NamedEntry, Hold), StoreError> {
        let mut state = self.state.lock();
        let found = state.named.iter().find(|named| named.environment == environment && named.name == name);
        let named = found.cloned().ok_or_else(|| StoreError::NoSuchSnapshot { name: name.to_owned() })?;
        if let Some(error) = state.unreadable.get(&named.manifest) {
            return Err(error.clone());
        }
        let hold = state.hold(self, vec![named.manifest], Why::Read);
        Ok((named, hold))
    }

    /// The newest version and those that have a name, held to be copied, with everything that they name. The newest
    /// comes last.
    pub(crate) fn to_copy(self: &Arc<Self>) -> (Vec<Version>, Hold) {
        let mut state = self.state.lock();
        let mut numbers: BTreeSet<u64> = state.named.iter().map(|named| named.manifest).collect();
        numbers.extend(state.versions.keys().next_back());
        let versions: Vec<Version> =
            numbers.iter().filter_map(|number| state.versions.get(number)).cloned().collect();
        let hold = state.hold(self, versions.iter().map(|version| version.number).collect(), Why::Copied);
        (versions, hold)
    }

    /// The named snapshots, each with the bytes of files that neither the newest version nor another name needs.
    pub(crate) fn all_named(&self) -> Vec<(NamedEntry, u64)> {
        let state = self.state.lock();
        let newest = state.versions.keys().next_back().copied();
        let named = state.named.iter().map(|entry| {
            let mut others: BTreeSet<u64> = state.named.iter().map(|named| named.manifest).collect();
            others.extend(newest);
            others.remove(&entry.manifest);
            let needed = state.files_of(&others);
            let own = state.versions.get(&entry.manifest).filter(|_| Some(entry.manifest) != newest);
            let files = own.into_iter().flat_map(|version| version.files.iter());
            let bytes: u64 = files.filter(|(file, _)| !needed.contains(*file)).map(|(_, bytes)| bytes).sum();
            (entry.clone(), bytes)
        });
        named.collect()
    }

    /// The oldest version from which on every moment can be reached, and how many older ones than the newest there are.
    pub(crate) fn span(&self, log_from: impl FnOnce() -> u64) -> (Option<Version>, usize) {
        let state = self.state.lock();
        (state.oldest(log_from()).cloned(), state.versions.len() - 1)
    }
}

impl State {
    /// The versions that the policy keeps, the newest last. Of several at one commit the last says most. It never
    /// reaches further back than it did: that log may be gone.
    fn chain(&self, now_us: i64, policy: HistoryPolicy, log_bytes: &dyn Fn(u64) -> u64) -> Vec<u64> {
        let horizon = now_us.saturating_sub(policy.keep_us);
        let mut chain: Vec<(u64, i64)> = Vec::new();
        let mut versions = self.versions.values().peekable();
        while let Some(version) = versions.next() {
            let superseded = versions.peek().is_some_and(|next| next.lsn == version.lsn);
            let newest = versions.peek().is_none();
            if newest || (!superseded && version.time_us > 0 && version.number >= self.reach_from) {
                chain.push((version.number, version.time_us));
            }
        }
        // Nobody knows how old they are: they go with the ones before them.
        chain.extend(self.unreadable.keys().map(|number| (*number, i64::MAX)));
        chain.sort_unstable();
        let last = chain.len().saturating_sub(1);
        let by_time = chain.iter().rposition(|(_, time_us)| *time_us <= horizon).unwrap_or(0);
        let by_count = last.saturating_sub(policy.keep_versions);
        let mut chain: Vec<u64> =
            chain.into_iter().skip(by_time.max(by_count)).map(|(number, _)| number).collect();
        let mut warned = false;
        while chain.len() > 1 {
            let bytes = self.passing(&chain) + log_bytes(self.log_from(chain.iter()));
            if bytes <= policy.max_bytes {
                break;
            }
            if !warned && policy.max_bytes > 0 {
                tracing::warn!(
                    bytes,
                    limit = policy.max_bytes,
                    "the past takes too much room: the oldest of it goes"
                );
            }
            warned = true;
            chain.remove(0);
        }
        chain
    }

    /// Bytes of files that only the versions of a chain need, besides its last.
    fn passing(&self, chain: &[u64]) -> u64 {
        let mut others: BTreeSet<u64> = self.named.iter().map(|named| named.manifest).collect();
        others.extend(self.holds.keys());
        others.extend(chain.last());
        let reach_from = chain.first().copied().unwrap_or(0);
        self.bytes_of(chain.iter(), reach_from, &self.files_of(&others))
    }

    /// Bytes of files that these versions need and the newest does not.
    fn only_past(&self, numbers: &BTreeSet<u64>) -> u64 {
        let newest: BTreeSet<u64> = self.versions.keys().next_back().copied().into_iter().collect();
        self.bytes_of(numbers.iter(), self.read_from(), &self.files_of(&newest))
    }

    /// Bytes of what these versions need, each file once, besides `needed`.
    fn bytes_of<'a>(
        &self,
        numbers: impl Iterator<Item = &'a u64>,
        reach_from: u64,
        needed: &HashSet<(DataKind, FileId)>,
    ) -> u64 {
        let mut counted: HashSet<(DataKind, FileId)> = HashSet::new();
        let versions = numbers.filter_map(|number| self.versions.get(number));
        let files = versions.flat_map(|version| version.needed(reach_from));
        files
            .filter(|(file, _)| !needed.contains(*file) && counted.insert(**file))
            .map(|(_, bytes)| bytes)
            .sum()
    }

    fn files_of(&self, numbers: &BTreeSet<u64>) -> HashSet<(DataKind, FileId)> {
        let versions = numbers.iter().filter_map(|number| self.versions.get(number));
        versions.flat_map(|version| version.files.keys()).copied().collect()
    }

    /// The first version that somebody may read on from.
    fn read_from(&self) -> u64 {
        self.readers.keys().next().map_or(self.reach_from, |reader| self.reach_from.min(*reader))
    }

    /// The first log file that somebody may replay: from the versions that the policy keeps, and the held ones.
    fn floor(&self) -> u64 {
        let reach = self.versions.range(self.reach_from..).map(|(number, _)| number);
        self.log_from(reach.chain(self.holds.keys()).chain(self.readers.keys()))
    }

    fn log_from<'a>(&self, numbers: impl Iterator<Item = &'a u64>) -> u64 {
        let versions = numbers.filter_map(|number| self.versions.get(number));
        versions.map(|version| version.wal_from).min().unwrap_or(u64::MAX)
    }

    fn oldest(&self, log_from: u64) -> Option<&Version> {
        self.versions.values().find(|version| version.wal_from >= log_from && version.time_us > 0)
    }

    fn hold(&mut self, history: &Arc<History>, numbers: Vec<u64>, why: Why) -> Hold {
        let counts = self.counts(why);
        numbers.iter().for_each(|number| *counts.entry(*number).or_default() += 1);
        Hold { history: Arc::clone(history), numbers, files: Vec::new(), why }
    }

    fn counts(&mut self, why: Why) -> &mut BTreeMap<u64, usize> {
        match why {
            Why::Copied => &mut self.holds,
            Why::Read => &mut self.readers,
        }
    }
}

impl Hold {
    /// Keeps files as well, whether or not a version names them. They are there, and nobody removes any meanwhile.
    pub(crate) fn keep_files(&mut self, files: impl Iterator<Item = (DataKind, FileId)>) {
        let mut state = self.history.state.lock();
        for file in files {
            *state.copied.entry(file).or_default() += 1;
            self.files.push(file);
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut state = self.history.state.lock();
        let counts = state.counts(self.why);
        self.numbers.iter().for_each(|number| let_go(counts, number));
        self.files.iter().for_each(|file| let_go(&mut state.copied, file));
    }
}

fn let_go<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}
