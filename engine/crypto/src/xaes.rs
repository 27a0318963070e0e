//! XAES-256-GCM (<https://c2sp.org/XAES-256-GCM>): AES-256-GCM whose nonce is long enough to be random for
//! ever.
//!
//! Used for whatever is written more than once under a key, or may live through a VM snapshot: WAL frames,
//! manifests, control values, wrapped keys. 2^80 messages per key at a collision risk of 2^-32.
//!
//! ```text
//! sealed := nonce 24 | ciphertext | tag 16
//! Kx     := AES_K(M1 ^ K1) | AES_K(M2 ^ K1)      Mi = 00 0i 'X' 00 | nonce[..12]
//! Nx     := nonce[12..]                          K1 = AES_K(0) doubled in GF(2^128)
//! ```
//! It is not key-committing: where that matters, store [`Key::check_value`] beside it, as `wrap` does.

use aes::{
    Aes256,
    cipher::{BlockCipherEncrypt, KeyInit},
};
use zeroize::Zeroizing;

use crate::{
    Key, OpenError,
    gcm::{Gcm, TAG_BYTES},
    random_bytes,
};

pub(crate) const NONCE_BYTES: usize = 24;

/// How many bytes [`seal`] adds.
pub const SEAL_OVERHEAD_BYTES: usize = NONCE_BYTES + TAG_BYTES;

/// Seals `plaintext` (below 64 GiB) under a fresh random nonce; `aad` says what and where it is
/// ([`crate::Aad`]).
pub fn seal(key: &Key, aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
    seal_with_nonce(key, &fresh_nonce(), aad, plaintext)
}

/// Like [`seal`], to `sealed`, which is [`SEAL_OVERHEAD_BYTES`] longer than `plaintext`: without a buffer of its own, and
/// a copy out of it.
pub fn seal_to(key: &Key, aad: &[u8], plaintext: &[u8], sealed: &mut [u8]) {
    seal_with_nonce_to(key, &fresh_nonce(), aad, plaintext, sealed);
}

fn fresh_nonce() -> [u8; NONCE_BYTES] {
    #[cfg(debug_assertions)]
    if let Some(planted) = crate::planted::nonce() {
        return planted;
    }
    random_bytes()
}

/// Opens what [`seal`] gave. Fails as a whole when the key, the associated data or a single bit differs.
pub fn open(key: &Key, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
    let too_short = OpenError::TooShort { length: sealed.len(), minimum: SEAL_OVERHEAD_BYTES };
    if sealed.len() < SEAL_OVERHEAD_BYTES {
        return Err(too_short);
    }
    let (nonce, sealed) = sealed.split_first_chunk().ok_or(too_short)?;
    let mut plain = vec![0; sealed.len() - TAG_BYTES];
    let (subkey, nonce) = derive(key, nonce);
    Gcm::new(&subkey).open(&nonce, aad, sealed, &mut plain)?;
    Ok(plain)
}

pub(crate) fn seal_with_nonce(key: &Key, nonce: &[u8; NONCE_BYTES], aad: &[u8], plaintext: &[u8]) -> Vec<u8> {
    let mut sealed = vec![0; plaintext.len() + SEAL_OVERHEAD_BYTES];
    seal_with_nonce_to(key, nonce, aad, plaintext, &mut sealed);
    sealed
}

fn seal_with_nonce_to(key: &Key, nonce: &[u8; NONCE_BYTES], aad: &[u8], plaintext: &[u8], sealed: &mut [u8]) {
    let (place, rest) = sealed.split_at_mut(NONCE_BYTES);
    place.copy_from_slice(nonce);
    let (subkey, short_nonce) = derive(key, nonce);
    Gcm::new(&subkey).seal(&short_nonce, aad, plaintext, rest);
}

/// The one-message key and the 96-bit nonce: CMAC-AES256 as an SP 800-108r1 counter KDF, three AES calls.
fn derive(key: &Key, nonce: &[u8; NONCE_BYTES]) -> (Zeroizing<[u8; 32]>, [u8; 12]) {
    if cfg!(feature = "null-cipher") {
        return (Zeroizing::new([0; 32]), [0; 12]);
    }
    let cipher = Aes256::new(key.expose().into());
    // Every block on the way gives the subkey away.
    let mut zero = Zeroizing::new([0_u8; 16]);
    cipher.encrypt_block((&mut *zero).into());
    let subkey_mask = double(&zero);

    let mut derived = Zeroizing::new([0; 32]);
    for (half, counter) in derived.chunks_exact_mut(16).zip(1u8..) {
        let mut block = Zeroizing::new([0_u8; 16]);
        block[1] = counter;
        block[2] = b'X';
        block[4..].copy_from_slice(&nonce[..12]);
        block.iter_mut().zip(subkey_mask.iter()).for_each(|(byte, mask)| *byte ^= mask);
        cipher.encrypt_block((&mut *block).into());
        half.copy_from_slice(block.as_slice());
    }
    let mut short_nonce = [0; 12];
    short_nonce.copy_from_slice(&nonce[12..]);
    (derived, short_nonce)
}

/// Times x in GF(2^128) with CMAC's bit order (SP 800-38B, 6.1), without a branch on the secret's top bit.
fn double(block: &[u8; 16]) -> Zeroizing<[u8; 16]> {
    let number = Zeroizing::new(u128::from_be_bytes(*block));
    Zeroizing::new(((*number << 1) ^ ((*number >> 127) * 0b1000_0111)).to_be_bytes())
}

#[cfg(test)]
mod tests;
