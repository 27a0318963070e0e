//! A sealed blob: large, written once, never changed. Storage seals vector indexes and deletion vectors so.
//!
//! ```text
//! blob   := header 64 | chunk*                            at least one chunk
//! header := magic "sepalbl" 7 | version u8 = 1 | plaintext length u64 big-endian | salt 32 | check value 16
//! chunk  := ciphertext (1 MiB; the last one 0 bytes to 1 MiB) | tag 16
//! ```
//! The chunks are AES-256-GCM under a subkey derived from the caller's key and the random salt, with the
//! chunk's index as nonce. A nonce can therefore not repeat even if a caller seals two blobs under one key.
//! Every chunk authenticates the header, the caller's context, its index and whether it is the last: a blob
//! cut at a chunk's border, reordered, or moved elsewhere does not open.

use crate::{
    Aad, Key, OpenError, constant_time_eq,
    gcm::{Gcm, NONCE_BYTES, TAG_BYTES},
    random_bytes,
};

/// Plaintext bytes per chunk: large enough that tags cost nothing, small enough to stay in the L2 cache.
pub const CHUNK_BYTES: usize = 1 << 20;

const MAGIC: [u8; 8] = *b"sepalbl\x01";
const LENGTH_AT: usize = 8;
const SALT_AT: usize = 16;
const CHECK_AT: usize = 48;
const HEADER_BYTES: usize = 64;

/// Seals `plain`. `context` says what and where it is ([`Aad`]); it is not stored.
pub fn seal_blob(key: &Key, context: &[u8], plain: &[u8]) -> Vec<u8> {
    seal_with_salt(key, &random_bytes(), context, plain)
}

/// Opens what [`seal_blob`] gave, into one buffer. No byte is returned unless all are authentic.
pub fn open_blob(key: &Key, context: &[u8], sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
    let minimum = HEADER_BYTES + TAG_BYTES;
    let too_short = OpenError::TooShort { length: sealed.len(), minimum };
    let (header, body) = sealed.split_first_chunk::<HEADER_BYTES>().ok_or(too_short)?;
    if header[..LENGTH_AT] != MAGIC {
        return Err(OpenError::Malformed);
    }
    let subkey = key.derive("blob", &header[SALT_AT..CHECK_AT]);
    if !constant_time_eq(&header[CHECK_AT..], &subkey.check_value()) {
        return Err(OpenError::WrongKey);
    }
    // The length comes from the file, so it is compared with what is there before anything is allocated by
    // it.
    let length = plain_length(header).ok_or(OpenError::Malformed)?;
    let expected = sealed_length(length).ok_or(OpenError::Malformed)?;
    if sealed.len() < expected {
        return Err(OpenError::TooShort { length: sealed.len(), minimum: expected });
    }
    if sealed.len() > expected {
        return Err(OpenError::Malformed);
    }
    let cipher = Gcm::new(subkey.expose());
    let mut plain = vec![0; length];
    let last = chunks(length) - 1;
    for index in 0..=last {
        let start = index * CHUNK_BYTES;
        let end = length.min(start + CHUNK_BYTES);
        let from = &body[start + index * TAG_BYTES..end + (index + 1) * TAG_BYTES];
        cipher.open(&nonce(index), &chunk_aad(header, context, index, last), from, &mut plain[start..end])?;
    }
    Ok(plain)
}

pub(crate) fn seal_with_salt(key: &Key, salt: &[u8; 32], context: &[u8], plain: &[u8]) -> Vec<u8> {
    let subkey = key.derive("blob", salt);
    let mut header = [0; HEADER_BYTES];
    header[..LENGTH_AT].copy_from_slice(&MAGIC);
    header[LENGTH_AT..SALT_AT].copy_from_slice(&(plain.len() as u64).to_be_bytes());
    header[SALT_AT..CHECK_AT].copy_from_slice(salt);
    header[CHECK_AT..].copy_from_slice(&subkey.check_value());

    let total = sealed_length(plain.len()).expect("a plaintext in memory leaves room for its tags");
    let mut sealed = vec![0; total];
    sealed[..HEADER_BYTES].copy_from_slice(&header);
    let body = &mut sealed[HEADER_BYTES..];
    let cipher = Gcm::new(subkey.expose());
    let last = chunks(plain.len()) - 1;
    for index in 0..=last {
        let start = index * CHUNK_BYTES;
        let end = plain.len().min(start + CHUNK_BYTES);
        let into = &mut body[start + index * TAG_BYTES..end + (index + 1) * TAG_BYTES];
        cipher.seal(&nonce(index), &chunk_aad(&header, context, index, last), &plain[start..end], into);
    }
    sealed
}

/// An empty blob has one empty chunk, so that its header is authenticated too.
const fn chunks(length: usize) -> usize {
    if length == 0 { 1 } else { length.div_ceil(CHUNK_BYTES) }
}

fn sealed_length(length: usize) -> Option<usize> {
    chunks(length).checked_mul(TAG_BYTES)?.checked_add(length)?.checked_add(HEADER_BYTES)
}

fn plain_length(header: &[u8; HEADER_BYTES]) -> Option<usize> {
    let bytes = header[LENGTH_AT..SALT_AT].try_into().ok()?;
    usize::try_from(u64::from_be_bytes(bytes)).ok()
}

fn nonce(index: usize) -> [u8; NONCE_BYTES] {
    let mut nonce = [0; NONCE_BYTES];
    nonce[4..].copy_from_slice(&(index as u64).to_be_bytes());
    nonce
}

fn chunk_aad(header: &[u8; HEADER_BYTES], context: &[u8], index: usize, last: usize) -> Vec<u8> {
    Aad::new("blob-chunk 1").bytes(header).bytes(context).u64(index as u64).flag(index == last).finish()
}

#[cfg(test)]
mod tests;
