//! The catalogue's entry of one backup: what belongs to it, object by object. Written last, so that a backup which has
//! one is whole.
//!
//! ```text
//! backups/<backup>.json := entry, one line of JSON | '\n' | {"mac":"<hex>"} | '\n'
//! mac := HMAC-SHA-256 over the first line, under a key derived from the root key
//! ```
//! The first line holds ids, lengths, hashes and times only. What names a table or counts rows is `facts`, sealed under
//! a key derived from its tenant's: it ends with the tenant.

use base64::{Engine, engine::general_purpose::STANDARD};
use sepal_database::{
    Control, Error, ErrorKind, Result, SqlState, TenantId,
    backup::{FileId, Lsn, TableFacts, entry_mac, open_facts, seal_facts},
    sealing::hex,
};
use serde::{Deserialize, Serialize};

use crate::{
    limits, names,
    repository::{Repository, damaged},
};

/// What this program writes, and the newest that it reads.
pub const FORMAT: u32 = 2;
/// From this format on a drop leaves a tombstone (`keys`), so keys that are not there were lost.
pub(crate) const TELLS_DROPS: u32 = 2;

/// One backup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    pub version: u32,
    pub id: String,
    /// Which data directory's life it is of (`names`).
    pub line: String,
    /// Microseconds since 1970.
    pub started_us: i64,
    /// Nothing in it is of a later moment.
    pub finished_us: i64,
    /// The version of Sepal that made it.
    pub program: String,
    /// Which recovery package its root key is in.
    pub recovery: String,
    pub control: Object,
    pub tenants: Vec<TenantEntry>,
    /// Tenants that could not be read. They are in this backup as of an earlier one, or not at all.
    #[serde(default)]
    pub failed: Vec<FailedTenant>,
    /// What it stored itself; the rest was there.
    pub new_bytes: u64,
}

/// A tenant that is not in a backup as it should be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FailedTenant {
    pub tenant: String,
    /// What kind of error it was: anybody who has the repository reads it.
    pub why: String,
    /// The error, for whoever made the backup. It may name what others must not know, and is not stored.
    #[serde(skip)]
    pub error: String,
    /// Another backup that is made now would have it. Not stored either.
    #[serde(skip)]
    pub again: bool,
}

impl FailedTenant {
    pub(crate) fn new(tenant: TenantId, error: &Error) -> Self {
        let why = match error.kind() {
            ErrorKind::Corrupt => "its files, or what the repository has of it, were damaged",
            ErrorKind::Unavailable => "its own key provider did not answer, or refused",
            ErrorKind::Exhausted => "its files could not be read",
            _ => "it could not be read",
        };
        let why = format!("{why} (SQLSTATE {})", error.state().code());
        Self { tenant: tenant.to_string(), why, error: error.to_string(), again: false }
    }
}

/// An object that is stored once and belongs to every backup that names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    pub name: String,
    pub bytes: u64,
    pub sha256: String,
}

/// One tenant at one commit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TenantEntry {
    pub tenant: String,
    /// Which of its sets of wrapped keys (`keys`).
    pub keys: String,
    pub lsn: u64,
    pub time_us: i64,
    /// The newest, and those of named snapshots.
    pub manifests: Vec<Object>,
    pub files: Vec<Object>,
    pub log: Vec<LogFile>,
    /// The backup that `facts` is sealed for: an earlier one where nothing has changed since.
    pub facts_of: String,
    /// Base64.
    pub facts: String,
}

/// A log file, up to a length.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFile {
    pub number: u64,
    pub file: String,
    pub bytes: u64,
    /// Names of objects, in order.
    pub parts: Vec<String>,
}

/// The second line.
#[derive(Serialize, Deserialize)]
struct Seal {
    mac: String,
}

/// An entry as it was read, with what its MAC covers.
#[derive(Clone, Debug)]
pub struct ReadEntry {
    pub entry: Entry,
    line: String,
    mac: String,
}

impl Entry {
    /// The object's bytes. Errors: 54000 there are too many tenants.
    pub(crate) fn encode(&self, control: &Control) -> Result<Vec<u8>> {
        let bytes = signed(control, self)?;
        limits::check(&names::entry(&self.id), &bytes, limits::ENTRY_BYTES)?;
        Ok(bytes)
    }

    /// Why a tenant could not be read when it was made.
    pub(crate) fn failure_of(&self, tenant: TenantId) -> Option<&FailedTenant> {
        self.failed.iter().find(|failed| failed.tenant == tenant.to_string())
    }

    /// Stored bytes that belong to it, whether it stored them itself or not.
    pub fn bytes(&self) -> u64 {
        let tenants: u64 = self.tenants.iter().map(TenantEntry::bytes).sum();
        tenants + self.control.bytes
    }

    /// Names of everything that it needs, except keys.
    pub(crate) fn objects(&self) -> impl Iterator<Item = &str> {
        let tenants = self.tenants.iter().flat_map(|tenant| {
            let files = tenant.files.iter().chain(&tenant.manifests).map(|object| object.name.as_str());
            files.chain(tenant.log.iter().flat_map(|file| file.parts.iter().map(String::as_str)))
        });
        tenants.chain([self.control.name.as_str()])
    }
}

impl TenantEntry {
    pub(crate) fn id(&self) -> Result<TenantId> {
        TenantId::parse(&self.tenant)
            .ok_or_else(|| damaged("a catalogue entry", format!("\"{}\" is no tenant", self.tenant)))
    }

    pub(crate) fn lsn(&self) -> Lsn {
        Lsn(self.lsn)
    }

    pub fn bytes(&self) -> u64 {
        let files: u64 = self.files.iter().chain(&self.manifests).map(|object| object.bytes).sum();
        let log: u64 = self.log.iter().map(|file| file.bytes).sum();
        files + log
    }

    /// What was noted of its tables.
    pub(crate) fn open_facts(&self, control: &Control) -> Result<Vec<TableFacts>> {
        let broken =
            |why: String| damaged("a catalogue entry", format!("facts of tenant {}: {why}", self.tenant));
        let sealed = STANDARD.decode(&self.facts).map_err(|error| broken(error.to_string()))?;
        let plain = open_facts(control, self.id()?, &self.facts_of, &sealed)?;
        serde_json::from_slice(&plain).map_err(|error| broken(error.to_string()))
    }
}

impl LogFile {
    pub(crate) fn file_id(&self) -> Result<FileId> {
        FileId::parse(&self.file)
            .ok_or_else(|| damaged("a catalogue entry", format!("\"{}\" is no log file's id", self.file)))
    }
}

/// Facts as an entry keeps them.
pub(crate) fn seal(
    control: &Control,
    tenant: TenantId,
    backup: &str,
    facts: &[TableFacts],
) -> Result<String> {
    let plain = serde_json::to_vec(facts).map_err(|error| Error::bug(format!("facts as JSON: {error}")))?;
    Ok(STANDARD.encode(seal_facts(control, tenant, backup, &plain)?))
}

/// Two lines: the value, and its MAC.
pub(crate) fn signed(control: &Control, value: &impl Serialize) -> Result<Vec<u8>> {
    let unfit = |error: serde_json::Error| Error::bug(format!("a value of a backup as JSON: {error}"));
    let mut bytes = serde_json::to_vec(value).map_err(unfit)?;
    let seal = Seal { mac: hex(&entry_mac(control, &bytes)) };
    bytes.push(b'\n');
    bytes.extend(serde_json::to_vec(&seal).map_err(unfit)?);
    bytes.push(b'\n');
    Ok(bytes)
}

/// The two lines, read.
pub(crate) fn lines(name: &str, bytes: &[u8]) -> Result<(String, String)> {
    let text = std::str::from_utf8(bytes).map_err(|error| damaged(name, error))?;
    let (line, seal) = text.split_once('\n').ok_or_else(|| damaged(name, "its end is missing"))?;
    let seal: Seal = serde_json::from_str(seal.trim()).map_err(|error| damaged(name, error))?;
    Ok((line.to_owned(), seal.mac))
}

/// Whether the second line fits the first: this instance wrote it, and nobody changed it since.
pub(crate) fn check_mac(control: &Control, name: &str, (line, mac): (&str, &str)) -> Result<()> {
    if hex(&entry_mac(control, line.as_bytes())) == mac {
        return Ok(());
    }
    Err(damaged(name, "its authentication does not fit: it was changed, or is another instance's"))
}

impl ReadEntry {
    pub(crate) fn decode(name: &str, bytes: &[u8]) -> Result<Self> {
        let (line, mac) = lines(name, bytes)?;
        let version: Version = serde_json::from_str(&line).map_err(|error| damaged(name, error))?;
        check_version(name, version.version)?;
        let entry: Entry = serde_json::from_str(&line).map_err(|error| damaged(name, error))?;
        // Both become names of other objects, before anybody can check the authentication.
        if names::backup_of(name) != Some(entry.id.as_str()) {
            return Err(damaged(name, format!("it says that it is backup {:?}", entry.id)));
        }
        if entry.control.name != names::control(&entry.id) {
            return Err(damaged(
                name,
                format!("its control.db is not where it should be: {:?}", entry.control.name),
            ));
        }
        Ok(Self { entry, line, mac })
    }

    /// Whether this instance made it, and nobody changed it since.
    pub(crate) fn check(&self, control: &Control) -> Result<()> {
        check_mac(control, &names::entry(&self.entry.id), (&self.line, &self.mac))
    }
}

/// The part of every versioned object that is read first.
#[derive(Deserialize)]
pub(crate) struct Version {
    pub version: u32,
}

pub(crate) fn check_version(name: &str, version: u32) -> Result<()> {
    if (1..=FORMAT).contains(&version) {
        return Ok(());
    }
    Err(Error::new(
        SqlState::FeatureNotSupported,
        format!("{name} has format {version}, this program reads up to {FORMAT}"),
    )
    .with_hint("Use the version of Sepal that made it, or a newer one."))
}

/// Ids of all backups, oldest first.
pub(crate) async fn ids(repository: &Repository) -> Result<Vec<String>> {
    let listed = repository.list(names::BACKUPS).await?;
    let mut ids: Vec<String> =
        listed.iter().filter_map(|object| names::backup_of(&object.name)).map(str::to_owned).collect();
    ids.sort();
    Ok(ids)
}

/// One entry. Its MAC is not checked.
pub(crate) async fn read(repository: &Repository, id: &str) -> Result<ReadEntry> {
    let name = names::entry(id);
    let found = if names::is_backup(id) { repository.get(&name, limits::ENTRY_BYTES).await? } else { None };
    match found {
        Some(bytes) => ReadEntry::decode(&name, &bytes),
        None => Err(Error::new(SqlState::UndefinedObject, format!("there is no backup \"{id}\""))
            .with_hint("`sepal backup list` prints those that there are.")),
    }
}

/// All entries that this instance wrote, oldest first: what a server believes. Others are named in its log and passed
/// over, since what they say would otherwise be signed with the next backup.
pub(crate) async fn own(repository: &Repository, control: &Control) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for id in ids(repository).await? {
        let read = read(repository, &id).await.and_then(|read| {
            read.check(control)?;
            Ok(read.entry)
        });
        match read {
            Ok(entry) => entries.push(entry),
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                tracing::warn!(backup = id, %error, "an entry of the backup repository is passed over");
            }
            // Another process prunes.
            Err(error) if error.state() == SqlState::UndefinedObject => {}
            Err(error) => return Err(error),
        }
    }
    Ok(entries)
}

/// The backups of the same line that came after one, oldest first. Only what their instance wrote counts.
pub(crate) async fn later(repository: &Repository, control: &Control, backup: &Entry) -> Result<Vec<Entry>> {
    let mut later = own(repository, control).await?;
    later.retain(|entry| entry.line == backup.line && entry.id > backup.id);
    Ok(later)
}

/// All entries, oldest first. Their MACs are not checked.
pub(crate) async fn all(repository: &Repository) -> Result<Vec<ReadEntry>> {
    let mut entries = Vec::new();
    for id in ids(repository).await? {
        entries.push(read(repository, &id).await?);
    }
    Ok(entries)
}

#[cfg(test)]
mod tests;
