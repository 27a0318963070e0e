//! Clones and the past: what shares a damaged file goes without it, what has a name stays.

use std::path::{Path, PathBuf};

use sepal_types::{LogEnd, TableId};

use super::{Loss, RepairOptions, RepairPlan};
use crate::{
    AsOf, CheckOptions, Finding, HistoryPolicy, NoBlobs, Op, Severity, StoreError, StoreOptions, TenantStore,
    check::tests::{Heard, Known, check_with, errors},
    fixtures::{TENANT, commit, create, delete, files, ids, insert, items, options, scan, tenant_key},
};

const COPY: u32 = 20_020;

fn plan(dir: &Path, end: LogEnd) -> RepairPlan {
    let check = CheckOptions { log_end: Some(end), ..CheckOptions::default() };
    let wanted = RepairOptions { check, resurrect_deleted: false };
    TenantStore::plan_repair(dir, TENANT, tenant_key(), &wanted, &Known, &mut Heard::default()).unwrap()
}

fn with_extension(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let found = files(dir).into_keys();
    found.filter(|path| path.extension().is_some_and(|is| is == extension)).collect()
}

/// As an owner opens it who keeps the past.
fn keeping() -> StoreOptions {
    StoreOptions { history: HistoryPolicy::default(), ..options() }
}

fn rows(store: &TenantStore, table: u32) -> Vec<i64> {
    let mut rows = ids(store, table);
    rows.sort_unstable();
    rows
}

#[test]
fn a_clone_in_the_log_goes_without_the_segment_that_it_shares() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("tenant");
    let store = create(&dir);
    commit(&store, vec![Op::CreateTable(items(20_000, "items"))]);
    let op = insert(&store, 20_000, &(0..30).collect::<Vec<_>>());
    commit(&store, vec![op]);
    store.checkpoint(&NoBlobs).unwrap();
    let ops = store.clone_ops(&store.snapshot(), TableId(20_000), items(COPY, "copy")).unwrap();
    commit(&store, ops);
    for op in [delete(&store, COPY, &[4]), insert(&store, COPY, &[100])] {
        commit(&store, vec![op]);
    }
    store.close().unwrap();
    let end = store.log_end();
    drop(store);
    assert!(errors(&dir, end).is_empty(), "{:?}", errors(&dir, end));

    with_extension(&dir, "parquet").iter().for_each(|path| std::fs::remove_file(path).unwrap());
    let found = errors(&dir, end);
    assert_eq!(found.len(), 2, "the log's commits are no damage: {found:?}");
    let plan = plan(&dir, end);
    let mut tables: Vec<TableId> = Vec::new();
    for loss in &plan.losses {
        let Loss::Rows { table, rows: 30, .. } = loss else { panic!("{loss:?}") };
        tables.push(*table);
    }
    tables.sort_unstable();
    assert_eq!(tables, [TableId(20_000), TableId(COPY)]);
    plan.apply(&root.path().join("aside")).unwrap();
    assert!(errors(&dir, end).is_empty(), "{:?}", errors(&dir, end));
    let store = TenantStore::open(&dir, TENANT, tenant_key(), options()).unwrap();
    assert_eq!((rows(&store, 20_000), rows(&store, COPY)), (vec![], vec![100]));
}

/// A snapshot with a name, rows that came and went since, and a last one that only the log has.
fn furnished(dir: &Path) -> LogEnd {
    let store = TenantStore::create(dir, TENANT, tenant_key(), keeping()).unwrap();
    commit(&store, vec![Op::CreateTable(items(20_000, "items"))]);
    let op = insert(&store, 20_000, &(0..30).collect::<Vec<_>>());
    commit(&store, vec![op]);
    store.create_snapshot(&NoBlobs, "default", "then", "somebody", None).unwrap();
    for op in [delete(&store, 20_000, &[3]), insert(&store, 20_000, &[100])] {
        commit(&store, vec![op]);
    }
    store.checkpoint(&NoBlobs).unwrap();
    let op = insert(&store, 20_000, &[101]);
    commit(&store, vec![op]);
    store.close().unwrap();
    assert!(errors(dir, store.log_end()).is_empty(), "{:?}", errors(dir, store.log_end()));
    store.log_end()
}

#[test]
fn a_named_snapshot_stays_with_its_damage_and_today_goes_without() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("tenant");
    let end = furnished(&dir);
    for path in with_extension(&dir, "parquet") {
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[60] ^= 1;
        std::fs::write(&path, bytes).unwrap();
    }
    let plan = plan(&dir, end);
    assert!(matches!(&plan.losses[0], Loss::Rows { .. }), "{:?}", plan.losses);
    assert!(plan.left.iter().any(|finding| finding.consequence.contains("\"then\"")), "{:?}", plan.left);
    plan.apply(&root.path().join("aside")).unwrap();
    let store = TenantStore::open(&dir, TENANT, tenant_key(), keeping()).unwrap();
    assert_eq!(rows(&store, 20_000), [101], "what only the log had is kept");
    assert_eq!(store.snapshots().len(), 1);
    assert!(!with_extension(&dir, "parquet").is_empty(), "what a name keeps is not moved away");
}

/// The names are in the manifests: an older one knows those that came before it.
#[test]
fn a_repair_without_the_newest_manifest_says_which_snapshots_stay() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("tenant");
    let end = furnished(&dir);
    let newest = with_extension(&dir, "manifest").into_iter().max().unwrap();
    std::fs::write(newest, b"nothing").unwrap();
    let plan = plan(&dir, end);
    let Loss::Manifest { snapshots, .. } = &plan.losses[0] else { panic!("{:?}", plan.losses) };
    assert_eq!(snapshots, &["default/then"]);
    plan.apply(&root.path().join("aside")).unwrap();
    let store = TenantStore::open(&dir, TENANT, tenant_key(), keeping()).unwrap();
    assert_eq!(store.snapshots().len(), 1);
}

/// What one table needs is no reason to keep the others from whoever asks for a name.
#[test]
fn of_a_named_snapshot_the_tables_that_are_whole_are_read() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("tenant");
    let store = TenantStore::create(&dir, TENANT, tenant_key(), keeping()).unwrap();
    for (table, name) in [(20_000, "items"), (20_010, "goods")] {
        commit(&store, vec![Op::CreateTable(items(table, name))]);
        let op = insert(&store, table, &(0..30).collect::<Vec<_>>());
        commit(&store, vec![op]);
    }
    store.checkpoint(&NoBlobs).unwrap();
    let op = delete(&store, 20_000, &[3]);
    commit(&store, vec![op]);
    store.create_snapshot(&NoBlobs, "default", "then", "somebody", None).unwrap();
    // Written anew: only the snapshot needs the deletion vector from here on.
    let op = insert(&store, 20_000, &[100]);
    commit(&store, vec![op]);
    store.checkpoint(&NoBlobs).unwrap();
    store.close().unwrap();
    drop(store);
    let vectors = with_extension(&dir, "deleted");
    assert!(!vectors.is_empty());
    vectors.iter().for_each(|path| std::fs::remove_file(path).unwrap());
    let store = TenantStore::open(&dir, TENANT, tenant_key(), keeping()).unwrap();
    let name = AsOf::Named { environment: "default".into(), name: "then".into() };
    let then = store.snapshot_as_of(&name).unwrap();
    assert!(then.find("default", "items").is_none());
    assert!(matches!(then.unreadable("default", "items"), Some(StoreError::Corrupt { .. })));
    assert_eq!(scan(then.find("default", "goods").unwrap()).len(), 30);
    assert!(then.unreadable("default", "goods").is_none());
}

/// Nobody builds an index of the past again, and nobody needs it.
#[test]
fn a_damaged_index_spoils_no_past() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("tenant");
    let store = TenantStore::create(&dir, TENANT, tenant_key(), keeping()).unwrap();
    commit(&store, vec![Op::CreateTable(items(20_000, "items"))]);
    let op = insert(&store, 20_000, &(0..30).collect::<Vec<_>>());
    commit(&store, vec![op]);
    store.checkpoint(&NoBlobs).unwrap();
    let segment = store.snapshot().table(TableId(20_000)).unwrap().chunks[0].chunk.segment().unwrap();
    let index = items(20_000, "items").indexes[0].id;
    assert!(store.attach_index(TableId(20_000), segment, index, b"index bytes").unwrap());
    store.create_snapshot(&NoBlobs, "default", "then", "somebody", None).unwrap();
    let op = insert(&store, 20_000, &[100]);
    commit(&store, vec![op]);
    store.checkpoint(&NoBlobs).unwrap();
    store.close().unwrap();
    let end = store.log_end();
    drop(store);
    for path in with_extension(&dir, "index") {
        std::fs::remove_file(&path).unwrap();
    }
    let (_, heard) = check_with(&dir, end, &Known);
    let told = |finding: &Finding| {
        finding.severity == Severity::Warning
            && finding.file.ends_with(".index")
            && finding.consequence.contains("no row is lost")
    };
    assert!(!heard.findings.is_empty() && heard.findings.iter().all(told), "{:?}", heard.findings);
    let plan = plan(&dir, end);
    assert!(plan.is_empty() && plan.left.is_empty(), "{:?}", plan.losses);
    let store = TenantStore::open(&dir, TENANT, tenant_key(), keeping()).unwrap();
    assert_eq!(store.snapshots().len(), 1);
}

#[test]
fn a_past_that_does_not_open_goes_with_its_names() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("tenant");
    let end = furnished(&dir);
    let mut manifests = with_extension(&dir, "manifest");
    manifests.sort();
    manifests.pop();
    manifests.iter().for_each(|path| std::fs::write(path, b"nothing").unwrap());
    let plan = plan(&dir, end);
    let names: Vec<&String> = plan
        .losses
        .iter()
        .flat_map(|loss| {
            let Loss::Past { snapshots, .. } = loss else { panic!("{loss:?}") };
            snapshots
        })
        .collect();
    assert_eq!(names, ["default/then"]);
    plan.apply(&root.path().join("aside")).unwrap();
    assert!(errors(&dir, end).is_empty(), "{:?}", errors(&dir, end));
    let store = TenantStore::open(&dir, TENANT, tenant_key(), keeping()).unwrap();
    assert!(store.snapshots().is_empty());
    let whole: Vec<i64> = (0..30).filter(|id| *id != 3).chain([100, 101]).collect();
    assert_eq!(rows(&store, 20_000), whole);
}
