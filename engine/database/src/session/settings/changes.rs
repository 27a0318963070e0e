//! What a transaction has set: to be undone by its rollback or by one to a savepoint, and as far as it is LOCAL by its
//! commit.
//!
//! Kept by `settings`, which holds the values. As in Postgres what the last SET said is what a commit leaves, also
//! where a SET LOCAL came before or after it.

use std::collections::HashMap;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// There is a transaction.
    open: bool,
    /// What SET LOCAL hides: it comes back with the commit.
    hidden: HashMap<String, Option<String>>,
    /// In order.
    made: Vec<Change>,
}

/// A setting as it was before a change.
#[derive(Debug)]
struct Change {
    key: String,
    value: Option<String>,
    /// What [`Changes::hidden`] had of it.
    hidden: Option<Option<String>>,
}

impl Changes {
    pub fn begin(&mut self) {
        self.open = true;
    }

    /// Notes the value that a setting had until now. Whether it may have another: SET LOCAL outside of a transaction
    /// has no effect.
    pub fn note(&mut self, key: &str, value: Option<String>, local: bool) -> bool {
        if !self.open {
            return !local;
        }
        let hidden = self.hidden.get(key).cloned();
        if !local {
            self.hidden.remove(key);
        } else if hidden.is_none() {
            self.hidden.insert(key.to_owned(), value.clone());
        }
        self.made.push(Change { key: key.to_owned(), value, hidden });
        true
    }

    /// What is set from now on can be taken back by itself.
    pub fn mark(&self) -> usize {
        self.made.len()
    }

    /// Takes the last change since `mark` back: the setting, and the value that it had.
    pub fn take_back(&mut self, mark: usize) -> Option<(String, Option<String>)> {
        if self.made.len() <= mark {
            return None;
        }
        let Change { key, value, hidden } = self.made.pop()?;
        match hidden {
            Some(hidden) => self.hidden.insert(key.clone(), hidden),
            None => self.hidden.remove(&key),
        };
        Some((key, value))
    }

    /// The transaction is over. What its SET LOCAL has hidden.
    pub fn end(&mut self) -> HashMap<String, Option<String>> {
        self.open = false;
        self.made.clear();
        std::mem::take(&mut self.hidden)
    }
}
