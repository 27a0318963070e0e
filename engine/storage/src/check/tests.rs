//! Every kind of damage in every kind of file is found, and is told by the file's name.

use std::path::{Path, PathBuf};

use arrow::array::ArrayRef;
use sepal_types::{ColumnId, IndexDef, LogEnd, TableDef, TableId, TenantId, UniqueDef};

use super::{BlobChecker, CheckObserver, CheckOptions, Checked, Finding, Severity};
use crate::{
    NoBlobs, Op, TenantStore,
    disk::Disk,
    fixtures::{TENANT, commit, delete, files, insert, items, keys, options, tenant_key},
    manifest,
    paths::Paths,
};

const ITEMS: TableId = TableId(20_000);

/// What a check said.
#[derive(Default)]
pub(crate) struct Heard {
    pub findings: Vec<Finding>,
    pub bytes: u64,
}

impl CheckObserver for Heard {
    fn found(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    fn read(&mut self, bytes: u64) {
        self.bytes += bytes;
    }
}

/// Knows one index.
pub(crate) struct Known;

impl BlobChecker for Known {
    fn check(&self, _: &TableDef, _: &IndexDef, column: &ArrayRef, bytes: &[u8]) -> Result<(), String> {
        assert_eq!(column.len(), 30);
        if bytes == b"index bytes" { Ok(()) } else { Err("another index".to_owned()) }
    }
}

/// A closed store of two tables with every kind of file: segments, a deletion vector, an index, a log with inserts and
/// a delete of a row in a segment.
pub(crate) fn furnished(dir: &Path, tenant: TenantId) -> LogEnd {
    let store = TenantStore::create(dir, tenant, tenant_key(), options()).unwrap();
    for (id, name) in [(20_000, "items"), (20_010, "goods")] {
        commit(&store, vec![Op::CreateTable(items(id, name))]);
        let op = insert(&store, id, &(0..30).collect::<Vec<_>>());
        commit(&store, vec![op]);
    }
    store.checkpoint(&NoBlobs).unwrap();
    let op = delete(&store, 20_000, &[3]);
    commit(&store, vec![op]);
    store.checkpoint(&NoBlobs).unwrap();
    let segment = store.snapshot().table(ITEMS).unwrap().chunks[0].chunk.segment().unwrap();
    let index = items(20_000, "items").indexes[0].id;
    assert!(store.attach_index(ITEMS, segment, index, b"index bytes").unwrap());
    let op = delete(&store, 20_000, &[5]);
    commit(&store, vec![op]);
    for (table, id) in [(20_000, 100), (20_010, 101), (20_010, 102)] {
        let op = insert(&store, table, &[id]);
        commit(&store, vec![op]);
    }
    store.close().unwrap();
    store.log_end()
}

pub(crate) fn check_with(dir: &Path, end: LogEnd, blobs: &dyn BlobChecker) -> (Checked, Heard) {
    let mut heard = Heard::default();
    let wanted = CheckOptions { log_end: Some(end), ..CheckOptions::default() };
    let checked = TenantStore::check(dir, TENANT, tenant_key(), &wanted, blobs, &mut heard);
    (checked, heard)
}

pub(crate) fn errors(dir: &Path, end: LogEnd) -> Vec<Finding> {
    let mut findings = check_with(dir, end, &Known).1.findings;
    findings.retain(|finding| finding.severity == Severity::Error);
    findings
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

#[test]
fn a_sound_directory_is_read_whole_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let end = furnished(dir.path(), TENANT);
    let content = files(dir.path());
    assert_eq!(content.len(), 6, "{:?}", content.keys());
    let (checked, heard) = check_with(dir.path(), end, &Known);
    assert!(heard.findings.is_empty(), "{:?}", heard.findings);
    let bytes: usize = content.values().map(Vec::len).sum();
    assert_eq!((heard.bytes, checked.bytes, checked.files), (bytes as u64, bytes as u64, 6));
    assert_eq!((checked.tables, checked.rows, checked.commits), (2, 29 + 32, 4));
    assert_eq!(files(dir.path()), content);
    let mut quick = Heard::default();
    let fast = CheckOptions { fast: true, log_end: Some(end), ..CheckOptions::default() };
    TenantStore::check(dir.path(), TENANT, tenant_key(), &fast, &Known, &mut quick);
    assert!(quick.findings.is_empty(), "{:?}", quick.findings);
}

#[test]
fn a_flipped_byte_is_told_by_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let end = furnished(dir.path(), TENANT);
    let content = files(dir.path());
    for (path, bytes) in &content {
        let name = name_of(path);
        let step = if name.ends_with("parquet") { 31 } else { 7 };
        let mut unnoticed = 0;
        for position in (0..bytes.len()).step_by(step).chain([bytes.len() - 1]) {
            let mut flipped = bytes.clone();
            flipped[position] ^= 0x10;
            std::fs::write(path, flipped).unwrap();
            let found = errors(dir.path(), end);
            let told = found.iter().all(|finding| finding.file.ends_with(&name));
            assert!(told, "{name} byte {position}: {found:?}");
            unnoticed += usize::from(found.is_empty());
            std::fs::write(path, bytes).unwrap();
        }
        // A segment has parts that no row needs: page indexes, and column metadata that the footer repeats.
        assert!(unnoticed == 0 || name.ends_with("parquet"), "{name}: {unnoticed} flips were not noticed");
    }
    assert!(errors(dir.path(), end).is_empty());
}

/// Whole columns can be read without, so nothing is lost, and no repair leaves the segment out.
#[test]
fn places_of_pages_that_do_not_open_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let end = furnished(dir.path(), TENANT);
    let content = files(dir.path());
    let (path, bytes) = content.iter().find(|(path, _)| name_of(path).ends_with("parquet")).unwrap();
    let mut told = 0;
    for position in (0..bytes.len()).step_by(13) {
        let mut flipped = bytes.clone();
        flipped[position] ^= 0x10;
        std::fs::write(path, flipped).unwrap();
        let findings = check_with(dir.path(), end, &Known).1.findings;
        if findings.iter().any(|finding| finding.consequence.contains("VACUUM FULL")) {
            let of_file =
                |finding: &Finding| finding.severity == Severity::Warning && path.ends_with(&finding.file);
            assert!(findings.iter().all(of_file), "byte {position}: {findings:?}");
            told += 1;
        }
    }
    assert!(told > 3, "{told} of an index of four columns");
}

#[test]
fn a_missing_or_cut_or_foreign_file_is_told() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let end = furnished(dir.path(), TENANT);
    furnished(other.path(), TenantId([8; 16]));
    let content = files(dir.path());
    let foreign = files(other.path());
    for (path, bytes) in &content {
        let told = |what: &str| {
            let found = errors(dir.path(), end);
            // A manifest that is gone has no name that could be told.
            let names = |finding: &Finding| {
                finding.file.ends_with(&name_of(path)) || finding.file.ends_with("manifest")
            };
            assert!(!found.is_empty() && found.iter().all(names), "{what} {path:?}: {found:?}");
        };
        std::fs::remove_file(path).unwrap();
        told("without");
        std::fs::write(path, &bytes[..bytes.len() - 1]).unwrap();
        told("cut");
        std::fs::write(path, b"").unwrap();
        told("empty");
        let kind = path.extension();
        let (_, theirs) = foreign.iter().find(|(path, _)| path.extension() == kind).unwrap();
        std::fs::write(path, theirs).unwrap();
        told("another tenant's");
        std::fs::write(path, bytes).unwrap();
    }
}

#[test]
fn a_damaged_segment_hides_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let end = furnished(dir.path(), TENANT);
    let segments: Vec<PathBuf> =
        files(dir.path()).into_keys().filter(|path| path.extension().unwrap() == "parquet").collect();
    segments.iter().for_each(|path| std::fs::remove_file(path).unwrap());
    let found = errors(dir.path(), end);
    assert_eq!(found.len(), 2, "the log's deletes of rows that are gone are no damage: {found:?}");
    let rows: Vec<&str> = found.iter().map(|finding| finding.consequence.as_str()).collect();
    assert!(rows.iter().any(|text| text.contains("29 rows of table \"items\" (20000)")), "{rows:?}");
    assert!(rows.iter().any(|text| text.contains("30 rows of table \"goods\" (20010)")), "{rows:?}");
}

#[test]
fn what_nothing_names_is_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let end = furnished(dir.path(), TENANT);
    let strays = [
        dir.path().join("segments").join(format!("{}.parquet", "ab".repeat(16))),
        dir.path().join("segments").join("notes.txt"),
        dir.path().join("wal").join("0000000000000009.tmp"),
        dir.path().join("manifest").join("0000000000000009.tmp"),
        dir.path().join("lost"),
    ];
    strays.iter().for_each(|path| std::fs::write(path, b"stray").unwrap());
    let (_, heard) = check_with(dir.path(), end, &Known);
    assert_eq!(heard.findings.len(), strays.len(), "{:?}", heard.findings);
    for stray in &strays {
        let name = name_of(stray);
        let told = |finding: &Finding| finding.severity == Severity::Warning && finding.file.ends_with(&name);
        assert!(heard.findings.iter().any(told), "{name}: {:?}", heard.findings);
    }
}

#[test]
fn an_index_that_is_not_its_columns_is_told() {
    struct No;
    impl BlobChecker for No {
        fn check(&self, _: &TableDef, index: &IndexDef, _: &ArrayRef, _: &[u8]) -> Result<(), String> {
            Err(format!("{} is not over these rows", index.name))
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let end = furnished(dir.path(), TENANT);
    let (_, heard) = check_with(dir.path(), end, &No);
    let [finding] = &heard.findings[..] else { panic!("{:?}", heard.findings) };
    assert!(finding.file.ends_with(".index") && finding.what.contains("items_embedding_idx"), "{finding}");
    assert!(finding.consequence.contains("no row is lost"), "{finding}");
}

/// What no commit lets through, put there by a manifest that says otherwise.
#[test]
fn constraints_that_do_not_hold_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let end = furnished(dir.path(), TENANT);
    let (disk, paths) = (Disk::default(), Paths::new(dir.path()));
    let (mut manifest, hash) = manifest::newest(&disk, &paths, TENANT, &keys()).unwrap();
    manifest.number += 1;
    manifest.previous = hash;
    let table = &mut manifest.tables[0];
    // Rows that are older than a column without a value for them are NULL there, all alike.
    let mut bare = table.def.columns[1].clone();
    (bare.id, bare.name, bare.not_null) = (ColumnId(9), "bare".to_owned(), true);
    table.def.columns.push(bare);
    let mut alike = table.def.columns[1].clone();
    (alike.id, alike.name) = (ColumnId(10), "alike".to_owned());
    alike.missing = Some("same".to_owned());
    table.def.columns.push(alike);
    let (id, name, columns) = (TableId(20_009), "alike_key".to_owned(), vec![ColumnId(10)]);
    table.def.uniques.push(UniqueDef { id, name, columns, primary: false, index: None });
    manifest::commit(&disk, &paths, TENANT, &keys(), &manifest).unwrap();
    let found: Vec<String> = errors(dir.path(), end).iter().map(ToString::to_string).collect();
    for word in ["\"bare\" is NOT NULL", "same key of constraint \"alike_key\""] {
        assert!(found.iter().any(|text| text.contains(word)), "{word}: {found:?}");
    }
}

#[test]
fn manifests_that_do_not_follow_each_other_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let end = furnished(dir.path(), TENANT);
    let (disk, paths) = (Disk::default(), Paths::new(dir.path()));
    let (mut manifest, hash) = manifest::newest(&disk, &paths, TENANT, &keys()).unwrap();
    manifest.number += 1;
    manifest.previous = hash;
    manifest::commit(&disk, &paths, TENANT, &keys(), &manifest).unwrap();
    assert!(errors(dir.path(), end).is_empty());
    manifest.number += 1;
    manifest::commit(&disk, &paths, TENANT, &keys(), &manifest).unwrap();
    let found = errors(dir.path(), end);
    let [finding] = &found[..] else { panic!("{found:?}") };
    assert!(finding.file.ends_with(&format!("{:016x}.manifest", manifest.number)), "{finding}");
}
