//! The strengths of locks and which of them exclude each other: PostgreSQL's tables ("Explicit Locking").

pub use sepal_query::locking::RowMode;

/// How a table is locked. Ascending as Postgres lists them, which is not by strength.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum TableMode {
    AccessShare,
    RowShare,
    RowExclusive,
    ShareUpdateExclusive,
    Share,
    ShareRowExclusive,
    Exclusive,
    AccessExclusive,
}

use TableMode::{
    AccessExclusive, AccessShare, Exclusive, RowExclusive, RowShare, Share, ShareRowExclusive,
    ShareUpdateExclusive,
};

impl TableMode {
    pub const ALL: [Self; 8] = [
        AccessShare,
        RowShare,
        RowExclusive,
        ShareUpdateExclusive,
        Share,
        ShareRowExclusive,
        Exclusive,
        AccessExclusive,
    ];

    /// Its place in a set of modes.
    pub const fn bit(self) -> u8 {
        1 << self as u8
    }

    /// The set of modes that nobody else may hold beside it.
    pub const fn conflicts(self) -> u8 {
        let all = u8::MAX;
        let shares = AccessShare.bit() | RowShare.bit();
        match self {
            AccessShare => AccessExclusive.bit(),
            RowShare => Exclusive.bit() | AccessExclusive.bit(),
            RowExclusive => all ^ (shares | RowExclusive.bit() | ShareUpdateExclusive.bit()),
            ShareUpdateExclusive => all ^ (shares | RowExclusive.bit()),
            Share => all ^ (shares | Share.bit()),
            ShareRowExclusive => all ^ shares,
            Exclusive => all ^ AccessShare.bit(),
            AccessExclusive => all,
        }
    }

    /// As `pg_locks` calls it.
    pub const fn name(self) -> &'static str {
        match self {
            AccessShare => "AccessShareLock",
            RowShare => "RowShareLock",
            RowExclusive => "RowExclusiveLock",
            ShareUpdateExclusive => "ShareUpdateExclusiveLock",
            Share => "ShareLock",
            ShareRowExclusive => "ShareRowExclusiveLock",
            Exclusive => "ExclusiveLock",
            AccessExclusive => "AccessExclusiveLock",
        }
    }
}

/// The four, weakest first: a mode's place here is its place in arrays.
pub const ROW_MODES: [RowMode; 4] =
    [RowMode::KeyShare, RowMode::Share, RowMode::NoKeyUpdate, RowMode::Update];

/// Whether two transactions may not hold these on one row.
pub const fn rows_conflict(one: RowMode, other: RowMode) -> bool {
    use RowMode::{KeyShare, NoKeyUpdate, Share, Update};
    match (one, other) {
        (Update, _) | (_, Update) | (NoKeyUpdate, Share | NoKeyUpdate) | (Share, NoKeyUpdate) => true,
        (KeyShare, KeyShare | Share | NoKeyUpdate) | (Share, KeyShare | Share) | (NoKeyUpdate, KeyShare) => {
            false
        }
    }
}

/// As Postgres' server log calls them.
pub const fn row_mode_name(mode: RowMode) -> &'static str {
    match mode {
        RowMode::KeyShare => "AccessShareLock",
        RowMode::Share => "RowShareLock",
        RowMode::NoKeyUpdate => "ExclusiveLock",
        RowMode::Update => "AccessExclusiveLock",
    }
}
