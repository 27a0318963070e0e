//! The manifests: which there are, whether each opens and follows the one before.

use std::collections::BTreeSet;

use super::{Damage, DataFiles, Examination, Finding, Named, Severity};
use crate::{
    StoreError,
    manifest::{self, Manifest},
    paths::show,
    store::open::Context,
};

/// The manifests that open.
#[derive(Default)]
pub(crate) struct Manifests {
    /// The one with the highest number of all; `None` when that one does not open.
    pub newest: Option<Manifest>,
    /// Those that keep the past, by number.
    pub older: Vec<Manifest>,
    /// The numbers of all, opening or not.
    pub present: BTreeSet<u64>,
    /// Whether every manifest opened: only then is it known which files are named.
    pub complete: bool,
}

impl Manifests {
    /// Which files the past and the log need.
    pub(super) fn named(&self, in_log: DataFiles) -> Named {
        let mut past: Vec<(u64, DataFiles)> =
            self.older.iter().map(|older| (older.number, older.files().into_keys().collect())).collect();
        // A snapshot that was just named is the newest manifest, and stays when another one follows.
        let newest = self.newest.iter();
        let itself = newest.filter(|newest| newest.snapshots.iter().any(|at| at.manifest == newest.number));
        past.extend(itself.map(|newest| (newest.number, newest.files().into_keys().collect())));
        Named { past, in_log }
    }

    /// Drops those that the next start removes: a later one shows the same commit and they have no name, or a program
    /// without history left them behind.
    fn only_past(&mut self) {
        let Some(newest) = &self.newest else { return };
        let named: BTreeSet<u64> = newest.snapshots.iter().map(|named| named.manifest).collect();
        let later: Vec<_> = self.older.iter().skip(1).map(|older| older.lsn).chain([newest.lsn]).collect();
        let mut later = later.into_iter();
        self.older.retain(|older| {
            let superseded = later.next() == Some(older.lsn);
            named.contains(&older.number) || (older.time_us > 0 && !superseded)
        });
    }
}

impl Examination<'_> {
    pub(super) fn manifests(&mut self) -> Manifests {
        let directory = self.context.paths.manifests();
        let numbers = match manifest::numbers(&self.context.disk, &self.context.paths) {
            Ok(numbers) => numbers,
            Err(error) => {
                self.failed(&error, "the tenant does not open", None);
                return Manifests::default();
            }
        };
        let Some(highest) = numbers.last().copied() else {
            let error = StoreError::corrupt(&show(&directory), "no manifest is there");
            self.failed(&error, "the tenant does not open", None);
            return Manifests::default();
        };
        let mut found = Manifests { complete: true, present: numbers.clone(), ..Manifests::default() };
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
            before = Some((number, manifest.committed_as(&hash).to_owned()));
            if number == highest {
                found.newest = Some(manifest);
            } else {
                found.older.push(manifest);
            }
        }
        found.only_past();
        found
    }

    fn manifest(&mut self, number: u64, newest: bool) -> Option<(Manifest, String)> {
        let Context { paths, disk, tenant, keys, .. } = &*self.context;
        match manifest::read(disk, paths, *tenant, keys, number) {
            Ok(read) => {
                let bytes = disk.length(&paths.manifest(number)).unwrap_or(0);
                self.read(bytes);
                Some(read)
            }
            Err(error) if newest => {
                self.failed(&error, "the tenant does not open", Some(Damage::Manifest { number }));
                None
            }
            Err(error) => {
                let consequence = "the past that it keeps cannot be asked for, and as long as it is there no data \
                                   file of any past is removed";
                self.failed(&error, consequence, Some(Damage::PastManifest { number }));
                None
            }
        }
    }
}
