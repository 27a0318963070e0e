//! What happens next: one step of a run, drawn by the dice.

use std::fmt::Debug;

use sepal_types::{Lsn, TableId};

use super::{
    feed::compare_commit,
    machine::Faults,
    meanwhile::{Alone, Meanwhile},
    restart::End,
    rows::{blob, compare},
    session::Session,
    world::{Verdict, World},
};
use crate::{Freely, Rewrite, StoreError, TenantStore};

/// Transactions that are open at once, at most.
const SESSIONS: usize = 4;
/// Readers that stay with an old state.
const PINS: usize = 3;

impl World {
    /// Does one thing, and restarts the store where it stopped.
    pub(super) fn step(&mut self) -> Verdict {
        self.disturb_machine();
        match self.dice.below(38) {
            0..=9 => self.act(false)?,
            10..=17 => self.act(true)?,
            18..=20 => self.checkpoint()?,
            21 => self.attach()?,
            22 => self.pin()?,
            23 => self.check_pins()?,
            24 => self.hold()?,
            25 => self.follow()?,
            26 => self.restart(End::Orderly)?,
            27 => self.restart(End::Killed)?,
            28 => self.restart(End::PowerCut)?,
            29 if self.taste.deleting => self.erode()?,
            30 => self.compact()?,
            31 => self.mark()?,
            32 => self.name_snapshot()?,
            33 => self.look_back()?,
            34 => self.replace_key()?,
            35 | 36 => self.replace_file_keys()?,
            _ => self.check_head()?,
        }
        self.misdeeds()?;
        self.revive()
    }

    /// A store that stopped shows what was acknowledged until it is opened again.
    fn revive(&mut self) -> Verdict {
        if !self.machine.is_down() {
            let stopped = self.before().poisoned;
            if !stopped && !self.machine.is_read_only() {
                return Ok(());
            }
            self.machine.set_faults(Faults::default());
            self.check_head()?;
        }
        let end = if self.dice.once_in(2) { End::Killed } else { End::PowerCut };
        self.restart(end)
    }

    /// Faults come in spells; a death is set to a step some way ahead.
    fn disturb_machine(&mut self) {
        self.faulty = self.faulty.saturating_sub(1);
        if self.faulty == 0 {
            self.machine.set_faults(Faults::default());
            if self.dice.once_in(6) {
                let room = self.dice.once_in(2).then(|| self.dice.below(6_000));
                self.machine.set_faults(Faults { room, ..self.faults });
                self.faulty = 1 + self.dice.below(4);
            }
        }
        if self.dice.once_in(8) {
            let steps = 1 + self.dice.below(40);
            self.machine.arm(steps);
        }
    }

    /// Something in a transaction, and maybe its end: alone, or with others that end at the same moment.
    pub(super) fn act(&mut self, ends: bool) -> Verdict {
        let store = self.store()?;
        if self.sessions.is_empty() || (self.sessions.len() < SESSIONS && self.dice.once_in(3)) {
            let base = store.snapshot();
            let state = self.states[&base.lsn().0].clone();
            self.sessions.push(Session::begin(base, state));
        }
        let at = self.dice.index(self.sessions.len());
        for _ in 0..1 + self.dice.below(2) {
            self.change(&store, at)?;
        }
        if self.dice.once_in(8) {
            let before = self.before();
            self.judged(before, self.sessions[at].check(), "a transaction's view")?;
        }
        if !ends {
            return Ok(());
        }
        let mut group = vec![self.sessions.swap_remove(at)];
        if self.dice.once_in(3) {
            group.append(&mut self.sessions);
        }
        if self.dice.once_in(16) {
            self.note("rollback");
            return Ok(());
        }
        group.retain(|session| !session.ops.is_empty());
        self.commit(group)?;
        if self.dice.once_in(3) { self.check_head() } else { Ok(()) }
    }

    /// One thing more in a transaction.
    fn change(&mut self, store: &TenantStore, at: usize) -> Verdict {
        let tables = self.sessions[at].tables();
        let clones = (1..self.taste.most_tables()).contains(&tables) && self.dice.once_in(12);
        let from = if clones { self.clone_source()? } else { None };
        let before = self.before();
        let session = &mut self.sessions[at];
        let done = if clones {
            session.clone_table(store, from, self.upkeep, &mut self.dice)
        } else {
            session.act(store, &mut self.dice, self.taste)
        };
        match done {
            Ok(what) => self.note(format!("session {at}: {what}")),
            Err(trouble) => self.judged(before, Err(trouble), "a change in a transaction")?,
        }
        Ok(())
    }

    /// What the owner does beside the sessions, who go on meanwhile. `None`: it failed, and had a cause.
    pub(super) fn keep_up<T: Debug>(
        &mut self,
        what: &str,
        alone: Alone,
        call: impl FnOnce(&TenantStore, &Meanwhile<'_>) -> Result<T, StoreError>,
    ) -> Verdict<Option<T>> {
        let (store, before) = (self.store()?, self.before());
        self.upkeep += 1;
        let (outcome, verdict) = {
            let meanwhile = Meanwhile::new(self, alone);
            let outcome = call(&store, &meanwhile);
            (outcome, meanwhile.verdict.into_inner())
        };
        self.upkeep += 1;
        verdict?;
        match outcome {
            Ok(done) => {
                self.note(format!("{what}: {done:?}"));
                Ok(Some(done))
            }
            Err(error) => {
                self.note(format!("{what}: {error}"));
                self.excused(before, &error).map_err(|why| format!("{what} failed {why}"))?;
                Ok(None)
            }
        }
    }

    pub(super) fn checkpoint(&mut self) -> Verdict {
        let made =
            self.keep_up("checkpoint", Alone::Upkeep, |store, meanwhile| store.checkpoint(meanwhile))?;
        let Some(report) = made.filter(|report| report.manifest > 0) else { return Ok(()) };
        if report.manifest <= self.manifest {
            return Err(format!("manifest {} follows {}", report.manifest, self.manifest));
        }
        self.manifest = report.manifest;
        self.note_manifest()
    }

    /// Merges a table's segments, while sessions and flushes go on.
    fn compact(&mut self) -> Verdict {
        let store = self.store()?;
        let tables: Vec<TableId> = store.snapshot().tables().map(|version| version.def.id).collect();
        if tables.is_empty() {
            return Ok(());
        }
        let table = tables[self.dice.index(tables.len())];
        let which = if self.dice.once_in(2) { Rewrite::All } else { Rewrite::Deleted };
        for files in store.segments_to_merge(table, which) {
            let merged = self.keep_up("compaction", Alone::Compaction, |store, meanwhile| {
                store.merge(table, &files, meanwhile, &Freely)
            })?;
            match merged {
                None => break,
                Some(None) => {}
                Some(Some(_)) => self.note_manifest()?,
            }
        }
        Ok(())
    }

    /// What the owner asks for when nothing was committed for a moment.
    fn mark(&mut self) -> Verdict {
        self.keep_up("mark the log", Alone::Upkeep, |store, _| store.mark_log()).map(drop)
    }

    /// Deletes a little and checkpoints: the segment stays and gets a deletion vector.
    pub(super) fn erode(&mut self) -> Verdict {
        self.sessions.clear();
        self.checkpoint()?;
        if self.machine.is_down() || self.before().poisoned {
            return Ok(());
        }
        let base = self.store()?.snapshot();
        let state = self.states[&base.lsn().0].clone();
        let mut session = Session::begin(base, state);
        let before = self.before();
        let deleted = session.delete_one(&mut self.dice);
        self.judged(before, deleted, "a delete")?;
        if session.ops.is_empty() {
            return Ok(());
        }
        self.commit(vec![session])?;
        self.checkpoint()
    }

    /// An index for a segment that has none, or another one's place.
    pub(super) fn attach(&mut self) -> Verdict {
        let store = self.store()?;
        let snapshot = store.snapshot();
        let mut places = Vec::new();
        for version in snapshot.tables() {
            for chunk in version.chunks.iter().map(|reference| &reference.chunk) {
                for index in &version.def.indexes {
                    places.extend(chunk.segment().map(|file| (version.def.id, file, index.id, chunk.rows())));
                }
            }
        }
        if places.is_empty() {
            return Ok(());
        }
        let (table, file, index, rows) = places[self.dice.index(places.len())];
        let attached = self.keep_up(&format!("attach index {index}"), Alone::Upkeep, |store, _| {
            store.attach_index(table, file, index, &blob(index, rows as usize))
        })?;
        if attached == Some(true) { self.note_manifest() } else { Ok(()) }
    }

    /// A reader comes and stays, and one that stayed may go.
    fn pin(&mut self) -> Verdict {
        let snapshot = self.store()?.snapshot();
        let lsn = snapshot.lsn().0;
        self.pins.push((snapshot, lsn));
        if self.pins.len() > PINS {
            let gone = self.dice.index(PINS);
            let (snapshot, lsn) = self.pins.swap_remove(gone);
            let before = self.before();
            self.judged(before, compare(&snapshot, &self.states[&lsn]), "a reader that goes")?;
        }
        Ok(())
    }

    fn hold(&mut self) -> Verdict {
        if self.holds.len() >= 2 {
            self.holds.remove(0);
        }
        let after = self.head;
        let before = self.before();
        match self.store()?.hold_log(Lsn(after)) {
            Ok(hold) => {
                self.note(format!("hold the log after commit {after}"));
                self.holds.push((Some(hold), after));
                Ok(())
            }
            Err(error) => self.excused(before, &error),
        }
    }

    /// Reads the log along: every commit that was acknowledged since, and no other.
    fn follow(&mut self) -> Verdict {
        let store = self.store()?;
        for (hold, after) in &mut self.holds {
            let Some(hold) = hold else { continue };
            let (before, _) = self.machine.struck();
            let mut reader = match store.changes(Lsn(*after), hold, Box::new(|_| true)) {
                Ok(reader) => reader,
                Err(_) if self.machine.struck().0 > before || self.machine.is_down() => continue,
                Err(error) => return Err(format!("the log after commit {after} cannot be read: {error}")),
            };
            loop {
                match reader.next() {
                    Ok(Some(commit)) => {
                        let earlier = self.states.get(&*after).ok_or("a commit follows nothing")?;
                        let made = self.commits.get(&commit.lsn.0);
                        let made = made.ok_or_else(|| format!("commit {} was never made", commit.lsn))?;
                        compare_commit(&commit, *after + 1, earlier, made)?;
                        *after = commit.lsn.0;
                        hold.advance(commit.lsn);
                    }
                    Ok(None) if *after == self.head => break,
                    Ok(None) => return Err(format!("the log ends at {after}, the head is {}", self.head)),
                    Err(_) if self.machine.struck().0 > before || self.machine.is_down() => break,
                    Err(error) => return Err(format!("the log after commit {after} breaks off: {error}")),
                }
            }
        }
        Ok(())
    }
}
