//! The search path of a session, numbered: plans are made for one, and kept by its number.
//!
//! Kept by `settings`, which reads it when the setting changes.

use std::collections::HashMap;

use sepal_types::SearchPath;

/// Paths whose numbers are known. A session that takes turns between a few finds their plans again.
const MOST_KNOWN: usize = 64;

/// The path that counts, and what its number is.
#[derive(Debug, Default)]
pub(super) struct Searched {
    path: SearchPath,
    edition: u64,
    known: HashMap<SearchPath, u64>,
    /// The last number that was given.
    last: u64,
}

impl Searched {
    pub fn path(&self) -> &SearchPath {
        &self.path
    }

    pub fn edition(&self) -> u64 {
        self.edition
    }

    pub fn set(&mut self, path: SearchPath) {
        if let Some(edition) = self.known.get(&path) {
            self.edition = *edition;
        } else {
            if self.known.len() >= MOST_KNOWN {
                self.known.clear();
            }
            self.last += 1;
            self.edition = self.last;
            self.known.insert(path.clone(), self.edition);
        }
        self.path = path;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_a_number_of_its_own() {
        let path = |text: &str| SearchPath::parse(text, "me").unwrap();
        let mut searched = Searched::default();
        let mut numbers = Vec::new();
        for text in ["a", "b", "a", "\"$user\""] {
            searched.set(path(text));
            assert_eq!(searched.path(), &path(text));
            numbers.push(searched.edition());
        }
        assert_eq!(numbers, [1, 2, 1, 3]);
        for number in 0..200 {
            searched.set(path(&format!("s{number}")));
        }
        let last = searched.edition();
        searched.set(path("a"));
        assert_eq!((last, searched.edition()), (203, 204), "forgotten, and never given to another");
    }
}
