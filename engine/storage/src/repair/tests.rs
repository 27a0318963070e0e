//! What a repair gives up, what it keeps, and that it says so.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use sepal_types::{LogEnd, Lsn, RowId, TableId};

use super::{Loss, RepairOptions, RepairPlan, RepairRefused};
use crate::{
    CheckOptions, NoBlobs, Op, StoreOptions, TenantStore,
    check::tests::{Heard, Known, errors, furnished},
    fixtures::{
        TENANT, Watch, Watched, commit, copy, create, files, ids, insert, items, options, tenant_key,
    },
};

/// A tenant's directory with a place beside it.
struct Damaged {
    root: tempfile::TempDir,
    end: LogEnd,
}

impl Damaged {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let end = furnished(&root.path().join("tenant"), TENANT);
        Self { root, end }
    }

    fn dir(&self) -> PathBuf {
        self.root.path().join("tenant")
    }

    fn aside(&self) -> PathBuf {
        self.root.path().join("aside")
    }

    /// The files with this extension, by name.
    fn files(&self, extension: &str) -> Vec<PathBuf> {
        files(&self.dir())
            .into_keys()
            .filter(|path| path.extension().is_some_and(|is| is == extension))
            .collect()
    }

    fn flip(&self, path: &Path, position: usize) {
        let mut bytes = std::fs::read(path).unwrap();
        bytes[position] ^= 1;
        std::fs::write(path, bytes).unwrap();
    }

    fn options(&self) -> RepairOptions {
        let check = CheckOptions { log_end: Some(self.end), ..CheckOptions::default() };
        RepairOptions { check, resurrect_deleted: false }
    }

    fn plan(&self) -> Result<RepairPlan, RepairRefused> {
        self.plan_with(&self.options())
    }

    fn plan_with(&self, options: &RepairOptions) -> Result<RepairPlan, RepairRefused> {
        let mut heard = Heard::default();
        TenantStore::plan_repair(&self.dir(), TENANT, tenant_key(), options, &Known, &mut heard)
    }

    /// What both tables have once the repair is done, which a check then finds nothing wrong with.
    fn repaired(&self, plan: RepairPlan) -> [Vec<i64>; 2] {
        plan.apply(&self.aside()).unwrap();
        let left = errors(&self.dir(), self.end);
        assert!(left.is_empty(), "{left:?}");
        assert!(self.plan().unwrap().is_empty(), "a second repair has nothing to do");
        self.rows()
    }

    fn rows(&self) -> [Vec<i64>; 2] {
        let known = StoreOptions { log_end: Some(self.end), ..options() };
        let store = TenantStore::open(&self.dir(), TENANT, tenant_key(), known).unwrap();
        // It can be written, too.
        for table in [20_000, 20_010] {
            let op = insert(&store, table, &[500]);
            commit(&store, vec![op]);
        }
        store.checkpoint(&NoBlobs).unwrap();
        [20_000, 20_010].map(|table| ids(&store, table).into_iter().filter(|id| *id != 500).collect())
    }

    fn aside_names(&self) -> Vec<String> {
        let found = files(&self.aside()).into_keys();
        found.map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

/// The keys of `items` and `goods` when nothing is wrong.
fn whole() -> [Vec<i64>; 2] {
    let items = (0..30).filter(|id| ![3, 5].contains(id)).chain([100]);
    [items.collect(), (0..30).chain([101, 102]).collect()]
}

#[test]
fn nothing_is_done_where_nothing_is_wrong() {
    let damaged = Damaged::new();
    let before = files(&damaged.dir());
    let plan = damaged.plan().unwrap();
    assert!(plan.is_empty() && plan.left.is_empty() && plan.files().is_empty());
    plan.apply(&damaged.aside()).unwrap();
    assert_eq!(files(&damaged.dir()), before);
    assert!(!damaged.aside().exists());
}

#[test]
fn a_table_goes_on_without_its_damaged_segment() {
    // Of items: the owner of the index and the deletion vector is the segment that goes.
    for (lost, other) in [(0, 1), (1, 0)] {
        let damaged = Damaged::new();
        let path = damaged
            .files("parquet")
            .into_iter()
            .find(|path| {
                damaged.flip(path, 60);
                let table = errors(&damaged.dir(), damaged.end)[0].consequence.contains("\"items\"");
                let found = table == (lost == 0);
                if !found {
                    damaged.flip(path, 60);
                }
                found
            })
            .unwrap();
        let plan = damaged.plan().unwrap();
        let [Loss::Rows { table, name: of, file, first_row, last_row, rows, .. }] = &plan.losses[..] else {
            panic!("{:?}", plan.losses)
        };
        let expected = [(TableId(20_000), "items", 29), (TableId(20_010), "goods", 30)][lost];
        assert_eq!((*table, of.as_str(), *rows), expected);
        assert_eq!((*first_row, *last_row), (RowId(1), RowId(30)));
        assert!(file.ends_with(&name(&path)) && plan.files().contains(file));
        let rows = damaged.repaired(plan);
        let remaining = [vec![100], vec![101, 102]];
        assert_eq!(rows[lost], remaining[lost], "what only the log has is kept");
        assert_eq!(rows[other], whole()[other]);
        assert!(damaged.aside_names().contains(&name(&path)));
        assert_eq!(damaged.aside_names().len(), if lost == 0 { 3 } else { 1 });
    }
}

#[test]
fn a_damaged_index_costs_no_row() {
    let damaged = Damaged::new();
    let path = damaged.files("index").remove(0);
    damaged.flip(&path, 20);
    let plan = damaged.plan().unwrap();
    let [Loss::Index { table: TableId(20_000), name: index, .. }] = &plan.losses[..] else {
        panic!("{:?}", plan.losses)
    };
    assert_eq!(index, "items_embedding_idx");
    assert_eq!(damaged.repaired(plan), whole());
    assert_eq!(damaged.aside_names(), [name(&path)]);
}

#[test]
fn rows_that_may_be_deleted_are_not_served_unless_asked_for() {
    let damaged = Damaged::new();
    damaged.flip(&damaged.files("deleted")[0], 30);
    let plan = damaged.plan().unwrap();
    assert!(matches!(&plan.losses[..], [Loss::Rows { table: TableId(20_000), .. }]), "{:?}", plan.losses);
    assert_eq!(damaged.repaired(plan)[0], [100]);
    assert_eq!(damaged.aside_names().len(), 3, "segment, vector and index");

    let damaged = Damaged::new();
    damaged.flip(&damaged.files("deleted")[0], 30);
    let resurrecting = RepairOptions { resurrect_deleted: true, ..damaged.options() };
    let plan = damaged.plan_with(&resurrecting).unwrap();
    assert!(matches!(&plan.losses[..], [Loss::Deletions { rows: 1, .. }]), "{:?}", plan.losses);
    let rows = damaged.repaired(plan);
    assert!(rows[0].contains(&3) && !rows[0].contains(&5), "the log still knows of its own deletes");
    assert_eq!(rows[1], whole()[1]);
}

#[test]
fn a_broken_log_is_cut_and_the_commits_behind_it_are_told() {
    let damaged = Damaged::new();
    let log = damaged.files("wal").remove(0);
    let length = std::fs::read(&log).unwrap().len();
    // In the second of four commits: the first, a delete, is the shortest.
    damaged.flip(&log, length / 3);
    let plan = damaged.plan().unwrap();
    let [Loss::Commits { after, known, last_known, file, .. }] = &plan.losses[..] else {
        panic!("{:?}", plan.losses)
    };
    let (after, known, last) = (after.0, *known, last_known.unwrap().0);
    assert!(file.ends_with(&name(&log)));
    assert_eq!(after + known, last, "each commit behind the cut is still marked");
    assert_eq!(plan.files(), std::slice::from_ref(file));
    let rows = damaged.repaired(plan);
    let everything = whole();
    assert_eq!(
        rows[0].len() + rows[1].len(),
        everything[0].len() + everything[1].len() - usize::try_from(known).unwrap()
    );
    assert!(!rows[0].contains(&5), "the delete before the cut holds");
    assert_eq!(damaged.aside_names(), [name(&log)]);
    assert!(!log.exists());
}

#[test]
fn a_log_that_is_gone_costs_what_only_it_had() {
    let damaged = Damaged::new();
    let log = damaged.files("wal").remove(0);
    std::fs::remove_file(&log).unwrap();
    let plan = damaged.plan().unwrap();
    assert!(
        matches!(&plan.losses[..], [Loss::Commits { known: 0, last_known: None, .. }]),
        "{:?}",
        plan.losses
    );
    let rows = damaged.repaired(plan);
    assert_eq!(rows, [(0..30).filter(|id| *id != 3).collect(), (0..30).collect::<Vec<_>>()]);
}

/// A store whose newest manifest and the one before it are both there, with the log that the older one needs.
fn two_manifests(dir: &Path) -> (PathBuf, LogEnd) {
    let kept = tempfile::tempdir().unwrap();
    let store = create(dir);
    commit(&store, vec![Op::CreateTable(items(20_000, "items"))]);
    let hold = store.hold_log(Lsn(0)).unwrap();
    let op = insert(&store, 20_000, &[1, 2]);
    commit(&store, vec![op]);
    let manifest = |number: u64| dir.join("manifest").join(format!("{number:016x}.manifest"));
    std::fs::copy(manifest(1), kept.path().join("1")).unwrap();
    store.checkpoint(&NoBlobs).unwrap();
    let op = insert(&store, 20_000, &[3]);
    commit(&store, vec![op]);
    store.close().unwrap();
    std::fs::copy(kept.path().join("1"), manifest(1)).unwrap();
    drop(hold);
    (manifest(2), store.log_end())
}

#[test]
fn an_older_manifest_serves_only_with_the_whole_log_after_it() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("tenant");
    let (newest, end) = two_manifests(&dir);
    let damaged = Damaged { root, end };
    damaged.flip(&newest, 50);
    let broken = tempfile::tempdir().unwrap();
    copy(&dir, broken.path());
    let plan = damaged.plan().unwrap();
    assert!(matches!(&plan.losses[..], [Loss::Manifest { instead: 1, .. }]), "{:?}", plan.losses);
    plan.apply(&damaged.aside()).unwrap();
    let left = errors(&dir, end);
    assert!(left.is_empty(), "{left:?}");
    let store = TenantStore::open(&dir, TENANT, tenant_key(), options()).unwrap();
    assert_eq!(ids(&store, 20_000), [1, 2, 3]);
    assert_eq!(damaged.aside_names(), [name(&newest)]);

    let log = broken.path().join("wal").join("0000000000000001.wal");
    std::fs::remove_file(log).unwrap();
    let before = files(broken.path());
    let mut heard = Heard::default();
    let refused =
        TenantStore::plan_repair(broken.path(), TENANT, tenant_key(), &damaged.options(), &Known, &mut heard);
    let why = refused.err().expect("the log does not reach from the older manifest").to_string();
    assert!(why.contains("0000000000000002.manifest") && why.contains("backup"), "{why}");
    assert_eq!(files(broken.path()), before);
}

#[test]
fn without_any_manifest_the_repair_is_refused() {
    let damaged = Damaged::new();
    std::fs::remove_file(&damaged.files("manifest")[0]).unwrap();
    assert!(damaged.plan().err().unwrap().to_string().contains("backup"));
}

/// Lets only so many steps that change names go through.
struct Failing {
    left: AtomicI64,
}

impl Watch for Failing {
    fn names_change(&self) -> io::Result<()> {
        if self.left.fetch_sub(1, Ordering::SeqCst) > 0 {
            return Ok(());
        }
        Err(io::Error::other("the power is gone"))
    }
}

#[test]
fn a_repair_that_was_cut_short_anywhere_is_done_by_the_next() {
    type Damage = fn(&Damaged);
    let damages: [(&str, Damage); 3] = [
        ("segment", |damaged: &Damaged| {
            damaged.files("parquet").iter().for_each(|path| damaged.flip(path, 60))
        }),
        ("log", |damaged: &Damaged| {
            let log = damaged.files("wal").remove(0);
            let length = std::fs::read(&log).unwrap().len();
            damaged.flip(&log, length / 3);
        }),
        ("index", |damaged: &Damaged| damaged.flip(&damaged.files("index")[0], 20)),
    ];
    for (what, damage) in damages {
        let mut expected = None;
        for steps in 0.. {
            let damaged = Damaged::new();
            damage(&damaged);
            let files = Arc::new(Watched(Arc::new(Failing { left: AtomicI64::new(steps) })));
            let check = CheckOptions { files, ..damaged.options().check };
            let plan = damaged.plan_with(&RepairOptions { check, resurrect_deleted: false }).unwrap();
            let first = plan.apply(&damaged.root.path().join("first"));
            let again = damaged.plan().unwrap();
            let label = format!("{what} after {steps} steps");
            let rows = damaged.repaired(again);
            let expected: &[Vec<i64>; 2] = expected.get_or_insert_with(|| rows.clone());
            assert_eq!(&rows, expected, "{label}");
            if first.is_ok() {
                assert!(steps > 4, "{label}");
                break;
            }
        }
    }
}

#[test]
fn losses_are_written_for_machines_too() {
    let loss = Loss::Commits {
        after: Lsn(7),
        known: 2,
        last_known: Some(Lsn(9)),
        file: "t/wal/1.wal".into(),
        why: "cut".into(),
    };
    let json = serde_json::to_value(&loss).unwrap();
    let expected: BTreeMap<&str, serde_json::Value> = BTreeMap::from([
        ("lost", "commits".into()),
        ("after", 7.into()),
        ("known", 2.into()),
        ("last_known", 9.into()),
        ("file", "t/wal/1.wal".into()),
        ("why", "cut".into()),
    ]);
    assert_eq!(json, serde_json::to_value(expected).unwrap());
}
