//! Files that the archived log names: a clone shares segments, and those may be younger than the last backup.
//!
//! ```text
//! tenants/<tenant>/segments/<file>                                         the file, as of a backup
//! tenants/<tenant>/clones/<line>/<log number>-<bytes>-<sha256>-<file>      says that the log needs it, and its hash
//! ```
//! The file is stored before its mark, and both before the log. The number is that of the newest log file then: the
//! clone is in that one or in an earlier one, so a restore that begins with a later one needs no such file.

use sepal_database::{Result, TenantId, backup::CopiedFile};

use crate::{
    entry::Object,
    names::{self, Mark},
    pace::Pace,
    repository::{Repository, TransferError},
};

/// What the archived log of a line names, by mark.
pub(crate) async fn load(repository: &Repository, tenant: TenantId, line: &str) -> Result<Vec<Mark>> {
    let listed = repository.list(&names::clones(tenant, line)).await?;
    Ok(listed.iter().filter_map(|object| Mark::parse(&object.name)).collect())
}

/// Stores a file and its mark. Gives its bytes; `None` when it is gone: then the log cannot be replayed past the clone.
pub(crate) async fn bring(
    repository: &Repository,
    (tenant, line): (TenantId, &str),
    number: u64,
    file: &CopiedFile,
    pace: &Pace,
) -> Result<Option<Mark>> {
    let name = names::tenant_file(tenant, &file.name);
    let stored = repository.put_file(&name, &file.path, (0, file.bytes), pace).await;
    let content = match stored {
        Err(TransferError::File(_)) if !tokio::fs::try_exists(&file.path).await.unwrap_or(true) => {
            return Ok(None);
        }
        stored => stored?,
    };
    let mark = Mark {
        tenant,
        line: line.to_owned(),
        number,
        object: Object { name, bytes: content.bytes, sha256: content.sha256 },
    };
    if let Some(name) = mark.name() {
        repository.put(&name, Vec::from("{}")).await?;
    }
    Ok(Some(mark))
}
