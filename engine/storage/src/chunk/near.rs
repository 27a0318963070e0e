//! What was found in a cache that many share, kept beside it: found again without asking the cache, whose lock
//! everybody wants.
//!
//! It holds nothing: what has left the cache is gone here too, once nobody reads it. And what is found here did not
//! need the cache's notice: the cache tells time in what was put in ([`super::FairCache`]), an entry counts only as long
//! as nothing was put in since the cache gave it, and so long a second question would change nothing but the order among
//! a tenant's entries that were asked for in between.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Weak},
};

use parking_lot::RwLock;

/// Entries by `K`. `now` is always the cache's count of changes, read before the cache is asked.
pub struct Near<K, V: ?Sized> {
    found: RwLock<HashMap<K, Found<V>>>,
}

struct Found<V: ?Sized> {
    value: Weak<V>,
    /// The count of changes when the cache gave it.
    at: u64,
}

impl<K: Hash + Eq, V: ?Sized> Near<K, V> {
    /// `None`: ask the cache.
    pub fn get(&self, key: &K, now: u64) -> Option<Arc<V>> {
        let found = self.found.read();
        let found = found.get(key).filter(|found| found.at == now)?;
        found.value.upgrade()
    }

    /// Keeps what the cache gave.
    pub fn keep(&self, key: K, value: &Arc<V>, now: u64) {
        let mut found = self.found.write();
        if found.len() == found.capacity() {
            found.retain(|_, found| found.value.strong_count() > 0);
        }
        found.insert(key, Found { value: Arc::downgrade(value), at: now });
    }
}

impl<K, V: ?Sized> Default for Near<K, V> {
    fn default() -> Self {
        Self { found: RwLock::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_gives_what_still_is_and_only_while_the_cache_stands_still() {
        let near = Near::<u32, str>::default();
        let value: Arc<str> = "a".into();
        near.keep(1, &value, 5);
        assert_eq!(near.get(&1, 5).as_deref(), Some("a"));
        assert_eq!(near.get(&1, 6), None, "something was put in: the cache is to know that it is wanted");
        assert_eq!(near.get(&2, 5), None);
        near.keep(1, &value, 6);
        assert_eq!(near.get(&1, 6).as_deref(), Some("a"));
        drop(value);
        assert_eq!(near.get(&1, 6), None, "it holds nothing");
    }

    #[test]
    fn what_is_gone_makes_room() {
        let near = Near::<u32, u32>::default();
        let stays = Arc::new(0);
        near.keep(0, &stays, 0);
        for key in 1..10_000 {
            near.keep(key, &Arc::new(key), 0);
        }
        assert!(near.found.read().capacity() < 100);
        assert_eq!(near.get(&0, 0).as_deref(), Some(&0));
    }
}
