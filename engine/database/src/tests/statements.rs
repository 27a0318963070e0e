//! Texts that come again: neither parsed nor planned, and answered as if they were.

use arrow::{array::ArrayRef, util::display::array_value_to_string};
use sepal_control::{EnvironmentName, Principal, Scopes};
use sepal_query::values::decode_text;
use sepal_types::Error;

use crate::{
    Outcome, Session, TransactionStatus,
    fixtures::{Fixture, refused, run},
};

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, v int, e vector(2));
    INSERT INTO t VALUES (1, 10, '[-0.5,0.1]'), (2, 20, '[1,0.2]'), (3, 30, '[0,2]')";

/// Sends one statement as the server does: what is known is not parsed. Whether it was known, and its rows.
async fn send(session: &mut Session, sql: &str) -> Result<(bool, Vec<String>), Error> {
    let (known, prepared) = match session.recall_now(sql).await? {
        Some(prepared) => (true, prepared),
        None => {
            let statement = session.parse_one(sql)?.unwrap();
            (false, session.prepare_now(statement).await?)
        }
    };
    let Outcome::Rows(mut rows) = session.execute(&prepared, Vec::new()).await? else {
        return Ok((known, Vec::new()));
    };
    let names = rows.columns().iter().map(|column| format!("{} {}", column.name, column.ty.display_name()));
    let mut lines = vec![names.collect::<Vec<_>>().join(", ")];
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        for row in 0..batch.num_rows() {
            let value = |column: &ArrayRef| array_value_to_string(column, row).unwrap();
            lines.push(batch.columns().iter().map(value).collect::<Vec<_>>().join(", "));
        }
    }
    Ok((known, lines))
}

/// What a statement comes to: whether its text was known, and its rows, or its error in words.
async fn answer(session: &mut Session, sql: &str) -> Result<(bool, Vec<String>), String> {
    send(session, sql).await.map_err(|error| {
        if session.transaction_status() != TransactionStatus::Idle {
            session.fail_transaction();
        }
        format!("{} {} {:?}", error.state().code(), error.message(), error.position())
    })
}

/// Sessions that have seen nothing yet.
struct Strangers<'a>(&'a Fixture, Principal);

impl<'a> Strangers<'a> {
    fn new(fixture: &'a Fixture) -> Self {
        Self(fixture, fixture.principal(Scopes::READ_WRITE))
    }

    /// Sends a text, and compares what it comes to with what it does where it has never been seen. Whether it was
    /// known; `None` if it fails.
    async fn agree(&self, session: &mut Session, sql: &str, after: &str) -> Option<bool> {
        let mut stranger = self.0.database.connect(self.1.clone(), "", &[]).await.unwrap();
        let (here, there) = (answer(session, sql).await, answer(&mut stranger, sql).await);
        let known = here.as_ref().ok().map(|(known, _)| *known);
        assert_eq!(here.map(|(_, rows)| rows), there.map(|(_, rows)| rows), "{sql} after {after}");
        known
    }

    /// The same until it would be known.
    async fn agree_always(&self, session: &mut Session, sql: &str, after: &str) {
        for _ in 0..2 {
            self.agree(session, sql, after).await;
        }
        assert_ne!(self.agree(session, sql, after).await, Some(false), "{sql} after {after} is parsed again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_is_kept_when_it_comes_again() {
    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    run(&mut session, TABLE).await;
    for sql in [
        "SELECT v FROM t WHERE id = 2",
        "SELECT sum(v) FROM t",
        "UPDATE t SET v = v WHERE id = 1 RETURNING v",
        "SELECT id FROM t WHERE v > 10 ORDER BY v FOR UPDATE",
        "SELECT 1 + 1",
    ] {
        let mut known = Vec::new();
        for _ in 0..3 {
            known.push(send(&mut session, sql).await.unwrap().0);
        }
        assert_eq!(known, [false, false, true], "{sql}");
    }
    // Catalogs, the session, the past, and several statements at once.
    run(&mut session, "CREATE SNAPSHOT s").await;
    for sql in [
        "SELECT count(*) FROM pg_class",
        "SELECT current_setting('hnsw.ef_search')",
        "SELECT count(*) FROM t AS OF SNAPSHOT 's'",
        "SHOW hnsw.ef_search",
        "EXPLAIN SELECT v FROM t",
    ] {
        for _ in 0..3 {
            assert!(!send(&mut session, sql).await.unwrap().0, "{sql}");
        }
    }
    let both = "SELECT 1; SELECT 2";
    for _ in 0..3 {
        assert!(session.recall_now(both).await.unwrap().is_none());
        assert_eq!(run(&mut session, both).await, [2]);
    }
    run(&mut session, "DISCARD ALL").await;
    assert!(!send(&mut session, "SELECT sum(v) FROM t").await.unwrap().0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_altered_is_seen() {
    let fixture = Fixture::new();
    let (mut session, mut other) = (fixture.session().await, fixture.session().await);
    run(&mut session, TABLE).await;
    let texts = [
        "SELECT * FROM t ORDER BY id",
        "SELECT v FROM t WHERE id = 2",
        "SELECT id, v FROM t ORDER BY e <-> '[1,1]' LIMIT 2",
        "SELECT id FROM t WHERE v > 10 ORDER BY e <-> '[1,1]', id LIMIT 2",
        "SELECT max(v) FROM t",
        "UPDATE t SET v = v WHERE id = 1 RETURNING *",
    ];
    let strangers = Strangers::new(&fixture);
    for sql in texts {
        strangers.agree_always(&mut session, sql, "nothing").await;
    }
    for change in [
        "ALTER TABLE t ADD COLUMN w text DEFAULT 'new'",
        "ALTER TABLE t RENAME COLUMN v TO x",
        "ALTER TABLE t RENAME COLUMN x TO v",
        "ALTER TABLE t DROP COLUMN v",
        "ALTER TABLE t ADD COLUMN v bigint DEFAULT 7",
        "CREATE INDEX i ON t USING hnsw (e vector_l2_ops)",
        "DROP INDEX i",
        "ALTER TABLE t DROP COLUMN w",
        "ALTER TABLE t RENAME TO u",
        "CREATE TABLE t (id int PRIMARY KEY, v text, e vector(3)); INSERT INTO t VALUES (2, '9', '[1,2,3]')",
        "DROP TABLE t",
        "ALTER TABLE u RENAME TO t",
        "TRUNCATE t",
        "DROP TABLE t; CREATE TABLE t (e vector(2), v int, id int PRIMARY KEY)",
    ] {
        run(&mut other, change).await;
        for sql in texts {
            strangers.agree_always(&mut session, sql, change).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transactions_own_tables_are_its_own() {
    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    run(&mut session, TABLE).await;
    let sql = "SELECT * FROM t WHERE id = 1";
    for _ in 0..3 {
        send(&mut session, sql).await.unwrap();
    }
    let (known, before) = send(&mut session, sql).await.unwrap();
    assert!(known);
    for change in ["ALTER TABLE t ADD COLUMN w int", "ALTER TABLE t DROP COLUMN v"] {
        run(&mut session, "BEGIN; SAVEPOINT s").await;
        run(&mut session, change).await;
        for _ in 0..3 {
            let (known, rows) = send(&mut session, sql).await.unwrap();
            assert!(!known && rows != before, "{change}");
        }
        run(&mut session, "ROLLBACK TO s").await;
        assert_eq!(send(&mut session, sql).await.unwrap().1, before, "{change}");
        run(&mut session, "ROLLBACK").await;
        assert_eq!(send(&mut session, sql).await.unwrap().1, before, "{change}");
    }
    // A transaction that has failed says so, whatever it knows.
    run(&mut session, "BEGIN").await;
    assert_eq!(refused(&mut session, "SELECT 1 / 0").await, "22012");
    assert_eq!(send(&mut session, sql).await.unwrap_err().state().code(), "25P02");
    for _ in 0..3 {
        send(&mut session, "ROLLBACK").await.unwrap();
        send(&mut session, "BEGIN").await.unwrap();
    }
    assert_eq!(session.transaction_status(), TransactionStatus::Active);
    send(&mut session, "COMMIT").await.unwrap();
    assert_eq!(send(&mut session, sql).await.unwrap().1, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_of_two_transactions_is_not_one() {
    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    run(&mut session, "BEGIN; CREATE TABLE x (a int); INSERT INTO x VALUES (1)").await;
    let statement = session.parse_one("SELECT a FROM x").unwrap().unwrap();
    let prepared = session.prepare(statement, &[]).await.unwrap();
    assert!(session.execute(&prepared, Vec::new()).await.is_ok());
    run(&mut session, "ROLLBACK").await;
    run(&mut session, "BEGIN; CREATE TABLE y (a int); INSERT INTO y VALUES (1)").await;
    let error = session.execute(&prepared, Vec::new()).await.err().unwrap();
    assert_eq!(error.state().code(), "42P01");
    session.fail_transaction();
    run(&mut session, "ROLLBACK").await;
}

/// A transaction that stays with its snapshot plans over what that had. Its plans are not for later.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_snapshot_had_is_planned_for_it_alone() {
    let fixture = Fixture::new();
    let (mut session, mut other) = (fixture.session().await, fixture.session().await);
    run(&mut session, TABLE).await;
    let sql = "SELECT * FROM t WHERE id = 1";
    let (_, old) = send(&mut session, sql).await.unwrap();
    run(&mut session, "CREATE TABLE seen (a int)").await;
    run(&mut session, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT a FROM seen").await;
    run(&mut other, "ALTER TABLE t ADD COLUMN w int DEFAULT 5").await;
    for _ in 0..4 {
        assert_eq!(send(&mut session, sql).await.unwrap().1, old, "as the snapshot has it");
    }
    run(&mut session, "COMMIT").await;
    for _ in 0..3 {
        let (_, new) = send(&mut session, sql).await.unwrap();
        assert!(new[0].contains("w integer"), "{new:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_count_when_a_text_runs() {
    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    run(&mut session, TABLE).await;
    run(&mut session, "CREATE SNAPSHOT s").await;
    run(&mut session, "INSERT INTO t VALUES (4, 40, '[5,5]')").await;
    let count = "SELECT count(*) AS n FROM t";
    let nearest = "SELECT id FROM t ORDER BY e <-> '[5,5]' LIMIT 1";
    for (change, rows, first) in [
        ("SELECT 1", "4", "4"),
        ("SET sepal.as_of = 'snapshot:s'", "3", "3"),
        ("RESET sepal.as_of", "4", "4"),
        ("SET enable_indexscan = off", "4", "4"),
        ("SET sepal.target_recall = 1", "4", "4"),
        ("SET search_path = public", "4", "4"),
    ] {
        run(&mut session, change).await;
        for _ in 0..3 {
            assert_eq!(send(&mut session, count).await.unwrap().1[1], rows, "{change}");
            assert_eq!(send(&mut session, nearest).await.unwrap().1[1], first, "{change}");
        }
    }
    run(&mut session, "SET default_transaction_read_only = on").await;
    for _ in 0..3 {
        let error = send(&mut session, "DELETE FROM t WHERE id = 4").await.unwrap_err();
        assert_eq!(error.state().code(), "25006");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_and_an_environment_have_their_own() {
    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    run(&mut session, TABLE).await;
    let staging = EnvironmentName::parse("staging").unwrap();
    fixture.database.control().create_environment(fixture.tenant_id(), &staging).unwrap();
    let principal = fixture.principal(Scopes::READ_WRITE);
    let mut elsewhere = fixture.database.connect(principal, "staging", &[]).await.unwrap();
    run(&mut elsewhere, "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)").await;
    let mut reader = fixture.database.connect(fixture.principal(Scopes::READ), "", &[]).await.unwrap();
    for _ in 0..3 {
        let sql = "SELECT * FROM t WHERE id = 1";
        assert_eq!(send(&mut session, sql).await.unwrap().1[0], "id integer, v integer, e vector(2)");
        assert_eq!(send(&mut elsewhere, sql).await.unwrap().1[0], "id integer");
        let sql = "UPDATE t SET id = id WHERE id = 1";
        send(&mut session, sql).await.unwrap();
        assert_eq!(send(&mut reader, sql).await.unwrap_err().state().code(), "42501");
    }
}

/// The texts are other ones each time; the plan is one.
#[tokio::test(flavor = "multi_thread")]
async fn a_vector_in_the_text_is_like_a_parameter() {
    let fixture = Fixture::new();
    let (mut session, mut other) = (fixture.session().await, fixture.session().await);
    run(&mut session, TABLE).await;
    run(&mut session, "INSERT INTO t VALUES (4, 40, NULL)").await;
    let strangers = Strangers::new(&fixture);
    let vectors = ["[0,1.5]", "[ 3, 1e-3 ]", "[-1,0]", "[0,0.5]", "[7,7]"];
    for shape in [
        "SELECT id FROM t ORDER BY e <-> '{}' LIMIT 2",
        "SELECT \"id\", e <=> '{}' AS d FROM \"t\" ORDER BY e <=> '{}' LIMIT 4",
        "SELECT id, e <#> '{}'::vector AS d FROM t ORDER BY d LIMIT 3;",
    ] {
        for (time, vector) in vectors.iter().enumerate() {
            let sql = shape.replace("{}", vector);
            let known = strangers.agree(&mut session, &sql, "nothing").await;
            assert_eq!(known, Some(time > 0), "{sql}");
        }
    }
    let near = "SELECT id FROM t WHERE e <-> '{}' < 3 AND v <> 20 ORDER BY e <-> '{}' LIMIT 3";
    for vector in vectors {
        strangers.agree(&mut session, &near.replace("{}", vector), "nothing").await;
    }
    // What is wrong with a vector is said as if the text had never been seen.
    let shape = "SELECT id FROM t ORDER BY e <-> '{}' LIMIT 2";
    for wrong in ["[1,2,3]", "[1]", "[1,x]", "[]", "[1,2", "[1,NaN]"] {
        let sql = shape.replace("{}", wrong);
        assert_ne!(strangers.agree(&mut session, &sql, "nothing").await, Some(true), "{sql}");
    }
    // What is not such a search is planned each time.
    for shape in [
        "SELECT id, e <-> '{}' FROM t ORDER BY id",
        "SELECT id FROM nothing ORDER BY e <-> '{}' LIMIT 1",
        "SELECT id FROM t ORDER BY e <-> '{}' LIMIT 1; SELECT 1",
    ] {
        for vector in vectors {
            let sql = shape.replace("{}", vector);
            assert!(session.recall_now(&sql).await.unwrap().is_none(), "{sql}");
        }
    }
    for change in [
        "CREATE TABLE nothing (id int, e vector(2)); INSERT INTO nothing VALUES (9, '[1,1]')",
        "ALTER TABLE t RENAME COLUMN id TO number",
        "ALTER TABLE t RENAME COLUMN number TO id",
        "DROP TABLE t; CREATE TABLE t (id text, v int, e vector(3)); INSERT INTO t VALUES ('a', 1, '[1,2,3]')",
    ] {
        run(&mut other, change).await;
        for shape in [shape, "SELECT id FROM nothing ORDER BY e <-> '{}' LIMIT 1"] {
            for vector in vectors {
                strangers.agree(&mut session, &shape.replace("{}", vector), change).await;
            }
        }
    }
    let nothing = "SELECT id FROM nothing ORDER BY e <-> '[8,8]' LIMIT 1";
    assert!(send(&mut session, nothing).await.unwrap().0, "the table came, and the text is known");
}

/// A literal is what stands beside it asks for; the parameter in its place has one type everywhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_halfvec_in_the_text_is_like_a_parameter_where_a_vector_is_none() {
    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    let table = "CREATE TABLE h (id int PRIMARY KEY, e halfvec(2), v vector(2));
        INSERT INTO h VALUES
            (1, '[-0.5,0.1]', '[-0.5,0.1]'), (2, '[1,0.2]', '[1,0.2]'), (3, '[0,2]', '[0,2]')";
    run(&mut session, table).await;
    let strangers = Strangers::new(&fixture);
    let vectors = ["[0,1.5]", "[ 3, 1e-3 ]", "[-0.5,0.1]", "[0,0.5]", "[7,7.7]"];
    for shape in [
        "SELECT id FROM h ORDER BY e <-> '{}' LIMIT 2",
        "SELECT id, e <=> '{}' AS d FROM h WHERE id > 1 ORDER BY e <=> '{}' LIMIT 4",
        "SELECT id, e <#> '{}'::halfvec AS d FROM h ORDER BY d LIMIT 3",
        "SELECT id, e <-> '{}'::vector AS d FROM h ORDER BY d LIMIT 3",
        "SELECT id FROM h WHERE h.e <-> ('{}') < 3 AND id > 0 ORDER BY e <-> '{}' LIMIT 3",
        "SELECT id FROM h WHERE e <-> '{}' < 3 ORDER BY v <-> '{}' LIMIT 3",
    ] {
        for (time, vector) in vectors.iter().enumerate() {
            let sql = shape.replace("{}", vector);
            let known = strangers.agree(&mut session, &sql, "nothing").await;
            assert_eq!(known, Some(time > 0), "{sql}");
        }
    }
    // Rounded to a halfvec these would be other distances.
    for shape in [
        "SELECT id FROM h WHERE v <-> '{}' <= 0 ORDER BY e <-> '{}' LIMIT 3",
        "SELECT id FROM h WHERE e::vector <-> '{}' < 0.00001 ORDER BY e <-> '{}' LIMIT 3",
    ] {
        for vector in vectors {
            let sql = shape.replace("{}", vector);
            assert_eq!(strangers.agree(&mut session, &sql, "nothing").await, Some(false), "{sql}");
        }
    }
    for wrong in ["[1,2,3]", "[1]", "[1,x]", "[70000,1]", "[1e39,1]", "[]"] {
        for cast in ["", "::vector", "::halfvec"] {
            let sql = format!("SELECT id FROM h ORDER BY e <-> '{wrong}'{cast} LIMIT 2");
            assert_ne!(strangers.agree(&mut session, &sql, "nothing").await, Some(true), "{sql}");
        }
    }
}

/// As a driver binds: described, and run with no parameter.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_prepared_again_tells_the_same_and_keeps_its_word() {
    let fixture = Fixture::new();
    let (mut session, mut other) = (fixture.session().await, fixture.session().await);
    run(&mut session, TABLE).await;
    let sql = "SELECT * FROM t WHERE id = $1";
    for _ in 0..2 {
        assert!(session.recall(sql, &[]).await.unwrap().is_none());
        let statement = session.parse_one(sql).unwrap().unwrap();
        session.prepare(statement, &[]).await.unwrap();
    }
    let known = session.recall(sql, &[]).await.unwrap().unwrap();
    assert_eq!((known.parameters().len(), known.columns().unwrap().len()), (1, 3));
    assert!(session.recall(sql, &[20]).await.unwrap().is_none(), "of other parameters");
    assert!(session.recall_now(sql).await.unwrap().is_none(), "of a client that is told of its columns");
    let search = |vector: &str| format!("SELECT id FROM t ORDER BY e <-> '{vector}' LIMIT 1");
    assert!(session.recall(&search("[1,0]"), &[]).await.unwrap().is_none());
    let inlined = session.recall(&search("[0,2]"), &[]).await.unwrap().unwrap();
    assert_eq!((inlined.parameters().len(), inlined.columns().unwrap().len()), (0, 1));

    run(&mut other, "ALTER TABLE t ADD COLUMN w int").await;
    assert!(session.recall(sql, &[]).await.unwrap().is_none(), "it has other columns now");
    let parameter = decode_text(&known.parameters()[0], Some("1".as_bytes())).unwrap();
    let error = session.execute(&known, vec![parameter]).await.err().unwrap();
    assert_eq!(error.message(), "cached plan must not change result type");
    // Found before the change, run after it.
    let Outcome::Rows(mut rows) = session.execute(&inlined, Vec::new()).await.unwrap() else { panic!() };
    let batch = rows.next().await.unwrap().unwrap();
    assert_eq!(array_value_to_string(batch.column(0), 0).unwrap(), "3");
}
