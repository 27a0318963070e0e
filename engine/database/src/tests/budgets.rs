//! What tenants may hold, in memory and on disk, and that one at its limit is nobody else's trouble.

use std::{sync::Arc, time::Duration};

use sepal_control::{Scopes, TenantName};

use crate::{
    DatabaseOptions, Session,
    fixtures::{Fixture, refused, run, try_run},
};

const CANARY: &str = "canary-77d1-put-aside";

/// What a client that wants all rows in order gets.
const ORDERED: &str = "SELECT n, k, filler FROM big ORDER BY k, n";

fn small(options: &mut DatabaseOptions) {
    options.query_memory_bytes = 24 << 20;
    options.threads = 2;
}

async fn fill(session: &mut Session) {
    run(session, "CREATE TABLE big (n bigint, k bigint, filler text)").await;
    for part in 0..4 {
        let from = part * 50_000;
        let sql = format!(
            "INSERT INTO big SELECT n, (n * 7919) % 1009, '{CANARY}' || repeat('x', 200) || n::text \
             FROM generate_series({}, {}) AS s(n)",
            from,
            from + 49_999
        );
        run(session, &sql).await;
    }
}

/// The raw bytes behind this process' descriptors of files without a name.
fn unnamed_files() -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd").unwrap().flatten() {
        let named = std::fs::read_link(entry.path()).map(|target| target.to_string_lossy().into_owned());
        let spilled = named.is_ok_and(|name| name.contains("/spill/") && name.ends_with("(deleted)"));
        if spilled && let Ok(bytes) = std::fs::read(entry.path()) {
            found.push(bytes);
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sort_larger_than_memory_is_put_aside_sealed_and_comes_back_in_order() {
    let fixture = Fixture::new_with(small);
    let mut session = fixture.session().await;
    fill(&mut session).await;
    let tenant = fixture.tenant().await;
    // Rows are pulled one batch at a time, so the sort's files are there while we look.
    let statement = session.split(ORDERED).unwrap().remove(0);
    let prepared = session.prepare(statement, &[]).await.unwrap();
    let crate::Outcome::Rows(mut rows) = session.execute(&prepared, Vec::new()).await.unwrap() else {
        panic!("a query gives rows")
    };
    let mut count = rows.next().await.unwrap().unwrap().num_rows();
    assert!(tenant.engine.spill().used_bytes() > 1 << 20, "it did not fit");
    let raw = unnamed_files();
    assert!(raw.iter().any(|bytes| bytes.len() > 1 << 16), "the files are looked at");
    let canary = CANARY.as_bytes();
    assert!(!raw.iter().any(|bytes| bytes.windows(canary.len()).any(|window| window == canary)));
    while let Some(batch) = rows.next().await {
        count += batch.unwrap().num_rows();
    }
    assert_eq!(count, 200_000);
    drop(rows);
    let numbers = run(&mut session, ORDERED).await;
    let mut expected: Vec<i64> = (0..200_000).collect();
    expected.sort_by_key(|n| ((n * 7919) % 1009, *n));
    assert_eq!(numbers, expected);
    // An aggregate with as many groups as rows spills, too.
    let groups = "SELECT count(*) FROM (SELECT filler, count(*) AS c FROM big GROUP BY filler) s WHERE c = 1";
    assert_eq!(run(&mut session, groups).await, [200_000]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_room_for_files_a_sort_fails_and_other_tenants_go_on() {
    let fixture = Fixture::new_with(|options| {
        small(options);
        options.spill_bytes = 4 << 20;
    });
    let control = fixture.database.control();
    let neighbour = control.create_tenant(&TenantName::parse("neighbour").unwrap()).unwrap();
    let (_, token) = control.create_key(neighbour.id, None, Scopes::READ_WRITE, "test", None).unwrap();
    let principal = control.authenticate_token(token.expose()).unwrap();
    let mut other = fixture.database.connect(principal, "", &[]).await.unwrap();
    run(&mut other, "CREATE TABLE t (a int); INSERT INTO t SELECT * FROM generate_series(1, 1000)").await;

    let mut session = fixture.session().await;
    fill(&mut session).await;
    let noisy = tokio::spawn(async move {
        for _ in 0..3 {
            assert_eq!(refused(&mut session, ORDERED).await, "53200");
        }
        let error = try_run(&mut session, ORDERED).await.unwrap_err();
        assert!(error.hint().unwrap().contains("tenant_spill_mib"), "{error:?}");
        session
    });
    for round in 0..20 {
        assert_eq!(run(&mut other, "SELECT count(*) FROM t").await, [1000], "round {round}");
        assert_eq!(run(&mut other, "SELECT a FROM t ORDER BY a DESC LIMIT 1").await, [1000]);
    }
    let mut session = noisy.await.unwrap();
    assert_eq!(run(&mut session, "SELECT count(*) FROM big").await, [200_000], "it can go on itself");
    until_nothing_is_held(&fixture).await;
}

/// What a query's tasks hold goes with them, shortly after its error.
async fn until_nothing_is_held(fixture: &Fixture) {
    let tenant = fixture.tenant().await;
    while (tenant.engine.memory().used(), tenant.engine.spill().used_bytes()) != (0, 0) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A hash join's build side is held whole.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_put_aside_fails_cleanly() {
    let fixture = Fixture::new_with(small);
    let mut session = fixture.session().await;
    fill(&mut session).await;
    let join = "SELECT count(*) FROM big a JOIN big b ON a.filler = b.filler AND a.n = b.n";
    let error = try_run(&mut session, join).await.unwrap_err();
    assert_eq!(error.state().code(), "53200", "{error:?}");
    until_nothing_is_held(&fixture).await;
    let windowed =
        "SELECT count(*) FROM (SELECT row_number() OVER (ORDER BY k, n) AS r FROM big) s WHERE r > 0";
    assert_eq!(run(&mut session, windowed).await, [200_000]);
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_share_what_is_the_same_for_all() {
    let fixture = Fixture::new();
    let control = fixture.database.control();
    let mut first = None;
    for number in 0..200 {
        let made = control.create_tenant(&TenantName::parse(&format!("t{number}")).unwrap()).unwrap();
        let tenant = fixture.database.tenant(made.id).await.unwrap();
        let first = first.get_or_insert_with(|| Arc::clone(&tenant));
        assert!(tenant.engine.shares_planning(&first.engine), "tenant {number} has functions of its own");
    }
    assert_eq!(fixture.database.metrics().open_tenants, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_is_closed_when_nobody_needs_it_and_opened_again() {
    let fixture = Fixture::new_with(|options| options.idle_tenant = Duration::ZERO);
    let mut session = fixture.session().await;
    run(&mut session, "CREATE TABLE t (a int PRIMARY KEY); INSERT INTO t VALUES (7)").await;
    let tenant = fixture.tenant().await;
    fixture.database.close_unneeded().await;
    assert!(!tenant.is_closed(), "a session sits");
    drop(session);
    fixture.database.close_unneeded().await;
    assert!(tenant.is_closed());
    assert_eq!(fixture.database.metrics().open_tenants, 0);
    let mut session = fixture.session().await;
    run(&mut session, "INSERT INTO t VALUES (8)").await;
    assert_eq!(run(&mut session, "SELECT a FROM t ORDER BY a").await, [7, 8]);
    drop(session);
    // Whoever comes while it is closed waits and opens it again: nobody is told to come back.
    let mut arriving = Vec::new();
    for number in 100..140 {
        let (database, principal) = (Arc::clone(&fixture.database), fixture.principal(Scopes::READ_WRITE));
        arriving.push(tokio::spawn(async move {
            let mut session = database.connect(principal, "", &[]).await.unwrap();
            run(&mut session, &format!("INSERT INTO t VALUES ({number})")).await;
        }));
        fixture.database.close_unneeded().await;
    }
    for session in arriving {
        session.await.unwrap();
    }
    fixture.database.close_unneeded().await;
    let crashed = fixture.crash();
    assert_eq!(run(&mut crashed.session().await, "SELECT count(*) FROM t").await, [42]);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_open_tenants_than_may_be_are_closed_at_once() {
    let fixture = Fixture::new_with(|options| options.max_open_tenants = 4);
    let control = fixture.database.control();
    for number in 0..12 {
        let made = control.create_tenant(&TenantName::parse(&format!("t{number}")).unwrap()).unwrap();
        fixture.database.tenant(made.id).await.unwrap();
    }
    fixture.database.close_unneeded().await;
    while fixture.database.metrics().open_tenants > 4 {
        tokio::time::sleep(Duration::from_millis(1)).await;
        fixture.database.close_unneeded().await;
    }
    let mut session = fixture.session().await;
    assert_eq!(run(&mut session, "SELECT 1").await, [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_over_its_quota_takes_no_rows_and_can_make_room() {
    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    run(&mut session, "CREATE TABLE t (a int, b bigint); INSERT INTO t VALUES (1, 1)").await;
    fixture.database.set_tenant_quota("acme", Some(1 << 20)).await.unwrap();
    run(&mut session, "INSERT INTO t VALUES (2, 2)").await;
    let large = "INSERT INTO t SELECT n, ((n::bigint * 2862933555) % 1000000007) * 1000003 \
                 FROM generate_series(1, 300000) AS s(n)";
    let error = try_run(&mut session, large).await.unwrap_err();
    assert_eq!(error.state().code(), "53100");
    assert!(error.message().starts_with("disk quota of tenant exceeded: used 1 of 1 MiB"), "{error}");
    assert_eq!(run(&mut session, "SELECT count(*) FROM t").await, [2], "nothing of it is kept");
    fixture.database.set_tenant_quota("acme", Some(0)).await.unwrap();
    run(&mut session, large).await;
    fixture.database.set_tenant_quota("acme", Some(1 << 20)).await.unwrap();
    assert_eq!(refused(&mut session, "INSERT INTO t VALUES (3, 3)").await, "53100");
    assert_eq!(refused(&mut session, "UPDATE t SET a = 3 WHERE a = 1").await, "53100");
    // It holds after a restart.
    drop(session);
    let fixture = fixture.restart().await;
    let mut session = fixture.session().await;
    assert_eq!(refused(&mut session, "INSERT INTO t VALUES (3, 3)").await, "53100");
    run(&mut session, "DELETE FROM t WHERE a > 2; TRUNCATE t").await;
    // The past takes room until it is over, or is let go.
    assert_eq!(refused(&mut session, "INSERT INTO t VALUES (3, 3)").await, "53100");
    run(&mut session, "VACUUM FULL").await;
    run(&mut session, "INSERT INTO t VALUES (3, 3)").await;
    assert_eq!(run(&mut session, "SELECT a FROM t").await, [3]);
    assert!(fixture.database.set_tenant_quota("nobody", None).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_wait_for_a_flush_instead_of_failing() {
    let fixture = Fixture::new_with(|options| options.unflushed_bytes = 1 << 20);
    let mut session = fixture.session().await;
    run(&mut session, "CREATE TABLE t (a int, b text)").await;
    for part in 0..8 {
        let sql = format!(
            "INSERT INTO t SELECT n, repeat('x', 100) FROM generate_series({}, {}) AS s(n)",
            part * 10_000,
            part * 10_000 + 9_999
        );
        run(&mut session, &sql).await;
        let tenant = fixture.tenant().await;
        assert!(tenant.store.unflushed_bytes() < 3 << 20, "one commit above the limit at most");
    }
    assert_eq!(run(&mut session, "SELECT count(*) FROM t").await, [80_000]);
    assert!(fixture.tenant().await.store.stats().segments > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_sees_what_it_holds() {
    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    run(&mut session, "CREATE TABLE t (a int); INSERT INTO t SELECT * FROM generate_series(1, 10000)").await;
    let used = "SELECT used_bytes FROM sepal_usage WHERE resource = 'disk'";
    assert!(run(&mut session, used).await[0] > 10_000);
    let limit = "SELECT limit_bytes FROM sepal_usage WHERE resource = 'query memory'";
    assert_eq!(run(&mut session, limit).await, [1 << 30]);
    assert_eq!(run(&mut session, "SELECT count(*) FROM sepal_usage").await, [7]);
}

/// What only a name keeps takes room, what two tables share takes it once, and all of it is given back.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_past_and_clones_keep_counts_once() {
    const ROWS: i64 = 1 << 20;
    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    let used = "SELECT used_bytes FROM sepal_usage WHERE resource = 'disk'";
    // What does not compress.
    let fill = "CREATE TABLE t (a int, b bigint); \
                INSERT INTO t SELECT n, ((n::bigint * 2862933555) % 1000000007) * 1000003 \
                FROM generate_series(1, 300000) AS s(n)";
    run(&mut session, fill).await;
    run(&mut session, "CHECKPOINT").await;
    run(&mut session, "VACUUM FULL").await;
    let alone = run(&mut session, used).await[0];
    assert!(alone > ROWS, "{alone}");
    run(&mut session, "CREATE TABLE copy CLONE t").await;
    run(&mut session, "CREATE SNAPSHOT before").await;
    let shared = run(&mut session, used).await[0];
    assert!(shared < alone + ROWS / 2, "a table, its clone and a name share the rows: {shared}");
    run(&mut session, "DROP TABLE t").await;
    run(&mut session, "DROP TABLE copy").await;
    run(&mut session, "VACUUM FULL").await;
    let named = run(&mut session, used).await[0];
    assert!(named > ROWS, "the name keeps the rows: {named} of {alone}");
    fixture.database.set_tenant_quota("acme", Some(1 << 20)).await.unwrap();
    run(&mut session, "CREATE TABLE u (a int)").await;
    assert_eq!(refused(&mut session, "INSERT INTO u VALUES (1)").await, "53100");
    run(&mut session, "DROP SNAPSHOT before").await;
    run(&mut session, "VACUUM FULL").await;
    let left = run(&mut session, used).await[0];
    assert!(left < ROWS / 2, "{left}");
    run(&mut session, "INSERT INTO u VALUES (1)").await;
}
