//! Associated data: what sealed bytes are and where they belong.
//!
//! Whoever seals builds it, whoever opens builds the same again; it is never stored.
//!
//! ```text
//! field := kind u8 | length u32 big-endian | bytes
//! aad   := field(0 = format name) field*
//! ```
//! Kind and length make the encoding injective: no two different lists of fields give the same bytes.

use sepal_types::{FileId, Lsn, TableId, TenantId};

/// Builds associated data field by field. The order matters.
#[derive(Clone, Debug)]
#[must_use]
pub struct Aad(Vec<u8>);

/// What a field is. The numbers are part of every sealed format: never renumber.
#[derive(Clone, Copy)]
enum Kind {
    Format = 0,
    Tenant = 1,
    Table = 2,
    File = 3,
    Lsn = 4,
    Number = 5,
    Flag = 6,
    Text = 7,
    Bytes = 8,
}

impl Aad {
    /// `format` names the kind of thing that is sealed, with its version where it has one: `wal-frame`.
    pub fn new(format: &str) -> Self {
        Self(Vec::with_capacity(96)).field(Kind::Format, format.as_bytes())
    }

    pub fn tenant(self, tenant: TenantId) -> Self {
        self.field(Kind::Tenant, tenant.as_bytes())
    }

    pub fn table(self, table: TableId) -> Self {
        self.field(Kind::Table, &table.0.to_be_bytes())
    }

    pub fn file(self, file: FileId) -> Self {
        self.field(Kind::File, file.as_bytes())
    }

    pub fn lsn(self, lsn: Lsn) -> Self {
        self.field(Kind::Lsn, &lsn.0.to_be_bytes())
    }

    pub fn u64(self, number: u64) -> Self {
        self.field(Kind::Number, &number.to_be_bytes())
    }

    pub fn flag(self, flag: bool) -> Self {
        self.field(Kind::Flag, &[u8::from(flag)])
    }

    pub fn text(self, text: &str) -> Self {
        self.field(Kind::Text, text.as_bytes())
    }

    pub fn bytes(self, bytes: &[u8]) -> Self {
        self.field(Kind::Bytes, bytes)
    }

    /// The encoded bytes, for [`crate::seal`] and its peers.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.0
    }

    fn field(mut self, kind: Kind, bytes: &[u8]) -> Self {
        let length = u32::try_from(bytes.len()).expect("a field of associated data stays below 4 GiB");
        self.0.push(kind as u8);
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(bytes);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hex;

    #[test]
    fn encoding_is_golden() {
        let aad = Aad::new("f").tenant(TenantId([1; 16])).table(TableId(2)).file(FileId([3; 16])).lsn(Lsn(4));
        let aad = aad.u64(5).flag(true).text("t").bytes(&[9, 8]).finish();
        assert_eq!(
            hex(&aad),
            concat!(
                "000000000166",
                "010000001001010101010101010101010101010101",
                "020000000400000002",
                "030000001003030303030303030303030303030303",
                "04000000080000000000000004",
                "05000000080000000000000005",
                "060000000101",
                "070000000174",
                "08000000020908",
            )
        );
    }

    #[test]
    fn neighbouring_fields_do_not_run_together() {
        let split = |one: &[u8], two: &[u8]| Aad::new("x").bytes(one).bytes(two).finish();
        assert_ne!(split(b"ab", b"c"), split(b"a", b"bc"));
        assert_ne!(Aad::new("x").bytes(b"a").finish(), Aad::new("x").text("a").finish());
        assert_ne!(Aad::new("x").bytes(&[]).finish(), Aad::new("x").finish());
    }
}
