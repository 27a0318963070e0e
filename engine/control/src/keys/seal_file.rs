//! `root.seal`: the root key, wrapped by a provider.
//!
//! ```json
//! {"format":1,
//!  "provider":{"kind":"passphrase","salt":"…","memory_kib":65536,"passes":3,"lanes":4},
//!  "wrapped":"…",  hexadecimal, what the provider made of the 32 bytes
//!  "check":"…"}    hexadecimal, 16 bytes: tells whether what it gave back is the key
//! ```
//! Mode 0600, owned by our user, or it is not read; one line. It is not authenticated, because nothing is known yet
//! that could do it: whoever can change it decides which provider is asked next, and that one gets what the operator
//! gives for the present one, the passphrase, the PIN or the token. So it is to be protected like that secret, and
//! `provider` in one that comes from elsewhere is to be looked at first (docs/keys.md).

use std::path::Path;

use sepal_crypto::{Aad, Key, constant_time_eq, hex, unhex};
use serde::{Deserialize, Serialize};

use crate::RootKeyError;

use super::{KeyWrapper, Provider, key_file};

const FORMAT: u32 = 1;
/// More than any seal has.
pub(super) const MAX_BYTES: usize = 64 << 10;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Seal {
    format: u32,
    provider: Provider,
    wrapped: String,
    check: String,
}

/// Who wrapped the root key in this file.
pub(super) fn provider(path: &Path) -> Result<Provider, RootKeyError> {
    Ok(load(path)?.provider)
}

pub(super) fn read(path: &Path, wrapper: &dyn KeyWrapper) -> Result<Key, RootKeyError> {
    let seal = load(path)?;
    let malformed = |why: &str| RootKeyError::BadSeal { path: path.to_owned(), why: why.into() };
    let wrapped =
        unhex(seal.wrapped.as_bytes()).ok_or_else(|| malformed("\"wrapped\" is not hexadecimal"))?;
    let plain = wrapper
        .unwrap(&context(), &wrapped)
        .map_err(|why| RootKeyError::Provider { provider: seal.provider.to_string(), why })?;
    let bytes: &[u8; 32] =
        plain.as_slice().try_into().map_err(|_| malformed("what the provider gave back has not 32 bytes"))?;
    let key = Key::from_bytes(*bytes);
    if constant_time_eq(hex(&key.check_value()).as_bytes(), seal.check.as_bytes()) {
        Ok(key)
    } else {
        Err(malformed("what the provider gave back is not the key that was wrapped"))
    }
}

/// Never overwrites.
pub(super) fn write(path: &Path, wrapper: &dyn KeyWrapper, key: &Key) -> Result<(), RootKeyError> {
    let provider = wrapper.provider();
    let failed = |why| RootKeyError::Provider { provider: provider.to_string(), why };
    let wrapped = wrapper.wrap(&context(), key.expose()).map_err(failed)?;
    // A provider that cannot give back what it was given is found out now, not at the next start.
    let again = wrapper.unwrap(&context(), &wrapped).map_err(failed)?;
    if !constant_time_eq(&again, key.expose()) {
        let why = "what the provider gave back is not the key that was wrapped".into();
        return Err(RootKeyError::BadSeal { path: path.to_owned(), why });
    }
    let seal = Seal {
        format: FORMAT,
        wrapped: hex(&wrapped),
        check: hex(&key.check_value()),
        provider: provider.clone(),
    };
    let mut text = serde_json::to_vec(&seal).expect("a struct of strings and numbers always serialises");
    text.push(b'\n');
    key_file::write_private(path, &text)
}

fn load(path: &Path) -> Result<Seal, RootKeyError> {
    let bad = |why: String| RootKeyError::BadSeal { path: path.to_owned(), why };
    let text = key_file::read_private(path, MAX_BYTES)?;
    let seal: Seal = serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))?;
    if seal.format != FORMAT {
        return Err(bad(format!("its format is {}, this version reads {FORMAT}", seal.format)));
    }
    Ok(seal)
}

/// What providers that can, bind the wrapped root key to.
fn context() -> Vec<u8> {
    Aad::new("root-seal 1").finish()
}
