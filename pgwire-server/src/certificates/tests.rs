//! The certificates are what strict clients accept, and nothing is overwritten.

use std::{fs, os::unix::fs::PermissionsExt, sync::Arc};

use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};

use super::*;

#[test]
fn a_strict_verifier_accepts_the_server_by_name_and_address() {
    let dir = tempfile::tempdir().unwrap();
    let extra: IpAddr = "192.0.2.7".parse().unwrap();
    let files = create(dir.path(), &[extra]).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(files.authority.as_ref().unwrap()).unwrap()).unwrap();
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(aws_lc_rs::default_provider()))
            .build()
            .unwrap();
    let server = CertificateDer::from_pem_file(&files.certificate).unwrap();
    let check = |name: &str| {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        verifier.verify_server_cert(&server, &[], &name, &[], UnixTime::now()).is_ok()
    };
    for name in ["localhost", "127.0.0.1", "::1", "192.0.2.7"] {
        assert!(check(name), "{name}");
    }
    assert!(!check("example.com"));
    assert!(!check("192.0.2.8"));
    let mode = fs::metadata(&files.key).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn existing_files_stay() {
    let dir = tempfile::tempdir().unwrap();
    let files = create(dir.path(), &[]).unwrap();
    let before = fs::read(&files.certificate).unwrap();
    assert_eq!(create(dir.path(), &[]).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(fs::read(&files.certificate).unwrap(), before);
}
