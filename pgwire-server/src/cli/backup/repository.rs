//! `sepal backup list|show|prune`: the repository's own, without a key.

use clap::Args;
use sepal_backup::{Retention, Summary, Watch, show_moment};

use super::{
    super::{check::count, failure::Failure, flags::JsonFlag, output, runtime},
    RepositoryFlags, bytes,
    progress::watched,
};

#[derive(Args)]
pub struct List {
    #[command(flatten)]
    repository: RepositoryFlags,
    #[command(flatten)]
    json: JsonFlag,
}

#[derive(Args)]
pub struct Show {
    /// The backup's id, as `sepal backup list` prints it, or latest
    #[arg(default_value = "latest")]
    backup: String,
    #[command(flatten)]
    repository: RepositoryFlags,
    #[command(flatten)]
    json: JsonFlag,
}

#[derive(Args)]
pub struct Prune {
    /// Keep so many of the newest
    #[arg(long, value_name = "N", default_value_t = Retention::default().keep_last)]
    keep_last: u64,
    /// Keep those made within so many days
    #[arg(long, value_name = "DAYS", default_value_t = Retention::default().keep_days)]
    keep_days: u64,
    /// Remove objects that belong to no backup when they are so old; a backup under way needs younger ones
    #[arg(long, value_name = "HOURS", default_value_t = 24)]
    grace_hours: u32,
    /// Say what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    repository: RepositoryFlags,
    #[command(flatten)]
    json: JsonFlag,
}

impl List {
    pub fn run(self) -> Result<(), Failure> {
        let repository = self.repository.open()?;
        let backups = runtime()?.block_on(sepal_backup::list(&repository))?;
        if self.json.json {
            output::json(&backups)?;
        } else {
            let rows: Vec<Vec<String>> = backups.iter().map(row).collect();
            output::rows(
                &["backup", "made", "tenants", "size", "stored", "verified"],
                &rows,
                "No backups yet. Make one: sepal backup create",
            )?;
        }
        match backups.iter().find_map(|backup| backup.damaged.as_deref()) {
            Some(why) => Err(Failure::failed(why)),
            None => Ok(()),
        }
    }
}

fn row(backup: &Summary) -> Vec<String> {
    if backup.damaged.is_some() {
        return [backup.id.as_str(), "", "", "", "", "DAMAGED"].map(str::to_owned).to_vec();
    }
    let tenants = match backup.failed {
        0 => backup.tenants.to_string(),
        failed => format!("{} ({failed} failed)", backup.tenants),
    };
    let verified = match &backup.verified {
        None => "no".to_owned(),
        Some(verified) if verified.good => show_moment(verified.verified_us),
        Some(_) => "DAMAGED".to_owned(),
    };
    vec![
        backup.id.clone(),
        show_moment(backup.finished_us),
        tenants,
        bytes(backup.bytes),
        bytes(backup.new_bytes),
        verified,
    ]
}

impl Show {
    pub fn run(self) -> Result<(), Failure> {
        let repository = self.repository.open()?;
        let (entry, verified) = runtime()?.block_on(sepal_backup::show(&repository, &self.backup))?;
        if self.json.json {
            return output::json(&serde_json::json!({ "entry": entry, "verified": verified }));
        }
        let rows: Vec<Vec<String>> = entry
            .tenants
            .iter()
            .map(|tenant| {
                vec![
                    tenant.tenant.clone(),
                    show_moment(tenant.time_us),
                    tenant.lsn.to_string(),
                    tenant.files.len().to_string(),
                    bytes(tenant.bytes()),
                ]
            })
            .collect();
        output::talk(&format!(
            "{}, made {} by sepal {}, {} in all",
            entry.id,
            show_moment(entry.finished_us),
            entry.program,
            bytes(entry.bytes())
        ));
        for failed in &entry.failed {
            output::talk(&format!(
                "Could not be backed up as it was: tenant {}: {}",
                failed.tenant, failed.why
            ));
        }
        output::rows(&["tenant", "as of", "commit", "files", "size"], &rows, "No tenant is in it.")
    }
}

impl Prune {
    pub fn run(self) -> Result<(), Failure> {
        let repository = self.repository.open()?;
        let retention = Retention {
            keep_last: self.keep_last,
            keep_days: self.keep_days,
            grace_seconds: i64::from(self.grace_hours) * 3_600,
            dry_run: self.dry_run,
        };
        let watch = Watch::default();
        let pruned =
            runtime()?.block_on(watched(&watch, sepal_backup::prune(&repository, &retention, &watch)))?;
        if self.json.json {
            return output::json(&pruned);
        }
        let would = if self.dry_run { "would be " } else { "" };
        for backup in &pruned.removed {
            output::data(backup)?;
        }
        output::talk(&format!(
            "{} {would}removed, {} kept; {} with {} {would}removed.",
            count(pruned.removed.len() as u64, "backup"),
            pruned.kept.len(),
            count(pruned.objects, "object"),
            bytes(pruned.bytes)
        ));
        Ok(())
    }
}
