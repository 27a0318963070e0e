//! Who wraps a key for us: a passphrase, a key file, a PKCS#11 token, the transit engine of Vault or OpenBao.
//!
//! The engine knows what a provider is and how it is written down, never how it is reached: sockets and modules are the
//! server's, which fills [`Wrappers`]. Used for the root key ([`super::RootStore`]) and for tenants' keys (`own`).

use std::{fmt, path::PathBuf, sync::Arc};

use sepal_crypto::{unwrap_secret, wrap_secret};
use serde::{Deserialize, Serialize};
use thiserror::Error as ThisError;
use zeroize::Zeroizing;

use super::key_file;
use crate::KeyFileError;

/// A provider and all that is needed to find its key again. Nothing here is secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Provider {
    /// 64 hexadecimal digits in a file that the server may read alone.
    KeyFile { path: PathBuf },
    /// Argon2id.
    Passphrase {
        /// Hexadecimal, 16 bytes.
        salt: String,
        memory_kib: u32,
        passes: u32,
        lanes: u32,
    },
    /// An AES-256 key in a token, which never leaves it.
    Pkcs11 {
        /// The library that speaks with the token.
        module: PathBuf,
        /// The token's label.
        token: String,
        /// The key's label.
        key: String,
        /// The file with the PIN; `None`: given otherwise.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pin_file: Option<PathBuf>,
    },
    /// A key of the transit engine.
    Transit {
        /// `https://vault.example:8200`
        url: String,
        /// Where the engine is mounted: `transit`.
        mount: String,
        key: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        namespace: Option<String>,
        /// PEM authorities to trust beside the public ones.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ca_file: Option<PathBuf>,
        /// The file with the token; `None`: given otherwise.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token_file: Option<PathBuf>,
    },
}

impl fmt::Display for Provider {
    /// `passphrase`, `key file /x`, `PKCS#11 token "t", key "k"`, `transit key "k" at https://…`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeyFile { path } => write!(f, "key file {}", path.display()),
            Self::Passphrase { .. } => f.write_str("passphrase"),
            Self::Pkcs11 { token, key, .. } => write!(f, "PKCS#11 token \"{token}\", key \"{key}\""),
            Self::Transit { url, mount, key, .. } => write!(f, "transit key \"{mount}/{key}\" at {url}"),
        }
    }
}

/// Why a provider did not do what it was asked. Holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
pub enum WrapperError {
    /// It may do it later: unreachable, sealed, overloaded.
    #[error("{0}")]
    Unavailable(String),
    /// It said no: no right, no such key, not what it wrapped.
    #[error("{0}")]
    Refused(String),
    /// Our own settings are wrong.
    #[error("{0}")]
    Misconfigured(String),
}

/// Wraps and unwraps with a key that somebody else keeps. Calls may block for seconds.
pub trait KeyWrapper: Send + Sync {
    fn provider(&self) -> Provider;

    /// `context` is what `unwrap` must be given again; providers that can, authenticate it.
    fn wrap(&self, context: &[u8], secret: &[u8]) -> Result<Vec<u8>, WrapperError>;

    fn unwrap(&self, context: &[u8], wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, WrapperError>;
}

/// Finds the wrapper that a provider's description means.
pub trait Wrappers: Send + Sync {
    fn open(&self, provider: &Provider) -> Result<Arc<dyn KeyWrapper>, WrapperError>;
}

/// Knows key files and nothing else: what an embedder without the server has.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeyFiles;

impl Wrappers for KeyFiles {
    fn open(&self, provider: &Provider) -> Result<Arc<dyn KeyWrapper>, WrapperError> {
        match provider {
            Provider::KeyFile { path } => Ok(Arc::new(KeyFile { path: path.clone() })),
            other => Err(WrapperError::Misconfigured(format!(
                "{other} is a provider that this process does not have: use `sepal`"
            ))),
        }
    }
}

/// A key in a file, read at each use: so that taking the file away takes the key away.
struct KeyFile {
    path: PathBuf,
}

impl KeyFile {
    fn key(&self) -> Result<sepal_crypto::Key, WrapperError> {
        let unavailable = |error: KeyFileError| WrapperError::Unavailable(format!("the {error}"));
        let key = key_file::read(&self.path).map_err(unavailable)?;
        Ok(key.derive("own key file 1", &[]))
    }
}

impl KeyWrapper for KeyFile {
    fn provider(&self) -> Provider {
        Provider::KeyFile { path: self.path.clone() }
    }

    fn wrap(&self, context: &[u8], secret: &[u8]) -> Result<Vec<u8>, WrapperError> {
        Ok(wrap_secret(&self.key()?, context, secret))
    }

    fn unwrap(&self, context: &[u8], wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, WrapperError> {
        unwrap_secret(&self.key()?, context, wrapped)
            .map_err(|error| WrapperError::Refused(format!("{}: {error}", self.path.display())))
    }
}
