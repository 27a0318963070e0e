//! A key from a passphrase: Argon2id (RFC 9106).
//!
//! Only where a person must remember the secret: it is the root key's wrapping, nothing else. The salt and the cost are
//! stored beside what the key wraps.

use std::fmt;

use argon2::{Algorithm, Argon2, Params, Version};
use zeroize::Zeroizing;

use crate::Key;

/// What guessing costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassphraseCost {
    pub memory_kib: u32,
    pub passes: u32,
    pub lanes: u32,
}

/// Bytes of the salt.
pub const SALT_BYTES: usize = 16;

/// The most that a stored cost may ask for, in KiB: a damaged file must not take all of a machine's memory.
const MAX_MEMORY_KIB: u32 = 4 << 20;
const MAX_PASSES: u32 = 100;
const MAX_LANES: u32 = 64;

/// A cost that Argon2 does not know or that no machine should pay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadCost(pub PassphraseCost);

impl fmt::Display for BadCost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PassphraseCost { memory_kib, passes, lanes } = self.0;
        write!(
            f,
            "{memory_kib} KiB, {passes} passes and {lanes} lanes are no cost of Argon2id: between 8 KiB a lane and \
             {MAX_MEMORY_KIB} KiB, 1 to {MAX_PASSES} passes, 1 to {MAX_LANES} lanes"
        )
    }
}

impl std::error::Error for BadCost {}

impl PassphraseCost {
    /// RFC 9106's second recommended option: 64 MiB, 3 passes, 4 lanes. About a quarter of a second.
    pub const RECOMMENDED: Self = Self { memory_kib: 64 << 10, passes: 3, lanes: 4 };
}

/// The key of a passphrase. Blocks for as long as the cost says.
pub fn passphrase_key(
    passphrase: &[u8],
    salt: &[u8; SALT_BYTES],
    cost: PassphraseCost,
) -> Result<Key, BadCost> {
    let PassphraseCost { memory_kib, passes, lanes } = cost;
    if memory_kib > MAX_MEMORY_KIB || passes > MAX_PASSES || lanes > MAX_LANES {
        return Err(BadCost(cost));
    }
    let parameters = Params::new(memory_kib, passes, lanes, Some(32)).map_err(|_| BadCost(cost))?;
    let mut bytes = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, parameters)
        .hash_password_into(passphrase, salt, bytes.as_mut_slice())
        .map_err(|_| BadCost(cost))?;
    Ok(Key::from_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hex;

    const CHEAP: PassphraseCost = PassphraseCost { memory_kib: 64, passes: 1, lanes: 1 };

    /// Made with OpenSSL 3.2's ARGON2ID through Python's `cryptography`.
    #[test]
    fn the_key_is_golden() {
        let cost = PassphraseCost { passes: 2, ..CHEAP };
        let key = passphrase_key(b"correct horse", &[1; 16], cost).unwrap();
        assert_eq!(hex(key.expose()), "c4c22e29e75345c47e1776444e78cc7d39810886422f386f43659a730f9515e3");
    }

    #[test]
    fn every_input_counts() {
        let key =
            |passphrase: &[u8], salt, cost| hex(passphrase_key(passphrase, salt, cost).unwrap().expose());
        let first = key(b"correct horse", &[1; 16], CHEAP);
        assert_eq!(first, key(b"correct horse", &[1; 16], CHEAP));
        assert_ne!(first, key(b"correct horsf", &[1; 16], CHEAP));
        assert_ne!(first, key(b"correct horse", &[2; 16], CHEAP));
        assert_ne!(first, key(b"correct horse", &[1; 16], PassphraseCost { passes: 2, ..CHEAP }));
        assert_ne!(first, key(b"correct horse", &[1; 16], PassphraseCost { memory_kib: 72, ..CHEAP }));
    }

    #[test]
    fn absurd_costs_are_refused() {
        for cost in [
            PassphraseCost { memory_kib: 7, ..CHEAP },
            PassphraseCost { memory_kib: u32::MAX, ..CHEAP },
            PassphraseCost { passes: 0, ..CHEAP },
            PassphraseCost { lanes: 0, ..CHEAP },
            PassphraseCost { lanes: u32::MAX, ..CHEAP },
        ] {
            assert_eq!(passphrase_key(b"x", &[0; 16], cost).unwrap_err(), BadCost(cost));
        }
    }
}
