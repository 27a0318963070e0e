//! Objects as files below a directory, durable before anybody counts on them.
//!
//! object_store's own writer for directories never calls fsync, and a backup that a power cut takes back is none. So:
//! written beside under a name that begins with a dot, fsynced, renamed, and the directory fsynced. Each new folder's
//! name is made durable in the one above it. What held keys is overwritten when its name is gone (`leaving`).
//!
//! ```text
//! <folder>/.<name>.<process>-<number>     not finished yet; of a process that was killed, for ever
//! ```
//! Of an object of keys such a file has keys as well: it goes when the object is replaced, as by the note of a drop, or
//! removed. The others go with a prune.

use std::{
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use sepal_database::{Error, Result};
use tokio::{
    fs::{self, File, OpenOptions},
    io::{AsyncReadExt, AsyncWriteExt},
};

use super::{CHUNK_BYTES, Listed, Shelf, Upload, damaged, failed, leaving::Leaving};
use crate::names;

/// See the module.
#[derive(Debug)]
pub(super) struct DirectoryShelf {
    root: PathBuf,
}

impl DirectoryShelf {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Names come from objects, too, which others may have written: none leads out of the repository.
    fn path(&self, name: &str) -> Result<PathBuf> {
        if name.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(damaged("the catalogue", format!("{name:?} is no name of an object")));
        }
        Ok(self.root.join(name))
    }

    /// `""` is the whole repository.
    fn folder(&self, name: &str) -> Result<PathBuf> {
        if name.is_empty() { Ok(self.root.clone()) } else { self.path(name) }
    }
}

/// Tells apart the unfinished files of one process.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// How often a file of keys is read again, because another came into its place.
const ATTEMPTS: u32 = 100;

struct FileUpload {
    name: String,
    /// Taken when it is finished.
    unfinished: Option<PathBuf>,
    path: PathBuf,
    file: File,
}

impl Drop for FileUpload {
    fn drop(&mut self) {
        if let Some(path) = self.unfinished.take() {
            let leaving = Leaving::of(&self.name, &path);
            // Nobody counts on it; `prune` removes what stays.
            let _ = std::fs::remove_file(path);
            leaving.overwrite();
        }
    }
}

#[async_trait]
impl Upload for FileUpload {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.file.write_all(&bytes).await.map_err(|error| failed("write", &self.name, &error))
    }

    async fn finish(mut self: Box<Self>) -> Result<()> {
        let name = self.name.clone();
        let wrong = |error: io::Error| failed("write", &name, &error);
        self.file.flush().await.map_err(wrong)?;
        self.file.sync_all().await.map_err(wrong)?;
        let Some(unfinished) = self.unfinished.clone() else { return Ok(()) };
        let leaving = Leaving::of(&name, &self.path);
        fs::rename(&unfinished, &self.path).await.map_err(wrong)?;
        self.unfinished = None;
        // What was there goes when nothing can bring it back any more.
        sync_directory(self.path.parent().unwrap_or(Path::new("/"))).await.map_err(wrong)?;
        let replaced = leaving.is_there();
        overwrite(leaving).await;
        // Not for each new one: that would look through thousands of others.
        if replaced { sweep_keys(&name, &self.path).await.map_err(wrong) } else { Ok(()) }
    }

    async fn abandon(self: Box<Self>) {
        drop(self);
    }
}

#[async_trait]
impl Shelf for DirectoryShelf {
    async fn begin(&self, name: &str, _: u64) -> Result<Box<dyn Upload>> {
        let wrong = |error: io::Error| failed("write", name, &error);
        let path = self.path(name)?;
        let folder = path.parent().unwrap_or(&self.root);
        make_folder(folder).await.map_err(wrong)?;
        let file_name = path.file_name().unwrap_or_default().to_string_lossy();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let unfinished = folder.join(format!(".{file_name}.{}-{number}", std::process::id()));
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&unfinished)
            .await
            .map_err(wrong)?;
        Ok(Box::new(FileUpload { name: name.to_owned(), unfinished: Some(unfinished), path, file }))
    }

    async fn open(&self, name: &str) -> Result<Option<BoxStream<'static, Result<Bytes>>>> {
        if names::holds_keys(name) {
            let keys = read_keys(&self.path(name)?).await.map_err(|error| failed("read", name, &error))?;
            return Ok(keys.map(|keys| stream::iter([Ok(Bytes::from(keys))]).boxed()));
        }
        let file = match File::open(self.path(name)?).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(|error| failed("read", name, &error))?,
        };
        let name = name.to_owned();
        let chunks = stream::try_unfold((file, name), |(mut file, name)| async move {
            let mut bytes = Vec::new();
            let read = (&mut file).take(CHUNK_BYTES as u64).read_to_end(&mut bytes).await;
            read.map_err(|error| failed("read", &name, &error))?;
            let next = (!bytes.is_empty()).then(|| (Bytes::from(bytes), (file, name)));
            Ok::<_, Error>(next)
        });
        Ok(Some(Box::pin(chunks)))
    }

    async fn list(&self, folder: &str) -> Result<Vec<Listed>> {
        let (root, start) = (self.root.clone(), self.folder(folder)?);
        let folder = folder.to_owned();
        let listed = tokio::task::spawn_blocking(move || {
            let mut found = Vec::new();
            walk(&root, &start, &mut found).map(|()| found)
        });
        listed
            .await
            .map_err(|problem| Error::bug(format!("listing {folder} panicked: {problem}")))?
            .map_err(|error| failed("list", &self.root.join(folder).display().to_string(), &error))
    }

    async fn remove(&self, name: &str) -> Result<()> {
        let path = self.path(name)?;
        sweep_keys(name, &path).await.map_err(|error| failed("remove", name, &error))?;
        let leaving = Leaving::of(name, &path);
        match fs::remove_file(&path).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            removed => removed.map_err(|error| failed("remove", name, &error))?,
        }
        // A key that was destroyed must not come back with the power.
        let folder = path.parent().unwrap_or(&self.root);
        sync_directory(folder).await.map_err(|error| failed("remove", name, &error))?;
        overwrite(leaving).await;
        Ok(())
    }

    async fn sweep(&self, before: i64) -> Result<u64> {
        let root = self.root.clone();
        let swept = tokio::task::spawn_blocking(move || {
            let mut bytes = 0;
            for left in all_unfinished(&root)? {
                let Ok(facts) = std::fs::symlink_metadata(&left) else { continue };
                if facts.mtime() < before {
                    remove_unfinished(&root, &left)?;
                    bytes += facts.len();
                }
            }
            Ok::<_, io::Error>(bytes)
        });
        swept
            .await
            .map_err(|problem| Error::bug(format!("removing what is unfinished panicked: {problem}")))?
            .map_err(|error| failed("remove what is unfinished in", &self.root.display().to_string(), &error))
    }
}

/// Whether a file's name is of one that is not finished.
fn is_unfinished(name: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let ending = name.strip_prefix('.').and_then(|rest| rest.rsplit_once('.')).map(|(_, ending)| ending);
    ending
        .and_then(|ending| ending.split_once('-'))
        .is_some_and(|(process, number)| is_number(process) && is_number(number))
}

/// Removes what killed processes left of a file of keys. Whoever writes it at this moment elsewhere writes what was
/// read before this, and fails.
async fn sweep_keys(name: &str, path: &Path) -> io::Result<()> {
    if !names::holds_keys(name) {
        return Ok(());
    }
    let folder = path.parent().unwrap_or(Path::new("/")).to_owned();
    let prefix = format!(".{}.", path.file_name().unwrap_or_default().to_string_lossy());
    let swept = tokio::task::spawn_blocking(move || {
        let entries = match std::fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let left = entry.file_name();
            if left.to_str().is_some_and(|left| left.starts_with(&prefix) && is_unfinished(left)) {
                remove_keys(&entry.path())?;
            }
        }
        Ok::<(), io::Error>(())
    });
    swept.await.map_err(io::Error::other)?
}

/// A file that holds keys, whatever it is called.
fn remove_keys(path: &Path) -> io::Result<()> {
    let leaving = Leaving::of(names::TENANT_KEYS, path);
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        removed => removed?,
    }
    std::fs::File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()?;
    leaving.overwrite();
    Ok(())
}

fn remove_unfinished(root: &Path, path: &Path) -> io::Result<()> {
    let name = path.strip_prefix(root).ok().and_then(Path::to_str);
    if name.is_some_and(names::holds_keys) {
        return remove_keys(path);
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Files that are not finished, in a folder and below it.
fn all_unfinished(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match std::fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else if entry.file_name().to_str().is_some_and(is_unfinished) {
                found.push(entry.path());
            }
        }
    }
    Ok(found)
}

/// Once the file has lost its name.
async fn overwrite(leaving: Leaving) {
    if let Err(problem) = tokio::task::spawn_blocking(move || leaving.overwrite()).await {
        tracing::error!(%problem, "overwriting what a file of keys held panicked");
    }
}

/// The beginning of a file of keys, which is all of one that is not too long. One that lost its name meanwhile may have
/// been overwritten already: then what stands in its place is read. `None`: there is none.
async fn read_keys(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let mut file = match File::open(path).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let mut bytes = Vec::new();
        (&mut file).take(CHUNK_BYTES as u64).read_to_end(&mut bytes).await?;
        // Nobody changes keys so often: such a file system counts no names.
        if file.metadata().await?.nlink() > 0 || attempt == ATTEMPTS {
            return Ok(Some(bytes));
        }
    }
}

async fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path).await?.sync_all().await
}

/// Makes the folder and those above it, durably, for its owner alone.
async fn make_folder(path: &Path) -> io::Result<()> {
    let mut missing = Vec::new();
    let mut at = Some(path);
    while let Some(folder) = at
        && !fs::try_exists(folder).await?
    {
        missing.push(folder.to_owned());
        at = folder.parent();
    }
    for folder in missing.iter().rev() {
        match fs::DirBuilder::new().mode(0o700).create(folder).await {
            // Somebody else made it meanwhile.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made?,
        }
        if let Some(parent) = folder.parent() {
            sync_directory(parent).await?;
        }
    }
    Ok(())
}

fn walk(root: &Path, folder: &Path, found: &mut Vec<Listed>) -> io::Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let (path, entry) = entry.map(|entry| (entry.path(), entry))?;
        if entry.file_type()?.is_dir() {
            walk(root, &path, found)?;
            continue;
        }
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let Some(name) = path.strip_prefix(root).ok().and_then(Path::to_str).filter(|_| !hidden) else {
            continue;
        };
        let facts = match entry.metadata() {
            // Removed since the directory was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            facts => facts?,
        };
        let modified = facts.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        let modified = modified.duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs());
        let modified = i64::try_from(modified).unwrap_or(i64::MAX);
        found.push(Listed { name: name.to_owned(), bytes: facts.len(), modified });
    }
    Ok(())
}
