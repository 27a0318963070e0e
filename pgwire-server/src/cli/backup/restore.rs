//! `sepal backup restore`: a data directory from a repository, with the recovery key alone.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;
use sepal_backup::{RestoreOptions, Restored, RestoredFacts, Target, Watch, parse_moment, show_moment};

use crate::{certificates, config::Config, root_key::ServerWrappers};

use super::{
    super::{failure::Failure, flags::JsonFlag, output, runtime},
    RateFlag, RepositoryFlags,
    opener::OpenerFlags,
    progress::watched,
};

#[derive(Args)]
#[command(
    after_help = "Without --until and --backup everything comes back that reached the repository: the newest \
    backup, and the log that was archived after it. Tenants, API keys and secrets come back as of the backup. Exit \
    code 1 if a tenant did not come back, or if log of one is missing before --until, or before what was archived last."
)]
pub struct Restore {
    /// Where the data directory is made; must not be there, or be empty
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// The moment to come back to, as 2026-11-22T03:00:00Z, or latest
    #[arg(long, value_name = "TIME", default_value = "latest", conflicts_with = "backup")]
    until: String,
    /// Where the log in the repository ends before --until, take what there is as good: exit with 0
    #[arg(long, conflicts_with = "backup")]
    accept_earlier: bool,
    /// A backup as it was made, without the log after it
    #[arg(long, value_name = "ID")]
    backup: Option<String>,
    /// Only this tenant
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    #[command(flatten)]
    opener: OpenerFlags,
    #[command(flatten)]
    repository: RepositoryFlags,
    #[command(flatten)]
    rate: RateFlag,
    #[command(flatten)]
    json: JsonFlag,
}

impl Restore {
    pub fn run(self) -> Result<(), Failure> {
        let opener = self.opener.recovery()?.ok_or_else(|| {
            Failure::usage(
                "a restore needs the recovery key: name it with --recovery-key-file or --shares-file",
            )
        })?;
        let repository = self.repository.open()?;
        let to = std::path::absolute(&self.to)?;
        let options = RestoreOptions {
            target: self.target()?,
            tenant: self.tenant.clone(),
            wrappers: Arc::new(ServerWrappers),
        };
        let (pace, watch) = (self.rate.pace(), Watch::default());
        let job = sepal_backup::restore(&repository, &opener, &to, &options, (&pace, &watch));
        let restored = runtime()?.block_on(watched(&watch, job))?;
        certificates::create(&to, &Config::default().certificate_addresses())?;
        self.tell(&restored, &to)?;
        if let Some(first) = restored.failed.first() {
            return Err(Failure::failed(format!(
                "{} of the tenants did not come back, the others did. When the cause is mended, restore each into a \
                 directory of its own: sepal backup restore --tenant {}. Do not drop it in this one: that destroys its \
                 keys in the repository",
                restored.failed.len(),
                first.name
            )));
        }
        let unreached = restored.unreached().count();
        if unreached == 0 || self.accept_earlier {
            return Ok(());
        }
        // As PostgreSQL calls it.
        Err(Failure::failed(format!(
            "recovery ended before the target {} was reached: the log of {unreached} of {} tenants ends earlier in the \
             repository. {} holds what there is, each tenant as of its last commit above, and can be served if that is \
             enough (--accept-earlier says so beforehand). If the server lives, wait until `sepal backup status` says \
             that the log is archived past that moment, and restore again",
            self.goal(),
            restored.tenants.len(),
            to.display()
        )))
    }

    fn target(&self) -> Result<Target, Failure> {
        Ok(match (&self.backup, self.until.as_str()) {
            (Some(id), _) => Target::Backup(id.clone()),
            (None, "latest") => Target::Latest,
            (None, moment) => Target::Moment(parse_moment(moment)?),
        })
    }

    /// What is to be reached, in words.
    fn goal(&self) -> &str {
        if self.until == "latest" { "the end of the archived log" } else { &self.until }
    }

    fn tell(&self, restored: &Restored, to: &Path) -> Result<(), Failure> {
        if self.json.json {
            return output::json(restored);
        }
        let rows: Vec<Vec<String>> = restored
            .tenants
            .iter()
            .map(|tenant| vec![tenant.name.clone(), as_of(tenant), tenant.rows.to_string()])
            .collect();
        output::rows(&["tenant", "as of", "rows"], &rows, "No tenant was restored.")?;
        for tenant in &restored.dropped {
            output::talk(&format!(
                "{tenant} was dropped since: its keys are destroyed, nothing of it came back."
            ));
        }
        for tenant in &restored.failed {
            output::talk(&format!("{} did not come back: {}", tenant.name, tenant.why));
        }
        for tenant in restored.unreached() {
            output::talk(&format!(
                "{} is as of {}: its log in the repository ends there, before {}.",
                tenant.name,
                as_of(tenant),
                self.goal()
            ));
        }
        let to = to.display();
        output::talk(&format!(
            "Restored from {}. The root key is in {to}/root.key: keep a copy elsewhere, as of the one before.\n\
             Next:\n  sepal serve --data {to}",
            restored.backup
        ));
        Ok(())
    }
}

/// A tenant's last commit.
fn as_of(tenant: &RestoredFacts) -> String {
    if tenant.lsn == 0 { "empty".into() } else { show_moment(tenant.time_us) }
}
