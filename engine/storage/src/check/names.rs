//! What lies in the directory and is named by nothing.

use std::{collections::BTreeSet, path::Path};

use sepal_types::FileId;

use super::{Examination, Finding, Severity, manifests::Manifests};
use crate::paths::{DataKind, data_file, number, show};

/// Of a store, and of the temporary files of its queries.
const DIRECTORIES: [&str; 4] = ["manifest", "wal", "segments", "spill"];

const UNUSED: &str = "nothing is lost: the next start removes it";

/// Files under `segments/`.
pub(crate) type DataFiles = BTreeSet<(DataKind, FileId)>;

/// What needs files besides the newest manifest.
#[derive(Default)]
pub(crate) struct Named {
    /// Manifests that stay when another one follows, by number.
    pub past: Vec<(u64, DataFiles)>,
    /// Clones in the log.
    pub in_log: DataFiles,
}

impl Examination<'_> {
    pub(super) fn names(&mut self, manifests: &Manifests) {
        let paths = self.context.paths.clone();
        for name in self.list(paths.root()) {
            if !DIRECTORIES.contains(&name.as_str()) {
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
        let mut named: DataFiles = self.in_log.clone();
        for manifest in manifests.newest.iter().chain(&manifests.older) {
            named.extend(manifest.files().into_keys());
            // What the log before it names: whoever reads on through it needs that.
            named.extend(manifest.cloned.iter().map(|cloned| (cloned.kind, cloned.file)));
        }
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
        self.found(Finding::new(Severity::Warning, show(path), what, "nothing is lost: nobody reads it"));
    }
}
