//! Markers: what the last group of a burst needs, so that its damage is not taken for a torn write.
//!
//! `database` asks for one when nothing was committed for a moment; closing a store does, too. See `wal`.

use super::Writer;
use crate::{StoreError, TenantStore};

impl TenantStore {
    /// Writes a marker behind the last commit, unless one stands there: one small write and one fdatasync. From then on
    /// whatever does not open before it is [`StoreError::Corrupt`] in the next recovery. Returns whether it wrote.
    /// Waits for a commit that is being written; after that, while others are queued, it leaves the marker to a later
    /// call.
    ///
    /// Errors: as those of a commit. A full device is survived, and the marker is missing.
    pub fn mark_log(&self) -> Result<bool, StoreError> {
        let mut writer = self.writer.lock();
        if !self.queue.lock().pending.is_empty() {
            return Ok(false);
        }
        self.poison.check()?;
        self.mark(&mut writer)
    }

    pub(crate) fn mark(&self, writer: &mut Writer) -> Result<bool, StoreError> {
        if writer.busy || !writer.wal.wants_marker() {
            return Ok(false);
        }
        writer.busy = true;
        writer.wal.append_marker(self.snapshot().lsn());
        let durable = self.make_durable(writer);
        writer.busy = false;
        durable?;
        self.log.written(writer.wal.synced_length());
        Ok(true)
    }
}
