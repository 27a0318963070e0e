//! Certificates: what is taken, what is refused, and that the key comes back.

use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};

use crate::{
    CertificatePem, Grantable, NewCertificate, SecretName,
    tests::{Fixture, START},
};

use super::{acme, code, prod, scope};

/// PEM of a chain and its key, valid in these years. `START` is in 2030.
fn made(from: i32, to: i32) -> (String, String) {
    let mut params = CertificateParams::new(vec!["example.com".into()]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "example.com");
    (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(to, 1, 1));
    let key = KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

#[test]
fn a_certificate_is_made_renewed_and_dropped() {
    let fixture = Fixture::new();
    let (tenant, control) = (acme(&fixture), &fixture.control);
    let (key, _) = fixture.key(&tenant);
    let name = SecretName::parse("my-tls-cert").unwrap();
    let (chain_pem, key_pem) = made(2029, 2031);
    let new = NewCertificate { name: &name, owner: &key.id, chain_pem: &chain_pem, key_pem: &key_pem };
    let first = control.create_certificate(&scope(&tenant), new).unwrap();
    assert_eq!((first.version, first.subject.as_str()), (1, "CN=example.com"));
    assert_eq!((first.not_before, first.not_after), (1_861_920_000, 1_924_992_000));
    assert_eq!((first.owner.as_str(), first.created_at), (&*key.id, START));
    assert!(first.sha256.len() == 64 && first.sha256.bytes().all(|b| b.is_ascii_hexdigit()));
    assert_eq!(code(control.create_certificate(&scope(&tenant), new).unwrap_err()), "42710");
    assert!(control.may_use(&scope(&tenant), Grantable::Certificate, "my-tls-cert", &key.id).unwrap());

    let pem = control.certificate_pem(&scope(&tenant), "my-tls-cert").unwrap().unwrap();
    assert_eq!((pem.version, &pem.chain, &*pem.key), (1, &chain_pem, &key_pem));
    assert_eq!(format!("{pem:?}"), "CertificatePem { version: 1, .. }");
    assert!(control.certificate_pem(&prod(&tenant), "my-tls-cert").unwrap().is_none());

    fixture.clock.advance(10);
    let (chain_pem, key_pem) = made(2030, 2032);
    let second = control.set_certificate(&scope(&tenant), "my-tls-cert", &chain_pem, &key_pem).unwrap();
    assert_eq!((second.version, second.created_at, second.updated_at), (2, START, START + 10));
    assert_eq!(second.owner, first.owner);
    assert_ne!(second.sha256, first.sha256);
    let CertificatePem { version, chain, .. } =
        control.certificate_pem(&scope(&tenant), "my-tls-cert").unwrap().unwrap();
    assert_eq!((version, chain), (2, chain_pem.clone()));
    assert_eq!(control.list_certificates(&scope(&tenant)).unwrap(), [second]);

    control.drop_certificate(&scope(&tenant), "my-tls-cert").unwrap();
    assert_eq!(control.certificate(&scope(&tenant), "my-tls-cert").unwrap(), None);
    assert_eq!(code(control.drop_certificate(&scope(&tenant), "my-tls-cert").unwrap_err()), "42704");
    let gone = control.set_certificate(&scope(&tenant), "my-tls-cert", &chain_pem, &key_pem);
    assert_eq!(code(gone.unwrap_err()), "42704");
}

#[test]
fn what_cannot_be_shown_is_refused() {
    let fixture = Fixture::new();
    let (tenant, control) = (acme(&fixture), &fixture.control);
    let name = SecretName::parse("cert").unwrap();
    let refused = |chain_pem: &str, key_pem: &str| {
        let new = NewCertificate { name: &name, owner: "operator", chain_pem, key_pem };
        let error = control.create_certificate(&scope(&tenant), new).unwrap_err();
        let text = error.to_string();
        assert!(!text.contains(key_pem.lines().nth(1).unwrap_or("none")), "{text}");
        assert_eq!(code(error), "22023");
        text
    };
    let ((chain, key), (_, other_key)) = (made(2029, 2031), made(2029, 2031));
    assert!(refused(&chain, &other_key).contains("does not belong"));
    assert!(refused("", &key).contains("BEGIN CERTIFICATE"));
    assert!(refused(&chain, "").contains("BEGIN PRIVATE KEY"));
    let (expired, expired_key) = made(2020, 2029);
    let text = refused(&expired, &expired_key);
    assert!(text.contains("has expired") && text.contains("Jan  1 00:00:00 2029"), "{text}");
    let (early, early_key) = made(2031, 2032);
    let text = refused(&early, &early_key);
    assert!(text.contains("not valid yet") && text.contains("Jan  1 00:00:00 2031"), "{text}");
    let padded = format!("{chain}{}", "# a comment\n".repeat(6_000));
    assert!(refused(&padded, &key).contains("65536 at most"));
    assert!(control.list_certificates(&scope(&tenant)).unwrap().is_empty());
}
