//! What opens a repository: a recovery key, or enough shares of it, from files; or the root key of this machine.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use clap::Args;
use sepal_backup::{Opener, RecoveryKey, RecoveryShare};
use zeroize::Zeroizing;

use crate::root_key;

use super::{super::failure::Failure, RepositoryFlags};

/// Longest file that is read as keys.
const MOST_BYTES: u64 = 64 << 10;

#[derive(Args)]
pub(super) struct OpenerFlags {
    /// File with the recovery key (sepal_rec_...); - for stdin
    #[arg(long, value_name = "FILE", conflicts_with = "shares_file")]
    recovery_key_file: Option<PathBuf>,
    /// File with shares of the recovery key (sepal_share_...), one a line; - for stdin. May be given several times
    #[arg(long, value_name = "FILE")]
    shares_file: Vec<PathBuf>,
}

impl OpenerFlags {
    /// The recovery key that the flags name.
    pub(super) fn recovery(&self) -> Result<Option<Opener>, Failure> {
        if let Some(path) = &self.recovery_key_file {
            let text = read(path)?;
            let key = RecoveryKey::parse(text.trim()).ok_or_else(|| {
                Failure::failed(format!(
                    "{} does not hold a recovery key: one begins with sepal_rec_ and was shown when it was \
                     made. Shares of one (sepal_share_) are named with --shares-file",
                    path.display()
                ))
            })?;
            return Ok(Some(Opener::Recovery(key)));
        }
        if self.shares_file.is_empty() {
            return Ok(None);
        }
        let mut shares = Vec::new();
        for path in &self.shares_file {
            let text = read(path)?;
            for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
                let share = RecoveryShare::parse(line.trim()).ok_or_else(|| {
                    Failure::failed(format!(
                        "line {number} of {} is no share of a recovery key: one begins with sepal_share_",
                        path.display()
                    ))
                })?;
                shares.push(share);
            }
        }
        RecoveryKey::combine(&shares).map(|key| Some(Opener::Recovery(key))).map_err(Failure::failed)
    }

    /// The recovery key, or the root key of the data directory that this machine has.
    pub(super) fn any(&self, repository: &RepositoryFlags) -> Result<Opener, Failure> {
        if let Some(opener) = self.recovery()? {
            return Ok(opener);
        }
        let config = repository.config()?;
        // Without a control.db here it is read as it is kept: the repository's own says whether it fits.
        let root = root_key::open_store(&config).and_then(|store| {
            if config.data.join("control.db").exists() {
                root_key::unlock(&config, &store)
            } else {
                Ok(store.read()?)
            }
        });
        root.map(Opener::Root).map_err(|error| {
            Failure::configuration(format!(
                "{}. Without the root key name the recovery key: --recovery-key-file or --shares-file",
                error.operator_message()
            ))
        })
    }
}

fn read(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let unread = |error: std::io::Error| Failure::failed(format!("{}: {error}", path.display()));
    let mut text = Zeroizing::new(String::new());
    if path == Path::new("-") {
        std::io::stdin().lock().take(MOST_BYTES).read_to_string(&mut text).map_err(unread)?;
    } else {
        let file = std::fs::File::open(path).map_err(unread)?;
        file.take(MOST_BYTES).read_to_string(&mut text).map_err(unread)?;
    }
    Ok(text)
}
