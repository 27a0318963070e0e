//! Bytes of a whole data directory, control.db included, flipped in turn: an error or the right answer.
//!
//! A tenant's files must be named by the error. Of control.db a wrong byte may also look like a key that is not known:
//! then nobody comes in, and the reason is told to no client. `SEPAL_FLIPS=all` takes every byte.

use std::{
    collections::BTreeMap,
    num::NonZero,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use sepal_control::Scopes;
use sepal_crypto::Key;
use sepal_types::{Error, Result, SqlState};

use crate::{
    Database, DatabaseOptions,
    fixtures::{Fixture, run, try_run},
    maintain::checkpoint,
};

/// Bytes of each file, evenly spread, where not all are taken.
const SAMPLES: usize = 12;
const ROWS: i64 = 40;

/// A closed directory, the token to come in with.
async fn furnished() -> (tempfile::TempDir, Key, String) {
    let fixture = Fixture::new();
    let control = fixture.database.control();
    let (_, token) =
        control.create_key(fixture.tenant_id(), None, Scopes::READ_WRITE, "flips", None).unwrap();
    let mut session = fixture.session().await;
    run(&mut session, "CREATE TABLE t (id int PRIMARY KEY, s text, v vector(4))").await;
    let row = "('[' || x || ',1,1,1]')::vector";
    let fill = format!("INSERT INTO t SELECT x, 'row ' || x, {row} FROM generate_series(1, {ROWS}) AS g(x)");
    run(&mut session, &fill).await;
    checkpoint(&*fixture.tenant().await).unwrap();
    run(&mut session, "DELETE FROM t WHERE id = 7").await;
    checkpoint(&*fixture.tenant().await).unwrap();
    run(&mut session, "INSERT INTO t VALUES (7, 'row 7', '[7,1,1,1]')").await;
    drop(session);
    fixture.database.shutdown().await;
    let image = tempfile::tempdir().unwrap();
    for (path, bytes) in listing(&fixture.data()) {
        write(image.path(), &path, &bytes);
    }
    (image, fixture.root.clone(), token.expose().to_owned())
}

/// The ids of the rows that are as they were written.
async fn ask(data: &Path, root: &Key, token: &str) -> Result<Vec<i64>> {
    let options = || DatabaseOptions::new(data.to_owned(), root.clone(), 16 << 20);
    let mut database = Database::open(options());
    // Background work of the last one may be about to end.
    for _ in 0..500 {
        let Err(error) = &database else { break };
        if error.state() != SqlState::ObjectInUse {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        database = Database::open(options());
    }
    let database = database?;
    let answer = answers(&database, token).await;
    database.shutdown().await;
    answer
}

async fn answers(database: &Arc<Database>, token: &str) -> Result<Vec<i64>> {
    let principal = database.control().authenticate_token(token).map_err(Error::from)?;
    let mut session = database.connect(principal, "", &[]).await?;
    let sql = "SELECT id FROM t WHERE s = 'row ' || id AND v::text = '[' || id || ',1,1,1]' ORDER BY id";
    try_run(&mut session, sql).await
}

fn positions(length: usize) -> Vec<usize> {
    let all = std::env::var("SEPAL_FLIPS").is_ok_and(|flips| flips == "all");
    let step = if all { 1 } else { (length / SAMPLES).max(1) };
    (0..length).step_by(step).collect()
}

/// One drive's copy of the directory, in which one byte at a time is wrong.
struct Copy {
    image: tempfile::TempDir,
    content: Arc<BTreeMap<PathBuf, Vec<u8>>>,
    root: Key,
    token: String,
}

impl Copy {
    fn of(content: &Arc<BTreeMap<PathBuf, Vec<u8>>>, root: &Key, token: &str) -> Self {
        let image = tempfile::tempdir().unwrap();
        for (path, bytes) in content.iter() {
            write(image.path(), path, bytes);
        }
        Self { image, content: Arc::clone(content), root: root.clone(), token: token.to_owned() }
    }

    /// Whether a wrong bit of the byte at `at` of a file was noticed; panics at a wrong answer.
    async fn flip(&self, path: &Path, at: usize) -> bool {
        restore(self.image.path(), &self.content);
        let mut flipped = self.content[path].clone();
        flipped[at] ^= 1 << (at % 8);
        write(self.image.path(), path, &flipped);
        let place = format!("{} byte {at}", path.display());
        match ask(self.image.path(), &self.root, &self.token).await {
            Ok(found) => {
                assert_eq!(found, (1..=ROWS).collect::<Vec<i64>>(), "{place}");
                false
            }
            Err(error) => {
                assert_ne!(error.state().code(), "XX000", "{place}: {error}");
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                let told = is_control(path) || error.to_string().contains(&name);
                assert!(told, "{place}: the file is not named: {error}");
                true
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_flipped_byte_gives_a_wrong_answer() {
    let (image, root, token) = furnished().await;
    let content = Arc::new(listing(image.path()));
    let expected: Vec<i64> = (1..=ROWS).collect();
    assert!(content.len() >= 5, "{:?}", content.keys());
    let data = content.iter().filter(|(path, _)| is_data(path));
    let flips: Vec<(PathBuf, usize)> = data
        .flat_map(|(path, bytes)| positions(bytes.len()).into_iter().map(move |at| (path.clone(), at)))
        .collect();
    let flips = Arc::new(flips);
    let (next, noticed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let workers = std::thread::available_parallelism().map_or(1, NonZero::get);
    let workers: Vec<_> = (0..workers)
        .map(|_| {
            let copy = Copy::of(&content, &root, &token);
            let (flips, next, noticed, expected) =
                (Arc::clone(&flips), Arc::clone(&next), Arc::clone(&noticed), expected.clone());
            tokio::spawn(async move {
                assert_eq!(ask(copy.image.path(), &copy.root, &copy.token).await.unwrap(), expected);
                while let Some((path, at)) = flips.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let counted = usize::from(copy.flip(path, *at).await && !is_control(path));
                    noticed.fetch_add(counted, Ordering::Relaxed);
                }
                restore(copy.image.path(), &copy.content);
                assert_eq!(ask(copy.image.path(), &copy.root, &copy.token).await.unwrap(), expected);
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
    // Of control.db most bytes are room that SQLite does not use yet.
    let sealed = flips.iter().filter(|(path, _)| !is_control(path)).count();
    let noticed = noticed.load(Ordering::Relaxed);
    eprintln!("{} bytes flipped, {sealed} of them sealed; of these {noticed} noticed", flips.len());
    assert!(noticed * 4 > sealed, "of {sealed} flips only {noticed} were noticed");
}

fn is_control(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "control.db")
}

/// What SQLite rebuilds, and the lock, hold nothing.
fn is_data(path: &Path) -> bool {
    let name = path.to_string_lossy();
    !["-wal", "-shm", "-journal", "lock"].iter().any(|end| name.ends_with(end))
}

fn write(root: &Path, path: &Path, bytes: &[u8]) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

fn restore(root: &Path, content: &BTreeMap<PathBuf, Vec<u8>>) {
    for (path, bytes) in listing(root) {
        match content.get(&path) {
            None => std::fs::remove_file(root.join(path)).unwrap(),
            Some(whole) if *whole != bytes => write(root, &path, whole),
            Some(_) => {}
        }
    }
    for (path, bytes) in content {
        if !root.join(path).exists() {
            write(root, path, bytes);
        }
    }
}

/// Every file, by its path below the root.
fn listing(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else {
                let bytes = std::fs::read(&path).unwrap();
                found.insert(path.strip_prefix(root).unwrap().to_owned(), bytes);
            }
        }
    }
    found
}
