//! `sepal root status|rotate`, answered by the running server, and `sepal root move`, which wants it stopped.

use std::{io::IsTerminal, path::PathBuf, thread, time::Duration};

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use sepal_database::{AuditAction, Control, ControlOptions, Key, NewAuditEvent, keys::while_closed};

use crate::{
    admin::{Answer, EncryptionAction, EncryptionAnswer, Request, Rotation, client},
    config::Config,
    root_key,
};

use super::{
    check::count,
    failure::Failure,
    flags::{DataFlags, JsonFlag, ServerFlags},
    key::unexpected,
    output,
    process::cannot_open,
    root_flags::RootFlags,
};

/// How often a rotation is asked how far it is.
const TICK: Duration = Duration::from_millis(200);

#[derive(Subcommand)]
pub enum Root {
    /// Show where the root key is kept, and how far its replacement is
    Status(Status),
    /// Replace the root key while the server runs: tenants' keys are wrapped anew, no data is touched
    Rotate(Rotate),
    /// Keep the same root key elsewhere: in a file, under a passphrase, in a PKCS#11 token or with a transit engine
    ///
    /// The server must be stopped. Changing a passphrase is a move from one to another.
    Move(Box<Move>),
}

#[derive(Args)]
pub struct Status {
    #[command(flatten)]
    data: DataFlags,
    #[command(flatten)]
    json: JsonFlag,
}

#[derive(Args)]
pub struct Rotate {
    #[command(flatten)]
    data: DataFlags,
    #[command(flatten)]
    json: JsonFlag,
}

#[derive(Args)]
pub struct Move {
    #[command(flatten)]
    server: ServerFlags,
    #[command(flatten)]
    root: RootFlags,
    /// File with the passphrase, PIN or token of the new place, mode 0600; - for standard input
    #[arg(long, value_name = "FILE")]
    new_secret_file: Option<PathBuf>,
    #[command(flatten)]
    json: JsonFlag,
}

impl Root {
    pub fn run(self) -> Result<(), Failure> {
        match self {
            Self::Status(status) => status.run(),
            Self::Rotate(rotate) => rotate.run(),
            Self::Move(moved) => moved.run(),
        }
    }
}

impl Status {
    fn run(self) -> Result<(), Failure> {
        let rotation = ask(&self.data.data()?, EncryptionAction::RootStatus)?;
        if self.json.json {
            return output::json(&rotation);
        }
        output::data(&describe(&rotation))
    }
}

impl Rotate {
    fn run(self) -> Result<(), Failure> {
        let data = self.data.data()?;
        let mut rotation = ask(&data, EncryptionAction::RootRotate)?;
        let bar = progress_bar(&rotation, self.json.json);
        while goes_on(&rotation) {
            thread::sleep(TICK);
            rotation = ask(&data, EncryptionAction::RootStatus)?;
            bar.set_length(rotation.keys);
            bar.set_position(rotation.keys.saturating_sub(rotation.under_old));
        }
        bar.finish_and_clear();
        if let Some(why) = &rotation.failed {
            return Err(Failure::failed(format!(
                "the root key is replaced, but {} still under the old one: {why}. `sepal root rotate` goes on",
                count(rotation.under_old, "key")
            )));
        }
        if self.json.json {
            return output::json(&rotation);
        }
        output::data(&describe(&rotation))?;
        output::talk(
            "Copies of the old root key open older backups of this directory still: destroy them when those are gone.",
        );
        Ok(())
    }
}

impl Move {
    fn run(self) -> Result<(), Failure> {
        let config = self.server.load(&Config::default())?.config;
        let new_root = self.root.new_root()?;
        let new_config = Config { root_secret_file: self.new_secret_file.clone(), ..config.clone() };
        let moved = while_closed(&config.data, || {
            let old = root_key::open_store(&config)?;
            let key = root_key::unlock(&config, &old)?;
            let new = root_key::new_store(&new_config, &new_root)?;
            if new.path() == old.path() {
                new.overwrite(&key)?;
            } else {
                // Both open the directory until the old one is gone; root.seal is looked for first.
                new.save(&key)?;
                old.remove()?;
            }
            let details = serde_json::json!({ "from": old.describe(), "to": new.describe() });
            note(&config, &key, AuditAction::RootMoved, details);
            Ok((old.describe(), new.describe()))
        });
        let (from, to) = moved.map_err(cannot_open)?;
        if self.json.json {
            return output::json(&serde_json::json!({ "from": from, "to": to }));
        }
        output::talk(&format!("The root key was kept in: {from}. It is kept in: {to}."));
        Ok(())
    }
}

/// The files that hold a directory's root key, in either way.
pub(super) fn kept_files(config: &Config) -> Vec<PathBuf> {
    let seal = config.data.join("root.seal");
    [config.root_key_path(), seal].into_iter().filter(|path| path.exists()).collect()
}

/// Tells the audit trail of a directory that no server has open. The root key is where it belongs by then, so what
/// keeps the trail from taking it is told and stops nothing.
pub(super) fn note(config: &Config, root: &Key, action: AuditAction, details: serde_json::Value) {
    let noted = Control::open(&config.data.join("control.db"), root, ControlOptions::default())
        .and_then(|control| control.audit(NewAuditEvent::new(action, "root key").with(details)));
    if let Err(error) = noted {
        output::talk(&format!("The audit trail does not have this: {error}"));
    }
}

fn ask(data: &std::path::Path, action: EncryptionAction) -> Result<Rotation, Failure> {
    match client::ask(data, &Request::Encryption { action })? {
        Answer::Encryption(EncryptionAnswer::Rotation(rotation)) => Ok(rotation),
        _ => Err(unexpected()),
    }
}

/// Whether there is something to wait for. One that stopped is under way still, and nobody works on it.
fn goes_on(rotation: &Rotation) -> bool {
    rotation.running && rotation.failed.is_none()
}

fn describe(rotation: &Rotation) -> String {
    let kept = rotation.kept_in.as_deref().unwrap_or("where its embedder keeps it");
    let state = if rotation.running {
        let keys = count(rotation.keys, "key");
        format!("being replaced: {} of {keys} still under the old root key", rotation.under_old)
    } else {
        format!(
            "{} under it, {} under the old root key",
            count(rotation.keys, "key"),
            count(rotation.under_old, "key")
        )
    };
    let stopped = rotation
        .failed
        .as_deref()
        .map_or_else(String::new, |why| format!("\nit stopped: {why}. `sepal root rotate` goes on"));
    format!("root key {} of this directory, kept in: {kept}\n{state}{stopped}", rotation.generation)
}

fn progress_bar(rotation: &Rotation, quiet: bool) -> ProgressBar {
    if quiet || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(rotation.keys);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} keys under the new root key") {
        bar.set_style(style);
    }
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotation_that_stopped_is_told_and_not_waited_for() {
        let mut rotation = Rotation {
            kept_in: None,
            generation: 2,
            keys: 1_000,
            under_old: 500,
            running: true,
            failed: None,
        };
        assert!(goes_on(&rotation) && !describe(&rotation).contains("stopped"));
        rotation.failed = Some("database or disk is full".into());
        assert!(!goes_on(&rotation));
        let told = describe(&rotation);
        assert!(told.contains("500 of 1000 keys still under the old root key"), "{told}");
        assert!(
            told.ends_with("it stopped: database or disk is full. `sepal root rotate` goes on"),
            "{told}"
        );
    }
}
