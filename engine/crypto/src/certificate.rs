//! What a PEM chain and its private key say, and whether they belong together.
//!
//! Control calls it before it seals a certificate. Nothing here decides whom to trust: a chain is not followed to an
//! authority, the peer that is shown the certificate does that.

use std::fmt;

use rustls::{
    crypto::aws_lc_rs::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use x509_parser::{certificate::X509Certificate, prelude::FromDer, time::ASN1Time};
use zeroize::Zeroize;

use crate::sha256;

/// Facts about the first certificate of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    /// `CN=…, O=…`; empty where the certificate has only alternative names.
    pub subject: String,
    /// Unix seconds, as the next.
    pub not_before: i64,
    pub not_after: i64,
    /// SHA-256 of its DER, what browsers and OpenSSL call the fingerprint.
    pub sha256: [u8; 32],
}

/// Why a certificate and a key cannot be used. Holds nothing of the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateError {
    NoCertificate,
    /// The `n`th of the chain, from 1.
    Malformed {
        position: usize,
        why: String,
    },
    /// Whoever may see the certificate would see the key.
    KeyInChain,
    NoKey,
    UnsupportedKey,
    KeyMismatch,
}

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCertificate => f.write_str(
                "the certificate holds no complete -----BEGIN CERTIFICATE----- section: give the PEM chain, the \
                 own certificate first",
            ),
            Self::Malformed { position, why } => {
                write!(f, "certificate {position} of the chain is not X.509: {why}")
            }
            Self::KeyInChain => f.write_str(
                "the certificate's text holds a private key too: give the chain and the key apart",
            ),
            Self::NoKey => f.write_str(
                "the key holds no complete -----BEGIN PRIVATE KEY----- section: give it in PEM (PKCS#8, PKCS#1 or \
                 SEC1), without a passphrase",
            ),
            Self::UnsupportedKey => {
                f.write_str("the private key is of no supported kind: use RSA, ECDSA P-256 or P-384, or Ed25519")
            }
            Self::KeyMismatch => f.write_str(
                "the private key does not belong to the first certificate of the chain: give the key that the \
                 certificate was requested with, and the own certificate first",
            ),
        }
    }
}

impl std::error::Error for CertificateError {}

impl CertificateFacts {
    /// Reads a PEM chain (the own certificate first) and a PEM key, and checks that they belong together.
    pub fn read(chain_pem: &[u8], key_pem: &[u8]) -> Result<Self, CertificateError> {
        let chain = CertificateDer::pem_slice_iter(chain_pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| CertificateError::NoCertificate)?;
        let mut facts = None;
        for (position, certificate) in (1..).zip(&chain) {
            let read = Self::of(certificate).map_err(|why| CertificateError::Malformed { position, why })?;
            facts.get_or_insert(read);
        }
        let facts = facts.ok_or(CertificateError::NoCertificate)?;
        if let Some(Ok(mut der)) = PrivateKeyDer::pem_slice_iter(chain_pem).next() {
            der.zeroize();
            return Err(CertificateError::KeyInChain);
        }
        // What the PEM reader says is not passed on: it may quote the line it did not understand.
        let mut der = PrivateKeyDer::from_pem_slice(key_pem).map_err(|_| CertificateError::NoKey)?;
        let key = any_supported_type(&der);
        der.zeroize();
        let key = key.map_err(|_| CertificateError::UnsupportedKey)?;
        CertifiedKey::new(chain, key).keys_match().map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => CertificateError::KeyMismatch,
            // Version 1, or extensions that contradict each other: no TLS peer would take it either.
            other => CertificateError::Malformed { position: 1, why: other.to_string() },
        })?;
        Ok(facts)
    }

    /// `Jan  1 00:00:00 2026 +00:00 to Mar 31 23:59:59 2026 +00:00`, for people.
    pub fn validity(&self) -> String {
        let text = |seconds| {
            ASN1Time::from_timestamp(seconds)
                .map_or_else(|_| format!("second {seconds}"), |time| time.to_string())
        };
        format!("{} to {}", text(self.not_before), text(self.not_after))
    }

    fn of(certificate: &CertificateDer<'_>) -> Result<Self, String> {
        let (rest, parsed) = X509Certificate::from_der(certificate).map_err(|error| error.to_string())?;
        if !rest.is_empty() {
            return Err(format!("{} bytes follow it", rest.len()));
        }
        let validity = parsed.validity();
        Ok(Self {
            subject: parsed.subject().to_string(),
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
            sha256: sha256(certificate),
        })
    }
}

#[cfg(test)]
mod tests;
