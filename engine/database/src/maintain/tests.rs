//! That every segment gets its index, whoever comes first.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use sepal_storage::Op;

use super::{build_missing, checkpoint, lacks};
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
    let mut unbuildable = HashSet::new();
    build_missing(&tenant, &mut unbuildable).unwrap();
    assert_eq!(gaps(&tenant), 0);
    assert!(unbuildable.is_empty());

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
    checkpoint(&tenant).unwrap();
    run(&mut session, "DELETE FROM items WHERE id % 7 = 0").await;
    run(&mut session, &load(2_001).replace("4000", "2400")).await;
    run(&mut session, "VACUUM FULL items").await;
    let snapshot = tenant.store.snapshot();
    let version = snapshot.find("default", "items").unwrap();
    let rows: Vec<u32> = version.chunks.iter().map(|reference| reference.chunk.rows()).collect();
    assert_eq!((rows, gaps(&tenant)), (vec![2_115], 0));
    for id in [1, 8, 999, 2_000, 2_001, 2_400] {
        let nearest = format!("SELECT id FROM items ORDER BY v <-> '[{id},0,0,1]' LIMIT 1");
        assert_eq!(run(&mut session, &nearest).await, [id]);
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
