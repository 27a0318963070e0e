//! Clients that do one thing over and over for a time, and how long each turn took.
//!
//! Used by `wire_load` and `pipeline_load`.

use std::{
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use crate::{
    Failure,
    connection::{Connection, Target},
};

/// How long and how many at once.
pub struct Load {
    pub clients: usize,
    /// Not measured: caches fill and the processor reaches its speed.
    pub warm_up: Duration,
    pub duration: Duration,
    /// Statements that each client runs first.
    pub settings: Vec<String>,
}

/// What came of it.
pub struct Timing {
    pub clients: usize,
    /// Of all clients, ascending.
    pub latencies: Vec<Duration>,
    /// From the common start to the last end.
    elapsed: Duration,
}

/// One client's latencies, and when it began and ended.
type Times = (Vec<Duration>, Instant, Instant);

impl Load {
    /// `prepare` makes a client's turn, which gets the turn's number.
    pub fn run<T>(
        &self,
        target: &Target,
        prepare: impl Fn(&mut Connection) -> Result<T, Failure> + Sync,
    ) -> Result<Timing, Failure>
    where
        T: FnMut(&mut Connection, usize) -> Result<(), Failure>,
    {
        let start = Barrier::new(self.clients);
        let began = Instant::now();
        let clients: Vec<Result<Times, Failure>> = thread::scope(|scope| {
            let threads: Vec<_> = (0..self.clients)
                .map(|client| {
                    let (start, prepare) = (&start, &prepare);
                    scope.spawn(move || self.client(target, client, start, prepare))
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| Err("a client panicked".into())))
                .collect()
        });
        let mut latencies = Vec::new();
        let (mut first, mut last) = (Instant::now(), began);
        for client in clients {
            let (times, start, end) = client?;
            latencies.extend(times);
            (first, last) = (first.min(start), last.max(end));
        }
        latencies.sort_unstable();
        if latencies.is_empty() {
            return Err("not one turn was done in time".into());
        }
        Ok(Timing { clients: self.clients, latencies, elapsed: last - first })
    }

    fn client<T>(
        &self,
        target: &Target,
        client: usize,
        start: &Barrier,
        prepare: &(impl Fn(&mut Connection) -> Result<T, Failure> + Sync),
    ) -> Result<(Vec<Duration>, Instant, Instant), Failure>
    where
        T: FnMut(&mut Connection, usize) -> Result<(), Failure>,
    {
        let ready = self.ready(target, prepare);
        // Everybody waits for everybody, also for one that failed: it must not leave the others waiting.
        start.wait();
        let (mut connection, mut turn) = ready?;
        // Clients begin at different queries, so that they do not share a cache's luck.
        let mut number = client * 7919;
        let warm = Instant::now();
        while warm.elapsed() < self.warm_up {
            turn(&mut connection, number)?;
            number += 1;
        }
        let began = Instant::now();
        let mut times = Vec::with_capacity(1 << 16);
        let mut now = began;
        while now - began < self.duration {
            turn(&mut connection, number)?;
            number += 1;
            let done = Instant::now();
            times.push(done - now);
            now = done;
        }
        Ok((times, began, now))
    }

    fn ready<T>(
        &self,
        target: &Target,
        prepare: &impl Fn(&mut Connection) -> Result<T, Failure>,
    ) -> Result<(Connection, T), Failure> {
        let mut connection = Connection::open(target)?;
        for setting in &self.settings {
            connection.query(setting)?;
        }
        let turn = prepare(&mut connection)?;
        Ok((connection, turn))
    }
}

impl Timing {
    pub fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64()
    }

    pub fn mean_us(&self) -> f64 {
        let total: Duration = self.latencies.iter().sum();
        total.as_secs_f64() * 1e6 / self.latencies.len() as f64
    }

    /// The latency that a share of all turns does not exceed.
    pub fn quantile_us(&self, share: f64) -> f64 {
        let at = ((self.latencies.len() as f64 * share) as usize).min(self.latencies.len() - 1);
        self.latencies[at].as_secs_f64() * 1e6
    }
}
