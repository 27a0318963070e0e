//! What index builds and large merges of all tenants share: so much memory, and whose turn it is to have some.
//!
//! A build says what it needs before it begins (`sepal_index::build_memory`) and waits until others have given back
//! enough. One alone always gets what it needs: a budget that is too small makes builds slow, not impossible. What a
//! flush builds does not wait; its segment gets the index later.
//!
//! Tenants are served in turn, so that one who begins fifty builds is waited for once and not fifty times; a tenant's own
//! come in their order. While nobody waits, one tenant may have all there is. Nobody is overtaken: a large build would
//! wait for ever behind small ones.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use parking_lot::{Condvar, Mutex};
use sepal_types::TenantId;

/// How long at most until somebody who waits looks whether to stop.
const NAP: Duration = Duration::from_millis(50);

pub struct Budget {
    bytes: u64,
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Default)]
struct State {
    taken: u64,
    next: u64,
    /// Tenants of which somebody waits, by whose turn it is.
    turns: VecDeque<TenantId>,
    /// Who waits of each, by when they came.
    waiting: HashMap<TenantId, VecDeque<u64>>,
}

/// What somebody has taken, until it is dropped.
pub struct Share<'a> {
    budget: &'a Budget,
    bytes: u64,
}

impl Budget {
    pub fn new(bytes: u64) -> Self {
        Self { bytes, state: Mutex::default(), freed: Condvar::new() }
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// `None` where it would have to wait.
    pub fn try_take(&self, bytes: u64) -> Option<Share<'_>> {
        let mut state = self.state.lock();
        if !state.turns.is_empty() || !self.fits(&state, bytes) {
            return None;
        }
        Some(self.give(&mut state, bytes))
    }

    /// Waits for its turn; `None` once `stopped`. Blocking.
    pub fn take(&self, tenant: TenantId, bytes: u64, stopped: &dyn Fn() -> bool) -> Option<Share<'_>> {
        let mut state = self.state.lock();
        let ticket = state.enter(tenant);
        while !stopped() {
            if state.is_first(tenant, ticket) && self.fits(&state, bytes) {
                state.leave(tenant, ticket);
                // The next one may fit as well.
                self.freed.notify_all();
                return Some(self.give(&mut state, bytes));
            }
            self.freed.wait_for(&mut state, NAP);
        }
        state.leave(tenant, ticket);
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

impl State {
    fn enter(&mut self, tenant: TenantId) -> u64 {
        let ticket = self.next;
        self.next += 1;
        let own = self.waiting.entry(tenant).or_default();
        if own.is_empty() {
            self.turns.push_back(tenant);
        }
        own.push_back(ticket);
        ticket
    }

    fn is_first(&self, tenant: TenantId, ticket: u64) -> bool {
        let own = self.waiting.get(&tenant);
        self.turns.front() == Some(&tenant) && own.and_then(VecDeque::front) == Some(&ticket)
    }

    /// Served, or given up. Who was the tenant's first makes it the others' turn: its next comes at their end.
    fn leave(&mut self, tenant: TenantId, ticket: u64) {
        let Some(own) = self.waiting.get_mut(&tenant) else { return };
        let was_first = own.front() == Some(&ticket);
        own.retain(|waiting| *waiting != ticket);
        let is_last = own.is_empty();
        if is_last {
            self.waiting.remove(&tenant);
        }
        if was_first {
            self.turns.retain(|waiting| *waiting != tenant);
            if !is_last {
                self.turns.push_back(tenant);
            }
        }
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.budget.state.lock().taken -= self.bytes;
        self.budget.freed.notify_all();
    }
}

#[cfg(test)]
mod tests;
