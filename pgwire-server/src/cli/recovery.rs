//! `sepal recovery create|verify|status`, answered by the running server, and `sepal recover`, which needs none: it
//! makes a root key's file for a directory from the recovery key or its shares.

use std::{
    fs,
    io::{self, IsTerminal, Read},
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use sepal_database::{
    AuditAction, Control, ControlError, Error, SqlState, keys::while_closed, open_recovery_package,
};
use zeroize::Zeroizing;

use crate::{
    admin::{Answer, EncryptionAction, EncryptionAnswer, Request, SecretText, client, recovery_key},
    config::Config,
    root_key,
};

use super::{
    failure::Failure,
    flags::{DataFlags, JsonFlag, ServerFlags},
    key::{duration, now, unexpected},
    output,
    process::cannot_open,
    root::{kept_files, note},
    root_flags::RootFlags,
};

/// Longest file of keys and shares: 255 shares of 100 bytes.
const MAX_BYTES: u64 = 64 << 10;
/// Room for that, and for reading on to its end.
const MAX_ROOM: usize = (64 << 10) + 1024;

#[derive(Subcommand)]
pub enum Recovery {
    /// Make a recovery key, or shares of one; they are shown this once
    Create(Create),
    /// Show that the recovery key, or enough shares, are really there
    Verify(Verify),
    /// Show whether there is a recovery key, and when it was last verified
    Status(Status),
}

#[derive(Args)]
pub struct Create {
    /// Hand out this many shares instead of the whole key
    #[arg(long, value_name = "N", requires = "threshold")]
    shares: Option<u8>,
    /// How many of the shares are needed
    #[arg(long, value_name = "N", requires = "shares")]
    threshold: Option<u8>,
    /// Replace the recovery key that there is
    ///
    /// In backups and copies of control.db from before, the one that is replaced gives the present root key still:
    /// replace that afterwards, with `sepal root rotate`.
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    data: DataFlags,
    #[command(flatten)]
    json: JsonFlag,
}

#[derive(Args)]
pub struct Verify {
    /// File with the recovery key, or with shares, one a line; may be given more than once; - for standard input
    #[arg(long = "from", value_name = "FILE", default_value = "-")]
    from: Vec<PathBuf>,
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

/// Makes the root key of a directory anew.
#[derive(Args)]
pub struct Recover {
    #[command(flatten)]
    server: ServerFlags,
    #[command(flatten)]
    root: RootFlags,
    /// File with the recovery key, or with shares, one a line; may be given more than once; - for standard input
    #[arg(long = "from", value_name = "FILE", default_value = "-")]
    from: Vec<PathBuf>,
    #[command(flatten)]
    json: JsonFlag,
}

impl Recovery {
    pub fn run(self) -> Result<(), Failure> {
        match self {
            Self::Create(create) => create.run(),
            Self::Verify(verify) => verify.run(),
            Self::Status(status) => status.run(),
        }
    }
}

impl Create {
    fn run(self) -> Result<(), Failure> {
        let action = EncryptionAction::RecoveryCreate {
            shares: self.threshold.zip(self.shares),
            replace: self.replace,
        };
        let EncryptionAnswer::Recovery { secrets, status } = ask(&self.data.data()?, action)? else {
            return Err(unexpected());
        };
        if self.json.json {
            return output::json(&serde_json::json!({ "secrets": secrets, "recovery": status }));
        }
        for secret in &secrets {
            output::data(&secret.0)?;
        }
        let advice = match status.shares {
            None => "Whoever has it and a copy of control.db or a backup can read everything.".to_owned(),
            Some((threshold, count)) => format!(
                "Give each of the {count} shares to another person; any {threshold} of them, with a copy of control.db \
                 or a backup, can read everything."
            ),
        };
        output::talk(&format!(
            "Recovery key {}, shown this once: it is not stored in a form that could be shown again. {advice}\n\
             Keep it away from this machine and from the backups, and show that it can be found:\n  \
             sepal recovery verify --from FILE",
            status.id
        ));
        if self.replace {
            output::talk(
                "With an older backup or copy of control.db, the recovery key before it gives the root key that is in \
                 force now, and so everything. Next:\n  sepal root rotate",
            );
        }
        Ok(())
    }
}

impl Verify {
    fn run(self) -> Result<(), Failure> {
        let secrets = lines_of(&self.from)?.into_iter().map(SecretText).collect();
        let answer = ask(&self.data.data()?, EncryptionAction::RecoveryVerify { secrets })?;
        let EncryptionAnswer::RecoveryStatus(Some(status)) = answer else { return Err(unexpected()) };
        if self.json.json {
            return output::json(&status);
        }
        output::talk(&format!("Recovery key {} gives the root key of this directory.", status.id));
        Ok(())
    }
}

impl Status {
    fn run(self) -> Result<(), Failure> {
        let answer = ask(&self.data.data()?, EncryptionAction::RecoveryStatus)?;
        let EncryptionAnswer::RecoveryStatus(status) = answer else { return Err(unexpected()) };
        if self.json.json {
            return output::json(&status);
        }
        let Some(status) = status else {
            return output::data(
                "no recovery key: who loses the root key loses everything (sepal recovery create)",
            );
        };
        let shares = match status.shares {
            Some((threshold, count)) => format!("{count} shares, {threshold} needed"),
            None => "handed out whole".into(),
        };
        let verified = match status.verified_at {
            Some(at) => format!("verified {} ago", duration(now() - at)),
            None => "never verified (sepal recovery verify)".into(),
        };
        output::data(&format!("recovery key {}: {shares}, {verified}", status.id))
    }
}

impl Recover {
    pub fn run(self) -> Result<(), Failure> {
        let config = self.server.load(&Config::default())?.config;
        if let Some(path) = kept_files(&config).first() {
            return Err(Failure::configuration(format!(
                "{} exists: if it does not open the directory, move it away first (it is never overwritten)",
                path.display()
            )));
        }
        let database = config.data.join("control.db");
        let kept = lines_of(&self.from)?;
        let key = recovery_key(kept.iter().map(|line| line.as_str())).map_err(Failure::failed)?;
        let new_root = self.root.new_root()?;
        let made = while_closed(&config.data, || {
            let package = Control::recovery_package_of(&database)?.ok_or_else(|| no_package(&config.data))?;
            let root = open_recovery_package(&package, &key)?;
            if !Control::opens_with(&database, &root)? {
                return Err(ControlError::WrongRootKey { database: database.clone() }.into());
            }
            let store = root_key::new_store(&config, &new_root)?;
            store.save(&root)?;
            let details = serde_json::json!({ "recovery_key": key.id(), "kept_in": store.describe() });
            note(&config, &root, AuditAction::RootRecovered, details);
            Ok(store.describe())
        });
        let kept_in = made.map_err(cannot_open)?;
        if self.json.json {
            return output::json(&serde_json::json!({ "root_key": kept_in }));
        }
        output::talk(&format!(
            "The root key is back, kept in: {kept_in}.\nNext:\n  sepal serve --data {0}\nIf the lost one may be in \
             wrong hands, also:\n  sepal root rotate --data {0}",
            config.data.display()
        ));
        Ok(())
    }
}

fn no_package(data: &Path) -> Error {
    Error::new(
        SqlState::ObjectNotInPrerequisiteState,
        format!("no recovery key was ever made for {}: only its root key opens it", data.display()),
    )
}

fn ask(data: &Path, action: EncryptionAction) -> Result<EncryptionAnswer, Failure> {
    match client::ask(data, &Request::Encryption { action })? {
        Answer::Encryption(answer) => Ok(answer),
        _ => Err(unexpected()),
    }
}

/// The lines of all files that are not empty.
fn lines_of(files: &[PathBuf]) -> Result<Vec<Zeroizing<String>>, Failure> {
    let mut lines = Vec::new();
    for path in files {
        // With room for all: a text that grows leaves its bytes where it was.
        let mut text = Zeroizing::new(String::with_capacity(MAX_ROOM));
        let named = |error: io::Error| Failure::failed(format!("{}: {error}", path.display()));
        if path.as_os_str() == "-" {
            if io::stdin().is_terminal() {
                output::talk("The recovery key, or its shares, one a line; an empty line or Ctrl-D ends:");
                read_typed(&mut text)?;
            } else {
                io::stdin().lock().take(MAX_BYTES).read_to_string(&mut text)?;
            }
        } else {
            fs::File::open(path)
                .and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text))
                .map_err(named)?;
        }
        let kept = text.lines().map(str::trim).filter(|line| !line.is_empty());
        lines.extend(kept.map(|line| Zeroizing::new(line.to_owned())));
    }
    if lines.is_empty() {
        return Err(Failure::failed("no recovery key and no share was given: name its file with --from"));
    }
    Ok(lines)
}

/// Reads lines that a person types, to the first that is empty.
fn read_typed(text: &mut String) -> Result<(), Failure> {
    loop {
        let before = text.len();
        io::stdin().read_line(text)?;
        if text[before..].trim().is_empty() {
            return Ok(());
        }
    }
}
