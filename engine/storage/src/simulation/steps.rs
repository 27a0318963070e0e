//! What happens next: one step of a run, drawn by the dice.

use parking_lot::Mutex;
use sepal_types::{IndexDef, Lsn, TableDef, TableId};

use super::{
    feed::compare_commit,
    machine::Faults,
    restart::End,
    rows::{blob, compare},
    session::Session,
    world::{Verdict, World},
};
use crate::{AsOf, BlobBuilder, Freely, Rewrite, StoreError};

/// Transactions that are open at once, at most.
const SESSIONS: usize = 4;
/// Readers that stay with an old state.
const PINS: usize = 3;

impl World {
    /// Does one thing, and restarts the store where it stopped.
    pub(super) fn step(&mut self) -> Verdict {
        self.disturb_machine();
        match self.dice.below(33) {
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
            _ if self.dice.once_in(2) => self.look_back()?,
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
            let before = self.before();
            let session = &mut self.sessions[at];
            match session.act(&store, &mut self.dice, self.taste) {
                Ok(what) => self.note(format!("session {at}: {what}")),
                Err(trouble) => self.judged(before, Err(trouble), "a change in a transaction")?,
            }
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

    pub(super) fn checkpoint(&mut self) -> Verdict {
        let store = self.store()?;
        let before = self.before();
        let (outcome, verdict) = {
            let meanwhile = Meanwhile::new(self, false);
            let outcome = store.checkpoint(&meanwhile);
            (outcome, meanwhile.verdict.into_inner())
        };
        verdict?;
        match outcome {
            Ok(report) => {
                self.note(format!("checkpoint: {report:?}"));
                if report.manifest > 0 {
                    if report.manifest <= self.manifest {
                        return Err(format!("manifest {} follows {}", report.manifest, self.manifest));
                    }
                    self.manifest = report.manifest;
                    self.remember_indexes(&store);
                }
                Ok(())
            }
            Err(error) => {
                self.note(format!("checkpoint: {error}"));
                self.excused(before, &error).map_err(|why| format!("a checkpoint failed {why}"))
            }
        }
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
            let before = self.before();
            let (outcome, verdict) = {
                let meanwhile = Meanwhile::new(self, true);
                let outcome = store.merge(table, &files, &meanwhile, &Freely);
                (outcome, meanwhile.verdict.into_inner())
            };
            verdict?;
            match outcome {
                Ok(report) => {
                    self.note(format!("compaction: {report:?}"));
                    if report.is_some() {
                        self.check_manifest()?;
                        self.remember_indexes(&store);
                    }
                }
                Err(error) => {
                    self.note(format!("compaction: {error}"));
                    return self.excused(before, &error).map_err(|why| format!("a compaction failed {why}"));
                }
            }
        }
        Ok(())
    }

    /// What the owner asks for when nothing was committed for a moment.
    fn mark(&mut self) -> Verdict {
        let store = self.store()?;
        let before = self.before();
        match store.mark_log() {
            Ok(marked) => {
                self.note(format!("mark the log: {marked}"));
                Ok(())
            }
            Err(error) => {
                self.note(format!("mark the log: {error}"));
                self.excused(before, &error).map_err(|why| format!("the log was not marked {why}"))
            }
        }
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
        let before = self.before();
        match store.attach_index(table, file, index, &blob(index, rows as usize)) {
            Ok(attached) => {
                self.note(format!("attach index {index}: {attached}"));
                if attached {
                    self.check_manifest()?;
                    self.remember_indexes(&store);
                }
                Ok(())
            }
            Err(error) => {
                self.note(format!("attach index {index}: {error}"));
                self.excused(before, &error).map_err(|why| format!("an index was not attached {why}"))
            }
        }
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

    /// What an earlier commit left, as far back as the store goes.
    fn look_back(&mut self) -> Verdict {
        let lsn = self.dice.below(self.head + 1);
        let Some(then) = self.states.get(&lsn).cloned() else { return Ok(()) };
        let before = self.before();
        match self.store()?.snapshot_as_of(&AsOf::Commit(Lsn(lsn))) {
            Ok(snapshot) => {
                self.note(format!("look back at commit {lsn} of {}", self.head));
                self.judged(before, compare(&snapshot, &then), "the past")
            }
            Err(StoreError::NoSuchPast { .. }) => Ok(()),
            // Of a manifest that the drive refused when the store was opened: it is known ever since.
            Err(StoreError::Io { action: "read", .. }) => Ok(()),
            Err(error) => self.excused(before, &error),
        }
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

/// What sessions do while a checkpoint or a compaction writes: it asks for an index, and gets one when they have had
/// their turn.
struct Meanwhile<'a> {
    world: Mutex<&'a mut World>,
    verdict: Mutex<Verdict>,
    /// Whether a checkpoint may be made, too.
    flushes: bool,
}

impl<'a> Meanwhile<'a> {
    fn new(world: &'a mut World, flushes: bool) -> Self {
        Self { world: Mutex::new(world), verdict: Mutex::new(Ok(())), flushes }
    }
}

impl BlobBuilder for Meanwhile<'_> {
    fn build(&self, _: &TableDef, index: &IndexDef, column: &arrow::array::ArrayRef) -> Option<Vec<u8>> {
        let mut world = self.world.lock();
        let mut verdict = self.verdict.lock();
        for _ in 0..world.dice.below(4) {
            if verdict.is_ok() && !world.machine.is_down() {
                world.note("meanwhile");
                let ends = world.dice.once_in(2);
                *verdict = world.act(ends);
            }
        }
        if self.flushes && verdict.is_ok() && !world.machine.is_down() && world.dice.once_in(3) {
            *verdict = world.checkpoint();
        }
        let left_out = world.dice.once_in(4);
        (!left_out).then(|| blob(index.id, column.len()))
    }
}
