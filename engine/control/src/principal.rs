//! Who a connection acts for, and what it may do: the result of every login.

use std::{
    fmt,
    sync::{Arc, atomic::AtomicU64},
};

use sepal_types::TenantId;

use crate::{ControlError, control_error::Result};

/// An authenticated API key. Only [`crate::Control`] makes one.
#[derive(Clone, Debug)]
pub struct Principal {
    pub tenant: TenantId,
    pub tenant_name: Arc<str>,
    /// The one environment that the key is limited to; `None`: all of the tenant's.
    pub environment: Option<Arc<str>>,
    pub key_id: Arc<str>,
    pub scopes: Scopes,
    pub(crate) lease: Arc<Lease>,
}

/// Until when a principal may be trusted without asking again. Shared by all clones of it.
#[derive(Debug)]
pub(crate) struct Lease {
    /// The revocation generation at which the key was last seen to be valid.
    pub(crate) checked_at: AtomicU64,
    /// Unix seconds; `None`: the key does not expire.
    pub(crate) expires_at: Option<i64>,
}

/// What a key may do with its tenant's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Scopes {
    /// SELECT, COPY TO.
    pub read: bool,
    /// INSERT, UPDATE, DELETE, COPY FROM and DDL.
    pub write: bool,
}

impl Scopes {
    pub const READ: Self = Self { read: true, write: false };
    pub const WRITE: Self = Self { read: false, write: true };
    pub const READ_WRITE: Self = Self { read: true, write: true };

    /// Reads what `Display` prints: `read`, `write`, or `read,write`.
    pub fn parse(text: &str) -> Result<Self> {
        let mut scopes = Self { read: false, write: false };
        for word in text.split(',').map(str::trim) {
            match word {
                "read" => scopes.read = true,
                "write" => scopes.write = true,
                _ => {
                    return Err(ControlError::InvalidArgument(format!(
                        "\"{word}\" is no scope: use read, write or read,write"
                    )));
                }
            }
        }
        Ok(scopes)
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.read, self.write) {
            (true, true) => "read,write",
            (true, false) => "read",
            (false, true) => "write",
            (false, false) => "none",
        })
    }
}
