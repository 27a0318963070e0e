//! The keys that control.db's own values are sealed under. Random, each wrapped under the root in a row of `meta`, so
//! that the root can be replaced without sealing anything anew.
//!
//! A file of format 1 or 2 derived the first five from its root key; they are kept, under their names.

use rusqlite::Connection;
use sepal_crypto::{Aad, Key, ResidentKey};

use crate::{ControlError, control_error::Result};

use super::{
    RootKeys,
    root::{generation_of, key_from, meta, put_meta},
};

/// One for each purpose.
pub(crate) struct InstanceKeys {
    /// Seals names, labels, scopes, dates, the audit trail.
    pub(crate) values: ResidentKey,
    /// HMAC of a name: finds a row without storing the name.
    pub(crate) names: ResidentKey,
    /// HMAC of a token: what authentication compares.
    pub(crate) pepper: ResidentKey,
    /// Seals the SCRAM verifiers.
    pub(crate) verifiers: ResidentKey,
    /// SCRAM salts, and verifiers of users that do not exist.
    pub(crate) mock: ResidentKey,
    /// Ed25519 seed: signs checkpoints of the audit trail, and certificates of destruction.
    pub(crate) audit: ResidentKey,
    /// Seals tenants' keys that leave the directory with a backup.
    pub(crate) backup: ResidentKey,
}

const WHAT: &str = "an instance key";
/// What a wrapped key is bound to. That it rose with format 4 keeps a file of today from being passed off as one of
/// format 3, in which the audit trail may have no end.
const BINDING: &str = "instance-key 2";
const BINDING_OF_FORMAT_3: &str = "instance-key 1";
/// The row by which a root key is judged.
const JUDGE: &str = "values";

impl InstanceKeys {
    pub(crate) fn random() -> Self {
        let fresh = || ResidentKey::from(Key::random());
        Self {
            values: fresh(),
            names: fresh(),
            pepper: fresh(),
            verifiers: fresh(),
            mock: fresh(),
            audit: fresh(),
            backup: fresh(),
        }
    }

    /// What formats 1 and 2 sealed with, and new keys for what they did not have.
    pub(crate) fn of_an_older_format(root: &Key) -> Self {
        let derived = |domain: &str| ResidentKey::from(root.derive(domain, &[]));
        Self {
            values: derived("control values 1"),
            names: derived("control names 1"),
            pepper: derived("control token pepper 1"),
            verifiers: derived("control scram verifiers 1"),
            mock: derived("control scram mock 1"),
            ..Self::random()
        }
    }

    /// Wraps all of them under `root`.
    pub(crate) fn store(&self, database: &Connection, root: &RootKeys) -> Result<()> {
        for (name, key) in self.named() {
            let aad = aad(BINDING, name, root.generation);
            put_meta(database, &row(name), &root.wrap(aad, key.expose()))?;
        }
        Ok(())
    }

    pub(crate) fn load(database: &Connection, root: &RootKeys) -> Result<Self> {
        Self::load_bound(BINDING, database, root)
    }

    /// Of a file of format 3, which is being brought to today's.
    pub(crate) fn load_of_format_3(database: &Connection, root: &RootKeys) -> Result<Self> {
        Self::load_bound(BINDING_OF_FORMAT_3, database, root)
    }

    fn load_bound(binding: &str, database: &Connection, root: &RootKeys) -> Result<Self> {
        let key = |name: &str| -> Result<ResidentKey> {
            let wrapped = meta(database, &row(name))?.ok_or_else(|| missing(name))?;
            let plain = root.unwrap(WHAT, root.generation, aad(binding, name, root.generation), &wrapped)?;
            Ok(key_from(WHAT, &plain)?.into())
        };
        Ok(Self {
            values: key("values")?,
            names: key("names")?,
            pepper: key("pepper")?,
            verifiers: key("verifiers")?,
            mock: key("mock")?,
            audit: key("audit")?,
            backup: key("backup")?,
        })
    }

    /// Whether `root` is the key that wraps them now, in a file of format 3 as well: the wrapped key says by which
    /// root it is. Reads only.
    pub(crate) fn are_under(database: &Connection, root: &Key) -> Result<bool> {
        let wrapped = meta(database, &row(JUDGE))?.ok_or_else(|| missing(JUDGE))?;
        Ok(RootKeys::fits(root, aad(BINDING, JUDGE, generation_of(database)?), &wrapped))
    }

    fn named(&self) -> [(&'static str, &Key); 7] {
        [
            ("values", &self.values),
            ("names", &self.names),
            ("pepper", &self.pepper),
            ("verifiers", &self.verifiers),
            ("mock", &self.mock),
            ("audit", &self.audit),
            ("backup", &self.backup),
        ]
    }
}

fn row(name: &str) -> String {
    format!("key.{name}")
}

fn aad(binding: &str, name: &str, generation: u64) -> Aad {
    Aad::new(binding).text(name).u64(generation)
}

fn missing(name: &str) -> ControlError {
    ControlError::Corrupt { what: WHAT, why: format!("there is none for {name}") }
}
