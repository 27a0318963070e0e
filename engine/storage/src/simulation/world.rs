//! One run: a machine, a store on it, the model beside it, and what is known of the past.
//!
//! The steps are in `steps`, what happens between two lives of the store in `restart`. Every method gives `Err` with
//! what is wrong, and then the seed has found something.

use std::{collections::BTreeMap, collections::BTreeSet, path::PathBuf, sync::Arc};

use parking_lot::Mutex;
use sepal_types::{FileId, LogEnd, Lsn, TableId};

use super::{
    dice::{Dice, Names},
    keys::{FileKeys, TenantKeys},
    machine::{Faults, Machine},
    model::{Change, Refusal, State},
    past::NamedSnapshots,
    rows::{Trouble, compare},
    session::{Session, Taste},
};
use crate::{Clock, ColumnCache, HistoryPolicy, LogHold, Snapshot, StoreError, StoreOptions, TenantStore};

/// `Err`: what the store did wrong.
pub(super) type Verdict<T = ()> = Result<T, String>;

/// Short enough to end within a run.
const SHORT_HISTORY: HistoryPolicy =
    HistoryPolicy { keep_us: 5_000_000, keep_versions: 3, max_bytes: 1 << 30 };

pub(super) struct World {
    pub dice: Dice,
    pub machine: Machine,
    pub taste: Taste,
    /// Openings go as they should.
    pub calm: bool,
    /// How much of the past the store keeps.
    history: HistoryPolicy,
    names: Arc<Names>,
    clock: Arc<Wobbling>,
    pub store: Option<Arc<TenantStore>>,
    /// What is acknowledged: the state after each commit, and what the commit did.
    pub states: BTreeMap<u64, Arc<State>>,
    pub commits: BTreeMap<u64, Vec<Change>>,
    pub head: u64,
    /// Commits whose outcome nobody knows: after the next recovery the first few of them are there, or none.
    pub maybe: Vec<(State, Vec<Change>)>,
    pub sessions: Vec<Session>,
    /// Readers that hold on to an old state.
    pub pins: Vec<(Snapshot, u64)>,
    pub holds: Vec<(Option<LogHold>, u64)>,
    /// What the owner keeps elsewhere.
    pub known: Option<LogEnd>,
    /// The newest manifest that was seen, by number.
    pub manifest: u64,
    /// Index files that a durable manifest names.
    pub blobs: BTreeSet<(FileId, TableId)>,
    /// What a serial has counted to at least.
    pub serials: BTreeMap<TableId, i64>,
    pub named: NamedSnapshots,
    pub keys: TenantKeys,
    pub file_keys: FileKeys,
    /// Counts what may have let go of files, at its beginning and at its end.
    pub upkeep: u64,
    /// Rates for the whole run; which of them are on changes.
    pub faults: Faults,
    /// Steps until the faults that are on end.
    pub faulty: u64,
    pub trace: Vec<String>,
}

/// A clock that runs by fits and starts, and now and then backwards.
pub(super) struct Wobbling(Mutex<(i64, Dice)>);

impl Clock for Wobbling {
    fn now_us(&self) -> i64 {
        let mut held = self.0.lock();
        let (now, dice) = &mut *held;
        let step = i64::try_from(dice.below(3_000_000)).unwrap_or(0);
        *now += if dice.once_in(16) { -step } else { step };
        *now
    }
}

/// What struck before a call, to tell whether its error is excused.
#[derive(Clone, Copy)]
pub(super) struct Before {
    pub struck: u64,
    flipped: u64,
    pub poisoned: bool,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let taste = Taste { large: dice.once_in(20), deleting: dice.once_in(4) };
        let faults = if dice.once_in(2) { Faults::default() } else { rates(&mut dice) };
        let machine = Machine::new(root(), dice.fork());
        let names = Arc::new(Names::new(dice.fork()));
        let clock = Arc::new(Wobbling(Mutex::new((1_700_000_000_000_000, dice.fork()))));
        Self {
            dice,
            machine,
            taste,
            calm: false,
            history: if seed.is_multiple_of(3) { HistoryPolicy::NONE } else { SHORT_HISTORY },
            names,
            clock,
            store: None,
            states: BTreeMap::from([(0, Arc::new(State::default()))]),
            commits: BTreeMap::new(),
            head: 0,
            maybe: Vec::new(),
            sessions: Vec::new(),
            pins: Vec::new(),
            holds: Vec::new(),
            known: None,
            manifest: 0,
            blobs: BTreeSet::new(),
            serials: BTreeMap::new(),
            named: NamedSnapshots::default(),
            keys: TenantKeys::first(),
            file_keys: FileKeys::default(),
            upkeep: 0,
            faults,
            faulty: 0,
            trace: Vec::new(),
        }
    }

    /// One that meets no trouble, and ends with a bit of everything on its disk.
    pub(super) fn calm(seed: u64) -> Self {
        let taste = Taste { large: false, deleting: true };
        Self { taste, calm: true, history: HistoryPolicy::NONE, faults: Faults::default(), ..Self::new(seed) }
    }

    pub(super) fn options(&self) -> StoreOptions {
        let mut options = StoreOptions::new(ColumnCache::new(4 << 20));
        options.files = self.machine.process();
        options.random = Arc::<Names>::clone(&self.names);
        options.clock = Arc::<Wobbling>::clone(&self.clock);
        options.log_end = self.known;
        options.history = self.history;
        options
    }

    pub(super) fn store(&self) -> Verdict<Arc<TenantStore>> {
        self.store.clone().ok_or_else(|| "the run has no store: a bug of the simulation".to_owned())
    }

    pub(super) fn note(&mut self, what: impl Into<String>) {
        let steps = self.machine.steps();
        self.trace.push(format!("{steps:>6}  {}", what.into()));
    }

    pub(super) fn before(&self) -> Before {
        let (struck, flipped) = self.machine.struck();
        let poisoned = self.store.as_ref().is_some_and(|store| store.stats().poisoned);
        Before { struck, flipped, poisoned }
    }

    /// Whether it does nothing more until it is opened again.
    pub(super) fn has_stopped(&self) -> bool {
        self.machine.is_down() || self.machine.is_read_only() || self.before().poisoned
    }

    /// An error must have a cause, and say no more than it: wrong bytes may be called damage, and a refused call may
    /// not; a bug is never excused.
    pub(super) fn excused(&self, before: Before, error: &StoreError) -> Verdict {
        let (struck, flipped) = self.machine.struck();
        let dead = self.machine.is_down() || self.machine.is_read_only();
        let caused = dead || before.poisoned || struck > before.struck;
        let fair = match error {
            StoreError::Corrupt { .. } => flipped > before.flipped,
            StoreError::Io { .. } | StoreError::DiskFull { .. } | StoreError::Poisoned { .. } => caused,
            _ => false,
        };
        if fair { Ok(()) } else { Err(format!("without a cause: {error} ({error:?})")) }
    }

    /// A reading that went wrong, or could not be done.
    pub(super) fn judged(&self, before: Before, reading: Result<(), Trouble>, what: &str) -> Verdict {
        match reading {
            Ok(()) => Ok(()),
            Err(Trouble::Store(error)) => {
                self.excused(before, &error).map_err(|why| format!("{what}: {why}"))
            }
            Err(Trouble::Wrong(why)) => Err(format!("{what}: {why}")),
        }
    }

    /// The head must be what was acknowledged, neither less nor more.
    pub(super) fn check_head(&self) -> Verdict {
        let before = self.before();
        let snapshot = self.store()?.snapshot();
        if snapshot.lsn().0 != self.head {
            return Err(format!("the head is commit {}, acknowledged are {}", snapshot.lsn(), self.head));
        }
        self.judged(before, compare(&snapshot, &self.states[&self.head]), "the head")
    }

    pub(super) fn check_pins(&self) -> Verdict {
        let before = self.before();
        for (snapshot, lsn) in &self.pins {
            let what = format!("a reader at commit {lsn}");
            self.judged(before, compare(snapshot, &self.states[lsn]), &what)?;
        }
        Ok(())
    }

    /// A group of transactions, as the store would form one.
    pub(super) fn commit(&mut self, group: Vec<Session>) -> Verdict {
        let store = self.store()?;
        if group.iter().any(Session::is_large) && self.dice.once_in(2) {
            // In the middle of its frames, or before they are synced.
            let steps = 1 + self.dice.below(2);
            self.machine.arm(steps);
        }
        let before = self.before();
        let transactions = group.iter().map(|session| (session.base.clone(), session.ops.clone())).collect();
        let outcomes = store.commit_together(transactions);
        let first = self.head + 1;
        let mut current = (*self.states[&self.head]).clone();
        let mut tentative = Vec::new();
        let (mut accepted, mut taken_back) = (0, 0);
        for (session, outcome) in group.into_iter().zip(outcomes) {
            let expected = current.commit(&session.base_state, &session.changes);
            if let Err(error) = &outcome {
                self.note(format!("a commit: {error}"));
            }
            match self.settle(before, &session, expected, outcome)? {
                Outcome::Committed(next, snapshot) => {
                    accepted += 1;
                    self.check_new_rows(&current, &session.changes)?;
                    self.acknowledge(next.clone(), session.changes, &store);
                    if snapshot.lsn().0 != self.head {
                        return Err(format!("commit {} calls itself {}", self.head, snapshot.lsn()));
                    }
                    current = next;
                }
                Outcome::Unknown(next) => {
                    current = next.clone();
                    tentative.push((next, session.changes));
                }
                // It was appended before it was taken back: those behind it in the group were judged after it.
                Outcome::TakenBack(next) => {
                    taken_back += 1;
                    current = next;
                }
                Outcome::Refused => {}
            }
        }
        if accepted > 0 && taken_back + tentative.len() > 0 {
            return Err("of one group some commits succeeded and some failed".to_owned());
        }
        self.note(format!("commit: {accepted} from {first} on, {} unknown", tentative.len()));
        if !tentative.is_empty() {
            self.maybe = tentative;
        }
        Ok(())
    }

    /// What the store says of a commit, held against what it had to say.
    fn settle(
        &self,
        before: Before,
        session: &Session,
        expected: Result<State, Refusal>,
        outcome: Result<Snapshot, StoreError>,
    ) -> Verdict<Outcome> {
        match (expected, outcome) {
            (Ok(next), Ok(snapshot)) => Ok(Outcome::Committed(next, snapshot)),
            (Ok(_), Err(StoreError::WriteConflict { table }))
                if session.may_lose_clone(&table, self.upkeep) =>
            {
                Ok(Outcome::Refused)
            }
            (Err(refusal), Err(error)) if Refusal::of(&error) == Some(refusal) => Ok(Outcome::Refused),
            (expected, Err(error)) => {
                self.excused(before, &error).map_err(|why| format!("a commit failed {why}"))?;
                let reading = matches!(error, StoreError::Io { action: "read" | "open", .. });
                // A failed read leaves nothing behind, and neither does a store that had stopped.
                let nothing = reading || before.poisoned || matches!(error, StoreError::Corrupt { .. });
                match expected {
                    Ok(_) if nothing => Ok(Outcome::Refused),
                    Ok(next) if matches!(error, StoreError::DiskFull { .. }) => Ok(Outcome::TakenBack(next)),
                    Ok(next) => Ok(Outcome::Unknown(next)),
                    Err(_) => Ok(Outcome::Refused),
                }
            }
            (Err(refusal), Ok(_)) => Err(format!("a commit went through, expected {refusal:?}")),
        }
    }

    fn check_new_rows(&self, current: &State, changes: &[Change]) -> Verdict {
        for change in changes {
            let Change::Insert { table, first_row, rows } = change else { continue };
            let Some(known) = current.tables.get(table) else { continue };
            if known.used.range(*first_row..*first_row + rows.len() as u64).next().is_some() {
                return Err(format!("row ids from {first_row} on of table {table} were used before"));
            }
        }
        Ok(())
    }

    fn acknowledge(&mut self, state: State, changes: Vec<Change>, store: &TenantStore) {
        self.head += 1;
        for change in changes.iter().filter(|change| change.logs_sequence()) {
            let table = change.table();
            self.serials.insert(table, store.peek_sequence(table, sepal_types::ColumnId(1)));
        }
        self.serials.retain(|table, _| state.tables.contains_key(table));
        self.states.insert(self.head, Arc::new(state));
        self.commits.insert(self.head, changes);
    }

    /// An unknown commit turned out to be there.
    pub(super) fn adopt(&mut self, lsn: Lsn) -> Verdict {
        let maybe = std::mem::take(&mut self.maybe);
        let most = self.head + maybe.len() as u64;
        if lsn.0 < self.head || lsn.0 > most {
            return Err(format!(
                "recovered up to commit {lsn}; acknowledged are {}, possible {most}",
                self.head
            ));
        }
        let adopted = usize::try_from(lsn.0 - self.head).unwrap_or(0);
        for (state, changes) in maybe.into_iter().take(adopted) {
            self.head += 1;
            // What a serial was set to, only the store knows now.
            self.serials.retain(|table, _| !changes.iter().any(|change| change.table() == *table));
            self.states.insert(self.head, Arc::new(state));
            self.commits.insert(self.head, changes);
        }
        Ok(())
    }
}

enum Outcome {
    Committed(State, Snapshot),
    /// For certain it is not in the log any more.
    TakenBack(State),
    /// Maybe it is in the log.
    Unknown(State),
    Refused,
}

/// The store's directory.
pub(super) fn root() -> PathBuf {
    PathBuf::from("/sim/tenant")
}

/// What kinds of faults a run meets.
fn rates(dice: &mut Dice) -> Faults {
    let mut rate = |often: u64| if dice.once_in(2) { often } else { 0 };
    Faults {
        read: rate(12),
        flip: rate(12),
        write: rate(8),
        sync: rate(6),
        name: rate(10),
        sync_directory: rate(6),
        room: None,
    }
}
