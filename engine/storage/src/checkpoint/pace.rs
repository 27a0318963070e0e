//! How fast background work may go, and who watches it.
//!
//! `database` decides: it counts the bytes of all tenants' compactions against one rate. A flush is never slowed down:
//! writers wait for it.

use sepal_types::TableId;

/// What a compaction is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Reading,
    Writing,
    BuildingIndexes,
    Committing,
}

/// Told what is done, as it is done. Blocks the work for as long as it does not return.
pub trait Pace: Send + Sync {
    /// A merge of that table's segments begins, of so many bytes uncompressed.
    fn begin(&self, _table: TableId, _bytes: u64) {}

    fn phase(&self, _phase: Phase) {}

    /// So many bytes were read or written. Waits until more may be.
    fn spend(&self, _bytes: u64) {}

    /// There is a merge that pays, and that would not leave free what others may need of the device. It is not begun.
    fn held_back(&self) {}

    /// Whether to give up. Asked often.
    fn is_stopped(&self) -> bool {
        false
    }
}

/// As fast as it goes, to the end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Freely;

impl Pace for Freely {}
