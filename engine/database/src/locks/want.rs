//! What can be asked for: the objects of a request, and the part of it that something stands in the way of.

use std::sync::Arc;

use roaring::RoaringTreemap;
use sepal_types::TableId;

use super::modes::{RowMode, TableMode, rows_conflict};

/// A unique constraint: its table and itself. Also a namespace of names, see [`NAMES`].
pub type Constraint = (TableId, TableId);

/// Where names of tables and indexes are locked, so that two CREATEs of one name wait for each other.
pub const NAMES: Constraint = (TableId(0), TableId(0));

/// A number that applications lock. Numbers of one `bigint` and of two `integer`s are different ones, and so are
/// those of two environments.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AdvisoryKey {
    pub environment: Arc<str>,
    /// The high half of a bigint, or the first integer.
    pub class: u32,
    pub object: u32,
    /// 1 for a bigint, 2 for two integers, as `pg_locks.objsubid`.
    pub kind: i16,
}

/// Who releases an advisory lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Span {
    /// `pg_advisory_unlock`, or the session's end.
    Session,
    Transaction,
}

/// A request.
#[derive(Clone, Debug, PartialEq)]
pub enum Want {
    Advisory {
        key: AdvisoryKey,
        shared: bool,
        span: Span,
    },
    /// To put keys into a unique constraint. Hashes, ascending: two keys of one hash cost a wait, no more.
    Keys {
        of: Constraint,
        hashes: Vec<u64>,
    },
    Rows {
        table: TableId,
        mode: RowMode,
        rows: RoaringTreemap,
        /// To replace or remove them, not only to keep others from it.
        write: bool,
    },
    Table {
        table: TableId,
        mode: TableMode,
    },
    /// That nobody is replacing or removing the rows. Gives nothing: whoever wants to know whether a key is free
    /// waits so for the end of the transaction that may be freeing it.
    Unwritten {
        table: TableId,
        rows: RoaringTreemap,
    },
}

impl Want {
    /// The keys of a constraint; sorts them.
    pub fn keys(of: Constraint, mut hashes: Vec<u64>) -> Self {
        hashes.sort_unstable();
        hashes.dedup();
        Self::Keys { of, hashes }
    }

    pub fn is_empty(&self) -> bool {
        match self {
            Self::Advisory { .. } | Self::Table { .. } => false,
            Self::Keys { hashes, .. } => hashes.is_empty(),
            Self::Rows { rows, .. } | Self::Unwritten { rows, .. } => rows.is_empty(),
        }
    }

    /// The table it is about; `None` for advisory locks.
    pub fn table(&self) -> Option<TableId> {
        match self {
            Self::Advisory { .. } => None,
            Self::Keys { of, .. } => Some(of.0),
            Self::Rows { table, .. } | Self::Table { table, .. } | Self::Unwritten { table, .. } => {
                Some(*table)
            }
        }
    }

    /// The part of this that could not be granted beside `other`.
    pub(super) fn clash(&self, other: &Want) -> Option<Want> {
        match (self, other) {
            (
                Self::Rows { table, mode, rows, write },
                Self::Rows { table: at, mode: held, rows: theirs, .. },
            ) if table == at && rows_conflict(*mode, *held) => common(rows, theirs).map(|rows| Self::Rows {
                table: *table,
                mode: *mode,
                rows,
                write: *write,
            }),
            (Self::Keys { of, hashes }, Self::Keys { of: at, hashes: theirs }) if of == at => {
                let hashes: Vec<u64> =
                    hashes.iter().copied().filter(|hash| theirs.binary_search(hash).is_ok()).collect();
                (!hashes.is_empty()).then_some(Self::Keys { of: *of, hashes })
            }
            (Self::Table { table, mode }, Self::Table { table: at, mode: theirs })
                if table == at && mode.conflicts() & theirs.bit() != 0 =>
            {
                Some(self.clone())
            }
            (Self::Advisory { key, shared, .. }, Self::Advisory { key: at, shared: theirs, .. })
                if key == at && !(*shared && *theirs) =>
            {
                Some(self.clone())
            }
            _ => None,
        }
    }

    /// The same request for what is not in `part`, which is of the same kind.
    pub(super) fn without(&self, part: &Want) -> Option<Want> {
        let rest = match (self, part) {
            (Self::Rows { table, mode, rows, write }, Self::Rows { rows: gone, .. }) => {
                Self::Rows { table: *table, mode: *mode, rows: rows - gone, write: *write }
            }
            (Self::Keys { of, hashes }, Self::Keys { hashes: gone, .. }) => {
                let left = hashes.iter().copied().filter(|hash| gone.binary_search(hash).is_err());
                Self::Keys { of: *of, hashes: left.collect() }
            }
            (Self::Unwritten { table, rows }, Self::Unwritten { rows: gone, .. }) => {
                Self::Unwritten { table: *table, rows: rows - gone }
            }
            _ => return None,
        };
        (!rest.is_empty()).then_some(rest)
    }

    /// Whether a part of a request is all of it.
    pub(super) fn is_all_of(&self, whole: &Want) -> bool {
        match (self, whole) {
            (Self::Rows { rows, .. }, Self::Rows { rows: all, .. })
            | (Self::Unwritten { rows, .. }, Self::Unwritten { rows: all, .. }) => rows.len() == all.len(),
            (Self::Keys { hashes, .. }, Self::Keys { hashes: all, .. }) => hashes.len() == all.len(),
            _ => true,
        }
    }

    /// Both parts of one request.
    pub(super) fn join(whole: Option<Want>, part: Option<Want>) -> Option<Want> {
        match (whole, part) {
            (Some(mut whole), Some(part)) => {
                match (&mut whole, part) {
                    (Self::Rows { rows, .. }, Self::Rows { rows: more, .. })
                    | (Self::Unwritten { rows, .. }, Self::Unwritten { rows: more, .. }) => *rows |= more,
                    (Self::Keys { hashes, .. }, Self::Keys { hashes: more, .. }) => {
                        hashes.extend(more);
                        hashes.sort_unstable();
                        hashes.dedup();
                    }
                    _ => {}
                }
                Some(whole)
            }
            (whole, part) => whole.or(part),
        }
    }
}

/// Rows in both, if there are any. One row is by far the most common request.
pub(super) fn common(rows: &RoaringTreemap, others: &RoaringTreemap) -> Option<RoaringTreemap> {
    if others.is_empty() {
        return None;
    }
    if rows.len() == 1 {
        return rows.min().filter(|row| others.contains(*row)).map(|_| rows.clone());
    }
    let both = rows & others;
    (!both.is_empty()).then_some(both)
}
