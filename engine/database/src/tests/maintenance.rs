//! VACUUM, ANALYZE and CHECKPOINT, and what happens by itself.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use arrow::util::display::array_value_to_string;
use sepal_storage::AsOf;
use sepal_types::Error;

use crate::{
    Session,
    fixtures::{Fixture, refused, run},
    tenant::OpenTenant,
};

const CANARY: &str = "canary-4f0e-deleted";

async fn fill(session: &mut Session) {
    run(session, "CREATE TABLE t (id int8 PRIMARY KEY, note text, v vector(4))").await;
    let rows = format!(
        "INSERT INTO t SELECT x, CASE WHEN x % 10 = 0 THEN '{CANARY}' ELSE 'note ' || x END, '[1,2,3,4]'::vector \
         FROM generate_series(1, 3000) AS s(x)"
    );
    run(session, &rows).await;
    run(session, "CREATE INDEX t_v ON t USING hnsw (v vector_l2_ops)").await;
    run(session, "CHECKPOINT").await;
}

/// Every value that the head's files and memory hold, deleted or not.
fn holds_canary(tenant: &OpenTenant) -> bool {
    let snapshot = tenant.store.snapshot();
    snapshot.tables().any(|version| {
        version.chunks.iter().any(|held| {
            version.def.columns.iter().any(|column| {
                let array = held.chunk.column(column).unwrap();
                let rows = held.chunk.rows() as usize;
                (0..rows).any(|row| array_value_to_string(&array, row).unwrap().contains(CANARY))
            })
        })
    })
}

/// Deleted rows of `t` that are still in its segments.
fn dead(tenant: &OpenTenant) -> u64 {
    let snapshot = tenant.store.snapshot();
    snapshot.find("default", "t").unwrap().chunks.iter().map(|held| held.deleted.len()).sum()
}

fn count(directory: &Path, extension: &str) -> usize {
    let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    names.filter(|path| path.extension().is_some_and(|found| found == extension)).count()
}

fn notices(session: &mut Session) -> Vec<(&'static str, Error)> {
    session.take_notices().into_iter().map(|notice| (notice.severity, notice.error)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_is_gone_after_vacuum_full() {
    let fixture = Fixture::new();
    let tenant = fixture.tenant().await;
    let mut session = fixture.session().await;
    fill(&mut session).await;
    run(&mut session, "ANALYZE t").await;
    run(&mut session, &format!("DELETE FROM t WHERE note = '{CANARY}'")).await;
    assert_eq!(dead(&tenant), 300);

    run(&mut session, "VACUUM (VERBOSE) t").await;
    let told = notices(&mut session);
    let [(severity, verbose)] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((*severity, verbose.state().code()), ("INFO", "00000"));
    let detail = verbose.detail().unwrap();
    assert!(detail.contains("tuples: 300 removed, 2700 remain"), "{detail}");
    assert_eq!(dead(&tenant), 0);
    let past = AsOf::Commit(tenant.store.history().oldest_lsn);
    assert!(tenant.store.snapshot_as_of(&past).is_ok(), "the past is still there");
    assert!(holds_canary(&tenant), "in what ANALYZE found");

    run(&mut session, "VACUUM FULL").await;
    let told = notices(&mut session);
    assert!(
        told.iter().any(|(severity, error)| *severity == "NOTICE" && error.message().contains("history"))
    );
    assert_eq!(tenant.store.history().versions, 0);
    assert!(!holds_canary(&tenant));
    let directory = fixture.data().join("tenants").join(fixture.tenant_id().to_string());
    let begun = Instant::now();
    // Whoever looked for missing indexes meanwhile may hold a segment for a moment.
    while count(&directory.join("segments"), "parquet") > tenant.store.stats().segments {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "files of segments that were replaced are still there"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(count(&directory.join("segments"), "deleted"), 0);
    assert_eq!(count(&directory.join("manifest"), "manifest"), 1);
    assert_eq!(run(&mut session, "SELECT count(*) FROM t").await, [2_700]);
    let nearest = "SELECT count(*) FROM (SELECT id FROM t ORDER BY v <-> '[1,2,3,4]' LIMIT 20) s";
    assert_eq!(run(&mut session, nearest).await, [20]);
    let known = "SELECT vacuum_count, analyze_count FROM pg_stat_user_tables WHERE relname = 't'";
    assert_eq!(run(&mut session, known).await, [2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn vacuum_is_no_part_of_a_transaction() {
    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    run(&mut session, "CREATE TABLE t (id int)").await;
    for statement in ["VACUUM", "VACUUM FULL t", "REINDEX DATABASE", "REINDEX TABLE CONCURRENTLY t"] {
        run(&mut session, "BEGIN").await;
        assert_eq!(refused(&mut session, statement).await, "25001", "{statement}");
        run(&mut session, "ROLLBACK").await;
    }
    run(&mut session, "BEGIN; ANALYZE t; CHECKPOINT; REINDEX TABLE t; COMMIT").await;
    // As the simple protocol sends several statements at once.
    session.begin_implicit();
    run(&mut session, "INSERT INTO t VALUES (1)").await;
    assert_eq!(refused(&mut session, "VACUUM").await, "25001");
    session.end_implicit(false).await.unwrap();
    session.begin_implicit();
    run(&mut session, "VACUUM; INSERT INTO t VALUES (2)").await;
    session.end_implicit(true).await.unwrap();
    assert_eq!(run(&mut session, "SELECT id FROM t").await, [2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn segments_are_merged_by_themselves() {
    let fixture = Fixture::new_with(|options| options.compaction_bytes_per_second = 0);
    let tenant = fixture.tenant().await;
    let mut session = fixture.session().await;
    run(&mut session, "CREATE TABLE t (id int8, filler text)").await;
    for part in 0..6 {
        let rows = format!(
            "INSERT INTO t SELECT x, repeat('x', 1000) || x FROM generate_series({}, {}) AS s(x)",
            part * 3_000,
            part * 3_000 + 2_999
        );
        run(&mut session, &rows).await;
        run(&mut session, "CHECKPOINT").await;
    }
    let begun = Instant::now();
    while tenant.store.wants_compaction() || tenant.store.stats().compacted_bytes == 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", tenant.store.stats());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(tenant.store.stats().segments <= 4);
    assert_eq!(run(&mut session, "SELECT count(*) FROM t").await, [18_000]);
    assert!(fixture.database.metrics().compacted_bytes > 0);
    // Told right after the files are there.
    let seen = "SELECT autovacuum_count FROM pg_stat_user_tables WHERE relname = 't' AND last_autovacuum IS NOT NULL";
    while run(&mut session, seen).await.is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(60), "no view tells of it");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(run(&mut session, seen).await[0] > 0);
    let ratio = "SELECT count(*) FROM sepal_storage WHERE write_amplification > 1";
    assert_eq!(run(&mut session, ratio).await, [1]);
    drop((session, tenant));
    let fixture = fixture.restart().await;
    let mut session = fixture.session().await;
    assert_eq!(run(&mut session, "SELECT count(*) FROM t").await, [18_000]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_only_reads_may_not() {
    let fixture = Fixture::new();
    run(&mut fixture.session().await, "CREATE TABLE t (id int)").await;
    let reader = fixture.principal(sepal_control::Scopes::READ);
    let mut session = fixture.database.connect(reader, "", &[]).await.unwrap();
    for statement in ["VACUUM", "ANALYZE t", "REINDEX TABLE t", "CHECKPOINT"] {
        assert_eq!(refused(&mut session, statement).await, "42501", "{statement}");
    }
}
