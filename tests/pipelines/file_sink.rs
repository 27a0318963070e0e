//! The sink `file`: each row in one file, whatever happened in between, and only below the operator's directory.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use arrow::{
    array::{Array, AsArray},
    datatypes::Int64Type,
};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rand::RngExt;
use serde_json::Value;
use tempfile::TempDir;
use tokio_postgres::Client;

use super::{
    recovery::{Load, rounds, seeded},
    refused, run,
};
use crate::server::Server;

const PATIENCE: Duration = Duration::from_secs(60);

/// A server that may write below a directory.
fn start(root: &TempDir) -> Server {
    Server::start_with(&["--sink-file-root", root.path().to_str().expect("a path of UTF-8")])
}

/// Where the files of the one tenant of a server are: each has a directory of its own.
fn tenants(root: &TempDir) -> PathBuf {
    match files(root.path()).as_slice() {
        [only] => only.clone(),
        others => panic!("not one tenant's directory: {others:?}"),
    }
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

/// The lines of every finished file, by file.
fn lines(directory: &Path) -> BTreeMap<PathBuf, Vec<Value>> {
    let finished =
        files(directory).into_iter().filter(|path| path.extension().is_some_and(|end| end == "ndjson"));
    let read = |path: PathBuf| {
        // Replaced by its like at any time, never changed.
        let text = fs::read_to_string(&path).expect("a file");
        assert!(text.ends_with('\n'), "{} is cut off", path.display());
        let lines = text.lines().map(|line| serde_json::from_str(line).expect("JSON"));
        (path, lines.collect())
    };
    finished.map(read).collect()
}

async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < deadline, "not {what} after {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_row_is_in_one_file_over_kill_9() {
    const MARKER: i64 = i64::MAX;
    let root = TempDir::new().expect("a directory");
    let mut random = seeded();
    let mut server = start(&root);
    let key = server.tenant("acme");
    let client = server.login_with(&key).connect().await.expect("connect");
    run(
        &client,
        "CREATE TABLE items (id int8 PRIMARY KEY, note text);
         INSERT INTO items SELECT i, 'earlier' FROM generate_series(1, 500) AS s(i)",
    )
    .await;
    run(&client, "CREATE SINK archive USING file OPTIONS (path 'deep/items', roll_rows 100)").await;
    let directory = tenants(&root).join("deep/items");
    assert_eq!(files(&directory), Vec::<PathBuf>::new(), "CREATE SINK leaves nothing");
    run(
        &client,
        "CREATE PIPELINE p AS SELECT id, note FROM items INTO SINK archive KEY (id)
         WITH (batch_rows = 30, linger = '200ms')",
    )
    .await;
    let load = Load::starting_at(501);
    for _ in 0..rounds() {
        let before = lines(&directory).len();
        let writers = load.begin(&server, &key).await;
        until("at work", || lines(&directory).len() > before).await;
        tokio::time::sleep(Duration::from_millis(random.random_range(0..400))).await;
        server.kill();
        server.start_again();
        load.end(writers).await;
    }
    let client = server.login_with(&key).connect().await.expect("connect");
    run(&client, &format!("INSERT INTO items VALUES ({MARKER}, 'the last')")).await;
    let has_last = || lines(&directory).values().flatten().any(|line| line["key"]["id"] == MARKER);
    until("at the last row", has_last).await;
    check(&client, &directory).await;
}

async fn check(client: &Client, directory: &Path) {
    let rows = client.query("SELECT id FROM items", &[]).await.expect("rows");
    let committed: BTreeSet<i64> = rows.iter().map(|row| row.get(0)).collect();
    let mut found = BTreeMap::new();
    let lines = lines(directory);
    for (path, line) in lines.iter().flat_map(|(path, lines)| lines.iter().map(move |line| (path, line))) {
        let id = line["key"]["id"].as_i64().expect("an id");
        if let Some(other) = found.insert(id, path) {
            panic!("row {id} is in {} and in {}", other.display(), path.display());
        }
    }
    assert_eq!(found.into_keys().collect::<BTreeSet<_>>(), committed);
    let unfinished: Vec<PathBuf> =
        files(directory).into_iter().filter(|path| !lines.contains_key(path)).collect();
    assert_eq!(unfinished, Vec::<PathBuf>::new(), "nothing but whole files");
    let large = lines.values().filter(|lines| lines.len() >= 100).count();
    assert!(large > 0, "files gather rows: {:?}", lines.values().map(Vec::len).collect::<Vec<_>>());
}

/// Operation, id and note.
type Row = (String, i64, Option<String>);

/// Every row of a Parquet file.
fn rows(path: &Path) -> Vec<Row> {
    let bytes = fs::read(path).expect("a file");
    assert!(bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1"), "{} is not Parquet", path.display());
    let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(bytes)).expect("a Parquet footer");
    let mut rows = Vec::new();
    for batch in reader.build().expect("a reader") {
        let batch = batch.expect("a row group");
        let column = |name: &str| batch.column_by_name(name).unwrap_or_else(|| panic!("no column {name}"));
        let (ops, ids, notes) = (
            column("__op").as_string::<i32>(),
            column("id").as_primitive::<Int64Type>(),
            column("note").as_string::<i32>(),
        );
        for row in 0..batch.num_rows() {
            let note = notes.is_valid(row).then(|| notes.value(row).to_owned());
            rows.push((ops.value(row).to_owned(), ids.value(row), note));
        }
        assert_eq!(column("__pos").null_count(), 0);
        assert_eq!(column("v").null_count(), ops.iter().filter(|op| *op == Some("d")).count());
    }
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn parquet_files_are_parquet() {
    let root = TempDir::new().expect("a directory");
    let server = start(&root);
    let client = server.connect().await;
    run(
        &client,
        "CREATE TABLE items (id int8 PRIMARY KEY, note text, v vector(3));
         INSERT INTO items SELECT i, 'note ' || i, '[1,2,3]' FROM generate_series(1, 250) AS s(i)",
    )
    .await;
    run(&client, "CREATE SINK archive USING file OPTIONS (path 'items', format 'parquet', roll_rows 100)")
        .await;
    run(
        &client,
        "CREATE PIPELINE p AS SELECT id, note, v FROM items INTO SINK archive KEY (id)
         FORMAT ARROW ENVELOPE UPSERT WITH (batch_rows = 40, linger = '50ms')",
    )
    .await;
    let directory = tenants(&root).join("items");
    let all = || {
        let parquet =
            files(&directory).into_iter().filter(|path| path.extension().is_some_and(|end| end == "parquet"));
        parquet.flat_map(|path| rows(&path)).collect::<Vec<_>>()
    };
    until("the snapshot", || all().len() >= 250).await;
    let expected: Vec<Row> = (1..=250).map(|id| ("r".to_owned(), id, Some(format!("note {id}")))).collect();
    assert_eq!(all(), expected, "files sort as they were written");
    run(&client, "DELETE FROM items WHERE id = 7").await;
    until("the deletion", || all().iter().any(|row| row.0 == "d")).await;
    let mut changes = all();
    changes.retain(|row| row.0 != "r");
    let expected: Vec<Row> = vec![("d".to_owned(), 7, None)];
    assert_eq!(changes, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_elsewhere() {
    let (root, elsewhere) = (TempDir::new().expect("a directory"), TempDir::new().expect("a directory"));
    let server = start(&root);
    let client = server.connect().await;
    run(&client, "CREATE SINK inside USING file OPTIONS (path 'inside')").await;
    symlink(elsewhere.path(), tenants(&root).join("out")).expect("a link");
    let sink = |options: &str| format!("CREATE SINK s USING file OPTIONS ({options})");
    let absolute = format!("path '{}'", elsewhere.path().display());
    for options in ["path '../x'", "path 'a/../../x'", absolute.as_str(), "path 'out'", "roll_rows 5"] {
        let (code, text) = refused(&client, &sink(options)).await;
        assert_eq!(code, "22023", "{options}: {text}");
    }
    for options in ["path 'a', format 'csv'", "path 'a', roll_rows 0", "path 'a', rol_rows 5"] {
        let (code, text) = refused(&client, &sink(options)).await;
        assert_eq!(code, "22023", "{options}: {text}");
    }
    assert_eq!(files(elsewhere.path()), Vec::<PathBuf>::new());
    drop(client);
    drop(server);

    let without = Server::start();
    let client = without.connect().await;
    let (code, text) = refused(&client, &sink("path 'a'")).await;
    assert!(code == "22023" && text.contains("sink_file_root"), "{code}: {text}");
}
