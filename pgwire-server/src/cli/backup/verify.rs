//! `sepal backup verify`: tries a backup by restoring it to a temporary directory.

use std::{path::PathBuf, sync::Arc};

use clap::Args;
use sepal_backup::{Report, Since, Target, VerifyOptions, Watch, show_moment};

use crate::root_key::ServerWrappers;

use super::{
    super::{check::count, failure::Failure, flags::JsonFlag, output, runtime},
    RateFlag, RepositoryFlags, bytes,
    opener::OpenerFlags,
    progress::watched,
};

#[derive(Args)]
#[command(
    after_help = "Every object is fetched and compared, every tenant's store opened, its rows counted and \
    hashed, and the k-NN questions asked again that were asked when the backup was made. Then the log that was \
    archived since is replayed: up to the next backup, whose rows must be found, or to its end. Exit code 1 if \
    anything differs. Without a recovery key it uses the root key of --data."
)]
pub struct Verify {
    /// The backup's id, as `sepal backup list` prints it, or latest
    #[arg(default_value = "latest")]
    backup: String,
    /// Only this tenant
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// Where the temporary directory is made; the largest tenant must fit [default: the system's]
    #[arg(long, value_name = "DIR")]
    work: Option<PathBuf>,
    #[command(flatten)]
    opener: OpenerFlags,
    #[command(flatten)]
    repository: RepositoryFlags,
    #[command(flatten)]
    rate: RateFlag,
    #[command(flatten)]
    json: JsonFlag,
}

impl Verify {
    pub fn run(self) -> Result<(), Failure> {
        let opener = self.opener.any(&self.repository)?;
        let repository = self.repository.open()?;
        let options = VerifyOptions {
            target: Target::named(&self.backup),
            tenant: self.tenant.clone(),
            work: self.work.clone().unwrap_or_else(std::env::temp_dir),
            wrappers: Arc::new(ServerWrappers),
        };
        let (pace, watch) = (self.rate.pace(), Watch::default());
        let job = sepal_backup::verify(&repository, &opener, &options, (&pace, &watch));
        let report = runtime()?.block_on(watched(&watch, job))?;
        if self.json.json {
            output::json(&report)?;
        } else {
            tell(&report)?;
        }
        if report.is_good() {
            return Ok(());
        }
        Err(Failure::failed(format!(
            "backup {} does not bring everything back: make another one (sepal backup create --full) while the data is \
             there",
            report.backup
        )))
    }
}

/// Which moments come back.
fn moments(since: &Since, backup: &str) -> String {
    let last = show_moment(since.time_us);
    match &since.next {
        Some(next) if since.gap => {
            format!(
                "GAP: log is missing between {backup} and {next}: some moments between them cannot be restored"
            )
        }
        Some(next) => format!("the log up to backup {next}, and its rows: every moment until {last}"),
        None => format!("the log archived since: every moment until {last}"),
    }
}

fn tell(report: &Report) -> Result<(), Failure> {
    for tenant in &report.tenants {
        let word = if tenant.wrong.is_empty() { "PASS" } else { "FAIL" };
        output::data(&format!(
            "{word}\t{}\t{}, {} and their content, {}",
            tenant.name,
            count(tenant.tables, "table"),
            count(tenant.rows, "row"),
            count(tenant.questions, "k-NN answer")
        ))?;
        if let Some(since) = &tenant.since {
            output::data(&format!("\t\t{}", moments(since, &report.backup)))?;
        }
        for wrong in &tenant.wrong {
            output::data(&format!("\t\t{wrong}"))?;
        }
    }
    for wrong in &report.wrong {
        output::data(&format!("FAIL\tbackup\t{wrong}"))?;
    }
    for tenant in &report.older {
        output::talk(&format!(
            "{tenant} could not be read when the backup was made: it is in it as it was before."
        ));
    }
    for tenant in &report.missing {
        output::data(&format!(
            "FAIL\t{tenant}\tcould not be read when the backup was made: it is not in it"
        ))?;
    }
    for tenant in &report.dropped {
        output::data(&format!("PASS\t{tenant}\twas dropped since: its keys are gone, nothing of it opens"))?;
    }
    output::data(&format!("PASS\taudit trail\t{} entries", report.audit_entries))?;
    output::talk(&format!(
        "Backup {} of {}: {} with {} fetched and compared.",
        report.backup,
        show_moment(report.made_us),
        count(report.objects, "object"),
        bytes(report.bytes)
    ));
    Ok(())
}
