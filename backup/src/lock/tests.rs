//! Who counts as at work.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

use super::*;
use crate::repository::{Location, Shelf, Upload};

/// A place whose objects cannot be listed.
#[derive(Debug)]
struct Unlisted(Arc<dyn Shelf>);

#[async_trait]
impl Shelf for Unlisted {
    async fn begin(&self, name: &str, bytes: u64) -> Result<Box<dyn Upload>> {
        self.0.begin(name, bytes).await
    }

    async fn open(&self, name: &str) -> Result<Option<BoxStream<'static, Result<Bytes>>>> {
        self.0.open(name).await
    }

    async fn list(&self, _: &str) -> Result<Vec<Listed>> {
        Err(Error::new(SqlState::IoError, "the place does not answer"))
    }

    async fn remove(&self, name: &str) -> Result<()> {
        self.0.remove(name).await
    }
}

fn listed(name: &str, modified: i64) -> Listed {
    Listed { name: name.to_owned(), bytes: 2, modified }
}

/// The place's clock may be hours away from ours.
#[tokio::test]
async fn locks_are_judged_by_the_clock_that_dates_them() {
    let dir = tempfile::tempdir().unwrap();
    let repository = Repository::open(&Location::Directory(dir.path().to_owned())).unwrap();
    let lock = Lock::take(&repository, Job::Prune).await.unwrap();
    for place in [-20_000, 0, 1_000_000_000_000] {
        let met = |age: i64| {
            let held = [listed(&lock.name, place), listed("locks/backup-0a", place - age)];
            lock.meets(&held, Job::Backup)
        };
        assert_eq!(met(STALE_SECONDS - 1).as_deref(), Some("locks/backup-0a"));
        assert_eq!(met(-5).as_deref(), Some("locks/backup-0a"));
        assert_eq!(met(STALE_SECONDS), None);
        assert_eq!(lock.meets(&[listed(&lock.name, place)], Job::Prune).as_deref(), Some(lock.name.as_str()));
    }
    assert!(is_taken(&repository).await.unwrap());
    lock.hold(async { Ok(()) }).await.unwrap();
    assert!(!is_taken(&repository).await.unwrap());
}

#[tokio::test]
async fn a_job_ends_with_its_lock() {
    let dir = tempfile::tempdir().unwrap();
    let repository = Repository::open(&Location::Directory(dir.path().to_owned())).unwrap();
    let lock = Lock::take(&repository, Job::Backup).await.unwrap();
    lock.lost.cancel();
    let error = lock.hold(std::future::pending::<Result<()>>()).await.unwrap_err();
    assert_eq!(error.state(), SqlState::ObjectInUse);
    assert!(repository.list(names::LOCKS).await.unwrap().is_empty(), "it is given back");
}

#[tokio::test]
async fn a_lock_that_was_not_taken_is_in_nobodys_way() {
    let dir = tempfile::tempdir().unwrap();
    let repository = Repository::open(&Location::Directory(dir.path().to_owned())).unwrap();
    let prune = Lock::take(&repository, Job::Prune).await.unwrap();
    assert_eq!(Lock::take(&repository, Job::Backup).await.err().unwrap().state(), SqlState::ObjectInUse);
    prune.hold(async { Ok(()) }).await.unwrap();
    let unlisted = repository.behind(|shelf| Arc::new(Unlisted(shelf)));
    assert_eq!(Lock::take(&unlisted, Job::Backup).await.err().unwrap().state(), SqlState::IoError);
    assert!(repository.list(names::LOCKS).await.unwrap().is_empty(), "what was put down is taken back");
}
