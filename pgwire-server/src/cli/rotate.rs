//! `sepal tenant rotate-key|key-status`: a tenant's encryption key, and its files' keys, replaced by the running server.

use std::{io::IsTerminal, path::Path, thread, time::Duration};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use crate::admin::{Answer, EncryptionAction, EncryptionAnswer, Request, TenantKeyRotation, client};

use super::{
    failure::Failure,
    flags::{DataFlags, JsonFlag},
    key::unexpected,
    output,
};

/// How often a rotation is asked how far it is.
const TICK: Duration = Duration::from_millis(200);

#[derive(Args)]
#[command(
    after_help = "Clients go on meanwhile. No data is written anew, unless --files asks for it. Times before the \
    rotation can no longer be asked for, named snapshots can. The older key is destroyed when nothing needs it any more: \
    what pipelines have not delivered yet, and running backups, are waited for."
)]
pub struct RotateKey {
    /// The tenant's name
    name: String,
    /// Give every file another key as well: all of the tenant's data is written anew, in the background
    #[arg(long)]
    files: bool,
    /// Return when it is done; interrupting this does not stop it
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    data: DataFlags,
    #[command(flatten)]
    json: JsonFlag,
}

#[derive(Args)]
pub struct KeyStatus {
    /// The tenant's name
    name: String,
    /// Return when nothing is being replaced any more
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    data: DataFlags,
    #[command(flatten)]
    json: JsonFlag,
}

impl RotateKey {
    pub fn run(self) -> Result<(), Failure> {
        let data = self.data.data()?;
        let action = EncryptionAction::TenantKeyRotate { tenant: self.name.clone(), files: self.files };
        let begun = ask(&data, action)?;
        show(&data, begun, self.wait, &self.json)?;
        if !self.json.json {
            output::talk(
                "Backups from before open with the older key still, where they have it: make a new one, and remove them.",
            );
        }
        Ok(())
    }
}

impl KeyStatus {
    pub fn run(self) -> Result<(), Failure> {
        let data = self.data.data()?;
        let status = ask(&data, EncryptionAction::TenantKeyStatus { tenant: self.name.clone() })?;
        show(&data, status, self.wait, &self.json)
    }
}

/// Prints how far it is; with `wait` when it is over.
fn show(data: &Path, mut now: TenantKeyRotation, wait: bool, json: &JsonFlag) -> Result<(), Failure> {
    if wait {
        let bar = progress_bar(json.json);
        while now.running {
            bar.set_length(now.bytes);
            bar.set_position(now.bytes.saturating_sub(now.bytes_left));
            bar.set_message(doing(&now));
            thread::sleep(TICK);
            now = ask(data, EncryptionAction::TenantKeyStatus { tenant: now.tenant.clone() })?;
            if let (true, Some(why)) = (now.running, &now.failed) {
                bar.finish_and_clear();
                return Err(Failure::failed(format!(
                    "the keys are not replaced yet: {why}. The server tries again; `sepal tenant key-status {}` shows \
                     how far it is",
                    now.tenant
                )));
            }
        }
        bar.finish_and_clear();
    }
    if json.json {
        return output::json(&now);
    }
    output::data(&describe(&now))
}

fn ask(data: &Path, action: EncryptionAction) -> Result<TenantKeyRotation, Failure> {
    match client::ask(data, &Request::Encryption { action })? {
        Answer::Encryption(EncryptionAnswer::TenantKeyRotation(rotation)) => Ok(rotation),
        _ => Err(unexpected()),
    }
}

fn describe(now: &TenantKeyRotation) -> String {
    let epoch = now.keys.first().map_or(0, |key| key.epoch);
    let older = now.keys.len().saturating_sub(1);
    let under = now.under_older.map_or("files not counted yet".to_owned(), |files| format!("{files} files"));
    let mut text = format!(
        "{}: encryption key {epoch}, {under} under older keys, {older} older keys kept\nfiles' keys: generation {}",
        now.tenant, now.file_generation
    );
    if now.files_running {
        text += &format!(
            ", being replaced: {} of {} files and {} of {} MiB are left",
            now.files_left,
            now.files,
            mib(now.bytes_left),
            mib(now.bytes)
        );
    }
    if now.running {
        text += &format!("\nnow: {}", doing(now));
    }
    if let Some(why) = &now.failed {
        text += &format!("\nit did not go on when it was tried last: {why}");
    }
    text
}

/// What it is at, or waits for.
fn doing(now: &TenantKeyRotation) -> String {
    if now.files_left > 0 {
        return "writing files anew".to_owned();
    }
    match now.under_older {
        None => "sealing manifests under the new key".to_owned(),
        Some(_) => "waiting for what pipelines, backups or readers still need".to_owned(),
    }
}

fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

fn progress_bar(quiet: bool) -> ProgressBar {
    if quiet || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {msg}") {
        bar.set_style(style);
    }
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_told() {
        let mut now = TenantKeyRotation {
            tenant: "acme".into(),
            keys: Vec::new(),
            under_older: Some(0),
            file_generation: 1,
            files_running: true,
            files: 4,
            files_left: 1,
            bytes: 5 << 20,
            bytes_left: 1,
            log_files_left: 0,
            running: true,
            failed: None,
        };
        let text = describe(&now);
        assert!(text.contains("0 files under older keys"), "{text}");
        assert!(text.contains("1 of 4 files and 1 of 5 MiB are left"), "{text}");
        assert!(text.ends_with("now: writing files anew"), "{text}");
        (now.files_left, now.under_older) = (0, None);
        assert!(describe(&now).contains("not counted yet"));
        (now.running, now.files_running) = (false, false);
        assert!(!describe(&now).contains("now:"));
    }
}
