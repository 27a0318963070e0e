//! Where backups lie: named objects, in a directory or in a bucket.
//!
//! ```text
//! begin ─ write ─ write ─ … ─ finish     an object appears whole, and is durable when `finish` returns
//! ```
//! An upload that is dropped leaves no object, whatever ended it. Names are relative, with `/`; nothing here knows
//! what they mean ([`crate::names`]), but for which of them hold keys, nor sees anything that is not sealed or an id.

mod bucket;
mod credentials;
mod directory;
mod leaving;
mod location;

use std::{fmt, path::Path, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use sepal_database::{Error, Result, SqlState, sealing::hex};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub use location::Location;

use crate::pace::Pace;

/// What is read, hashed and sent at once.
const CHUNK_BYTES: usize = 8 << 20;

/// An object as a listing tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub name: String,
    pub bytes: u64,
    /// Seconds since 1970.
    pub modified: i64,
}

/// Length and SHA-256 (hex) of what was stored or fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Content {
    pub bytes: u64,
    pub sha256: String,
}

/// What kept bytes from going between a file here and an object there. Which side it was tells whose trouble it is.
#[derive(Debug)]
pub(crate) enum TransferError {
    /// The file, or the disk that it is on.
    File(Error),
    Object(Error),
}

impl From<TransferError> for Error {
    fn from(error: TransferError) -> Self {
        match error {
            TransferError::File(error) | TransferError::Object(error) => error,
        }
    }
}

/// An object being written.
#[async_trait]
pub(crate) trait Upload: Send {
    async fn write(&mut self, bytes: Bytes) -> Result<()>;
    /// From here on the object is there, durably.
    async fn finish(self: Box<Self>) -> Result<()>;
    /// Gives back what it took so far. Best effort.
    async fn abandon(self: Box<Self>);
}

/// A place for objects.
#[async_trait]
pub(crate) trait Shelf: fmt::Debug + Send + Sync {
    /// An object of this many bytes. One of this name is replaced when it is finished.
    async fn begin(&self, name: &str, bytes: u64) -> Result<Box<dyn Upload>>;
    /// `None`: there is none.
    async fn open(&self, name: &str) -> Result<Option<BoxStream<'static, Result<Bytes>>>>;
    /// What has a name that begins with `folder/`; `""` for everything.
    async fn list(&self, folder: &str) -> Result<Vec<Listed>>;
    /// One that is not there is fine.
    async fn remove(&self, name: &str) -> Result<()>;
    /// Removes what uploads left that were killed, and that nobody has written to since `before` (seconds since 1970).
    /// Gives its bytes. A bucket has a rule for that (docs/backups.md).
    async fn sweep(&self, _before: i64) -> Result<u64> {
        Ok(0)
    }
}

/// An open repository. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Repository {
    shelf: Arc<dyn Shelf>,
    location: Location,
}

impl Repository {
    /// Opens a place; it may be empty. Changes nothing.
    pub fn open(location: &Location) -> Result<Self> {
        let shelf: Arc<dyn Shelf> = match location {
            Location::Directory(path) => Arc::new(directory::DirectoryShelf::new(path)),
            Location::Bucket(bucket) => Arc::new(bucket::BucketShelf::open(bucket)?),
        };
        Ok(Self { shelf, location: location.clone() })
    }

    /// The same place, behind another shelf.
    #[cfg(test)]
    pub(crate) fn behind(&self, shelf: impl FnOnce(Arc<dyn Shelf>) -> Arc<dyn Shelf>) -> Self {
        Self { shelf: shelf(Arc::clone(&self.shelf)), location: self.location.clone() }
    }

    pub fn location(&self) -> &Location {
        &self.location
    }

    /// Stores a small object.
    pub(crate) async fn put(&self, name: &str, bytes: Vec<u8>) -> Result<Content> {
        let content = Content { bytes: bytes.len() as u64, sha256: hex(&Sha256::digest(&bytes)) };
        let mut upload = self.shelf.begin(name, content.bytes).await?;
        match upload.write(bytes.into()).await {
            Ok(()) => upload.finish().await?,
            Err(error) => {
                upload.abandon().await;
                return Err(error);
            }
        }
        Ok(content)
    }

    /// Stores bytes `from..to` of a file.
    pub(crate) async fn put_file(
        &self,
        name: &str,
        path: &Path,
        (from, to): (u64, u64),
        pace: &Pace,
    ) -> Result<Content, TransferError> {
        let mut upload = self.shelf.begin(name, to - from).await.map_err(TransferError::Object)?;
        match send(&mut *upload, path, (from, to), pace).await {
            Ok(content) => {
                upload.finish().await.map_err(TransferError::Object)?;
                Ok(content)
            }
            Err(error) => {
                upload.abandon().await;
                Err(error)
            }
        }
    }

    /// A small object, whole. Errors: XX001 it has more than `most` bytes ([`crate::limits`]).
    pub(crate) async fn get(&self, name: &str, most: u64) -> Result<Option<Vec<u8>>> {
        let Some(mut stream) = self.shelf.open(name).await? else { return Ok(None) };
        let mut bytes = Vec::new();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk?;
            if (bytes.len() + chunk.len()) as u64 > most {
                return Err(too_long(name, most));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(Some(bytes))
    }

    /// Whether there is an object of that name.
    pub(crate) async fn has(&self, name: &str) -> Result<bool> {
        Ok(self.shelf.open(name).await?.is_some())
    }

    /// Appends an object to a file and tells what it was. Errors: XX001 it is missing, or has more than `most` bytes.
    pub(crate) async fn fetch(
        &self,
        name: &str,
        into: &mut tokio::fs::File,
        most: u64,
        pace: &Pace,
    ) -> Result<Content, TransferError> {
        let unwritten =
            |error: std::io::Error| TransferError::File(failed("write what was fetched of", name, &error));
        let missing = || TransferError::Object(damaged(name, "it is missing"));
        let stream = self.shelf.open(name).await.map_err(TransferError::Object)?;
        let mut stream = stream.ok_or_else(missing)?;
        let (mut hash, mut bytes) = (Sha256::new(), 0);
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(TransferError::Object)?;
            hash.update(&chunk);
            bytes += chunk.len() as u64;
            if bytes > most {
                return Err(TransferError::Object(too_long(name, most)));
            }
            into.write_all(&chunk).await.map_err(unwritten)?;
            pace.spend(chunk.len()).await;
        }
        into.flush().await.map_err(unwritten)?;
        Ok(Content { bytes, sha256: hex(&hash.finalize()) })
    }

    pub(crate) async fn list(&self, folder: &str) -> Result<Vec<Listed>> {
        self.shelf.list(folder).await
    }

    pub(crate) async fn remove(&self, name: &str) -> Result<()> {
        self.shelf.remove(name).await
    }

    /// Removes what killed uploads left, as [`Shelf::sweep`] says. Gives its bytes.
    pub(crate) async fn sweep(&self, before: i64) -> Result<u64> {
        self.shelf.sweep(before).await
    }
}

async fn send(
    upload: &mut dyn Upload,
    path: &Path,
    (from, to): (u64, u64),
    pace: &Pace,
) -> Result<Content, TransferError> {
    let show = path.display().to_string();
    let read_error = |error: std::io::Error| TransferError::File(failed("read", &show, &error));
    let mut file = tokio::fs::File::open(path).await.map_err(read_error)?;
    tokio::io::AsyncSeekExt::seek(&mut file, std::io::SeekFrom::Start(from)).await.map_err(read_error)?;
    let mut hash = Sha256::new();
    let mut left = to - from;
    while left > 0 {
        let take = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK_BYTES);
        let mut chunk = vec![0; take];
        file.read_exact(&mut chunk).await.map_err(read_error)?;
        // Hashing 8 MiB takes milliseconds: not on a thread that serves connections.
        let (hashed, chunk) = tokio::task::spawn_blocking(move || {
            hash.update(&chunk);
            (hash, chunk)
        })
        .await
        .map_err(|problem| TransferError::File(Error::bug(format!("hashing panicked: {problem}"))))?;
        hash = hashed;
        upload.write(chunk.into()).await.map_err(TransferError::Object)?;
        pace.spend(take).await;
        left -= take as u64;
    }
    Ok(Content { bytes: to - from, sha256: hex(&hash.finalize()) })
}

/// Something with the repository or a local file did not work.
pub(crate) fn failed(action: &str, name: &str, error: &dyn fmt::Display) -> Error {
    Error::new(SqlState::IoError, format!("cannot {action} {name}: {error}"))
}

/// An object is not what was stored.
pub(crate) fn damaged(name: &str, why: impl fmt::Display) -> Error {
    Error::new(SqlState::DataCorrupted, format!("{name} of the backup repository is damaged: {why}"))
        .with_hint("`sepal backup verify` tries the other backups; an older one may not need this object.")
}

fn too_long(name: &str, most: u64) -> Error {
    damaged(name, format!("it has more than {most} bytes"))
}

#[cfg(test)]
mod tests;
