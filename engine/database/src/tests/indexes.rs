//! Index builds that were cut short, indexes that are damaged, and those over expressions.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use sepal_storage::Op;

use crate::{
    fixtures::{Fixture, refused, run},
    maintain::lacks_indexes,
    tenant::directory,
};

const ITEMS: &str = "CREATE TABLE items (id int8, v vector(4)); \
                     INSERT INTO items SELECT x, ('[' || x || ',0,0,1]')::vector FROM generate_series(1, 2000) AS s(x)";
const NAMES: &str = "SELECT count(*) FROM pg_indexes WHERE tablename = 'items'";

/// What a crash leaves when it comes after the commit of the definition and before the index is usable.
async fn interrupt_build(fixture: &Fixture, name: &str) {
    let tenant = fixture.tenant().await;
    let snapshot = tenant.store.snapshot();
    let mut def = snapshot.find("default", "items").unwrap().def.as_ref().clone();
    let mut unfinished = def.indexes[0].clone();
    unfinished.id = tenant.store.next_object_id();
    unfinished.name = name.into();
    unfinished.valid = false;
    def.indexes.push(unfinished);
    tenant.store.commit(&snapshot, vec![Op::AlterTable(def)]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_was_being_built_is_gone_after_a_crash() {
    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    run(&mut session, ITEMS).await;
    run(&mut session, "CREATE INDEX first ON items USING flat (v vector_l2_ops)").await;
    interrupt_build(&fixture, "second").await;
    assert_eq!(run(&mut session, NAMES).await, [2]);

    let again = fixture.crash();
    let mut session = again.session().await;
    assert_eq!(run(&mut session, NAMES).await, [1], "the finished one stays");
    run(&mut session, "CREATE INDEX second ON items USING flat (v vector_cosine_ops)").await;
    assert_eq!(run(&mut session, NAMES).await, [2], "the name is free");
    drop(session);
    let again = again.restart().await;
    assert_eq!(run(&mut again.session().await, NAMES).await, [2], "for good");
}

#[tokio::test(flavor = "multi_thread")]
async fn reindex_leaves_one_index_under_the_old_name() {
    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    run(&mut session, ITEMS).await;
    run(&mut session, "CREATE INDEX items_v ON items USING flat (v vector_l2_ops)").await;
    let oid = "SELECT oid FROM pg_class WHERE relname = 'items_v'";
    let before = run(&mut session, oid).await;
    run(&mut session, "REINDEX INDEX items_v").await;
    let after = run(&mut session, oid).await;
    assert_eq!((before.len(), after.len()), (1, 1));
    assert_ne!(before, after, "it was built anew");
    assert_eq!(run(&mut session, NAMES).await, [1]);
    // The crash during a REINDEX takes the new index, not the one that serves.
    interrupt_build(&fixture, "items_v_ccnew").await;
    let again = fixture.crash();
    assert_eq!(run(&mut again.session().await, oid).await, after);
}

#[tokio::test(flavor = "multi_thread")]
async fn create_index_is_part_of_its_transaction() {
    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    run(&mut session, ITEMS).await;
    // A query string of the simple protocol.
    session.begin_implicit();
    run(&mut session, "CREATE INDEX items_v ON items USING flat (v vector_l2_ops)").await;
    assert_eq!(refused(&mut session, "SELECT * FROM missing").await, "42P01");
    session.end_implicit(false).await.unwrap();
    assert_eq!(run(&mut session, NAMES).await, [0]);
}

fn index_files(store: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(store.join("segments")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|kind| kind == "index")).collect()
}

/// Waits until no segment of `items` lacks its index.
async fn until_built(fixture: &Fixture) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let tenant = fixture.tenant().await;
    while lacks_indexes(tenant.store.snapshot().find("default", "items").unwrap()) {
        assert!(Instant::now() < deadline, "nobody builds the index again");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Searches go on with the rows, it is counted, and the index is built again.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_index_costs_no_answer() {
    const NEAREST: &str = "SELECT id FROM items ORDER BY v <-> '[7,0,0,1]' LIMIT 1";
    for gone in [false, true] {
        let fixture = Fixture::new();
        let mut session = fixture.session().await;
        run(&mut session, ITEMS).await;
        run(&mut session, "CREATE INDEX items_v ON items USING hnsw (v vector_l2_ops)").await;
        drop(session);
        let store = directory(&fixture.data(), fixture.tenant_id());
        fixture.database.shutdown().await;
        let (data, root) = fixture.close();
        let damaged = index_files(&store);
        assert!(!damaged.is_empty());
        for path in &damaged {
            let mut bytes = std::fs::read(path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 4;
            std::fs::write(path, bytes).unwrap();
            if gone {
                std::fs::remove_file(path).unwrap();
            }
        }

        let fixture = Fixture::reopen(data, root);
        let mut session = fixture.session().await;
        assert_eq!(run(&mut session, NEAREST).await, [7], "gone: {gone}");
        assert_eq!(fixture.database.metrics().damaged_indexes, 1, "gone: {gone}");
        until_built(&fixture).await;
        assert_eq!(run(&mut session, NEAREST).await, [7], "gone: {gone}");
        assert!(index_files(&store).iter().any(|path| !damaged.contains(path)), "gone: {gone}");
        drop(session);

        let again = fixture.restart().await;
        assert_eq!(run(&mut again.session().await, NEAREST).await, [7], "gone: {gone}");
        assert_eq!(again.database.metrics().damaged_indexes, 0, "gone: {gone}: it was built for good");
    }
}

/// Over a column's halves and signs, and over bit strings: what was written last is found, before and after.
#[tokio::test(flavor = "multi_thread")]
async fn indexes_over_expressions_outlive_a_crash_and_a_restart() {
    async fn check(fixture: &Fixture, when: &str) {
        let mut session = fixture.session().await;
        for (sql, row) in [
            ("SELECT id FROM items ORDER BY v::halfvec(4) <-> '[7.1,0,0,1]' LIMIT 1", 7),
            ("SELECT id FROM items ORDER BY v::halfvec(4) <-> '[1,1,1,-1]' LIMIT 1", 5000),
            ("SELECT id FROM items ORDER BY binary_quantize(v)::bit(4) <~> B'1110' LIMIT 1", 5000),
            ("SELECT id FROM marks ORDER BY b <~> B'0111' LIMIT 1", 2),
            (NAMES, 2),
            ("SELECT count(*) FROM pg_indexes WHERE tablename = 'marks'", 1),
        ] {
            assert_eq!(run(&mut session, sql).await, [row], "{when}: {sql}");
        }
        let too_large = "INSERT INTO items VALUES (9, '[70000,0,0,1]')";
        assert_eq!(refused(&mut session, too_large).await, "22003", "{when}");
    }

    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    run(&mut session, ITEMS).await;
    run(&mut session, "CREATE TABLE marks (id int8, b bit(4))").await;
    for over in [
        "items USING hnsw ((v::halfvec(4)) halfvec_l2_ops)",
        "items USING hnsw ((binary_quantize(v)::bit(4)) bit_hamming_ops)",
        "marks USING hnsw (b bit_hamming_ops)",
    ] {
        run(&mut session, &format!("CREATE INDEX ON {over}")).await;
    }
    run(&mut session, "INSERT INTO items VALUES (5000, '[1,1,1,-1]')").await;
    run(&mut session, "INSERT INTO marks VALUES (1, '1000'), (2, '0110'), (3, NULL)").await;
    drop(session);
    check(&fixture, "as it was made").await;
    let again = fixture.crash();
    check(&again, "after a crash").await;
    let again = again.restart().await;
    check(&again, "after a restart").await;
    run(&mut again.session().await, "VACUUM FULL items").await;
    check(&again, "in one segment").await;
}
