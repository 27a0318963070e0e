//! Threads of a low priority, and who waits for one.
//!
//! Not the runtime's threads: a thread that has lowered its priority cannot raise it again, and whoever came next would
//! have it. Threads that a job starts (index builds do) inherit the priority. First come, first served: a tenant with
//! much to do comes again after every job, at the end.

use std::{
    collections::VecDeque,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use parking_lot::{Condvar, Mutex};
use sepal_types::{Error, Result};
use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    wake: Condvar,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    /// The lane is gone: threads end.
    over: bool,
}

/// Some threads, and jobs for them.
pub struct Lane {
    queue: Arc<Queue>,
}

impl Lane {
    /// `nice`: added to the priority of the process, 0 to 19.
    pub fn new(name: &str, threads: usize, nice: i32) -> Result<Self> {
        let lane = Self { queue: Arc::default() };
        for number in 0..threads {
            let queue = Arc::clone(&lane.queue);
            let started = thread::Builder::new().name(format!("{name}-{number}")).spawn(move || {
                lower_priority(nice);
                queue.serve();
            });
            started.map_err(|problem| Error::bug(format!("the thread {name} does not start: {problem}")))?;
        }
        Ok(lane)
    }

    /// Runs a job on one of the threads and waits for it; `None` when `unless` comes before it has begun. One that has
    /// begun is waited for in any case.
    ///
    /// Errors: it panicked.
    pub async fn run<T: Send + 'static>(
        &self,
        unless: impl Future<Output = ()>,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Option<Result<T>> {
        let (tell, mut told) = oneshot::channel();
        let taken = Arc::new(AtomicBool::new(false));
        let begun = Arc::clone(&taken);
        self.push(Box::new(move || {
            if !begun.swap(true, Ordering::AcqRel) {
                // Nobody waits any more when the caller was dropped.
                let _ = tell.send(job());
            }
        }));
        let panicked = |_| Error::bug("background work panicked");
        tokio::select! {
            biased;
            done = &mut told => return Some(done.map_err(panicked)),
            () = unless => {}
        }
        if !taken.swap(true, Ordering::AcqRel) {
            return None;
        }
        Some(told.await.map_err(panicked))
    }

    fn push(&self, job: Job) {
        self.queue.waiting.lock().jobs.push_back(job);
        self.queue.wake.notify_one();
    }
}

impl Drop for Lane {
    /// Not joined: a job may hold the last handle on what holds the lane, and would wait for itself.
    fn drop(&mut self) {
        let mut waiting = self.queue.waiting.lock();
        waiting.over = true;
        let jobs = std::mem::take(&mut waiting.jobs);
        drop(waiting);
        self.queue.wake.notify_all();
        drop(jobs);
    }
}

impl Queue {
    fn serve(&self) {
        loop {
            let job = {
                let mut waiting = self.waiting.lock();
                loop {
                    if let Some(job) = waiting.jobs.pop_front() {
                        break job;
                    }
                    if waiting.over {
                        return;
                    }
                    self.wake.wait(&mut waiting);
                }
            };
            // Whoever waits for the job learns of it: what it would have told with is dropped.
            let _ = catch_unwind(AssertUnwindSafe(job));
        }
    }
}

fn lower_priority(nice: i32) {
    // SAFETY: takes numbers only. 0 is the calling thread: Linux keeps priorities by thread.
    let now = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    // SAFETY: as above.
    if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, (now + nice).min(19)) } != 0 {
        let error = io::Error::last_os_error();
        tracing::warn!(%error, "background work runs with the priority of queries");
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, sync::mpsc};

    use super::*;

    #[tokio::test]
    async fn jobs_run_one_after_the_other_and_survive_a_panic() {
        let lane = Lane::new("test", 1, 0).unwrap();
        assert_eq!(lane.run(pending(), || 7).await.unwrap().unwrap(), 7);
        let panicked = lane.run(pending(), || -> u8 { panic!("on purpose") }).await.unwrap();
        assert!(panicked.is_err());
        assert_eq!(lane.run(pending(), || 8).await.unwrap().unwrap(), 8);
    }

    #[tokio::test]
    async fn a_job_that_has_not_begun_can_be_given_up() {
        let lane = Arc::new(Lane::new("test", 1, 0).unwrap());
        let (go, wait) = mpsc::channel::<()>();
        let (began, begun) = oneshot::channel();
        let first = {
            let lane = Arc::clone(&lane);
            tokio::spawn(async move {
                let job = move || {
                    let _ = began.send(());
                    wait.recv().unwrap();
                    1
                };
                lane.run(pending(), job).await
            })
        };
        begun.await.unwrap();
        assert!(lane.run(async {}, || 2).await.is_none(), "the thread is taken");
        go.send(()).unwrap();
        assert_eq!(first.await.unwrap().unwrap().unwrap(), 1);
    }

    #[tokio::test]
    async fn threads_have_the_priority_they_were_given() {
        let lane = Lane::new("test", 1, 19).unwrap();
        let read = || {
            // SAFETY: takes numbers only.
            unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
        };
        assert_eq!(lane.run(pending(), read).await.unwrap().unwrap(), 19);
        assert_ne!(read(), 19, "the others' stays");
    }
}
