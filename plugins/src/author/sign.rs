//! `sepal plugin keygen` and `sign`: who made a plugin's file.
//!
//! ```text
//! <key>        64 hexadecimal digits, mode 0600    the private key
//! <key>.pub    ed25519:<base64 of 32 bytes>        for CREATE PLUGIN TRUST KEY
//! <wasm>.sig   base64 of 64 bytes                  for CREATE PLUGIN … SIGNATURE
//! ```
//! A signature covers `"sepal-plugin-v1\0"` and the SHA-256 of the whole file, so the manifest too.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use sepal_database::sealing::SigningKey;
use zeroize::Zeroizing;

use super::{AuthorError, Result};
use crate::package;

/// Writes a new private key to `path`, which must not be there, and its public half to `<path>.pub`; gives the latter's
/// text.
pub fn keygen(path: &Path) -> Result<String> {
    let key = SigningKey::generate();
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(AuthorError::at(path))?;
    writeln!(file, "{}", key.to_hex().as_str())
        .and_then(|()| file.sync_all())
        .map_err(AuthorError::at(path))?;
    let public = key.verifying_key().to_string();
    let public_path = beside(path, "pub");
    fs::write(&public_path, format!("{public}\n")).map_err(AuthorError::at(&public_path))?;
    Ok(public)
}

/// Signs a packed component with the key in a file and writes `<component>.sig`.
///
/// Errors: the component is not packed, as nobody could use it; the key's file holds no key.
pub fn sign(component: &Path, key: &Path) -> Result<PathBuf> {
    let text = Zeroizing::new(fs::read_to_string(key).map_err(AuthorError::at(key))?);
    let signing = SigningKey::from_hex(&text).map_err(|problem| {
        AuthorError::Project(format!("{}: {problem}; `sepal plugin keygen` makes one", key.display()))
    })?;
    let bytes = fs::read(component).map_err(AuthorError::at(component))?;
    let package = package::Package::read(&bytes)?;
    let signature = signing.sign(&package::signing_message(&package.hash));
    let path = beside(component, "sig");
    fs::write(&path, format!("{}\n", STANDARD.encode(signature))).map_err(AuthorError::at(&path))?;
    Ok(path)
}

/// `hook.wasm` with `sig` is `hook.wasm.sig`.
fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(end);
    PathBuf::from(name)
}
