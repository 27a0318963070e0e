//! What resolvers answered, for as long as it holds.
//!
//! One entry per secret of a tenant. Whoever finds nothing asks, and everybody else waits for that one answer. From
//! half of its time to live on an answer is asked for again beside its use; when that fails it serves on, beyond its
//! time too, until `max_stale`.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use sepal_crypto::Key;

use super::asker::Asker;
use crate::connector::SecretValue;

/// After a failure the next try waits so long, or a tenth of the time to live if that is less.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// One tenant's answers.
pub struct Cache {
    /// By environment and secret.
    entries: Mutex<HashMap<(String, String), Arc<Entry>>>,
    fingerprints: Key,
    changes: AtomicU64,
}

impl Default for Cache {
    fn default() -> Self {
        Self { entries: Mutex::default(), fingerprints: Key::random(), changes: AtomicU64::default() }
    }
}

impl Cache {
    pub fn entry(&self, environment: &str, name: &str) -> Arc<Entry> {
        let mut entries = self.entries.lock();
        Arc::clone(entries.entry((environment.to_owned(), name.to_owned())).or_default())
    }

    /// Forgets an answer; gives what has to be given back to its resolver.
    pub fn forget(&self, environment: &str, name: &str) -> Option<Lease> {
        let entry = self.entries.lock().remove(&(environment.to_owned(), name.to_owned()))?;
        let answer = entry.answer.lock().take()?;
        Some(Lease { resolver: answer.held.asker.resolver.clone(), id: answer.lease? })
    }

    /// A statement has changed secrets or who may use them, perhaps. Called once that is committed.
    pub fn outdate(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    /// How often that was.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    pub(super) fn fingerprints(&self) -> &Key {
        &self.fingerprints
    }
}

/// A dynamic secret that its resolver can take back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    pub resolver: String,
    pub id: String,
}

/// One secret.
#[derive(Default)]
pub struct Entry {
    answer: Mutex<Option<Answer>>,
    /// Held by whoever asks the resolver.
    pub flight: Arc<tokio::sync::Mutex<()>>,
}

/// A value, and who asked for it.
#[derive(Clone)]
pub struct Held {
    pub value: SecretValue,
    pub asker: Arc<Asker>,
}

/// What a resolver answered.
#[derive(Clone)]
pub struct Answer {
    pub held: Held,
    /// The resolver's own name for the version, to ask whether it has changed.
    pub version: Option<String>,
    pub lease: Option<String>,
    /// What the secret's definition said: an answer to another question does not count.
    pub definition: String,
    pub asked: Instant,
    pub ttl: Duration,
    /// No refresh before.
    pub not_before: Instant,
}

/// How an answer stands at a moment.
pub enum Standing {
    /// To be used as it is.
    Fresh(Held),
    /// To be used, and asked for again meanwhile.
    Due(Held),
    /// Too old, or not there.
    Gone,
}

impl Entry {
    pub fn standing(&self, definition: &str, now: Instant) -> Standing {
        let held = self.answer.lock();
        let Some(answer) = held.as_ref().filter(|answer| answer.definition == definition) else {
            return Standing::Gone;
        };
        let age = now.saturating_duration_since(answer.asked);
        if age >= answer.ttl {
            Standing::Gone
        } else if age >= answer.ttl / 2 && now >= answer.not_before {
            Standing::Due(answer.held.clone())
        } else {
            Standing::Fresh(answer.held.clone())
        }
    }

    /// The resolver's version of the answer to this question.
    pub fn version(&self, definition: &str) -> Option<String> {
        let held = self.answer.lock();
        held.as_ref().filter(|answer| answer.definition == definition)?.version.clone()
    }

    pub fn set(&self, answer: Answer) {
        *self.answer.lock() = Some(answer);
    }

    /// The value is still the same: it holds for another time. `None` when there is none any more.
    pub fn renew(&self, definition: &str, now: Instant, ttl: Duration) -> Option<Held> {
        let mut held = self.answer.lock();
        let answer = held.as_mut().filter(|answer| answer.definition == definition)?;
        (answer.asked, answer.ttl, answer.not_before) = (now, ttl, now);
        Some(answer.held.clone())
    }

    /// The resolver failed: the old value, if it may serve on.
    pub fn serve_stale(&self, definition: &str, now: Instant, max_stale: Duration) -> Option<Held> {
        let mut held = self.answer.lock();
        let answer = held.as_mut().filter(|answer| answer.definition == definition)?;
        answer.not_before = now + (answer.ttl / 10).min(LONGEST_PAUSE);
        let age = now.saturating_duration_since(answer.asked);
        (age <= answer.ttl.saturating_add(max_stale)).then(|| answer.held.clone())
    }

    /// The resolver says that there is no such secret, or may not ask for it any more.
    pub fn clear(&self) {
        *self.answer.lock() = None;
    }
}
