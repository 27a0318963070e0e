//! A seed's run from its first step to its last, and what it left.

use std::{
    fmt::Write,
    hash::{DefaultHasher, Hash, Hasher},
    panic::{AssertUnwindSafe, catch_unwind},
};

use super::{
    machine::{Damage, Faults, Image},
    restart::End,
    rows::{Trouble, compare},
    world::{Verdict, World, root},
};
use crate::{StoreError, TenantStore, fixtures::TENANT, paths::show};

/// What a seed came to.
#[derive(Debug)]
pub(super) struct Report {
    pub seed: u64,
    /// What the store did wrong.
    pub violation: Option<String>,
    pub trace: Vec<String>,
    /// Of the trace and of every table in the end.
    pub digest: u64,
}

impl Report {
    /// For whoever has to find out why.
    pub(super) fn told(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(text, "seed {}: operation on the disk, and what was done", self.seed);
        for line in &self.trace {
            let _ = writeln!(text, "{line}");
        }
        let violation = self.violation.as_deref().unwrap_or("nothing was wrong");
        let _ = writeln!(text, "seed {}: {violation}\nagain: SEPAL_SIM_SEED={}", self.seed, self.seed);
        text
    }
}

pub(super) fn run(seed: u64) -> Report {
    let mut world = World::new(seed);
    let verdict = catch_unwind(AssertUnwindSafe(|| world.live()));
    let violation = match verdict {
        Ok(verdict) => verdict.err(),
        Err(panic) => Some(format!("a panic: {}", words(&*panic))),
    };
    let digest = world.digest();
    Report { seed, violation, trace: world.trace, digest }
}

impl World {
    fn live(&mut self) -> Verdict {
        self.open()?;
        for _ in 0..24 + self.dice.below(40) {
            self.step()?;
        }
        self.machine.disarm();
        self.machine.set_faults(Faults::default());
        let end = if self.dice.once_in(2) { End::Killed } else { End::PowerCut };
        self.restart(end)?;
        self.rest()?;
        if self.dice.once_in(4) { self.decay() } else { Ok(()) }
    }

    /// Without faults everything must go well, and leave nothing over.
    fn rest(&mut self) -> Verdict {
        self.machine.disarm();
        self.machine.set_faults(Faults::default());
        // What an opening could not read counts as lost until the next one, and so these have no faults.
        self.calm = true;
        if self.has_stopped() || self.replaces_keys() {
            self.restart(End::PowerCut)?;
        }
        self.holds.clear();
        self.finish_keys()?;
        let store = self.store()?;
        store.checkpoint(&crate::NoBlobs).map_err(|error| format!("with a sound disk: {error}"))?;
        self.check_manifest()?;
        self.check_head()?;
        self.check_named()?;
        self.check_orphans(&store)?;
        // For the log to have something, too.
        self.taste.large = false;
        for _ in 0..self.dice.below(5) {
            self.act(true)?;
        }
        drop(store);
        self.shut()?;
        self.check_at_rest()
    }

    /// Closes the store for good.
    pub(super) fn shut(&mut self) -> Verdict {
        self.sessions.clear();
        self.pins.clear();
        let store = self.store()?;
        store.close().map_err(|error| format!("with a sound disk: {error}"))?;
        self.known = Some(store.log_end());
        self.store = None;
        drop(store);
        self.machine.kill();
        self.misdeeds()
    }

    /// The drive rots while nobody looks: every reading is right or names the file.
    fn decay(&mut self) -> Verdict {
        let image = self.machine.image();
        for _ in 0..3 {
            let Some(damage) = self.machine.damage(&image, &mut self.dice) else { continue };
            self.note(format!("{}: {}", damage.file.display(), damage.what));
            let damaged = self.machine.image();
            let noticed = self.endure(&image, &damage)?;
            self.mend(&damaged, &damage, noticed)?;
        }
        self.machine.restore(&image);
        self.read_all().map_err(|trouble| format!("the damage is mended, but: {trouble:?}"))
    }

    /// Reads all in spite of the damage. Whether it was noticed.
    pub(super) fn endure(&self, image: &Image, damage: &Damage) -> Verdict<bool> {
        let mut opened = false;
        match catch_unwind(AssertUnwindSafe(|| self.read_noting(&mut opened))) {
            Err(panic) => Err(format!("a panic on damage: {}", words(&*panic))),
            Ok(Ok(())) => Ok(false),
            Ok(Err(Trouble::Wrong(why))) => Err(format!("damage gave a wrong answer: {why}")),
            Ok(Err(Trouble::Store(error))) => {
                self.check_blame(damage, &error)?;
                if opened { Ok(true) } else { self.check_untouched(image, damage, &error).map(|()| true) }
            }
        }
    }

    pub(super) fn read_all(&self) -> Result<(), Trouble> {
        self.read_noting(&mut false)
    }

    fn read_noting(&self, opened: &mut bool) -> Result<(), Trouble> {
        let store = TenantStore::open(&root(), TENANT, self.keys.ring(), self.options())?;
        *opened = true;
        let snapshot = store.snapshot();
        if snapshot.lsn().0 != self.head {
            let why = format!("commit {} is the last, {} was acknowledged", snapshot.lsn(), self.head);
            return Err(Trouble::Wrong(why));
        }
        compare(&snapshot, &self.states[&self.head])
    }

    /// The error says which file.
    fn check_blame(&self, damage: &Damage, error: &StoreError) -> Verdict {
        let StoreError::Corrupt { file, .. } = error else {
            return Err(format!("damage of {} is called {error}", damage.file.display()));
        };
        let above = damage.file.parent().map(show).unwrap_or_default();
        // Where the only manifest is gone there is no file to name. Where a name keeps an older one, it is the log after
        // that one which is missed.
        let missed = damage.what == "it is gone" && above.ends_with("manifest") && file.contains("/wal/");
        if *file != show(&damage.file) && *file != above && !missed {
            return Err(format!("damage of {} is blamed on {file}", damage.file.display()));
        }
        Ok(())
    }

    /// An opening that fails has changed no file.
    fn check_untouched(&self, image: &Image, damage: &Damage, error: &StoreError) -> Verdict {
        let now = self.machine.image();
        let untouched =
            image.0.keys().all(|path| *path == damage.file || now.0.get(path) == image.0.get(path));
        if untouched { Ok(()) } else { Err(format!("files were changed in spite of the damage: {error}")) }
    }

    fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.trace.hash(&mut hasher);
        let tables = self.states.get(&self.head).into_iter().flat_map(|state| state.tables.values());
        for table in tables {
            format!("{:?}", table.def).hash(&mut hasher);
            for (row, content) in &table.rows {
                (row, content.id, content.label.len(), &content.more).hash(&mut hasher);
            }
        }
        hasher.finish()
    }
}

/// What a panic said.
fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without words").to_owned()
}
