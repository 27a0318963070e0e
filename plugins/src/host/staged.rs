//! A sink's state while a call runs: what was committed, and on top of it what the guest changed.
//!
//! Changes go back with the reply, and only if the call succeeds; they are committed with the position.

use std::collections::BTreeMap;

/// Keys of a guest are words.
const MAX_KEY_BYTES: usize = 256;
/// What an entry costs besides its bytes.
const ENTRY_BYTES: usize = 32;

/// The quota is used up, or the key is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OverQuota;

#[derive(Debug, Default)]
pub(super) struct StagedState {
    entries: BTreeMap<String, Vec<u8>>,
    /// By key, last change only.
    changes: BTreeMap<String, Option<Vec<u8>>>,
    quota_bytes: usize,
}

impl StagedState {
    pub(super) fn new(entries: BTreeMap<String, Vec<u8>>, quota_bytes: u32) -> Self {
        Self { entries, changes: BTreeMap::new(), quota_bytes: quota_bytes as usize }
    }

    pub(super) fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.entries.get(key).cloned()
    }

    pub(super) fn set(&mut self, key: String, value: Vec<u8>) -> Result<(), OverQuota> {
        let others = self.entries.iter().filter(|(other, _)| **other != key);
        let used: usize = others.map(|(key, value)| cost(key, value)).sum();
        if key.len() > MAX_KEY_BYTES || used + cost(&key, &value) > self.quota_bytes {
            return Err(OverQuota);
        }
        self.changes.insert(key.clone(), Some(value.clone()));
        self.entries.insert(key, value);
        Ok(())
    }

    pub(super) fn delete(&mut self, key: String) {
        if self.entries.remove(&key).is_some() {
            self.changes.insert(key, None);
        }
    }

    /// What the call changed; the rest stays.
    pub(super) fn take_changes(&mut self) -> Vec<(String, Option<Vec<u8>>)> {
        std::mem::take(&mut self.changes).into_iter().collect()
    }
}

fn cost(key: &str, value: &[u8]) -> usize {
    key.len() + value.len() + ENTRY_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_lie_on_top_and_count() {
        let mut state = StagedState::new(BTreeMap::from([("a".to_owned(), vec![1; 50])]), 200);
        assert_eq!(state.get("a").unwrap(), [1; 50]);
        state.set("b".to_owned(), vec![2; 60]).unwrap();
        assert_eq!(state.set("c".to_owned(), vec![3; 50]), Err(OverQuota));
        state.set("b".to_owned(), vec![4; 80]).unwrap();
        state.delete("a".to_owned());
        state.delete("never".to_owned());
        state.set("c".to_owned(), vec![3; 50]).unwrap();
        assert_eq!(state.get("a"), None);
        let changes = state.take_changes();
        assert_eq!(
            changes,
            [
                ("a".to_owned(), None),
                ("b".to_owned(), Some(vec![4; 80])),
                ("c".to_owned(), Some(vec![3; 50]))
            ]
        );
        assert!(state.take_changes().is_empty());
        assert_eq!(state.get("c").unwrap(), [3; 50]);
        assert_eq!(state.set("k".repeat(300), vec![]), Err(OverQuota));
    }
}
