//! Busy polling: a session whose client comes back at once looks for the next message before it goes to sleep.
//!
//! Used by `watch` between messages. A core that has gone to sleep takes tens of microseconds to wake, on a virtual
//! machine more than a whole search takes. So a session that was asked again within [`limit`](BusyPoll::new) of its
//! last answer waits awake, for as long, and no longer than that after the last message of a burst. It yields to other
//! threads between two looks, to other tasks of the runtime now and then, and only as many sessions do this at once as
//! leave half of the cores. The client's processor sleeps while its query runs: if it is this machine's, it is kept
//! `awake`.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    awake::{self, Awake},
    wire::Wire,
};

/// Messages of a burst for which one look at the client's processor does: it is a system call, and who asks again
/// at once seldom moves.
const MESSAGES_PER_LOOK: u32 = 64;

/// So long a session that is asked without a pause keeps its thread before the runtime's other tasks have a turn there.
/// A turn wakes another thread of the runtime, which may take the session over: at every half millisecond that was
/// 1,700 times a second. Who waits meanwhile is taken up by the threads that do not poll.
const TURN: Duration = Duration::from_millis(5);

/// The sessions of a server that wait awake.
#[derive(Debug)]
pub struct Pollers {
    now: AtomicUsize,
    most: usize,
    /// Their clients' processors, where those are this machine's.
    clients: Arc<Awake>,
}

impl Default for Pollers {
    fn default() -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        // With one core there is nobody to wait for.
        Self::of(cores / 2)
    }
}

impl Pollers {
    fn of(most: usize) -> Self {
        Self { now: AtomicUsize::new(0), most, clients: Arc::new(Awake::of(most)) }
    }
}

/// One session's habit.
pub struct BusyPoll {
    pollers: Arc<Pollers>,
    limit: Duration,
    /// The last message came within `limit` of the answer before it.
    soon: bool,
    /// For as long as that is so, its client is kept awake too.
    client: Option<awake::Place>,
    /// When the runtime's other tasks last had a turn.
    turn: Instant,
    /// The client's processor when that was last looked at, and for how many messages more it counts.
    cpu: Option<usize>,
    counts: u32,
}

impl BusyPoll {
    /// `limit` zero: always asleep.
    pub fn new(pollers: Arc<Pollers>, limit: Duration) -> Self {
        Self { pollers, limit, soon: false, client: None, turn: Instant::now(), cpu: None, counts: 0 }
    }

    /// Waits awake. `None`: nothing came for as long as that pays, wait asleep.
    pub async fn input(&mut self, wire: &mut Wire) -> Option<io::Result<usize>> {
        if !self.soon || !wire.is_between_messages() {
            return None;
        }
        let _place = Place::take(&self.pollers)?;
        let begun = Instant::now();
        if begun.duration_since(self.turn) >= TURN {
            self.turn = begun;
            tokio::task::yield_now().await;
        }
        let again = || {
            // Whoever shares the core goes first.
            thread::yield_now();
            begun.elapsed() < self.limit
        };
        loop {
            if let Some(read) = wire.read_now(again) {
                return Some(read);
            }
            if !again() {
                self.soon = false;
                self.client = None;
                return None;
            }
            // The runtime knows of what comes by TLS. Where it is not needed it is not asked: each time it would wake
            // another of its threads, to take this session over.
            tokio::task::yield_now().await;
        }
    }

    /// A message came, so long after the wait began. `cpu`: from this processor of this machine; not asked each time.
    pub fn came(&mut self, after: Duration, cpu: impl FnOnce() -> Option<usize>) {
        self.soon = after < self.limit;
        if !self.soon {
            (self.client, self.counts) = (None, 0);
            return;
        }
        if self.counts == 0 {
            (self.cpu, self.counts) = (cpu(), MESSAGES_PER_LOOK);
        }
        self.counts -= 1;
        if let Some(cpu) = self.cpu {
            self.client = self.client.take().or_else(|| awake::Place::take(&self.pollers.clients));
            self.client.iter().for_each(|client| client.keep(cpu));
        }
    }
}

/// Counted among [`Pollers`] until dropped.
struct Place<'a>(&'a Pollers);

impl<'a> Place<'a> {
    fn take(pollers: &'a Pollers) -> Option<Self> {
        if pollers.now.fetch_add(1, Relaxed) >= pollers.most {
            pollers.now.fetch_sub(1, Relaxed);
            return None;
        }
        Some(Self(pollers))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn so_many_wait_awake_and_no_more() {
        let pollers = Pollers::of(1);
        let first = Place::take(&pollers);
        assert!(first.is_some() && Place::take(&pollers).is_none());
        drop(first);
        assert!(Place::take(&pollers).is_some(), "a place is given back");
        let single = Pollers::of(0);
        assert!(Place::take(&single).is_none(), "one core");
    }

    #[test]
    fn only_a_client_that_comes_back_at_once_is_waited_for() {
        let limit = Duration::from_micros(100);
        let mut busy = BusyPoll::new(Arc::default(), limit);
        assert!(!busy.soon, "nobody has come yet");
        busy.came(limit / 2, || None);
        assert!(busy.soon);
        busy.came(limit, || None);
        assert!(!busy.soon);
        let mut never = BusyPoll::new(Arc::default(), Duration::ZERO);
        never.came(Duration::ZERO, || None);
        assert!(!never.soon);
    }

    #[test]
    fn a_client_s_processor_is_looked_at_once_in_a_while() {
        let limit = Duration::from_micros(100);
        let mut busy = BusyPoll::new(Arc::new(Pollers::of(0)), limit);
        let looks = Cell::new(0);
        let look = || {
            looks.set(looks.get() + 1);
            Some(0)
        };
        (0..MESSAGES_PER_LOOK).for_each(|_| busy.came(limit / 2, look));
        assert_eq!(looks.get(), 1);
        busy.came(limit / 2, look);
        assert_eq!(looks.get(), 2, "it may have moved");
        busy.came(limit, look);
        assert_eq!(looks.get(), 2, "nobody is kept awake");
        busy.came(limit / 2, look);
        assert_eq!(looks.get(), 3, "all the more after a pause");
    }
}
