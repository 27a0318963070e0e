//! Does plaintext reach the disk?
//!
//! A tenant's texts, names and vectors are written by every way in, indexed, flushed, deleted, and the server
//! is restarted and killed. After each step the whole data directory and the log are searched for them, byte
//! by byte. The search itself is tested: planted in a plain file, each canary is found.

use std::{
    fs,
    path::{Path, PathBuf},
};

use bytes::{BufMut, Bytes, BytesMut};
use futures::SinkExt;
use tempfile::TempDir;
use tokio_postgres::Client;

use crate::server::{Key, Server};

/// Numbers of a vector, none of whose bytes repeat a pattern that other data could have.
const DIMENSIONS: usize = 64;
/// Rows around the canaries, so that pages, dictionaries and statistics are those of a real table.
const ROWS: usize = 3_000;

const TEXTS: &[&str] = &[
    "canary-inserted-Xq7vK2",
    "canary-copied-text-Rw4zM9",
    "canary-copied-csv-Lp3nB8",
    "canary-copied-binary-Ty6cD1",
    "canary-parameter-Gh5jF0",
    "canary-updated-Ws8kN3",
    "canary-deleted-Ze2rV7",
    "canary-rolled-back-Uo9mQ4",
    "canary-in-jsonb-Ic1xS6",
    "canary-in-an-error-Pk0dH5",
    "canary-default-Na4yJ2",
];
const NAMES: &[&str] =
    &["canary_table_bf81", "canary_column_c0de", "canary_index_9a3e", "canary-tenant-77", "canary-env-58"];

/// Bytes that must be in no file, with a name for each.
fn needles(key: &Key) -> Vec<(String, Vec<u8>)> {
    let mut needles: Vec<(String, Vec<u8>)> =
        TEXTS.iter().chain(NAMES).map(|text| (text.to_string(), text.as_bytes().to_vec())).collect();
    for text in TEXTS {
        let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        needles.push((format!("{text} in UTF-16"), utf16));
        needles.push((format!("{text} in hex"), hex(text.as_bytes())));
    }
    for seed in [1, 2, 3] {
        let vector = vector(seed);
        // Any four numbers in a row: compression or a page border may cut the vector, not these.
        for (at, window) in vector.windows(4).enumerate().step_by(7) {
            let little: Vec<u8> = window.iter().flat_map(|value| value.to_le_bytes()).collect();
            let big: Vec<u8> = window.iter().flat_map(|value| value.to_be_bytes()).collect();
            let double: Vec<u8> = window.iter().flat_map(|value| f64::from(*value).to_le_bytes()).collect();
            let text = window.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
            needles.push((format!("vector {seed} at {at}, little-endian"), little));
            needles.push((format!("vector {seed} at {at}, big-endian"), big));
            needles.push((format!("vector {seed} at {at}, doubles"), double));
            needles.push((format!("vector {seed} at {at}, text"), text.into_bytes()));
        }
    }
    let secret = key.token.split('_').nth(4).expect("the token's secret part");
    needles.push(("the token's secret".into(), secret.as_bytes().to_vec()));
    needles
}

pub fn hex(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect()
}

fn vector(seed: u32) -> Vec<f32> {
    (0..DIMENSIONS).map(|i| ((i as f32 + 1.37) * (seed as f32 + 0.7193)).sin() * 3.303).collect()
}

fn vector_text(seed: u32) -> String {
    let numbers: Vec<_> = vector(seed).iter().map(ToString::to_string).collect();
    format!("[{}]", numbers.join(","))
}

fn files_below(directory: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("read a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files_below(&path, out);
        } else if path.is_file() {
            out.push(path);
        }
    }
}

/// Every needle found, as `needle in file`. File names are searched too.
pub fn search(directory: &Path, more: &[PathBuf], needles: &[(String, Vec<u8>)]) -> Vec<String> {
    let mut files = more.to_vec();
    files_below(directory, &mut files);
    let mut found = Vec::new();
    for path in files {
        // A file may vanish between listing and reading: the server runs.
        let Ok(mut bytes) = fs::read(&path) else { continue };
        bytes.extend(path.strip_prefix(directory).unwrap_or(&path).as_os_str().as_encoded_bytes());
        for (name, needle) in needles {
            if contains(&bytes, needle) {
                found.push(format!("{name} in {}", path.display()));
            }
        }
    }
    found
}

/// Looks for the first byte, then for the rest: files are tens of MiB and there are hundreds of needles.
fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    let Some((first, rest)) = needle.split_first() else { return true };
    let mut at = 0;
    while let Some(next) = haystack[at..].iter().position(|byte| byte == first) {
        at += next + 1;
        if haystack[at..].starts_with(rest) {
            return true;
        }
    }
    false
}

#[test]
fn the_search_finds_what_is_there() {
    let directory = TempDir::new().expect("a temporary directory");
    let key = Key { id: "x".into(), token: "sepal_live_all_k_secretsecret_c".into(), environment: None };
    let needles = needles(&key);
    fs::create_dir(directory.path().join("deep")).expect("mkdir");
    for (name, needle) in &needles {
        let noise: Vec<u8> =
            (0..4096_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let bytes = [&noise[..], needle, &noise].concat();
        fs::write(directory.path().join("deep/file"), bytes).expect("write");
        let found = search(directory.path(), &[], &needles);
        assert!(found.iter().any(|hit| hit.starts_with(name.as_str())), "{name} was planted and not found");
    }
    fs::write(directory.path().join("deep/file"), b"nothing").expect("write");
    assert_eq!(search(directory.path(), &[], &needles), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_file_holds_a_canary() {
    let mut server = Server::start();
    let key = server.tenant("canary-tenant-77");
    server.key("canary-tenant-77", &["--environment", "canary-env-58", "--label", TEXTS[0]]);
    let needles = needles(&key);
    let check = |server: &Server, when: &str| {
        let found = search(&server.data(), &[server.log_path()], &needles);
        assert!(found.is_empty(), "after {when}:\n{}", found.join("\n"));
    };
    let client = server.login_with(&key).connect().await.expect("connect");
    fill(&client).await;
    check(&server, "the writes");
    client
        .batch_execute("CREATE INDEX canary_index_9a3e ON canary_table_bf81 USING hnsw (v vector_l2_ops)")
        .await
        .expect("index");
    check(&server, "the index build");
    client
        .batch_execute(
            "CREATE INDEX ON canary_table_bf81 USING ivfflat (v vector_cosine_ops) WITH (lists = 10)",
        )
        .await
        .expect("second index");
    check(&server, "the second index build");
    client.batch_execute("ANALYZE").await.expect("statistics");
    client.batch_execute("VACUUM FULL").await.expect("segments written anew");
    check(&server, "statistics and a vacuum");
    changes(&client).await;
    check(&server, "updates and deletes");
    spill(&client).await;
    check(&server, "large sorts and joins");
    drop(client);

    server.restart();
    check(&server, "a restart");
    read_back(&server, &key).await;
    server.kill();
    check(&server, "a kill");
    server.start_again();
    read_back(&server, &key).await;
    check(&server, "the recovery");
    server.stop();
    check(&server, "the end");
}

/// Every way in.
async fn fill(client: &Client) {
    client
        .batch_execute(&format!(
            "CREATE TABLE canary_table_bf81 (id int PRIMARY KEY, canary_column_c0de text DEFAULT '{}', j jsonb, v vector({DIMENSIONS}))",
            TEXTS[10]
        ))
        .await
        .expect("create");
    client
        .batch_execute(&format!(
            "INSERT INTO canary_table_bf81 VALUES (1, '{}', '{{\"k\": \"{}\"}}', '{}'); INSERT INTO canary_table_bf81 (id) VALUES (2)",
            TEXTS[0],
            TEXTS[8],
            vector_text(1)
        ))
        .await
        .expect("insert");
    let insert =
        "INSERT INTO canary_table_bf81 (id, canary_column_c0de, v) VALUES (3, $1, ($2::text)::vector)";
    client.execute(insert, &[&TEXTS[4], &vector_text(2)]).await.expect("parameters");
    let lines: String =
        (0..ROWS).map(|n| format!("{}\t{}\t\\N\t{}\n", 100 + n, TEXTS[1], vector_text(3))).collect();
    copy(client, "COPY canary_table_bf81 FROM STDIN", lines.into_bytes()).await;
    let line = format!("10,{},,\"{}\"\n", TEXTS[2], vector_text(1));
    copy(client, "COPY canary_table_bf81 FROM STDIN (FORMAT csv)", line.into_bytes()).await;
    copy(
        client,
        "COPY canary_table_bf81 (id, canary_column_c0de, v) FROM STDIN (FORMAT binary)",
        binary_rows(),
    )
    .await;
    // What is rolled back or refused has been in memory, and perhaps in a log.
    let rolled_back = format!("BEGIN; INSERT INTO canary_table_bf81 VALUES (50, '{}'); ROLLBACK", TEXTS[7]);
    client.batch_execute(&rolled_back).await.expect("rollback");
    let refused = format!(
        "INSERT INTO canary_table_bf81 (id, canary_column_c0de, v) VALUES (1, '{}', '[1]')",
        TEXTS[9]
    );
    client.batch_execute(&refused).await.expect_err("wrong dimensions");
    client.batch_execute(&format!("SELECT '{}' FROM nowhere", TEXTS[9])).await.expect_err("no such table");
}

async fn changes(client: &Client) {
    client
        .batch_execute(&format!(
            "UPDATE canary_table_bf81 SET canary_column_c0de = '{}' WHERE id < 1000;
             INSERT INTO canary_table_bf81 VALUES (60, '{}'); DELETE FROM canary_table_bf81 WHERE id = 60 OR id > 2500",
            TEXTS[5], TEXTS[6]
        ))
        .await
        .expect("changes");
}

/// Queries that an engine likes to spill.
async fn spill(client: &Client) {
    let sql = "SELECT count(*) FROM (SELECT a.canary_column_c0de AS x, b.id, row_number() OVER (ORDER BY b.canary_column_c0de, a.id) AS n
               FROM canary_table_bf81 a JOIN canary_table_bf81 b ON a.id % 100 = b.id % 100) s WHERE n > 5";
    let rows: i64 = client.query_one(sql, &[]).await.expect("a large query").get(0);
    assert!(rows > 10_000, "{rows}");
}

async fn read_back(server: &Server, key: &Key) {
    let client = server.login_with(key).connect().await.expect("connect");
    let sql =
        "SELECT canary_column_c0de, (v <-> ($1::text)::vector) < 0.001 FROM canary_table_bf81 WHERE id = 1";
    let row = client.query_one(sql, &[&vector_text(1)]).await.expect("row 1");
    assert_eq!(row.get::<_, String>(0), TEXTS[5]);
    assert!(row.get::<_, bool>(1), "the vector came back");
}

async fn copy(client: &Client, sql: &str, bytes: Vec<u8>) {
    let sink = client.copy_in::<_, Bytes>(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    let mut sink = Box::pin(sink);
    sink.send(Bytes::from(bytes)).await.expect("send");
    sink.as_mut().finish().await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

fn binary_rows() -> Vec<u8> {
    let mut out = BytesMut::new();
    out.put_slice(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
    out.put_i16(3);
    out.put_i32(4);
    out.put_i32(11);
    out.put_i32(i32::try_from(TEXTS[3].len()).expect("short"));
    out.put_slice(TEXTS[3].as_bytes());
    out.put_i32(i32::try_from(4 + 4 * DIMENSIONS).expect("short"));
    out.put_u16(u16::try_from(DIMENSIONS).expect("short"));
    out.put_u16(0);
    vector(2).iter().for_each(|value| out.put_f32(*value));
    out.put_i16(-1);
    out.to_vec()
}
