//! Modules of a Parquet file under modular encryption, opened straight to where their bytes are wanted.
//!
//! Storage opens with it the pages of columns whose values stand in them as they are; everything else of such a file is
//! sealed and opened by parquet-rs, which takes two copies for a page. Never seals: nonces are the writer's.
//!
//! ```text
//! module := length of the rest u32 | nonce 12 | ciphertext | tag 16        AES-256-GCM, little-endian
//! AAD    := prefix | what is unique to the file | kind u8 | row group i16 | column i16 | page i16
//! ```
//! Source: Parquet Modular Encryption (apache/parquet-format, Encryption.md), sections 4.4 and 5.1.

use crate::{
    Key, OpenError,
    gcm::{Gcm, NONCE_BYTES, TAG_BYTES},
};

const LENGTH_BYTES: usize = 4;

/// Bytes of a module that are not its plaintext's.
pub const MODULE_OVERHEAD_BYTES: usize = LENGTH_BYTES + NONCE_BYTES + TAG_BYTES;

/// What a module is, as the format numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Module {
    DataPage = 2,
    DataPageHeader = 4,
}

/// Whose page it is. All count from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageOf {
    pub row_group: u16,
    pub column: u16,
    pub page: u16,
}

/// Opens modules of one file.
pub struct ModuleOpener {
    cipher: Gcm,
    /// Prefix and what is unique to the file.
    file_aad: Vec<u8>,
}

impl ModuleOpener {
    /// `prefix` as the writer was given it; `unique` as the file itself says it.
    pub fn new(key: &Key, prefix: &[u8], unique: &[u8]) -> Self {
        Self { cipher: Gcm::new(key.expose()), file_aad: [prefix, unique].concat() }
    }

    /// Splits a module off the front of `bytes`, by its length: the module, and what comes after it.
    ///
    /// Errors: `bytes` are shorter than they say.
    pub fn split(bytes: &[u8]) -> Result<(&[u8], &[u8]), OpenError> {
        let too_short = OpenError::TooShort { length: bytes.len(), minimum: MODULE_OVERHEAD_BYTES };
        let length = *bytes.first_chunk::<LENGTH_BYTES>().ok_or(too_short)?;
        let end = (u32::from_le_bytes(length) as usize).checked_add(LENGTH_BYTES);
        end.and_then(|end| bytes.split_at_checked(end)).ok_or(OpenError::Malformed)
    }

    /// Writes a whole module's plaintext to `plain`, which is [`MODULE_OVERHEAD_BYTES`] shorter. Leaves no byte of it
    /// there when the tag does not match.
    ///
    /// Errors: the module is of another length, or is not this one of this file.
    pub fn open(
        &self,
        module: Module,
        page: PageOf,
        sealed: &[u8],
        plain: &mut [u8],
    ) -> Result<(), OpenError> {
        if sealed.len() != plain.len() + MODULE_OVERHEAD_BYTES {
            return Err(OpenError::Malformed);
        }
        let (length, rest) = sealed.split_first_chunk::<LENGTH_BYTES>().ok_or(OpenError::Malformed)?;
        if u32::from_le_bytes(*length) as usize != rest.len() {
            return Err(OpenError::Malformed);
        }
        let (nonce, rest) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(OpenError::Malformed)?;
        let mut aad = Vec::with_capacity(self.file_aad.len() + 7);
        aad.extend_from_slice(&self.file_aad);
        aad.push(module as u8);
        for number in [page.row_group, page.column, page.page] {
            aad.extend_from_slice(&number.to_le_bytes());
        }
        self.cipher.open(nonce, &aad, rest, plain)
    }
}

impl std::fmt::Debug for ModuleOpener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ModuleOpener").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: PageOf = PageOf { row_group: 1, column: 2, page: 0x0103 };

    /// A module as the format describes it, put together by hand.
    fn sealed(key: &Key, plain: &[u8]) -> Vec<u8> {
        let aad = [&b"prefix-unique-1"[..], &[2, 1, 0, 2, 0, 3, 1]].concat();
        let nonce = [7; NONCE_BYTES];
        let mut module = u32::try_from(NONCE_BYTES + plain.len() + TAG_BYTES).unwrap().to_le_bytes().to_vec();
        module.extend(nonce);
        let begin = module.len();
        module.resize(begin + plain.len() + TAG_BYTES, 0);
        Gcm::new(key.expose()).seal(&nonce, &aad, plain, &mut module[begin..]);
        module
    }

    #[test]
    fn a_module_opens_where_it_belongs_and_nowhere_else() {
        let key = Key::from_bytes([9; 32]);
        let plain = b"sixty-four vectors";
        let module = sealed(&key, plain);
        let opener = ModuleOpener::new(&key, b"prefix-", b"unique-1");
        let mut out = vec![0; plain.len()];
        opener.open(Module::DataPage, PAGE, &module, &mut out).unwrap();
        assert_eq!(out, plain);
        let elsewhere = [
            (Module::DataPageHeader, PAGE),
            (Module::DataPage, PageOf { row_group: 2, ..PAGE }),
            (Module::DataPage, PageOf { column: 1, ..PAGE }),
            (Module::DataPage, PageOf { page: 0x0301, ..PAGE }),
        ];
        for (kind, page) in elsewhere {
            assert_eq!(opener.open(kind, page, &module, &mut out), Err(OpenError::NotAuthentic));
            assert!(out.iter().all(|byte| *byte == 0), "nothing of it stays");
        }
        for (prefix, unique) in [(&b"prefix+"[..], &b"unique-1"[..]), (b"prefix-", b"unique-2")] {
            let other = ModuleOpener::new(&key, prefix, unique);
            assert_eq!(other.open(Module::DataPage, PAGE, &module, &mut out), Err(OpenError::NotAuthentic));
        }
        for flipped in 0..module.len() {
            let mut module = module.clone();
            module[flipped] ^= 1;
            opener.open(Module::DataPage, PAGE, &module, &mut out).unwrap_err();
        }
    }

    #[test]
    fn a_length_that_lies_is_an_error() {
        let key = Key::from_bytes([9; 32]);
        let module = sealed(&key, b"abc");
        let opener = ModuleOpener::new(&key, b"prefix-", b"unique-1");
        for room in [0, 2, 4, 1_000] {
            let opened = opener.open(Module::DataPage, PAGE, &module, &mut vec![0; room]);
            assert_eq!(opened, Err(OpenError::Malformed), "{room} bytes of room");
        }
        let two = [&module[..], b"next"].concat();
        assert_eq!(ModuleOpener::split(&two).unwrap(), (&module[..], &b"next"[..]));
        assert_eq!(ModuleOpener::split(&module[..module.len() - 1]), Err(OpenError::Malformed));
        assert!(ModuleOpener::split(&[1, 0]).is_err());
        assert_eq!(ModuleOpener::split(&[0xff; 40]), Err(OpenError::Malformed));
    }
}
