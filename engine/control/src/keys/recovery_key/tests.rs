//! The written form of recovery keys and shares, and what is refused.

use proptest::prelude::*;

use super::*;

fn key(byte: u8) -> RecoveryKey {
    RecoveryKey::from_key(Key::from_bytes([byte; 32]))
}

#[test]
fn a_key_reads_back_and_has_the_form_of_every_token() {
    for byte in [0, 1, 0x7f, 0xff] {
        let text = key(byte).expose();
        assert_eq!(text.len(), KEY_PREFIX.len() + 12 + 1 + 43 + 1 + 6, "{}", &*text);
        assert_eq!(text.split('_').count(), 6);
        assert_eq!(RecoveryKey::parse(&text).unwrap().key().expose(), &[byte; 32]);
    }
    assert!(format!("{:?}", key(7)).ends_with("redacted)"));
}

#[test]
fn each_typing_error_is_found() {
    let text = key(7).expose();
    for position in 0..text.len() {
        let mut bytes = text.as_bytes().to_vec();
        bytes[position] = if bytes[position] == b'x' { b'y' } else { b'x' };
        assert!(RecoveryKey::parse(std::str::from_utf8(&bytes).unwrap()).is_none(), "byte {position}");
        assert!(RecoveryKey::parse(&text[..position]).is_none());
    }
    assert!(RecoveryKey::parse(&format!("{}x", &*text)).is_none());
}

#[test]
fn numbers_beyond_256_bits_are_refused() {
    assert!(decode(&"z".repeat(43)).is_none());
    assert!(decode(&"0".repeat(43)).is_some());
    let mut most = String::new();
    encode(&[0xff; 32], &mut most);
    assert_eq!(*decode(&most).unwrap(), [0xff; 32]);
}

#[test]
fn shares_read_back_and_say_what_is_wrong() {
    let shares = key(7).split(3, 5).unwrap();
    let read: Vec<RecoveryShare> =
        shares.iter().map(|share| RecoveryShare::parse(&share.expose()).unwrap()).collect();
    assert!(shares[1].expose().starts_with("sepal_share_3of5n2_"));
    assert_eq!(RecoveryKey::combine(&read[2..]).unwrap().key().expose(), &[7; 32]);
    assert_eq!(RecoveryKey::combine(&read).unwrap().key().expose(), &[7; 32], "more do no harm");

    let wrong = |shares: &[RecoveryShare]| RecoveryKey::combine(shares).unwrap_err();
    assert!(wrong(&read[..2]).contains("2 different shares were given, and 3 of 5 are needed"));
    assert!(wrong(&[read[0].clone(), read[0].clone(), read[1].clone()]).contains("2 different shares"));
    let stranger = key(8).split(3, 5).unwrap().swap_remove(0);
    assert!(wrong(&[read[0].clone(), read[1].clone(), stranger]).contains("give shares of one key"));
    let mut forged = read.clone();
    forged[0].share.bytes[0] ^= 1;
    assert!(wrong(&forged[..3]).contains("not what was handed out"));
    assert!(wrong(&[]).contains("no share"));

    let text = shares[0].expose();
    for odd in ["3of5n0", "3of5n6", "03of5n1", "6of5n1", "3of5", "n", "3of5n+1"] {
        assert!(RecoveryShare::parse(&text.replace("3of5n1", odd)).is_none(), "{odd}");
    }
    assert!(RecoveryShare::parse(&key(7).expose()).is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_have_one_spelling(bytes in any::<[u8; 32]>()) {
        let mut text = String::new();
        encode(&bytes, &mut text);
        prop_assert_eq!(text.len(), SECRET_BYTES);
        prop_assert_eq!(*decode(&text).unwrap(), bytes);
    }

    #[test]
    fn no_text_panics(text in "(sepal_(rec|share)_)?[0-9a-zA-Z_]{0,80}") {
        let _ = RecoveryKey::parse(&text);
        let _ = RecoveryShare::parse(&text);
    }
}
