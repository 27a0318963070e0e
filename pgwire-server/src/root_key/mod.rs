//! Where this process gets its root key from, and how it reaches the providers that wrap keys.
//!
//! The engine knows what a provider is (`sepal_database::Provider`); the PKCS#11 module and the HTTP client are here.
//! What a provider asks for (a passphrase, a PIN, a token) comes from a file of mode 0600, from standard input, or from
//! systemd's credential `sepal-root-secret`; never from the command line or the environment.

mod pkcs11;
mod secret;
mod transit;

use std::sync::Arc;

use sepal_database::{
    ControlError, Error, Key, KeyFiles, KeyWrapper, Passphrase, PassphraseCost, Provider, RootStore,
    WrapperError, Wrappers,
};

pub use self::secret::Secret;
use crate::config::Config;

/// What a new root key's provider is to be; its secret is asked for then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewRoot {
    File,
    Passphrase,
    /// A PKCS#11 token or a transit engine.
    Provider(Provider),
}

/// Providers as `sepal` reaches them.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServerWrappers;

impl Wrappers for ServerWrappers {
    /// For a tenant's own provider: its secret is in the file that the description names.
    fn open(&self, provider: &Provider) -> Result<Arc<dyn KeyWrapper>, WrapperError> {
        let file = match provider {
            Provider::KeyFile { .. } => return KeyFiles.open(provider),
            Provider::Passphrase { .. } => {
                let why =
                    "a tenant's key is not wrapped by a passphrase: nobody could type it at each opening";
                return Err(WrapperError::Misconfigured(why.into()));
            }
            Provider::Pkcs11 { pin_file, .. } => pin_file,
            Provider::Transit { token_file, .. } => token_file,
        };
        let file = file.clone().ok_or_else(|| {
            WrapperError::Misconfigured(format!("{provider}: no file with its PIN or token is named"))
        })?;
        open(provider, &Secret::File(file), Missing::Refuse)
    }
}

/// What becomes of a key that a token does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missing {
    Refuse,
    /// It is made, so that `sepal init` needs no other tool.
    Make,
}

/// The store of a data directory that was made already.
///
/// Errors: exit 78, with what to do.
pub fn open_store(config: &Config) -> Result<RootStore, Error> {
    let Some(provider) = RootStore::provider_of(&config.data)? else {
        let (database, key) = (config.data.join("control.db"), config.root_key_path());
        // A directory that was never one of Sepal's, or is not there: its key is not what is missing.
        if config.root_key_file.is_none() && !key.exists() && !database.exists() {
            return Err(ControlError::NoDatabase(database).into());
        }
        return Ok(RootStore::file(&key));
    };
    let secret = Secret::of(config).map_err(|why| refused(&provider, WrapperError::Misconfigured(why)))?;
    let wrapper = open(&provider, &secret, Missing::Refuse).map_err(|why| refused(&provider, why))?;
    Ok(RootStore::sealed(&config.data, wrapper))
}

/// The store that a new directory, or a recovered one, is to have. Nothing is written yet, but a token may get a key.
pub fn new_store(config: &Config, new: &NewRoot) -> Result<RootStore, Error> {
    let wrapper: Arc<dyn KeyWrapper> = match new {
        NewRoot::File => return Ok(RootStore::file(&config.root_key_path())),
        NewRoot::Passphrase => {
            let secret = Secret::of(config).and_then(|secret| secret.read());
            let made = secret
                .map_err(WrapperError::Misconfigured)
                .and_then(|words| Passphrase::new(&words, PassphraseCost::RECOMMENDED));
            Arc::new(
                made.map_err(|why| Error::from(ControlError::from(provider_error("a passphrase", why))))?,
            )
        }
        NewRoot::Provider(provider) => {
            let secret =
                Secret::of(config).map_err(|why| refused(provider, WrapperError::Misconfigured(why)))?;
            open(provider, &secret, Missing::Make).map_err(|why| refused(provider, why))?
        }
    };
    Ok(RootStore::sealed(&config.data, wrapper))
}

/// The key that opens the directory's control database.
pub fn unlock(config: &Config, store: &RootStore) -> Result<Key, Error> {
    Ok(store.unlock(&config.data.join("control.db"))?)
}

fn open(provider: &Provider, secret: &Secret, missing: Missing) -> Result<Arc<dyn KeyWrapper>, WrapperError> {
    let read = || secret.read().map_err(WrapperError::Misconfigured);
    let wrapper: Arc<dyn KeyWrapper> = match provider {
        Provider::Passphrase { .. } => Arc::new(Passphrase::again(&read()?, provider)?),
        Provider::Pkcs11 { .. } => Arc::new(pkcs11::Token::open(provider, &read()?, missing)?),
        Provider::Transit { .. } => {
            // Asked now, so that a missing file is said at once; read anew for each request.
            read()?;
            Arc::new(transit::Transit::open(provider, secret.clone())?)
        }
        Provider::KeyFile { .. } => KeyFiles.open(provider)?,
    };
    Ok(wrapper)
}

fn refused(provider: &Provider, why: WrapperError) -> Error {
    ControlError::from(provider_error(&provider.to_string(), why)).into()
}

fn provider_error(provider: &str, why: WrapperError) -> sepal_database::RootKeyError {
    sepal_database::RootKeyError::Provider { provider: provider.to_owned(), why }
}

#[cfg(test)]
mod tests;
