//! The root key, wrapped under a recovery key that only people hold.
//!
//! ```text
//! package := "SEPLREC1" 8 | wrapped key 88      meta `recovery.package`; a copy lies in every backup
//! ```
//! `meta` also has the recovery key wrapped under the root, so that a rotation can make the package anew without
//! calling its keepers together; who has the root gains nothing by that.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};
use sepal_crypto::{Aad, Key, constant_time_eq, unwrap_key, wrap_key};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    AuditAction, Control, ControlError,
    audit::{NewAuditEvent, append},
    control_error::Result,
    schema,
    vault::Vault,
};

use super::{
    InstanceKeys, RecoveryKey, RootKeys,
    root::{key_from, meta, put_meta},
};

const MAGIC: &[u8; 8] = b"SEPLREC1";
const KEY_ROW: &str = "recovery.key";
const PACKAGE_ROW: &str = "recovery.package";
const FACTS_ROW: &str = "recovery";
const WHAT: &str = "the recovery key";

/// What is known about a directory's recovery key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryStatus {
    /// The part of the key, and of its shares, that may be seen.
    pub id: String,
    /// Unix seconds, as the other times.
    pub created_at: i64,
    /// How many shares are needed, and how many there are; `None`: it was handed out whole.
    pub shares: Option<(u8, u8)>,
    /// When somebody last showed that the key is really there.
    pub verified_at: Option<i64>,
}

impl Control {
    /// Makes a recovery key; it is given here and nowhere else. One that was made before opens nothing here from then
    /// on; in copies of the directory it gives the present root key until that is replaced, too.
    ///
    /// `shares`: how many are needed, and how many the caller will split it into. Errors: 42710 there is one, and
    /// `replace` is false.
    pub fn create_recovery(&self, shares: Option<(u8, u8)>, replace: bool) -> Result<RecoveryKey> {
        let key = RecoveryKey::random();
        let mut database = self.database.lock();
        let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let present = facts(&transaction, &self.vault)?;
        if let Some(present) = &present
            && !replace
        {
            return Err(ControlError::AlreadyExists { what: "recovery key", name: present.id.clone() });
        }
        let roots = self.vault.roots.read();
        roots.check_present(&transaction)?;
        write(&transaction, &roots, &key)?;
        let now = self.clock.unix_seconds();
        let status = RecoveryStatus { id: key.id(), created_at: now, shares, verified_at: None };
        put_facts(&transaction, &self.vault, &status)?;
        let event = NewAuditEvent::new(AuditAction::RecoveryCreated, "recovery key")
            .with(json!({ "id": status.id, "shares": shares }));
        append(&transaction, &self.vault, now, event)?;
        transaction.commit()?;
        if present.is_some() {
            // It has the package that the key before opens, with the root key of now in it.
            self.clear_journal(&mut database);
        }
        Ok(key)
    }

    /// `None`: none was made, and with the root key all would be lost.
    pub fn recovery_status(&self) -> Result<Option<RecoveryStatus>> {
        facts(&self.database.lock(), &self.vault)
    }

    /// Shows that `key` gives the root key of this directory, and remembers that it was shown.
    ///
    /// Errors: 55000 there is none; 22023 it is another one.
    pub fn verify_recovery(&self, key: &RecoveryKey) -> Result<RecoveryStatus> {
        let mut database = self.database.lock();
        let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut status = facts(&transaction, &self.vault)?.ok_or_else(no_recovery)?;
        let package = meta(&transaction, PACKAGE_ROW)?.ok_or_else(no_recovery)?;
        let root = open_recovery_package(&package, key)?;
        if !self.is_root(&root) {
            let why = "what it opens is not the root key".into();
            return Err(ControlError::Corrupt { what: "the recovery package", why });
        }
        let now = self.clock.unix_seconds();
        status.verified_at = Some(now);
        put_facts(&transaction, &self.vault, &status)?;
        let event = NewAuditEvent::new(AuditAction::RecoveryVerified, "recovery key")
            .with(json!({ "id": status.id }));
        append(&transaction, &self.vault, now, event)?;
        transaction.commit()?;
        Ok(status)
    }

    /// What opens with the recovery key, for a backup. `None`: there is no recovery key.
    pub fn recovery_package(&self) -> Result<Option<Vec<u8>>> {
        meta(&self.database.lock(), PACKAGE_ROW)
    }

    /// The same, of a control database whose root key is lost. Reads only.
    pub fn recovery_package_of(database: &Path) -> Result<Option<Vec<u8>>> {
        if !database.exists() {
            return Err(ControlError::NoDatabase(database.to_owned()));
        }
        let connection = schema::connect(database)?;
        schema::check_format(&connection, database)?;
        meta(&connection, PACKAGE_ROW)
    }
}

/// The root key. Errors: 22023 it belongs to another recovery key; XX001 it is damaged.
pub fn open_recovery_package(package: &[u8], key: &RecoveryKey) -> Result<Key> {
    let damaged = |why: String| ControlError::Corrupt { what: "the recovery package", why };
    let wrapped = package
        .strip_prefix(MAGIC.as_slice())
        .ok_or_else(|| damaged("it does not begin with SEPLREC1".into()))?;
    match unwrap_key(&wrapping(key), &package_aad(), wrapped) {
        Ok(root) => Ok(root),
        Err(sepal_crypto::OpenError::WrongKey) => Err(ControlError::InvalidArgument(format!(
            "recovery key {} is not the one of this directory or backup",
            key.id()
        ))),
        Err(error) => Err(damaged(error.to_string())),
    }
}

/// What a rotation of the root does here: the same recovery key gives the new root.
pub(super) fn carry_over(database: &Connection, old: &RootKeys, new: &RootKeys) -> Result<()> {
    let Some(wrapped) = meta(database, KEY_ROW)? else { return Ok(()) };
    let plain = old.unwrap(WHAT, old.generation, key_aad(old.generation), &wrapped)?;
    write(database, new, &RecoveryKey::from_key(key_from(WHAT, &plain)?))
}

fn write(database: &Connection, roots: &RootKeys, key: &RecoveryKey) -> Result<()> {
    put_meta(database, KEY_ROW, &roots.wrap(key_aad(roots.generation), key.key().expose()))?;
    let wrapped = wrap_key(&wrapping(key), &package_aad(), &roots.key);
    put_meta(database, PACKAGE_ROW, &[MAGIC.as_slice(), &wrapped].concat())
}

fn facts(database: &Connection, vault: &Vault) -> Result<Option<RecoveryStatus>> {
    let Some(sealed) = meta(database, FACTS_ROW)? else { return Ok(None) };
    vault.open_json("what is known of the recovery key", facts_aad(), &sealed).map(Some)
}

fn put_facts(database: &Connection, vault: &Vault, status: &RecoveryStatus) -> Result<()> {
    put_meta(database, FACTS_ROW, &vault.seal_json(facts_aad(), status))
}

fn wrapping(key: &RecoveryKey) -> Key {
    key.key().derive("recovery wrapping 1", &[])
}

fn package_aad() -> Vec<u8> {
    Aad::new("recovery-package 1").finish()
}

fn key_aad(generation: u64) -> Aad {
    Aad::new("recovery-key 1").u64(generation)
}

fn facts_aad() -> Aad {
    Aad::new("recovery-facts 1")
}

fn no_recovery() -> ControlError {
    ControlError::NotInState("there is no recovery key: make one with `sepal recovery create`".into())
}

impl Control {
    /// Whether control.db is under `key` now, whatever this process was opened with.
    pub(crate) fn is_under(&self, key: &Key) -> Result<bool> {
        InstanceKeys::are_under(&self.database.lock(), key)
    }

    /// Whether the package that a backup carries gives this root key with the recovery key of now, which nobody has to
    /// bring for that: it lies here, wrapped under the root.
    ///
    /// Errors: 55000 there is none; XX001 the package gives another root key, or is another recovery key's, or damaged.
    pub fn check_recovery_package(&self, package: &[u8]) -> Result<()> {
        let database = self.database.lock();
        let wrapped = meta(&database, KEY_ROW)?.ok_or_else(no_recovery)?;
        let plain = {
            let roots = self.vault.roots.read();
            roots.unwrap(WHAT, roots.generation, key_aad(roots.generation), &wrapped)?
        };
        let key = RecoveryKey::from_key(key_from(WHAT, &plain)?);
        let corrupt = |why: String| ControlError::Corrupt { what: "the recovery package", why };
        match open_recovery_package(package, &key) {
            Ok(root) if self.is_root(&root) => Ok(()),
            Ok(_) => Err(corrupt("what it opens is not the root key".into())),
            Err(ControlError::InvalidArgument(why)) => Err(corrupt(why)),
            Err(error) => Err(error),
        }
    }

    /// Whether `key` is the root key that this was opened with, or that replaced it.
    pub(crate) fn is_root(&self, key: &Key) -> bool {
        constant_time_eq(&self.vault.roots.read().key.check_value(), &key.check_value())
    }
}
