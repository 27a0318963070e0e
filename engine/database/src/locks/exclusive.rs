//! How many have a table to themselves, or wait for that: while nobody does, who only reads need not ask the lock table.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::{modes::TableMode, want::Want};

/// Counted under the lock table's mutex by `held` and `queue`; looked at without it.
#[derive(Clone, Debug, Default)]
pub struct Exclusive(Arc<AtomicUsize>);

impl Exclusive {
    pub fn any(&self) -> bool {
        self.0.load(Ordering::SeqCst) > 0
    }

    /// `want` was granted, or stands in line.
    pub fn more(&self, want: &Want) {
        if is_exclusive(want) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// It was given back, or has left the line.
    pub fn less(&self, want: &Want) {
        if is_exclusive(want) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

fn is_exclusive(want: &Want) -> bool {
    matches!(want, Want::Table { mode: TableMode::AccessExclusive, .. })
}
