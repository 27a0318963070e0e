//! Bugs that a test plants, to see whether the simulation finds them (`simulation::planted`).
//!
//! Asked at the places where they would be made. Outside tests the answer is a constant no, and nothing is left of
//! the question. A planted bug holds for the thread that planted it.

/// What is done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// A commit is acknowledged without its fdatasync.
    LogNotSynced,
    /// New names are not made durable.
    DirectoryNotSynced,
    /// An fdatasync that failed is tried again, and believed.
    FailedSyncRetried,
    /// A group that met a full device stays in the log.
    FailedGroupKept,
    /// A checkpoint forgets which rows of a segment that stays were deleted.
    TombstoneDropped,
    /// A checkpoint forgets what was deleted while it wrote.
    TombstoneLostInSwap,
    /// Files go before the manifest that does without them is durable.
    EarlyGc,
    /// After a recovery the log's last file is written anew.
    LogFileReused,
    /// What a crash left of a commit counts as the commit.
    TornTailAccepted,
    /// What a killed process left in the page cache is built upon without being made durable.
    TailNotSettled,
    /// A manifest that a killed process renamed is built upon without its name being made durable.
    NamesNotSettled,
    /// A segment's copy under another key is named before its own name is durable.
    CopyNotSynced,
    /// Nobody counts what still needs the tenant's older key, so it is destroyed at once.
    OlderKeyNotCounted,
    /// The log does not say which rows of its segments a clone does not have.
    CloneTombstoneNotLogged,
    /// History lets go of versions that have a name.
    NameNotKept,
}

#[cfg(not(test))]
pub(crate) const fn is(_: Bug) -> bool {
    false
}

#[cfg(test)]
pub(crate) fn is(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

#[cfg(test)]
pub(crate) fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

#[cfg(test)]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}
