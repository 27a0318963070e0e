//! Log files in the repository: in parts, because they grow, and a bucket's objects do not.
//!
//! A part is named by the bytes that it holds and by their hash, so the names alone tell how far a file is archived,
//! after a crash of the archiver as before. Parts of one file may overlap: a backup and the archive write the same file
//! beside each other, and each goes on where its own last part ended. So a reader looks for parts that follow one
//! another as far as any do: the longest one at a place may be the end of a row that nobody went on with.

use std::collections::{HashMap, hash_map::Entry};

use sepal_database::{
    Error, Result, TenantId,
    backup::{FileId, LogPiece},
    sealing::{hex, sha256},
};
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use crate::{
    limits::LOG_PART_BYTES,
    names::{self, Part},
    pace::Pace,
    repository::{Repository, TransferError, failed},
};

/// What is archived of a tenant's log.
#[derive(Debug, Default)]
pub(crate) struct Archived {
    parts: HashMap<(u64, FileId), Vec<Part>>,
}

impl Archived {
    /// By the names in the repository.
    pub(crate) fn of<'a>(names: impl Iterator<Item = &'a str>, line: &str) -> HashMap<TenantId, Self> {
        let mut tenants: HashMap<TenantId, Self> = HashMap::new();
        for part in names.filter_map(Part::parse).filter(|part| part.line == line) {
            tenants.entry(part.tenant).or_default().add(part);
        }
        tenants
    }

    pub(crate) async fn load(repository: &Repository, tenant: TenantId, line: &str) -> Result<Self> {
        let listed = repository.list(&names::log(tenant, line)).await?;
        let mut all = Self::of(listed.iter().map(|object| object.name.as_str()), line);
        Ok(all.remove(&tenant).unwrap_or_default())
    }

    fn add(&mut self, part: Part) {
        self.parts.entry((part.number, part.file)).or_default().push(part);
    }

    /// Parts that cover a file from its beginning, up to `until` or as far as any that follow one another go, and how
    /// far that is. As few as that takes.
    pub(crate) fn chain(&self, number: u64, file: FileId, until: u64) -> (Vec<&Part>, u64) {
        let mut beginning: HashMap<u64, Vec<&Part>> = HashMap::new();
        for part in self.parts.get(&(number, file)).into_iter().flatten() {
            beginning.entry(part.from).or_default().push(part);
        }
        // Up to where parts lead, and by which last one: with one part more in each round.
        let mut reached: HashMap<u64, &Part> = HashMap::new();
        let (mut end, mut newest) = (0, vec![0]);
        while end < until && !newest.is_empty() {
            let mut next = Vec::new();
            for part in newest.iter().filter_map(|at| beginning.get(at)).flatten().copied() {
                // A part has bytes: its name would not be read otherwise.
                if let Entry::Vacant(place) = reached.entry(part.to) {
                    place.insert(part);
                    next.push(part.to);
                }
            }
            end = next.iter().copied().max().unwrap_or(end).max(end);
            newest = next;
        }
        let (mut chain, mut at) = (Vec::new(), end);
        while let Some(part) = reached.get(&at) {
            chain.push(*part);
            at = part.from;
        }
        chain.reverse();
        (chain, end)
    }

    /// Whether a file is there up to its length.
    pub(crate) fn has(&self, piece: &LogPiece) -> bool {
        self.chain(piece.number, piece.file, piece.bytes).1 >= piece.bytes
    }

    /// The files of a number: more than one where two directories went on from the same log under one line.
    pub(crate) fn files(&self, number: u64) -> Vec<FileId> {
        self.parts.keys().filter(|(found, _)| *found == number).map(|(_, file)| *file).collect()
    }

    /// Whether there are parts of a file from beyond a byte on: an archive goes from byte to byte, so what is before
    /// them was there once.
    pub(crate) fn goes_on_after(&self, number: u64, file: FileId, at: u64) -> bool {
        self.parts.get(&(number, file)).is_some_and(|parts| parts.iter().any(|part| part.to > at))
    }

    /// Whether there is a file of a greater number.
    pub(crate) fn goes_beyond(&self, number: u64) -> bool {
        self.parts.keys().any(|(found, _)| *found > number)
    }

    /// Whether there is something, and log is missing between that and a file: whole files, or the end of the one
    /// before it, which may have gone before it was all here.
    pub(crate) fn ends_before(&self, next: &LogPiece) -> bool {
        let Some(newest) = self.parts.keys().map(|(found, _)| *found).max() else { return false };
        let before = next.number.saturating_sub(1);
        let until = next.previous_bytes;
        let is_whole = |file: FileId| self.chain(before, file, until).1 >= until;
        newest < before || (newest == before && !self.files(before).into_iter().any(is_whole))
    }

    /// Stores what is missing of a file up to its length. Gives the parts that cover it, and the bytes stored.
    ///
    /// Errors: on which side it did not work.
    pub(crate) async fn bring(
        &mut self,
        repository: &Repository,
        (tenant, line): (TenantId, &str),
        piece: &LogPiece,
        pace: &Pace,
    ) -> Result<(Vec<String>, u64), TransferError> {
        let (_, mut at) = self.chain(piece.number, piece.file, piece.bytes);
        let mut stored = 0;
        if at < piece.bytes {
            let show = piece.path.display().to_string();
            let unread = |error: std::io::Error| TransferError::File(failed("read", &show, &error));
            let mut file = tokio::fs::File::open(&piece.path).await.map_err(unread)?;
            file.seek(std::io::SeekFrom::Start(at)).await.map_err(unread)?;
            while at < piece.bytes {
                let take = (piece.bytes - at).min(LOG_PART_BYTES);
                let length = usize::try_from(take);
                let length = length.map_err(|_| TransferError::File(Error::bug("a part beyond memory")))?;
                let mut bytes = vec![0; length];
                file.read_exact(&mut bytes).await.map_err(unread)?;
                let part = Part {
                    tenant,
                    line: line.to_owned(),
                    number: piece.number,
                    file: piece.file,
                    from: at,
                    to: at + take,
                    hash: hash(&bytes),
                };
                pace.spend(bytes.len()).await;
                repository.put(&part.name(), bytes).await.map_err(TransferError::Object)?;
                self.add(part);
                (at, stored) = (at + take, stored + take);
            }
        }
        let (chain, _) = self.chain(piece.number, piece.file, piece.bytes);
        Ok((chain.into_iter().map(Part::name).collect(), stored))
    }
}

/// What a part's name says of its bytes.
pub(crate) fn hash(bytes: &[u8]) -> String {
    hex(&sha256(bytes)[..16])
}

#[cfg(test)]
mod tests {
    use sepal_database::backup::Lsn;

    use super::*;

    fn part(number: u64, from: u64, to: u64) -> Part {
        let (tenant, file) = (TenantId([1; 16]), FileId([2; 16]));
        Part { tenant, line: "l".into(), number, file, from, to, hash: "0".repeat(32) }
    }

    #[test]
    fn a_chain_ends_where_a_part_is_missing() {
        let mut archived = Archived::default();
        for part in [part(1, 0, 10), part(1, 0, 25), part(1, 10, 20), part(1, 25, 30), part(1, 40, 50)] {
            archived.add(part);
        }
        let ends = |until| {
            let (chain, end) = archived.chain(1, FileId([2; 16]), until);
            (chain.iter().map(|part| part.to).collect::<Vec<_>>(), end)
        };
        assert_eq!(ends(u64::MAX), (vec![25, 30], 30));
        assert_eq!(ends(12), (vec![25], 25));
        assert_eq!(ends(0), (vec![], 0));
        assert_eq!(archived.chain(2, FileId([2; 16]), 5).1, 0);
        assert!(archived.chain(2, FileId([2; 16]), 5).0.is_empty());
        let goes_on = |number, at| archived.goes_on_after(number, FileId([2; 16]), at);
        assert!(goes_on(1, 30) && !goes_on(1, 50) && !goes_on(2, 0));
        assert_eq!(archived.files(1), [FileId([2; 16])]);
        let after = |previous_bytes, number| LogPiece {
            number,
            file: FileId([3; 16]),
            path: "a log file".into(),
            bytes: 100,
            base_lsn: Lsn(9),
            previous_bytes,
            finished: false,
        };
        assert!(!Archived::default().ends_before(&after(30, 9)), "nothing was archived yet");
        assert!(!archived.ends_before(&after(30, 1)) && !archived.ends_before(&after(30, 2)));
        assert!(archived.ends_before(&after(31, 2)), "the end of the first file is missing");
        assert!(archived.ends_before(&after(0, 3)));
        archived.add(part(4, 0, 10));
        assert!(!archived.ends_before(&after(10, 5)) && archived.ends_before(&after(10, 6)));
        assert!(archived.goes_beyond(1) && archived.goes_beyond(3) && !archived.goes_beyond(4));
    }

    /// A backup that listed the repository before a round of the archive stores beyond that round's end, and the
    /// archive goes on from there nevertheless.
    #[test]
    fn a_backup_beside_the_archive_is_no_end_of_the_log() {
        let mut archived = Archived::default();
        for part in [part(1, 0, 20), part(1, 20, 28), part(1, 20, 33), part(1, 28, 40), part(1, 40, 50)] {
            archived.add(part);
        }
        let ends = |archived: &Archived, until| {
            let (chain, end) = archived.chain(1, FileId([2; 16]), until);
            (chain.iter().map(|part| (part.from, part.to)).collect::<Vec<_>>(), end)
        };
        assert_eq!(ends(&archived, u64::MAX), (vec![(0, 20), (20, 28), (28, 40), (40, 50)], 50));
        assert_eq!(ends(&archived, 33), (vec![(0, 20), (20, 33)], 33), "the backup's own");
        // A full backup begins each file anew.
        archived.add(part(1, 0, 45));
        assert_eq!(ends(&archived, u64::MAX).1, 50);
        assert_eq!(ends(&archived, 45), (vec![(0, 45)], 45));
    }
}
