//! Why sealed bytes did not open. Callers add the file's name; nothing here knows it.

use std::fmt;

/// Sealed bytes that were refused. No plaintext was released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// Fewer bytes than the format needs: the file was cut short.
    TooShort { length: usize, minimum: usize },
    /// The bytes do not begin with this format's magic and version, or their length contradicts the header.
    Malformed,
    /// Sealed under another key than the one given.
    WrongKey,
    /// The tag does not match: the bytes were changed, or belong to another place (associated data) or key.
    NotAuthentic,
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort { length, minimum } => {
                write!(f, "sealed data is cut short: {length} bytes, at least {minimum} expected")
            }
            Self::Malformed => f.write_str("unknown header, or a length that contradicts it"),
            Self::WrongKey => f.write_str("sealed under another key"),
            Self::NotAuthentic => f.write_str(
                "authentication failed: the bytes were changed, moved from another place, or sealed under \
                     another key",
            ),
        }
    }
}

impl std::error::Error for OpenError {}
