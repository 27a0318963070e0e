//! Keys that are replaced while sessions work: the tenant's, as control keeps them, and those of its files.

use std::collections::BTreeSet;

use sepal_crypto::{Key, KeyRing};

use super::{
    meanwhile::Alone,
    world::{Verdict, World, root},
};
use crate::{FileRotation, Freely, KeyUse, NoBlobs, StoreError, TenantStore, paths::Paths};

/// Segments are few: more copies than this mean that it does not end.
const MOST_COPIES: usize = 200;

/// The tenant's keys as control has them: a new one is durable before the store learns of it, and the older ones are
/// destroyed before the store forgets them.
#[derive(Clone, Copy, Debug)]
pub(super) struct TenantKeys {
    oldest: u8,
    newest: u8,
}

impl TenantKeys {
    pub(super) const fn first() -> Self {
        Self { oldest: 1, newest: 1 }
    }

    pub(super) fn ring(self) -> KeyRing {
        let key = |number| Key::from_bytes([number; 32]);
        KeyRing::new(key(self.newest), (self.oldest..self.newest).rev().map(key).collect())
    }

    const fn has_older(self) -> bool {
        self.oldest < self.newest
    }
}

/// What is known of the replacement of files' keys.
#[derive(Default)]
pub(super) struct FileKeys {
    generation: u64,
    running: bool,
    /// Something was asked for whose outcome nobody has seen.
    asked: bool,
    /// The files that were there when it began.
    files: BTreeSet<String>,
}

impl World {
    /// A new key for the tenant, or one step more for the one before: control destroys the older ones when nothing is
    /// left under them.
    pub(super) fn replace_key(&mut self) -> Verdict {
        if !self.keys.has_older() || self.dice.once_in(6) {
            self.keys.newest += 1;
        }
        let keys = self.keys;
        let what = format!("replace the tenant's key by number {}", keys.newest);
        let left =
            self.keep_up(&what, Alone::Upkeep, |store, meanwhile| store.rewrap(keys.ring(), meanwhile))?;
        let Some(left) = left else { return Ok(()) };
        self.note_manifest()?;
        if left == KeyUse::default() {
            self.keys.oldest = keys.newest;
            // Or the process ends before.
            if !self.dice.once_in(8) {
                self.store()?.forget_older_keys();
            }
        }
        Ok(())
    }

    /// Begins to give every file another key, or copies a few segments more.
    pub(super) fn replace_file_keys(&mut self) -> Verdict {
        if !self.file_keys.running {
            return self.begin_file_keys();
        }
        for _ in 0..1 + self.dice.below(3) {
            self.file_keys.asked = true;
            let step = self.keep_up("copy a segment", Alone::Upkeep, |store, meanwhile| {
                store.rotate_file_keys(meanwhile, meanwhile)
            })?;
            let Some(step) = step else { return Ok(()) };
            self.note_copy(step.rotation)?;
            self.note_manifest()?;
            if !step.rotation.running {
                break;
            }
        }
        Ok(())
    }

    fn begin_file_keys(&mut self) -> Verdict {
        if !self.file_keys.asked {
            self.file_keys.files = self.data_files();
        }
        self.file_keys.asked = true;
        let begun = self.keep_up("begin to replace the files' keys", Alone::Upkeep, |store, meanwhile| {
            store.begin_file_rotation(meanwhile)
        })?;
        let Some(begun) = begun else { return Ok(()) };
        self.note_file_keys(begun)?;
        self.note_manifest()
    }

    /// How far a store is when it opens.
    pub(super) fn check_file_keys(&mut self, store: &TenantStore) -> Verdict {
        let before = self.before();
        match store.file_rotation() {
            Ok(found) => self.note_file_keys(found),
            Err(error) => self.excused(before, &error),
        }
    }

    /// It is where it was, or where it was asked to go.
    fn note_file_keys(&mut self, found: FileRotation) -> Verdict {
        let FileKeys { generation, running, asked, .. } = self.file_keys;
        let same = (found.generation, found.running) == (generation, running);
        let begun = asked && !running && (found.generation, found.running) == (generation + 1, true);
        let ended = asked && running && (found.generation, found.running) == (generation, false);
        if !(same || begun || ended) {
            return Err(format!("the files' keys are at {found:?}, expected was {generation}, {running}"));
        }
        (self.file_keys.generation, self.file_keys.running) = (found.generation, found.running);
        self.file_keys.asked = false;
        Ok(())
    }

    /// After a copy. When it is over, nothing is left of what was there when it began.
    fn note_copy(&mut self, found: FileRotation) -> Verdict {
        let before = self.file_keys.running;
        self.note_file_keys(found)?;
        if before
            && !found.running
            && let Some(file) = self.data_files().intersection(&self.file_keys.files).next()
        {
            return Err(format!("every file has another key, but segments/{file} is still there"));
        }
        Ok(())
    }

    /// The names under `segments/`; none of a machine that is down.
    fn data_files(&self) -> BTreeSet<String> {
        let listed = self.options().files.list(&Paths::new(&root()).segments());
        listed.unwrap_or_default().into_iter().collect()
    }

    /// Whether older keys are still needed, or files are still to be copied.
    pub(super) fn replaces_keys(&self) -> bool {
        self.keys.has_older() || self.file_keys.running || self.file_keys.asked
    }

    /// Where nobody holds on to anything, every replacement comes to its end.
    pub(super) fn finish_keys(&mut self) -> Verdict {
        let told = |error: StoreError| format!("with a sound disk: {error}");
        let store = self.store()?;
        if self.keys.has_older() {
            let left = store.rewrap(self.keys.ring(), &NoBlobs).map_err(told)?;
            if left != KeyUse::default() {
                return Err(format!("nobody needs the older keys of the tenant, but {left:?}"));
            }
            self.keys.oldest = self.keys.newest;
            store.forget_older_keys();
        }
        for _ in 0..MOST_COPIES {
            self.file_keys.asked = true;
            let step = store.rotate_file_keys(&NoBlobs, &Freely).map_err(told)?;
            self.note_copy(step.rotation)?;
            if !step.rotation.running {
                self.note(format!("nothing is left of the files' older keys: {step:?}"));
                return self.check_manifest();
            }
        }
        Err(format!("nobody needs the files' older keys, but {:?}", store.file_rotation()))
    }
}
