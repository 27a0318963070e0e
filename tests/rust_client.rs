//! Does tokio-postgres work? The driver that Rust applications use, in its binary formats.
//!
//! What `clients/` asks of the other drivers, plus what only Rust types show: result types, names, errors'
//! fields.

use std::{
    error::Error,
    time::{Duration, SystemTime},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::{SinkExt, StreamExt, TryStreamExt, pin_mut};
use tokio_postgres::{
    Client,
    types::{FromSql, IsNull, Kind, ToSql, Type, to_sql_checked},
};

use crate::server::Server;

/// A vector in pgvector's binary form: u16 dimensions, u16 zero, big-endian floats.
#[derive(Clone, Debug, PartialEq)]
struct Vector(Vec<f32>);

impl ToSql for Vector {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.put_u16(u16::try_from(self.0.len())?);
        out.put_u16(0);
        self.0.iter().for_each(|value| out.put_f32(*value));
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        ty.name() == "vector"
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Vector {
    fn from_sql(_: &Type, mut raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        let dimensions = usize::from(raw.get_u16());
        assert_eq!(raw.get_u16(), 0);
        assert_eq!(raw.len(), 4 * dimensions);
        Ok(Vector((0..dimensions).map(|_| raw.get_f32()).collect()))
    }

    fn accepts(ty: &Type) -> bool {
        ty.name() == "vector"
    }
}

/// Any type's raw binary form.
struct Raw(Vec<u8>);

impl<'a> FromSql<'a> for Raw {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Raw(raw.to_vec()))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

async fn connect() -> Client {
    Server::shared().connect().await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_both_ways_in_binary() {
    let client = connect().await;
    client
        .batch_execute(
            "CREATE TABLE rust_types (i2 int2, i4 int4, i8 int8, f4 float4, f8 float8, t text, v varchar(9), b bool,
                                      y bytea, ts timestamp, tz timestamptz, vec vector(3), any_vec vector)",
        )
        .await
        .expect("create");
    let moment = SystemTime::UNIX_EPOCH + Duration::from_micros(1_700_000_000_123_456);
    let vector = Vector(vec![1.5, -2.0, 1e-7]);
    let insert = "INSERT INTO rust_types VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)";
    client
        .execute(
            insert,
            &[
                &-7_i16,
                &i32::MIN,
                &i64::MAX,
                &1.5_f32,
                &f64::MIN_POSITIVE,
                &"täxt",
                &"varchar",
                &true,
                &&b"\0\xff"[..],
                &moment,
                &moment,
                &vector,
                &Vector(vec![0.5; 2000]),
            ],
        )
        .await
        .expect("insert");
    let row = client.query_one("SELECT * FROM rust_types", &[]).await.expect("select");
    assert_eq!(row.get::<_, i16>("i2"), -7);
    assert_eq!(row.get::<_, i32>("i4"), i32::MIN);
    assert_eq!(row.get::<_, i64>("i8"), i64::MAX);
    assert!((row.get::<_, f32>("f4") - 1.5).abs() < f32::EPSILON);
    assert!((row.get::<_, f64>("f8") - f64::MIN_POSITIVE).abs() < f64::MIN_POSITIVE);
    assert_eq!(row.get::<_, &str>("t"), "täxt");
    assert_eq!(row.get::<_, &str>("v"), "varchar");
    assert!(row.get::<_, bool>("b"));
    assert_eq!(row.get::<_, &[u8]>("y"), b"\0\xff");
    assert_eq!(row.get::<_, SystemTime>("ts"), moment);
    assert_eq!(row.get::<_, SystemTime>("tz"), moment);
    assert_eq!(row.get::<_, Vector>("vec"), vector);
    assert_eq!(row.get::<_, Vector>("any_vec").0.len(), 2000);

    let nothing: Option<i32> = None;
    client
        .execute(
            "INSERT INTO rust_types (i4, t, vec) VALUES ($1, $2, $3)",
            &[&nothing, &None::<String>, &None::<Vector>],
        )
        .await
        .expect("NULLs");
    let row =
        client.query_one("SELECT i4, t, vec, tz FROM rust_types WHERE i2 IS NULL", &[]).await.expect("NULLs");
    assert_eq!(row.get::<_, Option<i32>>(0), None);
    assert_eq!(row.get::<_, Option<String>>(1), None);
    assert_eq!(row.get::<_, Option<Vector>>(2), None);
    assert_eq!(row.get::<_, Option<SystemTime>>(3), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn binary_forms_of_types_without_a_rust_type() {
    let client = connect().await;
    for (sql, bytes) in [
        (
            "SELECT 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid",
            &b"\xa0\xee\xbc\x99\x9c\x0b\x4e\xf8\xbb\x6d\x6b\xb9\xbd\x38\x0a\x11"[..],
        ),
        ("SELECT '2000-01-02'::date", b"\0\0\0\x01"),
        ("SELECT '1999-12-31'::date", b"\xff\xff\xff\xff"),
        ("SELECT '2000-01-01 00:00:01'::timestamp", b"\0\0\0\0\0\x0f\x42\x40"),
        ("SELECT '{\"a\": 1}'::jsonb", b"\x01{\"a\": 1}"),
        // numeric: 4 digits to the base 10,000, weight, sign, scale
        ("SELECT 12345.67::numeric", b"\0\x03\0\x01\0\0\0\x02\0\x01\x09\x29\x1a\x2c"),
        ("SELECT (-0.5)::numeric", b"\0\x01\xff\xff\x40\0\0\x01\x13\x88"),
        ("SELECT 0::numeric", b"\0\0\0\0\0\0\0\0"),
        ("SELECT 'NaN'::float8", b"\x7f\xf8\0\0\0\0\0\0"),
    ] {
        let row = client.query_one(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        assert_eq!(row.get::<_, Raw>(0).0, bytes, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn result_columns_have_postgres_names_and_types() {
    let client = connect().await;
    client.batch_execute("CREATE TABLE rust_names (id int, v vector(3))").await.expect("create");
    for (sql, columns) in [
        ("SELECT 1", &[("?column?", Type::INT4)][..]),
        ("SELECT 1, 2", &[("?column?", Type::INT4), ("?column?", Type::INT4)]),
        (
            "SELECT 3000000000 AS big, 1.5 AS n, 'x' AS t, true",
            &[("big", Type::INT8), ("n", Type::NUMERIC), ("t", Type::TEXT), ("?column?", Type::BOOL)],
        ),
        (
            "SELECT count(*), sum(id), min(id), max(id) + 1 FROM rust_names",
            &[("count", Type::INT8), ("sum", Type::INT8), ("min", Type::INT4), ("?column?", Type::INT4)],
        ),
        (
            "SELECT lower('X'), coalesce(id, 0), id::bigint, CAST(id AS text) FROM rust_names",
            &[("lower", Type::TEXT), ("coalesce", Type::INT4), ("id", Type::INT8), ("id", Type::TEXT)],
        ),
        (
            "SELECT '1'::int, now()::date, CASE WHEN true THEN 1 END",
            &[("int4", Type::INT4), ("now", Type::DATE), ("case", Type::INT4)],
        ),
        (
            "SELECT id, id, rust_names.id AS \"A b\" FROM rust_names",
            &[("id", Type::INT4), ("id", Type::INT4), ("A b", Type::INT4)],
        ),
        (
            "SELECT v <-> '[1,2,3]', (v <=> '[1,2,3]') AS d, vector_dims(v) FROM rust_names",
            &[("?column?", Type::FLOAT8), ("d", Type::FLOAT8), ("vector_dims", Type::INT4)],
        ),
        (
            "SELECT (SELECT 1 AS inner_name), EXISTS (SELECT 1), ARRAY[1,2]",
            &[("inner_name", Type::INT4), ("exists", Type::BOOL), ("array", Type::INT4_ARRAY)],
        ),
        ("SHOW server_version", &[("server_version", Type::TEXT)]),
        (
            "INSERT INTO rust_names VALUES (1) RETURNING id, id + 1",
            &[("id", Type::INT4), ("?column?", Type::INT4)],
        ),
    ] {
        let statement = client.prepare(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        let found: Vec<_> =
            statement.columns().iter().map(|column| (column.name(), column.type_().clone())).collect();
        assert_eq!(found, columns, "{sql}");
    }
    let explain = client.prepare("EXPLAIN SELECT 1").await.expect("explain");
    assert_eq!(explain.columns()[0].name(), "QUERY PLAN");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_vector_type_is_found_by_its_oid() {
    let client = connect().await;
    let statement = client.prepare("SELECT $1::vector AS v").await.expect("prepare");
    let ty = statement.columns()[0].type_();
    assert_eq!((ty.name(), ty.schema(), ty.kind()), ("vector", "public", &Kind::Simple));
    assert_eq!(statement.params()[0].name(), "vector");
    let row = client.query_one(&statement, &[&Vector(vec![1.0, 2.0])]).await.expect("query");
    assert_eq!(row.get::<_, Vector>(0), Vector(vec![1.0, 2.0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_are_inferred() {
    let client = connect().await;
    client
        .batch_execute("CREATE TABLE rust_rows (m jsonb, s varchar(3)); CREATE TABLE rust_params (id int PRIMARY KEY, g int8, t text, v vector(2)); INSERT INTO rust_params VALUES (1, 1, 'a', '[0,0]'), (2, 1, 'b', '[3,4]')")
        .await
        .expect("create");
    let nearest = client
        .prepare("SELECT id, v <-> $1 FROM rust_params WHERE g = $2 ORDER BY v <-> $1 LIMIT $3")
        .await
        .expect("prepare");
    let types: Vec<_> = nearest.params().iter().map(Type::name).collect();
    assert_eq!(types, ["vector", "int8", "int8"]);
    for _ in 0..10 {
        let rows = client.query(&nearest, &[&Vector(vec![3.0, 3.0]), &1_i64, &1_i64]).await.expect("query");
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].get::<_, i32>(0), 2);
    }
    for (sql, types) in [
        ("SELECT * FROM rust_params WHERE id = $1 AND t LIKE $2", &["int4", "text"][..]),
        ("SELECT * FROM rust_params WHERE id = ANY($1)", &["_int4"]),
        ("SELECT * FROM rust_params WHERE lower(t) = ANY($1) OR g + 1 <> ALL($2)", &["_text", "_int8"]),
        ("INSERT INTO rust_rows (m, s) VALUES ($1, $2), (DEFAULT, NULL), ('{}', 'b')", &["jsonb", "varchar"]),
        ("SELECT * FROM (VALUES ($1::jsonb), (NULL)) AS v (x)", &["jsonb"]),
        (
            "SELECT * FROM rust_params WHERE id IN ($1, $2) OR g BETWEEN $3 AND $4",
            &["int4", "int4", "int8", "int8"],
        ),
        ("UPDATE rust_params SET t = $2, v = $3 WHERE id = $1", &["int4", "text", "vector"]),
        ("DELETE FROM rust_params WHERE t = $1", &["text"]),
        (
            "INSERT INTO rust_params VALUES ($1, $2, $3, $4) ON CONFLICT (id) DO UPDATE SET g = rust_params.g + $5",
            &["int4", "int8", "text", "vector", "int8"],
        ),
        ("SELECT $1::int8 + 1, $2", &["int8", "text"]),
        (
            "SELECT coalesce($1, 7), $2 + id, lower($3), round($4, 2), CASE WHEN true THEN $5 ELSE g END FROM rust_params",
            &["int4", "int4", "text", "numeric", "int8"],
        ),
    ] {
        let statement = client.prepare(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        let found: Vec<_> = statement.params().iter().map(Type::name).collect();
        assert_eq!(found, types, "{sql}");
    }
    let rows =
        client.execute("INSERT INTO rust_rows (s) VALUES ($1), (DEFAULT), (NULL), ('b')", &[&"a"]).await;
    assert_eq!(rows.expect("rows of one type"), 4);
    let ids = client
        .query("SELECT id FROM rust_params WHERE id = ANY($1) ORDER BY id", &[&vec![2, 9]])
        .await
        .expect("any");
    assert_eq!(ids.len(), 1);
    // The planner's answer for one value must not be served for another.
    let one = client.prepare("SELECT t FROM rust_params WHERE id = $1").await.expect("prepare");
    assert_eq!(client.query_one(&one, &[&1]).await.expect("1").get::<_, String>(0), "a");
    assert_eq!(client.query_one(&one, &[&2]).await.expect("2").get::<_, String>(0), "b");
    assert!(client.query_opt(&one, &[&None::<i32>]).await.expect("NULL").is_none());
    // A prepared statement sees a table that has changed since, or says that it cannot.
    client.batch_execute("INSERT INTO rust_params VALUES (3, 3, 'c', NULL)").await.expect("insert");
    assert_eq!(client.query_one(&one, &[&3]).await.expect("3").get::<_, String>(0), "c");
}

#[tokio::test(flavor = "multi_thread")]
async fn copy_both_ways_in_every_format() {
    let client = connect().await;
    client.batch_execute("CREATE TABLE rust_copy (id int, t text, v vector(2))").await.expect("create");
    let rows = "1\tplain\t[1,2]\n2\ttab\\there\t\\N\n3\t\\N\t[3,4]\n";
    copy_in(&client, "COPY rust_copy FROM STDIN", rows.as_bytes()).await;
    assert_eq!(copy_out(&client, "COPY rust_copy TO STDOUT").await, rows.as_bytes());
    let csv = "id,t,v\n1,plain,\"[1,2]\"\n2,tab\there,\n3,,\"[3,4]\"\n";
    assert_eq!(copy_out(&client, "COPY rust_copy TO STDOUT WITH (FORMAT csv, HEADER)").await, csv.as_bytes());
    client.batch_execute("TRUNCATE rust_copy").await.expect("truncate");
    copy_in(&client, "COPY rust_copy FROM STDIN WITH (FORMAT csv, HEADER)", csv.as_bytes()).await;
    assert_eq!(copy_out(&client, "COPY rust_copy TO STDOUT").await, rows.as_bytes());
    let binary = copy_out(&client, "COPY rust_copy TO STDOUT (FORMAT binary)").await;
    assert!(binary.starts_with(b"PGCOPY\n\xff\r\n\0"));
    client.batch_execute("TRUNCATE rust_copy").await.expect("truncate");
    copy_in(&client, "COPY rust_copy FROM STDIN (FORMAT binary)", &binary).await;
    assert_eq!(
        copy_out(&client, "COPY (SELECT * FROM rust_copy ORDER BY id) TO STDOUT").await,
        rows.as_bytes()
    );
    let out = copy_out(&client, "COPY rust_copy (v, id) TO STDOUT WITH (DELIMITER '|', NULL 'none')").await;
    assert_eq!(out, b"[1,2]|1\nnone|2\n[3,4]|3\n");
    // Cut at every byte: the server must not care where frames end.
    client.batch_execute("TRUNCATE rust_copy").await.expect("truncate");
    let sink = client.copy_in::<_, Bytes>("COPY rust_copy FROM STDIN (FORMAT binary)").await.expect("copy");
    pin_mut!(sink);
    for byte in &binary {
        sink.send(Bytes::copy_from_slice(&[*byte])).await.expect("send");
        sink.flush().await.expect("flush");
    }
    assert_eq!(sink.finish().await.expect("finish"), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_breaks_has_no_effect() {
    let client = connect().await;
    client.batch_execute("CREATE TABLE rust_broken (id int PRIMARY KEY, v vector(2))").await.expect("create");
    for (rows, state, message) in [
        ("1\t[1,2]\n2\t[1,2,3]\n", "22000", "expected 2 dimensions, not 3"),
        ("1\t[1,2]\n2\t[NaN,2]\n", "22000", "NaN not allowed in vector"),
        ("1\t[1,2]\n2\t[1,2\n", "22P02", "invalid input syntax for type vector: \"[1,2\""),
        ("1\t[1,2]\nx\t[1,2]\n", "22P02", "invalid input syntax for type integer: \"x\""),
        ("1\t[1,2]\n2\n", "22P04", "missing data for column \"v\""),
        ("1\t[1,2]\n2\t[1,2]\t3\n", "22P04", "extra data after last expected column"),
        (
            "1\t[1,2]\n1\t[1,2]\n",
            "23505",
            "duplicate key value violates unique constraint \"rust_broken_pkey\"",
        ),
        (
            "1\t[1,2]\n\\N\t[1,2]\n",
            "23502",
            "null value in column \"id\" of relation \"rust_broken\" violates not-null constraint",
        ),
    ] {
        let sink = client.copy_in::<_, Bytes>("COPY rust_broken FROM STDIN").await.expect("copy");
        pin_mut!(sink);
        let sent = sink.send(Bytes::copy_from_slice(rows.as_bytes())).await;
        let error = match sent {
            Ok(()) => sink.finish().await.expect_err(message),
            Err(error) => error,
        };
        let error = error.as_db_error().unwrap_or_else(|| panic!("{message}: {error}"));
        assert_eq!((error.code().code(), error.message()), (state, message));
        let place = error.where_().unwrap_or_default().to_owned();
        assert!(state.starts_with("23") || place.contains("line 2"), "{message}: the context is {place:?}");
        let count: i64 =
            client.query_one("SELECT count(*) FROM rust_broken", &[]).await.expect("count").get(0);
        assert_eq!(count, 0, "{message}");
    }
    // A client that gives up half-way.
    let sink = client.copy_in::<_, Bytes>("COPY rust_broken FROM STDIN").await.expect("copy");
    let mut sink = Box::pin(sink);
    sink.send(Bytes::from_static(b"1\t[1,2]\n")).await.expect("send");
    sink.flush().await.expect("flush");
    drop(sink);
    let count: i64 = client.query_one("SELECT count(*) FROM rust_broken", &[]).await.expect("count").get(0);
    assert_eq!(count, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_tell_the_position() {
    let client = connect().await;
    client.batch_execute("CREATE TABLE rust_errors (id int PRIMARY KEY, n int NOT NULL); INSERT INTO rust_errors VALUES (1, 1)").await.expect("create");
    let fails = async |sql: &'static str| {
        let error = client.simple_query(sql).await.expect_err(sql);
        error.as_db_error().expect("an answer").clone()
    };
    for (sql, position) in [
        ("SELECT nope FROM rust_errors", 8),
        ("SELECT 1 FROM nowhere", 15),
        ("SELECT 'ä', nope FROM rust_errors", 13),
        ("SELECT 1 +", 11),
        ("INSERT INTO rust_errors (nope) VALUES (1)", 26),
        ("SELECT no_such_function(1)", 8),
    ] {
        let error = fails(sql).await;
        let found = match error.position() {
            Some(tokio_postgres::error::ErrorPosition::Original(position)) => *position,
            other => panic!("{sql}: position {other:?}"),
        };
        assert_eq!(found, position, "{sql}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_portals_and_streams() {
    let mut client = connect().await;
    client.batch_execute("CREATE TABLE rust_tx (id int PRIMARY KEY)").await.expect("create");
    let transaction = client.transaction().await.expect("begin");
    transaction
        .execute("INSERT INTO rust_tx SELECT x FROM generate_series(1, 100) AS s(x)", &[])
        .await
        .expect("insert");
    let statement = transaction.prepare("SELECT id FROM rust_tx ORDER BY id").await.expect("prepare");
    let portal = transaction.bind(&statement, &[]).await.expect("bind");
    let first = transaction.query_portal(&portal, 30).await.expect("30 rows");
    let rest = transaction.query_portal(&portal, 0).await.expect("the rest");
    assert_eq!((first.len(), rest.len()), (30, 70));
    assert_eq!(rest[0].get::<_, i32>(0), 31);
    transaction.rollback().await.expect("rollback");
    let count: i64 = client.query_one("SELECT count(*) FROM rust_tx", &[]).await.expect("count").get(0);
    assert_eq!(count, 0);
    {
        let transaction = client.transaction().await.expect("begin");
        transaction.execute("INSERT INTO rust_tx VALUES (1)", &[]).await.expect("insert");
        transaction.commit().await.expect("commit");
    }
    // Rows stream: the first comes long before the last is made.
    let stream = client
        .query_raw("SELECT x::int FROM generate_series(1, 300000) AS s(x)", std::iter::empty::<i32>())
        .await
        .expect("stream");
    pin_mut!(stream);
    let (mut count, mut sum) = (0_i64, 0_i64);
    while let Some(row) = stream.try_next().await.expect("a row") {
        count += 1;
        sum += i64::from(row.get::<_, i32>(0));
    }
    assert_eq!(sum, 300_000 * 300_001 / 2);
    assert_eq!(count, 300_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_queries_answer_in_order() {
    let client = connect().await;
    let queries = (0..200_i32).map(|n| {
        let client = &client;
        async move {
            if n % 10 == 9 {
                client.query_one("SELECT nope", &[]).await.expect_err("nope");
                return n;
            }
            client.query_one("SELECT $1::int4", &[&n]).await.expect("query").get(0)
        }
    });
    let answers = futures::future::join_all(queries).await;
    assert_eq!(answers, (0..200).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_from_another_connection() {
    let server = Server::shared();
    let client = server.connect().await;
    let token = client.cancel_token();
    let authority = server.login().authority.expect("TLS");
    let tls = tokio_postgres_rustls::MakeRustlsConnect::new(crate::server::tls_config(&authority));
    let slow = tokio::spawn(async move {
        let sql =
            "SELECT count(*) FROM generate_series(1, 100000) AS a(x), generate_series(1, 1000000) AS b(x)";
        let error = client.query_one(sql, &[]).await.expect_err("cancelled");
        assert_eq!(error.code().expect("a state").code(), "57014");
        client.query_one("SELECT 1", &[]).await.expect("the session goes on");
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    token.cancel_query(tls).await.expect("cancel");
    tokio::time::timeout(Duration::from_secs(10), slow).await.expect("in time").expect("cancelled");
}

async fn copy_in(client: &Client, sql: &str, bytes: &[u8]) {
    let sink = client.copy_in::<_, Bytes>(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    pin_mut!(sink);
    sink.send(Bytes::copy_from_slice(bytes)).await.expect("send");
    assert_eq!(sink.finish().await.unwrap_or_else(|error| panic!("{sql}: {error:?}")), 3, "{sql}");
}

async fn copy_out(client: &Client, sql: &str) -> Vec<u8> {
    let stream = client.copy_out(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    let parts: Vec<Bytes> = stream.map(|part| part.expect("a part")).collect().await;
    parts.concat()
}
