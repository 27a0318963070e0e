//! What backups there are. Needs no key: names and rows are not in what it reads.

use sepal_database::{Control, Error, ErrorKind, Result, SqlState};
use serde::Serialize;

use crate::{
    entry::{self, Entry},
    identity,
    repository::Repository,
    verify::{self, Verified},
};

/// A backup in a list.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    pub id: String,
    /// Microseconds since 1970.
    pub started_us: i64,
    pub finished_us: i64,
    pub tenants: u64,
    /// Tenants that are not in it although they should be.
    pub failed: u64,
    /// All that belongs to it, and what it stored itself.
    pub bytes: u64,
    pub new_bytes: u64,
    pub verified: Option<Verified>,
    /// Why its entry cannot be read; nothing else is known of it then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub damaged: Option<String>,
    /// Whose log goes on after it (`names`).
    #[serde(skip)]
    pub(crate) line: String,
}

impl Summary {
    pub fn of(entry: &Entry) -> Self {
        Self {
            id: entry.id.clone(),
            started_us: entry.started_us,
            finished_us: entry.finished_us,
            tenants: entry.tenants.len() as u64,
            failed: entry.failed.len() as u64,
            bytes: entry.bytes(),
            new_bytes: entry.new_bytes,
            verified: None,
            damaged: None,
            line: entry.line.clone(),
        }
    }

    fn damaged(id: String, error: &Error) -> Self {
        Self {
            id,
            started_us: 0,
            finished_us: 0,
            tenants: 0,
            failed: 0,
            bytes: 0,
            new_bytes: 0,
            verified: None,
            damaged: Some(error.message().to_owned()),
            line: String::new(),
        }
    }
}

/// The same as a server sees it: only what it wrote itself.
pub(crate) async fn own(repository: &Repository, control: &Control) -> Result<Vec<Summary>> {
    identity::must_be_made(repository).await?;
    let mut found = Vec::new();
    for entry in entry::own(repository, control).await? {
        let verified = verify::remembered(repository, &entry.id, Some(control)).await?;
        found.push(Summary { verified, ..Summary::of(&entry) });
    }
    Ok(found)
}

/// All backups, oldest first. Nothing is authenticated: that takes a key. One whose entry is damaged is told, and hides
/// no other.
pub async fn list(repository: &Repository) -> Result<Vec<Summary>> {
    identity::must_be_made(repository).await?;
    let mut found = Vec::new();
    for id in entry::ids(repository).await? {
        let read = entry::read(repository, &id).await;
        match read {
            Ok(read) => {
                let verified = match verify::remembered(repository, &id, None).await {
                    Err(error) if error.kind() == ErrorKind::Corrupt => None,
                    remembered => remembered?,
                };
                found.push(Summary { verified, ..Summary::of(&read.entry) });
            }
            Err(error) if error.kind() == ErrorKind::Corrupt => found.push(Summary::damaged(id, &error)),
            // Another process prunes.
            Err(error) if error.state() == SqlState::UndefinedObject => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// One backup's entry; `latest` for the newest.
pub async fn show(repository: &Repository, id: &str) -> Result<(Entry, Option<Verified>)> {
    identity::must_be_made(repository).await?;
    let target = crate::restore::Target::named(id);
    let entry = crate::restore::choose(repository, &target).await?.entry;
    let verified = verify::remembered(repository, &entry.id, None).await?;
    Ok((entry, verified))
}
