//! A tenant's keys: the one that new things are sealed under, and those it replaced.
//!
//! `control` gives it, `storage` wraps and unwraps file keys with it. A wrapped key says by its check value which key of
//! the ring it was wrapped under, so a rotation need not touch every file at once. Never stored.

use crate::{Key, OpenError, ResidentKey, unwrap_key, wrap_key};

/// One key, and its predecessors until nothing is sealed under them any more.
#[derive(Clone, Debug)]
pub struct KeyRing {
    current: ResidentKey,
    /// Newest first.
    older: Vec<ResidentKey>,
}

impl KeyRing {
    /// `older`: newest first.
    pub fn new(current: Key, older: Vec<Key>) -> Self {
        Self { current: current.into(), older: older.into_iter().map(ResidentKey::from).collect() }
    }

    /// What new things are sealed under.
    pub fn current(&self) -> &Key {
        &self.current
    }

    /// Every key, newest first.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        std::iter::once(&self.current).chain(&self.older).map(|key| &**key)
    }

    /// Seals `key` under the current key. See [`wrap_key`].
    pub fn wrap(&self, aad: &[u8], key: &Key) -> Vec<u8> {
        wrap_key(&self.current, aad, key)
    }

    /// Opens what any of the keys wrapped.
    ///
    /// Errors: [`OpenError::WrongKey`] when none of them did.
    pub fn unwrap(&self, aad: &[u8], wrapped: &[u8]) -> Result<Key, OpenError> {
        let mut outcome = Err(OpenError::WrongKey);
        for key in self.keys() {
            outcome = unwrap_key(key, aad, wrapped);
            if !matches!(outcome, Err(OpenError::WrongKey)) {
                break;
            }
        }
        outcome
    }

    /// Whether something was wrapped under the current key, and needs no rotation.
    pub fn is_current(&self, aad: &[u8], wrapped: &[u8]) -> bool {
        !matches!(unwrap_key(&self.current, aad, wrapped), Err(OpenError::WrongKey))
    }
}

impl From<Key> for KeyRing {
    fn from(key: Key) -> Self {
        Self::new(key, Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotated_ring_opens_what_either_key_wrapped() {
        let (old, new, file) = (Key::random(), Key::random(), Key::random());
        let before = KeyRing::from(old.clone());
        let wrapped = before.wrap(b"file", &file);
        let ring = KeyRing::new(new, vec![old]);
        assert_eq!(ring.unwrap(b"file", &wrapped).unwrap().expose(), file.expose());
        assert!(!ring.is_current(b"file", &wrapped));
        let again = ring.wrap(b"file", &file);
        assert!(ring.is_current(b"file", &again));
        assert_eq!(before.unwrap(b"file", &again).unwrap_err(), OpenError::WrongKey);
        assert_eq!(ring.unwrap(b"other", &wrapped).unwrap_err(), OpenError::NotAuthentic);
    }
}
