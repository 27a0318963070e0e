//! The sink `postgres`, against a real one: tables that stay the same, over deaths too, and what it refuses.

use std::time::{Duration, Instant};

use rand::RngExt;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::{
    dead_letters,
    recovery::{Load, rounds, seeded},
    refused, run, until_dead_letters, until_status,
};
use crate::{
    oracle::Oracle,
    server::{Login, Server, skip},
};

/// How long two tables may take to become the same.
const PATIENCE: Duration = Duration::from_secs(60);

/// The destination, and a client of it.
struct There {
    login: Login,
    client: Client,
    _oracle: Oracle,
}

impl There {
    async fn start() -> Option<There> {
        let Some(oracle) = Oracle::start() else {
            skip("no PostgreSQL 15 found (apt-get install postgresql-15): the sink postgres was not tried");
            return None;
        };
        let login = oracle.login();
        let client = login.connect().await.expect("connect to PostgreSQL");
        Some(There { login, client, _oracle: oracle })
    }

    /// The statement that makes a sink `there` into a table.
    fn sink(&self, table: &str) -> String {
        let port = self.login.port;
        format!(
            "CREATE SINK there USING postgres
             OPTIONS (url 'postgres://postgres@127.0.0.1:{port}/postgres?sslmode=disable', table '{table}')
             ALLOW HOSTS ('postgres://127.0.0.1:{port}')"
        )
    }
}

/// Every row as psql shows it.
async fn table(client: &Client, sql: &str) -> Vec<Vec<Option<String>>> {
    let messages = client.simple_query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect())
        }
        _ => None,
    });
    rows.collect()
}

/// Waits until a query gives the same at both ends.
async fn until_same(here: &Client, there: &Client, sql: &str) {
    let wanted = table(here, sql).await;
    let steps = PATIENCE.as_millis() / 20;
    for _ in 0..steps {
        if table(there, sql).await == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(table(there, sql).await, wanted, "{sql}");
}

const COLUMNS: &str = "id int8, part text, item text, total numeric(10,2), placed timestamptz, tags jsonb,
                       ok boolean, weight float8, names text[], PRIMARY KEY (id, part)";

#[tokio::test(flavor = "multi_thread")]
async fn a_table_over_there_stays_the_same() {
    let Some(there) = There::start().await else { return };
    let server = Server::start();
    let client = server.connect().await;
    for end in [&client, &there.client] {
        run(end, &format!("SET TIME ZONE 'UTC'; CREATE TABLE orders ({COLUMNS})")).await;
    }
    run(
        &client,
        "INSERT INTO orders VALUES
           (1, 'a', 'apple', 12.30, '2026-01-02 03:04:05.678901+00', '{\"k\": [1, null, \"ü\"]}', true, 0.1,
            '{x,\"y z\",NULL}'),
           (1, 'b', 'quote '' \" \\ and
a line', -0.01, NULL, NULL, NULL, NULL, NULL),
           (2, '', '', 9999999.99, '1969-12-31 23:59:59+00', '[]', false, 1e300, '{}')",
    )
    .await;
    run(&client, &there.sink("orders")).await;
    run(&client, "CREATE PIPELINE p AS SELECT * FROM orders INTO SINK there WITH (linger = '10ms')").await;
    let same = "SELECT * FROM orders ORDER BY id, part";
    until_same(&client, &there.client, same).await;
    for sql in [
        "INSERT INTO orders (id, part, item) VALUES (3, 'c', 'cherry'), (4, 'd', NULL)",
        "UPDATE orders SET total = coalesce(total, 0) + 0.5, ok = NOT ok",
        "UPDATE orders SET part = 'moved' WHERE id = 4",
        "UPDATE orders SET tags = '{\"n\": 12345678901234567890.10}', weight = 0.30000000000000004 WHERE id = 3",
        "BEGIN; DELETE FROM orders WHERE id = 1; INSERT INTO orders (id, part, item) VALUES (1, 'a', 'back'); COMMIT",
        "INSERT INTO orders (id, part, item) SELECT i, 'many', 'item ' || i FROM generate_series(100, 2600) AS s(i)",
        "UPDATE orders SET item = 'changed' WHERE id % 3 = 0",
        "DELETE FROM orders WHERE id % 5 = 0",
    ] {
        run(&client, sql).await;
        until_same(&client, &there.client, same).await;
    }
    run(&client, "TRUNCATE orders").await;
    until_same(&client, &there.client, same).await;
    let positions = table(&there.client, "SELECT count(*) FROM sepal_positions").await;
    assert_eq!(positions, [[Some("1".to_owned())]], "the position is kept where the rows are");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_work_is_refused_and_what_breaks_pauses() {
    let Some(there) = There::start().await else { return };
    let server = Server::start();
    let client = server.connect().await;
    run(&there.client, "CREATE TABLE items (id int8 PRIMARY KEY, note text CHECK (note <> 'bad'))").await;
    let good = there.sink("items");
    let port = there.login.port;
    for (sql, state, says) in [
        (there.sink("nowhere"), "22023", "nowhere"),
        (good.replace("postgres@", "postgres:hunter2@"), "22023", "clear"),
        (good.replace("postgres@", "nobody@"), "38000", "nobody"),
        (good.replace(", table", ", tabel"), "22023", "table"),
        (
            good.replace(&format!("'postgres://127.0.0.1:{port}'"), "'postgres://db.example.com'"),
            "22023",
            "ALLOW HOSTS",
        ),
        (good.replace("sslmode=disable", "sslmode=prefer"), "22023", "sslmode"),
    ] {
        let (code, text) = refused(&client, &sql).await;
        assert_eq!(code, state, "{sql}: {text}");
        assert!(text.contains(says) && !text.contains("hunter2"), "{sql}: {text}");
    }
    run(&client, &good).await;
    run(&client, "CREATE TABLE items (id int8 PRIMARY KEY, note text)").await;
    run(
        &client,
        "CREATE PIPELINE p AS SELECT id, note FROM items INTO SINK there
         WITH (snapshot = false, linger = '10ms')",
    )
    .await;
    run(&client, "INSERT INTO items VALUES (1, 'a'), (2, 'bad'), (3, 'c'), (4, 'd'), (5, 'e')").await;
    let letters = until_dead_letters(&client, "p", 1).await;
    let (code, message, op, key, _) = &letters[0];
    assert_eq!((code.as_str(), op.as_str(), key.as_str()), ("pg.23514", "c", r#"{"id":2}"#));
    assert!(message.contains("items_note_check"), "{message}");
    let ids = |ids: &[&str]| ids.iter().map(|id| vec![Some((*id).to_owned())]).collect::<Vec<_>>();
    let all = "SELECT id FROM items ORDER BY id";
    assert_eq!(table(&there.client, all).await, ids(&["1", "3", "4", "5"]));
    run(&there.client, "ALTER TABLE items DROP CONSTRAINT items_note_check").await;
    run(&client, "SELECT sepal_dlq_replay('p')").await;
    until_same(&client, &there.client, all).await;
    until_dead_letters(&client, "p", 0).await;

    // A table that is gone is nobody's data's fault.
    run(&there.client, "ALTER TABLE items RENAME TO elsewhere").await;
    run(&client, "INSERT INTO items VALUES (6, 'f')").await;
    let row = until_status(&client, "p", "paused", |row| row.state == "paused").await;
    assert_eq!(row.last_error_code.as_deref(), Some("pg.42P01"), "{row:?}");
    run(&there.client, "ALTER TABLE elsewhere RENAME TO items").await;
    run(&client, "ALTER PIPELINE p RESUME").await;
    until_same(&client, &there.client, all).await;
    assert!(dead_letters(&client, "p").await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn kill_9_takes_effect_once() {
    let Some(there) = There::start().await else { return };
    // Every row that is written is counted: a second time would show, whatever it writes.
    run(
        &there.client,
        "CREATE TABLE items (id int8 PRIMARY KEY, note text);
         CREATE TABLE writes (id int8, op text);
         CREATE FUNCTION count_write() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN INSERT INTO writes VALUES (NEW.id, TG_OP); RETURN NULL; END $$;
         CREATE TRIGGER count_writes AFTER INSERT OR UPDATE ON items FOR EACH ROW EXECUTE FUNCTION count_write()",
    )
    .await;
    let mut random = seeded();
    let mut server = Server::start();
    let key = server.tenant("acme");
    let client = server.login_with(&key).connect().await.expect("connect");
    run(
        &client,
        "CREATE TABLE items (id int8 PRIMARY KEY, note text);
         INSERT INTO items SELECT i, 'earlier' FROM generate_series(1, 1000) AS s(i)",
    )
    .await;
    run(&client, &there.sink("items")).await;
    run(
        &client,
        "CREATE PIPELINE p AS SELECT id, note FROM items INTO SINK there
         WITH (delivery = 'transactional', batch_rows = 20, linger = '5ms')",
    )
    .await;
    let load = Load::starting_at(1_001);
    for round in 0..rounds() {
        let before = count(&there.client).await;
        let writers = load.begin(&server, &key).await;
        let deadline = Instant::now() + PATIENCE;
        while count(&there.client).await == before {
            assert!(Instant::now() < deadline, "round {round}: nothing arrives: {}", server.log());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let moment = if round == 0 { 0 } else { random.random_range(0..700) };
        tokio::time::sleep(Duration::from_millis(moment)).await;
        server.kill();
        server.start_again();
        load.end(writers).await;
    }
    let client = server.login_with(&key).connect().await.expect("connect");
    until_same(&client, &there.client, "SELECT id, note FROM items ORDER BY id").await;
    let twice =
        "SELECT id, count(*), min(op), max(op) FROM writes GROUP BY id HAVING count(*) > 1 ORDER BY id";
    assert_eq!(table(&there.client, twice).await, Vec::<Vec<_>>::new(), "rows that were written twice");
    let written: i64 =
        there.client.query_one("SELECT count(*) FROM writes", &[]).await.expect("count").get(0);
    assert_eq!(written, count(&there.client).await);
    let acknowledged = load.acknowledged.lock().expect("ids").len();
    println!("{written} rows written once each, {acknowledged} of them acknowledged by Sepal");
    assert!(acknowledged > 0);
}

async fn count(client: &Client) -> i64 {
    client.query_one("SELECT count(*) FROM items", &[]).await.expect("count").get(0)
}

/// The rows after a refused one may be durable over there, with their position, before the refusal is durable here.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_row_is_not_forgotten_when_the_server_dies_over_the_next() {
    let Some(there) = There::start().await else { return };
    // Of the batch 1 to 4 the halves 1, 2 and 3, 4 are tried, since 2 and 4 are bad. When 4 is tried alone, 3 is
    // durable, and the attempt hangs. A sequence does not roll back: it counts the attempts at 4.
    run(
        &there.client,
        "CREATE TABLE items (id int8 PRIMARY KEY, note text); CREATE SEQUENCE attempts;
         CREATE FUNCTION judge() RETURNS trigger LANGUAGE plpgsql AS $$
           BEGIN
             IF NEW.note = 'slow' AND nextval('attempts') = 2 THEN PERFORM pg_sleep(30); END IF;
             IF NEW.note <> 'good' THEN RAISE check_violation USING MESSAGE = 'only good ones'; END IF;
             RETURN NEW;
           END $$;
         CREATE TRIGGER judges BEFORE INSERT ON items FOR EACH ROW EXECUTE FUNCTION judge()",
    )
    .await;
    let mut server = Server::start();
    let key = server.tenant("acme");
    let client = server.login_with(&key).connect().await.expect("connect");
    run(&client, "CREATE TABLE items (id int8 PRIMARY KEY, note text)").await;
    run(&client, &there.sink("items")).await;
    run(
        &client,
        "CREATE PIPELINE p AS SELECT id, note FROM items INTO SINK there
         WITH (snapshot = false, delivery = 'transactional', linger = '10ms')",
    )
    .await;
    run(&client, "INSERT INTO items VALUES (1, 'good'), (2, 'bad'), (3, 'good'), (4, 'slow')").await;
    let hangs = "SELECT last_value = 2 AND (SELECT count(*) FROM items WHERE id = 3) = 1 FROM attempts";
    for step in 0.. {
        if there.client.query_one(hangs, &[]).await.expect("attempts").get(0) {
            break;
        }
        assert!(
            step < 3_000,
            "4 is not tried alone: {:?}",
            table(&there.client, "SELECT * FROM items").await
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    server.kill();
    server.start_again();
    let client = server.login_with(&key).connect().await.expect("connect");
    run(&client, "INSERT INTO items VALUES (5, 'good')").await;
    let ids = [["1"], ["3"], ["5"]].map(|row| row.map(|id| Some(id.to_owned())));
    for _ in 0..3_000 {
        if table(&there.client, "SELECT id FROM items ORDER BY id").await == ids {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(table(&there.client, "SELECT id FROM items ORDER BY id").await, ids);
    until_status(&client, "p", "done", |row| row.lag_rows == Some(0) && row.state == "running").await;
    let letters = dead_letters(&client, "p").await;
    let keys: Vec<&str> = letters.iter().map(|letter| letter.3.as_str()).collect();
    assert_eq!(keys, [r#"{"id":2}"#, r#"{"id":4}"#], "each row is over there or a dead letter");
}
