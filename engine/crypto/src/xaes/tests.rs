//! The vectors published with the specification, and every way in which sealed bytes can be wrong.

use super::*;
use crate::hex;

const NONCE: &[u8; 24] = b"ABCDEFGHIJKLMNOPQRSTUVWX";

/// The first vector has the top bit of L clear, the second has it set.
#[test]
fn published_vectors() {
    let cases: [(u8, &[u8], &str, &str); 2] = [
        (
            1,
            b"",
            "c8612c9ed53fe43e8e005b828a1631a0bbcb6ab2f46514ec4f439fcfd0fa969b",
            "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271",
        ),
        (
            3,
            b"c2sp.org/XAES-256-GCM",
            "e9c621d4cdd9b11b00a6427ad7e559aeedd66b3857646677748f8ca796cb3fd8",
            "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d",
        ),
    ];
    for (key, aad, derived, ciphertext) in cases {
        let key = Key::from_bytes([key; 32]);
        let (subkey, short_nonce) = derive(&key, NONCE);
        assert_eq!(hex(&*subkey), derived);
        assert_eq!(&short_nonce, b"MNOPQRSTUVWX");
        let sealed = seal_with_nonce(&key, NONCE, aad, b"XAES-256-GCM");
        assert_eq!(&sealed[..24], NONCE);
        assert_eq!(hex(&sealed[24..]), ciphertext);
        assert_eq!(open(&key, aad, &sealed).unwrap(), b"XAES-256-GCM");
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    let key = Key::random();
    let mut sealed = seal(&key, b"here", b"a row of the table");
    for position in 0..sealed.len() {
        for bit in 0..8 {
            sealed[position] ^= 1 << bit;
            assert_eq!(
                open(&key, b"here", &sealed),
                Err(OpenError::NotAuthentic),
                "byte {position} bit {bit}"
            );
            sealed[position] ^= 1 << bit;
        }
    }
    assert_eq!(open(&key, b"here", &sealed).unwrap(), b"a row of the table");
}

#[test]
fn another_place_key_or_length_is_refused() {
    let key = Key::random();
    let sealed = seal(&key, b"here", b"payload");
    assert_eq!(open(&key, b"there", &sealed), Err(OpenError::NotAuthentic));
    assert_eq!(open(&Key::random(), b"here", &sealed), Err(OpenError::NotAuthentic));
    for length in 0..sealed.len() {
        assert!(open(&key, b"here", &sealed[..length]).is_err(), "{length} bytes opened");
    }
    let longer = [sealed.as_slice(), &[0]].concat();
    assert_eq!(open(&key, b"here", &longer), Err(OpenError::NotAuthentic));
}

#[test]
fn nonces_are_fresh_and_nothing_is_still_something() {
    let key = Key::random();
    let (one, two) = (seal(&key, b"", b""), seal(&key, b"", b""));
    assert_eq!(one.len(), SEAL_OVERHEAD_BYTES);
    assert_ne!(one[..24], two[..24]);
    assert_eq!(open(&key, b"", &one).unwrap(), b"");
}
