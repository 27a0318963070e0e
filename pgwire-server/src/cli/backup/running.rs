//! `sepal backup create|status|census`, answered by the running server.

use std::path::Path;

use clap::Args;
use sepal_backup::{Counted, JobStatus, Status as Standing, day, show_moment};

use crate::admin::{Answer, Request, client};

use super::{
    super::{
        failure::Failure,
        flags::{DataFlags, JsonFlag},
        key::unexpected,
        output,
    },
    bytes,
    progress::{Display, GLANCE},
};

#[derive(Args)]
pub struct Create {
    /// Where to, if the server is set up with none: a directory or s3://bucket/prefix
    #[arg(long, value_name = "URL")]
    repository: Option<String>,
    /// Store everything again, whatever the repository has
    #[arg(long)]
    full: bool,
    /// Where the repository that the server has used is gone for good: begin a new one in its place
    #[arg(long)]
    new_repository: bool,
    /// Begin it and do not wait; `sepal backup status` tells how it goes
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    data: DataFlags,
    #[command(flatten)]
    json: JsonFlag,
}

#[derive(Args)]
pub struct Status {
    #[command(flatten)]
    data: DataFlags,
    #[command(flatten)]
    json: JsonFlag,
}

#[derive(Args)]
pub struct Census {
    /// The day, as 2026-11-22 (UTC) [default: that of the newest backup]
    day: Option<String>,
    /// Only this tenant, with its tables
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    #[command(flatten)]
    data: DataFlags,
    #[command(flatten)]
    json: JsonFlag,
}

impl Create {
    pub fn run(self) -> Result<(), Failure> {
        let data = self.data.data()?;
        // The server's working directory is another one.
        let repository = match &self.repository {
            Some(path) if !path.contains("://") => Some(std::path::absolute(path)?.display().to_string()),
            other => other.clone(),
        };
        let request =
            Request::BackupCreate { repository, full: self.full, new_repository: self.new_repository };
        let Answer::BackupJob(number) = client::ask(&data, &request)? else { return Err(unexpected()) };
        if self.no_wait {
            output::talk("Begun. `sepal backup status` tells how it goes.");
            return Ok(());
        }
        let job = wait(&data, number)?;
        if self.json.json {
            output::json(&job)?;
        } else if let Some(backup) = &job.backup {
            output::data(backup)?;
            output::talk(&format!("Made; {} were new. Try it: sepal backup verify", bytes(job.new_bytes)));
        }
        match job.error {
            None => Ok(()),
            Some(error) => Err(Failure::failed(error)),
        }
    }
}

fn wait(data: &Path, number: u64) -> Result<JobStatus, Failure> {
    let mut display = Display::start();
    loop {
        let job = standing(data)?.job;
        if job.number > number {
            return Err(Failure::failed(
                "the backup ended, and another one was begun: see `sepal backup list`",
            ));
        }
        if job.has_ended() {
            display.end();
            return Ok(job);
        }
        display.show(&job.progress);
        std::thread::sleep(GLANCE);
    }
}

fn standing(data: &Path) -> Result<Box<Standing>, Failure> {
    match client::ask(data, &Request::BackupStatus)? {
        Answer::BackupStatus(status) => Ok(status),
        _ => Err(unexpected()),
    }
}

impl Status {
    pub fn run(self) -> Result<(), Failure> {
        let status = standing(&self.data.data()?)?;
        if self.json.json {
            return output::json(&status);
        }
        output::rows(&["", ""], &facts(&status), "")
    }
}

fn facts(status: &Standing) -> Vec<Vec<String>> {
    let when = |us: Option<i64>| us.map_or_else(|| "never".to_owned(), show_moment);
    let mut facts = vec![
        ("repository", status.repository.clone()),
        ("schedule", status.schedule.clone().unwrap_or_else(|| "off".into())),
        ("next backup", status.next_us.map_or_else(|| "when asked".into(), show_moment)),
        ("last backup", when(status.last_backup_us)),
        ("backups", status.backups.to_string()),
        ("last verified", when(status.last_verified_us)),
        ("log archived", when(status.archive.caught_up_us)),
        ("job", format!("{} {}", status.job.state, status.job.progress.stage)),
    ];
    if status.archive.gaps > 0 {
        facts.push(("gaps in the log", status.archive.gaps.to_string()));
    }
    if status.keys_to_destroy > 0 {
        facts.push(("keys to destroy", format!("of {} dropped tenants", status.keys_to_destroy)));
    }
    if status.verification_is_late {
        facts.push(("WARNING", "no backup was verified for long: run `sepal backup verify`".into()));
    }
    facts.extend(status.archive.error.clone().map(|error| ("log not archived", error)));
    facts.extend(status.last_error.clone().map(|error| ("last error", error)));
    facts.into_iter().map(|(name, value)| vec![name.to_owned(), value.trim().to_owned()]).collect()
}

impl Census {
    pub fn run(self) -> Result<(), Failure> {
        let data = self.data.data()?;
        let day = match self.day {
            Some(day) => day,
            None => match standing(&data)?.last_backup_us {
                Some(at) => day(at),
                None => return Err(Failure::failed("there is no backup yet, and so no census")),
            },
        };
        let request = Request::BackupCensus { day, tenant: self.tenant.clone() };
        let Answer::BackupCensus(counted) = client::ask(&data, &request)? else { return Err(unexpected()) };
        if self.json.json {
            return output::json(&counted);
        }
        for counted in &counted {
            if let Some(why) = &counted.why {
                output::talk(&format!("{}: {why}.", called(counted)));
            }
        }
        if self.tenant.is_some() && counted.iter().all(|counted| counted.inventory.is_some()) {
            return output::rows(
                &["environment", "schema", "table", "rows", "size"],
                &tables(&counted),
                "No such tenant.",
            );
        }
        let rows: Vec<Vec<String>> = counted.iter().map(tenant).collect();
        output::rows(&["tenant", "tables", "rows", "size", "key epoch"], &rows, "No tenants.")
    }
}

/// A tenant by the name that it has now, or by its id.
fn called(counted: &Counted) -> &str {
    counted.name.as_deref().unwrap_or(&counted.tenant)
}

fn tenant(counted: &Counted) -> Vec<String> {
    let Some(known) = &counted.inventory else {
        return [called(counted), "does not open", "", "", ""].map(str::to_owned).to_vec();
    };
    let rows: u64 = known.tables.iter().map(|table| table.rows).sum();
    vec![
        known.name.clone(),
        known.tables.len().to_string(),
        rows.to_string(),
        bytes(known.bytes),
        known.key_epoch.to_string(),
    ]
}

fn tables(counted: &[Counted]) -> Vec<Vec<String>> {
    let known = counted.iter().filter_map(|counted| counted.inventory.as_ref());
    let tables = known.flat_map(|known| &known.tables);
    tables
        .map(|table| {
            let names = [&table.environment, &table.schema, &table.name].map(String::clone);
            names.into_iter().chain([table.rows.to_string(), bytes(table.bytes)]).collect()
        })
        .collect()
}
