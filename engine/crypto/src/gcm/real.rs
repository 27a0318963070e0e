//! The cipher, from RustCrypto.

use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit, aead::inout::InOutBuf};

use super::{NONCE_BYTES, TAG_BYTES};
use crate::OpenError;

/// A cipher with its key expanded.
pub(crate) struct Gcm(Aes256Gcm);

impl Gcm {
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        Self(Aes256Gcm::new(key.into()))
    }

    /// Writes ciphertext and tag to `sealed`, which is [`TAG_BYTES`] longer than `plain`.
    pub(crate) fn seal(&self, nonce: &[u8; NONCE_BYTES], aad: &[u8], plain: &[u8], sealed: &mut [u8]) {
        let (ciphertext, tag) = sealed.split_at_mut(plain.len());
        let buffer = InOutBuf::new(plain, ciphertext).expect("split at the plaintext's length");
        let computed = self
            .0
            .encrypt_inout_detached(nonce.into(), aad, buffer)
            .expect("messages stay below GCM's 64 GiB: callers seal frames, chunks and manifests");
        tag.copy_from_slice(&computed);
    }

    /// Writes the plaintext to `plain`, which is [`TAG_BYTES`] shorter than `sealed`. Writes nothing when the
    /// tag does not match.
    pub(crate) fn open(
        &self,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        sealed: &[u8],
        plain: &mut [u8],
    ) -> Result<(), OpenError> {
        let (ciphertext, tag) = sealed.split_at(plain.len());
        let tag: &[u8; TAG_BYTES] = tag.try_into().map_err(|_| OpenError::Malformed)?;
        let buffer = InOutBuf::new(ciphertext, plain).map_err(|_| OpenError::Malformed)?;
        self.0
            .decrypt_inout_detached(nonce.into(), aad, buffer, tag.into())
            .map_err(|_| OpenError::NotAuthentic)
    }
}
