//! `sepal init`: makes a data directory and refuses one that is already made.
//!
//! ```text
//! DIR          0700
//! DIR/root.key 0600  unless --root-key-file names another place; or
//! DIR/root.seal 0600 with --root-key passphrase, pkcs11 or transit
//! DIR/tls/           the server's certificate and key, and the authority that clients check it by
//! DIR/lock     0600  held by the process that has the directory open
//! DIR/control.db     tenants and keys, values sealed; written last, so its presence means "made"
//! ```
//!
//! A run that was interrupted can be repeated: what is there already is used.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use clap::Args;
use sepal_database::{Database, Provider, RootStore};

use crate::{
    certificates::{self, CertificateFiles},
    config::{Config, files},
    root_key::{self, NewRoot},
};

use super::{failure::Failure, flags::ServerFlags, output, process::cannot_open, root_flags::RootFlags};

/// What a run that was interrupted may have left, and what may be there before it.
const OURS: [&str; 8] = [
    "root.key",
    "root.seal",
    "tls",
    "sepal.toml",
    "lock",
    "lost+found",
    "control.unfinished",
    "control.unfinished-journal",
];

#[derive(Args)]
pub struct Init {
    #[command(flatten)]
    server: ServerFlags,
    #[command(flatten)]
    root: RootFlags,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Init {
    pub fn run(self) -> Result<(), Failure> {
        let config = self.server.load(&Config::default())?.config;
        if is_made(&config.data) {
            return Err(Failure::failed(format!(
                "{0} already holds a Sepal database: serve it with `sepal serve --data {0}`, or choose another \
                 directory",
                config.data.display()
            )));
        }
        let root = self.root.new_root()?;
        make(&config, &root)?;
        let authority = config.certificate_files().authority;
        if self.json {
            return output::json(&serde_json::json!({
                "data": config.data, "authority": authority,
                "root_key_file": (root == NewRoot::File).then(|| config.root_key_path()),
            }));
        }
        output::data(&config.data.display().to_string())?;
        output::talk(&advice(&config, &root));
        Ok(())
    }
}

/// Whether a directory holds a database.
pub fn is_made(data: &Path) -> bool {
    data.join("control.db").exists()
}

/// Makes everything that a server needs to start.
pub fn make(config: &Config, root: &NewRoot) -> Result<(), Failure> {
    let data = &config.data;
    check_ours(data)?;
    files::create_private_dir(data)?;
    fs::set_permissions(data, fs::Permissions::from_mode(0o700))?;
    if config.tls_cert.is_none() && !complete(&CertificateFiles::made_in(data)) {
        certificates::create(data, &config.certificate_addresses())?;
    }
    let store = match RootStore::provider_of(data).map_err(|error| cannot_open(error.into()))? {
        // Of a run that was interrupted: a passphrase has its salt in there.
        Some(provider) => {
            check_same(&provider, root, data)?;
            root_key::open_store(config)
        }
        None => root_key::new_store(config, root),
    };
    let store = store.map_err(cannot_open)?;
    let key = if store.path().exists() { store.read() } else { store.create() };
    Database::init(data, key.map_err(|error| Failure::configuration(error.to_string()))?)?;
    Ok(())
}

/// The root key of an interrupted run is where that run was told to keep it, and a server would look there first.
fn check_same(provider: &Provider, root: &NewRoot, data: &Path) -> Result<(), Failure> {
    let same = match root {
        NewRoot::File => false,
        NewRoot::Passphrase => matches!(provider, Provider::Passphrase { .. }),
        NewRoot::Provider(wanted) => provider == wanted,
    };
    if same {
        return Ok(());
    }
    Err(Failure::configuration(format!(
        "{} holds a root.seal of an `init` that was interrupted, for {provider}: repeat it with the same flags, or \
         remove that file",
        data.display()
    )))
}

/// Refuses a directory with files that are not ours: a typing mistake must not scatter a database over a home
/// directory and close it to others.
fn check_ours(data: &Path) -> Result<(), Failure> {
    let Ok(entries) = fs::read_dir(data) else { return Ok(()) };
    for entry in entries {
        let name = entry?.file_name();
        if !OURS.iter().any(|ours| name == *ours) {
            return Err(Failure::failed(format!(
                "{} is not empty (it holds {}): name a new or empty directory with --data",
                data.display(),
                name.display()
            )));
        }
    }
    Ok(())
}

fn complete(files: &CertificateFiles) -> bool {
    files.certificate.exists()
        && files.key.exists()
        && files.authority.as_ref().is_none_or(|path| path.exists())
}

/// The command that serves what was made, with what it has to be told again.
fn serve_command(config: &Config) -> String {
    let mut command = format!("sepal serve --data {}", config.data.display());
    if config.pg_listen != Config::default().pg_listen {
        command.push_str(&format!(" --pg-listen {}", config.pg_listen));
    }
    for (flag, file) in [
        ("--root-key-file", &config.root_key_file),
        ("--root-secret-file", &config.root_secret_file),
        ("--tls-cert", &config.tls_cert),
        ("--tls-key", &config.tls_key),
    ] {
        if let Some(file) = file {
            command.push_str(&format!(" {flag} {}", file.display()));
        }
    }
    command
}

fn advice(config: &Config, root: &NewRoot) -> String {
    let data = config.data.display();
    let serve = serve_command(config);
    let next = format!(
        "Next:\n  {serve}\n  sepal recovery create --data {data}\n  \
         sepal tenant create acme --data {data}\n  sepal key create --tenant acme --data {data}"
    );
    if *root != NewRoot::File {
        return format!(
            "Made. The root key is in root.seal, and whoever wrapped it there is needed to open it. A recovery key \
             opens it as well: make one before it is needed.\n{next}"
        );
    }
    let key = config.root_key_path();
    let beside = if key.starts_with(&config.data) {
        format!(
            "\nIt lies beside the data it protects. Better: move it to another disk or a secret store and serve \
             with\n  sepal serve --data {data} --root-key-file FILE"
        )
    } else {
        String::new()
    };
    format!(
        "Made. The root key is {}: without it, or a recovery key, the data cannot be read, by anyone. Keep a copy \
         elsewhere.{beside}\n{next}",
        key.display()
    )
}
