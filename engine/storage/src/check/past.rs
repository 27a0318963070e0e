//! What only older manifests name.
//!
//! They are history, which ends in time, or named snapshots, which do not. One of which some file is damaged is told
//! as a whole, too: a repair gives it up, unless it has a name. Then what is left of it may still be wanted. A
//! damaged index spoils no past: it is searched exactly.

use super::{Damage, Examination, Finding, Severity, manifests::Manifests};
use crate::{manifest::Manifest, paths::show};

impl Examination<'_> {
    pub(super) fn past(&mut self, manifests: &Manifests) {
        let Some(newest) = &manifests.newest else { return };
        for named in newest.snapshots.iter().filter(|named| !manifests.present.contains(&named.manifest)) {
            let file = show(&self.context.paths.manifest(named.manifest));
            let consequence = format!("snapshot \"{}\" cannot be read", named.name);
            let mut finding =
                Finding::new(Severity::Error, file, "the file is missing".to_owned(), &consequence);
            finding.damage = Some(Damage::PastManifest { number: named.manifest });
            self.found(finding);
        }
        for older in &manifests.older {
            let sound = self.data(older, Some(older.lsn));
            if without_indexes(sound.manifest) != without_indexes(older.clone()) {
                self.spoilt(older, newest);
            }
        }
    }

    fn spoilt(&mut self, older: &Manifest, newest: &Manifest) {
        let file = show(&self.context.paths.manifest(older.number));
        let names: Vec<String> = newest
            .snapshots
            .iter()
            .filter(|named| named.manifest == older.number)
            .map(|named| format!("\"{}\"", named.name))
            .collect();
        let (consequence, damage) = if names.is_empty() {
            let consequence = format!("the past as of commit {} cannot be read whole", older.lsn);
            (consequence, Some(Damage::PastManifest { number: older.number }))
        } else {
            (format!("snapshot {} cannot be read whole", names.join(", ")), None)
        };
        let what = "some of what it names is damaged".to_owned();
        let mut finding = Finding::new(Severity::Error, file, what, &consequence);
        finding.damage = damage;
        self.found(finding);
    }
}

/// What has to be there for its rows to be read.
fn without_indexes(mut manifest: Manifest) -> Manifest {
    for segment in manifest.tables.iter_mut().flat_map(|table| &mut table.segments) {
        segment.indexes.clear();
    }
    manifest
}
