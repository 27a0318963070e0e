//! What filters found out about segments, kept: rows that a predicate let through, labels of columns, and which rows
//! have a value.
//!
//! Segments never change, so neither does what is kept. It is a tenant's own: each finds only what it put in, under the
//! file's id, which is random and never reused, and under all of the predicate, its table and its columns
//! ([`super::identity`]). All tenants share one budget ([`FairCache`]). A predicate's rows are kept when it comes for
//! the second time, so that those that never come again push nothing out, and so are the rows with a value; labels are
//! made when they are wanted for the second time, and again, once they were pushed out, only after eight times as many.

use std::{
    collections::VecDeque,
    hash::{BuildHasher, Hash, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use datafusion::arrow::array::{Array, ArrayRef};
use parking_lot::Mutex;
use sepal_storage::{FairCache, Near};
use sepal_types::{FileId, Result, TableId, TenantId};

use super::{
    Selected,
    identity::{ColumnName, Named},
    labels::Labels,
};

/// How many things that were wanted a tenant's list remembers.
const MOST_WANTED: usize = 1_024;
/// One entry may take this part of the budget, and of what a tenant may hold.
const MOST_OF_BUDGET: usize = 2;

/// A file and the hash of what is kept of it.
type Key = (FileId, u64);

/// What all tenants' filters have found out.
pub struct FilterMemory {
    held: Mutex<FairCache<Key, Kept>>,
    most_bytes: usize,
    hashes: RandomState,
    /// How often something was put in or taken out, for [`Near`].
    changes: AtomicU64,
}

/// One tenant's. Bound to the tenant for life.
pub struct FilterCache {
    tenant: TenantId,
    memory: Arc<FilterMemory>,
    wanted: Mutex<Wanted>,
    /// Rows with a value that the memory has given: searches that filter nothing ask for them too.
    near: Near<Key, (TableColumn, Selected)>,
    /// Of two searches that want the same labels one makes them; the other goes on without.
    building: [Mutex<()>; 8],
}

#[derive(Clone)]
enum Kept {
    Rows(Arc<(Named, Selected)>),
    Labels(Arc<(TableColumn, Labels)>),
    /// Rows that have a value, where not all have.
    Valued(Arc<(TableColumn, Selected)>),
}

/// A column of a table, as its labels are known, or which rows have a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct TableColumn {
    pub table: TableId,
    pub column: ColumnName,
}

/// Labels, lent.
#[derive(Clone)]
pub(super) struct LentLabels(Arc<(TableColumn, Labels)>);

impl std::ops::Deref for LentLabels {
    type Target = Labels;

    fn deref(&self) -> &Labels {
        &self.0.1
    }
}

impl std::fmt::Debug for FilterMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FilterMemory").field("bytes", &self.bytes()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for FilterCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FilterCache").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

impl FilterMemory {
    /// `tenant_bytes`: what one tenant may hold of it at most, 0 for all of it.
    pub fn new(budget_bytes: usize, tenant_bytes: usize) -> Self {
        let one = if tenant_bytes > 0 { tenant_bytes.min(budget_bytes) } else { budget_bytes };
        Self {
            held: Mutex::new(FairCache::new(budget_bytes, tenant_bytes)),
            most_bytes: one / MOST_OF_BUDGET,
            hashes: RandomState::new(),
            changes: AtomicU64::new(0),
        }
    }

    /// Bytes held now.
    pub fn bytes(&self) -> usize {
        self.held.lock().used_bytes()
    }

    pub fn budget_bytes(&self) -> usize {
        self.held.lock().budget_bytes()
    }

    /// Of the bytes held, a tenant's.
    pub fn tenant_bytes(&self, tenant: TenantId) -> usize {
        self.held.lock().tenant_bytes(tenant)
    }

    /// The tenant is gone.
    pub fn forget_tenant(&self, tenant: TenantId) {
        self.held.lock().forget_tenant(tenant);
        self.changed();
    }

    fn changed(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
    }
}

impl FilterCache {
    pub fn new(tenant: TenantId, memory: Arc<FilterMemory>) -> Self {
        Self { tenant, memory, wanted: Mutex::default(), near: Near::default(), building: Default::default() }
    }

    /// Under what a thing of a segment is kept.
    pub(super) fn key(&self, segment: FileId, name: &impl Hash) -> Key {
        (segment, self.memory.hashes.hash_one(name))
    }

    /// The rows of a segment that the predicate lets through, if that is known.
    pub(super) fn rows(&self, key: &Key, name: &Named) -> Option<Selected> {
        match self.look(key)? {
            Kept::Rows(kept) if kept.0 == *name => Some(kept.1.clone()),
            _ => None,
        }
    }

    /// Keeps those rows, unless this is the first time that they are offered.
    pub(super) fn offer(&self, key: Key, name: Named, rows: &Selected) {
        if self.wanted.lock().again(self.memory.hashes.hash_one(key)) {
            let bytes = name.bytes() + rows.bytes();
            self.put(key, Kept::Rows(Arc::new((name, rows.clone()))), bytes);
        }
    }

    /// The rows of a segment's column that have a value; `None` when all have. `array`: the column.
    pub(super) fn valued(&self, segment: FileId, name: TableColumn, array: &ArrayRef) -> Option<Selected> {
        if array.null_count() == 0 {
            return None;
        }
        let key = self.key(segment, &(&name, "valued"));
        let now = self.memory.changes.load(Ordering::Acquire);
        let known = self.near.get(&key, now).or_else(|| self.known_valued(&key, now));
        if let Some(kept) = known.filter(|kept| kept.0 == name) {
            return Some(kept.1.clone());
        }
        let valued = Selected::valued(array)?;
        if self.wanted.lock().again(self.memory.hashes.hash_one(key)) {
            let bytes = valued.bytes() + size_of::<TableColumn>();
            self.put(key, Kept::Valued(Arc::new((name, valued.clone()))), bytes);
        }
        Some(valued)
    }

    fn known_valued(&self, key: &Key, now: u64) -> Option<Arc<(TableColumn, Selected)>> {
        match self.look(key)? {
            Kept::Valued(kept) => {
                self.near.keep(*key, &kept, now);
                Some(kept)
            }
            _ => None,
        }
    }

    /// The labels of a segment's column, made if they have been wanted before. `make` is told how large they may be.
    /// `None`: not yet, or they are too large to keep.
    ///
    /// Errors: those of `make`.
    pub(super) fn labels(
        &self,
        segment: FileId,
        name: TableColumn,
        make: impl FnOnce(usize) -> Result<Option<Labels>>,
    ) -> Result<Option<LentLabels>> {
        let key = self.key(segment, &name);
        if let Some(found) = self.known_labels(&key, &name) {
            return Ok(Some(found));
        }
        let Some(_building) = self.building[key.1 as usize % self.building.len()].try_lock() else {
            return Ok(None);
        };
        if let Some(found) = self.known_labels(&key, &name) {
            return Ok(Some(found));
        }
        let wanted = self.memory.hashes.hash_one(key);
        if !self.wanted.lock().again(wanted) {
            return Ok(None);
        }
        let made = make(self.memory.most_bytes);
        self.wanted.lock().made(wanted);
        let Some(labels) = made? else { return Ok(None) };
        let bytes = labels.bytes() + size_of::<TableColumn>();
        let kept = Arc::new((name, labels));
        self.put(key, Kept::Labels(Arc::clone(&kept)), bytes);
        Ok(Some(LentLabels(kept)))
    }

    fn known_labels(&self, key: &Key, name: &TableColumn) -> Option<LentLabels> {
        match self.look(key)? {
            Kept::Labels(kept) if kept.0 == *name => Some(LentLabels(kept)),
            _ => None,
        }
    }

    fn look(&self, key: &Key) -> Option<Kept> {
        self.memory.held.lock().get(self.tenant, key)
    }

    fn put(&self, key: Key, kept: Kept, bytes: usize) {
        if bytes <= self.memory.most_bytes {
            self.memory.held.lock().put(self.tenant, key, kept, bytes);
            self.memory.changed();
        }
    }
}

/// What was wanted lately and not there.
#[derive(Default)]
struct Wanted {
    /// The latest last.
    list: VecDeque<Want>,
}

/// A hash is enough: at worst something is kept a bit early.
#[derive(Clone, Copy)]
struct Want {
    hash: u64,
    times: u32,
    /// How often it was made, and so pushed out.
    made: u32,
}

impl Wanted {
    /// Whether it was wanted often enough before.
    fn again(&mut self, hash: u64) -> bool {
        let place = self.list.iter().position(|want| want.hash == hash);
        let known = place.and_then(|place| self.list.remove(place));
        let mut want = known.unwrap_or(Want { hash, times: 0, made: 0 });
        want.times = want.times.saturating_add(1);
        self.list.push_back(want);
        if self.list.len() > MOST_WANTED {
            self.list.pop_front();
        }
        want.times >= 2 << (3 * want.made).min(24)
    }

    fn made(&mut self, hash: u64) {
        if let Some(want) = self.list.iter_mut().find(|want| want.hash == hash) {
            want.times = 0;
            want.made = want.made.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::Int64Array;
    use sepal_types::{ColumnDef, ColumnId, SqlType};

    use super::*;

    #[test]
    fn which_rows_have_a_value_is_kept_and_counted() {
        let (tenant, memory) = (TenantId([1; 16]), Arc::new(FilterMemory::new(1 << 20, 0)));
        let cache = FilterCache::new(tenant, Arc::clone(&memory));
        let column = |missing: Option<&str>| ColumnDef {
            missing: missing.map(Into::into),
            ..ColumnDef::new(ColumnId(1), "n", SqlType::Int8)
        };
        let array: ArrayRef =
            Arc::new((0..1_000_i64).map(|row| (row % 3 > 0).then_some(row)).collect::<Int64Array>());
        let ask = |segment: u8, missing: Option<&str>| {
            let name = TableColumn { table: TableId(20_000), column: ColumnName::of(&column(missing)) };
            cache.valued(FileId([segment; 16]), name, &array).expect("some are NULL")
        };
        let same = |one: &Selected, other: &Selected| {
            assert_eq!(one, other);
            one.bits().words().as_ptr() == other.bits().words().as_ptr()
        };
        let first = ask(1, None);
        assert_eq!(Some(&first), Selected::valued(&array).as_ref());
        assert_eq!(memory.tenant_bytes(tenant), 0, "once is not enough");
        let kept = ask(1, None);
        assert!(!same(&kept, &first) && memory.tenant_bytes(tenant) >= kept.bytes());
        assert!(same(&kept, &ask(1, None)) && same(&kept, &ask(1, None)), "made once");
        assert!(!same(&kept, &ask(2, None)), "another segment");
        assert!(!same(&kept, &ask(1, Some("7"))), "older rows have another value");
        memory.forget_tenant(tenant);
        assert!(memory.bytes() == 0 && !same(&kept, &ask(1, None)), "it was let go");
        let all: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
        let name = TableColumn { table: TableId(20_000), column: ColumnName::of(&column(None)) };
        assert_eq!(cache.valued(FileId([1; 16]), name, &all), None);
    }

    #[test]
    fn once_is_not_enough_and_what_was_made_for_nothing_waits_longer() {
        let mut wanted = Wanted::default();
        assert_eq!([wanted.again(7), wanted.again(7), wanted.again(7)], [false, true, true]);
        wanted.made(7);
        let until = (1..).find(|_| wanted.again(7)).unwrap();
        assert_eq!(until, 16);
        wanted.made(7);
        assert_eq!((1..).find(|_| wanted.again(7)).unwrap(), 128);
    }

    #[test]
    fn the_list_of_what_was_wanted_is_bounded() {
        let mut wanted = Wanted::default();
        for hash in 0..5_000 {
            assert!(!wanted.again(hash));
        }
        assert_eq!(wanted.list.len(), MOST_WANTED);
        assert!(!wanted.again(0), "long forgotten");
        assert!(wanted.again(4_999));
    }
}
