//! That builds fit together or wait, each tenant in its turn, and that nothing stays taken.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use super::*;

fn tenant(number: u8) -> TenantId {
    TenantId([number; 16])
}

fn go_on() -> bool {
    false
}

#[test]
fn builds_fit_together_or_wait() {
    let budget = Budget::new(100);
    let first = budget.try_take(60).unwrap();
    let second = budget.try_take(40).unwrap();
    assert!(budget.try_take(1).is_none());
    drop(first);
    assert!(budget.try_take(61).is_none());
    drop(second);
    let large = budget.take(tenant(1), 1_000, &go_on).unwrap();
    assert!(budget.try_take(1).is_none(), "one alone may take more than there is");
    assert!(budget.take(tenant(1), 1, &|| true).is_none(), "who is to stop does not wait");
    drop(large);
    drop(budget.try_take(100).unwrap());
}

/// Somebody who waits, and notes when served; returns once it does wait.
fn wait(
    budget: &Arc<Budget>,
    served: &Arc<Mutex<Vec<&'static str>>>,
    of: u8,
    bytes: u64,
    name: &'static str,
) -> JoinHandle<()> {
    let before = waiting(budget);
    let handle = {
        let (budget, served) = (Arc::clone(budget), Arc::clone(served));
        thread::spawn(move || {
            let share = budget.take(tenant(of), bytes, &go_on).unwrap();
            served.lock().push(name);
            drop(share);
        })
    };
    while waiting(budget) == before {
        thread::yield_now();
    }
    handle
}

fn waiting(budget: &Budget) -> usize {
    budget.state.lock().waiting.values().map(VecDeque::len).sum()
}

#[test]
fn tenants_have_their_turns() {
    let (budget, served) = (Arc::new(Budget::new(100)), Arc::default());
    let held = budget.take(tenant(9), 100, &go_on).unwrap();
    // All of the budget, so that one is served after the other.
    let waiters: Vec<_> = [(1, "a1"), (1, "a2"), (1, "a3"), (2, "b1"), (3, "c1"), (2, "b2")]
        .into_iter()
        .map(|(of, name)| wait(&budget, &served, of, 100, name))
        .collect();
    assert!(budget.try_take(1).is_none());
    drop(held);
    waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
    assert_eq!(*served.lock(), ["a1", "b1", "c1", "a2", "b2", "a3"]);
    let state = budget.state.lock();
    assert!(state.taken == 0 && state.turns.is_empty() && state.waiting.is_empty());
}

#[test]
fn nobody_is_overtaken_and_who_gives_up_lets_others_pass() {
    let budget = Arc::new(Budget::new(100));
    let held = budget.take(tenant(1), 50, &go_on).unwrap();
    let give_up = Arc::new(AtomicBool::new(false));
    let large = {
        let (budget, give_up) = (Arc::clone(&budget), Arc::clone(&give_up));
        thread::spawn(move || budget.take(tenant(1), 100, &|| give_up.load(Ordering::Relaxed)).is_some())
    };
    while waiting(&budget) == 0 {
        thread::yield_now();
    }
    assert!(budget.try_take(10).is_none(), "behind the large one, though it would fit");
    let served = Arc::default();
    let small = [wait(&budget, &served, 2, 10, "other"), wait(&budget, &served, 1, 10, "own")];
    assert!(served.lock().is_empty());
    give_up.store(true, Ordering::Relaxed);
    assert!(!large.join().unwrap());
    small.into_iter().for_each(|waiter| waiter.join().unwrap());
    drop(held);
    let state = budget.state.lock();
    assert!(state.taken == 0 && state.turns.is_empty() && state.waiting.is_empty());
}

#[test]
fn a_share_comes_back_after_a_panic() {
    let budget = Budget::new(100);
    let build = || {
        let _share = budget.take(tenant(1), 100, &go_on);
        panic!("on purpose");
    };
    assert!(catch_unwind(AssertUnwindSafe(build)).is_err());
    assert!(budget.try_take(100).is_some());
}
