//! The root key of a running process, and what is wrapped under it.
//!
//! Only one other root key can matter: the one being replaced, until every tenant's key is wrapped anew.

use rusqlite::{Connection, OptionalExtension, params};
use sepal_crypto::{Aad, Key, OpenError, ResidentKey, unwrap_secret, wrap_secret};
use zeroize::Zeroizing;

use crate::{ControlError, control_error::Result};

/// What is derived from the root: it wraps all there is to wrap, told apart by associated data.
const WRAPPING_DOMAIN: &str = "control root wrapping 1";

/// The name in `meta` of the generation, 8 bytes.
const GENERATION_ROW: &str = "root";
/// The name in `meta` of the wrapping key that the previous root gave, wrapped under the present one.
const PREVIOUS_ROW: &str = "root.previous";

/// The present root key and, while it is being replaced, what the one before had wrapped under.
pub(crate) struct RootKeys {
    /// Counts root keys, from 1.
    pub(crate) generation: u64,
    pub(crate) key: ResidentKey,
    wrapping: ResidentKey,
    pub(crate) previous: Option<ResidentKey>,
}

impl RootKeys {
    pub(crate) fn new(generation: u64, root: &Key) -> Self {
        Self {
            generation,
            key: ResidentKey::new(root),
            wrapping: root.derive(WRAPPING_DOMAIN, &[]).into(),
            previous: None,
        }
    }

    /// The root that replaces this one.
    pub(crate) fn succeeded_by(&self, root: &Key) -> Self {
        let mut next = Self::new(self.generation + 1, root);
        next.previous = Some(self.wrapping.clone());
        next
    }

    /// `root` as control.db knows it; the caller has asked [`Self::fits`]. Reads only.
    pub(crate) fn load(database: &Connection, root: &Key) -> Result<Self> {
        let mut keys = Self::new(generation_of(database)?, root);
        if let Some(wrapped) = meta(database, PREVIOUS_ROW)? {
            let aad = previous_aad(keys.generation);
            let plain = keys.unwrap("the previous root's key", keys.generation, aad, &wrapped)?;
            keys.previous = Some(key_from("the previous root's key", &plain)?.into());
        }
        Ok(keys)
    }

    /// Whether `wrapped`, the row of an instance key, is under this root. Says nothing about its being intact.
    pub(crate) fn fits(root: &Key, aad: Aad, wrapped: &[u8]) -> bool {
        let wrapping = root.derive(WRAPPING_DOMAIN, &[]);
        !matches!(
            unwrap_secret(&wrapping, &aad.finish(), wrapped),
            Err(OpenError::WrongKey | OpenError::TooShort { .. })
        )
    }

    /// Writes generation and predecessor.
    pub(crate) fn store(&self, database: &Connection) -> Result<()> {
        put_meta(database, GENERATION_ROW, &self.generation.to_be_bytes())?;
        match &self.previous {
            Some(previous) => {
                put_meta(database, PREVIOUS_ROW, &self.wrap(previous_aad(self.generation), previous.expose()))
            }
            None => {
                database.execute("DELETE FROM meta WHERE name = ?1", params![PREVIOUS_ROW])?;
                Ok(())
            }
        }
    }

    /// Refuses to write with a root key that another process has replaced meanwhile.
    pub(crate) fn check_present(&self, database: &Connection) -> Result<()> {
        if generation_of(database)? == self.generation {
            return Ok(());
        }
        Err(ControlError::Busy(
            "another process has replaced the root key: start this one again with the new key".into(),
        ))
    }

    pub(crate) fn wrap(&self, aad: Aad, secret: &[u8]) -> Vec<u8> {
        wrap_secret(&self.wrapping, &aad.finish(), secret)
    }

    /// `what` names the value in the error, `generation` is the root's that wrapped it.
    pub(crate) fn unwrap(
        &self,
        what: &'static str,
        generation: u64,
        aad: Aad,
        wrapped: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>> {
        let corrupt = |why: String| ControlError::Corrupt { what, why };
        let wrapping = match &self.previous {
            _ if generation == self.generation => &self.wrapping,
            Some(previous) if generation + 1 == self.generation => previous,
            _ => {
                return Err(corrupt(format!(
                    "it is wrapped under root key number {generation}, and the present one is number {}",
                    self.generation
                )));
            }
        };
        unwrap_secret(wrapping, &aad.finish(), wrapped).map_err(|error| corrupt(error.to_string()))
    }
}

/// A value of `meta`.
pub(crate) fn meta(database: &Connection, name: &str) -> Result<Option<Vec<u8>>> {
    let mut statement = database.prepare_cached("SELECT value FROM meta WHERE name = ?1")?;
    Ok(statement.query_row(params![name], |row| row.get(0)).optional()?)
}

pub(crate) fn put_meta(database: &Connection, name: &str, value: &[u8]) -> Result<()> {
    let mut statement =
        database.prepare_cached("INSERT OR REPLACE INTO meta (name, value) VALUES (?1, ?2)")?;
    statement.execute(params![name, value])?;
    Ok(())
}

pub(crate) fn generation_of(database: &Connection) -> Result<u64> {
    const WHAT: &str = "the root key's number";
    let value = meta(database, GENERATION_ROW)?.unwrap_or_default();
    let bytes = value.as_slice().try_into();
    let bytes = bytes.map_err(|_| ControlError::Corrupt { what: WHAT, why: "it is not 8 bytes".into() })?;
    Ok(u64::from_be_bytes(bytes))
}

/// Unwrapped bytes as the key they must be.
pub(crate) fn key_from(what: &'static str, plain: &[u8]) -> Result<Key> {
    let bytes: &[u8; 32] = plain
        .try_into()
        .map_err(|_| ControlError::Corrupt { what, why: format!("it has {} bytes, not 32", plain.len()) })?;
    Ok(Key::from_bytes(*bytes))
}

fn previous_aad(generation: u64) -> Aad {
    Aad::new("previous-root 1").u64(generation)
}
