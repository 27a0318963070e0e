//! Appending to the chain, reading it, verifying it, signing its head.

use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};
use sepal_crypto::{
    Aad,
    ed25519::{SigningKey, VerifyingKey},
    hex, sha256, unhex,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    Control, ControlError,
    control_error::Result,
    integer::{from_column, to_column},
    keys::root::{meta, put_meta},
    vault::Vault,
};

use super::{AuditAction, AuditEvent, NewAuditEvent, outside};

const HEAD_ROW: &str = "audit";
const WHAT: &str = "an entry of the audit trail";

/// An entry with its place in the chain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// From 1, without gaps.
    pub number: u64,
    /// Hexadecimal, of this entry and so of all before it.
    pub hash: String,
    /// The JSON that was hashed, byte for byte.
    pub text: String,
    pub event: AuditEvent,
}

/// A signed head of the chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditCheckpoint {
    pub number: u64,
    /// Unix seconds.
    pub time: i64,
    /// Hexadecimal, of the entry with that number.
    pub hash: String,
    /// Hexadecimal, by the directory's audit key over field `audit-checkpoint 1`, u64 number, u64 time, bytes hash.
    pub signature: String,
}

/// What verifying found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditReport {
    pub entries: u64,
    pub checkpoints: u64,
    /// Hexadecimal, of the last entry.
    pub head: String,
    /// `ed25519:…`: what checkpoints and certificates are signed with.
    pub signer: String,
    /// What is not as it was written; empty when all is well.
    pub wrong: Vec<String>,
}

/// The sealed end of the chain.
#[derive(Serialize, Deserialize)]
struct Head {
    number: u64,
    hash: String,
}

impl Head {
    fn start() -> Self {
        Self { number: 0, hash: hex(&[0; 32]) }
    }
}

/// The trail of a new file, which has no entry yet. The caller's transaction.
pub(crate) fn begin(database: &Connection, vault: &Vault) -> Result<()> {
    put_head(database, vault, &Head::start())
}

/// Format 3 had no head before the first entry. One that is missing although there was something to tell was taken
/// away: the trail goes on after what is there, and says so. The caller's transaction.
pub(crate) fn resume(database: &Connection, vault: &Vault, now: i64) -> Result<()> {
    if meta(database, HEAD_ROW)?.is_some() {
        return Ok(());
    }
    let last: Option<(i64, Vec<u8>)> = database
        .query_row("SELECT number, hash FROM audit ORDER BY number DESC LIMIT 1", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    let head = match &last {
        Some((number, hash)) => Head { number: from_column(WHAT, *number)?, hash: hex(hash) },
        None => Head::start(),
    };
    put_head(database, vault, &head)?;
    let tenants: i64 = database.query_row("SELECT count(*) FROM tenants", [], |row| row.get(0))?;
    if last.is_none() && tenants == 0 {
        return Ok(());
    }
    tracing::warn!(
        after = head.number,
        "the end of the audit trail is not known: entries may have been removed"
    );
    let event = NewAuditEvent::new(AuditAction::TrailResumed, "audit trail")
        .with(json!({ "after": head.number, "why": "the end of the trail was not there" }));
    append(database, vault, now, event).map(drop)
}

/// Appends an entry inside the caller's transaction, and gives its number.
pub(crate) fn append(
    database: &Connection,
    vault: &Vault,
    now: i64,
    event: NewAuditEvent<'_>,
) -> Result<u64> {
    let head = head(database, vault)?;
    let number = head.number + 1;
    let text = serde_json::to_vec(&event.at(now)).expect("strings, numbers and JSON values always serialise");
    let before = unhex(head.hash.as_bytes()).ok_or_else(|| corrupt("the head's hash is not hexadecimal"))?;
    let hash = hash_of(&before, number, &text);
    database
        .prepare_cached("INSERT INTO audit (number, body, hash) VALUES (?1, ?2, ?3)")?
        .execute(params![to_column(number), vault.seal_bytes(entry_aad(number), &text), hash])?;
    put_head(database, vault, &Head { number, hash: hex(&hash) })?;
    Ok(number)
}

impl Control {
    /// Appends an entry for something that control.db does not know of itself: a backup that was made, or verified.
    pub fn audit(&self, event: NewAuditEvent<'_>) -> Result<u64> {
        let now = self.clock.unix_seconds();
        let mut database = self.database.lock();
        let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let number = append(&transaction, &self.vault, now, event)?;
        transaction.commit()?;
        Ok(number)
    }

    /// Entries after number `after`, oldest first, `limit` at most.
    pub fn audit_events(&self, after: u64, limit: usize) -> Result<Vec<AuditEntry>> {
        read(&self.database.lock(), &self.vault, after, limit)
    }

    /// The newest entries, oldest first, `limit` at most.
    pub fn newest_audit_events(&self, limit: usize) -> Result<Vec<AuditEntry>> {
        let database = self.database.lock();
        let last = head(&database, &self.vault)?.number;
        let most = u64::try_from(limit).unwrap_or(u64::MAX);
        read(&database, &self.vault, last.saturating_sub(most), limit)
    }

    /// All signed heads, oldest first.
    pub fn audit_checkpoints(&self) -> Result<Vec<AuditCheckpoint>> {
        checkpoints(&self.database.lock())
    }

    /// Signs the head of the chain, logs it and keeps it in `audit.head`, unless nothing was appended since the last
    /// time.
    pub fn checkpoint_audit(&self) -> Result<Option<AuditCheckpoint>> {
        let mut database = self.database.lock();
        let signed = self.sign_head(&mut database)?;
        self.keep_outside(&database)?;
        Ok(signed)
    }

    /// Whether the trail has what was last kept in `audit.head` of it; else what to make of that. The server asks when
    /// it starts.
    pub fn check_audit_head(&self) -> Result<Option<String>> {
        self.compare_outside(&self.database.lock())
    }

    fn sign_head(&self, database: &mut Connection) -> Result<Option<AuditCheckpoint>> {
        let time = self.clock.unix_seconds();
        let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let head = head(&transaction, &self.vault)?;
        let signed: Option<i64> =
            transaction.query_row("SELECT max(number) FROM audit_checkpoints", [], |row| row.get(0))?;
        let is_signed = |signed: i64| u64::try_from(signed).is_ok_and(|signed| signed >= head.number);
        if head.number == 0 || signed.is_some_and(is_signed) {
            return Ok(None);
        }
        let hash =
            unhex(head.hash.as_bytes()).ok_or_else(|| corrupt("the head's hash is not hexadecimal"))?;
        let signature = self.vault.audit_signer().sign(&checkpoint_bytes(head.number, time, &hash));
        transaction.execute(
            "INSERT INTO audit_checkpoints (number, time, hash, signature) VALUES (?1, ?2, ?3, ?4)",
            params![to_column(head.number), time, *hash, signature],
        )?;
        transaction.commit()?;
        let checkpoint =
            AuditCheckpoint { number: head.number, time, hash: head.hash, signature: hex(&signature) };
        tracing::info!(
            number = checkpoint.number,
            hash = checkpoint.hash,
            signature = checkpoint.signature,
            signer = %self.vault.audit_signer().verifying_key(),
            "audit checkpoint"
        );
        Ok(Some(checkpoint))
    }

    /// `audit.head` gets the newest checkpoint. One that the chain does not have stays: it is what shows that.
    fn keep_outside(&self, database: &Connection) -> Result<()> {
        let Some(newest) = newest_checkpoint(database)? else { return Ok(()) };
        let kept = outside::read(&self.path);
        let is_there = matches!(&kept, Ok(Some(kept)) if kept.number >= newest.number);
        if is_there || self.compare_outside(database)?.is_some() {
            return Ok(());
        }
        outside::write(&self.path, &newest)
    }

    fn compare_outside(&self, database: &Connection) -> Result<Option<String>> {
        let kept = match outside::read(&self.path) {
            Ok(Some(kept)) => kept,
            Ok(None) => return Ok(None),
            Err(why) => return Ok(Some(why)),
        };
        if !is_signed(&kept, &self.vault.audit_signer().verifying_key()) {
            return Ok(Some("audit.head is not signed by this directory's key: it was changed".into()));
        }
        let number = kept.number;
        let present: Option<Vec<u8>> = database
            .prepare_cached("SELECT hash FROM audit WHERE number = ?1")?
            .query_row(params![to_column(number)], |row| row.get(0))
            .optional()?;
        let what = match present {
            Some(hash) if hex(&hash) == kept.hash => return Ok(None),
            Some(_) => format!("entry {number} is not the one that audit.head has"),
            None => format!("entry {number}, which audit.head has, is not there"),
        };
        Ok(Some(format!(
            "{what}: control.db is an older one than it was, or was changed. If you put it back yourself, from a \
             backup, remove audit.head"
        )))
    }

    /// Reads all of the trail and says what is not as it was written. `expected`: a checkpoint kept elsewhere, its
    /// number and hash in hexadecimal.
    pub fn verify_audit(&self, expected: Option<(u64, &str)>) -> Result<AuditReport> {
        let database = self.database.lock();
        let signer = self.vault.audit_signer().verifying_key();
        let mut hashes = Vec::new();
        let mut wrong = Vec::new();
        walk(&database, &self.vault, &mut hashes, &mut wrong)?;
        let checkpoints = checkpoints(&database)?;
        for checkpoint in &checkpoints {
            check_checkpoint(checkpoint, &signer, &hashes, &mut wrong);
        }
        if let Some((number, hash)) = expected
            && hash_at(&hashes, number) != Some(hash.to_ascii_lowercase().as_str())
        {
            wrong.push(format!("entry {number} has not the hash {hash} that was expected"));
        }
        wrong.extend(self.compare_outside(&database)?);
        Ok(AuditReport {
            entries: hashes.len() as u64,
            checkpoints: checkpoints.len() as u64,
            head: hashes.pop().unwrap_or_default(),
            signer: signer.to_string(),
            wrong,
        })
    }
}

/// Follows the chain from its beginning; `hashes` gets what the entries' hashes must be.
fn walk(
    database: &Connection,
    vault: &Vault,
    hashes: &mut Vec<String>,
    wrong: &mut Vec<String>,
) -> Result<()> {
    let mut statement = database.prepare("SELECT number, body, hash FROM audit ORDER BY number")?;
    let mut rows = statement.query([])?;
    let mut before = vec![0; 32];
    let mut expected = 1;
    while let Some(row) = rows.next()? {
        let (number, sealed, stored): (i64, Vec<u8>, Vec<u8>) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let Ok(number) = u64::try_from(number) else {
            wrong.push(format!("an entry has the number {number}"));
            continue;
        };
        if number != expected {
            wrong.push(format!("entry {expected} is missing: the next one is {number}"));
        }
        match vault.open_bytes(WHAT, entry_aad(number), &sealed) {
            Ok(text) => {
                let hash = hash_of(&before, number, &text);
                if hash.as_slice() != stored {
                    wrong.push(format!("entry {number} does not follow from the one before it"));
                }
            }
            Err(error) => wrong.push(format!("entry {number} was changed: {error}")),
        }
        hashes.push(hex(&stored));
        before = stored;
        expected = number + 1;
    }
    match head(database, vault) {
        Ok(head) if head.number + 1 != expected => {
            wrong.push(format!("the last entry is {}, and {} was written", expected - 1, head.number));
        }
        Ok(head) if head.hash != hex(&before) => wrong.push("the last entry is another one".into()),
        Ok(_) => {}
        Err(error) => wrong.push(format!("the end of the trail is not known: {error}")),
    }
    Ok(())
}

fn check_checkpoint(
    checkpoint: &AuditCheckpoint,
    signer: &VerifyingKey,
    hashes: &[String],
    wrong: &mut Vec<String>,
) {
    let AuditCheckpoint { number, hash, .. } = checkpoint;
    if !is_signed(checkpoint, signer) {
        wrong.push(format!("checkpoint {number} is not signed by {signer}"));
    } else if hash_at(hashes, *number) != Some(hash.as_str()) {
        wrong.push(format!("entry {number} is not the one that its checkpoint signed"));
    }
}

fn hash_at(hashes: &[String], number: u64) -> Option<&str> {
    let position = usize::try_from(number.checked_sub(1)?).ok()?;
    hashes.get(position).map(String::as_str)
}

fn read(database: &Connection, vault: &Vault, after: u64, limit: usize) -> Result<Vec<AuditEntry>> {
    let mut statement = database
        .prepare_cached("SELECT number, body, hash FROM audit WHERE number > ?1 ORDER BY number LIMIT ?2")?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = statement.query_and_then(params![to_column(after), limit], |row| -> Result<AuditEntry> {
        let (number, sealed, hash): (i64, Vec<u8>, Vec<u8>) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let number = from_column(WHAT, number)?;
        let text = vault.open_bytes(WHAT, entry_aad(number), &sealed)?;
        let event = serde_json::from_slice(&text).map_err(|error| corrupt(&error.to_string()))?;
        let text = String::from_utf8_lossy(&text).into_owned();
        Ok(AuditEntry { number, hash: hex(&hash), text, event })
    })?;
    rows.collect()
}

fn checkpoints(database: &Connection) -> Result<Vec<AuditCheckpoint>> {
    let mut statement = database
        .prepare_cached("SELECT number, time, hash, signature FROM audit_checkpoints ORDER BY number")?;
    let rows = statement.query_and_then([], read_checkpoint)?;
    rows.collect()
}

fn newest_checkpoint(database: &Connection) -> Result<Option<AuditCheckpoint>> {
    let mut statement = database.prepare_cached(
        "SELECT number, time, hash, signature FROM audit_checkpoints ORDER BY number DESC LIMIT 1",
    )?;
    let mut rows = statement.query_and_then([], read_checkpoint)?;
    rows.next().transpose()
}

fn read_checkpoint(row: &Row<'_>) -> Result<AuditCheckpoint> {
    let (number, time): (i64, i64) = (row.get(0)?, row.get(1)?);
    let (hash, signature): (Vec<u8>, Vec<u8>) = (row.get(2)?, row.get(3)?);
    Ok(AuditCheckpoint {
        number: from_column("a checkpoint of the audit trail", number)?,
        time,
        hash: hex(&hash),
        signature: hex(&signature),
    })
}

fn head(database: &Connection, vault: &Vault) -> Result<Head> {
    const WHAT: &str = "the end of the audit trail";
    let sealed = meta(database, HEAD_ROW)?
        .ok_or_else(|| ControlError::Corrupt { what: WHAT, why: "it is not there".into() })?;
    vault.open_json(WHAT, head_aad(), &sealed)
}

fn put_head(database: &Connection, vault: &Vault, head: &Head) -> Result<()> {
    put_meta(database, HEAD_ROW, &vault.seal_json(head_aad(), head))
}

fn is_signed(checkpoint: &AuditCheckpoint, signer: &VerifyingKey) -> bool {
    let AuditCheckpoint { number, time, hash, signature } = checkpoint;
    unhex(hash.as_bytes())
        .zip(unhex(signature.as_bytes()))
        .is_some_and(|(hash, signature)| signer.verify(&checkpoint_bytes(*number, *time, &hash), &signature))
}

fn hash_of(before: &[u8], number: u64, text: &[u8]) -> [u8; 32] {
    sha256(&Aad::new("audit-entry 1").bytes(before).u64(number).bytes(text).finish())
}

fn checkpoint_bytes(number: u64, time: i64, hash: &[u8]) -> Vec<u8> {
    Aad::new("audit-checkpoint 1").u64(number).u64(time.cast_unsigned()).bytes(hash).finish()
}

fn entry_aad(number: u64) -> Aad {
    Aad::new("audit 1").u64(number)
}

fn head_aad() -> Aad {
    Aad::new("audit-head 1")
}

fn corrupt(why: &str) -> ControlError {
    ControlError::Corrupt { what: WHAT, why: why.into() }
}

impl Vault {
    /// Signs checkpoints and certificates.
    pub(crate) fn audit_signer(&self) -> SigningKey {
        SigningKey::from_seed(*self.instance.audit.expose())
    }
}

#[cfg(test)]
mod tests;
