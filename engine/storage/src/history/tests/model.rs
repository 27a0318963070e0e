//! Random commits, checkpoints, names, clones and restarts: every moment that is kept is as it was remembered.

use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;
use sepal_types::TableId;

use super::{AsOf, Hands, HistoryPolicy, ITEMS, MINUTE, made, put, reopened, shown, take, with};
use crate::{
    NoBlobs, Op, Snapshot, StoreError, TenantStore,
    fixtures::{commit, items, scan},
};

#[derive(Clone, Debug)]
enum Deed {
    Insert(usize, i64),
    Delete(usize, Vec<i64>),
    Truncate(usize),
    /// A clone of a table as it is now, or as it was.
    Clone(usize, Option<prop::sample::Index>),
    Drop(usize),
    Name(u8),
    Unname(u8),
    Checkpoint,
    Forget,
    Restart,
    Wait(i64),
    Ask(prop::sample::Index),
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let moment = any::<prop::sample::Index>();
    let deed = prop_oneof![
        8 => (0..4usize, 0..40i64).prop_map(|(table, key)| Deed::Insert(table, key)),
        4 => (0..4usize, prop::collection::btree_set(0..40i64, 1..8))
            .prop_map(|(table, keys)| Deed::Delete(table, keys.into_iter().collect())),
        1 => (0..4usize).prop_map(Deed::Truncate),
        2 => (0..4usize, prop::option::of(moment)).prop_map(|(table, from)| Deed::Clone(table, from)),
        1 => (0..4usize).prop_map(Deed::Drop),
        1 => (0..3u8).prop_map(Deed::Name),
        1 => (0..3u8).prop_map(Deed::Unname),
        4 => Just(Deed::Checkpoint),
        1 => Just(Deed::Forget),
        2 => Just(Deed::Restart),
        3 => (1..20i64).prop_map(Deed::Wait),
        4 => any::<prop::sample::Index>().prop_map(Deed::Ask),
    ];
    prop::collection::vec(deed, 1..50)
}

type Shown = BTreeMap<String, BTreeMap<i64, String>>;

/// What a moment was: lsn, time, rows.
type Moment = (u64, i64, Shown);

struct World {
    dir: tempfile::TempDir,
    clock: Arc<Hands>,
    store: Arc<TenantStore>,
    moments: Vec<Moment>,
    names: BTreeMap<u8, usize>,
    next: u32,
}

const KEPT: HistoryPolicy = HistoryPolicy { keep_us: 40 * MINUTE, keep_versions: 6, max_bytes: 1 << 30 };

impl World {
    fn new() -> Self {
        let (dir, clock) = (tempfile::tempdir().unwrap(), Hands::new());
        let store = made(dir.path(), with(&clock, KEPT));
        let mut world = Self { dir, clock, store, moments: Vec::new(), names: BTreeMap::new(), next: 20_100 };
        world.remember();
        world
    }

    fn remember(&mut self) {
        let head = self.store.snapshot();
        if self.moments.last().is_none_or(|(lsn, ..)| *lsn < head.lsn().0) {
            self.moments.push((head.lsn().0, head.time_us(), shown(&head)));
        }
    }

    /// The n-th of the tables that are there.
    fn table(&self, n: usize) -> Option<TableId> {
        let snapshot = self.store.snapshot();
        let tables: Vec<TableId> = snapshot.tables().map(|version| version.def.id).collect();
        (!tables.is_empty()).then(|| tables[n % tables.len()])
    }

    fn live(&self, table: TableId) -> Vec<i64> {
        scan(self.store.snapshot().table(table).unwrap()).into_keys().collect()
    }

    fn act(&mut self, deed: Deed) {
        match deed {
            Deed::Insert(n, key) => {
                if let Some(table) = self.table(n).filter(|table| !self.live(*table).contains(&key)) {
                    put(&self.store, table, &[key]);
                }
            }
            Deed::Delete(n, keys) => {
                let Some(table) = self.table(n) else { return };
                let live = self.live(table);
                let keys: Vec<i64> = keys.into_iter().filter(|key| live.contains(key)).collect();
                if !keys.is_empty() {
                    take(&self.store, table, &keys);
                }
            }
            Deed::Truncate(n) => {
                if let Some(table) = self.table(n) {
                    commit(&self.store, vec![Op::Truncate(table)]);
                }
            }
            Deed::Clone(n, from) => self.clone_table(n, from),
            Deed::Drop(n) => {
                if let Some(table) = self.table(n).filter(|table| *table != ITEMS) {
                    commit(&self.store, vec![Op::DropTable(table)]);
                }
            }
            Deed::Checkpoint => drop(self.store.checkpoint(&NoBlobs).unwrap()),
            Deed::Forget => drop(self.store.forget_history().unwrap()),
            Deed::Restart => {
                let (path, options) = (self.dir.path().to_owned(), with(&self.clock, KEPT));
                self.store.close().unwrap();
                self.store = reopened(&path, options);
            }
            Deed::Wait(minutes) => self.clock.minutes(minutes),
            Deed::Name(name) => self.name(name),
            Deed::Unname(name) => {
                let dropped = self.store.drop_snapshot("default", &name.to_string());
                assert_eq!(dropped.is_ok(), self.names.remove(&name).is_some());
            }
            Deed::Ask(moment) => self.ask(moment.index(self.moments.len())),
        }
    }

    fn clone_table(&mut self, n: usize, from: Option<prop::sample::Index>) {
        let head = self.store.snapshot();
        let from = match from {
            None => head,
            Some(moment) => {
                let (lsn, ..) = self.moments[moment.index(self.moments.len())];
                let Ok(past) = self.store.snapshot_as_of(&super::at(lsn)) else { return };
                past
            }
        };
        let tables: Vec<TableId> = from.tables().map(|version| version.def.id).collect();
        let table = tables[n % tables.len()];
        let def = items(self.next, &format!("copy_{}", self.next));
        self.next += 10;
        let expected = scan(from.table(table).unwrap());
        let ops = self.store.clone_ops(&from, table, def.clone()).unwrap();
        let after: Snapshot = commit(&self.store, ops);
        assert_eq!(scan(after.table(def.id).unwrap()), expected);
    }

    fn name(&mut self, name: u8) {
        let created = self.store.create_snapshot(&NoBlobs, "default", &name.to_string(), "ada", None);
        match created {
            Ok(_) => assert!(self.names.insert(name, self.moments.len() - 1).is_none()),
            Err(error) => assert!(
                self.names.contains_key(&name) && matches!(error, StoreError::DuplicateSnapshot { .. }),
                "{error}"
            ),
        }
    }

    /// A moment is as it was, or so old that it need not be kept.
    fn ask(&self, index: usize) {
        let (lsn, time_us, expected) = &self.moments[index];
        let until =
            self.moments.get(index + 1).map_or(self.clock.now().max(*time_us), |(_, next, _)| next - 1);
        let span = self.store.history();
        for moment in [super::at(*lsn), AsOf::Time(*time_us), AsOf::Time(until)] {
            match self.store.snapshot_as_of(&moment) {
                Ok(found) => assert_eq!((found.lsn().0, &shown(&found)), (*lsn, expected), "{moment:?}"),
                Err(StoreError::NoSuchPast { .. }) => {
                    assert!(*lsn < span.oldest_lsn.0, "{moment:?} of {span:?}")
                }
                Err(error) => panic!("{moment:?}: {error}"),
            }
        }
    }

    fn check(&self) {
        (0..self.moments.len()).for_each(|index| self.ask(index));
        for (name, index) in &self.names {
            let named = AsOf::Named { environment: "default".into(), name: name.to_string() };
            assert_eq!(shown(&self.store.snapshot_as_of(&named).unwrap()), self.moments[*index].2);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn the_past_is_as_it_was(deeds in deeds()) {
        let mut world = World::new();
        for deed in deeds {
            world.act(deed);
            world.remember();
        }
        world.check();
        world.act(Deed::Restart);
        world.check();
    }
}
