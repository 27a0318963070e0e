//! How far the logs in a repository go: what tells a tenant that wrote nothing more from one whose log is missing.
//!
//! ```text
//! archived/<line>.json := one line of JSON | '\n' | {"mac":"<hex>"} | '\n'      as an entry
//! ```
//! [`crate::Archive`] writes it after each round that carried over all there was; a restore to a moment reads it, and
//! the entries of later backups.

use sepal_database::{Control, ErrorKind, Result, TenantId};
use serde::{Deserialize, Serialize};

use crate::{
    entry::{self, Entry, FORMAT, check_version},
    limits, names,
    repository::{Repository, damaged},
};

/// What a round leaves.
#[derive(Debug, Serialize, Deserialize)]
struct Word {
    version: u32,
    line: String,
    /// What was committed up to then, in microseconds since 1970; what a server left that ended before it could archive
    /// it as well.
    until_us: i64,
}

/// What is known of a line's logs besides what is in them.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    until_us: Option<i64>,
    later: Vec<Entry>,
}

/// Notes that everything up to a moment is archived.
pub(crate) async fn note(
    repository: &Repository,
    control: &Control,
    line: &str,
    until_us: i64,
) -> Result<()> {
    let word = Word { version: FORMAT, line: line.to_owned(), until_us };
    let bytes = entry::signed(control, &word)?;
    repository.put(&names::archived(line), bytes).await.map(drop)
}

impl Reach {
    /// Of the line of a backup, from that one on.
    pub(crate) async fn load(repository: &Repository, control: &Control, backup: &Entry) -> Result<Self> {
        let later = entry::later(repository, control, backup).await?;
        Ok(Self { until_us: until(repository, control, &backup.line).await?, later })
    }

    /// Whether all that a tenant committed up to the moment is there, if the parts of its log have no gap.
    pub(crate) fn covers(&self, tenant: TenantId, moment_us: i64) -> bool {
        let id = tenant.to_string();
        let has = |entry: &Entry| {
            entry.started_us >= moment_us
                && entry.failure_of(tenant).is_none()
                && entry.tenants.iter().any(|found| found.tenant == id)
        };
        self.until_us.is_some_and(|until_us| until_us >= moment_us) || self.later.iter().any(has)
    }
}

/// One that is damaged, or another instance's, says nothing.
async fn until(repository: &Repository, control: &Control, line: &str) -> Result<Option<i64>> {
    let name = names::archived(line);
    let Some(bytes) = repository.get(&name, limits::SMALL_BYTES).await? else { return Ok(None) };
    match decode(&name, &bytes, control, line) {
        Ok(until_us) => Ok(Some(until_us)),
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            tracing::warn!(%error, "what the backup repository says of its logs does not count");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn decode(name: &str, bytes: &[u8], control: &Control, line: &str) -> Result<i64> {
    let (text, mac) = entry::lines(name, bytes)?;
    entry::check_mac(control, name, (&text, &mac))?;
    let word: Word = serde_json::from_str(&text).map_err(|error| damaged(name, error))?;
    check_version(name, word.version)?;
    if word.line != line {
        return Err(damaged(name, format!("it is of line {:?}", word.line)));
    }
    Ok(word.until_us)
}
