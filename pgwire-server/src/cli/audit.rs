//! `sepal audit list|verify|export|certificate`, answered by the running server.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use sepal_backup::show_moment;
use sepal_database::{AuditEvent, DestructionCertificate};

use crate::admin::{AUDIT_PAGE, Answer, AuditLine, EncryptionAction, EncryptionAnswer, Request, client};

use super::{
    failure::Failure,
    flags::{DataFlags, JsonFlag},
    key::unexpected,
    output,
};

#[derive(Subcommand)]
pub enum Audit {
    /// List the newest entries of the audit trail
    List(List),
    /// Check that no entry was changed, removed or added; exits with 1 if one was
    Verify(Verify),
    /// Print all entries and signed checkpoints as lines of JSON, which can be checked without any key
    Export(Export),
    /// Show the certificate of destruction of a dropped tenant again
    Certificate(Certificate),
}

#[derive(Args)]
pub struct List {
    /// How many
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
    #[command(flatten)]
    data: DataFlags,
    #[command(flatten)]
    json: JsonFlag,
}

#[derive(Args)]
pub struct Verify {
    /// A checkpoint that was kept elsewhere, as NUMBER:HASH
    #[arg(long, value_name = "NUMBER:HASH", value_parser = checkpoint)]
    expect: Option<(u64, String)>,
    #[command(flatten)]
    data: DataFlags,
    #[command(flatten)]
    json: JsonFlag,
}

#[derive(Args)]
pub struct Export {
    /// Only entries after this number
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    after: u64,
    #[command(flatten)]
    data: DataFlags,
}

#[derive(Args)]
pub struct Certificate {
    /// The name or the id that the tenant had
    tenant: String,
    /// Save it to a file
    #[arg(long, value_name = "FILE")]
    certificate: Option<PathBuf>,
    #[command(flatten)]
    data: DataFlags,
    #[command(flatten)]
    json: JsonFlag,
}

impl Audit {
    pub fn run(self) -> Result<(), Failure> {
        match self {
            Self::List(list) => list.run(),
            Self::Verify(verify) => verify.run(),
            Self::Export(export) => export.run(),
            Self::Certificate(certificate) => certificate.run(),
        }
    }
}

impl List {
    fn run(self) -> Result<(), Failure> {
        let data = self.data.data()?;
        let newest = page(&data, None, 1)?.pop().map_or(0, |entry| entry.number);
        let most = u64::try_from(self.limit).unwrap_or(u64::MAX);
        let entries = after(&data, newest.saturating_sub(most))?;
        if self.json.json {
            return entries.iter().try_for_each(output::json);
        }
        let rows: Vec<Vec<String>> = entries.iter().map(row).collect::<Result<_, _>>()?;
        output::rows(&["number", "time", "actor", "action", "object", "details"], &rows, "No entries yet.")
    }
}

impl Verify {
    fn run(self) -> Result<(), Failure> {
        let action = EncryptionAction::AuditVerify { expected: self.expect };
        let EncryptionAnswer::AuditReport(report) = ask(&self.data.data()?, action)? else {
            return Err(unexpected());
        };
        if self.json.json {
            output::json(&report)?;
        } else {
            output::data(&format!(
                "{} entries, {} signed checkpoints, head {}, signer {}",
                report.entries, report.checkpoints, report.head, report.signer
            ))?;
        }
        if report.wrong.is_empty() {
            return Ok(());
        }
        Err(Failure::failed(format!(
            "the audit trail is not as it was written:\n  {}",
            report.wrong.join("\n  ")
        )))
    }
}

impl Export {
    fn run(self) -> Result<(), Failure> {
        let data = self.data.data()?;
        after(&data, self.after)?.iter().try_for_each(output::json)?;
        let EncryptionAnswer::AuditCheckpoints(checkpoints) = ask(&data, EncryptionAction::AuditCheckpoints)?
        else {
            return Err(unexpected());
        };
        checkpoints
            .iter()
            .filter(|checkpoint| checkpoint.number > self.after)
            .try_for_each(|checkpoint| output::json(&serde_json::json!({ "checkpoint": checkpoint })))
    }
}

impl Certificate {
    fn run(self) -> Result<(), Failure> {
        let action = EncryptionAction::Certificate { tenant: self.tenant.clone() };
        let EncryptionAnswer::Certificate(found) = ask(&self.data.data()?, action)? else {
            return Err(unexpected());
        };
        let certificate = found.ok_or_else(|| {
            Failure::failed(format!("no tenant \"{}\" was dropped here, by that name or id", self.tenant))
        })?;
        show(&certificate, self.certificate.as_deref(), self.json.json)
    }
}

/// Prints a certificate: what it says, or with `json` all of it; and saves it.
pub fn show(certificate: &DestructionCertificate, file: Option<&Path>, json: bool) -> Result<(), Failure> {
    if let Some(path) = file {
        let text =
            serde_json::to_string_pretty(certificate).map_err(|error| Failure::failed(error.to_string()))?;
        fs::write(path, text + "\n")
            .map_err(|error| Failure::failed(format!("{}: {error}", path.display())))?;
    }
    if json {
        return output::json(certificate);
    }
    output::data(&certificate.certificate)?;
    output::talk(&format!("Signed by {}:\n{}", certificate.signer, certificate.signature));
    Ok(())
}

fn row(entry: &AuditLine) -> Result<Vec<String>, Failure> {
    let event: AuditEvent =
        serde_json::from_str(&entry.event).map_err(|error| Failure::failed(error.to_string()))?;
    let details = if event.details.is_null() { String::new() } else { event.details.to_string() };
    Ok(vec![
        entry.number.to_string(),
        show_moment(event.time.saturating_mul(1_000_000)),
        event.actor,
        event.action,
        event.object,
        details,
    ])
}

/// All entries after a number, page by page.
fn after(data: &Path, number: u64) -> Result<Vec<AuditLine>, Failure> {
    let mut entries = Vec::new();
    let mut last = number;
    loop {
        let more = page(data, Some(last), AUDIT_PAGE)?;
        let Some(newest) = more.last() else { return Ok(entries) };
        last = newest.number;
        entries.extend(more);
    }
}

fn page(data: &Path, after: Option<u64>, limit: usize) -> Result<Vec<AuditLine>, Failure> {
    match ask(data, EncryptionAction::Audit { after, limit })? {
        EncryptionAnswer::Audit(entries) => Ok(entries),
        _ => Err(unexpected()),
    }
}

fn ask(data: &Path, action: EncryptionAction) -> Result<EncryptionAnswer, Failure> {
    match client::ask(data, &Request::Encryption { action })? {
        Answer::Encryption(answer) => Ok(answer),
        _ => Err(unexpected()),
    }
}

fn checkpoint(text: &str) -> Result<(u64, String), String> {
    let wrong =
        || format!("\"{text}\" is no checkpoint: write its number, a colon and its hash of 64 digits");
    let (number, hash) = text.split_once(':').ok_or_else(wrong)?;
    let number = number.parse().map_err(|_| wrong())?;
    let well_formed = hash.len() == 64 && hash.bytes().all(|digit| digit.is_ascii_hexdigit());
    if well_formed { Ok((number, hash.to_owned())) } else { Err(wrong()) }
}
