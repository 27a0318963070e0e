//! Keeping a processor awake for a client on this machine that waits for its answer.
//!
//! Used by `busy_poll`, for sessions that wait awake themselves. While its query runs such a client sleeps, and its
//! processor with it; to wake that takes longer than a search does, on a virtual machine several times as long. So a
//! thread that gives way to every other (`SCHED_IDLE`) spins on the processor that the last message came from, until
//! [`AFTER_MESSAGE`] after it: who asks for more than that does not mind the wait. It takes what nobody else wants, but
//! takes it: electricity, and the share of a container whose processors are rationed. A processor of another machine is
//! none of ours.

use std::{
    io,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    thread::{self, Thread},
    time::{Duration, Instant},
};

use parking_lot::RwLock;

/// How long a message keeps the processor awake that it came from.
const AFTER_MESSAGE: Duration = Duration::from_millis(1);
/// Between two looks at the clock.
const SPINS: usize = 32;

/// What keepers count time from.
static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The processors of a server's machine that are kept awake, each by a thread of its own, which is made when it is first
/// needed and sleeps in between.
#[derive(Debug)]
pub struct Awake {
    keepers: RwLock<Vec<Arc<Keeper>>>,
    /// Sessions that have a client to keep awake, and how many may.
    sessions: AtomicUsize,
    most: usize,
}

#[derive(Debug)]
struct Keeper {
    cpu: usize,
    shift: Arc<Shift>,
    thread: Thread,
}

/// When a keeper's work ends, in nanoseconds since [`BEGIN`], and whether it has noticed.
#[derive(Debug, Default)]
struct Shift {
    until: AtomicU64,
    asleep: AtomicBool,
}

/// One session's right to have its client's processor kept awake; given back when it drops.
#[derive(Debug)]
pub struct Place(Arc<Awake>);

impl Place {
    /// `None` when as many sessions have one as may.
    pub fn take(awake: &Arc<Awake>) -> Option<Self> {
        if awake.sessions.fetch_add(1, SeqCst) >= awake.most {
            awake.sessions.fetch_sub(1, SeqCst);
            return None;
        }
        Some(Self(Arc::clone(awake)))
    }

    /// A message has come from this processor.
    pub fn keep(&self, cpu: usize) {
        let found = self.0.keepers.read().iter().find(|keeper| keeper.cpu == cpu).map(Arc::clone);
        if let Some(keeper) = found.or_else(|| self.0.hire(cpu)) {
            keeper.shift.begin(&keeper.thread);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.sessions.fetch_sub(1, SeqCst);
    }
}

impl Awake {
    /// For so many sessions at once.
    pub fn of(most: usize) -> Self {
        Self { keepers: RwLock::default(), sessions: AtomicUsize::new(0), most }
    }

    /// `None` when no thread can be had.
    fn hire(&self, cpu: usize) -> Option<Arc<Keeper>> {
        let mut keepers = self.keepers.write();
        if let Some(keeper) = keepers.iter().find(|keeper| keeper.cpu == cpu) {
            return Some(Arc::clone(keeper));
        }
        let shift = Arc::new(Shift::default());
        let work = Arc::clone(&shift);
        let spawned = thread::Builder::new().name(format!("awake-{cpu}")).spawn(move || match settle(cpu) {
            Ok(()) => work.run(),
            Err(error) => tracing::debug!(%error, cpu, "a processor cannot be kept awake"),
        });
        let keeper = Arc::new(Keeper { cpu, shift, thread: spawned.ok()?.thread().clone() });
        keepers.push(Arc::clone(&keeper));
        Some(keeper)
    }
}

impl Drop for Awake {
    /// Lets the threads go: no session is left that could call them.
    fn drop(&mut self) {
        for keeper in self.keepers.get_mut() {
            keeper.shift.until.store(u64::MAX, SeqCst);
            keeper.thread.unpark();
        }
    }
}

impl Shift {
    fn begin(&self, thread: &Thread) {
        self.until.store(now().saturating_add(AFTER_MESSAGE.as_nanos() as u64), SeqCst);
        if self.asleep.swap(false, SeqCst) {
            thread.unpark();
        }
    }

    /// A keeper's life.
    fn run(&self) {
        loop {
            match self.until.load(SeqCst) {
                u64::MAX => return,
                until if now() < until => (0..SPINS).for_each(|_| std::hint::spin_loop()),
                _ => {
                    self.asleep.store(true, SeqCst);
                    // Whoever has begun a shift in between has not seen it asleep.
                    if now() >= self.until.load(SeqCst) {
                        thread::park();
                    }
                    self.asleep.store(false, SeqCst);
                }
            }
        }
    }
}

fn now() -> u64 {
    BEGIN.elapsed().as_nanos() as u64
}

/// Puts the calling thread on a processor, behind everybody else.
fn settle(cpu: usize) -> io::Result<()> {
    // SAFETY: a `cpu_set_t` of zeroes is the empty set.
    let mut cpus: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    if cpu >= size_of::<libc::cpu_set_t>() * 8 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the processor's number is below the set's size.
    unsafe { libc::CPU_SET(cpu, &mut cpus) };
    let idle = libc::sched_param { sched_priority: 0 };
    // SAFETY: 0 is the calling thread; the pointers are to a set and a parameter that outlive the calls, which only
    // read them.
    let settled = unsafe {
        libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const idle) == 0
            && libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const cpus) == 0
    };
    if settled { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits_for(what: &str, mut holds: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !holds() {
            assert!(begun.elapsed() < Duration::from_secs(20), "{what} in vain");
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_keeper_works_after_a_message_and_sleeps_then() {
        let awake = Arc::new(Awake::of(1));
        let place = Place::take(&awake).expect("nobody has it");
        assert!(Place::take(&awake).is_none(), "one session at a time");
        place.keep(0);
        place.keep(0);
        let keeper = Arc::clone(&awake.keepers.read()[0]);
        assert_eq!(awake.keepers.read().len(), 1, "the same one");
        waits_for("sleep", || keeper.shift.asleep.load(SeqCst));
        keeper.shift.until.store(now() + 3_600_000_000_000, SeqCst);
        keeper.thread.unpark();
        waits_for("work", || !keeper.shift.asleep.load(SeqCst));
        drop(place);
        assert!(Place::take(&awake).is_some(), "a place is given back");
        drop(awake);
        waits_for("the thread's end", || Arc::strong_count(&keeper.shift) == 1);
    }

    #[test]
    fn a_processor_that_there_is_not_is_left_alone() {
        assert!(settle(1 << 20).is_err());
        let awake = Arc::new(Awake::of(1));
        Place::take(&awake).expect("nobody has it").keep(1 << 20);
    }
}
