//! A database with one tenant, and ways to restart and crash it, for this crate's tests.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arrow::{array::AsArray, compute::cast, datatypes::DataType, datatypes::Int64Type};
use sepal_control::{Principal, Scopes, TenantName};
use sepal_crypto::Key;
use sepal_types::{Result, TenantId};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::{Database, DatabaseOptions, Outcome, Session, directory_lock::DirectoryLock, tenant::OpenTenant};

const TENANT: &str = "acme";

/// An open database in a directory of its own.
pub struct Fixture {
    directory: TempDir,
    pub root: Key,
    pub database: Arc<Database>,
}

impl Fixture {
    pub fn new() -> Self {
        Self::new_with(|_| {})
    }

    /// With options of its own.
    pub fn new_with(adjust: impl FnOnce(&mut DatabaseOptions)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = Key::random();
        Database::init(directory.path(), root.clone()).unwrap();
        let fixture = Self::open_with(directory, root, adjust);
        fixture.database.control().create_tenant(&TenantName::parse(TENANT).unwrap()).unwrap();
        fixture
    }

    fn open(directory: TempDir, root: Key) -> Self {
        Self::open_with(directory, root, |_| {})
    }

    /// The directory and its root key, once the database is gone. It must have been shut down.
    pub fn close(self) -> (TempDir, Key) {
        let Self { directory, root, database } = self;
        let_go(database, directory.path());
        (directory, root)
    }

    pub fn reopen(directory: TempDir, root: Key) -> Self {
        Self::open(directory, root)
    }

    fn open_with(directory: TempDir, root: Key, adjust: impl FnOnce(&mut DatabaseOptions)) -> Self {
        let mut options = DatabaseOptions::new(directory.path().to_owned(), root.clone(), 64 << 20);
        adjust(&mut options);
        let database = Database::open(options).unwrap();
        Self { directory, root, database }
    }

    pub fn data(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    /// Closes and opens again. Sessions must be gone.
    pub async fn restart(self) -> Self {
        let Self { directory, root, database } = self;
        database.shutdown().await;
        let_go(database, directory.path());
        Self::open(directory, root)
    }

    /// Opens what a kill at this moment leaves.
    pub fn crash(&self) -> Self {
        self.crash_with(|_| {})
    }

    /// The same with options of its own.
    pub fn crash_with(&self, adjust: impl FnOnce(&mut DatabaseOptions)) -> Self {
        let image = tempfile::tempdir().unwrap();
        copy(self.directory.path(), image.path());
        Self::open_with(image, self.root.clone(), adjust)
    }

    pub fn tenant_id(&self) -> TenantId {
        self.database.control().tenant_by_name(TENANT).unwrap().unwrap().id
    }

    pub async fn tenant(&self) -> Arc<OpenTenant> {
        self.database.tenant(self.tenant_id()).await.unwrap()
    }

    pub fn principal(&self, scopes: Scopes) -> Principal {
        let control = self.database.control();
        let (_, token) = control.create_key(self.tenant_id(), None, scopes, "test", None).unwrap();
        control.authenticate_token(token.expose()).unwrap()
    }

    pub async fn session(&self) -> Session {
        self.database.connect(self.principal(Scopes::READ_WRITE), "", &[]).await.unwrap()
    }
}

/// Returns once nobody has the database any more, and so its directory: tasks that end may hold it a moment longer.
fn let_go(database: Arc<Database>, directory: &Path) {
    let held = Arc::downgrade(&database);
    drop(database);
    // Who lets go of it last may be at the end of that still.
    while held.strong_count() > 0 || DirectoryLock::take(directory).is_err() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Runs statements one by one; the numbers in the first column of the last one's rows.
pub async fn try_run(session: &mut Session, sql: &str) -> Result<Vec<i64>> {
    let mut numbers = Vec::new();
    for statement in session.split(sql)? {
        numbers.clear();
        let prepared = session.prepare_now(statement).await?;
        let Outcome::Rows(mut rows) = session.execute(&prepared, Vec::new()).await? else { continue };
        while let Some(batch) = rows.next().await {
            let column = cast(batch?.column(0), &DataType::Int64).unwrap();
            numbers.extend(column.as_primitive::<Int64Type>().iter().flatten());
        }
    }
    Ok(numbers)
}

pub async fn run(session: &mut Session, sql: &str) -> Vec<i64> {
    try_run(session, sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
}

/// The SQLSTATE of a statement that must fail; the transaction it was in has failed, as over the wire.
pub async fn refused(session: &mut Session, sql: &str) -> &'static str {
    let Err(error) = try_run(session, sql).await else { panic!("{sql} went through") };
    session.fail_transaction();
    error.state().code()
}

/// A statement that is expected to wait.
pub struct Waiting {
    pid: i32,
    task: JoinHandle<(Session, Result<Vec<i64>>)>,
}

impl Waiting {
    /// Returns once the session stands in line.
    pub async fn begin(fixture: &Fixture, mut session: Session, sql: &str) -> Self {
        let (pid, sql) = (session.backend_pid(), sql.to_owned());
        let task = tokio::spawn(async move {
            let outcome = try_run(&mut session, &sql).await;
            (session, outcome)
        });
        let waiting = Self { pid, task };
        waiting.until(fixture, |blocking| !blocking.is_empty()).await;
        waiting
    }

    /// Returns once it waits for this session, and for no other.
    pub async fn is_behind(&self, fixture: &Fixture, pid: i32) {
        self.until(fixture, |blocking| blocking == [pid]).await;
    }

    async fn until(&self, fixture: &Fixture, is_so: impl Fn(&[i32]) -> bool) {
        let locks = fixture.tenant().await.locks.clone();
        while !is_so(&locks.blocking(self.pid)) {
            assert!(!self.task.is_finished(), "it did not wait");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub async fn end(self) -> (Session, Result<Vec<i64>>) {
        self.task.await.unwrap()
    }

    pub async fn ok(self) -> (Session, Vec<i64>) {
        let (session, outcome) = self.end().await;
        (session, outcome.unwrap())
    }

    pub async fn refused(self) -> (Session, &'static str) {
        let (mut session, outcome) = self.end().await;
        session.fail_transaction();
        (session, outcome.unwrap_err().state().code())
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}
