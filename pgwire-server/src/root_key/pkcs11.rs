//! A key in a PKCS#11 token: AES-256-GCM inside the token, which the key never leaves.
//!
//! ```text
//! wrapped := nonce 12, random | ciphertext | tag 16
//! ```
//! The module is a shared library and runs in this process: it must be a file that only root or our own user can
//! change. At most a few thousand messages are sealed under one such key, far from where random nonces of 96 bits meet.

use std::{
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    error::{Error, RvError},
    mechanism::{Mechanism, aead::GcmParams},
    object::{Attribute, KeyType, ObjectClass, ObjectHandle},
    session::{Session, UserType},
    slot::Slot,
    types::AuthPin,
};
use parking_lot::Mutex;
use sepal_database::{KeyWrapper, Provider, WrapperError, sealing::random_bytes};
use zeroize::Zeroizing;

use super::Missing;

const NONCE_BYTES: usize = 12;
const TAG_BITS: u64 = 128;
const KEY_BYTES: u64 = 32;

/// A session with a token, logged in.
pub(super) struct Token {
    provider: Provider,
    key: ObjectHandle,
    /// One operation at a time, as PKCS#11 has it for a session.
    session: Mutex<Session>,
}

impl Token {
    pub(super) fn open(provider: &Provider, pin: &str, missing: Missing) -> Result<Self, WrapperError> {
        let Provider::Pkcs11 { module, token, key, .. } = provider else {
            return Err(WrapperError::Misconfigured(format!("{provider} is no PKCS#11 token")));
        };
        check_module(module)?;
        let context = Pkcs11::new(module).map_err(|error| {
            WrapperError::Misconfigured(format!("{} is no PKCS#11 module: {error}", module.display()))
        })?;
        match context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            // A tenant's provider may use the module that the root key's does.
            Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
            Err(error) => return Err(failed(&error)),
        }
        let slot = slot_of(&context, token)?;
        let session = match missing {
            Missing::Make => context.open_rw_session(slot),
            Missing::Refuse => context.open_ro_session(slot),
        };
        let session = session.map_err(|error| failed(&error))?;
        match session.login(UserType::User, Some(&AuthPin::new(pin.into()))) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {}
            Err(error) => return Err(failed(&error)),
        }
        let key = key_of(&session, token, key, missing)?;
        Ok(Self { provider: provider.clone(), key, session: Mutex::new(session) })
    }
}

impl KeyWrapper for Token {
    fn provider(&self) -> Provider {
        self.provider.clone()
    }

    fn wrap(&self, context: &[u8], secret: &[u8]) -> Result<Vec<u8>, WrapperError> {
        let nonce: [u8; NONCE_BYTES] = random_bytes();
        // The library wants to write to it; some tokens choose their own.
        let mut given = nonce;
        let sealed = {
            let parameters =
                GcmParams::new(&mut given, context, TAG_BITS.into()).map_err(|error| failed(&error))?;
            self.session.lock().encrypt(&Mechanism::AesGcm(parameters), self.key, secret)
        };
        let sealed = sealed.map_err(|error| failed(&error))?;
        Ok([given.as_slice(), &sealed].concat())
    }

    fn unwrap(&self, context: &[u8], wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, WrapperError> {
        let Some((nonce, sealed)) = wrapped.split_first_chunk::<NONCE_BYTES>() else {
            return Err(WrapperError::Refused("what was wrapped is cut short".into()));
        };
        let mut nonce = *nonce;
        let parameters =
            GcmParams::new(&mut nonce, context, TAG_BITS.into()).map_err(|error| failed(&error))?;
        let plain = self.session.lock().decrypt(&Mechanism::AesGcm(parameters), self.key, sealed);
        plain.map(Zeroizing::new).map_err(|error| failed(&error))
    }
}

/// It is going to be code of this process.
fn check_module(module: &Path) -> Result<(), WrapperError> {
    let refused = |why: String| {
        WrapperError::Misconfigured(format!("the PKCS#11 module {} is not loaded: {why}", module.display()))
    };
    if !module.is_absolute() {
        return Err(refused("name it by its whole path".into()));
    }
    let metadata = std::fs::metadata(module).map_err(|error| refused(error.to_string()))?;
    // SAFETY: geteuid takes no argument, touches no memory and cannot fail (POSIX).
    let user = unsafe { libc::geteuid() };
    let (owner, mode) = (metadata.uid(), metadata.permissions().mode() & 0o7777);
    if !metadata.is_file() || (owner != 0 && owner != user) || mode & 0o022 != 0 {
        return Err(refused(format!(
            "it must be a file that only root or user {user} can change, and has owner {owner} and mode {mode:04o}"
        )));
    }
    Ok(())
}

fn slot_of(context: &Pkcs11, label: &str) -> Result<Slot, WrapperError> {
    let slots = context.get_slots_with_token().map_err(|error| failed(&error))?;
    let mut labels = Vec::new();
    let mut found = Vec::new();
    for slot in slots {
        // A reader without a usable token is none of ours.
        let Ok(token) = context.get_token_info(slot) else { continue };
        labels.push(format!("\"{}\"", token.label().trim_end()));
        if token.label().trim_end() == label {
            found.push(slot);
        }
    }
    match found.as_slice() {
        [slot] => Ok(*slot),
        [] => Err(WrapperError::Unavailable(format!(
            "there is no token with the label \"{label}\"; the module has {}",
            if labels.is_empty() { "none".to_owned() } else { labels.join(", ") }
        ))),
        _ => Err(WrapperError::Misconfigured(format!("{} tokens have the label \"{label}\"", found.len()))),
    }
}

fn key_of(
    session: &Session,
    token: &str,
    label: &str,
    missing: Missing,
) -> Result<ObjectHandle, WrapperError> {
    let wanted = [
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::AES),
        Attribute::Label(label.as_bytes().to_vec()),
    ];
    let found = session.find_objects(&wanted).map_err(|error| failed(&error))?;
    match (found.as_slice(), missing) {
        ([key], _) => Ok(*key),
        ([], Missing::Make) => {
            let made = [
                Attribute::Token(true),
                Attribute::Private(true),
                Attribute::Sensitive(true),
                Attribute::Extractable(false),
                Attribute::Encrypt(true),
                Attribute::Decrypt(true),
                Attribute::ValueLen(KEY_BYTES.into()),
                Attribute::Label(label.as_bytes().to_vec()),
            ];
            session.generate_key(&Mechanism::AesKeyGen, &made).map_err(|error| failed(&error))
        }
        ([], Missing::Refuse) => Err(WrapperError::Refused(format!(
            "token \"{token}\" has no AES key with the label \"{label}\" (pkcs11-tool --keygen --key-type AES:32 \
             --label {label} makes one)"
        ))),
        _ => Err(WrapperError::Misconfigured(format!(
            "token \"{token}\" has {} AES keys with the label \"{label}\"",
            found.len()
        ))),
    }
}

/// What a token says, without the essays of the standard.
fn failed(error: &Error) -> WrapperError {
    let Error::Pkcs11(code, function) = error else { return WrapperError::Refused(error.to_string()) };
    match code {
        RvError::PinIncorrect => WrapperError::Refused("the PIN is wrong".into()),
        RvError::PinLocked => WrapperError::Refused("the PIN is locked after too many wrong ones".into()),
        RvError::EncryptedDataInvalid | RvError::EncryptedDataLenRange => {
            WrapperError::Refused("the token's key is not the one that it was wrapped with".into())
        }
        RvError::DeviceRemoved
        | RvError::TokenNotPresent
        | RvError::DeviceError
        | RvError::SessionHandleInvalid => {
            WrapperError::Unavailable(format!("the token does not answer ({function:?}: {code:?})"))
        }
        _ => WrapperError::Refused(format!("the token refuses ({function:?}: {code:?})")),
    }
}
