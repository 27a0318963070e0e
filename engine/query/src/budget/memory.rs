//! Memory of queries: a tenant's pool, within the process' one.
//!
//! An operator that can spill may hold at most [`SHARE`] times what stays free after it: the dynamic threshold of
//! shared-memory switches (Choudhury, Hahne 1998). Alone it gets two thirds, two get two fifths each, n always leave
//! a (2n + 1)th free for whoever comes next; who holds more than its share by then notices at its next growth, and
//! spills. DataFusion's own fair pool divides by the operators registered, used or not, and lets early ones keep
//! what they have beyond the limit; its greedy pool lets the first take all, so that the second fails at its first row.
//!
//! The same rule stands between tenants: none may hold more than twice what it leaves to the others.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use datafusion::{
    error::{DataFusionError, Result},
    execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation},
};

use crate::error::translate;

/// How many times what stays free somebody may hold.
const SHARE: usize = 2;

/// The part of a pool below which the threshold does not count: a batch or two must fit even where many are at work.
const FLOOR: usize = 64;

/// The part of a tenant's pool that small batches of merges may take beyond it: what a merge puts aside makes room, and
/// refused it would fail the query for want of a few kilobytes while others hold the rest.
const BEYOND: usize = 16;

/// What DataFusion calls the merges of sorts.
const MERGE: &str = "ExternalSorterMerge";

/// What the queries of all tenants may hold, in bytes.
#[derive(Debug)]
pub struct QueryMemory {
    limit: usize,
    used: AtomicUsize,
}

impl QueryMemory {
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicUsize::new(0) })
    }

    /// Bytes held now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    pub fn limit(&self) -> usize {
        self.limit
    }
}

/// What one tenant's queries may hold, in bytes.
#[derive(Debug)]
pub struct TenantMemory {
    limit: usize,
    used: AtomicUsize,
    refused: AtomicU64,
    process: Arc<QueryMemory>,
}

/// What rows that outlive their statement hold of their tenant's memory. Dropping it gives that back.
#[derive(Debug)]
pub struct KeptMemory(MemoryReservation);

impl KeptMemory {
    /// `name`: what holds them, as errors call it.
    pub(crate) fn new(name: &str, memory: &Arc<TenantMemory>) -> Self {
        let pool = Arc::clone(memory) as Arc<dyn MemoryPool>;
        Self(MemoryConsumer::new(name).register(&pool))
    }

    /// Errors: 53200 where so many bytes more are not to be had.
    pub fn grow(&self, bytes: usize) -> std::result::Result<(), sepal_types::Error> {
        self.0.try_grow(bytes).map_err(translate)
    }
}

/// Why nothing more is given.
enum Full {
    /// The tenant's own limit.
    Tenant,
    /// Everybody's together.
    Process,
}

impl TenantMemory {
    pub fn new(limit: usize, process: Arc<QueryMemory>) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicUsize::new(0), refused: AtomicU64::new(0), process })
    }

    /// Bytes held now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    pub fn limit(&self) -> usize {
        self.limit
    }

    /// How often an operator got nothing more, and spilled or failed.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// `held`: what an operator that can spill holds already.
    fn take(&self, more: usize, held: Option<usize>, limit: usize) -> std::result::Result<(), Full> {
        let tenant = grow(&self.used, limit, more, held).ok_or(Full::Tenant)?;
        if grow(&self.process.used, self.process.limit, more, Some(tenant - more)).is_none() {
            self.used.fetch_sub(more, Ordering::Relaxed);
            return Err(Full::Process);
        }
        Ok(())
    }

    fn refusal(&self, why: &Full, more: usize, reservation: &MemoryReservation) -> DataFusionError {
        self.refused.fetch_add(1, Ordering::Relaxed);
        let operator = reservation.consumer().name();
        DataFusionError::ResourcesExhausted(match why {
            Full::Tenant => format!(
                "{operator} holds {} bytes and would need {more} more; this tenant's queries hold {} of {} bytes \
                 (setting tenant_query_mib).",
                reservation.size(),
                self.used(),
                self.limit
            ),
            Full::Process => format!(
                "{operator} holds {} bytes and would need {more} more; the server's memory for queries is in use \
                 (setting query_mib).",
                reservation.size()
            ),
        })
    }
}

/// Adds `more` where it fits, and gives what is used then. Who names what it `held` of it is bound to its share.
fn grow(used: &AtomicUsize, limit: usize, more: usize, held: Option<usize>) -> Option<usize> {
    let fits = |now: usize| {
        let sum = now.checked_add(more).filter(|sum| *sum <= limit)?;
        let share = SHARE.saturating_mul(limit - sum).max(limit / FLOOR);
        held.is_none_or(|held| held.saturating_add(more) <= share).then_some(sum)
    };
    used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).ok().map(|before| before + more)
}

impl MemoryPool for TenantMemory {
    fn name(&self) -> &str {
        "tenant"
    }

    fn grow(&self, _: &MemoryReservation, additional: usize) {
        self.used.fetch_add(additional, Ordering::Relaxed);
        self.process.used.fetch_add(additional, Ordering::Relaxed);
    }

    fn shrink(&self, _: &MemoryReservation, shrink: usize) {
        self.used.fetch_sub(shrink, Ordering::Relaxed);
        self.process.used.fetch_sub(shrink, Ordering::Relaxed);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        let consumer = reservation.consumer();
        // A merge of what was put aside takes as many runs at a time as it gets memory for, so it can do with less:
        // unbound, the first partition's would leave nothing to the second's. A merge of what is in memory, done to
        // put it aside, has the same name and cannot do with less; it grows by small batches, not by runs.
        let merges = consumer.name().starts_with(MERGE);
        let seats = merges && additional > self.limit / FLOOR;
        let adapts = consumer.can_spill() || seats;
        let held = adapts.then(|| reservation.size());
        let limit = self.limit + if merges && !seats { self.limit / BEYOND } else { 0 };
        self.take(additional, held, limit).map_err(|why| self.refusal(&why, additional, reservation))
    }

    fn reserved(&self) -> usize {
        self.used()
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.limit)
    }
}

impl fmt::Display for TenantMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tenant(used: {}, limit: {})", self.used(), self.limit)
    }
}

#[cfg(test)]
mod tests {
    use datafusion::execution::memory_pool::MemoryConsumer;

    use super::*;

    fn spilling(pool: &Arc<TenantMemory>) -> MemoryReservation {
        let pool = Arc::clone(pool) as Arc<dyn MemoryPool>;
        MemoryConsumer::new("sort").with_can_spill(true).register(&pool)
    }

    fn fixed(pool: &Arc<TenantMemory>) -> MemoryReservation {
        let pool = Arc::clone(pool) as Arc<dyn MemoryPool>;
        MemoryConsumer::new("join").register(&pool)
    }

    fn fill(reservation: &MemoryReservation) -> usize {
        while reservation.try_grow(1).is_ok() {}
        reservation.size()
    }

    #[test]
    fn one_that_spills_leaves_a_part_and_later_ones_find_some() {
        let pool = TenantMemory::new(900, QueryMemory::new(10_000));
        let (first, second) = (spilling(&pool), spilling(&pool));
        assert_eq!(fill(&first), 600);
        assert_eq!(fill(&second), 200, "two thirds of what the first left");
        assert!(first.try_grow(1).is_err(), "it spills now");
        first.free();
        assert_eq!(fill(&second), 600);
        assert!(pool.refused() > 0);
    }

    #[test]
    fn a_merge_is_bound_for_runs_and_free_for_batches() {
        let pool = TenantMemory::new(6_400, QueryMemory::new(100_000));
        let merge = {
            let pool = Arc::clone(&pool) as Arc<dyn MemoryPool>;
            MemoryConsumer::new(format!("{MERGE}[0]")).register(&pool)
        };
        while merge.try_grow(101).is_ok() {}
        assert!((4_000..=4_267).contains(&merge.size()), "two thirds: {}", merge.size());
        while merge.try_grow(100).is_ok() {}
        assert!((6_700..=6_800).contains(&merge.size()), "a sixteenth beyond: {}", merge.size());
    }

    #[test]
    fn one_that_cannot_spill_may_have_it_all() {
        let pool = TenantMemory::new(900, QueryMemory::new(10_000));
        let join = fixed(&pool);
        assert_eq!(fill(&join), 900);
        let told = join.try_grow(1).unwrap_err().to_string();
        assert!(told.contains("tenant_query_mib") && told.contains("900 of 900"), "{told}");
        drop(join);
        assert_eq!(pool.used(), 0);
    }

    #[test]
    fn a_tenant_leaves_some_to_the_others() {
        let process = QueryMemory::new(900);
        let (greedy, other) = (TenantMemory::new(900, Arc::clone(&process)), TenantMemory::new(900, process));
        let small = fixed(&other);
        small.try_grow(90).unwrap();
        let large = fixed(&greedy);
        assert_eq!(fill(&large), 540, "twice what it left");
        let told = large.try_grow(1).unwrap_err().to_string();
        assert!(told.contains("setting query_mib") && !told.contains("540 of"), "{told}");
        small.try_grow(100).unwrap();
        assert_eq!(greedy.used() + other.used(), 730);
        drop((small, large));
        assert_eq!(greedy.process.used(), 0, "what is refused is not kept");
    }

    #[test]
    fn small_needs_are_met_where_many_are_at_work() {
        let pool = TenantMemory::new(6_400, QueryMemory::new(10_000));
        let _join = {
            let join = fixed(&pool);
            join.try_grow(6_250).unwrap();
            join
        };
        spilling(&pool).try_grow(100).unwrap();
        assert!(spilling(&pool).try_grow(usize::MAX).is_err(), "no overflow");
    }
}
