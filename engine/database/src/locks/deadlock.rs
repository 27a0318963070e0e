//! Circles of waits: found when a wait begins, and looked for again while it lasts.
//!
//! A circle that somebody is part of only because of his place in line is resolved by letting him go ahead, as
//! Postgres does. Any other ends with an error for the one whose wait closed it.

use std::collections::HashSet;

use sepal_types::{Error, SqlState};

use super::{
    held::{Freed, OwnerId},
    modes::row_mode_name,
    queue::State,
    want::Want,
};

/// One wait of a circle.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Its place in line.
    pub waiter: usize,
    /// Whom it waits for.
    pub owner: OwnerId,
    /// The place of that one's own wait, if that is all it waits for.
    pub ahead: Option<usize>,
}

impl State {
    /// Makes sure that the wait with this ticket can end. What is granted by the way is told to those who wait.
    ///
    /// Errors: 40P01. The wait is still in line.
    pub fn settle(&mut self, ticket: u64) -> Result<(), Error> {
        // Each round moves somebody towards the front.
        for _ in 0..=self.waiters.len() {
            let Some(circle) = self.place(ticket).and_then(|place| self.circle(place)) else {
                return Ok(());
            };
            let Some((behind, ahead)) =
                circle.iter().find_map(|step| step.ahead.map(|ahead| (step.waiter, ahead)))
            else {
                return Err(self.describe(&circle));
            };
            let passing = self.waiters.remove(behind);
            let freed = Freed::of(&passing.want);
            self.waiters.insert(ahead, passing);
            // The one that was passed waits for one more now.
            if self.circle(ahead + 1).is_some() {
                let back = self.waiters.remove(ahead);
                self.waiters.insert(behind, back);
                return Err(self.describe(&circle));
            }
            self.wake(&freed);
        }
        match self.place(ticket).and_then(|place| self.circle(place)) {
            None => Ok(()),
            Some(circle) => Err(self.describe(&circle)),
        }
    }

    /// The waits from this one back to its owner, if there are such.
    fn circle(&self, place: usize) -> Option<Vec<Step>> {
        // No way leads back to one whom nobody waits for. Most who begin to wait are such, and to follow every way from
        // there would take the square of the line's length, while everybody else waits for this table.
        if !self.is_awaited(place) {
            return None;
        }
        let start = self.waiters[place].owner;
        let mut path = Vec::new();
        let mut seen = HashSet::from([start]);
        self.search(place, start, &mut seen, &mut path).then_some(path)
    }

    fn search(
        &self,
        place: usize,
        start: OwnerId,
        seen: &mut HashSet<OwnerId>,
        path: &mut Vec<Step>,
    ) -> bool {
        for step in self.blockers(place) {
            path.push(step);
            if step.owner == start {
                return true;
            }
            if seen.insert(step.owner)
                && let Some(next) = self.waiters.iter().position(|waiter| waiter.owner == step.owner)
                && self.search(next, start, seen, path)
            {
                return true;
            }
            path.pop();
        }
        false
    }

    fn describe(&self, circle: &[Step]) -> Error {
        let line = |step: &Step| {
            let waiter = &self.waiters[step.waiter];
            format!(
                "Process {} waits for {}; blocked by process {}.",
                self.held.pid(waiter.owner),
                named(&waiter.want),
                self.held.pid(step.owner)
            )
        };
        Error::new(SqlState::DeadlockDetected, "deadlock detected")
            .with_detail(circle.iter().map(line).collect::<Vec<_>>().join("\n"))
            .with_hint("Retry the transaction. Transactions that lock in the same order never meet so.")
    }
}

/// A lock as Postgres' message names it, where it has such a lock.
fn named(want: &Want) -> String {
    match want {
        Want::Advisory { key, shared, .. } => {
            let mode = if *shared { "ShareLock" } else { "ExclusiveLock" };
            format!("{mode} on advisory lock [{},{},{}]", key.class, key.object, key.kind)
        }
        Want::Keys { of, .. } => format!("ShareLock on a new key of relation {}", of.0.0),
        Want::Rows { table, mode, rows, .. } => {
            format!("{} on row {} of relation {}", row_mode_name(*mode), rows.min().unwrap_or(0), table.0)
        }
        Want::Table { table, mode } => format!("{} on relation {}", mode.name(), table.0),
        Want::Unwritten { table, rows } => {
            format!("ShareLock on row {} of relation {}", rows.min().unwrap_or(0), table.0)
        }
    }
}
