//! Remembers the outcome of recent token checks, so that a request costs an HMAC and not a database read.
//!
//! `authentication` asks it first. XXH3 of the token picks the slot and nothing else: it is not
//! cryptographic, two tokens may be made to share a slot. The entry's full HMAC decides, in constant time. An
//! entry counts only at the revocation generation it was made at, and for 60 seconds. Refused tokens have
//! their own bounded cache: however many a guesser tries, no valid one is evicted.

use std::{
    num::NonZeroUsize,
    sync::atomic::{AtomicU64, Ordering},
};

use lru::LruCache;
use parking_lot::Mutex;
use sepal_crypto::{constant_time_eq, random_bytes};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::Principal;

/// Longest life of an entry in seconds.
const MAX_AGE_S: i64 = 60;

/// Counters of the key cache. The counts only rise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyCacheStats {
    /// Tokens accepted without reading the database.
    pub hits: u64,
    /// Tokens refused without reading the database.
    pub refused_hits: u64,
    /// Tokens for which the database was read.
    pub misses: u64,
    /// Accepted tokens pushed out by others.
    pub evictions: u64,
    /// Accepted tokens held now.
    pub size: usize,
    /// Refused tokens held now.
    pub refused_size: usize,
}

/// What the cache knows about a token.
pub(crate) enum Remembered {
    Accepted(Principal),
    Refused,
    Nothing,
}

/// What is checked and when: the key of every call.
#[derive(Clone, Copy)]
pub(crate) struct Check<'a> {
    pub(crate) slot: u64,
    pub(crate) mac: &'a [u8; 32],
    pub(crate) generation: u64,
    /// Unix seconds.
    pub(crate) now: i64,
}

/// Picks the slot of a token's bytes; exchanged by tests that need tokens to collide.
type SlotOf = Box<dyn Fn(&[u8]) -> u64 + Send + Sync>;

struct Entry<T> {
    mac: [u8; 32],
    generation: u64,
    from: i64,
    until: i64,
    outcome: T,
}

pub(crate) struct KeyCache {
    accepted: Mutex<LruCache<u64, Entry<Principal>>>,
    refused: Mutex<LruCache<u64, Entry<()>>>,
    slot_of: SlotOf,
    hits: AtomicU64,
    refused_hits: AtomicU64,
    misses: AtomicU64,
    evictions: AtomicU64,
}

impl KeyCache {
    pub(crate) fn new(slots: NonZeroUsize, refused_slots: NonZeroUsize) -> Self {
        // Seeded per process, so that tokens sharing a slot cannot be prepared.
        let seed = u64::from_be_bytes(random_bytes());
        Self::with_slots(slots, refused_slots, Box::new(move |token| xxh3_64_with_seed(token, seed)))
    }

    pub(crate) fn with_slots(slots: NonZeroUsize, refused_slots: NonZeroUsize, slot_of: SlotOf) -> Self {
        Self {
            accepted: Mutex::new(LruCache::new(slots)),
            refused: Mutex::new(LruCache::new(refused_slots)),
            slot_of,
            hits: AtomicU64::new(0),
            refused_hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
        }
    }

    pub(crate) fn slot(&self, token: &str) -> u64 {
        (self.slot_of)(token.as_bytes())
    }

    /// Both caches are always asked, so that the time does not tell which one knew.
    pub(crate) fn look_up(&self, check: Check<'_>) -> Remembered {
        let accepted = self
            .accepted
            .lock()
            .get(&check.slot)
            .and_then(|entry| entry.answers(check).then(|| entry.outcome.clone()));
        let refused = self.refused.lock().get(&check.slot).is_some_and(|entry| entry.answers(check));
        let (counter, remembered) = match accepted {
            Some(principal) => (&self.hits, Remembered::Accepted(principal)),
            None if refused => (&self.refused_hits, Remembered::Refused),
            None => (&self.misses, Remembered::Nothing),
        };
        counter.fetch_add(1, Ordering::Relaxed);
        remembered
    }

    /// Remembers an accepted token for 60 s, or until its key expires.
    pub(crate) fn accept(&self, check: Check<'_>, principal: Principal) {
        let until = principal.lease.expires_at.unwrap_or(i64::MAX);
        let pushed_out = self.accepted.lock().push(check.slot, Entry::new(check, until, principal));
        if pushed_out.is_some_and(|(_, entry)| entry.mac != *check.mac) {
            self.evictions.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn refuse(&self, check: Check<'_>) {
        self.refused.lock().push(check.slot, Entry::new(check, i64::MAX, ()));
    }

    pub(crate) fn stats(&self) -> KeyCacheStats {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        KeyCacheStats {
            hits: count(&self.hits),
            refused_hits: count(&self.refused_hits),
            misses: count(&self.misses),
            evictions: count(&self.evictions),
            size: self.accepted.lock().len(),
            refused_size: self.refused.lock().len(),
        }
    }
}

impl<T> Entry<T> {
    fn new(check: Check<'_>, until: i64, outcome: T) -> Self {
        let until = until.min(check.now.saturating_add(MAX_AGE_S));
        Self { mac: *check.mac, generation: check.generation, from: check.now, until, outcome }
    }

    /// `from` counts too: a clock set back must not lengthen an entry's life.
    fn answers(&self, check: Check<'_>) -> bool {
        let same = constant_time_eq(&self.mac, check.mac);
        same && self.generation == check.generation && (self.from..self.until).contains(&check.now)
    }
}
