//! Small stores with known bugs: does the checker find each of them, and nothing in the store without?
//!
//! A store in memory runs clients in turns, one operation at a time, by a seed. What it does at each level is what
//! the level promises, except for the planted bug.

use std::collections::{BTreeMap, BTreeSet};

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{
    check::check,
    history::{Key, Level, Op, Outcome, Tick, Transaction, Value},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    /// Nothing is wrong.
    None,
    /// The second to commit overwrites the first instead of failing.
    LastCommitterWins,
    /// Reads are of what is committed now, at REPEATABLE READ too.
    NoSnapshot,
    /// Reads see what others have not committed.
    DirtyRead,
    /// A rollback keeps the writes.
    RollbackKeeps,
    /// One commit in thirty is acknowledged and forgotten.
    Forgets,
    /// Snapshots are some commits old.
    StaleSnapshot,
    /// A statement reads its second key as it was earlier.
    TornStatement,
}

/// The lists of all keys after each commit.
struct Store {
    versions: Vec<BTreeMap<Key, Vec<Value>>>,
    active: Vec<Option<Active>>,
    level: Level,
    bug: Bug,
    random: StdRng,
    tick: Tick,
    value: Value,
}

struct Active {
    begun: Tick,
    /// The version it began on.
    snapshot: usize,
    /// Its keys as they are with its own writes.
    written: BTreeMap<Key, Vec<Value>>,
    ops: Vec<Op>,
}

const KEYS: Key = 4;
const CLIENTS: usize = 5;

impl Store {
    fn history(level: Level, bug: Bug, seed: u64) -> Vec<Transaction> {
        let random = StdRng::seed_from_u64(seed);
        let active = (0..CLIENTS).map(|_| None).collect();
        let versions = vec![BTreeMap::new()];
        let mut store = Store { versions, active, level, bug, random, tick: 0, value: 0 };
        let mut history = Vec::new();
        while history.len() < 400 {
            let client = store.random.random_range(0..CLIENTS);
            history.extend(store.turn(client));
        }
        let (begun, end) = (store.tick(), store.tick() + 1);
        let last = &store.versions[store.versions.len() - 1];
        let seen = (0..KEYS).map(|key| (key, last.get(&key).cloned().unwrap_or_default())).collect();
        let ops = vec![Op::Read { seen, locked: false }];
        history.push(Transaction { client: CLIENTS, begun, outcome: Outcome::Committed(end), ops });
        history
    }

    fn tick(&mut self) -> Tick {
        self.tick += 1;
        self.tick
    }

    /// One step of one client; the transaction, if it ended.
    fn turn(&mut self, client: usize) -> Option<Transaction> {
        let Some(mut active) = self.active[client].take() else {
            let newest = self.versions.len() - 1;
            let snapshot = if self.bug == Bug::StaleSnapshot { newest.saturating_sub(3) } else { newest };
            let begun = self.tick();
            self.active[client] = Some(Active { begun, snapshot, written: BTreeMap::new(), ops: Vec::new() });
            return None;
        };
        if active.ops.len() >= 4 {
            let outcome = self.end(&active);
            return Some(Transaction { client, begun: active.begun, outcome, ops: active.ops });
        }
        if self.random.random_bool(0.5) {
            self.read(&mut active);
        } else {
            self.write(&mut active);
        }
        self.active[client] = Some(active);
        None
    }

    /// What a transaction sees of a key; `late`: in the second part of a statement.
    fn see(&self, active: &Active, key: Key, late: bool) -> Vec<Value> {
        if let Some(own) = active.written.get(&key) {
            return own.clone();
        }
        if self.bug == Bug::DirtyRead {
            let dirty = self.active.iter().flatten().find_map(|other| other.written.get(&key));
            if let Some(list) = dirty {
                return list.clone();
            }
        }
        let newest = self.versions.len() - 1;
        let statement = self.level == Level::ReadCommitted || self.bug == Bug::NoSnapshot;
        let mut version = if statement { newest } else { active.snapshot };
        if late && self.bug == Bug::TornStatement {
            version = version.saturating_sub(2);
        }
        self.versions[version].get(&key).cloned().unwrap_or_default()
    }

    fn read(&mut self, active: &mut Active) {
        let keys: BTreeSet<Key> = (0..2).map(|_| self.random.random_range(0..KEYS)).collect();
        let seen =
            keys.into_iter().enumerate().map(|(at, key)| (key, self.see(active, key, at > 0))).collect();
        active.ops.push(Op::Read { seen, locked: false });
    }

    fn write(&mut self, active: &mut Active) {
        let key = self.random.random_range(0..KEYS);
        // Whoever would wait for the row does something else.
        let held = self.active.iter().flatten().any(|other| other.written.contains_key(&key));
        if held && self.level == Level::ReadCommitted {
            return;
        }
        self.value += 1;
        let value = self.value;
        let mut list = match active.written.get(&key) {
            Some(own) => own.clone(),
            None if self.level == Level::ReadCommitted => {
                self.versions[self.versions.len() - 1].get(&key).cloned().unwrap_or_default()
            }
            None => self.see(active, key, false),
        };
        list.push(value);
        active.written.insert(key, list);
        active.ops.push(Op::Write { key, value });
    }

    fn end(&mut self, active: &Active) -> Outcome {
        let rolls_back = self.random.random_bool(0.1);
        let newest = self.versions.len() - 1;
        let now = &self.versions[newest];
        let then = &self.versions[active.snapshot];
        let conflict = active.written.keys().any(|key| now.get(key) != then.get(key));
        let refused = self.level == Level::RepeatableRead && conflict && self.bug != Bug::LastCommitterWins;
        let forgotten = self.bug == Bug::Forgets && self.random.random_ratio(1, 30);
        let aborts = rolls_back || refused;
        if (!aborts || rolls_back && !refused && self.bug == Bug::RollbackKeeps) && !forgotten {
            let mut next = now.clone();
            next.extend(active.written.clone());
            self.versions.push(next);
        }
        if aborts { Outcome::Aborted } else { Outcome::Committed(self.tick()) }
    }
}

#[test]
fn stores_without_bugs_have_no_anomalies() {
    for seed in 0..30 {
        for level in [Level::ReadCommitted, Level::RepeatableRead] {
            let verdict = check(&Store::history(level, Bug::None, seed), level);
            let told: String = verdict.anomalies.iter().map(ToString::to_string).collect();
            assert!(told.is_empty(), "seed {seed} at {level:?}:\n{told}");
            assert!(verdict.writes > 0 && verdict.reads > 0 && verdict.anti_dependencies > 0, "seed {seed}");
        }
    }
}

#[test]
fn each_planted_bug_is_found() {
    use Level::{ReadCommitted, RepeatableRead};
    for (bug, level) in [
        (Bug::LastCommitterWins, RepeatableRead),
        (Bug::NoSnapshot, RepeatableRead),
        (Bug::DirtyRead, RepeatableRead),
        (Bug::DirtyRead, ReadCommitted),
        (Bug::RollbackKeeps, RepeatableRead),
        (Bug::RollbackKeeps, ReadCommitted),
        (Bug::Forgets, RepeatableRead),
        (Bug::Forgets, ReadCommitted),
        (Bug::StaleSnapshot, RepeatableRead),
        (Bug::TornStatement, RepeatableRead),
        (Bug::TornStatement, ReadCommitted),
    ] {
        for seed in 0..10 {
            let verdict = check(&Store::history(level, bug, seed), level);
            assert!(!verdict.anomalies.is_empty(), "{bug:?} at {level:?} is not found with seed {seed}");
        }
    }
}

/// What READ COMMITTED permits is an anomaly at REPEATABLE READ, so the levels are told apart.
#[test]
fn read_committed_does_not_pass_for_repeatable_read() {
    let found = (0..10).filter(|seed| {
        let history = Store::history(Level::ReadCommitted, Bug::None, *seed);
        !check(&history, Level::RepeatableRead).anomalies.is_empty()
    });
    assert_eq!(found.count(), 10);
}
