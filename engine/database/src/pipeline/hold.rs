//! A pipeline's hold on the log, from the opening of its tenant on, whether it runs or not.

use std::sync::Arc;

use parking_lot::Mutex;
use sepal_storage::{LogHold, StoreError, TenantStore};
use sepal_types::Lsn;

/// See the module.
#[derive(Debug, Default)]
pub struct HoldSlot(Mutex<Option<(Arc<LogHold>, Lsn)>>);

impl HoldSlot {
    /// A hold on the log after a commit: the one that is there, if it reaches back that far.
    ///
    /// Errors: [`StoreError::LogGone`].
    pub fn take(&self, store: &Arc<TenantStore>, after: Lsn) -> Result<Arc<LogHold>, StoreError> {
        let mut slot = self.0.lock();
        if let Some((hold, from)) = &*slot
            && *from <= after
            && !hold.is_broken()
        {
            return Ok(Arc::clone(hold));
        }
        let hold = Arc::new(store.hold_log(after)?);
        *slot = Some((Arc::clone(&hold), after));
        Ok(hold)
    }

    /// One that somebody took before.
    pub fn put(&self, hold: LogHold, after: Lsn) {
        *self.0.lock() = Some((Arc::new(hold), after));
    }

    /// Nothing up to a commit is needed any more.
    pub fn advance(&self, after: Lsn) {
        if let Some((hold, from)) = &mut *self.0.lock()
            && *from < after
        {
            hold.advance(after);
            *from = after;
        }
    }

    pub fn get(&self) -> Option<Arc<LogHold>> {
        self.0.lock().as_ref().map(|(hold, _)| Arc::clone(hold))
    }

    pub fn is_broken(&self) -> bool {
        self.get().is_some_and(|hold| hold.is_broken())
    }

    pub fn held_bytes(&self) -> u64 {
        self.get().map_or(0, |hold| hold.held_bytes())
    }

    pub fn release(&self) {
        *self.0.lock() = None;
    }
}
