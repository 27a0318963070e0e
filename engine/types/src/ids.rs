//! One newtype per id and unit, so that a table's id can never be handed in where a row's is meant.
//!
//! Used by every crate. Ids that reach a file are written as fixed-size big-endian bytes.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! hex_id {
    ($name:ident, $doc:literal) => {
        #[doc = $doc]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub [u8; 16]);

        impl $name {
            /// The 16 raw bytes, as they enter associated data.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }

            /// Parses the 32 lower-case hex digits that `Display` prints.
            pub fn parse(text: &str) -> Option<Self> {
                let digits = text.as_bytes();
                if digits.len() != 32 {
                    return None;
                }
                let mut bytes = [0u8; 16];
                for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
                    let high = char::from(pair[0]).to_digit(16)?;
                    let low = char::from(pair[1]).to_digit(16)?;
                    *byte = u8::try_from(high * 16 + low).ok()?;
                }
                Some(Self(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }
    };
}

macro_rules! number_id {
    ($name:ident, $repr:ty, $doc:literal) => {
        #[doc = $doc]
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        pub struct $name(pub $repr);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

hex_id!(TenantId, "A tenant: random, never reused, names the tenant's directory.");
hex_id!(FileId, "A sealed file: random per file, bound into everything sealed in it.");
number_id!(
    TableId,
    u32,
    "A table or index within one tenant. It is also the object's `oid` in `pg_catalog`, so it is at least \
     [`crate::limits::FIRST_OBJECT_ID`] and never reused."
);
number_id!(
    ColumnId,
    u32,
    "A column within one table, from 1, never reused: renaming a column changes no file."
);
number_id!(Lsn, u64, "A commit's place in its tenant's log: 1, 2, 3, …; 0 is \"before the first commit\".");
number_id!(RowId, u64, "A row version within one table. An UPDATE gives the row a new one.");

/// How far a tenant's log reaches: at least this far, wherever it is kept from one opening to the next. A log only
/// grows, so an older one stays true.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEnd {
    /// The number of the last log file.
    pub file: u64,
    /// How many bytes of it are commits.
    pub bytes: u64,
}
