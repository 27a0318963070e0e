//! What an operator does with a directory at rest: checks it, and repairs what the drive has spoilt.
//!
//! A check says nothing of what is whole and finds whatever keeps a reader from reading. A repair is refused, or comes
//! to what was committed but for the rows and commits that it said it gives up.

use std::{collections::BTreeMap, path::PathBuf};

use sepal_types::TableId;

use super::{
    machine::{Damage, Image},
    rows::{Trouble, compare_left},
    world::{Verdict, World, root},
};
use crate::{
    CheckObserver, CheckOptions, Checked, Finding, Loss, NoBlobs, RepairOptions, Severity, StoreOptions,
    TenantStore, fixtures::TENANT,
};

/// What a check calls damage.
#[derive(Default)]
struct Errors(Vec<Finding>);

impl CheckObserver for Errors {
    fn found(&mut self, finding: Finding) {
        if finding.severity == Severity::Error {
            self.0.push(finding);
        }
    }

    fn read(&mut self, _: u64) {}
}

impl World {
    /// A closed store is sound, and has what was acknowledged.
    pub(super) fn check_at_rest(&self) -> Verdict {
        let before = self.machine.image();
        let (checked, errors) = self.checked();
        if let Some(error) = errors.0.first() {
            return Err(format!("of what is sound a check says: {error}"));
        }
        let rows: usize = self.states[&self.head].tables.values().map(|table| table.rows.len()).sum();
        if (checked.lsn.0, checked.rows) != (self.head, rows as u64) {
            let found = format!("{} rows as of commit {}", checked.rows, checked.lsn);
            return Err(format!("a check counts {found}, acknowledged are {rows} as of {}", self.head));
        }
        if self.machine.image() == before { Ok(()) } else { Err("a check has changed files".to_owned()) }
    }

    /// A directory with one file damaged. `noticed`: a reader failed.
    pub(super) fn mend(&mut self, damaged: &Image, damage: &Damage, noticed: bool) -> Verdict {
        self.machine.restore(damaged);
        let file = damage.file.display();
        let (_, errors) = self.checked();
        if noticed && errors.0.is_empty() {
            return Err(format!("a check does not find the damage of {file}"));
        }
        let options = RepairOptions { check: self.check_options(), resurrect_deleted: false };
        let ring = self.keys.ring();
        let planned =
            TenantStore::plan_repair(&root(), TENANT, ring, &options, &NoBlobs, &mut Errors::default());
        if self.machine.image() != *damaged {
            return Err(format!("a check of damaged {file}, or a plan for it, has changed files"));
        }
        let Ok(plan) = planned else {
            self.note("the repair is refused");
            return Ok(());
        };
        if !plan.left.is_empty() {
            self.note("the repair has no way with it");
            return Ok(());
        }
        let losses = plan.losses.clone();
        self.note(format!("the repair gives up {:?}", losses.iter().map(kind).collect::<Vec<_>>()));
        plan.apply(&aside()).map_err(|error| format!("a repair of {file}: {error}"))?;
        self.check_repaired(&losses).map_err(|why| format!("after a repair of {file}: {why}"))
    }

    fn check_options(&self) -> CheckOptions {
        CheckOptions { fast: false, log_end: self.known, files: self.machine.process() }
    }

    fn checked(&self) -> (Checked, Errors) {
        let mut errors = Errors::default();
        let (ring, options) = (self.keys.ring(), self.check_options());
        let checked = TenantStore::check(&root(), TENANT, ring, &options, &NoBlobs, &mut errors);
        (checked, errors)
    }

    /// What was committed is there, but for what was given up.
    fn check_repaired(&self, losses: &[Loss]) -> Verdict {
        // The log may have been cut before where it reached.
        let options = StoreOptions { log_end: None, ..self.options() };
        let store = TenantStore::open(&root(), TENANT, self.keys.ring(), options);
        let store = store.map_err(|error| format!("it does not open: {error}"))?;
        let cut = losses.iter().find_map(|loss| match loss {
            Loss::Commits { after, .. } => Some(after.0),
            _ => None,
        });
        let (snapshot, expected) = (store.snapshot(), cut.unwrap_or(self.head));
        let state = self.states.get(&expected).filter(|_| snapshot.lsn().0 == expected);
        let Some(state) = state else {
            return Err(format!("commit {} is the last, {expected} was said to be", snapshot.lsn()));
        };
        let lost = Lost::of(losses);
        let missing = compare_left(&snapshot, state, &|table, row| lost.has(table, row));
        let missing = missing.map_err(|trouble| match trouble {
            Trouble::Wrong(why) => why,
            Trouble::Store(error) => error.to_string(),
        })?;
        match missing.iter().find(|(table, rows)| **rows > lost.rows(**table)) {
            None => Ok(()),
            Some((table, rows)) => {
                Err(format!("table {table} lacks {rows} rows, {} were given up", lost.rows(*table)))
            }
        }
    }
}

/// The rows that a repair said it gives up: by table, how many, and from which to which.
struct Lost(BTreeMap<TableId, (u64, Vec<std::ops::RangeInclusive<u64>>)>);

impl Lost {
    fn of(losses: &[Loss]) -> Self {
        let mut lost = BTreeMap::<_, (u64, Vec<_>)>::new();
        for loss in losses {
            if let Loss::Rows { table, first_row, last_row, rows, .. } = loss {
                let (count, ranges) = lost.entry(*table).or_default();
                *count += rows;
                ranges.push(first_row.0..=last_row.0);
            }
        }
        Self(lost)
    }

    fn has(&self, table: TableId, row: u64) -> bool {
        self.0.get(&table).is_some_and(|(_, ranges)| ranges.iter().any(|range| range.contains(&row)))
    }

    fn rows(&self, table: TableId) -> u64 {
        self.0.get(&table).map_or(0, |(rows, _)| *rows)
    }
}

const fn kind(loss: &Loss) -> &'static str {
    match loss {
        Loss::Rows { .. } => "rows",
        Loss::Index { .. } => "an index",
        Loss::Deletions { .. } => "deletions",
        Loss::Commits { .. } => "commits",
        Loss::OldLog { .. } => "older log",
        Loss::Manifest { .. } => "a manifest",
        Loss::Past { .. } => "the past",
    }
}

/// Where a repair moves what is damaged.
fn aside() -> PathBuf {
    root().with_file_name("aside")
}
