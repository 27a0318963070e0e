//! Stored values that were handed out just now: a sink that signs asks for the same ones with every batch.
//!
//! One per [`SecretService`](super::SecretService), so what is here was permitted to this user and recorded as used by
//! it; the same use within the minute is the same record anyway. Whatever a statement changes in secrets or grants
//! ends all of it at once ([`Cache::outdate`](super::Cache::outdate)). What the operator's command changes from
//! another process counts after [`MOMENT`].

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::connector::SecretValue;

/// How long a value is kept.
pub const MOMENT: Duration = Duration::from_secs(1);

/// See the module. A handful: what one definition names.
#[derive(Default)]
pub struct Moment(Mutex<Vec<Kept>>);

struct Kept {
    name: String,
    /// As it was asked for.
    version: Option<u64>,
    value: SecretValue,
    since: Instant,
    /// How often secrets had changed before it was looked up.
    changes: u64,
}

impl Kept {
    fn is(&self, name: &str, version: Option<u64>) -> bool {
        self.name == name && self.version == version
    }
}

impl Moment {
    pub fn get(&self, name: &str, version: Option<u64>, changes: u64, now: Instant) -> Option<SecretValue> {
        let kept = self.0.lock();
        let found = kept.iter().find(|kept| kept.is(name, version))?;
        let holds = found.changes == changes && now.saturating_duration_since(found.since) < MOMENT;
        holds.then(|| found.value.clone())
    }

    /// `changes` was asked for before the value was.
    pub fn put(&self, name: &str, version: Option<u64>, value: SecretValue, changes: u64, since: Instant) {
        let mut kept = self.0.lock();
        kept.retain(|kept| !kept.is(name, version));
        kept.push(Kept { name: name.to_owned(), version, value, since, changes });
    }

    pub fn forget(&self, name: &str) {
        self.0.lock().retain(|kept| kept.name != name);
    }

    /// Wipes what is over.
    pub fn sweep(&self, now: Instant) {
        self.0.lock().retain(|kept| now.saturating_duration_since(kept.since) < MOMENT);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use zeroize::Zeroizing;

    use super::*;

    #[test]
    fn a_value_is_kept_for_a_moment_and_until_something_changes() {
        let (moment, begin) = (Moment::default(), Instant::now());
        let value = Arc::new(Zeroizing::new(b"v".to_vec()));
        let of = |version: &str| SecretValue {
            value: Arc::clone(&value),
            version: version.to_owned(),
            allowed_hosts: None,
        };
        let version = |name: &str, version, changes, now| {
            moment.get(name, version, changes, now).map(|value| value.version)
        };
        moment.put("a", None, of("1"), 7, begin);
        assert_eq!(version("a", None, 7, begin).as_deref(), Some("1"));
        assert_eq!(version("a", Some(1), 7, begin), None, "asked for by its number it is another question");
        assert_eq!(version("b", None, 7, begin), None);
        assert_eq!(version("a", None, 8, begin), None, "something was changed");
        assert_eq!(version("a", None, 7, begin + MOMENT), None, "its time is over");
        moment.put("a", None, of("2"), 8, begin);
        assert_eq!(version("a", None, 8, begin).as_deref(), Some("2"));
        moment.forget("a");
        assert_eq!(version("a", None, 8, begin), None);
        moment.put("a", None, of("2"), 8, begin);
        assert_eq!(Arc::strong_count(&value), 2);
        moment.sweep(begin + MOMENT);
        assert_eq!(Arc::strong_count(&value), 1, "nothing stays behind");
    }
}
