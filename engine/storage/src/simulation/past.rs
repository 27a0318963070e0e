//! The past: moments that are looked back at, and names that keep them.

use std::{collections::BTreeMap, sync::Arc};

use sepal_types::Lsn;

use super::{
    meanwhile::Alone,
    model::State,
    rows::{Trouble, compare},
    world::{Verdict, World},
};
use crate::{AsOf, Snapshot, StoreError, TenantStore};

const ENVIRONMENT: &str = "default";
/// Few, so that they come and go.
const NAMES: [&str; 2] = ["first", "second"];

/// Named snapshots, by the commit that they show.
#[derive(Default)]
pub(super) struct NamedSnapshots {
    known: BTreeMap<&'static str, u64>,
    /// Nobody knows whether these are there: the store stopped while they were made or dropped.
    doubtful: BTreeMap<&'static str, u64>,
}

impl World {
    /// Gives a name, or takes it back.
    pub(super) fn name_snapshot(&mut self) -> Verdict {
        let name = NAMES[self.dice.index(NAMES.len())];
        match self.named.known.get(name).copied() {
            Some(lsn) => self.drop_snapshot(name, lsn),
            None => self.create_snapshot(name),
        }
    }

    fn create_snapshot(&mut self, name: &'static str) -> Verdict {
        // What is committed while its checkpoint writes comes after it.
        let head = self.head;
        let rows: usize = self.states[&head].tables.values().map(|table| table.rows.len()).sum();
        let what = format!("name the snapshot {name}");
        let made = self.keep_up(&what, Alone::Upkeep, |store, meanwhile| {
            let made = store.create_snapshot(meanwhile, ENVIRONMENT, name, "ada", None)?;
            Ok((made.lsn.0, made.rows))
        })?;
        match made {
            Some(made) if made == (head, rows as u64) => {
                self.named.known.insert(name, head);
                self.note_manifest()
            }
            Some(made) => Err(format!("a snapshot of commit {head} with {rows} rows is {made:?}")),
            None => {
                if self.has_stopped() {
                    self.named.doubtful.insert(name, head);
                }
                Ok(())
            }
        }
    }

    fn drop_snapshot(&mut self, name: &'static str, lsn: u64) -> Verdict {
        let what = format!("drop the snapshot {name}");
        let dropped = self.keep_up(&what, Alone::Upkeep, |store, _| {
            store.drop_snapshot(ENVIRONMENT, name)?;
            Ok(lsn)
        })?;
        if dropped.is_some() {
            self.named.known.remove(name);
            return self.note_manifest();
        }
        if self.has_stopped() {
            self.named.known.remove(name);
            self.named.doubtful.insert(name, lsn);
        }
        Ok(())
    }

    /// The names that a store has when it opens: those that were given, and of those that nobody knows any.
    pub(super) fn check_names(&mut self, store: &TenantStore) -> Verdict {
        let found: BTreeMap<String, u64> =
            store.snapshots().into_iter().map(|named| (named.name, named.lsn.0)).collect();
        let doubtful = std::mem::take(&mut self.named.doubtful);
        self.named.known.extend(doubtful.into_iter().filter(|(name, lsn)| found.get(*name) == Some(lsn)));
        let known = &self.named.known;
        if found.len() == known.len() && known.iter().all(|(name, lsn)| found.get(*name) == Some(lsn)) {
            return Ok(());
        }
        Err(format!("the named snapshots are {found:?}, given were {known:?}"))
    }

    /// What a name shows is as it was.
    pub(super) fn check_named(&self) -> Verdict {
        for (name, lsn) in &self.named.known {
            let before = self.before();
            let found = self.store()?.snapshot_as_of(&at_name(name));
            if !self.calm && found.as_ref().is_err_and(was_refused) {
                continue;
            }
            let reading = found.map_err(Trouble::from).and_then(|then| compare(&then, &self.states[lsn]));
            self.judged(before, reading, &format!("the snapshot {name}"))?;
        }
        Ok(())
    }

    /// What an earlier commit left, as far back as the store goes, or what a name has kept.
    pub(super) fn look_back(&mut self) -> Verdict {
        let named = if self.dice.once_in(2) { self.any_name() } else { None };
        let (at, lsn) = match named {
            Some((name, lsn)) => (at_name(name), lsn),
            None => {
                let lsn = self.dice.below(self.head + 1);
                (AsOf::Commit(Lsn(lsn)), lsn)
            }
        };
        let Some(then) = self.states.get(&lsn).cloned() else { return Ok(()) };
        let before = self.before();
        match self.store()?.snapshot_as_of(&at) {
            Ok(snapshot) => {
                self.note(format!("look back at {at:?} of {}", self.head));
                self.judged(before, compare(&snapshot, &then), "the past")
            }
            Err(StoreError::NoSuchPast { .. }) if named.is_none() => Ok(()),
            Err(error) if was_refused(&error) => Ok(()),
            Err(error) => {
                self.excused(before, &error).map_err(|why| format!("looking back at {at:?}: {why}"))
            }
        }
    }

    /// Of what a table is cloned, if not of what its transaction sees: a name, or what a reader has.
    pub(super) fn clone_source(&mut self) -> Verdict<Option<(Snapshot, Arc<State>)>> {
        if self.dice.once_in(3)
            && let Some((name, lsn)) = self.any_name()
        {
            let before = self.before();
            match self.store()?.snapshot_as_of(&at_name(name)) {
                Ok(snapshot) => match snapshot.damage() {
                    // Of a bad read: there is nothing to clone then.
                    Some(error) => self.excused(before, error)?,
                    None => return Ok(Some((snapshot, Arc::clone(&self.states[&lsn])))),
                },
                Err(error) if was_refused(&error) => {}
                Err(error) => self.excused(before, &error)?,
            }
        }
        if self.dice.once_in(3)
            && let Some((snapshot, lsn)) = self.pins.last()
        {
            return Ok(Some((snapshot.clone(), Arc::clone(&self.states[lsn]))));
        }
        Ok(None)
    }

    fn any_name(&mut self) -> Option<(&'static str, u64)> {
        let at = self.dice.index(self.named.known.len());
        self.named.known.iter().nth(at).map(|(name, lsn)| (*name, *lsn))
    }
}

fn at_name(name: &str) -> AsOf {
    AsOf::Named { environment: ENVIRONMENT.to_owned(), name: name.to_owned() }
}

/// Of a manifest that the drive refused when the store was opened: it is known until a collection of garbage reads it.
fn was_refused(error: &StoreError) -> bool {
    matches!(error, StoreError::Io { action: "read", .. })
}
