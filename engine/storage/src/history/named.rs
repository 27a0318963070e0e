//! Named snapshots: a version that stays until its name is dropped.
//!
//! `database` creates and drops them. The newest manifest lists them, so a name is durable as any manifest is.

use sepal_types::Lsn;

use crate::{BlobBuilder, StoreError, TenantStore, manifest::NamedEntry};

/// A snapshot that has a name in its environment. It shows the environment's tables at one commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedSnapshot {
    pub environment: String,
    pub name: String,
    /// The last commit that it shows.
    pub lsn: Lsn,
    /// When that was made, in microseconds since 1970.
    pub time_us: i64,
    /// When the snapshot was.
    pub created_us: i64,
    /// Who created it.
    pub by: String,
    pub comment: Option<String>,
    /// Live rows of the environment's tables.
    pub rows: u64,
    /// Of files that neither the tables of today nor another named snapshot need.
    pub bytes: u64,
}

impl TenantStore {
    /// Names all that is committed now. Makes a checkpoint, so that the snapshot needs no log; the builder is as in
    /// [`Self::checkpoint`]. Durable on return.
    ///
    /// Errors: [`StoreError::DuplicateSnapshot`].
    pub fn create_snapshot(
        &self,
        builder: &dyn BlobBuilder,
        environment: &str,
        name: &str,
        by: &str,
        comment: Option<&str>,
    ) -> Result<NamedSnapshot, StoreError> {
        let mut maintenance = self.maintenance.lock();
        self.poison.check()?;
        let is_it = |named: &NamedEntry| named.environment == environment && named.name == name;
        if maintenance.manifest.snapshots.iter().any(is_it) {
            return Err(StoreError::DuplicateSnapshot { name: name.to_owned() });
        }
        self.checkpoint_locked(&mut maintenance, builder)?;
        let mut next = maintenance.successor();
        let entry = NamedEntry {
            environment: environment.to_owned(),
            name: name.to_owned(),
            manifest: next.number,
            lsn: next.lsn,
            time_us: next.time_us,
            created_us: self.clock.now_us(),
            by: by.to_owned(),
            comment: comment.map(ToOwned::to_owned),
            rows: next.rows(environment),
        };
        next.snapshots.push(entry.clone());
        self.commit_manifest(&mut maintenance, next)?;
        self.collect_later(&maintenance);
        Ok(public(entry, 0))
    }

    /// Lets a named snapshot go, with what only it kept.
    ///
    /// Errors: [`StoreError::NoSuchSnapshot`].
    pub fn drop_snapshot(&self, environment: &str, name: &str) -> Result<(), StoreError> {
        let mut maintenance = self.maintenance.lock();
        self.poison.check()?;
        let mut next = maintenance.successor();
        let before = next.snapshots.len();
        next.snapshots.retain(|named| named.environment != environment || named.name != name);
        if next.snapshots.len() == before {
            return Err(StoreError::NoSuchSnapshot { name: name.to_owned() });
        }
        self.commit_manifest(&mut maintenance, next)?;
        self.collect_later(&maintenance);
        Ok(())
    }

    /// Of every environment, by name.
    pub fn snapshots(&self) -> Vec<NamedSnapshot> {
        let named = self.history.all_named().into_iter();
        let mut snapshots: Vec<NamedSnapshot> = named.map(|(entry, bytes)| public(entry, bytes)).collect();
        snapshots.sort_by(|a, b| (&a.environment, &a.name).cmp(&(&b.environment, &b.name)));
        snapshots
    }
}

fn public(entry: NamedEntry, bytes: u64) -> NamedSnapshot {
    let NamedEntry { environment, name, manifest: _, lsn, time_us, created_us, by, comment, rows } = entry;
    NamedSnapshot { environment, name, lsn, time_us, created_us, by, comment, rows, bytes }
}
