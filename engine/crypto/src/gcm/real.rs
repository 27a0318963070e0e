//! The cipher, from AWS-LC: on processors with VAES several times as fast as others.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use super::{NONCE_BYTES, TAG_BYTES};
use crate::OpenError;

/// A cipher with its key expanded. AWS-LC wipes that when it is freed, as it does all of its memory.
pub(crate) struct Gcm(LessSafeKey);

impl Gcm {
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, key).expect("32 bytes are a key of AES-256");
        Self(LessSafeKey::new(key))
    }

    /// Writes ciphertext and tag to `sealed`, which is [`TAG_BYTES`] longer than `plain`.
    pub(crate) fn seal(&self, nonce: &[u8; NONCE_BYTES], aad: &[u8], plain: &[u8], sealed: &mut [u8]) {
        let (ciphertext, tag) = sealed.split_at_mut(plain.len());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        self.0
            .seal_out_of_place_scatter(nonce, Aad::from(aad), plain, ciphertext, &[], tag)
            .expect("messages stay below GCM's 64 GiB: callers seal frames, chunks and manifests");
    }

    /// Writes the plaintext to `plain`, which is [`TAG_BYTES`] shorter than `sealed`. Leaves no byte of it there when
    /// the tag does not match.
    pub(crate) fn open(
        &self,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        sealed: &[u8],
        plain: &mut [u8],
    ) -> Result<(), OpenError> {
        let (ciphertext, tag) = sealed.split_at_checked(plain.len()).ok_or(OpenError::Malformed)?;
        if tag.len() != TAG_BYTES {
            return Err(OpenError::Malformed);
        }
        let nonce = Nonce::assume_unique_for_key(*nonce);
        self.0.open_separate_gather(nonce, Aad::from(aad), ciphertext, tag, plain).map_err(|_| {
            // AWS-LC wipes it as well, but does not promise to.
            plain.fill(0);
            OpenError::NotAuthentic
        })
    }
}
