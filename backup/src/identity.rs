//! Whose repository it is, which line of it a data directory writes, and whether it was there before.
//!
//! ```text
//! sepal-backup.json             {"version":1,"id":"<hex>"}   made by the first backup
//! <data>/backup/line            8 hex digits                 made by a directory's first backup; never copied
//! <data>/backup/repositories    ["<address>",…]              where the directory's backups and log went
//! ```
//! A repository that this directory has used and that is not there any more is an error: a disk that is not
//! mounted must not be taken for a new repository, with a full backup on the wrong disk and dropped tenants' keys
//! left on the right one.

use std::{
    fs,
    io::{ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use parking_lot::Mutex;
use sepal_database::{
    Error, Result, SqlState,
    backup::Source,
    sealing::{hex, random_bytes},
};
use serde::{Deserialize, Serialize};

use crate::{
    create::blocking,
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

/// Finds the repository, or makes it where none was before; `anew`: also where one was. Gives its id.
///
/// Errors: 55000 there was one.
pub(crate) async fn settle(repository: &Repository, source: &Source, anew: bool) -> Result<String> {
    let id = match read(repository).await? {
        Some(identity) => identity.id,
        None => {
            if !anew {
                refuse_used(repository, source).await?;
            }
            make(repository).await?
        }
    };
    let place = repository.location().to_string();
    blocking(source, move |source| remember(source.data_dir(), place)).await?;
    Ok(id)
}

/// Makes the repository's first object, or checks that it is one that we can write; gives its id.
pub(crate) async fn make(repository: &Repository) -> Result<String> {
    if let Some(identity) = read(repository).await? {
        return Ok(identity.id);
    }
    let identity = Identity { version: FORMAT, id: hex(&random_bytes::<16>()) };
    let bytes = serde_json::to_vec(&identity).map_err(|error| Error::bug(format!("as JSON: {error}")))?;
    repository.put(names::REPOSITORY, bytes).await?;
    Ok(identity.id)
}

/// Errors: 55000 this directory's backups went there, and there is nothing now.
pub(crate) async fn must_not_be_gone(repository: &Repository, source: &Source) -> Result<()> {
    if is_made(repository).await? { Ok(()) } else { refuse_used(repository, source).await }
}

async fn refuse_used(repository: &Repository, source: &Source) -> Result<()> {
    let place = repository.location().to_string();
    let asked = place.clone();
    let used = blocking(source, move |source| Ok(used(source.data_dir())?.contains(&asked))).await?;
    if !used {
        return Ok(());
    }
    Err(Error::new(
        SqlState::ObjectNotInPrerequisiteState,
        format!(
            "the backup repository {place} is gone: this server has used it, and there is no {} now",
            names::REPOSITORY
        ),
    )
    .with_hint(
        "Is its disk mounted? If it is gone for good, begin a new one in its place: sepal backup create \
         --new-repository.",
    ))
}

/// Whether anybody ever backed up to here.
pub(crate) async fn is_made(repository: &Repository) -> Result<bool> {
    Ok(read(repository).await?.is_some())
}

async fn read(repository: &Repository) -> Result<Option<Identity>> {
    let Some(bytes) = repository.get(names::REPOSITORY, limits::SMALL_BYTES).await? else { return Ok(None) };
    let identity: Identity =
        serde_json::from_slice(&bytes).map_err(|error| damaged(names::REPOSITORY, error))?;
    check_version(names::REPOSITORY, identity.version)?;
    Ok(Some(identity))
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

/// Addresses of the repositories that a directory has used. Blocks.
fn used(data: &Path) -> Result<Vec<String>> {
    let path = folder(data).join("repositories");
    let show = path.display().to_string();
    match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
            Error::new(SqlState::DataCorrupted, format!("{show} is no list of addresses: {error}"))
                .with_hint("Remove it, when the backup repository is there.")
        }),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(failed("read", &show, &error)),
    }
}

fn remember(data: &Path, place: String) -> Result<()> {
    // A backup and a verification may both have a new place.
    static LIST: Mutex<()> = Mutex::new(());
    let _alone = LIST.lock();
    let mut known = used(data)?;
    if known.contains(&place) {
        return Ok(());
    }
    known.push(place);
    let path = folder(data).join("repositories");
    let bytes = serde_json::to_vec(&known).map_err(|error| Error::bug(format!("as JSON: {error}")))?;
    write(&path, &bytes).map_err(|error| failed("write", &path.display().to_string(), &error))
}

fn damaged_file(path: &str) -> Error {
    Error::new(SqlState::DataCorrupted, format!("{path} does not hold 8 hex digits"))
        .with_hint("Remove it: the next backup then begins a line of its own.")
}

/// A file of ours in a data directory, durable and whole.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    // Two writers of one file would take each other's half.
    static BESIDE: Mutex<()> = Mutex::new(());
    let _alone = BESIDE.lock();
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
