//! Requests: what is free is given at once, for the rest one stands in line.
//!
//! The line is one per tenant, in order of arrival. Whoever wants what somebody before him waits for waits too, so
//! that nobody is overtaken for ever; but not behind one who waits for himself.

use tokio::sync::oneshot;

use super::{
    deadlock::Step,
    held::{Freed, Holdings, OwnerId},
    want::Want,
};

/// Holders and the line.
#[derive(Debug, Default)]
pub struct State {
    pub held: Holdings,
    pub waiters: Vec<Waiter>,
    next_owner: OwnerId,
    next_ticket: u64,
}

/// One who waits. An owner waits for one request at a time.
#[derive(Debug)]
pub struct Waiter {
    pub ticket: u64,
    pub owner: OwnerId,
    /// What is not granted yet.
    pub want: Want,
    granted: oneshot::Sender<()>,
}

impl State {
    pub fn enlist(&mut self, pid: i32) -> OwnerId {
        self.next_owner += 1;
        self.held.enlist(self.next_owner, pid);
        self.next_owner
    }

    /// Grants what is free of `want`; the rest is returned.
    pub fn take(&mut self, owner: OwnerId, want: Want) -> Option<Want> {
        take(&mut self.held, &self.waiters, owner, &want)
    }

    /// Stands in line for `want`, none of which is granted.
    pub fn stand(&mut self, owner: OwnerId, want: Want) -> (u64, oneshot::Receiver<()>) {
        let (granted, told) = oneshot::channel();
        self.next_ticket += 1;
        self.held.exclusive.more(&want);
        self.waiters.push(Waiter { ticket: self.next_ticket, owner, want, granted });
        (self.next_ticket, told)
    }

    pub fn place(&self, ticket: u64) -> Option<usize> {
        self.waiters.iter().position(|waiter| waiter.ticket == ticket)
    }

    /// Steps out of the line, if still in it.
    pub fn leave(&mut self, ticket: u64) {
        if let Some(place) = self.place(ticket) {
            let gone = self.waiters.remove(place);
            self.held.exclusive.less(&gone.want);
            self.wake(&Freed::of(&gone.want));
        }
    }

    /// Grants to those who wait, in their order, what has become free.
    pub fn wake(&mut self, freed: &Freed) {
        let mut place = 0;
        while place < self.waiters.len() {
            let (ahead, rest) = self.waiters.split_at_mut(place);
            let waiter = &mut rest[0];
            if !freed.concerns(&waiter.want) {
                place += 1;
                continue;
            }
            match take(&mut self.held, ahead, waiter.owner, &waiter.want) {
                Some(left) => {
                    waiter.want = left;
                    place += 1;
                }
                None => {
                    let done = self.waiters.remove(place);
                    self.held.exclusive.less(&done.want);
                    // Nobody listens any more: what it has got goes with its transaction.
                    let _ = done.granted.send(());
                }
            }
        }
    }

    /// Whether anybody waits for the one at `place`: for what he has, or for his turn after him.
    pub fn is_awaited(&self, place: usize) -> bool {
        let awaited = &self.waiters[place];
        self.waiters.iter().enumerate().filter(|(_, waiter)| waiter.owner != awaited.owner).any(
            |(at, waiter)| {
                let behind = || queued_behind(&self.held, waiter.owner, &waiter.want, awaited).is_some();
                self.held.clash(awaited.owner, &waiter.want).is_some() || (at > place && behind())
            },
        )
    }

    /// Whom the one at `place` waits for: first those who hold, then those before it in line (with their place).
    pub fn blockers(&self, place: usize) -> Vec<Step> {
        let waiter = &self.waiters[place];
        let mut steps = Vec::new();
        for holder in self.held.holders(&waiter.want) {
            if holder != waiter.owner && self.held.clash(holder, &waiter.want).is_some() {
                steps.push(Step { waiter: place, owner: holder, ahead: None });
            }
        }
        for (ahead, other) in self.waiters[..place].iter().enumerate() {
            if queued_behind(&self.held, waiter.owner, &waiter.want, other).is_some() {
                steps.push(Step { waiter: place, owner: other.owner, ahead: Some(ahead) });
            }
        }
        steps
    }
}

fn take(held: &mut Holdings, ahead: &[Waiter], owner: OwnerId, want: &Want) -> Option<Want> {
    let mut blocked = held.blocked(owner, want);
    for waiter in ahead {
        // Where many wait for one row, whoever has it decides for all of them.
        if blocked.as_ref().is_some_and(|part| part.is_all_of(want)) {
            break;
        }
        blocked = Want::join(blocked, queued_behind(held, owner, want, waiter));
    }
    match &blocked {
        None => held.grant(owner, want),
        Some(part) => {
            if let Some(free) = want.without(part) {
                held.grant(owner, &free);
            }
        }
    }
    blocked
}

/// The part of `want` for which `owner` has to let `waiter` go first. What `waiter` waits for because `owner` has it
/// already is not: each would wait for the other.
fn queued_behind(held: &Holdings, owner: OwnerId, want: &Want, waiter: &Waiter) -> Option<Want> {
    if waiter.owner == owner {
        return None;
    }
    let part = want.clash(&waiter.want)?;
    match held.clash(owner, &waiter.want) {
        None => Some(part),
        Some(own) => part.without(&own),
    }
}
