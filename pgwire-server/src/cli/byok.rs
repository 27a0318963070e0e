//! `sepal tenant byok set|remove|status`: a tenant's own provider for its key, answered by the running server.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use sepal_backup::show_moment;
use sepal_database::Provider;

use crate::admin::{Answer, EncryptionAction, EncryptionAnswer, Request, TenantKeys, client};

use super::{
    failure::Failure,
    flags::{DataFlags, JsonFlag},
    key::unexpected,
    output,
    root_flags::ProviderFlags,
};

#[derive(Subcommand)]
pub enum Byok {
    /// Wrap a tenant's key by a provider of the tenant's own, besides the root key: both are needed from then on
    ///
    /// The tenant gets a new key with it, as by `rotate-key`: the one before stands in older backups without the
    /// provider. The provider is asked each time the tenant is opened. Files are the server's, read as the user that it
    /// runs as.
    Set(Box<Set>),
    /// Wrap a tenant's key by the root key alone again; its provider is asked once more
    Remove(Remove),
    /// Show a tenant's keys, and who wraps them
    Status(Status),
}

/// Who wraps a tenant's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ByokKind {
    /// A file with 64 hexadecimal digits, mode 0600
    File,
    /// A key in a PKCS#11 token
    Pkcs11,
    /// A key of the transit engine of Vault or OpenBao
    Transit,
}

#[derive(Args)]
pub struct Set {
    /// The tenant's name
    tenant: String,
    /// Who wraps its key
    #[arg(long, value_enum, value_name = "KIND")]
    provider: ByokKind,
    /// The key's file, for --provider file
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// File with the PIN or token, for --provider pkcs11 and transit
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    #[command(flatten)]
    flags: ProviderFlags,
    #[command(flatten)]
    data: DataFlags,
    #[command(flatten)]
    json: JsonFlag,
}

#[derive(Args)]
pub struct Remove {
    /// The tenant's name
    tenant: String,
    #[command(flatten)]
    data: DataFlags,
    #[command(flatten)]
    json: JsonFlag,
}

#[derive(Args)]
pub struct Status {
    /// The tenant's name
    tenant: String,
    #[command(flatten)]
    data: DataFlags,
    #[command(flatten)]
    json: JsonFlag,
}

impl Byok {
    pub fn run(self) -> Result<(), Failure> {
        match self {
            Self::Set(set) => {
                let (provider, tenant) = (set.provider()?, set.tenant.clone());
                let action = EncryptionAction::ByokSet { tenant, provider };
                tell(&set.data.data()?, action, &set.json)?;
                if !set.json.json {
                    output::talk(&advice(&set.tenant));
                }
                Ok(())
            }
            Self::Remove(remove) => {
                let action = EncryptionAction::ByokRemove { tenant: remove.tenant };
                tell(&remove.data.data()?, action, &remove.json)
            }
            Self::Status(status) => {
                let action = EncryptionAction::TenantKeys { tenant: status.tenant };
                tell(&status.data.data()?, action, &status.json)
            }
        }
    }
}

impl Set {
    fn provider(&self) -> Result<Provider, Failure> {
        let secret = self.secret_file.as_ref().map(std::path::absolute).transpose()?;
        if self.provider != ByokKind::File && secret.is_none() {
            return Err(Failure::usage("name the file with the provider's PIN or token: --secret-file"));
        }
        match self.provider {
            ByokKind::File => {
                let path = self
                    .key_file
                    .as_ref()
                    .ok_or_else(|| Failure::usage("name the key's file: --key-file"))?;
                Ok(Provider::KeyFile { path: std::path::absolute(path)? })
            }
            ByokKind::Pkcs11 => self.flags.pkcs11(secret),
            ByokKind::Transit => self.flags.transit(secret),
        }
    }
}

fn tell(data: &Path, action: EncryptionAction, json: &JsonFlag) -> Result<(), Failure> {
    let answer = client::ask(data, &Request::Encryption { action })?;
    let Answer::Encryption(EncryptionAnswer::TenantKeys(keys)) = answer else { return Err(unexpected()) };
    if json.json {
        return output::json(&keys);
    }
    describe(&keys)
}

fn advice(tenant: &str) -> String {
    format!(
        "Older backups, and older copies of control.db, open without the provider what was written before. The keys in \
         them are being replaced (sepal tenant key-status {tenant}).\nTo give every file another key as well:\n  sepal \
         tenant rotate-key {tenant} --files"
    )
}

fn describe(keys: &TenantKeys) -> Result<(), Failure> {
    let rows: Vec<Vec<String>> = keys
        .keys
        .iter()
        .map(|key| {
            let state = if key.current { "current" } else { "retiring" };
            let made = show_moment(key.created_at.saturating_mul(1_000_000));
            vec![key.epoch.to_string(), state.into(), made, key.check.clone()]
        })
        .collect();
    output::rows(&["epoch", "state", "made", "check"], &rows, "")?;
    let wrapped = match &keys.provider {
        Some(provider) => format!("wrapped by {provider}, then by the root key"),
        None => "wrapped by the root key".into(),
    };
    output::talk(&format!("{}: {wrapped}", keys.tenant));
    Ok(())
}
