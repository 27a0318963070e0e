//! The log, carried into the repository as it grows: what a restore to any moment needs beside a backup.
//!
//! The server calls [`Archive::round`] every minute. A tenant's log is kept until it was carried over
//! (`DatabaseOptions::archive_logs`); a repository that is away for long costs disk first, up to the limit that
//! pipelines have too, and then a gap. A gap is said aloud, and the next backup ends it.

use std::collections::{HashMap, HashSet};

use sepal_database::{
    Error, Result, TenantId,
    backup::{LogPiece, Source},
};

use crate::{create::blocking, identity, log::Archived, pace::Pace, repository::Repository};

/// What one process has carried over.
pub struct Archive {
    source: Source,
    repository: Repository,
    line: String,
    known: HashMap<TenantId, Archived>,
    /// Those that were open in the last round: their last bytes are still to come when they are not any more.
    open: HashSet<TenantId>,
}

/// What a round did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Round {
    pub bytes: u64,
    pub tenants: u64,
    /// Tenants whose log was let go before it was carried over.
    pub gaps: Vec<TenantId>,
}

impl Archive {
    pub async fn new(source: Source, repository: Repository) -> Result<Self> {
        let line = blocking(&source, |source| identity::line(source.data_dir())).await?;
        Ok(Self { source, repository, line, known: HashMap::new(), open: HashSet::new() })
    }

    /// Carries over what is durable by now. One tenant's failure does not keep the others' back; the first is given.
    pub async fn round(&mut self, pace: &Pace) -> Result<Round> {
        identity::settle(&self.repository).await?;
        let mut round = Round::default();
        let mut first_error = None;
        let mut open = HashSet::new();
        for log in self.source.open_logs() {
            let tenant = log.tenant();
            open.insert(tenant);
            let looked =
                tokio::task::spawn_blocking(move || Ok::<_, Error>((log.has_gap()?, log.pieces()?, log)));
            let looked = looked
                .await
                .map_err(|problem| Error::bug(format!("looking at a log panicked: {problem}")))?;
            let carried = match looked {
                Ok((gap, pieces, log)) => {
                    if gap {
                        round.gaps.push(tenant);
                    }
                    let carried = self.carry(tenant, &pieces, pace, &mut round).await;
                    if let (Ok(()), Some(newest)) = (&carried, pieces.last()) {
                        log.archived(newest.base_lsn);
                    }
                    carried
                }
                Err(error) => Err(error),
            };
            if let Err(error) = carried {
                first_error.get_or_insert(error);
            }
        }
        for tenant in std::mem::replace(&mut self.open, open) {
            if self.open.contains(&tenant) {
                continue;
            }
            let closed = blocking(&self.source, move |source: &Source| source.closed_log(tenant)).await;
            let carried = match closed {
                Ok(pieces) => self.carry(tenant, &pieces.unwrap_or_default(), pace, &mut round).await,
                Err(error) => Err(error),
            };
            if let Err(error) = carried {
                self.open.insert(tenant);
                first_error.get_or_insert(error);
            }
        }
        first_error.map_or(Ok(round), Err)
    }

    async fn carry(
        &mut self,
        tenant: TenantId,
        pieces: &[LogPiece],
        pace: &Pace,
        round: &mut Round,
    ) -> Result<()> {
        if !self.known.contains_key(&tenant) {
            let archived = Archived::load(&self.repository, tenant, &self.line).await?;
            self.known.insert(tenant, archived);
        }
        let Some(archived) = self.known.get_mut(&tenant) else { return Ok(()) };
        let mut carried = 0;
        for piece in pieces {
            let (_, bytes) = archived.bring(&self.repository, (tenant, &self.line), piece, pace).await?;
            carried += bytes;
        }
        round.bytes += carried;
        round.tenants += u64::from(carried > 0);
        Ok(())
    }
}
