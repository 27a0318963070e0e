//! Flags that say who is to keep a key: of `init`, `recover`, `root move` and `tenant byok set`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use sepal_database::Provider;

use crate::root_key::NewRoot;

use super::failure::Failure;

/// Who keeps a root key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum RootKind {
    /// A file of mode 0600
    #[default]
    File,
    /// A passphrase that you give at each start (Argon2id)
    Passphrase,
    /// A key in a PKCS#11 token; it is made if the token has none with that label
    Pkcs11,
    /// A key of the transit engine of Vault or OpenBao
    Transit,
}

/// Where a root key is to be kept.
#[derive(Args)]
pub struct RootFlags {
    /// Who keeps the root key; all but file ask for --root-secret-file
    #[arg(long, value_name = "KIND", value_enum, default_value_t)]
    root_key: RootKind,
    #[command(flatten)]
    provider: ProviderFlags,
}

/// How a provider's key is found. None of it is secret.
#[derive(Args)]
pub struct ProviderFlags {
    /// The token's library, as /usr/lib/softhsm/libsofthsm2.so
    #[arg(long, value_name = "FILE")]
    pkcs11_module: Option<PathBuf>,
    /// The token's label
    #[arg(long, value_name = "LABEL")]
    pkcs11_token: Option<String>,
    /// The label of the key in the token
    #[arg(long, value_name = "LABEL", default_value = "sepal")]
    pkcs11_key: String,
    /// Where Vault or OpenBao answers, as https://vault.example:8200
    #[arg(long, value_name = "URL")]
    transit_url: Option<String>,
    /// Where its transit engine is mounted
    #[arg(long, value_name = "PATH", default_value = "transit")]
    transit_mount: String,
    /// The key's name in the transit engine
    #[arg(long, value_name = "NAME", default_value = "sepal")]
    transit_key: String,
    /// Its namespace
    #[arg(long, value_name = "NAMESPACE")]
    transit_namespace: Option<String>,
    /// PEM authorities to trust beside the public ones
    #[arg(long, value_name = "FILE")]
    transit_ca_file: Option<PathBuf>,
}

impl RootFlags {
    pub fn new_root(&self) -> Result<NewRoot, Failure> {
        Ok(match self.root_key {
            RootKind::File => NewRoot::File,
            RootKind::Passphrase => NewRoot::Passphrase,
            RootKind::Pkcs11 => NewRoot::Provider(self.provider.pkcs11(None)?),
            RootKind::Transit => NewRoot::Provider(self.provider.transit(None)?),
        })
    }
}

impl ProviderFlags {
    /// Paths are made absolute: the server reads them from another directory.
    pub fn pkcs11(&self, pin_file: Option<PathBuf>) -> Result<Provider, Failure> {
        let (Some(module), Some(token)) = (&self.pkcs11_module, &self.pkcs11_token) else {
            return Err(Failure::usage("a PKCS#11 token needs --pkcs11-module and --pkcs11-token"));
        };
        Ok(Provider::Pkcs11 {
            module: std::path::absolute(module)?,
            token: token.clone(),
            key: self.pkcs11_key.clone(),
            pin_file,
        })
    }

    pub fn transit(&self, token_file: Option<PathBuf>) -> Result<Provider, Failure> {
        let Some(url) = &self.transit_url else {
            return Err(Failure::usage("a transit engine needs --transit-url"));
        };
        Ok(Provider::Transit {
            url: url.clone(),
            mount: self.transit_mount.clone(),
            key: self.transit_key.clone(),
            namespace: self.transit_namespace.clone(),
            ca_file: self.transit_ca_file.as_ref().map(std::path::absolute).transpose()?,
            token_file,
        })
    }
}
