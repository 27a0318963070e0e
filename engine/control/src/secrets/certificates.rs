//! Certificates with their private keys: made, changed, listed, and opened for a sink that shows one.
//!
//! One version is kept, the newest: who shows an older certificate can only fail. What is sealed as `pem`:
//!
//! ```text
//! pem := length of the chain u32 big-endian | chain, PEM | private key, PEM
//! ```

use std::fmt;

use rusqlite::{Connection, Row, params};
use sepal_crypto::{CertificateFacts, hex};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    Control, ControlError, Scope, SecretName,
    control_error::Result,
    vault::{open_bytes, open_json, seal_bytes, seal_json},
};

use super::{MAX_SECRET_BYTES, grants, safe::Safe, store::check_room};

/// What may be told about a certificate. The private key is not part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    pub name: SecretName,
    pub environment: String,
    /// From 1; rises with each change.
    pub version: u64,
    /// `CN=…`; empty where the certificate has only alternative names.
    pub subject: String,
    /// Unix seconds, as all times here.
    pub not_before: i64,
    pub not_after: i64,
    /// The fingerprint of the own certificate, lower-case hexadecimal.
    pub sha256: String,
    /// The id of the API key that made it, or [`super::OPERATOR`].
    pub owner: String,
    pub created_at: i64,
    pub updated_at: i64,
}

/// A certificate to be made. Has no `Debug`: it carries the key.
#[derive(Clone, Copy)]
pub struct NewCertificate<'a> {
    pub name: &'a SecretName,
    pub owner: &'a str,
    /// The own certificate first, then those up to the authority.
    pub chain_pem: &'a str,
    pub key_pem: &'a str,
}

/// A chain and its key as they were given.
pub struct CertificatePem {
    pub version: u64,
    pub chain: String,
    pub key: Zeroizing<String>,
}

/// The sealed part of a certificate's row. Fields are only ever added, with a default.
#[derive(Serialize, Deserialize)]
pub(super) struct CertificateBody {
    pub(super) name: String,
    pub(super) version: u64,
    subject: String,
    not_before: i64,
    not_after: i64,
    sha256: String,
    pub(super) owner: String,
    created_at: i64,
    updated_at: i64,
}

/// A row, its PEM still sealed.
pub(super) struct Found {
    pub(super) body: CertificateBody,
    pem: Vec<u8>,
}

impl fmt::Debug for CertificatePem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificatePem").field("version", &self.version).finish_non_exhaustive()
    }
}

impl Control {
    /// Makes a certificate. Errors: 42710 the name is taken; 22023 chain and key do not parse or do not belong
    /// together, or the certificate is not valid now.
    pub fn create_certificate(&self, scope: &Scope<'_>, new: NewCertificate<'_>) -> Result<Certificate> {
        let now = self.clock.unix_seconds();
        let body = CertificateBody {
            name: new.name.to_string(),
            version: 1,
            owner: new.owner.to_owned(),
            created_at: now,
            updated_at: now,
            ..CertificateBody::read(new.name, new.chain_pem, new.key_pem, now)?
        };
        self.in_safe(scope, |transaction, safe| {
            if find(transaction, safe, new.name)?.is_some() {
                return Err(ControlError::AlreadyExists { what: "certificate", name: new.name.to_string() });
            }
            check_room(transaction, safe, "certificates")?;
            write(transaction, safe, &body, new.chain_pem, new.key_pem)
        })?;
        body.into_certificate(scope.environment)
    }

    /// Replaces chain and key, as a renewal does. Errors: 42704 there is none; else as
    /// [`Self::create_certificate`].
    pub fn set_certificate(
        &self,
        scope: &Scope<'_>,
        name: &str,
        chain_pem: &str,
        key_pem: &str,
    ) -> Result<Certificate> {
        let now = self.clock.unix_seconds();
        let body = self.in_safe(scope, |transaction, safe| {
            let old = find(transaction, safe, name)?.ok_or_else(|| no_certificate(name))?.body;
            let body = CertificateBody {
                version: old.version + 1,
                owner: old.owner,
                created_at: old.created_at,
                ..CertificateBody::read(name, chain_pem, key_pem, now)?
            };
            write(transaction, safe, &body, chain_pem, key_pem)?;
            Ok(body)
        })?;
        body.into_certificate(scope.environment)
    }

    /// Removes a certificate, its key and what was granted on it. Errors: 42704 there is none.
    pub fn drop_certificate(&self, scope: &Scope<'_>, name: &str) -> Result<()> {
        self.in_safe(scope, |transaction, safe| {
            let name_mac = safe.certificate_mac(name);
            let removed = transaction.execute(
                "DELETE FROM certificates WHERE tenant = ?1 AND environment = ?2 AND name_mac = ?3",
                params![safe.tenant.as_bytes(), safe.environment_mac, name_mac],
            )?;
            if removed == 0 {
                return Err(no_certificate(name));
            }
            grants::forget(transaction, safe, &name_mac)
        })
    }

    /// The certificate of that name; any text may be asked for.
    pub fn certificate(&self, scope: &Scope<'_>, name: &str) -> Result<Option<Certificate>> {
        self.hold_keys(scope.tenant)?;
        let database = self.database.lock();
        let safe = Safe::open(&database, &self.vault, scope)?;
        let found = find(&database, &safe, name)?;
        found.map(|found| found.body.into_certificate(scope.environment)).transpose()
    }

    /// An environment's certificates, by name. Those that have expired are among them.
    pub fn list_certificates(&self, scope: &Scope<'_>) -> Result<Vec<Certificate>> {
        self.hold_keys(scope.tenant)?;
        let database = self.database.lock();
        let safe = Safe::open(&database, &self.vault, scope)?;
        let mut statement = database.prepare_cached(
            "SELECT name_mac, body, pem FROM certificates WHERE tenant = ?1 AND environment = ?2",
        )?;
        let rows = statement
            .query_and_then(params![safe.tenant.as_bytes(), safe.environment_mac], |row| {
                read(row, &safe)?.body.into_certificate(scope.environment)
            })?;
        let mut certificates = rows.collect::<Result<Vec<_>>>()?;
        certificates.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(certificates)
    }

    /// Chain and key. `None` when there is no such certificate. It may have expired since it was made; the peer that
    /// is shown it will say so.
    ///
    /// Whoever calls this for someone asks [`Control::may_use`] before and records it with
    /// [`Control::record_secret_use`].
    pub fn certificate_pem(&self, scope: &Scope<'_>, name: &str) -> Result<Option<CertificatePem>> {
        const WHAT: &str = "a certificate's key";
        self.hold_keys(scope.tenant)?;
        let database = self.database.lock();
        let safe = Safe::open(&database, &self.vault, scope)?;
        let Some(Found { body, pem }) = find(&database, &safe, name)? else { return Ok(None) };
        let plain = open_bytes(&safe.certificates, WHAT, safe.pem_aad(&body.name, body.version), &pem)?;
        match unpack(&plain) {
            Some((chain, key)) => Ok(Some(CertificatePem { version: body.version, chain, key })),
            None => Err(ControlError::Corrupt { what: WHAT, why: "its lengths do not add up".into() }),
        }
    }
}

impl CertificateBody {
    /// What the texts say of themselves, once they are judged.
    fn read(name: &str, chain_pem: &str, key_pem: &str, now: i64) -> Result<Self> {
        let invalid = |why: String| ControlError::InvalidArgument(format!("certificate \"{name}\": {why}"));
        let bytes = chain_pem.len() + key_pem.len();
        if bytes > MAX_SECRET_BYTES {
            return Err(invalid(format!(
                "chain and key have {bytes} bytes together, {MAX_SECRET_BYTES} at most"
            )));
        }
        let facts = CertificateFacts::read(chain_pem.as_bytes(), key_pem.as_bytes())
            .map_err(|error| invalid(error.to_string()))?;
        if now < facts.not_before || now > facts.not_after {
            let when = if now > facts.not_after { "has expired" } else { "is not valid yet" };
            return Err(invalid(format!(
                "it {when}: it is valid from {}. Give one that is valid now",
                facts.validity()
            )));
        }
        Ok(Self {
            name: name.to_owned(),
            version: 0,
            not_before: facts.not_before,
            not_after: facts.not_after,
            sha256: hex(&facts.sha256),
            subject: facts.subject,
            owner: String::new(),
            created_at: now,
            updated_at: now,
        })
    }

    fn into_certificate(self, environment: &str) -> Result<Certificate> {
        Ok(Certificate {
            name: SecretName::parse(&self.name)?,
            environment: environment.to_owned(),
            version: self.version,
            subject: self.subject,
            not_before: self.not_before,
            not_after: self.not_after,
            sha256: self.sha256,
            owner: self.owner,
            created_at: self.created_at,
            updated_at: self.updated_at,
        })
    }
}

/// The row of the certificate of that name.
pub(super) fn find(database: &Connection, safe: &Safe<'_>, name: &str) -> Result<Option<Found>> {
    let mut statement = database.prepare_cached(
        "SELECT name_mac, body, pem FROM certificates WHERE tenant = ?1 AND environment = ?2 AND name_mac = ?3",
    )?;
    let mut rows = statement.query_and_then(
        params![safe.tenant.as_bytes(), safe.environment_mac, safe.certificate_mac(name)],
        |row| read(row, safe),
    )?;
    rows.next().transpose()
}

fn read(row: &Row<'_>, safe: &Safe<'_>) -> Result<Found> {
    let (name_mac, sealed, pem): ([u8; 32], Vec<u8>, Vec<u8>) = (row.get(0)?, row.get(1)?, row.get(2)?);
    let body = open_json(&safe.certificates, "a certificate", safe.certificate_aad(&name_mac), &sealed)?;
    Ok(Found { body, pem })
}

/// Writes a row, over the one that is there.
fn write(
    database: &Connection,
    safe: &Safe<'_>,
    body: &CertificateBody,
    chain_pem: &str,
    key_pem: &str,
) -> Result<()> {
    let name_mac = safe.certificate_mac(&body.name);
    let plain = pack(chain_pem, key_pem);
    database.execute(
        "INSERT INTO certificates (tenant, environment, name_mac, body, pem) VALUES (?1, ?2, ?3, ?4, ?5) \
         ON CONFLICT (tenant, environment, name_mac) DO UPDATE SET body = excluded.body, pem = excluded.pem",
        params![
            safe.tenant.as_bytes(),
            safe.environment_mac,
            name_mac,
            seal_json(&safe.certificates, safe.certificate_aad(&name_mac), body),
            seal_bytes(&safe.certificates, safe.pem_aad(&body.name, body.version), &plain),
        ],
    )?;
    Ok(())
}

fn pack(chain_pem: &str, key_pem: &str) -> Zeroizing<Vec<u8>> {
    let length = u32::try_from(chain_pem.len()).expect("a chain is at most 64 KiB");
    // With room for all of it: a vector that grew would leave a copy behind.
    let mut packed = Zeroizing::new(Vec::with_capacity(4 + chain_pem.len() + key_pem.len()));
    packed.extend_from_slice(&length.to_be_bytes());
    packed.extend_from_slice(chain_pem.as_bytes());
    packed.extend_from_slice(key_pem.as_bytes());
    packed
}

fn unpack(packed: &[u8]) -> Option<(String, Zeroizing<String>)> {
    let (length, rest) = packed.split_first_chunk()?;
    let (chain, key) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    let key = Zeroizing::new(std::str::from_utf8(key).ok()?.to_owned());
    Some((std::str::from_utf8(chain).ok()?.to_owned(), key))
}

fn no_certificate(name: &str) -> ControlError {
    ControlError::NotFound { what: "certificate", name: name.to_owned() }
}
