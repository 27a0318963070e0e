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

use std::{
    io::{self, Write},
    ops::Range,
};

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
/// Bytes before the first chunk.
pub const HEADER_BYTES: usize = 64;

/// Seals `plain`. `context` says what and where it is ([`Aad`]); it is not stored.
pub fn seal_blob(key: &Key, context: &[u8], plain: &[u8]) -> Vec<u8> {
    seal_with_salt(key, &random_bytes(), context, plain)
}

pub(crate) fn seal_with_salt(key: &Key, salt: &[u8; 32], context: &[u8], plain: &[u8]) -> Vec<u8> {
    let total = sealed_length(plain.len()).expect("a plaintext in memory leaves room for its tags");
    let out = Vec::with_capacity(total);
    let sealed = BlobSealer::with_salt(key, salt, context, plain.len() as u64, out)
        .and_then(|mut sealer| sealer.write_all(plain).map(|()| sealer))
        .and_then(BlobSealer::finish);
    sealed.expect("a Vec takes every write, and as much came as was announced")
}

/// Opens what [`seal_blob`] gave, into one buffer. No byte is returned unless all are authentic.
pub fn open_blob(key: &Key, context: &[u8], sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
    let minimum = HEADER_BYTES + TAG_BYTES;
    let too_short = OpenError::TooShort { length: sealed.len(), minimum };
    let header = sealed.first_chunk::<HEADER_BYTES>().ok_or(too_short)?;
    let opener = BlobOpener::new(key, context, header, sealed.len())?;
    let mut plain = vec![0; opener.length()];
    for index in 0..opener.chunks() {
        let into = &mut plain[index * CHUNK_BYTES..][..opener.chunk_bytes(index)];
        opener.open(index, &sealed[opener.place(index)], into)?;
    }
    Ok(plain)
}

/// Seals a blob as it is written, for one that is not in memory as a whole. How long it will be is said before, because
/// the header says it.
pub struct BlobSealer<W> {
    cipher: Gcm,
    header: [u8; HEADER_BYTES],
    context: Vec<u8>,
    length: u64,
    /// Chunks sealed.
    done: usize,
    /// The next one, as far as it came.
    plain: Vec<u8>,
    sealed: Vec<u8>,
    out: W,
}

impl<W: Write> BlobSealer<W> {
    /// Writes the header of a blob of `length` bytes to `out`.
    ///
    /// # Errors
    /// Those of `out`; `InvalidInput` for a length that no file has.
    pub fn new(key: &Key, context: &[u8], length: u64, out: W) -> io::Result<Self> {
        Self::with_salt(key, &random_bytes(), context, length, out)
    }

    fn with_salt(key: &Key, salt: &[u8; 32], context: &[u8], length: u64, mut out: W) -> io::Result<Self> {
        let too_long = || io::Error::new(io::ErrorKind::InvalidInput, format!("a blob of {length} bytes"));
        usize::try_from(length).ok().and_then(sealed_length).ok_or_else(too_long)?;
        let subkey = key.derive("blob", salt);
        let mut header = [0; HEADER_BYTES];
        header[..LENGTH_AT].copy_from_slice(&MAGIC);
        header[LENGTH_AT..SALT_AT].copy_from_slice(&length.to_be_bytes());
        header[SALT_AT..CHECK_AT].copy_from_slice(salt);
        header[CHECK_AT..].copy_from_slice(&subkey.check_value());
        out.write_all(&header)?;
        let cipher = Gcm::new(subkey.expose());
        let (context, plain, sealed) = (context.to_vec(), Vec::new(), Vec::new());
        Ok(Self { cipher, header, context, length, done: 0, plain, sealed, out })
    }

    /// Seals the last chunk and gives back what was written to.
    ///
    /// # Errors
    /// Those of `out`; `InvalidInput` when another number of bytes came than was announced.
    pub fn finish(mut self) -> io::Result<W> {
        let came = self.came();
        if came != self.length {
            return Err(wrong_length(came, self.length));
        }
        if self.done == 0 || !self.plain.is_empty() {
            self.seal()?;
        }
        Ok(self.out)
    }

    fn came(&self) -> u64 {
        self.done as u64 * CHUNK_BYTES as u64 + self.plain.len() as u64
    }

    fn seal(&mut self) -> io::Result<()> {
        // `new` has made sure that it fits.
        let last = chunks(usize::try_from(self.length).unwrap_or(usize::MAX)) - 1;
        let aad = chunk_aad(&self.header, &self.context, self.done, last);
        self.sealed.resize(self.plain.len() + TAG_BYTES, 0);
        self.cipher.seal(&nonce(self.done), &aad, &self.plain, &mut self.sealed);
        self.out.write_all(&self.sealed)?;
        self.plain.clear();
        self.done += 1;
        Ok(())
    }
}

impl<W: Write> Write for BlobSealer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // More than was announced would come under a chunk that is not the last.
        if self.came() + bytes.len() as u64 > self.length {
            return Err(wrong_length(self.came() + bytes.len() as u64, self.length));
        }
        let taken = bytes.len().min(CHUNK_BYTES - self.plain.len());
        self.plain.extend_from_slice(&bytes[..taken]);
        if self.plain.len() == CHUNK_BYTES {
            self.seal()?;
        }
        Ok(taken)
    }

    /// A chunk is sealed when it is full.
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn wrong_length(came: u64, announced: u64) -> io::Error {
    let message = format!("{came} bytes of a blob that was announced with {announced}");
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

/// Opens the chunks of a blob, in any order, by several threads if need be. Whoever reads them has what is authentic of
/// a blob, perhaps not all of it: an error in one chunk says nothing of those before.
pub struct BlobOpener {
    cipher: Gcm,
    header: [u8; HEADER_BYTES],
    context: Vec<u8>,
    length: usize,
}

impl BlobOpener {
    /// `header`: the first bytes of a sealed blob of `sealed` bytes.
    ///
    /// # Errors
    /// [`OpenError::WrongKey`]; [`OpenError::TooShort`] and [`OpenError::Malformed`] for another length than the header
    /// says. Nothing is authentic before a chunk was opened, the header included.
    pub fn new(
        key: &Key,
        context: &[u8],
        header: &[u8; HEADER_BYTES],
        sealed: usize,
    ) -> Result<Self, OpenError> {
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
        if sealed < expected {
            return Err(OpenError::TooShort { length: sealed, minimum: expected });
        }
        if sealed > expected {
            return Err(OpenError::Malformed);
        }
        let cipher = Gcm::new(subkey.expose());
        Ok(Self { cipher, header: *header, context: context.to_vec(), length })
    }

    /// Bytes of the plaintext.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Chunks, at least one. All but the last hold [`CHUNK_BYTES`].
    pub fn chunks(&self) -> usize {
        chunks(self.length)
    }

    /// Plaintext bytes of a chunk.
    pub fn chunk_bytes(&self, index: usize) -> usize {
        CHUNK_BYTES.min(self.length.saturating_sub(index * CHUNK_BYTES))
    }

    /// Where a chunk lies in the sealed blob.
    pub fn place(&self, index: usize) -> Range<usize> {
        let start = HEADER_BYTES + index * (CHUNK_BYTES + TAG_BYTES);
        start..start + self.chunk_bytes(index) + TAG_BYTES
    }

    /// Opens a chunk into `plain`, which has room for just its bytes.
    ///
    /// # Errors
    /// [`OpenError::NotAuthentic`]; then `plain` holds nothing of it.
    pub fn open(&self, index: usize, sealed: &[u8], plain: &mut [u8]) -> Result<(), OpenError> {
        let aad = chunk_aad(&self.header, &self.context, index, self.chunks() - 1);
        self.cipher.open(&nonce(index), &aad, sealed, plain)
    }
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
