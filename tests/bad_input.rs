//! What do damaged files and wrong keys do?
//!
//! A stopped server's directory is damaged in one way, then started and read. Allowed are a refusal that names
//! the file, an error that names it when its rows are asked for, or the right rows; never wrong rows, never
//! missing ones, and never a changed or deleted file.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tempfile::TempDir;

use crate::server::{Key, Server, binary};

/// Exit code of a wrong configuration (`EX_CONFIG`).
const CONFIGURATION: i32 = 78;

/// A stopped server with two tenants, flushed segments, an index, a log with commits after the flush.
struct Damaged {
    server: Server,
    acme: Key,
    /// The directory before any damage.
    pristine: TempDir,
}

const ROWS: i64 = 4_000;

impl Damaged {
    async fn new() -> Damaged {
        let mut server = Server::start();
        let acme = server.tenant("acme");
        let rival = server.tenant("rival");
        for key in [&acme, &rival] {
            let client = server.login_with(key).connect().await.expect("connect");
            client
                .batch_execute(&format!(
                    "CREATE TABLE t (id int PRIMARY KEY, s text, v vector(8));
                     INSERT INTO t SELECT x, 'row ' || x, ('[' || repeat('1,', 7) || x || ']')::vector FROM generate_series(1, {ROWS}) AS g(x);
                     CREATE INDEX t_v ON t USING hnsw (v vector_l2_ops);
                     DELETE FROM t WHERE id = 17; INSERT INTO t VALUES (17, 'row 17', '[1,1,1,1,1,1,1,17]')"
                ))
                .await
                .expect("set up");
            // Many small commits, so that no place in the middle of the log lies in its last frame: a torn last
            // frame is what a crash leaves, and recovery drops it.
            for id in 1..=60 {
                client.execute("UPDATE t SET s = s WHERE id = $1", &[&id]).await.expect("update");
            }
        }
        assert!(server.stop().success());
        let pristine = TempDir::new().expect("a temporary directory");
        copy(&server.data(), pristine.path());
        Damaged { server, acme, pristine }
    }

    /// Files of both tenants and the control database, relative to the data directory. Not the TLS files, the
    /// root key, or what SQLite rebuilds.
    fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = listing(self.pristine.path()).into_keys().collect();
        files.retain(|path| {
            let name = path.to_string_lossy();
            !name.starts_with("tls")
                && name != "root.key"
                && !name.ends_with("-wal")
                && !name.ends_with("-shm")
                && !name.ends_with(".lock")
                && name != "lock"
        });
        assert!(files.len() >= 6, "a server with this little on disk proves little: {files:?}");
        files
    }

    fn restore(&self) {
        fs::remove_dir_all(self.server.data()).expect("remove");
        copy(self.pristine.path(), &self.server.data());
    }

    /// Starts, reads all, and says what happened. Panics on wrong rows and on files that changed.
    async fn outcome(&mut self, damage: &str, file: &Path) -> Outcome {
        let before = listing(&self.server.data());
        let outcome = match self.server.try_start() {
            Err(ended) => {
                assert!(!ended.status.success(), "{damage}: {}", ended.status);
                assert!(!ended.log.contains("panicked"), "{damage}: {}", ended.log);
                assert!(
                    self.told(&ended.log, file),
                    "{damage}: the refusal does not name the file: {}",
                    ended.log
                );
                Outcome::RefusedToStart
            }
            Ok(()) => {
                let outcome = self.read(damage, file).await;
                self.server.kill();
                outcome
            }
        };
        if outcome == Outcome::Served {
            // A server that serves may flush, and then remove what it has replaced.
            return outcome;
        }
        let after = listing(&self.server.data());
        for (path, bytes) in before.iter().filter(|(path, _)| self.is_data(path)) {
            assert!(after.contains_key(path), "{damage}: {} was deleted", path.display());
            if path == file {
                assert_eq!(after[path], *bytes, "{damage}: the damaged file was changed");
            }
        }
        outcome
    }

    /// Whether a refusal names the file. One that is gone may be told by its neighbours: what is missing has no
    /// name that a directory could show.
    fn told(&self, text: &str, file: &Path) -> bool {
        let named = |path: &Path| text.contains(path.file_name().expect("a file").to_string_lossy().as_ref());
        let gone = !self.server.data().join(file).exists();
        named(file)
            || gone
                && (text.contains("is missing, or its manifest is")
                    || self.files().iter().any(|path| named(path)))
    }

    fn is_data(&self, path: &Path) -> bool {
        self.files().iter().any(|file| file == path)
    }

    async fn read(&self, damage: &str, file: &Path) -> Outcome {
        let client = match self.server.login_with(&self.acme).connect().await {
            Ok(client) => client,
            Err(error) => {
                let error = error.as_db_error().unwrap_or_else(|| panic!("{damage}: no answer: {error}"));
                let told = format!("{error:?} {}", self.server.log());
                assert!(self.told(&told, file), "{damage}: refused without naming the file: {told}");
                return Outcome::RefusedTheTenant;
            }
        };
        let mut refused = false;
        for sql in [
            "SELECT id, s, v::text FROM t ORDER BY id",
            "SELECT id, s, v::text FROM t ORDER BY v <-> '[1,1,1,1,1,1,1,17]' LIMIT 1",
        ] {
            match client.query(sql, &[]).await {
                Ok(rows) => {
                    let expected = if sql.ends_with("id") { ROWS } else { 1 };
                    assert_eq!(
                        i64::try_from(rows.len()).expect("few"),
                        expected,
                        "{damage}: rows are missing"
                    );
                    for row in &rows {
                        let (id, text, vector): (i32, String, String) = (row.get(0), row.get(1), row.get(2));
                        assert_eq!(text, format!("row {id}"), "{damage}: a wrong row");
                        assert_eq!(vector, format!("[1,1,1,1,1,1,1,{id}]"), "{damage}: a wrong vector");
                    }
                    if expected == 1 {
                        assert_eq!(rows[0].get::<_, i32>(0), 17, "{damage}: a wrong answer");
                    }
                }
                Err(error) => {
                    let error = error
                        .as_db_error()
                        .unwrap_or_else(|| panic!("{damage}: the connection broke: {error}"));
                    assert_eq!(error.code().code(), "XX001", "{damage}: {error}");
                    let told = format!("{error:?} {}", self.server.log());
                    assert!(self.told(&told, file), "{damage}: the file is not named: {told}");
                    refused = true;
                }
            }
        }
        if refused { Outcome::RefusedTheRows } else { Outcome::Served }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    RefusedToStart,
    RefusedTheTenant,
    RefusedTheRows,
    /// All rows, all right: the damage was not in what was read.
    Served,
}

fn listing(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    fn walk(root: &Path, directory: &Path, out: &mut BTreeMap<PathBuf, Vec<u8>>) {
        for entry in fs::read_dir(directory).expect("read a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                walk(root, &path, out);
            } else if path.is_file() {
                let relative = path.strip_prefix(root).expect("below the root").to_owned();
                out.insert(relative, fs::read(&path).expect("read a file"));
            }
        }
    }
    let mut out = BTreeMap::new();
    walk(directory, directory, &mut out);
    out
}

/// Copies files and their permissions; sockets stay behind.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("make a directory");
    fs::set_permissions(to, fs::metadata(from).expect("metadata").permissions()).expect("permissions");
    for entry in fs::read_dir(from).expect("read a directory") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &target);
        } else if path.is_file() {
            fs::copy(&path, &target).expect("copy a file");
        }
    }
}

fn is_wal(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "wal")
}

/// The tenant's directory of a file, `tenants/<id>`.
fn tenant_of(path: &Path) -> Option<PathBuf> {
    let mut parts = path.components();
    let first = parts.next()?;
    Some(Path::new(first.as_os_str()).join(parts.next()?)).filter(|_| parts.next().is_some())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_is_refused_by_name_or_harmless() {
    let mut damaged = Damaged::new().await;
    let mut refused = 0;
    for file in damaged.files() {
        let length = fs::metadata(damaged.server.data().join(&file)).expect("metadata").len();
        for part in [0.02, 0.5, 0.97] {
            damaged.restore();
            let path = damaged.server.data().join(&file);
            let mut bytes = fs::read(&path).expect("read");
            let at = (length as f64 * part) as usize;
            let Some(byte) = bytes.get_mut(at) else { continue };
            *byte ^= 0x40;
            fs::write(&path, bytes).expect("write");
            let damage = format!("byte {at} of {length} of {} flipped", file.display());
            // The last frame of a log may be torn: see above.
            if is_wal(&file) && part > 0.9 {
                continue;
            }
            refused += usize::from(damaged.outcome(&damage, &file).await != Outcome::Served);
        }
    }
    assert!(refused > 3, "of all the damage only {refused} were noticed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_or_empty_file_is_refused_by_name() {
    let mut damaged = Damaged::new().await;
    for file in damaged.files().into_iter().filter(|file| !is_wal(file)) {
        for half in [true, false] {
            damaged.restore();
            let path = damaged.server.data().join(&file);
            let bytes = fs::read(&path).expect("read");
            let length = if half { bytes.len() / 2 } else { 0 };
            fs::write(&path, &bytes[..length]).expect("write");
            let damage = format!("{} cut to {length} of {} bytes", file.display(), bytes.len());
            damaged.outcome(&damage, &file).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_file_is_never_taken_for_no_rows() {
    let mut damaged = Damaged::new().await;
    for file in damaged.files() {
        let Some(tenant) = tenant_of(&file) else { continue };
        damaged.restore();
        fs::remove_file(damaged.server.data().join(&file)).expect("remove");
        let damage = format!("{} removed from {}", file.display(), tenant.display());
        // An older manifest is kept for safety and may be spared; rows may not.
        damaged.outcome(&damage, &file).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_moved_to_another_tenant_does_not_open() {
    let mut damaged = Damaged::new().await;
    let files = damaged.files();
    let mut swapped = 0;
    for file in &files {
        let Some(tenant) = tenant_of(file) else { continue };
        let rest = file.strip_prefix(&tenant).expect("below the tenant");
        // The same file of the other tenant, or the nearest thing to it: same folder, same kind.
        let other = files.iter().find(|candidate| {
            tenant_of(candidate).is_some_and(|other| other != tenant)
                && candidate.extension() == file.extension()
                && candidate.parent().map(Path::components).map(Iterator::count)
                    == Some(tenant.components().count() + rest.components().count() - 1)
        });
        let Some(other) = other else { continue };
        damaged.restore();
        let data = damaged.server.data();
        fs::copy(damaged.pristine.path().join(other), data.join(file)).expect("swap");
        let damage = format!("{} put in the place of {}", other.display(), file.display());
        damaged.outcome(&damage, file).await;
        swapped += 1;
    }
    assert!(swapped >= 4, "only {swapped} swaps were possible");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_directory_moved_to_another_tenant_does_not_open() {
    let mut damaged = Damaged::new().await;
    let tenants: Vec<PathBuf> = damaged.files().iter().filter_map(|path| tenant_of(path)).collect();
    let (first, last) = (tenants.first().expect("a tenant"), tenants.last().expect("a tenant"));
    assert_ne!(first, last);
    let data = damaged.server.data();
    fs::rename(data.join(first), data.join("aside")).expect("rename");
    fs::rename(data.join(last), data.join(first)).expect("rename");
    fs::rename(data.join("aside"), data.join(last)).expect("rename");
    match damaged.server.try_start() {
        Err(ended) => assert!(!ended.log.contains("panicked"), "{}", ended.log),
        Ok(()) => {
            if let Ok(client) = damaged.server.login_with(&damaged.acme).connect().await {
                client.query("SELECT * FROM t", &[]).await.expect_err("another tenant's rows");
            }
        }
    }
}

#[test]
fn a_wrong_root_key_ends_with_78_and_writes_nothing() {
    let mut server = Server::start();
    server.tenant("acme");
    server.stop();
    let other = Server::start();
    fs::copy(other.data().join("root.key"), server.data().join("root.key")).expect("another root key");
    let before = listing(&server.data());
    let ended = server.try_start().expect_err("started with a wrong root key");
    assert_eq!(ended.status.code(), Some(CONFIGURATION), "{}", ended.log);
    assert!(ended.log.contains("root"), "{}", ended.log);
    let after = listing(&server.data());
    for (path, bytes) in &before {
        let sqlite = path.to_string_lossy().contains("-wal") || path.to_string_lossy().contains("-shm");
        assert!(sqlite || after.get(path) == Some(bytes), "{} was changed", path.display());
    }
}

#[test]
fn a_root_key_that_others_can_read_is_refused_with_the_fix() {
    let mut server = Server::start();
    server.stop();
    let key = server.data().join("root.key");
    for mode in [0o644, 0o640, 0o604, 0o660] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).expect("chmod");
        let ended = server.try_start().expect_err("started with an open root key");
        assert_eq!(ended.status.code(), Some(CONFIGURATION), "{mode:o}: {}", ended.log);
        assert!(ended.log.contains("chmod") && ended.log.contains("600"), "{mode:o}: {}", ended.log);
        assert!(ended.log.contains("root.key"), "{mode:o}: {}", ended.log);
    }
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("chmod");
    server.start_again();
}

#[test]
fn a_damaged_root_key_is_refused() {
    let mut server = Server::start();
    server.stop();
    let key = server.data().join("root.key");
    let good = fs::read(&key).expect("the root key");
    for bad in [&b""[..], b"short", &good[..good.len() / 2], &[&good[..], &good].concat()] {
        fs::write(&key, bad).expect("write");
        let ended = server.try_start().expect_err("started with a damaged root key");
        assert_eq!(ended.status.code(), Some(CONFIGURATION), "{}", ended.log);
    }
    fs::remove_file(&key).expect("remove");
    let ended = server.try_start().expect_err("started without a root key");
    assert_eq!(ended.status.code(), Some(CONFIGURATION), "{}", ended.log);
    fs::write(&key, good).expect("write");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("chmod");
    server.start_again();
}

#[test]
fn a_second_process_on_the_same_directory_is_refused() {
    let mut server = Server::start();
    let second = Command::new(binary())
        .args(["serve", "--pg-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--data"])
        .arg(server.data())
        .stdin(Stdio::null())
        .output()
        .expect("run sepal");
    assert!(!second.status.success());
    let told = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(told.contains("already") || told.contains("in use"), "{told}");
    assert!(server.is_running());
    // The first one's admin socket is still its own.
    server.admin(&["tenant", "list"]);
}

#[test]
fn admin_commands_say_that_no_server_runs() {
    let mut server = Server::start();
    server.stop();
    for arguments in
        [&["tenant", "list"][..], &["key", "list", "--tenant", "dev"], &["tenant", "create", "acme"]]
    {
        let output = server.try_admin(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(told.contains("no server"), "{arguments:?}: {told}");
    }
}

#[test]
fn tenant_names_are_checked() {
    let server = Server::start();
    let long = "x".repeat(300);
    for name in ["", "..", "a/b", "Ümlaut", "with space", "UPPER", "'; DROP", long.as_str(), "a\nb"] {
        let output = server.try_admin(&["tenant", "create", "--", name]);
        assert!(!output.status.success(), "{name:?} was taken");
        assert!(!String::from_utf8_lossy(&output.stderr).contains("panicked"), "{name:?}");
    }
    server.tenant("twice");
    assert!(!server.try_admin(&["tenant", "create", "twice"]).status.success());
    assert!(!server.try_admin(&["tenant", "drop", "nobody", "--yes"]).status.success());
    assert!(!server.try_admin(&["key", "revoke", "nokey"]).status.success());
}

/// Long chains become deep trees, and deep trees are walked by recursion: none may take the server down.
#[tokio::test(flavor = "multi_thread")]
async fn deep_statements_are_refused_and_the_server_lives() {
    let server = Server::start();
    let key = server.tenant("deep");
    let client = server.login_with(&key).connect().await.expect("connect");
    client.batch_execute("CREATE TABLE t (id int)").await.expect("a table");
    let chains = |operators: usize, relations: usize| {
        [
            format!("SELECT 1{}", " + 1".repeat(operators)),
            format!("SELECT id FROM t WHERE id = 1{}", " OR id = 2".repeat(8 * operators)),
            format!("SELECT 'a'{}", " || 'a'".repeat(operators)),
            format!("SELECT 1{}", "::int".repeat(operators)),
            format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(relations)),
            format!("SELECT 1 FROM t t0{}", (1..relations).map(|n| format!(", t t{n}")).collect::<String>()),
            format!(
                "WITH c0 AS (SELECT 1){} SELECT 1",
                (1..relations).map(|n| format!(", c{n} AS (SELECT * FROM c{})", n - 1)).collect::<String>()
            ),
            format!("DELETE FROM t WHERE id = 1{}", " + 1".repeat(operators - 1)),
        ]
    };
    for sql in chains(100, 60) {
        // Not every planner likes them; what it says must be said in words.
        if let Err(error) = client.simple_query(&sql).await {
            let error = error.as_db_error().unwrap_or_else(|| panic!("{}…: {error}", &sql[..40]));
            assert_ne!(error.code().code(), "XX000", "{}…: {error}", &sql[..40]);
        }
    }
    for sql in chains(20_000, 5_000) {
        let error = client.simple_query(&sql).await.expect_err("too deep");
        let error = error.as_db_error().unwrap_or_else(|| panic!("{}…: {error}", &sql[..40]));
        assert_eq!(error.code().code(), "54001", "{}…: {error}", &sql[..40]);
    }
    client.simple_query("SELECT 1").await.expect("alive");
}
