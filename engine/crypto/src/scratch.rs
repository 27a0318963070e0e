//! Chunks of a temporary file, under a key that lives and dies with the process' handle to it.
//!
//! Storage seals with it what queries put aside on disk. The key is random, in memory only, and never stored: what a
//! crash leaves cannot be opened by anybody. The nonce is the chunk's number, which the sealer counts itself, so it
//! cannot repeat under the key. Which chunks there are is known to whoever holds the file: there is no header.
//!
//! ```text
//! chunk := ciphertext | tag 16          AES-256-GCM, nonce = 0 u32 | number u64 big-endian
//! ```

use std::sync::Arc;

use crate::{
    Aad, Key, OpenError,
    gcm::{Gcm, NONCE_BYTES, TAG_BYTES},
};

/// Bytes that sealing adds to a chunk.
pub const SCRATCH_OVERHEAD_BYTES: usize = TAG_BYTES;

/// Seals the chunks of one temporary file, in order.
pub struct ScratchSealer {
    cipher: Arc<Gcm>,
    next: u64,
}

/// Opens them, in any order.
#[derive(Clone)]
pub struct ScratchOpener {
    cipher: Arc<Gcm>,
}

/// Both ends of a new temporary file.
pub fn scratch() -> (ScratchSealer, ScratchOpener) {
    let cipher = Arc::new(Gcm::new(Key::random().expose()));
    (ScratchSealer { cipher: Arc::clone(&cipher), next: 0 }, ScratchOpener { cipher })
}

impl ScratchSealer {
    /// Appends the sealed chunk to `out`. Chunks are numbered from 0.
    pub fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        let number = self.next;
        self.next = number.checked_add(1).expect("no file has 2^64 chunks");
        let start = out.len();
        out.resize(start + plain.len() + TAG_BYTES, 0);
        self.cipher.seal(&nonce(number), &context(number), plain, &mut out[start..]);
    }
}

impl ScratchOpener {
    /// The chunk of that number.
    pub fn open(&self, number: u64, sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
        let too_short = OpenError::TooShort { length: sealed.len(), minimum: TAG_BYTES };
        let mut plain = vec![0; sealed.len().checked_sub(TAG_BYTES).ok_or(too_short)?];
        self.cipher.open(&nonce(number), &context(number), sealed, &mut plain)?;
        Ok(plain)
    }
}

impl std::fmt::Debug for ScratchSealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScratchSealer").field("next", &self.next).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for ScratchOpener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScratchOpener").finish_non_exhaustive()
    }
}

fn nonce(number: u64) -> [u8; NONCE_BYTES] {
    let mut nonce = [0; NONCE_BYTES];
    nonce[4..].copy_from_slice(&number.to_be_bytes());
    nonce
}

fn context(number: u64) -> Vec<u8> {
    Aad::new("scratch-chunk 1").u64(number).finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_open_at_their_place_only() {
        let (mut sealer, opener) = scratch();
        let mut file = Vec::new();
        sealer.seal(b"first", &mut file);
        let border = file.len();
        assert_eq!(border, 5 + SCRATCH_OVERHEAD_BYTES);
        sealer.seal(b"", &mut file);
        assert_eq!(opener.open(0, &file[..border]).unwrap(), b"first");
        assert_eq!(opener.open(1, &file[border..]).unwrap(), b"");
        assert_eq!(opener.open(1, &file[..border]), Err(OpenError::NotAuthentic));
        assert!(matches!(opener.open(0, &file[..7]), Err(OpenError::TooShort { .. })));
        file[0] ^= 1;
        assert_eq!(opener.open(0, &file[..border]), Err(OpenError::NotAuthentic));
        let (_, other) = scratch();
        assert_eq!(other.open(1, &file[border..]), Err(OpenError::NotAuthentic), "each file has its own key");
    }
}
