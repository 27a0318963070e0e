//! `sepal backup …`: `create`, `status` and `census` ask the running server; `list`, `show`, `verify`, `restore` and
//! `prune` work on the repository alone, on any machine.

mod opener;
mod progress;
mod repository;
mod restore;
mod running;
mod verify;

use std::path::Path;

use clap::{Args, Subcommand};
use sepal_backup::{Location, Pace, Repository};

use crate::{
    admin::{Answer, Request, client},
    config,
};

use super::{failure::Failure, flags::DataFlags};

#[derive(Subcommand)]
pub enum Backup {
    /// Make a backup of the running server; what the repository has is not stored again
    Create(running::Create),
    /// Tell when backups were made and verified, how far the log is archived, and what failed
    Status(running::Status),
    /// List the backups of a repository; needs no key
    List(repository::List),
    /// Show what belongs to a backup; needs no key
    Show(repository::Show),
    /// Restore a backup to the side and compare every row, hash and golden answer with what was noted
    Verify(verify::Verify),
    /// Make a data directory from a repository and the recovery key, on any machine
    Restore(restore::Restore),
    /// Remove backups that are too old, and what only they needed
    Prune(repository::Prune),
    /// Print a day's inventory: tenants, tables, rows, bytes, key epochs
    Census(running::Census),
}

impl Backup {
    pub fn run(self) -> Result<(), Failure> {
        match self {
            Self::Create(command) => command.run(),
            Self::Status(command) => command.run(),
            Self::List(command) => command.run(),
            Self::Show(command) => command.run(),
            Self::Verify(command) => command.run(),
            Self::Restore(command) => command.run(),
            Self::Prune(command) => command.run(),
            Self::Census(command) => command.run(),
        }
    }
}

/// Which repository.
#[derive(Args)]
struct RepositoryFlags {
    /// A directory, or s3://bucket/prefix?region=R&endpoint=URL with credentials from AWS_ACCESS_KEY_ID and
    /// AWS_SECRET_ACCESS_KEY or ~/.aws/credentials [default: the setting backup_repository, else a directory that the
    /// running server uses]
    #[arg(long, value_name = "URL")]
    repository: Option<String>,
    #[command(flatten)]
    data: DataFlags,
}

impl RepositoryFlags {
    fn open(&self) -> Result<Repository, Failure> {
        let named = match &self.repository {
            Some(repository) => repository.clone(),
            None => match self.config()?.backup_repository {
                Some(repository) => repository,
                None => self.of_the_server()?,
            },
        };
        let location: Location = named.parse()?;
        Ok(Repository::open(&location)?)
    }

    /// Where the running server's backups go, which may be told in its own flags or environment alone.
    ///
    /// Errors: there is none; it is not to be had by that name here, as a bucket, whose endpoint no status tells.
    fn of_the_server(&self) -> Result<String, Failure> {
        let missing = "which repository? Name it with --repository, or set backup_repository \
                       (SEPAL_BACKUP_REPOSITORY, or a line of sepal.toml)";
        match client::ask(&self.data.data()?, &Request::BackupStatus) {
            Ok(Answer::BackupStatus(status)) if Path::new(&status.repository).is_absolute() => {
                Ok(status.repository)
            }
            Ok(Answer::BackupStatus(status)) => {
                Err(Failure::usage(format!("{missing}. The running server has {}", status.repository)))
            }
            _ => Err(Failure::usage(missing)),
        }
    }

    fn config(&self) -> Result<config::Config, Failure> {
        Ok(config::load(&config::Config::default(), &self.data, self.data.config.as_deref())?.config)
    }
}

/// How fast.
#[derive(Args)]
struct RateFlag {
    /// MiB per second at most [default: as it goes]
    #[arg(long, value_name = "MIB")]
    rate_mib: Option<u64>,
}

impl RateFlag {
    fn pace(&self) -> Pace {
        Pace::new(self.rate_mib.map(|mib| mib.saturating_mul(1 << 20)))
    }
}

/// `12.3 MiB`.
fn bytes(count: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit < units.len() - 1 {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", units[unit]) }
}
