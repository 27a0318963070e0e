//! Whose rows are in memory.

use std::{sync::atomic::AtomicBool, time::Instant};

use sepal_storage::NoBlobs;

use super::*;
use crate::{
    fixtures::{Fixture, run},
    session::Session,
};

const TABLE: TableId = TableId(20_000);

#[tokio::test(flavor = "multi_thread")]
async fn one_large_merge_at_a_time_has_rows_in_memory() {
    let fixture = Fixture::new();
    let tenant = fixture.tenant().await;
    let ended = AtomicBool::new(false);
    let stop = || ended.load(Ordering::Relaxed);
    let task = tenant.tasks.post(0, TaskKind::Compaction, Some(TABLE), now_us());
    let in_background = || Paced { waits: false, ..Paced::new(&tenant, &task, &stop) };
    let begun = |bytes| {
        let pace = in_background();
        pace.begin(TABLE, bytes);
        pace
    };
    let first = begun(LARGE_BYTES + 1);
    assert!(!first.is_stopped());
    assert!(!begun(LARGE_BYTES).is_stopped(), "a small one goes on beside it");
    let second = begun(LARGE_BYTES + 1);
    assert!(second.is_stopped() && second.is_refused());
    // The rows are let go before the indexes are built.
    first.phase(Phase::Writing);
    assert!(begun(u64::MAX).is_refused());
    first.phase(Phase::BuildingIndexes);
    let third = begun(LARGE_BYTES + 1);
    assert!(!third.is_stopped() && !first.is_stopped());

    // A statement waits, and can be cancelled.
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| {
            let pace = Paced::new(&tenant, &task, &stop);
            pace.begin(TABLE, LARGE_BYTES + 1);
            pace.is_stopped()
        });
        while task.phase_now() != "waiting for memory" {
            std::thread::yield_now();
        }
        assert!(!waits.is_finished());
        drop(third);
        assert!(!waits.join().unwrap());
    });
    let held = begun(LARGE_BYTES + 1);
    ended.store(true, Ordering::Relaxed);
    let pace = Paced::new(&tenant, &task, &stop);
    pace.begin(TABLE, LARGE_BYTES + 1);
    assert!(pace.is_stopped());
    drop(held);
}

/// One of its merges may take an hour, and a tenant's merges wait for each other.
#[tokio::test(flavor = "multi_thread")]
async fn a_merge_in_the_background_waits_for_no_vacuum() {
    let fixture = Fixture::new();
    let tenant = fixture.tenant().await;
    let vacuum = tenant.tasks.post(1, TaskKind::VacuumFull, Some(TABLE), now_us());
    assert!(matches!(merge_one(&tenant), Ok(Step::Later)));
    drop(vacuum);
    assert!(matches!(merge_one(&tenant), Ok(Step::Nothing)));
}

/// Holds a merge that has written its rows.
#[derive(Default)]
struct Held {
    reached: AtomicBool,
    go: AtomicBool,
}

impl Pace for Held {
    fn phase(&self, phase: Phase) {
        if phase != Phase::Committing {
            return;
        }
        self.reached.store(true, Ordering::Relaxed);
        let begun = Instant::now();
        while !self.go.load(Ordering::Relaxed) && begun.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// What it wrote has rows that were deleted meanwhile: they are to be gone after VACUUM.
#[tokio::test(flavor = "multi_thread")]
async fn vacuum_waits_for_a_merge_and_looks_at_what_it_wrote() {
    let fixture = Fixture::new();
    let tenant = fixture.tenant().await;
    let mut session = fixture.session().await;
    run(&mut session, "CREATE TABLE t (id int PRIMARY KEY)").await;
    run(&mut session, "INSERT INTO t SELECT x FROM generate_series(1, 1000) AS s(x); CHECKPOINT").await;
    let (table, file) = {
        let snapshot = tenant.store.snapshot();
        let version = snapshot.find("default", "t").unwrap();
        (version.def.id, version.chunks[0].chunk.segment().unwrap())
    };
    let held = Arc::new(Held::default());
    let merge = {
        let (tenant, held) = (Arc::clone(&tenant), Arc::clone(&held));
        tokio::task::spawn_blocking(move || tenant.store.merge(table, &[file], &NoBlobs, &*held).unwrap())
    };
    until("it does not merge", || held.reached.load(Ordering::Relaxed)).await;
    run(&mut session, "DELETE FROM t WHERE id <= 100").await;
    let vacuum = tokio::spawn(async move { run(&mut session, "VACUUM t").await });
    let looks = || tenant.tasks.rows().iter().any(|task| task.task == "vacuum" && task.phase == SCANNING);
    until("it does not vacuum", looks).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!vacuum.is_finished());
    held.go.store(true, Ordering::Relaxed);
    assert!(merge.await.unwrap().is_some(), "its work is not thrown away");
    vacuum.await.unwrap();
    let snapshot = tenant.store.snapshot();
    let version = snapshot.find("default", "t").unwrap();
    let deleted: u64 = version.chunks.iter().map(|held| held.deleted.len()).sum();
    assert_eq!((version.live_rows(), deleted), (900, 0));
}

/// What three loads left: segments that a flush leaves alone.
#[tokio::test(flavor = "multi_thread")]
async fn segments_are_merged_before_the_first_index_of_vectors_is_built() {
    let fixture = Fixture::new();
    let tenant = fixture.tenant().await;
    let mut session = fixture.session().await;
    run(&mut session, "CREATE TABLE t (id int, v vector(128), w vector(3))").await;
    let load = async |session: &mut Session, first: i32| {
        let rows = format!(
            "INSERT INTO t SELECT x, ('[' || repeat(x || ',', 127) || '1]')::vector, ('[' || x || ',0,1]')::vector \
             FROM generate_series({first}, {}) AS s(x)",
            first + 2_499
        );
        run(session, &rows).await;
        run(session, "CHECKPOINT").await;
    };
    let segments = || {
        let snapshot = tenant.store.snapshot();
        let chunks = &snapshot.find("default", "t").unwrap().chunks;
        chunks.iter().filter(|held| held.chunk.segment().is_some()).count()
    };
    for first in [1, 2_501, 5_001] {
        load(&mut session, first).await;
    }
    assert_eq!(segments(), 3);
    run(&mut session, "CREATE INDEX t_v ON t USING hnsw (v vector_l2_ops)").await;
    assert_eq!(segments(), 1);
    load(&mut session, 7_501).await;
    run(&mut session, "CREATE INDEX t_w ON t USING hnsw (w vector_l2_ops)").await;
    assert_eq!(segments(), 2, "what is merged would have to be indexed anew");
    let nearest = run(&mut session, "SELECT id FROM t ORDER BY w <-> '[9000,0,1]' LIMIT 1").await;
    assert_eq!(nearest, [9_000]);
}

#[tokio::test(flavor = "multi_thread")]
async fn indexes_of_what_is_gone_are_not_kept_open() {
    let fixture = Fixture::new();
    let tenant = fixture.tenant().await;
    let mut session = fixture.session().await;
    run(&mut session, "CREATE TABLE t (id int, v vector(3))").await;
    run(&mut session, "CREATE INDEX t_v ON t USING hnsw (v vector_l2_ops)").await;
    run(
        &mut session,
        "INSERT INTO t SELECT x, ('[' || x || ',0,1]')::vector FROM generate_series(1, 3000) AS s(x)",
    )
    .await;
    run(&mut session, "CHECKPOINT").await;
    // The segments of the table, and how many of them have their index open.
    let opened = |segments: &[FileId], index| {
        segments.iter().filter(|segment| tenant.indexes.holds(**segment, index)).count()
    };
    let segments = || {
        let snapshot = tenant.store.snapshot();
        let version = snapshot.find("default", "t").unwrap();
        let files: Vec<FileId> = version.chunks.iter().filter_map(|held| held.chunk.segment()).collect();
        (files, version.def.indexes.first().map(|index| index.id))
    };
    run(&mut session, "SELECT id FROM t ORDER BY v <-> '[5,0,1]' LIMIT 1").await;
    let (before, Some(index)) = segments() else { panic!("no index") };
    assert_eq!(opened(&before, index), before.len());
    run(&mut session, "VACUUM FULL t").await;
    let (after, _) = segments();
    assert_eq!((after.len(), opened(&after, index), opened(&before, index)), (1, 1, 0));

    run(&mut session, "REINDEX INDEX t_v").await;
    assert_eq!(opened(&after, index), 0);
    run(&mut session, "SELECT id FROM t ORDER BY v <-> '[5,0,1]' LIMIT 1").await;
    assert_eq!(tenant.indexes.opened().len(), 1);
    run(&mut session, "DROP INDEX t_v").await;
    assert_eq!(tenant.indexes.opened().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compaction_that_waits_for_room_is_shown_and_keeps_no_tenant_open() {
    let fixture = Fixture::new();
    let tenant = fixture.tenant().await;
    until("it works", || !tenant.works_by_itself()).await;
    let held = hold_back(&tenant);
    let phases: Vec<_> = tenant.tasks.rows().into_iter().map(|task| (task.task, task.phase)).collect();
    assert_eq!(phases, [("compaction", "waiting for room on the device")]);
    assert!(!tenant.works_by_itself());
    let other = tenant.tasks.post(0, TaskKind::Compaction, Some(TABLE), now_us());
    assert!(tenant.works_by_itself());
    drop((held, other));
    assert!(tenant.tasks.rows().is_empty());
}
