//! Does a backup bring everything back, elsewhere, with the recovery key alone?
//!
//! As an operator has it: a server that serves, a repository in a directory or in a real S3 server's bucket, the
//! command line, and a second directory that has never seen the first. What came back is asked over the wire and
//! compared with what was acknowledged.

mod bucket;
mod clones;
mod damage;
mod drops;
mod large;
mod moments;
mod objects;
mod own_keys;
mod rotated;
mod snapshots;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;
use tokio_postgres::Client;

use crate::server::{Key, Server, binary};

const PATIENCE: Duration = Duration::from_secs(90);
/// Rows of the table that does not change: enough for segments and an index over them.
const ROWS: i64 = 3_000;
/// Flags of a server that archives its log all the time.
const ARCHIVING: [&str; 2] = ["--backup-archive-seconds", "1"];

/// A server, a tenant, a repository, and the key that people keep.
struct Scene {
    server: Server,
    acme: Key,
    place: TempDir,
    environment: Vec<(String, String)>,
    repository: String,
}

impl Scene {
    fn start(flags: &[&str]) -> Scene {
        let place = TempDir::new().expect("a temporary directory");
        let repository = place.path().join("repository").display().to_string();
        Scene::start_at(place, repository, flags, Vec::new())
    }

    /// With tables in it, and a client.
    async fn filled(flags: &[&str]) -> (Scene, Client) {
        let scene = Scene::start(flags);
        let client = scene.client().await;
        fill(&client).await;
        (scene, client)
    }

    /// The same, backed up, and with a 1 in `log` that is archived only.
    async fn archived() -> (Scene, Client) {
        let (scene, client) = Scene::filled(&ARCHIVING).await;
        scene.backup();
        client.execute("INSERT INTO log VALUES (1)", &[]).await.expect("insert");
        scene.wait_for_archive();
        (scene, client)
    }

    fn start_at(
        place: TempDir,
        repository: String,
        flags: &[&str],
        environment: Vec<(String, String)>,
    ) -> Scene {
        let mut all = vec!["--backup-repository", repository.as_str(), "--backup-schedule", "off"];
        all.extend_from_slice(flags);
        let data = TempDir::new().expect("a temporary directory");
        let server = {
            let variables: Vec<(&str, &str)> =
                environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            Server::start_in_with(data, &all, &variables)
        };
        let acme = server.tenant("acme");
        let scene = Scene { server, acme, place, environment, repository };
        let made = scene.server.admin(&["recovery", "create"]);
        let key = made["secrets"][0].as_str().expect("a recovery key");
        fs::write(scene.recovery_key(), key).expect("the recovery key");
        scene
    }

    fn recovery_key(&self) -> PathBuf {
        self.place.path().join("recovery-key")
    }

    /// A tenant beside acme, with a row.
    async fn rival(&self) -> Key {
        let rival = self.server.tenant("rival");
        let client = self.server.login_with(&rival).connect().await.expect("connect");
        client.batch_execute("CREATE TABLE log (n int8); INSERT INTO log VALUES (7)").await.expect("a table");
        rival
    }

    /// acme, as `tenant list` has it.
    fn acme_id(&self) -> String {
        let listed = self.server.admin(&["tenant", "list"]);
        let mut tenants = listed.as_array().expect("tenants").iter();
        let acme = tenants.find(|tenant| tenant["name"] == "acme").expect("acme");
        acme["id"].as_str().expect("an id").to_owned()
    }

    async fn client(&self) -> Client {
        self.server.login_with(&self.acme).connect().await.expect("connect")
    }

    /// Makes a backup and gives what the command printed. After keys were replaced the server makes one by itself,
    /// which ends first.
    fn backup(&self) -> Value {
        let begun = Instant::now();
        loop {
            let output = self.server.try_admin(&["backup", "create"]);
            if output.status.success() {
                return serde_json::from_slice(&output.stdout).expect("JSON on stdout");
            }
            let told = text(&output.stderr);
            assert!(told.contains("a backup is under way") && begun.elapsed().as_secs() < 60, "{told}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// A command on the repository alone.
    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(binary())
            .arg("backup")
            .args(arguments)
            .args(["--repository", &self.repository, "--json"])
            .envs(self.environment.iter().cloned())
            .current_dir(self.place.path())
            .stdin(Stdio::null())
            .output()
            .expect("run sepal")
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON on stdout")
    }

    /// Tries the newest backup, with the recovery key alone.
    fn verify(&self) -> Output {
        self.run(&["verify", "latest", "--recovery-key-file", &self.recovery_key().display().to_string()])
    }

    /// The same with one backup, which has to be good.
    fn verified(&self, backup: &str) {
        let key = self.recovery_key().display().to_string();
        let tried = self.run(&["verify", backup, "--recovery-key-file", &key]);
        assert!(tried.status.success(), "{backup}: {}{}", text(&tried.stdout), text(&tried.stderr));
    }

    /// A server on what a restore with these flags brings back, and the tenant's client.
    async fn restored(&self, flags: &[&str]) -> (Server, Client) {
        let server = self.serve(self.restore(flags).0);
        let client = server.login_with(&self.acme).connect().await.expect("the same API key opens it");
        (server, client)
    }

    /// Restores into a new directory and gives it; `more` are flags of the restore.
    fn restore(&self, more: &[&str]) -> (TempDir, Value) {
        let (place, output) = self.try_restore(more);
        assert!(output.status.success(), "{more:?}: {}", text(&output.stderr));
        (place, serde_json::from_slice(&output.stdout).expect("JSON on stdout"))
    }

    /// The same, whatever comes of it.
    fn try_restore(&self, more: &[&str]) -> (TempDir, Output) {
        let place = TempDir::new().expect("a temporary directory");
        let (to, key) = (place.path().join("data"), self.recovery_key());
        let (to, key) = (to.display().to_string(), key.display().to_string());
        let mut arguments = vec!["restore", "--to", &to, "--recovery-key-file", &key];
        arguments.extend_from_slice(more);
        let output = self.run(&arguments);
        (place, output)
    }

    /// A server on a restored directory.
    fn serve(&self, place: TempDir) -> Server {
        Server::start_in(place, &[])
    }

    /// Waits until everything that is committed now is in the repository.
    fn wait_for_archive(&self) {
        let since = now_us();
        self.wait_for(|status| {
            status["archive"]["caught_up_us"].as_i64().is_some_and(|at| at > since + 1_000_000)
        });
    }

    fn wait_for(&self, mut wanted: impl FnMut(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.server.admin(&["backup", "status"]);
            if wanted(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "the status stays {status}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Files of the repository, where it is a directory: name and content.
    fn objects(&self) -> Vec<(String, PathBuf)> {
        let root = Path::new(&self.repository);
        let mut found = Vec::new();
        walk(root, root, &mut found);
        found.sort();
        found
    }
}

fn walk(root: &Path, folder: &Path, found: &mut Vec<(String, PathBuf)>) {
    for entry in fs::read_dir(folder).expect("the repository") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            walk(root, &path, found);
        } else {
            found.push((path.strip_prefix(root).expect("inside").display().to_string(), path));
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn now_us() -> i64 {
    let elapsed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    i64::try_from(elapsed.as_micros()).expect("before 294,000")
}

/// That the other tenant came back.
async fn check_rival(restored: &Server, rival: &Key) {
    let client = restored.login_with(rival).connect().await.expect("the other tenant is there");
    assert_eq!(numbers(&client).await, [7]);
}

/// Waits until it is so, looking often.
fn until(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < deadline, "not after {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Tables with vectors, an index, deleted rows, several types.
async fn fill(client: &Client) {
    let sql = format!(
        "CREATE TABLE items (id int8 PRIMARY KEY, label text, price numeric, at timestamptz, v vector(8));
         INSERT INTO items SELECT x, 'item ' || x, x / 7.0, '2026-01-01 00:00:00Z',
             ('[' || x % 97 || ',' || x % 89 || ',' || x % 83 || ',1,2,3,4,' || x || ']')::vector
             FROM generate_series(1, {ROWS}) AS g(x);
         CREATE INDEX items_v ON items USING hnsw (v vector_l2_ops);
         DELETE FROM items WHERE id % 10 = 3;
         UPDATE items SET label = NULL WHERE id % 10 = 4;
         CREATE TABLE log (n int8 PRIMARY KEY)"
    );
    client.batch_execute(&sql).await.expect("tables");
}

/// The id of a backup that the command has made.
fn id(made: &Value) -> String {
    made["backup"].as_str().expect("an id").to_owned()
}

/// The rows of `items`, or of a clone of it, in order.
async fn rows(client: &Client, table: &str) -> Vec<String> {
    let query = format!("SELECT id, label, price::text, at::text, v::text FROM {table} ORDER BY id");
    let rows = client.query(&query, &[]).await.expect("rows");
    let told = rows.iter().map(|row| {
        let (label, rest): (Option<String>, Vec<String>) =
            (row.get(1), (2..5).map(|at| row.get(at)).collect());
        format!("{} {label:?} {rest:?}", row.get::<_, i64>(0))
    });
    told.collect()
}

/// Everything that the table `items` answers: rows in order, and nearest neighbours.
async fn answers(client: &Client) -> Vec<String> {
    let mut found = rows(client, "items").await;
    for seed in [1, 500, 2_999] {
        let nearest = format!(
            "SELECT id FROM items ORDER BY v <-> '[{},{},{},1,2,3,4,{seed}]' LIMIT 10",
            seed % 97,
            seed % 89,
            seed % 83
        );
        let ids = client.query(&nearest, &[]).await.expect("neighbours");
        found.push(format!("{:?}", ids.iter().map(|row| row.get::<_, i64>(0)).collect::<Vec<_>>()));
    }
    found
}

/// The numbers in the table `log`.
async fn numbers(client: &Client) -> Vec<i64> {
    let rows = client.query("SELECT n FROM log ORDER BY n", &[]).await.expect("numbers");
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_made_while_writing_comes_back_elsewhere() {
    let (mut scene, client) = Scene::filled(&[]).await;
    let expected = answers(&client).await;
    for n in 0..50_i64 {
        client.execute("INSERT INTO log VALUES ($1)", &[&n]).await.expect("insert");
    }
    // One that goes on all the time: what it commits in order must come back as a beginning of it.
    let writer = scene.client().await;
    let writing = tokio::spawn(async move {
        let mut n = 50_i64;
        while writer.execute("INSERT INTO log VALUES ($1)", &[&n]).await.is_ok() {
            n += 1;
        }
        n
    });
    let made = scene.backup();
    scene.server.stop();
    let committed = writing.await.expect("the writer");
    let backup = made["backup"].as_str().expect("an id");

    let verified = scene.verify();
    assert!(verified.status.success(), "{}{}", text(&verified.stdout), text(&verified.stderr));
    let report: Value = serde_json::from_slice(&verified.stdout).expect("JSON");
    let acme = &report["tenants"].as_array().expect("tenants")[0];
    assert_eq!(acme["name"], "acme");
    assert!(acme["questions"].as_i64().expect("a number") >= 4, "{report}");

    // Nothing of the first directory is left.
    fs::remove_dir_all(scene.server.data()).expect("remove");
    let (place, told) = scene.restore(&["--backup", backup]);
    assert_eq!(told["tenants"].as_array().expect("tenants").len(), 2, "acme and dev: {told}");
    let restored = scene.serve(place);
    let client = restored.login_with(&scene.acme).connect().await.expect("the same API key opens it");
    assert_eq!(answers(&client).await, expected);
    let found = numbers(&client).await;
    let count = i64::try_from(found.len()).expect("few rows");
    assert_eq!(found, (0..count).collect::<Vec<_>>(), "a beginning of what was committed, without a gap");
    assert!((50..=committed + 1).contains(&count), "{count} of {committed}");
    client.execute("INSERT INTO log VALUES (-1)", &[]).await.expect("it can be written");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_recovery_key_there_is_no_backup() {
    let place = TempDir::new().expect("a temporary directory");
    let repository = place.path().join("repository").display().to_string();
    let server = Server::start();
    let refused = server.try_admin(&["backup", "create", "--repository", &repository]);
    assert_eq!(refused.status.code(), Some(1));
    let told = text(&refused.stderr);
    assert!(told.contains("no recovery key") && told.contains("sepal recovery create"), "{told}");
    assert!(!Path::new(&repository).join("backups").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_backup_stores_what_is_new() {
    let (mut scene, client) = Scene::filled(&[]).await;
    let first = scene.backup();
    let before = scene.objects();
    let segment = |name: &str| name.ends_with(".parquet");
    assert!(before.iter().any(|(name, _)| segment(name)), "{before:?}");
    let modified = |path: &Path| fs::metadata(path).and_then(|facts| facts.modified()).expect("a time");
    let times: Vec<_> = before
        .iter()
        .filter(|(name, _)| name.starts_with("tenants/"))
        .map(|(_, path)| (path, modified(path)))
        .collect();
    client.execute("INSERT INTO log VALUES (1)", &[]).await.expect("insert");
    let second = scene.backup();
    let bytes = |made: &Value| made["new_bytes"].as_u64().expect("a number");
    assert!(bytes(&second) < bytes(&first) / 2, "{first} {second}");
    for (path, then) in times {
        assert_eq!(modified(path), then, "{} was stored again", path.display());
    }
    // A restart opens no tenant, so a backup then reads nothing of them.
    scene.server.restart();
    scene.backup();
    let listed = scene.json(&["list"]);
    assert_eq!(listed.as_array().expect("backups").len(), 3);
    let pruned = scene.json(&["prune", "--keep-last", "1", "--keep-days", "0", "--grace-hours", "0"]);
    assert_eq!(pruned["removed"].as_array().expect("removed").len(), 2);
    let verified = scene.verify();
    assert!(verified.status.success(), "{}", text(&verified.stdout));
    let listed = scene.json(&["list"]);
    assert_eq!(listed[0]["verified"]["good"], true, "{listed}");
    let status = scene.server.admin(&["backup", "status"]);
    assert_eq!(
        status["last_verified_us"], listed[0]["verified"]["verified_us"],
        "the server knows: {status}"
    );
    let census = scene.server.admin(&["backup", "census", "--tenant", "acme"]);
    let tables = census[0]["inventory"]["tables"].as_array().expect("tables").clone();
    let items = tables.iter().find(|table| table["name"] == "items").expect("items");
    assert_eq!(items["rows"], ROWS - ROWS / 10, "{census}");
}

/// What tenants store, and what it is called, is not in the repository.
#[tokio::test(flavor = "multi_thread")]
async fn no_plaintext_reaches_the_repository() {
    let scene = Scene::start(&[]);
    let client = scene.client().await;
    client
        .batch_execute(
            "CREATE TABLE canary_table (canary_column text);
             INSERT INTO canary_table VALUES ('canary value 3f')",
        )
        .await
        .expect("a table");
    scene.backup();
    let objects = scene.objects();
    assert!(objects.len() > 6, "{objects:?}");
    for (name, path) in objects {
        let bytes = fs::read(path).expect("an object");
        for word in ["canary_table", "canary_column", "canary value", "acme"] {
            let found = bytes.windows(word.len()).any(|window| window == word.as_bytes());
            assert!(!found && !name.contains(word), "\"{word}\" is in {name}");
        }
    }
}
