//! A tenant's keys: the one that new things are sealed under, and those it replaced.
//!
//! `control` gives it, `storage` wraps and unwraps file keys with it. A wrapped key says by its check value which key of
//! the ring it was wrapped under, so a rotation need not touch every file at once. Never stored.

use crate::{Key, OpenError, ResidentKey, unwrap_key, wrap_key};

/// One key, and its predecessors until nothing is sealed under them any more.
#[derive(Clone, Debug)]
pub struct KeyRing {
    current: ResidentKey,
    /// The current key's check value, with which everything that it wrapped begins.
    check: [u8; 16],
    /// Newest first.
    older: Vec<ResidentKey>,
}

impl KeyRing {
    /// `older`: newest first.
    pub fn new(current: Key, older: Vec<Key>) -> Self {
        let check = current.check_value();
        Self { current: current.into(), check, older: older.into_iter().map(ResidentKey::from).collect() }
    }

    /// What new things are sealed under.
    pub fn current(&self) -> &Key {
        &self.current
    }

    /// Every key, newest first.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        std::iter::once(&self.current).chain(&self.older).map(|key| &**key)
    }

    /// Whether there are keys besides the current one.
    pub fn has_older(&self) -> bool {
        !self.older.is_empty()
    }

    /// Whether `key` is one of them.
    pub fn holds(&self, key: &Key) -> bool {
        let check = key.check_value();
        self.keys().any(|known| known.check_value() == check)
    }

    /// The current key alone.
    #[must_use]
    pub fn without_older(&self) -> Self {
        Self { current: self.current.clone(), check: self.check, older: Vec::new() }
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

    /// Whether something says that it was wrapped under the current key, and so needs no rotation. Opens nothing.
    pub fn is_current(&self, wrapped: &[u8]) -> bool {
        wrapped.starts_with(&self.check)
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
        assert!(!ring.is_current(&wrapped));
        let again = ring.wrap(b"file", &file);
        assert!(ring.is_current(&again));
        assert!(ring.holds(before.current()) && !before.holds(ring.current()));
        let alone = ring.without_older();
        assert!(ring.has_older() && !alone.has_older());
        assert_eq!(alone.unwrap(b"file", &wrapped).unwrap_err(), OpenError::WrongKey);
        assert!(alone.is_current(&again));
        assert_eq!(before.unwrap(b"file", &again).unwrap_err(), OpenError::WrongKey);
        assert_eq!(ring.unwrap(b"other", &wrapped).unwrap_err(), OpenError::NotAuthentic);
    }
}
