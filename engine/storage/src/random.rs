//! Where the names of new data files come from, so that a simulation's seed gives the same names again.
//!
//! Keys, nonces and salts do not come from here: those are always the operating system's.

use sepal_crypto::random_bytes;

/// Gives random bytes. Handed to a store in its options.
pub trait Random: Send + Sync {
    /// Never the same 16 bytes twice: they name files.
    fn bytes(&self) -> [u8; 16];
}

/// The operating system's generator.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    fn bytes(&self) -> [u8; 16] {
        random_bytes()
    }
}
