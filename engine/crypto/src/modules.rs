//! Modules of a Parquet file under modular encryption, sealed from and opened to where their bytes are wanted.
//!
//! Storage seals all of a segment's modules with it, and opens the pages of columns whose values stand in them as they
//! are; everything else of such a file is opened by parquet-rs. Knows nothing of what a module says.
//!
//! ```text
//! module := length of the rest u32 | nonce 12 | ciphertext | tag 16        AES-256-GCM, little-endian
//! AAD    := prefix | what is unique to the file | kind u8 | row group i16 | column i16 | page i16
//! ```
//! The footer's has none of the three numbers, and only pages of values and their headers have the last one.
//! Source: Parquet Modular Encryption (apache/parquet-format, Encryption.md), sections 4.4 and 5.1.

use crate::{
    Key, OpenError,
    gcm::{Gcm, NONCE_BYTES, TAG_BYTES},
    random_bytes,
};

const LENGTH_BYTES: usize = 4;
/// Of what is unique to a file.
const UNIQUE_BYTES: usize = 8;

/// Bytes of a module that are not its plaintext's.
pub const MODULE_OVERHEAD_BYTES: usize = LENGTH_BYTES + NONCE_BYTES + TAG_BYTES;

/// What a module is, as the format numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Module {
    Footer = 0,
    DataPage = 2,
    DictionaryPage = 3,
    DataPageHeader = 4,
    DictionaryPageHeader = 5,
    ColumnIndex = 6,
    OffsetIndex = 7,
}

/// Whose module it is, as far as its kind asks. All count from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageOf {
    pub row_group: u16,
    pub column: u16,
    pub page: u16,
}

impl Module {
    fn aad(self, file_aad: &[u8], of: PageOf) -> Vec<u8> {
        let numbers = [of.row_group, of.column, of.page];
        let said = match self {
            Self::Footer => 0,
            Self::DataPage | Self::DataPageHeader => 3,
            Self::DictionaryPage | Self::DictionaryPageHeader | Self::ColumnIndex | Self::OffsetIndex => 2,
        };
        let mut aad = Vec::with_capacity(file_aad.len() + 1 + 2 * said);
        aad.extend_from_slice(file_aad);
        aad.push(self as u8);
        numbers[..said].iter().for_each(|number| aad.extend_from_slice(&number.to_le_bytes()));
        aad
    }
}

/// Seals the modules of one file, under a key that seals nothing else: its nonces begin anywhere and count.
pub struct ModuleSealer {
    cipher: Gcm,
    unique: [u8; UNIQUE_BYTES],
    file_aad: Vec<u8>,
    nonce: u128,
}

impl ModuleSealer {
    /// `prefix`: what and where the file is ([`crate::Aad`]); it is not stored.
    pub fn new(key: &Key, prefix: &[u8]) -> Self {
        let unique: [u8; UNIQUE_BYTES] = random_bytes();
        let file_aad = [prefix, &unique].concat();
        let nonce = u128::from_le_bytes(random_bytes());
        Self { cipher: Gcm::new(key.expose()), unique, file_aad, nonce }
    }

    /// What the file says of itself in plaintext, so that [`ModuleOpener::new`] can be told.
    pub const fn unique(&self) -> &[u8] {
        &self.unique
    }

    /// Writes the whole module to `sealed`, which is [`MODULE_OVERHEAD_BYTES`] longer than `plain`.
    ///
    /// # Panics
    /// Where it is not.
    pub fn seal(&mut self, module: Module, of: PageOf, plain: &[u8], sealed: &mut [u8]) {
        assert_eq!(sealed.len(), plain.len() + MODULE_OVERHEAD_BYTES, "a module's place");
        let (length, rest) = sealed.split_at_mut(LENGTH_BYTES);
        let bytes = u32::try_from(rest.len()).expect("a module of less than 4 GiB");
        length.copy_from_slice(&bytes.to_le_bytes());
        let (place, rest) = rest.split_at_mut(NONCE_BYTES);
        // Of 2^96 no file comes round to one that it had.
        self.nonce = self.nonce.wrapping_add(1);
        place.copy_from_slice(&self.nonce.to_le_bytes()[..NONCE_BYTES]);
        let mut nonce = [0; NONCE_BYTES];
        nonce.copy_from_slice(place);
        self.cipher.seal(&nonce, &module.aad(&self.file_aad, of), plain, rest);
    }
}

impl std::fmt::Debug for ModuleSealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ModuleSealer").finish_non_exhaustive()
    }
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
    pub fn open(&self, module: Module, of: PageOf, sealed: &[u8], plain: &mut [u8]) -> Result<(), OpenError> {
        if sealed.len() != plain.len() + MODULE_OVERHEAD_BYTES {
            return Err(OpenError::Malformed);
        }
        let (length, rest) = sealed.split_first_chunk::<LENGTH_BYTES>().ok_or(OpenError::Malformed)?;
        if u32::from_le_bytes(*length) as usize != rest.len() {
            return Err(OpenError::Malformed);
        }
        let (nonce, rest) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(OpenError::Malformed)?;
        self.cipher.open(nonce, &module.aad(&self.file_aad, of), rest, plain)
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
    fn what_is_sealed_opens_as_what_it_is() {
        let key = Key::from_bytes([9; 32]);
        let mut sealer = ModuleSealer::new(&key, b"prefix-");
        let opener = ModuleOpener::new(&key, b"prefix-", sealer.unique());
        let kinds = [
            Module::Footer,
            Module::DataPage,
            Module::DictionaryPage,
            Module::DataPageHeader,
            Module::DictionaryPageHeader,
            Module::ColumnIndex,
            Module::OffsetIndex,
        ];
        let mut nonces = std::collections::HashSet::new();
        for kind in kinds {
            for plain in [&b""[..], b"sixty-four vectors"] {
                let mut module = vec![0xff; plain.len() + MODULE_OVERHEAD_BYTES];
                sealer.seal(kind, PAGE, plain, &mut module);
                assert!(nonces.insert(module[LENGTH_BYTES..][..NONCE_BYTES].to_vec()), "a nonce came twice");
                assert_eq!(ModuleOpener::split(&module).unwrap(), (&module[..], &b""[..]));
                let mut out = vec![0; plain.len()];
                for other in kinds {
                    let opened = opener.open(other, PAGE, &module, &mut out);
                    assert_eq!(opened.is_ok(), other == kind, "{kind:?} as {other:?}");
                }
                opener.open(kind, PAGE, &module, &mut out).unwrap();
                assert_eq!(out, plain);
            }
        }
    }

    /// A kind without pages does not look at the page, one without a column at neither.
    #[test]
    fn a_module_is_bound_to_what_its_kind_has() {
        let bound = |module: Module, of: PageOf| module.aad(b"f", of);
        let (other_page, other_column) = (PageOf { page: 9, ..PAGE }, PageOf { column: 9, ..PAGE });
        assert_eq!(bound(Module::Footer, PAGE), b"f\0");
        assert_eq!(bound(Module::OffsetIndex, PAGE), b"f\x07\x01\0\x02\0");
        assert_eq!(bound(Module::DictionaryPage, PAGE), bound(Module::DictionaryPage, other_page));
        assert_ne!(bound(Module::ColumnIndex, PAGE), bound(Module::ColumnIndex, other_column));
        assert_ne!(bound(Module::DataPageHeader, PAGE), bound(Module::DataPageHeader, other_page));
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
