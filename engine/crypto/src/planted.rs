//! A bug for other crates' tests to find: nonces that repeat.
//!
//! Debug builds only, and off until a test turns it on for its own thread: a released program does not contain it. It
//! is here because only this crate chooses nonces, and a feature would build everything above it twice.

use std::cell::Cell;

use crate::xaes::NONCE_BYTES;

thread_local! {
    static REPEATED: Cell<bool> = const { Cell::new(false) };
}

/// From now on [`crate::seal`] uses one nonce for everything that this thread seals. Never call it outside a test.
pub fn repeat_nonces(on: bool) {
    REPEATED.set(on);
}

/// The nonce that repeats, when it does.
pub(crate) fn nonce() -> Option<[u8; NONCE_BYTES]> {
    REPEATED.get().then_some([0x5a; NONCE_BYTES])
}
