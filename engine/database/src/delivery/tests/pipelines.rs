//! Pipelines as statements see them, and what their tables may no longer do.

use std::sync::Arc;

use sepal_control::{KeyFiles, Scopes};
use sepal_types::limits;

use super::{Fake, fixture, objects, refusal, with_sink};
use crate::{
    Session,
    backup::{Restoring, Until},
    connector::{Encoding, Envelope, Tier},
    delivery::system_tables::{Cell, SystemTable},
    fixtures::{Fixture, refused, run},
};

const CREATE: &str = "CREATE PIPELINE out AS SELECT id, total FROM orders WHERE total > 100 INTO SINK hook";

async fn with_pipeline(fixture: &Fixture) -> Session {
    let mut session = with_sink(fixture).await;
    run(&mut session, CREATE).await;
    session
}

async fn captured(fixture: &Fixture) -> bool {
    let snapshot = fixture.tenant().await.store.snapshot();
    snapshot.find("default", "orders").unwrap().def.captured
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_takes_what_is_left_open_from_its_plugin() {
    let fixture = fixture(&Arc::default());
    let mut session = with_sink(&fixture).await;
    assert!(!captured(&fixture).await);
    run(&mut session, &format!("{CREATE} WITH (linger = '5s', on_exhausted = 'dlq')")).await;
    let found = objects(&fixture).await;
    let def = found.pipeline("default", "out").unwrap();
    assert_eq!(
        (def.encoding, def.envelope, def.tier),
        (Encoding::Ndjson, Envelope::Upsert, Tier::Idempotent)
    );
    assert_eq!((def.key.as_slice(), def.batch_rows, def.linger_ms), (&["id".to_owned()][..], 500, 5_000));
    assert!(captured(&fixture).await);
    let tenants = fixture.database.control().tenants_with_pipelines().unwrap();
    assert_eq!(tenants, [fixture.tenant_id()], "the next start opens the tenant");
    assert_eq!(refused(&mut session, CREATE).await, "42710");
    run(&mut session, "DROP PIPELINE out").await;
    assert!(!captured(&fixture).await);
    assert!(fixture.database.control().tenants_with_pipelines().unwrap().is_empty());
}

/// Nobody would ever let go of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_reset_that_a_savepoint_took_back_keeps_no_log() {
    let fixture = fixture(&Arc::default());
    let mut session = with_pipeline(&fixture).await;
    let (tenant, found) = (fixture.tenant().await, objects(&fixture).await);
    let id = &found.pipeline("default", "out").unwrap().id;
    drop(tenant.delivery.take_log(id));
    run(&mut session, "BEGIN; ALTER PIPELINE out PAUSE; SAVEPOINT s; ALTER PIPELINE out RESET").await;
    run(&mut session, "ROLLBACK TO s; COMMIT").await;
    assert!(tenant.delivery.take_log(id).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_keeps_to_the_schema_that_it_was_made_with() {
    let fixture = fixture(&Arc::default());
    let mut session = with_sink(&fixture).await;
    run(&mut session, "CREATE SCHEMA shop; CREATE TABLE shop.orders (id int PRIMARY KEY, total int)").await;
    // One by one: the first pipeline of all makes the tables that pipelines are kept in.
    for sql in ["SET search_path = shop", CREATE, "RESET search_path"] {
        run(&mut session, sql).await;
    }
    let found = objects(&fixture).await;
    let def = found.pipeline("default", "out").unwrap();
    assert!(def.query.contains("FROM \"shop\".\"orders\""), "{}", def.query);
    assert!(!captured(&fixture).await, "the table of public is another one");
    for sql in [
        "ALTER SCHEMA shop RENAME TO store",
        "ALTER TABLE shop.orders DROP COLUMN total",
        "DROP TABLE shop.orders",
        "DROP SCHEMA shop",
    ] {
        assert_eq!(refused(&mut session, sql).await, "2BP01", "{sql}");
    }
    run(&mut session, "ALTER TABLE shop.orders ADD COLUMN note text; DROP SCHEMA shop CASCADE").await;
    assert!(objects(&fixture).await.pipeline("default", "out").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_sink_cannot_do_is_refused() {
    let fixture = fixture(&Arc::default());
    let mut session = with_sink(&fixture).await;
    run(&mut session, "CREATE TABLE loose (a int); CREATE SINK f USING file OPTIONS (path 'a')").await;
    for (sql, state) in [
        ("CREATE PIPELINE p AS SELECT a FROM loose INTO SINK hook ENVELOPE UPSERT", "42P16"),
        ("CREATE PIPELINE p AS SELECT a FROM loose INTO SINK hook FORMAT ARROW", "0A000"),
        (
            "CREATE PIPELINE p AS SELECT a FROM loose INTO SINK hook WITH (delivery = 'transactional')",
            "0A000",
        ),
        ("CREATE PIPELINE p AS SELECT a FROM loose INTO SINK hook WITH (speed = 1)", "22023"),
        ("CREATE PIPELINE p AS SELECT a FROM loose INTO SINK none", "42704"),
    ] {
        assert_eq!(refused(&mut session, sql).await, state, "{sql}");
    }
    assert!(objects(&fixture).await.pipelines().next().is_none());
    run(&mut session, "CREATE PIPELINE p AS SELECT * FROM loose INTO SINK f").await;
    let found = objects(&fixture).await;
    let def = found.pipeline("default", "p").unwrap();
    assert_eq!(
        (def.encoding, def.envelope, def.tier),
        (Encoding::Ndjson, Envelope::Append, Tier::AtLeastOnce)
    );
    assert_eq!(def.query, "SELECT \"a\" FROM loose", "columns that are added later are not sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn altering_and_dropping() {
    let fixture = fixture(&Arc::default());
    let mut session = with_pipeline(&fixture).await;
    run(&mut session, "ALTER PIPELINE out PAUSE; ALTER PIPELINE out SET (batch_rows = 7)").await;
    let found = objects(&fixture).await;
    let first = found.pipeline("default", "out").unwrap();
    assert_eq!((first.paused, first.batch_rows, first.generation), (true, 7, 1));
    run(&mut session, "ALTER PIPELINE out RESUME FROM POSITION '0000000000000002.ffffffff'").await;
    run(&mut session, "ALTER PIPELINE out RESET").await;
    let found = objects(&fixture).await;
    let second = found.pipeline("default", "out").unwrap();
    assert_eq!((second.paused, second.generation, &second.id), (false, 2, &first.id));
    assert!(second.resume_from.is_none() && second.created_after > first.created_after);
    assert_eq!(refused(&mut session, "ALTER PIPELINE out RESUME FROM POSITION 'yesterday'").await, "22023");
    assert_eq!(refused(&mut session, "DROP SINK hook").await, "2BP01");
    run(&mut session, "DROP SINK hook CASCADE").await;
    assert!(objects(&fixture).await.pipelines().next().is_none());
    assert!(!captured(&fixture).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_keeps_what_a_pipeline_reads() {
    let fixture = fixture(&Arc::default());
    let mut session = with_pipeline(&fixture).await;
    for sql in [
        "ALTER TABLE orders DROP COLUMN total",
        "ALTER TABLE orders RENAME COLUMN total TO sum",
        "ALTER TABLE orders RENAME TO sales",
        "ALTER TABLE orders DROP CONSTRAINT orders_pkey",
        "DROP TABLE orders",
    ] {
        let refusal = refusal(&mut session, sql).await;
        assert!(refusal.contains("2BP01") && refusal.contains("pipeline out"), "{sql}: {refusal}");
    }
    run(&mut session, "ALTER TABLE orders DROP COLUMN note; ALTER TABLE orders ADD COLUMN more text").await;
    run(&mut session, "DROP TABLE orders CASCADE").await;
    assert!(objects(&fixture).await.pipelines().next().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn truncate_of_a_captured_table_deletes_its_rows() {
    let fixture = fixture(&Arc::default());
    let mut session = with_pipeline(&fixture).await;
    run(&mut session, "INSERT INTO orders VALUES (1, 200, 'a'), (2, 300, 'b'); TRUNCATE orders").await;
    assert_eq!(run(&mut session, "SELECT count(*) FROM orders").await, [0]);
    let snapshot = fixture.tenant().await.store.snapshot();
    let rows: u32 =
        snapshot.find("default", "orders").unwrap().chunks.iter().map(|chunk| chunk.chunk.rows()).sum();
    assert_eq!(rows, 2, "they are deleted, not forgotten");
    run(&mut session, "TRUNCATE orders").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dropped_pipeline_leaves_goes() {
    let fixture = fixture(&Arc::default());
    let mut session = with_pipeline(&fixture).await;
    let tenant = fixture.tenant().await;
    let found = objects(&fixture).await;
    let id = Cell::text(&found.pipeline("default", "out").unwrap().id);
    let snapshot = tenant.store.snapshot();
    let letter = vec![Cell::Null, id, Cell::text("default"), Cell::Time(7), Cell::text("http.400")];
    let other = vec![Cell::Null, Cell::text("gone"), Cell::text("default"), Cell::Time(7)];
    let ops = SystemTable::DeadLetters.insert_ops(&tenant.store, &snapshot, &[letter, other]).unwrap();
    tenant.store.commit(&snapshot, ops).unwrap();
    assert_eq!(
        run(&mut session, "SELECT count(*) FROM sepal_dead_letters WHERE pipeline = 'out'").await,
        [1]
    );
    let mut writer = fixture.database.connect(fixture.principal(Scopes::WRITE), "", &[]).await.unwrap();
    assert_eq!(
        run(&mut writer, "SELECT count(*) FROM sepal_dead_letters").await,
        [0],
        "rows are for readers"
    );
    assert_eq!(refused(&mut writer, CREATE).await, "42501", "to send rows is to read them");
    assert_eq!(run(&mut session, "SELECT sepal_dlq_replay('out')").await, [1]);
    run(&mut session, "DROP PIPELINE out").await;
    assert_eq!(SystemTable::DeadLetters.rows(&tenant.store.snapshot()).unwrap().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_outlives_a_restart() {
    let fake: Arc<Fake> = Arc::default();
    let fixture = fixture(&fake);
    drop(with_pipeline(&fixture).await);
    let before = objects(&fixture).await.pipeline("default", "out").unwrap().clone();
    let again = fixture.crash();
    assert_eq!(objects(&again).await.pipeline("default", "out"), Some(&before));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_pipeline_goes_on_behind_what_is_not_there_yet() {
    let fixture = fixture(&Arc::default());
    let mut session = with_pipeline(&fixture).await;
    let head = fixture.tenant().await.store.snapshot().lsn().0;
    let far = head + 1_000_000;
    for position in [
        format!("{far:016x}.ffffffff"),
        "ffffffffffffffff.ffffffff".to_owned(),
        // Of another snapshot than the pipeline's.
        format!("s{far:016x}.0000000000000001"),
        "s0000000000000001.ffffffffffffffff".to_owned(),
    ] {
        let sql = format!("ALTER PIPELINE out RESUME FROM POSITION '{position}'");
        assert_eq!(refused(&mut session, &sql).await, "22023", "{position}");
    }
    let found = objects(&fixture).await;
    assert!(found.pipeline("default", "out").unwrap().resume_from.is_none());
    run(&mut session, &format!("ALTER PIPELINE out RESUME FROM POSITION '{head:016x}.ffffffff'")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_batches_of_a_tenants_pipelines_have_a_limit_together() {
    let fixture = fixture(&Arc::default());
    let mut session = with_sink(&fixture).await;
    let create = |at: u64, size: &str| {
        format!("CREATE PIPELINE p{at} AS SELECT id FROM orders INTO SINK hook WITH (batch_bytes = '{size}')")
    };
    let fit = limits::MAX_TENANT_BATCH_BYTES / u64::from(limits::MAX_BATCH_BYTES);
    for at in 0..fit {
        run(&mut session, &create(at, "64MiB")).await;
    }
    assert_eq!(refused(&mut session, &create(fit, "1KiB")).await, "54000");
    run(&mut session, "ALTER PIPELINE p0 SET (batch_bytes = '63MiB')").await;
    run(&mut session, &create(fit, "1MiB")).await;
    assert_eq!(refused(&mut session, "ALTER PIPELINE p0 SET (batch_bytes = '64MiB')").await, "54000");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_tenant_is_opened_for_its_pipelines() {
    let fixture = fixture(&Arc::default());
    drop(with_pipeline(&fixture).await);
    let tenant = fixture.tenant_id();
    // As a copy of control.db has it that is from before the pipeline.
    fixture.database.control().note_pipelines(tenant, false).unwrap();
    fixture.database.shutdown().await;
    let (directory, root) = fixture.close();
    let known = tokio::task::spawn_blocking(move || {
        let restoring = Restoring::open(directory.path(), &root, Arc::new(KeyFiles)).unwrap();
        let restored = restoring.open_tenant(tenant, Until::End).unwrap();
        restoring.finish(restored).unwrap();
        restoring.control().tenants_with_pipelines().unwrap()
    });
    assert_eq!(known.await.unwrap(), [tenant]);
}
