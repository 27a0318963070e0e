//! Every kind of key beside its certificate, and pairs that are none.

use rcgen::{
    CertificateParams, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256, date_time_ymd,
};

use super::*;

fn made(algorithm: &'static rcgen::SignatureAlgorithm) -> (String, String) {
    let mut params = CertificateParams::new(vec!["example.com".into()]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "example.com");
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2040, 1, 1);
    let key = KeyPair::generate_for(algorithm).unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

#[test]
fn each_kind_of_key_is_told_from_another() {
    for algorithm in [&PKCS_RSA_SHA256, &PKCS_ECDSA_P256_SHA256, &PKCS_ED25519] {
        let ((chain, key), (_, other)) = (made(algorithm), made(algorithm));
        let facts = CertificateFacts::read(chain.as_bytes(), key.as_bytes()).unwrap();
        assert_eq!(facts.subject, "CN=example.com");
        assert_eq!((facts.not_before, facts.not_after), (1_577_836_800, 2_208_988_800));
        assert_eq!(facts.validity(), "Jan  1 00:00:00 2020 +00:00 to Jan  1 00:00:00 2040 +00:00");
        let der = CertificateDer::from_pem_slice(chain.as_bytes()).unwrap();
        assert_eq!(facts.sha256, sha256(&der));
        let mismatch = CertificateFacts::read(chain.as_bytes(), other.as_bytes());
        assert_eq!(mismatch, Err(CertificateError::KeyMismatch), "{algorithm:?}");
    }
}

#[test]
fn the_first_of_a_chain_counts() {
    let ((one, one_key), (two, two_key)) = (made(&PKCS_ECDSA_P256_SHA256), made(&PKCS_ED25519));
    let chain = format!("{one}{two}");
    assert!(CertificateFacts::read(chain.as_bytes(), one_key.as_bytes()).is_ok());
    let second = CertificateFacts::read(chain.as_bytes(), two_key.as_bytes());
    assert_eq!(second, Err(CertificateError::KeyMismatch));
}

#[test]
fn what_is_missing_or_broken_is_said_without_the_key() {
    let (chain, key) = made(&PKCS_ECDSA_P256_SHA256);
    let read = |chain: &str, key: &str| CertificateFacts::read(chain.as_bytes(), key.as_bytes()).unwrap_err();
    assert_eq!(read("", &key), CertificateError::NoCertificate);
    assert_eq!(read(&key, &key), CertificateError::NoCertificate);
    assert_eq!(read(&format!("{chain}{key}"), &key), CertificateError::KeyInChain);
    assert_eq!(read(&chain, ""), CertificateError::NoKey);
    assert_eq!(read(&chain, &chain), CertificateError::NoKey);
    assert_eq!(read(&chain, &key[..key.len() / 2]), CertificateError::NoKey);
    let empty = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    assert_eq!(read(&chain, empty), CertificateError::UnsupportedKey);
    let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(matches!(read(garbage, &key), CertificateError::Malformed { position: 1, .. }));
    let second = read(&format!("{chain}{garbage}"), &key);
    assert!(matches!(second, CertificateError::Malformed { position: 2, .. }), "{second}");
}
