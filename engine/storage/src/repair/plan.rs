//! From what a check finds to what is to be done. Reads only.

use std::{collections::BTreeSet, path::Path};

use sepal_crypto::KeyRing;
use sepal_types::{FileId, TableId, TenantId};

use super::{Cut, Loss, RepairOptions, RepairPlan, RepairRefused, Steps};
use crate::{
    BlobChecker, CheckObserver, Finding, Severity, TenantStore,
    check::{ClonedSegment, Damage, DataFiles, Examination, Named, Sound},
    disk::Disk,
    manifest::{self, FileSizes, Manifest, NamedEntry, SegmentEntry, TableEntry},
    paths::{DataKind, Paths, show},
    store::lost::Lost,
};

/// Keeps what is found, and passes it on.
struct Listener<'a> {
    findings: Vec<Finding>,
    observer: &'a mut dyn CheckObserver,
}

impl CheckObserver for Listener<'_> {
    fn found(&mut self, finding: Finding) {
        self.observer.found(finding.clone());
        self.findings.push(finding);
    }

    fn read(&mut self, bytes: u64) {
        self.observer.read(bytes);
    }
}

/// Passes on how far it is, and no findings: what an older manifest lacks was not asked for.
struct Quiet<'a>(&'a mut dyn CheckObserver);

impl CheckObserver for Quiet<'_> {
    fn found(&mut self, _: Finding) {}

    fn read(&mut self, bytes: u64) {
        self.0.read(bytes);
    }
}

impl TenantStore {
    /// Checks the directory of a store that nobody has open, and says what a repair would do. Changes nothing.
    ///
    /// Errors: what is damaged cannot be left out; the tenant is to be restored from a backup.
    pub fn plan_repair(
        dir: &Path,
        tenant: TenantId,
        keys: impl Into<KeyRing>,
        options: &RepairOptions,
        blobs: &dyn BlobChecker,
        observer: &mut dyn CheckObserver,
    ) -> Result<RepairPlan, RepairRefused> {
        let keys = keys.into();
        let mut listener = Listener { findings: Vec::new(), observer };
        let examination = Examination::new(dir, tenant, keys.clone(), &options.check, blobs, &mut listener);
        let (_, named) = examination.run();
        let Listener { findings, observer } = listener;
        if let Some(unread) = findings.iter().find(|finding| finding.damage == Some(Damage::Unread)) {
            return Err(RepairRefused(format!(
                "{}: {}. Nobody knows what is in it: copy the directory to a device that works, as far as it can be \
                 read, and repair the copy",
                unread.file, unread.what
            )));
        }
        let planner = Planner { dir, tenant, keys, options, blobs };
        let (base, hash, highest, mut losses) = planner.base(&findings, observer)?;
        let mut steps = Steps {
            dir: dir.to_owned(),
            tenant,
            keys: planner.keys.clone(),
            check: options.check.clone(),
            original: base.clone(),
            base: Sound { manifest: base, lost: Lost::default() },
            hash,
            highest,
            given_up: BTreeSet::new(),
            undeleted: BTreeSet::new(),
            data: DataFiles::new(),
            in_log: false,
            manifest: None,
            past: BTreeSet::new(),
            old_logs: Vec::new(),
            cut: None,
        };
        let mut left = Vec::new();
        for finding in findings {
            match steps.take(&finding, options.resurrect_deleted) {
                Some(loss) => losses.push(loss),
                None if finding.severity == Severity::Error && finding.damage.is_none() => left.push(finding),
                None => {}
            }
        }
        losses.extend(planner.unkept_names(&mut steps));
        steps.drop_damaged(&named);
        losses.sort_by_key(Loss::weight);
        Ok(RepairPlan { losses, left, steps })
    }
}

/// Who looks where.
struct Planner<'a> {
    dir: &'a Path,
    tenant: TenantId,
    keys: KeyRing,
    options: &'a RepairOptions,
    blobs: &'a dyn BlobChecker,
}

impl Planner<'_> {
    /// The manifest to go on from, its hash, and the highest number of all.
    fn base(
        &self,
        findings: &[Finding],
        observer: &mut dyn CheckObserver,
    ) -> Result<(Manifest, String, u64, Vec<Loss>), RepairRefused> {
        let (paths, disk) = (Paths::new(self.dir), Disk::on(&self.options.check.files));
        let mut numbers = manifest::numbers(&disk, &paths).unwrap_or_default();
        let Some(highest) = numbers.pop_last() else {
            return Err(RepairRefused("there is no manifest: restore the tenant from a backup".to_owned()));
        };
        let read = |number| manifest::read(&disk, &paths, self.tenant, &self.keys, number);
        let error = match read(highest) {
            Ok((manifest, hash)) => return Ok((manifest, hash, highest, Vec::new())),
            Err(error) => error,
        };
        let damaged = findings.iter().find(|found| matches!(found.damage, Some(Damage::Manifest { .. })));
        let why = damaged.map_or_else(|| error.to_string(), |finding| finding.what.clone());
        let file = show(&paths.manifest(highest));
        for (manifest, hash) in numbers.iter().rev().filter_map(|number| read(*number).ok()) {
            if self.is_whole(&manifest, observer) {
                let snapshots = manifest.snapshots.iter().map(named).collect();
                let loss = Loss::Manifest { file, instead: manifest.number, snapshots, why };
                return Ok((manifest, hash, highest, vec![loss]));
            }
        }
        Err(RepairRefused(format!(
            "{file}: {why}. No older manifest is there of which all files are whole and from which the log reaches to \
             its end: restore the tenant from a backup"
        )))
    }

    /// Whether everything that an older manifest names is sound, and the whole log after it.
    fn is_whole(&self, manifest: &Manifest, observer: &mut dyn CheckObserver) -> bool {
        let mut quiet = Quiet(observer);
        let (check, keys) = (&self.options.check, self.keys.clone());
        let mut examination = Examination::new(self.dir, self.tenant, keys, check, self.blobs, &mut quiet);
        let sound = examination.data(manifest, None);
        if !sound.lost.is_empty() || sound.manifest != *manifest {
            return false;
        }
        let replayed = examination.replayed(&sound);
        replayed.is_ok_and(|(opened, survey)| opened.lost.is_empty() && survey.broken.is_none())
    }

    /// Snapshots that the manifest names and whose own manifests do not open, besides those that were found already.
    fn unkept_names(&self, steps: &mut Steps) -> Vec<Loss> {
        let (paths, disk) = (Paths::new(self.dir), Disk::on(&self.options.check.files));
        let manifest = &steps.original;
        let numbers: BTreeSet<u64> = manifest.snapshots.iter().map(|named| named.manifest).collect();
        let others = numbers.into_iter().filter(|number| *number != manifest.number);
        let unknown: Vec<u64> = others.filter(|number| !steps.past.contains(number)).collect();
        let read = |number| manifest::read(&disk, &paths, self.tenant, &self.keys, number);
        let unread = unknown.into_iter().filter_map(|number| Some((number, read(number).err()?)));
        unread
            .map(|(number, error)| steps.forget(number, show(&paths.manifest(number)), error.to_string()))
            .collect()
    }
}

impl Steps {
    /// What is done about a finding, and what is lost by it.
    fn take(&mut self, finding: &Finding, resurrect: bool) -> Option<Loss> {
        let (file, why) = (finding.file.clone(), finding.what.clone());
        match finding.damage.clone()? {
            Damage::Unread => None,
            Damage::Manifest { number } => {
                self.manifest = Some(number);
                None
            }
            Damage::Segment { table, segment } => {
                self.base.lost.add_file(DataKind::Segment, segment);
                self.give_up(table, segment, file, why)
            }
            Damage::Vector { table, segment } => {
                let (of, entry) = self.entry(table, segment)?;
                let (name, vector) = (of.def.shown_name(), entry.deleted.clone()?);
                if !resurrect {
                    return self.give_up(table, segment, file, why);
                }
                self.data.insert((DataKind::Deleted, vector.blob.file));
                self.undeleted.insert((table, segment));
                Some(Loss::Deletions { table, name, file, rows: vector.rows, why })
            }
            // It goes with its segment.
            Damage::Index { table, segment, .. } if self.given_up.contains(&(table, segment)) => None,
            Damage::Index { table, segment, index } => {
                let (of, entry) = self.entry(table, segment)?;
                let blob = entry.indexes.iter().find(|entry| entry.index == index)?.blob.file;
                let known = of.def.indexes.iter().find(|def| def.id == index);
                let name = known.map_or_else(String::new, |def| def.name.clone());
                self.damaged_index(blob);
                Some(Loss::Index { table, name, index, file, why })
            }
            Damage::Cloned(cloned) => Some(self.give_up_cloned(*cloned, file, why)),
            Damage::ClonedIndex { table, name, index, blob } => {
                self.in_log = true;
                self.damaged_index(blob);
                Some(Loss::Index { table, name, index, file, why })
            }
            Damage::Past => None,
            Damage::PastManifest { number } => Some(self.forget(number, file, why)),
            Damage::Log { number, offset, after, later, last_later } => {
                self.cut = Some(Cut { number, offset, after });
                Some(Loss::Commits { after, known: later, last_known: last_later, file, why })
            }
            Damage::OldLog { number } => {
                self.old_logs.push(number);
                Some(Loss::OldLog { file, why })
            }
        }
    }

    /// A table's segment goes, with all that belongs to it.
    fn give_up(&mut self, table: TableId, segment: FileId, file: String, why: String) -> Option<Loss> {
        let (of, entry) = self.entry(table, segment)?;
        let (def, entry) = (of.def.clone(), entry.clone());
        if !self.given_up.insert((table, segment)) {
            return None;
        }
        let mut files = FileSizes::new();
        entry.add_files(&mut files);
        self.data.extend(files.into_keys());
        let deleted = entry.deleted.as_ref().map_or(0, |deleted| deleted.rows);
        Some(Loss::Rows {
            table,
            name: def.shown_name(),
            environment: def.environment,
            file,
            first_row: entry.first_row,
            last_row: entry.last_row,
            rows: u64::from(entry.rows).saturating_sub(deleted),
            why,
        })
    }

    /// A segment of a clone that only the log has.
    fn give_up_cloned(&mut self, cloned: ClonedSegment, file: String, why: String) -> Loss {
        let ClonedSegment { table, environment, name, entry, live: rows } = cloned;
        self.in_log = true;
        self.data.insert((DataKind::Segment, entry.file));
        self.base.lost.add_file(DataKind::Segment, entry.file);
        let (first_row, last_row) = (entry.first_row, entry.last_row);
        Loss::Rows { table, environment, name, file, first_row, last_row, rows, why }
    }

    fn damaged_index(&mut self, blob: FileId) {
        self.data.insert((DataKind::Index, blob));
        self.base.lost.add_file(DataKind::Index, blob);
    }

    /// A manifest of the past goes, and with it the names of its snapshots.
    fn forget(&mut self, number: u64, file: String, why: String) -> Loss {
        self.past.insert(number);
        let named = self.original.snapshots.iter().filter(|named| named.manifest == number);
        let snapshots = named.map(self::named).collect();
        Loss::Past { file, snapshots, why }
    }

    fn entry(&self, table: TableId, segment: FileId) -> Option<(&TableEntry, &SegmentEntry)> {
        let table = self.base.manifest.tables.iter().find(|entry| entry.def.id == table)?;
        Some((table, table.segments.iter().find(|entry| entry.file == segment)?))
    }

    /// Takes what goes out of the manifest, and what is needed elsewhere from what is moved aside.
    fn drop_damaged(&mut self, named: &Named) {
        let Self { base, data, given_up, undeleted, past, .. } = self;
        let Sound { manifest, lost } = base;
        let damaged: DataFiles = data.iter().copied().filter(|file| lost.has_file(file)).collect();
        for table in &mut manifest.tables {
            let id = table.def.id;
            table.segments.retain_mut(|entry| {
                if given_up.contains(&(id, entry.file)) {
                    lost.add(id, entry.first_row, entry.last_row);
                    return false;
                }
                entry.indexes.retain(|index| !damaged.contains(&(DataKind::Index, index.blob.file)));
                if undeleted.contains(&(id, entry.file)) {
                    entry.deleted = None;
                }
                true
            });
        }
        manifest.snapshots.retain(|named| !past.contains(&named.manifest));
        let kept = named.past.iter().filter(|(number, _)| !past.contains(number));
        let kept: DataFiles = kept.flat_map(|(_, files)| files).copied().collect();
        let today = manifest.files();
        data.retain(|file| {
            let shared = named.in_log.contains(file) && !damaged.contains(file);
            !today.contains_key(file) && !kept.contains(file) && !shared
        });
        manifest.cloned.retain(|cloned| !data.contains(&(cloned.kind, cloned.file)));
    }
}

/// A snapshot by its environment and name.
fn named(snapshot: &NamedEntry) -> String {
    format!("{}/{}", snapshot.environment, snapshot.name)
}

impl Loss {
    /// The worst first.
    fn weight(&self) -> u8 {
        match self {
            Self::Commits { .. } => 0,
            Self::Rows { .. } => 1,
            Self::Deletions { .. } => 2,
            Self::OldLog { .. } => 3,
            Self::Past { .. } => 4,
            Self::Manifest { .. } => 5,
            Self::Index { .. } => 6,
        }
    }
}
