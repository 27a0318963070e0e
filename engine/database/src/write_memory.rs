//! What a tenant's unfinished writes hold in memory: rows of COPYs under way, operations of open transactions.
//!
//! Each COPY and each transaction has a [`Charge`] on its tenant's [`WriteMemory`]. Nobody waits for another's to
//! end: two transactions that wait for each other's memory would wait for ever. What does not fit fails (53200).

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use sepal_storage::{Op, batch_bytes};
use sepal_types::{Error, Result, SqlState};

/// Counted per operation besides its rows: a transaction of many small ones is not free.
const OP_BYTES: usize = 256;

/// One tenant's budget.
#[derive(Debug)]
pub struct WriteMemory {
    limit: usize,
    used: AtomicUsize,
}

/// A share of it, returned on drop.
#[derive(Debug)]
pub struct Charge {
    memory: Arc<WriteMemory>,
    bytes: usize,
}

impl WriteMemory {
    pub fn new(limit: usize) -> Self {
        Self { limit, used: AtomicUsize::new(0) }
    }

    /// Bytes held now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    pub fn limit(&self) -> usize {
        self.limit
    }
}

impl Charge {
    pub fn none(memory: &Arc<WriteMemory>) -> Self {
        Self { memory: Arc::clone(memory), bytes: 0 }
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Errors: 53200 when the tenant's limit would be passed; the charge is as before then.
    pub fn grow(&mut self, bytes: usize) -> Result<()> {
        let limit = self.memory.limit;
        let fits = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= limit);
        self.memory.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).map_err(|used| {
            Error::new(SqlState::OutOfMemory, "out of memory")
                .with_detail(format!(
                    "This tenant's unfinished writes hold {used} bytes and would need {bytes} more; the limit is \
                     {limit} bytes."
                ))
                .with_hint(
                    "Load in parts, each a transaction of its own, or raise the server's setting tenant_write_mib.",
                )
        })?;
        self.bytes += bytes;
        Ok(())
    }

    /// Returns a part.
    pub fn shrink(&mut self, bytes: usize) {
        let returned = bytes.min(self.bytes);
        self.bytes -= returned;
        self.memory.used.fetch_sub(returned, Ordering::Relaxed);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.shrink(self.bytes);
    }
}

/// Bytes that operations hold.
pub fn op_bytes(ops: &[Op]) -> usize {
    ops.iter().map(|op| OP_BYTES + row_bytes(op)).sum()
}

fn row_bytes(op: &Op) -> usize {
    match op {
        // Of the slice: batches cut out of one another share their buffers.
        Op::Insert { rows, .. } => batch_bytes(rows),
        Op::Delete { rows, .. } => size_of_val(rows.as_slice()),
        Op::CreateTable(_)
        | Op::AlterTable(_)
        | Op::DropTable(_)
        | Op::Truncate(_)
        | Op::SetSequence { .. }
        | Op::Clone { .. } => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charges_share_one_limit_and_return_what_they_held() {
        let memory = Arc::new(WriteMemory::new(100));
        let (mut one, mut other) = (Charge::none(&memory), Charge::none(&memory));
        one.grow(60).unwrap();
        let full = other.grow(41).unwrap_err();
        assert_eq!(full.state().code(), "53200");
        assert!(full.hint().unwrap().contains("tenant_write_mib"));
        other.grow(40).unwrap();
        one.shrink(1_000);
        other.grow(60).unwrap();
        drop(other);
        one.grow(100).unwrap();
        assert!(one.grow(usize::MAX).is_err(), "no overflow");
    }
}
