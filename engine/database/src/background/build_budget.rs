//! Memory of index builds, of all tenants together.
//!
//! A build says what it needs before it begins (`sepal_index::build_memory`) and waits until others have given back
//! enough, first come, first served. One alone always gets what it needs: a budget that is too small makes builds
//! slow, not impossible. What a flush builds does not wait; its segment gets the index later.

use std::{collections::BTreeSet, time::Duration};

use parking_lot::{Condvar, Mutex};

/// How long at most until somebody who waits looks whether to stop.
const NAP: Duration = Duration::from_millis(50);

pub struct BuildBudget {
    bytes: u64,
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Default)]
struct State {
    taken: u64,
    next: u64,
    /// Who waits, by when they came.
    waiting: BTreeSet<u64>,
}

/// What a build has taken, until it is dropped.
pub struct Share<'a> {
    budget: &'a BuildBudget,
    bytes: u64,
}

impl BuildBudget {
    pub fn new(bytes: u64) -> Self {
        Self { bytes, state: Mutex::default(), freed: Condvar::new() }
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// `None` where it would have to wait.
    pub fn try_take(&self, bytes: u64) -> Option<Share<'_>> {
        let mut state = self.state.lock();
        if !state.waiting.is_empty() || !self.fits(&state, bytes) {
            return None;
        }
        Some(self.give(&mut state, bytes))
    }

    /// Waits for its turn; `None` once `stopped`. Blocking.
    pub fn take(&self, bytes: u64, stopped: &dyn Fn() -> bool) -> Option<Share<'_>> {
        let mut state = self.state.lock();
        let ticket = state.next;
        state.next += 1;
        state.waiting.insert(ticket);
        while !stopped() {
            if state.waiting.first() == Some(&ticket) && self.fits(&state, bytes) {
                state.waiting.remove(&ticket);
                // The next one may fit as well.
                self.freed.notify_all();
                return Some(self.give(&mut state, bytes));
            }
            self.freed.wait_for(&mut state, NAP);
        }
        state.waiting.remove(&ticket);
        self.freed.notify_all();
        None
    }

    fn fits(&self, state: &State, bytes: u64) -> bool {
        state.taken == 0 || state.taken.saturating_add(bytes) <= self.bytes
    }

    fn give(&self, state: &mut State, bytes: u64) -> Share<'_> {
        state.taken += bytes;
        Share { budget: self, bytes }
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.budget.state.lock().taken -= self.bytes;
        self.budget.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
        thread,
    };

    use super::*;

    #[test]
    fn builds_fit_together_or_wait() {
        let budget = BuildBudget::new(100);
        let first = budget.try_take(60).unwrap();
        let second = budget.try_take(40).unwrap();
        assert!(budget.try_take(1).is_none());
        drop(first);
        assert!(budget.try_take(61).is_none());
        drop(second);
        let large = budget.take(1_000, &|| false).unwrap();
        assert!(budget.try_take(1).is_none(), "one alone may take more than there is");
        assert!(budget.take(1, &|| true).is_none(), "who is to stop does not wait");
        drop(large);
        drop(budget.try_take(100).unwrap());
    }

    #[test]
    fn nobody_is_overtaken_and_who_gives_up_lets_others_pass() {
        let budget = Arc::new(BuildBudget::new(100));
        let held = budget.take(50, &|| false).unwrap();
        let give_up = Arc::new(AtomicBool::new(false));
        let large = {
            let (budget, give_up) = (Arc::clone(&budget), Arc::clone(&give_up));
            thread::spawn(move || budget.take(100, &|| give_up.load(Ordering::Relaxed)).is_some())
        };
        while budget.state.lock().waiting.is_empty() {
            thread::yield_now();
        }
        assert!(budget.try_take(10).is_none(), "behind the large one, though it would fit");
        let small = {
            let budget = Arc::clone(&budget);
            thread::spawn(move || budget.take(10, &|| false).is_some())
        };
        give_up.store(true, Ordering::Relaxed);
        assert!(!large.join().unwrap());
        assert!(small.join().unwrap());
        drop(held);
        assert_eq!(budget.state.lock().taken, 0);
    }
}
