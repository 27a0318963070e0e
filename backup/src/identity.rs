//! Whose repository it is, and which line of it a data directory writes.
//!
//! ```text
//! sepal-backup.json     {"version":1,"id":"<hex>"}        made by the first backup
//! <data>/backup/line    8 hex digits                      made by a directory's first backup; never copied
//! ```

use std::{
    fs,
    io::{ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use sepal_database::{
    Error, Result, SqlState,
    sealing::{hex, random_bytes},
};
use serde::{Deserialize, Serialize};

use crate::{
    entry::{FORMAT, check_version},
    limits, names,
    repository::{Repository, damaged, failed},
};

#[derive(Serialize, Deserialize)]
struct Identity {
    version: u32,
    id: String,
}

/// The folder in a data directory that is ours.
pub(crate) fn folder(data: &Path) -> PathBuf {
    data.join("backup")
}

/// Makes the repository's first object, or checks that it is one that we can write.
pub(crate) async fn settle(repository: &Repository) -> Result<()> {
    if is_made(repository).await? {
        return Ok(());
    }
    let identity = Identity { version: FORMAT, id: hex(&random_bytes::<16>()) };
    let bytes = serde_json::to_vec(&identity).map_err(|error| Error::bug(format!("as JSON: {error}")))?;
    repository.put(names::REPOSITORY, bytes).await.map(drop)
}

/// Whether anybody ever backed up to here.
pub(crate) async fn is_made(repository: &Repository) -> Result<bool> {
    let Some(bytes) = repository.get(names::REPOSITORY, limits::SMALL_BYTES).await? else { return Ok(false) };
    let identity: Identity =
        serde_json::from_slice(&bytes).map_err(|error| damaged(names::REPOSITORY, error))?;
    check_version(names::REPOSITORY, identity.version)?;
    Ok(true)
}

/// Errors: there is no repository.
pub(crate) async fn must_be_made(repository: &Repository) -> Result<()> {
    if is_made(repository).await? {
        return Ok(());
    }
    let place = repository.location();
    Err(Error::new(
        SqlState::UndefinedObject,
        format!("{place} holds no backups (there is no {})", names::REPOSITORY),
    )
    .with_hint("Check the address given with --repository."))
}

/// The directory's line. Blocks.
pub(crate) fn line(data: &Path) -> Result<String> {
    let path = folder(data).join("line");
    let show = path.display().to_string();
    match fs::read_to_string(&path) {
        Ok(line) => {
            let line = line.trim().to_owned();
            let fits = line.len() == 8 && line.bytes().all(|digit| digit.is_ascii_hexdigit());
            if fits { Ok(line) } else { Err(damaged_file(&show)) }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let line = hex(&random_bytes::<4>());
            write(&path, line.as_bytes()).map_err(|error| failed("write", &show, &error))?;
            Ok(line)
        }
        Err(error) => Err(failed("read", &show, &error)),
    }
}

fn damaged_file(path: &str) -> Error {
    Error::new(SqlState::DataCorrupted, format!("{path} does not hold 8 hex digits"))
        .with_hint("Remove it: the next backup then begins a line of its own.")
}

/// A file of ours in a data directory, durable and whole.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let beside = path.with_extension("new");
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    fs::File::open(folder)?.sync_all()?;
    match folder.parent() {
        Some(above) => fs::File::open(above)?.sync_all(),
        None => Ok(()),
    }
}
