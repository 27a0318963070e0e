//! What lies in the directory and is named by nothing.

use std::{collections::BTreeSet, path::Path};

use sepal_types::FileId;

use super::{Examination, Finding, Severity, manifests::Manifests};
use crate::paths::{DataKind, data_file, number, show};

const UNUSED: &str = "none: the next start removes it";

impl Examination<'_> {
    pub(super) fn names(&mut self, manifests: &Manifests) {
        let paths = self.context.paths.clone();
        for name in self.list(paths.root()) {
            if !["manifest", "wal", "segments"].contains(&name.as_str()) {
                self.unknown(&paths.root().join(name));
            }
        }
        for (directory, extension) in [(paths.manifests(), "manifest"), (paths.wal(), "wal")] {
            for name in self.list(&directory) {
                if number(&name, "tmp").is_some() {
                    self.unused(&directory.join(name), "it was never finished");
                } else if number(&name, extension).is_none() {
                    self.unknown(&directory.join(name));
                }
            }
        }
        let named: BTreeSet<(DataKind, FileId)> =
            manifests.newest.iter().chain(&manifests.older).flat_map(|manifest| manifest.files()).collect();
        for name in self.list(&paths.segments()) {
            match data_file(&name) {
                None => self.unknown(&paths.segments().join(name)),
                Some(file) if !named.contains(&file) && manifests.complete => {
                    self.unused(&paths.segments().join(name), "no manifest names it");
                }
                Some(_) => {}
            }
        }
    }

    /// What is missing was told by whoever needed something in it.
    fn list(&self, directory: &Path) -> Vec<String> {
        self.context.disk.list(directory).unwrap_or_default()
    }

    fn unused(&mut self, path: &Path, what: &str) {
        self.found(Finding::new(Severity::Warning, show(path), what.to_owned(), UNUSED));
    }

    fn unknown(&mut self, path: &Path) {
        let what = "no file of a tenant is called so".to_owned();
        self.found(Finding::new(Severity::Warning, show(path), what, "none: nobody reads it"));
    }
}
