//! A key sealed under another one: the links of root, tenant, file.
//!
//! Control wraps instance and tenant keys under the root, storage wraps file keys under the tenant's.
//!
//! ```text
//! wrapped := check value of the wrapping key 16 | nonce 24 | ciphertext | tag 16      = 88 bytes for a key
//! ```
//! The check value is stored and authenticated because GCM does not commit to its key: one wrapped key must
//! not open under two wrapping keys.

use zeroize::Zeroizing;

use crate::{
    Aad, Key, OpenError, constant_time_eq, random_bytes,
    xaes::{self, NONCE_BYTES, SEAL_OVERHEAD_BYTES},
};

const CHECK_BYTES: usize = 16;
const WRAP_OVERHEAD_BYTES: usize = CHECK_BYTES + SEAL_OVERHEAD_BYTES;

/// The length of every wrapped key.
pub const WRAPPED_KEY_BYTES: usize = WRAP_OVERHEAD_BYTES + 32;

/// Seals `key` under `kek`; `aad` says whose key it is and for what.
pub fn wrap_key(kek: &Key, aad: &[u8], key: &Key) -> Vec<u8> {
    wrap_with_nonce(kek, &random_bytes(), aad, key.expose())
}

/// Opens what [`wrap_key`] gave. [`OpenError::WrongKey`] when `kek` is not the key it was wrapped under.
pub fn unwrap_key(kek: &Key, aad: &[u8], wrapped: &[u8]) -> Result<Key, OpenError> {
    if wrapped.len() != WRAPPED_KEY_BYTES {
        return Err(OpenError::TooShort { length: wrapped.len(), minimum: WRAPPED_KEY_BYTES });
    }
    let plain = unwrap_secret(kek, aad, wrapped)?;
    let bytes: &[u8; 32] = plain.as_slice().try_into().map_err(|_| OpenError::Malformed)?;
    Ok(Key::from_bytes(*bytes))
}

/// [`wrap_key`] for secret bytes of any length: a key that is wrapped by somebody else already.
pub fn wrap_secret(kek: &Key, aad: &[u8], secret: &[u8]) -> Vec<u8> {
    wrap_with_nonce(kek, &random_bytes(), aad, secret)
}

/// Opens what [`wrap_secret`] or [`wrap_key`] gave.
pub fn unwrap_secret(kek: &Key, aad: &[u8], wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    if wrapped.len() < WRAP_OVERHEAD_BYTES {
        return Err(OpenError::TooShort { length: wrapped.len(), minimum: WRAP_OVERHEAD_BYTES });
    }
    let (check, sealed) = wrapped.split_at(CHECK_BYTES);
    let expected = kek.check_value();
    if !constant_time_eq(check, &expected) {
        return Err(OpenError::WrongKey);
    }
    xaes::open(kek, &bound(&expected, aad), sealed).map(Zeroizing::new)
}

fn wrap_with_nonce(kek: &Key, nonce: &[u8; NONCE_BYTES], aad: &[u8], secret: &[u8]) -> Vec<u8> {
    let check = kek.check_value();
    let sealed = xaes::seal_with_nonce(kek, nonce, &bound(&check, aad), secret);
    [check.as_slice(), &sealed].concat()
}

fn bound(check: &[u8; CHECK_BYTES], aad: &[u8]) -> Vec<u8> {
    Aad::new("wrapped-key 1").bytes(check).bytes(aad).finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hex;

    /// Made with Python's `cryptography`: XAES from the specification's text, HKDF for the check value.
    #[test]
    fn format_is_golden() {
        let kek = Key::from_bytes([1; 32]);
        let wrapped = wrap_with_nonce(&kek, &[2; 24], b"tenant", &[3; 32]);
        assert_eq!(
            hex(&wrapped),
            concat!(
                "33feab3f131ad2fa687fa99721f9d4890202020202020202020202020202020202020202020202025bcb1700a9e773cb",
                "4f77ca1e937b609c40794a2d395443b4058e65b67ee62f3907303c613337f1c944c913e670ef7aa4",
            )
        );
        assert_eq!(unwrap_key(&kek, b"tenant", &wrapped).unwrap().expose(), &[3; 32]);
    }

    #[test]
    fn every_flipped_byte_and_every_length_is_refused() {
        let kek = Key::random();
        let mut wrapped = wrap_key(&kek, b"a", &Key::random());
        assert_eq!(wrapped.len(), WRAPPED_KEY_BYTES);
        for position in 0..wrapped.len() {
            wrapped[position] ^= 0x40;
            assert!(unwrap_key(&kek, b"a", &wrapped).is_err(), "byte {position}");
            wrapped[position] ^= 0x40;
            assert!(unwrap_key(&kek, b"a", &wrapped[..position]).is_err(), "{position} bytes");
        }
        assert!(unwrap_key(&kek, b"a", &wrapped).is_ok());
        assert_eq!(unwrap_key(&kek, b"b", &wrapped).unwrap_err(), OpenError::NotAuthentic);
        assert_eq!(unwrap_key(&Key::random(), b"a", &wrapped).unwrap_err(), OpenError::WrongKey);
    }

    #[test]
    fn secrets_of_any_length_are_wrapped_alike() {
        let kek = Key::random();
        for length in [0, 1, 32, 300] {
            let secret = vec![7; length];
            let wrapped = wrap_secret(&kek, b"a", &secret);
            assert_eq!(unwrap_secret(&kek, b"a", &wrapped).unwrap().as_slice(), secret);
            assert_eq!(unwrap_secret(&Key::random(), b"a", &wrapped).unwrap_err(), OpenError::WrongKey);
        }
        let key = Key::random();
        let wrapped = wrap_key(&kek, b"a", &key);
        assert_eq!(unwrap_secret(&kek, b"a", &wrapped).unwrap().as_slice(), key.expose());
    }
}
