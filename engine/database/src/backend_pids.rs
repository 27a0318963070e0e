//! The numbers of sessions: what BackendKeyData carries and `pg_backend_pid()` returns.
//!
//! Drawn at random, as a counter would tell every tenant how often the others log in. `Database` hands one to each
//! session, which gives it back when it ends. A number is no secret: a cancel request needs another one besides.

use std::{collections::HashSet, sync::Arc};

use parking_lot::Mutex;
use sepal_crypto::random_bytes;

/// The numbers in use.
#[derive(Debug, Default)]
pub struct BackendPids(Mutex<HashSet<i32>>);

/// One session's number, taken for as long as this lives.
#[derive(Debug)]
pub struct BackendPid {
    number: i32,
    taken: Arc<BackendPids>,
}

impl BackendPids {
    /// A positive number that no other session has.
    pub fn take(self: &Arc<Self>) -> BackendPid {
        let mut taken = self.0.lock();
        loop {
            // There are two billion and at most some thousand sessions: the first one nearly always does.
            let number = i32::from_le_bytes(random_bytes()) & i32::MAX;
            if number > 0 && taken.insert(number) {
                return BackendPid { number, taken: Arc::clone(self) };
            }
        }
    }
}

impl BackendPid {
    pub fn number(&self) -> i32 {
        self.number
    }
}

impl Drop for BackendPid {
    fn drop(&mut self) {
        self.taken.0.lock().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_positive_unused_and_given_back() {
        let pids = Arc::new(BackendPids::default());
        let held: Vec<BackendPid> = (0..1_000).map(|_| pids.take()).collect();
        let different: HashSet<i32> = held.iter().map(BackendPid::number).collect();
        assert_eq!(different.len(), held.len());
        assert!(different.iter().all(|number| *number > 0));
        assert!(different.iter().any(|number| *number > 1_000_000), "they do not count logins");
        drop(held);
        assert!(pids.0.lock().is_empty());
    }
}
