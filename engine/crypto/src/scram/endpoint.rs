//! The channel binding `tls-server-end-point` (RFC 5929, section 4): a hash of the server's certificate.
//!
//! `pgwire-server` calls it once per certificate with the signature algorithm it read from it.

use sha2::{Digest, Sha256, Sha384, Sha512};

/// The certificate's hash, under the hash function of its own signature; MD5 and SHA-1 are replaced by
/// SHA-256.
///
/// `certificate`: the whole certificate, DER. `signature_algorithm`: its OID in dotted form. `None` when that
/// algorithm has no single hash function (Ed25519, RSA-PSS): then SCRAM-SHA-256-PLUS must not be offered.
pub fn tls_server_end_point(certificate: &[u8], signature_algorithm: &str) -> Option<Vec<u8>> {
    Some(match signature_algorithm {
        // md5, sha1, sha256 with RSA; ecdsa with SHA-1, SHA-256.
        "1.2.840.113549.1.1.4"
        | "1.2.840.113549.1.1.5"
        | "1.2.840.113549.1.1.11"
        | "1.2.840.10045.4.1"
        | "1.2.840.10045.4.3.2" => Sha256::digest(certificate).to_vec(),
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => Sha384::digest(certificate).to_vec(),
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => Sha512::digest(certificate).to_vec(),
        _ => return None,
    })
}
