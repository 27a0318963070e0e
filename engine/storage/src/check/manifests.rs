//! The manifests: which there are, whether each opens and follows the one before.

use super::{Damage, Examination, Finding, Severity};
use crate::{
    StoreError,
    manifest::{self, Manifest},
    paths::{number, show},
    store::open::Context,
};

/// The manifests that open.
#[derive(Default)]
pub(crate) struct Manifests {
    /// The one with the highest number of all; `None` when that one does not open.
    pub newest: Option<Manifest>,
    /// By number.
    pub older: Vec<Manifest>,
    /// Whether every manifest opened: only then is it known which files are named.
    pub complete: bool,
    /// The highest number, opening or not; 0 when there is none.
    pub highest: u64,
}

impl Examination<'_> {
    pub(super) fn manifests(&mut self) -> Manifests {
        let directory = self.context.paths.manifests();
        let names = match self.context.disk.list(&directory) {
            Ok(names) => names,
            Err(error) => {
                self.failed(&error, "the tenant does not open", None);
                return Manifests::default();
            }
        };
        let mut numbers: Vec<u64> = names.iter().filter_map(|name| number(name, "manifest")).collect();
        numbers.sort_unstable();
        let Some(highest) = numbers.last().copied() else {
            let error = StoreError::corrupt(&show(&directory), "no manifest is there");
            self.failed(&error, "the tenant does not open", None);
            return Manifests::default();
        };
        let mut found = Manifests { complete: true, highest, ..Manifests::default() };
        let mut before: Option<(u64, String)> = None;
        for number in numbers {
            let Some((manifest, hash)) = self.manifest(number, number == highest) else {
                found.complete = false;
                before = None;
                continue;
            };
            if let Some((last, hash)) = &before
                && last + 1 == number
                && manifest.previous != *hash
            {
                let file = show(&self.context.paths.manifest(number));
                let what = format!("it was not made after manifest {last}, which lies beside it");
                let consequence = "one of the two is from another copy of this directory";
                self.found(Finding::new(Severity::Error, file, what, consequence));
            }
            before = Some((number, hash));
            if number == highest {
                found.newest = Some(manifest);
            } else {
                found.older.push(manifest);
            }
        }
        found
    }

    fn manifest(&mut self, number: u64, newest: bool) -> Option<(Manifest, String)> {
        let Context { paths, disk, tenant, keys, .. } = &self.context;
        match manifest::read(disk, paths, *tenant, keys, number) {
            Ok((manifest, hash, bytes)) => {
                self.read(bytes);
                Some((manifest, hash))
            }
            Err(error) if newest => {
                self.failed(&error, "the tenant does not open", Some(Damage::Manifest { number }));
                None
            }
            Err(error) => {
                self.failed(&error, "the past that it keeps cannot be asked for", None);
                None
            }
        }
    }
}
