//! The vectors of RFC 8032, the documents that OpenSSL writes, and what is refused.

use super::*;
use crate::hex;

/// RFC 8032, section 7.1, tests 1 to 3: seed, public key, message, signature.
const VECTORS: [(&str, &str, &[u8], &str); 3] = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        &[],
        concat!(
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155",
            "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
        ),
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        &[0x72],
        concat!(
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da",
            "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        ),
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        &[0xaf, 0x82],
        concat!(
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac",
            "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
        ),
    ),
];

#[test]
fn published_vectors() {
    for (seed, public, message, signature) in VECTORS {
        let key = SigningKey::from_hex(seed).unwrap();
        assert_eq!(key.to_hex().as_str(), seed);
        let verifying = key.verifying_key();
        assert_eq!(hex(verifying.as_bytes()), public);
        let made = key.sign(message);
        assert_eq!(hex(&made), signature);
        assert!(verifying.verify(message, &made));
    }
}

/// The first vector's key as `openssl pkey -outform DER` writes it.
#[test]
fn openssls_documents_are_read_and_written() {
    let key = SigningKey::from_hex(VECTORS[0].0).unwrap();
    let document = key.to_pkcs8();
    assert_eq!(hex(&document), format!("302e020100300506032b657004220420{}", VECTORS[0].0));
    assert_eq!(SigningKey::from_pkcs8(&document).unwrap().to_hex(), key.to_hex());
    assert_eq!(SigningKey::from_pkcs8(&document[..47]).unwrap_err(), KeyError::Pkcs8);
    assert_eq!(SigningKey::from_pkcs8(b"").unwrap_err(), KeyError::Pkcs8);
}

#[test]
fn texts_are_golden_and_read_back() {
    let key = SigningKey::from_hex(&format!(" {}\n", VECTORS[0].0)).unwrap().verifying_key();
    assert_eq!(key.to_string(), "ed25519:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=");
    assert_eq!(VerifyingKey::parse(&key.to_string()), Ok(key));
    for text in ["", "ed25519:", "ed25519:AAAA", "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=", "ed25519:é"]
    {
        assert_eq!(VerifyingKey::parse(text), Err(KeyError::VerifyingKey), "{text}");
    }
    for text in ["", "0", &"g".repeat(64), &"é".repeat(32), &"0".repeat(65)] {
        assert_eq!(SigningKey::from_hex(text).unwrap_err(), KeyError::Seed, "{text}");
    }
}

#[test]
fn anything_else_does_not_verify() {
    let (key, other) = (SigningKey::generate(), SigningKey::generate());
    let verifying = key.verifying_key();
    let mut signature = key.sign(b"package");
    assert!(!verifying.verify(b"packagf", &signature));
    assert!(!other.verifying_key().verify(b"package", &signature));
    assert!(!verifying.verify(b"package", &signature[..63]));
    assert!(!verifying.verify(b"package", &[signature.as_slice(), &[0]].concat()));
    for position in 0..SIGNATURE_BYTES {
        signature[position] ^= 1;
        assert!(!verifying.verify(b"package", &signature), "byte {position}");
        signature[position] ^= 1;
    }
    assert!(verifying.verify(b"package", &signature));
    // Not the encoding of a point that anyone has the key of.
    assert!(!VerifyingKey::from_bytes([0xff; 32]).verify(b"package", &signature));
}

#[test]
fn debug_shows_no_private_key() {
    let key = SigningKey::from_seed([0xab; 32]);
    assert_eq!(format!("{key:?}"), "SigningKey(redacted)");
}
