//! Who holds what: granted locks by object, and what each owner has to give back.
//!
//! Rows are sets of ids in compressed bitmaps, one per strength: a million rows of an UPDATE take some kilobytes.
//! Keys are hashes. While a savepoint is open every grant is also noted in order, so that ROLLBACK TO can undo
//! those since; otherwise nothing is kept twice.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher, BuildHasherDefault, Hash, Hasher},
};

use roaring::RoaringTreemap;
use sepal_types::{RowId, TableId};

use super::{
    exclusive::Exclusive,
    modes::{ROW_MODES, RowMode, TableMode, rows_conflict},
    want::{AdvisoryKey, Constraint, Span, Want, common},
};

/// A session, as its locks know it.
pub type OwnerId = u64;

/// What is granted.
#[derive(Debug, Default)]
pub struct Holdings {
    tables: ByNumber<TableId, ByOwner<u8>>,
    rows: ByNumber<TableId, ByOwner<RowSets>>,
    keys: ByNumber<Constraint, ByOwner<KeySet>>,
    advisory: HashMap<AdvisoryKey, ByOwner<Counts>>,
    owners: ByOwner<Owned>,
    /// Counts also those who wait.
    pub exclusive: Exclusive,
}

type ByNumber<K, V> = HashMap<K, V, BuildHasherDefault<Number>>;
type ByOwner<V> = ByNumber<OwnerId, V>;

/// Of numbers that we count up ourselves: nobody can choose them so that they meet, and each lock is looked up by
/// several of them.
#[derive(Debug, Default)]
struct Number(u64);

impl Hasher for Number {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        // An odd factor keeps the low bits of different numbers different and fills the high ones.
        self.0 = (self.0.rotate_left(32) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// Hashes are random already.
type KeySet = HashSet<u64, BuildHasherDefault<Already>>;

#[derive(Debug, Default)]
struct Already(u64);

impl Hasher for Already {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Only ever given numbers; right for anything else too, if slow.
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// One owner's rows of one table, by mode.
#[derive(Debug, Default)]
struct RowSets {
    modes: [RoaringTreemap; 4],
    /// Being replaced or removed.
    written: RoaringTreemap,
}

/// How often one owner took an advisory lock: by [`Span`], exclusive and shared.
#[derive(Clone, Copy, Debug, Default)]
struct Counts([[u32; 2]; 2]);

impl Counts {
    fn of(&mut self, span: Span, shared: bool) -> &mut u32 {
        &mut self.0[usize::from(span == Span::Transaction)][usize::from(shared)]
    }

    fn held(self, shared: bool) -> bool {
        self.0.iter().any(|span| span[usize::from(shared)] > 0)
    }

    fn is_empty(self) -> bool {
        self.0.iter().flatten().all(|count| *count == 0)
    }
}

#[derive(Debug)]
struct Owned {
    pid: i32,
    tables: Vec<TableId>,
    rows: Vec<TableId>,
    keys: Vec<Constraint>,
    advisory: Vec<AdvisoryKey>,
    /// A savepoint is open.
    journaling: bool,
    journal: Vec<Want>,
}

impl Owned {
    /// Where the lock of the old row was noted since a savepoint, its successor's goes with it.
    fn note_successor(&mut self, table: TableId, old: RowId, new: RowId) {
        let noted = self.journal.iter_mut().find_map(|want| match want {
            Want::Rows { table: of, mode: RowMode::KeyShare, rows, .. }
                if *of == table && rows.contains(old.0) =>
            {
                Some(rows)
            }
            _ => None,
        });
        if let Some(rows) = noted {
            rows.insert(new.0);
        }
    }
}

/// What became free, for those who wait.
#[derive(Debug, Default)]
pub struct Freed {
    tables: Vec<TableId>,
    rows: Vec<(TableId, RoaringTreemap)>,
    advisory: bool,
}

impl Freed {
    pub fn of(want: &Want) -> Self {
        let mut freed = Self::default();
        freed.note(want);
        freed
    }

    /// Whether somebody who waits for `want` may have got nearer. Who waits for one row has none of it yet: only that row
    /// can bring him nearer. Where many wait for rows of one table, most commits free none of theirs.
    pub fn concerns(&self, want: &Want) -> bool {
        match want {
            Want::Rows { table, rows, .. } | Want::Unwritten { table, rows } if rows.len() == 1 => {
                let row = rows.min().unwrap_or_default();
                self.rows.iter().any(|(of, freed)| of == table && freed.contains(row))
            }
            _ => want.table().map_or(self.advisory, |table| self.tables.contains(&table)),
        }
    }

    fn note(&mut self, want: &Want) {
        if let Want::Rows { table, rows, .. } | Want::Unwritten { table, rows } = want {
            self.rows.push((*table, rows.clone()));
        }
        match want.table() {
            None => self.advisory = true,
            Some(table) if !self.tables.contains(&table) => self.tables.push(table),
            Some(_) => {}
        }
    }
}

/// A granted lock, for `pg_locks`.
#[derive(Clone, Debug, PartialEq)]
pub enum Shown {
    Advisory { key: AdvisoryKey, shared: bool },
    Table { table: TableId, mode: TableMode },
}

impl Holdings {
    pub fn enlist(&mut self, owner: OwnerId, pid: i32) {
        let owned = Owned {
            pid,
            tables: Vec::new(),
            rows: Vec::new(),
            keys: Vec::new(),
            advisory: Vec::new(),
            journaling: false,
            journal: Vec::new(),
        };
        self.owners.insert(owner, owned);
    }

    /// Nobody speaks for the owner any more: whatever it has still is given back.
    pub fn dismiss(&mut self, owner: OwnerId) -> [Freed; 2] {
        let freed = [self.release_transaction(owner), self.release_session(owner)];
        self.owners.remove(&owner);
        freed
    }

    pub fn pid(&self, owner: OwnerId) -> i32 {
        self.owners.get(&owner).map_or(0, |owned| owned.pid)
    }

    pub fn owner_of(&self, pid: i32) -> Option<OwnerId> {
        self.owners.iter().find(|(_, owned)| owned.pid == pid).map(|(owner, _)| *owner)
    }

    /// The part of `want` that what others than `owner` have stands in the way of. With many sessions at one table this
    /// looks at each of them, under the lock that all wait for: the two requests of every INSERT are answered from one
    /// pass over the holders.
    pub fn blocked(&self, owner: OwnerId, want: &Want) -> Option<Want> {
        match want {
            Want::Table { table, mode } => {
                let mut held = self.tables.get(table)?.iter();
                let stands = |(holder, modes): (&OwnerId, &u8)| *holder != owner && in_the_way(*modes, *mode);
                held.any(stands).then(|| want.clone())
            }
            Want::Keys { of, hashes } => {
                let others = self.keys.get(of)?.iter().filter(|(holder, _)| **holder != owner);
                let taken = others.filter_map(|(_, held)| common_keys(*of, hashes, held));
                taken.fold(None, |whole, part| Want::join(whole, Some(part)))
            }
            _ => {
                let others = self.holders(want).into_iter().filter(|holder| *holder != owner);
                others.fold(None, |whole, holder| Want::join(whole, self.clash(holder, want)))
            }
        }
    }

    /// The part of `want` that what `holder` has stands in the way of.
    pub fn clash(&self, holder: OwnerId, want: &Want) -> Option<Want> {
        match want {
            Want::Table { table, mode } => {
                let modes = self.tables.get(table)?.get(&holder)?;
                in_the_way(*modes, *mode).then(|| want.clone())
            }
            Want::Rows { table, mode, rows, write } => {
                let sets = self.rows.get(table)?.get(&holder)?;
                let rows = sets.conflicting(*mode, rows)?;
                Some(Want::Rows { table: *table, mode: *mode, rows, write: *write })
            }
            Want::Unwritten { table, rows } => {
                let sets = self.rows.get(table)?.get(&holder)?;
                Some(Want::Unwritten { table: *table, rows: common(rows, &sets.written)? })
            }
            Want::Keys { of, hashes } => common_keys(*of, hashes, self.keys.get(of)?.get(&holder)?),
            Want::Advisory { key, shared, .. } => {
                let counts = self.advisory.get(key)?.get(&holder)?;
                (counts.held(false) || (!shared && counts.held(true))).then(|| want.clone())
            }
        }
    }

    /// Everybody who holds something on the objects of `want`'s table or number.
    pub fn holders(&self, want: &Want) -> Vec<OwnerId> {
        match want {
            Want::Table { table, .. } => ids(self.tables.get(table)),
            Want::Rows { table, .. } | Want::Unwritten { table, .. } => ids(self.rows.get(table)),
            Want::Keys { of, .. } => ids(self.keys.get(of)),
            Want::Advisory { key, .. } => ids(self.advisory.get(key)),
        }
    }

    /// Gives `want` to `owner`; nothing may clash with it.
    pub fn grant(&mut self, owner: OwnerId, want: &Want) {
        let Some(owned) = self.owners.get_mut(&owner) else { return };
        let new = match want {
            Want::Table { table, mode } => {
                remember(&mut owned.tables, table);
                let modes = self.tables.entry(*table).or_default().entry(owner).or_default();
                let new = *modes & mode.bit() == 0;
                *modes |= mode.bit();
                if new {
                    self.exclusive.more(want);
                    vec![want.clone()]
                } else {
                    Vec::new()
                }
            }
            Want::Rows { table, mode, rows, write } => {
                remember(&mut owned.rows, table);
                let sets = self.rows.entry(*table).or_default().entry(owner).or_default();
                sets.add(*table, *mode, rows, *write, owned.journaling)
            }
            Want::Keys { of, hashes } => {
                remember(&mut owned.keys, of);
                let held = self.keys.entry(*of).or_default().entry(owner).or_default();
                held.reserve(hashes.len());
                let journaling = owned.journaling;
                let mut new = Vec::new();
                for hash in hashes {
                    if held.insert(*hash) && journaling {
                        new.push(*hash);
                    }
                }
                if new.is_empty() { Vec::new() } else { vec![Want::Keys { of: *of, hashes: new }] }
            }
            Want::Advisory { key, shared, span } => {
                remember(&mut owned.advisory, key);
                let counts = self.advisory.entry(key.clone()).or_default().entry(owner).or_default();
                *counts.of(*span, *shared) += 1;
                if *span == Span::Transaction { vec![want.clone()] } else { Vec::new() }
            }
            Want::Unwritten { .. } => Vec::new(),
        };
        if owned.journaling {
            owned.journal.extend(new);
        }
    }

    /// From now on grants are noted. Where the notes end now.
    pub fn savepoint(&mut self, owner: OwnerId) -> usize {
        let Some(owned) = self.owners.get_mut(&owner) else { return 0 };
        owned.journaling = true;
        owned.journal.len()
    }

    /// From now on they are not, and what was is forgotten.
    pub fn forget_savepoints(&mut self, owner: OwnerId) {
        if let Some(owned) = self.owners.get_mut(&owner) {
            owned.journaling = false;
            owned.journal = Vec::new();
        }
    }

    /// Takes back what was granted since a savepoint.
    pub fn undo(&mut self, owner: OwnerId, mark: usize) -> Freed {
        let mut freed = Freed::default();
        let Some(owned) = self.owners.get_mut(&owner) else { return freed };
        let undone = owned.journal.split_off(mark.min(owned.journal.len()));
        for want in undone.into_iter().rev() {
            freed.note(&want);
            self.take_back(owner, &want);
        }
        freed
    }

    /// Takes `want` back from `owner`, where he has it.
    pub fn take_back(&mut self, owner: OwnerId, want: &Want) {
        match want {
            Want::Table { table, mode } => {
                if let Some(modes) = self.tables.get_mut(table).and_then(|held| held.get_mut(&owner))
                    && *modes & mode.bit() != 0
                {
                    *modes &= !mode.bit();
                    self.exclusive.less(want);
                }
            }
            Want::Rows { table, mode, rows, .. } => {
                if let Some(sets) = self.rows.get_mut(table).and_then(|held| held.get_mut(&owner)) {
                    sets.modes[*mode as usize] -= rows;
                }
            }
            // The mark of a write, which `RowSets::add` notes by itself.
            Want::Unwritten { table, rows } => {
                if let Some(sets) = self.rows.get_mut(table).and_then(|held| held.get_mut(&owner)) {
                    sets.written -= rows;
                }
            }
            Want::Keys { of, hashes } => {
                if let Some(held) = self.keys.get_mut(of).and_then(|held| held.get_mut(&owner)) {
                    hashes.iter().for_each(|hash| {
                        held.remove(hash);
                    });
                }
            }
            Want::Advisory { key, shared, span } => {
                if let Some(counts) = self.advisory.get_mut(key).and_then(|held| held.get_mut(&owner)) {
                    let count = counts.of(*span, *shared);
                    *count = count.saturating_sub(1);
                }
            }
        }
    }

    /// The owner's transaction is over: all but what its session locked for itself.
    pub fn release_transaction(&mut self, owner: OwnerId) -> Freed {
        let mut freed = Freed::default();
        let Some(owned) = self.owners.get_mut(&owner) else { return freed };
        owned.journaling = false;
        owned.journal = Vec::new();
        for table in std::mem::take(&mut owned.tables) {
            let modes = self.tables.get(&table).and_then(|held| held.get(&owner)).copied().unwrap_or(0);
            for mode in TableMode::ALL.into_iter().filter(|mode| modes & mode.bit() != 0) {
                self.exclusive.less(&Want::Table { table, mode });
            }
            forget(&mut self.tables, &table, owner);
            freed.tables.push(table);
        }
        for table in std::mem::take(&mut owned.rows) {
            let sets = self.rows.get_mut(&table).and_then(|held| held.remove(&owner));
            freed.rows.extend(sets.map(|sets| (table, sets.all())));
            forget(&mut self.rows, &table, owner);
            freed.tables.push(table);
        }
        for of in std::mem::take(&mut owned.keys) {
            forget(&mut self.keys, &of, owner);
            freed.tables.push(of.0);
        }
        self.clear_advisory(owner, Span::Transaction, &mut freed);
        freed
    }

    /// `pg_advisory_unlock_all`, or the end of the session.
    pub fn release_session(&mut self, owner: OwnerId) -> Freed {
        let mut freed = Freed::default();
        self.clear_advisory(owner, Span::Session, &mut freed);
        freed
    }

    fn clear_advisory(&mut self, owner: OwnerId, span: Span, freed: &mut Freed) {
        let Some(owned) = self.owners.get_mut(&owner) else { return };
        let advisory = &mut self.advisory;
        owned.advisory.retain(|key| {
            let Some(held) = advisory.get_mut(key) else { return false };
            let Some(counts) = held.get_mut(&owner) else { return false };
            for shared in [false, true] {
                *counts.of(span, shared) = 0;
            }
            freed.advisory = true;
            let keep = !counts.is_empty();
            if !keep {
                held.remove(&owner);
                if held.is_empty() {
                    advisory.remove(key);
                }
            }
            keep
        });
    }

    /// `pg_advisory_unlock`: one of the session's own. `false` when it has none.
    pub fn unlock(&mut self, owner: OwnerId, key: &AdvisoryKey, shared: bool) -> bool {
        let Some(counts) = self.advisory.get_mut(key).and_then(|held| held.get_mut(&owner)) else {
            return false;
        };
        let count = counts.of(Span::Session, shared);
        if *count == 0 {
            return false;
        }
        *count -= 1;
        if counts.is_empty() {
            forget(&mut self.advisory, key, owner);
            if let Some(owned) = self.owners.get_mut(&owner) {
                owned.advisory.retain(|held| held != key);
            }
        }
        true
    }

    /// `owner` replaces rows: whoever relies on the key of one, which is all that others may do beside him, relies on
    /// that of its successor, too.
    ///
    /// The successors are his until he gives back everything: they are seen from the commit on, a moment before those
    /// who began to rely on a key after the statement are known to rely on its successor, too. Whoever would take that
    /// key away waits out the moment.
    pub fn follow(&mut self, owner: OwnerId, table: TableId, replaced: &[(RowId, RowId)]) {
        // The ids of a statement's rows come one after the other: those between are its own, too.
        let new = || replaced.iter().map(|(_, new)| new.0);
        let own = new().min().zip(new().max());
        for (holder, sets) in self.rows.get_mut(&table).into_iter().flatten() {
            if *holder == owner
                && let Some((first, last)) = own
            {
                sets.modes[RowMode::NoKeyUpdate as usize].insert_range(first..=last);
            }
            let keys = &mut sets.modes[RowMode::KeyShare as usize];
            if *holder == owner || keys.is_empty() {
                continue;
            }
            for (old, new) in replaced {
                if keys.contains(old.0)
                    && keys.insert(new.0)
                    && let Some(owned) = self.owners.get_mut(holder)
                {
                    owned.note_successor(table, *old, *new);
                }
            }
        }
    }

    /// Rows of a table that others than `owner` hold so that nobody may have them in `mode`.
    pub fn taken_rows(&self, owner: OwnerId, table: TableId, mode: RowMode) -> RoaringTreemap {
        let mut taken = RoaringTreemap::new();
        for (_, sets) in self.rows.get(&table).into_iter().flatten().filter(|(holder, _)| **holder != owner) {
            for held in ROW_MODES.into_iter().filter(|held| rows_conflict(mode, *held)) {
                taken |= &sets.modes[held as usize];
            }
        }
        taken
    }

    /// Whether anybody else is replacing or removing rows of the table.
    pub fn others_write(&self, owner: OwnerId, table: TableId) -> bool {
        let mut held = self.rows.get(&table).into_iter().flatten();
        held.any(|(holder, sets)| *holder != owner && !sets.written.is_empty())
    }

    /// Locks of tables and numbers, with their owners' numbers. Row locks are too many to be shown, as in Postgres.
    pub fn shown(&self) -> Vec<(i32, Shown)> {
        let mut rows = Vec::new();
        for (table, held) in &self.tables {
            for (owner, modes) in held {
                let modes = TableMode::ALL.into_iter().filter(|mode| modes & mode.bit() != 0);
                rows.extend(modes.map(|mode| (self.pid(*owner), Shown::Table { table: *table, mode })));
            }
        }
        for (key, held) in &self.advisory {
            for (owner, counts) in held {
                for shared in [false, true].into_iter().filter(|shared| counts.held(*shared)) {
                    rows.push((self.pid(*owner), Shown::Advisory { key: key.clone(), shared }));
                }
            }
        }
        rows
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty() && self.rows.is_empty() && self.keys.is_empty() && self.advisory.is_empty()
    }
}

impl RowSets {
    fn all(self) -> RoaringTreemap {
        self.modes.into_iter().fold(self.written, |all, rows| all | rows)
    }

    /// Those of `rows` that are held so that `mode` is refused.
    fn conflicting(&self, mode: RowMode, rows: &RoaringTreemap) -> Option<RoaringTreemap> {
        let held = ROW_MODES.into_iter().filter(|held| rows_conflict(mode, *held));
        let parts = held.filter_map(|held| common(rows, &self.modes[held as usize]));
        parts.reduce(|all, part| all | part)
    }

    /// Adds rows; what was new, if that is to be noted.
    fn add(
        &mut self,
        table: TableId,
        mode: RowMode,
        rows: &RoaringTreemap,
        write: bool,
        journaling: bool,
    ) -> Vec<Want> {
        let mut notes = Vec::new();
        let held = &mut self.modes[mode as usize];
        if journaling {
            let new = rows - &*held;
            notes.push(Want::Rows { table, mode, rows: new, write });
            if write {
                notes.push(Want::Unwritten { table, rows: rows - &self.written });
            }
        }
        *held |= rows;
        if write {
            self.written |= rows;
        }
        notes
    }
}

fn in_the_way(held: u8, wanted: TableMode) -> bool {
    held & wanted.conflicts() != 0
}

/// Those of the keys that are held, if any are.
fn common_keys(of: Constraint, hashes: &[u64], held: &KeySet) -> Option<Want> {
    let hashes: Vec<u64> = hashes.iter().copied().filter(|hash| held.contains(hash)).collect();
    (!hashes.is_empty()).then_some(Want::Keys { of, hashes })
}

fn ids<T>(held: Option<&ByOwner<T>>) -> Vec<OwnerId> {
    held.map(|held| held.keys().copied().collect()).unwrap_or_default()
}

fn remember<T: Clone + PartialEq>(known: &mut Vec<T>, object: &T) {
    if !known.contains(object) {
        known.push(object.clone());
    }
}

fn forget<K: Hash + Eq, T, S: BuildHasher>(held: &mut HashMap<K, ByOwner<T>, S>, object: &K, owner: OwnerId) {
    if let Some(owners) = held.get_mut(object) {
        owners.remove(&owner);
        if owners.is_empty() {
            held.remove(object);
        }
    }
}
