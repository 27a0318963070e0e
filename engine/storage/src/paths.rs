//! Where a tenant's files are. The only place that forms or parses a file's name.
//!
//! Errors name files by [`show`]: relative to the tenant's directory's parent, so that a log line tells the
//! tenant but not the machine's layout.

use std::path::{Path, PathBuf};

use sepal_types::{FileId, TenantId};
use serde::{Deserialize, Serialize};

/// A tenant's directory.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    root: PathBuf,
}

/// What a file under `segments/` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DataKind {
    Segment,
    Index,
    Deleted,
}

impl DataKind {
    const ALL: [Self; 3] = [Self::Segment, Self::Index, Self::Deleted];

    pub(crate) const fn extension(self) -> &'static str {
        match self {
            Self::Segment => "parquet",
            Self::Index => "index",
            Self::Deleted => "deleted",
        }
    }

    /// The format's name in associated data.
    pub(crate) const fn format(self) -> &'static str {
        match self {
            Self::Segment => "segment 1",
            Self::Index => "index-blob 1",
            Self::Deleted => "deletion-vector 1",
        }
    }
}

impl Paths {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn manifests(&self) -> PathBuf {
        self.root.join("manifest")
    }

    pub(crate) fn wal(&self) -> PathBuf {
        self.root.join("wal")
    }

    pub(crate) fn segments(&self) -> PathBuf {
        self.root.join("segments")
    }

    pub(crate) fn manifest(&self, number: u64) -> PathBuf {
        self.manifests().join(format!("{number:016x}.manifest"))
    }

    pub(crate) fn wal_file(&self, number: u64) -> PathBuf {
        self.wal().join(format!("{number:016x}.wal"))
    }

    pub(crate) fn data(&self, kind: DataKind, file: FileId) -> PathBuf {
        self.segments().join(format!("{file}.{}", kind.extension()))
    }
}

/// The number in `0000000000000001.wal`.
pub(crate) fn number(name: &str, extension: &str) -> Option<u64> {
    let (digits, found) = name.split_once('.')?;
    (found == extension && digits.len() == 16).then(|| u64::from_str_radix(digits, 16).ok())?
}

/// Kind and id in `<file id>.parquet`.
pub(crate) fn data_file(name: &str) -> Option<(DataKind, FileId)> {
    let (id, extension) = name.split_once('.')?;
    let kind = DataKind::ALL.into_iter().find(|kind| kind.extension() == extension)?;
    Some((kind, FileId::parse(id)?))
}

/// The last three parts of a path: tenant, folder, file.
pub(crate) fn show(path: &Path) -> String {
    let parts: Vec<_> = path.iter().rev().take(3).map(|part| part.to_string_lossy()).collect();
    parts.into_iter().rev().collect::<Vec<_>>().join("/")
}

/// A tenant's file keys are bound to what they open.
pub(crate) fn file_key_aad(
    kind: DataKind,
    tenant: TenantId,
    table: sepal_types::TableId,
    file: FileId,
) -> Vec<u8> {
    sepal_crypto::Aad::new("file-key 1").text(kind.format()).tenant(tenant).table(table).file(file).finish()
}
