//! A log file's header: who wrote it, after what, and its key.
//!
//! Written by `writer`, read by `recover`. The format is drawn in [`super`].

use sepal_crypto::{Aad, Key, KeyRing, WRAPPED_KEY_BYTES};
use sepal_types::{FileId, Lsn, TenantId};

const MAGIC: [u8; 8] = *b"sepalwal";
/// 1 had no markers. Files of either are read; new ones are of the newer.
const OLDEST_VERSION: u16 = 1;
pub(super) const VERSION: u16 = 2;
const FIXED_BYTES: usize = 72;
pub(crate) const HEADER_BYTES: usize = FIXED_BYTES + WRAPPED_KEY_BYTES;

/// The fields after the magic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub version: u16,
    pub tenant: TenantId,
    pub file: FileId,
    pub number: u64,
    pub base_lsn: Lsn,
    pub previous_length: u64,
}

/// File id, base lsn and previous length, which are not sealed, and stand where they do in every version.
pub(super) fn peek(bytes: &[u8; HEADER_BYTES]) -> Option<(FileId, Lsn, u64)> {
    let fixed = bytes.first_chunk::<FIXED_BYTES>()?;
    let number = |at| u64::from_be_bytes(field(fixed, at));
    let ours = fixed[..8] == MAGIC;
    ours.then(|| (FileId(field(fixed, 32)), Lsn(number(56)), number(64)))
}

impl Header {
    /// Whether its file may hold markers.
    pub(super) const fn has_markers(&self) -> bool {
        self.version > OLDEST_VERSION
    }

    pub(super) fn encode(&self, keys: &KeyRing, key: &Key) -> Vec<u8> {
        let mut bytes = self.fixed().to_vec();
        let wrapped = keys.wrap(&aad(&bytes), key);
        bytes.extend_from_slice(&wrapped);
        bytes
    }

    /// The header and the file's key, or why the bytes are not this tenant's log file of this number.
    pub(super) fn decode(
        tenant: TenantId,
        keys: &KeyRing,
        number: u64,
        bytes: &[u8],
    ) -> Result<(Self, Key), String> {
        let Some((fixed, wrapped)) = bytes.split_first_chunk::<FIXED_BYTES>() else {
            return Err(format!("{} bytes are too few for a log file", bytes.len()));
        };
        if fixed[..8] != MAGIC {
            return Err("it is not a log file".to_owned());
        }
        let version = u16::from_be_bytes([fixed[8], fixed[9]]);
        if !(OLDEST_VERSION..=VERSION).contains(&version) {
            return Err(format!("log version {version}, this program reads {OLDEST_VERSION} to {VERSION}"));
        }
        let header = Self {
            version,
            tenant: TenantId(field(fixed, 16)),
            file: FileId(field(fixed, 32)),
            number: u64::from_be_bytes(field(fixed, 48)),
            base_lsn: Lsn(u64::from_be_bytes(field(fixed, 56))),
            previous_length: u64::from_be_bytes(field(fixed, 64)),
        };
        if header.tenant != tenant || header.number != number {
            return Err("it belongs to another tenant or number".to_owned());
        }
        let key = keys.unwrap(&aad(fixed), wrapped).map_err(|error| error.to_string())?;
        Ok((header, key))
    }

    fn fixed(&self) -> [u8; FIXED_BYTES] {
        let mut fixed = [0; FIXED_BYTES];
        fixed[..8].copy_from_slice(&MAGIC);
        fixed[8..10].copy_from_slice(&self.version.to_be_bytes());
        fixed[16..32].copy_from_slice(self.tenant.as_bytes());
        fixed[32..48].copy_from_slice(self.file.as_bytes());
        fixed[48..56].copy_from_slice(&self.number.to_be_bytes());
        fixed[56..64].copy_from_slice(&self.base_lsn.0.to_be_bytes());
        fixed[64..].copy_from_slice(&self.previous_length.to_be_bytes());
        fixed
    }
}

fn field<const N: usize>(bytes: &[u8; FIXED_BYTES], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}

fn aad(fixed: &[u8]) -> Vec<u8> {
    Aad::new("wal-key 1").bytes(fixed).finish()
}
