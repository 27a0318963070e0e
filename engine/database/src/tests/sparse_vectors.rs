//! Tables with sparse vectors: in memory, in segments, merged, after a crash, and what no transaction kept.

use arrow::{
    array::{ArrayRef, AsArray},
    datatypes::Int64Type,
};
use sepal_query::values::{decode_binary, decode_text, encode_binary};
use sepal_types::SqlType;

use crate::{
    Outcome, Session,
    fixtures::{Fixture, refused, run},
};

/// What every step below leaves as it is. Texts come again, as from a driver.
async fn all_there(session: &mut Session) {
    for _ in 0..3 {
        let each = "SELECT count(*) FROM t WHERE s = ('{1:1,7:' || id || '}/50')::sparsevec";
        assert_eq!(run(session, each).await, [2_000]);
        assert_eq!(run(session, "SELECT count(*) FROM t WHERE s IS NULL AND g = '{9:2}/9'").await, [1]);
        assert_eq!(run(session, "SELECT count(DISTINCT s) FROM t").await, [2_000]);
        let nearest = "SELECT id FROM t ORDER BY s <-> '{1:1,7:1234}/50' LIMIT 1";
        assert_eq!(run(session, nearest).await, [1_234]);
        let filtered = "SELECT id FROM t WHERE id % 7 = 0 ORDER BY s <#> '{7:1}/50' LIMIT 2";
        assert_eq!(run(session, filtered).await, [2_996, 2_989]);
        assert_eq!(
            run(session, "SELECT id FROM t WHERE s > '{1:1,7:2996}/50' ORDER BY s").await,
            [2_998, 2_999]
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sparse_vectors_survive_what_rows_survive() {
    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    run(&mut session, "CREATE TABLE t (id int8 PRIMARY KEY, s sparsevec(50), g sparsevec)").await;
    let rows = "INSERT INTO t SELECT x, ('{1:1,7:' || x || '}/50')::sparsevec, '{}/3'::sparsevec \
                FROM generate_series(1, 3000) AS s(x)";
    run(&mut session, rows).await;
    run(&mut session, "INSERT INTO t VALUES (5000, NULL, '{9:2}/9')").await;
    run(&mut session, "DELETE FROM t WHERE id % 3 = 0").await;
    all_there(&mut session).await;
    // From the log.
    let crashed = fixture.crash();
    all_there(&mut crashed.session().await).await;
    // From segments, some rows deleted.
    run(&mut session, "CREATE INDEX t_s ON t USING hnsw (s sparsevec_l2_ops)").await;
    run(&mut session, "CHECKPOINT").await;
    all_there(&mut session).await;
    run(&mut session, "BEGIN").await;
    run(&mut session, "UPDATE t SET s = '{}/50' WHERE id < 2000").await;
    assert_eq!(run(&mut session, "SELECT id FROM t WHERE s = '{}/50' ORDER BY id LIMIT 1").await, [1]);
    run(&mut session, "ROLLBACK").await;
    assert_eq!(refused(&mut session, "UPDATE t SET s = g").await, "22000");
    all_there(&mut session).await;
    run(&mut session, "ALTER TABLE t ADD COLUMN d sparsevec(2) DEFAULT '{2:0.5}/2'").await;
    assert_eq!(run(&mut session, "SELECT count(*) FROM t WHERE d = '{2:0.5}/2'").await, [2_001]);
    run(&mut session, "VACUUM FULL").await;
    all_there(&mut session).await;
    drop(session);
    let again = fixture.restart().await;
    let mut session = again.session().await;
    all_there(&mut session).await;
    assert_eq!(run(&mut session, "SELECT count(*) FROM t WHERE d = '{2:0.5}/2'").await, [2_001]);
}

/// The `bigint`s of the first column, with parameters as a driver sends them, in the types that it was told: in binary
/// but for arrays.
async fn ask(session: &mut Session, sql: &str, texts: &[&str]) -> Vec<i64> {
    let statement = session.parse_one(sql).unwrap().unwrap();
    let prepared = session.prepare(statement, &[]).await.unwrap();
    assert_eq!(prepared.parameters().len(), texts.len(), "{sql}");
    let values: Vec<ArrayRef> = prepared
        .parameters()
        .iter()
        .zip(texts)
        .map(|(ty, text)| {
            let read =
                decode_text(ty, Some(text.as_bytes())).unwrap_or_else(|error| panic!("{sql}: {error}"));
            if matches!(ty, SqlType::Array(_)) {
                return read;
            }
            let mut sent = bytes::BytesMut::new();
            encode_binary(read.as_ref(), 0, ty, &mut sent).unwrap();
            decode_binary(ty, Some(&sent)).unwrap()
        })
        .collect();
    let Outcome::Rows(mut rows) = session.execute(&prepared, values).await.unwrap() else { panic!("{sql}") };
    let mut numbers = Vec::new();
    while let Some(batch) = rows.next().await {
        numbers.extend(batch.unwrap().column(0).as_primitive::<Int64Type>().iter().flatten());
    }
    numbers
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_beside_sparse_vectors_are_such() {
    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    run(&mut session, "CREATE TABLE p (id int8 PRIMARY KEY, s sparsevec(3))").await;
    let one = "INSERT INTO p VALUES ($1, $2) RETURNING id";
    assert_eq!(ask(&mut session, one, &["1", "{1:1}/3"]).await, [1]);
    // A parameter beside literals, NULL and a cast.
    let several = "INSERT INTO p VALUES ($1, $2), (3, '{3:1}/3'), (4, NULL), (5, $3::sparsevec) RETURNING id";
    assert_eq!(ask(&mut session, several, &["2", "{2:1}/3", "{}/3"]).await, [2, 3, 4, 5]);
    for (sql, texts, expected) in [
        ("SELECT id FROM p ORDER BY s <-> $1, id LIMIT 2", &["{2:1}/3"][..], &[2, 5][..]),
        ("SELECT id FROM p ORDER BY s <=> $1::sparsevec(3), id LIMIT $2", &["{3:2}/3", "3"], &[3, 1, 2]),
        ("SELECT id FROM p ORDER BY s <#> $1::vector, id LIMIT 1", &["[0,5,0]"], &[2]),
        ("SELECT id FROM p WHERE s = $1", &["{3:1}/3"], &[3]),
        ("SELECT id FROM p WHERE l2_distance(s, $1) < 0.5", &["{1:1}/3"], &[1]),
        ("SELECT id FROM p WHERE s = ANY($1) ORDER BY id", &["{\"{1:1}/3\",\"{2:1}/3\"}"], &[1, 2]),
        ("UPDATE p SET s = $1 WHERE id = $2 RETURNING id", &["{1:9}/3", "4"], &[4]),
        ("SELECT id FROM p WHERE s = '{1:9}/3'", &[], &[4]),
    ] {
        // Once as it is prepared, once as it is known.
        for _ in 0..2 {
            assert_eq!(ask(&mut session, sql, texts).await, expected, "{sql}");
        }
    }
    let statement = session.parse_one("SELECT s <-> $1 FROM p").unwrap().unwrap();
    let prepared = session.prepare(statement, &[]).await.unwrap();
    assert_eq!(prepared.parameters(), [SqlType::SparseVec(None)]);
}
