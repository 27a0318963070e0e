//! Whose rows are in memory.

use std::sync::atomic::AtomicBool;

use super::*;
use crate::fixtures::Fixture;

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
