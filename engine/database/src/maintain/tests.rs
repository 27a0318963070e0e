//! That every segment gets its index, whoever comes first.

use std::time::{Duration, Instant};

use sepal_storage::Op;
use sepal_types::IndexMethod;

use super::{Gaps, Target, build_missing, checkpoint, lacks};
use crate::{
    fixtures::{Fixture, run},
    tenant::OpenTenant,
};

const ITEMS: &str = "CREATE TABLE items (id int8, v vector(4)); \
                     CREATE INDEX items_v ON items USING hnsw (v vector_l2_ops)";

fn load(first: i64) -> String {
    let last = first + 1_999;
    format!(
        "INSERT INTO items SELECT x, ('[' || x || ',0,0,1]')::vector FROM generate_series({first}, {last}) AS s(x)"
    )
}

/// Marks the index as CREATE INDEX does before and after its build.
fn mark(tenant: &OpenTenant, valid: bool) {
    let snapshot = tenant.store.snapshot();
    let mut def = snapshot.find("default", "items").unwrap().def.as_ref().clone();
    def.indexes[0].valid = valid;
    tenant.store.commit(&snapshot, vec![Op::AlterTable(def)]).unwrap();
}

/// Rows flushed while CREATE INDEX is at work: their segment is written without the index, which is valid then.
fn flush_during_build(tenant: &OpenTenant) {
    mark(tenant, false);
    checkpoint(tenant).unwrap();
    mark(tenant, true);
}

/// Segments that lack the index.
fn gaps(tenant: &OpenTenant) -> usize {
    let snapshot = tenant.store.snapshot();
    let version = snapshot.find("default", "items").unwrap();
    let index = version.def.indexes[0].id;
    assert!(version.chunks.iter().all(|reference| reference.chunk.segment().is_some()), "all is flushed");
    version.chunks.iter().filter(|reference| lacks(&reference.chunk, index)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_flushed_during_a_build_gets_its_index() {
    let fixture = Fixture::new();
    let tenant = fixture.tenant().await;
    let mut session = fixture.session().await;
    run(&mut session, ITEMS).await;
    run(&mut session, &load(1)).await;
    flush_during_build(&tenant);
    let mut known = Gaps::default();
    build_missing(&tenant, &mut known);
    assert_eq!(gaps(&tenant), 0);
    assert!(known.is_empty());

    // And without being asked for, once something says that there may be one.
    run(&mut session, &load(10_001)).await;
    flush_during_build(&tenant);
    tenant.missing.notify_one();
    let begun = Instant::now();
    while gaps(&tenant) > 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "the index was not built");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let nearest = run(&mut session, "SELECT id FROM items ORDER BY v <-> '[10005,0,0,1]' LIMIT 1").await;
    assert_eq!(nearest, [10_005]);
}

#[tokio::test(flavor = "multi_thread")]
async fn merged_segments_have_an_index_that_finds_all_of_them() {
    let fixture = Fixture::new();
    let tenant = fixture.tenant().await;
    let mut session = fixture.session().await;
    run(&mut session, ITEMS).await;
    run(&mut session, &load(1)).await;
    run(&mut session, &load(2_001)).await;
    checkpoint(&tenant).unwrap();
    run(&mut session, "DELETE FROM items WHERE id % 7 = 0").await;
    run(&mut session, &load(4_001).replace("6000", "4400")).await;
    run(&mut session, "VACUUM FULL items").await;
    let snapshot = tenant.store.snapshot();
    let version = snapshot.find("default", "items").unwrap();
    let rows: Vec<u32> = version.chunks.iter().map(|reference| reference.chunk.rows()).collect();
    assert_eq!((rows, gaps(&tenant)), (vec![3_829], 0));
    // It went on from the first one: 571 of its 4,000 rows are gone.
    let index =
        tenant.indexes.get(&version.chunks[0].chunk, version.def.indexes[0].id, 4, || 0).unwrap().unwrap();
    let share = index.wear().unwrap().share();
    assert!((0.14..0.16).contains(&share), "{share}");
    for id in [1, 8, 999, 2_000, 4_001, 4_400] {
        let nearest = format!("SELECT id FROM items ORDER BY v <-> '[{id},0,0,1]' LIMIT 1");
        assert_eq!(run(&mut session, &nearest).await, [id]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_wanted_any_more_is_not_built_and_gives_its_memory_back() {
    let fixture = Fixture::new();
    let tenant = fixture.tenant().await;
    let mut session = fixture.session().await;
    run(&mut session, ITEMS).await;
    run(&mut session, &load(1)).await;
    // Nobody else builds.
    tenant.begin_close();
    flush_during_build(&tenant);
    let snapshot = tenant.store.snapshot();
    let version = snapshot.find("default", "items").unwrap();
    let (chunk, def) = (&version.chunks[0].chunk, &version.def);
    let IndexMethod::Vector(options) = &def.indexes[0].method else { panic!("no vector index") };
    let target = Target {
        table: def.id,
        index: def.indexes[0].id,
        options: options.clone(),
        column: def.columns[1].clone(),
    };
    let build = |memory_bytes: u64, stop: bool| {
        let posted = tenant.builds.post(0, target.table, target.index, 2_000);
        target.build(&tenant, chunk, memory_bytes, &posted, &|| stop)
    };
    let is_free = || tenant.background.build_budget.try_take(u64::MAX).is_some();
    assert_eq!(build(u64::MAX, true).unwrap_err().state().code(), "57014");
    assert!(is_free(), "a build that was cancelled");
    // What is built in too little memory is told of.
    assert!(build(1, false).unwrap().is_some());
    assert_eq!((gaps(&tenant), is_free()), (0, true));
    assert!(build(1, false).unwrap().is_none(), "somebody else has built it");
    let mut without = def.as_ref().clone();
    without.indexes.clear();
    tenant.store.commit(&snapshot, vec![Op::AlterTable(without)]).unwrap();
    assert!(build(1, false).unwrap().is_none(), "it was dropped");
    assert!(is_free());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_waits_for_memory_says_so() {
    let fixture = Fixture::new();
    let tenant = fixture.tenant().await;
    let mut session = fixture.session().await;
    run(&mut session, ITEMS).await;
    run(&mut session, &load(1)).await;
    let all = tenant.background.build_budget.try_take(u64::MAX).unwrap();
    flush_during_build(&tenant);
    tenant.missing.notify_one();
    let begun = Instant::now();
    let is_waiting = || tenant.builds.tasks().iter().any(|task| task.phase == "waiting for memory");
    while !is_waiting() {
        assert!(begun.elapsed() < Duration::from_secs(60), "the build does not wait");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(gaps(&tenant), 1);
    drop(all);
    while gaps(&tenant) > 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "the index was not built");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lacks_its_index_at_a_start_gets_it() {
    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    run(&mut session, ITEMS).await;
    run(&mut session, &load(1)).await;
    let tenant = fixture.tenant().await;
    tenant.begin_close();
    flush_during_build(&tenant);
    assert_eq!(gaps(&tenant), 1, "maintenance has ended");
    let again = fixture.crash();
    let tenant = again.tenant().await;
    let begun = Instant::now();
    while gaps(&tenant) > 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "the index was not built");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A crash may have come between the clone and the flush that follows it.
#[tokio::test(flavor = "multi_thread")]
async fn a_clone_that_only_the_log_has_gets_its_index() {
    let fixture = Fixture::new();
    let tenant = fixture.tenant().await;
    let mut session = fixture.session().await;
    run(&mut session, ITEMS).await;
    run(&mut session, &load(1)).await;
    // Nobody else builds.
    tenant.begin_close();
    flush_during_build(&tenant);
    let snapshot = tenant.store.snapshot();
    let source = snapshot.find("default", "items").unwrap();
    let mut def = source.def.as_ref().clone();
    (def.id, def.name) = (tenant.store.next_object_id(), "copy".into());
    (def.indexes[0].id, def.indexes[0].name) = (tenant.store.next_object_id(), "copy_v".into());
    let ops = tenant.store.clone_ops(&snapshot, source.def.id, def.clone()).unwrap();
    tenant.store.commit(&snapshot, ops).unwrap();
    let IndexMethod::Vector(options) = &def.indexes[0].method else { panic!("no vector index") };
    let (table, index) = (def.id, def.indexes[0].id);
    let target = Target { table, index, options: options.clone(), column: def.columns[1].clone() };
    let chunk = &source.chunks[0].chunk;
    let posted = tenant.builds.post(0, table, index, 2_000);
    target.build(&tenant, chunk, u64::MAX, &posted, &|| false).unwrap();
    assert!(!lacks(chunk, index));
}

/// A device that fails a write now and then.
#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_a_passing_error_has_stopped_is_tried_again() {
    let fixture = Fixture::new();
    let tenant = fixture.tenant().await;
    let mut session = fixture.session().await;
    run(&mut session, ITEMS).await;
    run(&mut session, &load(1)).await;
    let all = tenant.background.build_budget.try_take(u64::MAX).unwrap();
    flush_during_build(&tenant);
    tenant.missing.notify_one();
    let begun = Instant::now();
    let is_at = |phase: &str| tenant.builds.tasks().iter().any(|task| task.phase == phase);
    while !is_at("waiting for memory") {
        assert!(begun.elapsed() < Duration::from_secs(60), "nobody builds");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // What it reads is in memory, what it writes has no place.
    let snapshot = tenant.store.snapshot();
    let version = snapshot.find("default", "items").unwrap();
    version.chunks[0].chunk.column(&version.def.columns[1]).unwrap();
    let directory = fixture.data().join("tenants").join(fixture.tenant_id().to_string());
    std::fs::rename(directory.join("segments"), directory.join("aside")).unwrap();
    drop(all);
    while !is_at("waiting to try again after an error") {
        assert!(begun.elapsed() < Duration::from_secs(60), "the build does not fail");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!tenant.works_by_itself(), "it may be closed, and tried again when it is opened");
    std::fs::rename(directory.join("aside"), directory.join("segments")).unwrap();
    while gaps(&tenant) > 0 || !tenant.builds.tasks().is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(60), "the index was not built");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
