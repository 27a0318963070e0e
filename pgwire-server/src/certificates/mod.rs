//! The server's TLS certificate: made once by `sepal init` and `sepal dev`, or supplied by the operator.
//!
//! ```text
//! <data>/tls/ca.crt      0644  PEM, the authority that clients trust (PGSSLROOTCERT)
//! <data>/tls/server.crt  0644  PEM, the server's certificate, signed by it
//! <data>/tls/server.key  0600  PEM, the server's private key
//! ```
//!
//! The authority's own key is dropped as soon as it has signed: nobody can issue a second certificate that
//! these clients would trust. Called by `cli::init`, `cli::process` and `demo`; never replaces a file.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use sepal_database::civil_from_days;

use crate::config::files::write_new;

/// Ten years: a database must not stop one morning because nobody remembered a certificate.
const VALID_YEARS: i32 = 10;
/// What the made certificate is valid for, whatever else it listens on.
const LOCAL_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Where a server's certificate, key and (if we made them) authority lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// The authority to give to clients; `None` for a certificate of the operator's own.
    pub authority: Option<PathBuf>,
}

impl CertificateFiles {
    /// The files that [`create`] makes under a data directory.
    pub fn made_in(data: &Path) -> Self {
        let tls = data.join("tls");
        Self {
            certificate: tls.join("server.crt"),
            key: tls.join("server.key"),
            authority: Some(tls.join("ca.crt")),
        }
    }
}

/// Makes an authority and a server certificate for localhost, 127.0.0.1, ::1 and the given addresses.
///
/// Errors: the folder cannot be written, or a file of that name exists.
pub fn create(data: &Path, also_for: &[IpAddr]) -> io::Result<CertificateFiles> {
    let mut names: Vec<String> = LOCAL_NAMES.iter().map(|name| (*name).to_owned()).collect();
    for address in also_for {
        let name = address.to_string();
        if !address.is_unspecified() && !names.contains(&name) {
            names.push(name);
        }
    }
    let made = issue(names).map_err(io::Error::other)?;
    let files = CertificateFiles::made_in(data);
    fs::create_dir_all(data.join("tls"))?;
    write_new(&files.key, made.server_key.as_bytes(), 0o600)?;
    write_new(&files.certificate, made.server.as_bytes(), 0o644)?;
    if let Some(authority) = &files.authority {
        write_new(authority, made.authority.as_bytes(), 0o644)?;
    }
    Ok(files)
}

/// PEM texts.
struct Issued {
    authority: String,
    server: String,
    server_key: String,
}

fn issue(names: Vec<String>) -> Result<Issued, rcgen::Error> {
    // A day back, for clients whose clock is behind; the 28th exists in every month.
    let (year, month, day) = yesterday();
    let not_before = date_time_ymd(year, month, day);
    let not_after = date_time_ymd(year + VALID_YEARS, month, day.min(28));

    let mut authority = CertificateParams::new(Vec::new())?;
    authority.not_before = not_before;
    authority.not_after = not_after;
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    authority.distinguished_name = rcgen::DistinguishedName::new();
    authority.distinguished_name.push(DnType::CommonName, "Sepal local authority");
    // P-256 with SHA-256: every libpq, and a signature with a digest that channel binding can use.
    let authority_key = KeyPair::generate()?;
    let authority_certificate = authority.self_signed(&authority_key)?;
    let issuer = Issuer::new(authority, authority_key);

    let mut server = CertificateParams::new(names)?;
    server.not_before = not_before;
    server.not_after = not_after;
    server.use_authority_key_identifier_extension = true;
    server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    server.distinguished_name = rcgen::DistinguishedName::new();
    server.distinguished_name.push(DnType::CommonName, "localhost");
    let server_key = KeyPair::generate()?;
    let server_certificate = server.signed_by(&server_key, &issuer)?;
    Ok(Issued {
        authority: authority_certificate.pem(),
        server: server_certificate.pem(),
        server_key: server_key.serialize_pem(),
    })
}

/// Yesterday's date, UTC.
fn yesterday() -> (i32, u8, u8) {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (year, month, day) = civil_from_days(i64::try_from(seconds / 86_400).unwrap_or(0) - 1);
    (
        i32::try_from(year).unwrap_or(i32::MAX),
        u8::try_from(month).unwrap_or(1),
        u8::try_from(day).unwrap_or(1),
    )
}

#[cfg(test)]
mod tests;
