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

/// Stores a file and its mark, unless the file is there as an earlier mark says (`before`): then the mark alone. Gives
/// the mark, and the bytes stored; `None` when the file is gone: then the log cannot be replayed past the clone.
///
/// Not beside a prune, which may be about to remove the file with that earlier mark.
pub(crate) async fn bring(
    repository: &Repository,
    (tenant, line): (TenantId, &str),
    number: u64,
    file: &CopiedFile,
    before: Option<Object>,
    pace: &Pace,
) -> Result<Option<(Mark, u64)>> {
    let there = match before {
        Some(object) if repository.has(&object.name).await? => Some(object),
        _ => None,
    };
    let (object, stored) = match there {
        Some(object) => (object, 0),
        None => match store(repository, tenant, file, pace).await? {
            Some(object) => (object, file.bytes),
            None => return Ok(None),
        },
    };
    let mark = Mark { tenant, line: line.to_owned(), number, object };
    if let Some(name) = mark.name() {
        repository.put(&name, Vec::from("{}")).await?;
    }
    Ok(Some((mark, stored)))
}

async fn store(
    repository: &Repository,
    tenant: TenantId,
    file: &CopiedFile,
    pace: &Pace,
) -> Result<Option<Object>> {
    let name = names::tenant_file(tenant, &file.name);
    let stored = repository.put_file(&name, &file.path, (0, file.bytes), pace).await;
    let content = match stored {
        Err(TransferError::File(_)) if !tokio::fs::try_exists(&file.path).await.unwrap_or(true) => {
            return Ok(None);
        }
        stored => stored?,
    };
    Ok(Some(Object { name, bytes: content.bytes, sha256: content.sha256 }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::Location;

    /// A file that a clone in later log names again has a mark there: the first one goes with the backups before it.
    #[tokio::test]
    async fn later_log_gets_a_mark_of_its_own() {
        let place = tempfile::tempdir().unwrap();
        let repository = Repository::open(&Location::Directory(place.path().join("repository"))).unwrap();
        let path = place.path().join("shared.parquet");
        std::fs::write(&path, b"rows").unwrap();
        let file = CopiedFile { name: "segments/shared.parquet".into(), path, bytes: 4 };
        let (tenant, pace) = (TenantId([7; 16]), Pace::default());
        let whose = (tenant, "aaaaaaaa");
        let (first, stored) = bring(&repository, whose, 5, &file, None, &pace).await.unwrap().unwrap();
        assert_eq!((first.number, stored), (5, 4));
        let before = Some(first.object.clone());
        let (second, stored) =
            bring(&repository, whose, 26, &file, before.clone(), &pace).await.unwrap().unwrap();
        assert_eq!((second.number, stored, &second.object), (26, 0, &first.object));
        assert_eq!(load(&repository, tenant, "aaaaaaaa").await.unwrap().len(), 2);
        // It went with its mark.
        repository.remove(&first.object.name).await.unwrap();
        let (_, stored) = bring(&repository, whose, 40, &file, before, &pace).await.unwrap().unwrap();
        assert_eq!(stored, 4);
        assert!(repository.has(&first.object.name).await.unwrap());
        std::fs::remove_file(&file.path).unwrap();
        let gone = bring(&repository, whose, 41, &file, None, &pace).await.unwrap();
        assert_eq!(gone, None);
    }
}
