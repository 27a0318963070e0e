//! From what a check finds to what is to be done. Reads only.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use sepal_crypto::KeyRing;
use sepal_types::{FileId, TableId, TenantId};

use super::{Cut, Loss, RepairOptions, RepairPlan, RepairRefused, Steps};
use crate::{
    BlobChecker, CheckObserver, Finding, Severity, TenantStore,
    check::{Damage, Examination, Sound},
    disk::Disk,
    manifest::{self, Manifest, SegmentEntry, TableEntry},
    paths::{DataKind, Paths, number, show},
    store::lost::Lost,
    wal::survey,
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
        TenantStore::check(dir, tenant, keys.clone(), &options.check, blobs, &mut listener);
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
            base: Sound { manifest: base, lost: Lost::default() },
            hash,
            highest,
            data: BTreeSet::new(),
            manifest: None,
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
        steps.drop_damaged(options.resurrect_deleted);
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
        let (paths, disk) = (Paths::new(self.dir), Disk::new(Arc::clone(&self.options.check.files), None));
        let names = disk.list(&paths.manifests()).unwrap_or_default();
        let mut numbers: Vec<u64> = names.iter().filter_map(|name| number(name, "manifest")).collect();
        numbers.sort_unstable();
        let Some(highest) = numbers.pop() else {
            return Err(RepairRefused("there is no manifest: restore the tenant from a backup".to_owned()));
        };
        let read = |number| manifest::read(&disk, &paths, self.tenant, &self.keys, number);
        let error = match read(highest) {
            Ok((manifest, hash, _)) => return Ok((manifest, hash, highest, Vec::new())),
            Err(error) => error,
        };
        let damaged = findings.iter().find(|found| matches!(found.damage, Some(Damage::Manifest { .. })));
        let why = damaged.map_or_else(|| error.to_string(), |finding| finding.what.clone());
        let file = show(&paths.manifest(highest));
        for (manifest, hash, _) in numbers.iter().rev().filter_map(|number| read(*number).ok()) {
            if self.is_whole(&manifest, observer) {
                let loss = Loss::Manifest { file, instead: manifest.number, why };
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
        let whole = sound.lost.is_empty() && sound.manifest == *manifest;
        let replayed = examination.context.read_manifest(&sound.manifest).and_then(|mut opened| {
            survey(&examination.replay(&sound), |file, lsn, payload| opened.replay(file, lsn, &payload))
        });
        whole && replayed.is_ok_and(|survey| survey.broken.is_none())
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
            Damage::Segment { table, segment } => self.give_up(table, segment, file, why),
            Damage::Vector { table, segment } => {
                let vector = self.entry(table, segment)?.1.deleted.clone()?;
                self.data.insert((DataKind::Deleted, vector.blob.file));
                if !resurrect {
                    return self.give_up(table, segment, file, why);
                }
                let name = self.entry(table, segment)?.0.def.name.clone();
                Some(Loss::Deletions { table, name, file, rows: vector.rows, why })
            }
            // It goes with its segment.
            Damage::Index { segment, .. } if self.data.contains(&(DataKind::Segment, segment)) => None,
            Damage::Index { table, segment, index } => {
                let (of, entry) = self.entry(table, segment)?;
                let blob = entry.indexes.iter().find(|entry| entry.index == index)?.blob.file;
                let known = of.def.indexes.iter().find(|def| def.id == index);
                let name = known.map_or_else(String::new, |def| def.name.clone());
                self.data.insert((DataKind::Index, blob));
                Some(Loss::Index { table, name, index, file, why })
            }
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

    /// A segment goes, with all that belongs to it.
    fn give_up(&mut self, table: TableId, segment: FileId, file: String, why: String) -> Option<Loss> {
        let (of, entry) = self.entry(table, segment)?;
        let (def, entry) = (of.def.clone(), entry.clone());
        if !self.data.insert((DataKind::Segment, segment)) {
            return None;
        }
        self.data.extend(entry.deleted.iter().map(|deleted| (DataKind::Deleted, deleted.blob.file)));
        self.data.extend(entry.indexes.iter().map(|index| (DataKind::Index, index.blob.file)));
        let deleted = entry.deleted.as_ref().map_or(0, |deleted| deleted.rows);
        Some(Loss::Rows {
            table,
            environment: def.environment,
            name: def.name,
            file,
            first_row: entry.first_row,
            last_row: entry.last_row,
            rows: u64::from(entry.rows).saturating_sub(deleted),
            why,
        })
    }

    fn entry(&self, table: TableId, segment: FileId) -> Option<(&TableEntry, &SegmentEntry)> {
        let table = self.base.manifest.tables.iter().find(|entry| entry.def.id == table)?;
        Some((table, table.segments.iter().find(|entry| entry.file == segment)?))
    }

    /// Takes what is moved aside out of the manifest.
    fn drop_damaged(&mut self, resurrect: bool) {
        let Self { base, data, .. } = self;
        for table in &mut base.manifest.tables {
            let id = table.def.id;
            table.segments.retain_mut(|entry| {
                if data.contains(&(DataKind::Segment, entry.file)) {
                    base.lost.add(id, entry.first_row, entry.last_row);
                    return false;
                }
                entry.indexes.retain(|index| !data.contains(&(DataKind::Index, index.blob.file)));
                let vector = entry.deleted.as_ref().map(|deleted| (DataKind::Deleted, deleted.blob.file));
                if resurrect && vector.is_some_and(|vector| data.contains(&vector)) {
                    entry.deleted = None;
                }
                true
            });
        }
    }
}

impl Loss {
    /// The worst first.
    fn weight(&self) -> u8 {
        match self {
            Self::Commits { .. } => 0,
            Self::Rows { .. } => 1,
            Self::Deletions { .. } => 2,
            Self::OldLog { .. } => 3,
            Self::Manifest { .. } => 4,
            Self::Index { .. } => 5,
        }
    }
}
