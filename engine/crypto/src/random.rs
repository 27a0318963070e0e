//! Randomness from the operating system, for keys, nonces, salts and tokens.
//!
//! `SysRng` has no state in our process, so a fork or a resumed VM snapshot cannot repeat what it gave: a
//! user-space generator could, and a repeated nonce under GCM reveals plaintext.

use rand::{TryRng, rngs::SysRng};

/// `N` fresh random bytes.
///
/// # Panics
/// When the operating system gives none. No safe way on exists: every key and nonce would be guessable.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SysRng.try_fill_bytes(&mut bytes).expect("the operating system's random generator answers");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_differ_and_fill_every_byte() {
        let mut seen = [0u8; 64];
        for _ in 0..16 {
            let bytes: [u8; 64] = random_bytes();
            seen.iter_mut().zip(bytes).for_each(|(seen, byte)| *seen |= byte);
        }
        assert!(seen.iter().all(|byte| *byte != 0), "a byte stayed zero through 16 draws");
        assert_ne!(random_bytes::<32>(), random_bytes::<32>());
    }
}
