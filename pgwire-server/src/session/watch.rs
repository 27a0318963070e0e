//! Everything that can interrupt a session: the clock, a cancel request, the client leaving, another session that ends
//! it, the key being revoked, the server stopping.
//!
//! `session` runs every wait through here. Work is never dropped half done: it is asked to stop through the
//! session's cancel token and then awaited, so that a commit under way ends one way or the other.

use std::{future::Future, io, pin::pin, sync::Arc, time::Duration};

use sepal_database::{CancelToken, Error, Principal, SqlState};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{
    busy_poll::BusyPoll,
    errors::{End, Failure, idle_in_transaction, shutting_down, statement_timeout, terminated, user_request},
    timer::Timer,
    wire::Wire,
};
use crate::server::Shared;

/// How often an idle or busy session looks whether its key is still good. A revoked key is out within a second.
const LIVENESS: Duration = Duration::from_millis(500);

/// The watch over one session.
pub struct Watch {
    shared: Arc<Shared>,
    principal: Principal,
    pub cancel: CancelToken,
    tick: Interval,
    busy: BusyPoll,
    /// Children of the server's tokens: asking them touches no memory that connections share.
    draining: CancellationToken,
    stopping: CancellationToken,
    /// The running statement's time.
    timer: Option<Timer>,
}

impl Watch {
    pub fn new(shared: Arc<Shared>, principal: Principal, cancel: CancelToken) -> Self {
        let mut tick = interval(LIVENESS);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let draining = shared.options.shutdown.child_token();
        let stopping = shared.stop_now.child_token();
        let busy = BusyPoll::new(shared.pollers.clone(), shared.options.limits.busy_poll);
        Self { shared, principal, cancel, tick, busy, draining, stopping, timer: None }
    }

    /// Begins a statement that may take `timeout`.
    pub fn start(&mut self, timeout: Option<Duration>) {
        self.timer = timeout.map(|timeout| Timer::start(timeout, self.cancel.clone()));
    }

    /// No statement is running.
    pub fn finish(&mut self) {
        self.timer = None;
    }

    /// 57P01 once the session was terminated, its key revoked, or the server drains. Asked before every statement.
    pub fn check_alive(&self) -> Result<(), End> {
        if self.draining.is_cancelled() {
            return Err(End::Fatal(shutting_down()));
        }
        self.check_session()
    }

    fn check_session(&self) -> Result<(), End> {
        if self.cancel.is_terminated() {
            return Err(End::Fatal(terminated()));
        }
        if self.shared.database.control().still_valid(&self.principal) {
            return Ok(());
        }
        Err(End::Fatal(
            Error::new(
                SqlState::AdminShutdown,
                "terminating connection because its API key is no longer valid",
            )
            .with_hint("The key was revoked or has expired. Connect with another key."),
        ))
    }

    /// What a *running* statement is stopped for: a drain lets it finish until the server stops for good.
    fn check_running(&self) -> Result<(), End> {
        if self.stopping.is_cancelled() {
            return Err(End::Fatal(shutting_down()));
        }
        self.check_session()
    }

    /// Waits for more input between messages, until `idle_until` if that is given.
    pub async fn input(&mut self, wire: &mut Wire, idle_until: Option<Instant>) -> Result<(), End> {
        let begun = Instant::now();
        let read = match self.busy.input(wire).await {
            Some(read) => read,
            None => self.input_asleep(wire, idle_until).await?,
        };
        self.busy.came(begun.elapsed(), || wire.client_cpu());
        match read? {
            0 => Err(End::Gone),
            _ => Ok(()),
        }
    }

    async fn input_asleep(
        &mut self,
        wire: &mut Wire,
        idle_until: Option<Instant>,
    ) -> Result<io::Result<usize>, End> {
        loop {
            tokio::select! {
                biased;
                read = wire.fill() => return Ok(read),
                () = sleep_until(idle_until.unwrap_or_else(Instant::now)), if idle_until.is_some() => {
                    return Err(End::Fatal(idle_in_transaction()));
                }
                () = self.cancel.terminated() => return Err(End::Fatal(terminated())),
                _ = self.tick.tick() => self.check_alive()?,
            }
        }
    }

    /// Waits for more input *inside* a statement (COPY), which can be cancelled or run out of time.
    pub async fn statement_input(&mut self, wire: &mut Wire) -> Result<(), Failure> {
        loop {
            let expires = self.timer.as_ref().map(|timer| timer.deadline);
            tokio::select! {
                biased;
                read = wire.fill() => return match read.map_err(End::from)? {
                    0 => Err(End::Gone.into()),
                    _ => Ok(()),
                },
                () = sleep_until(expires.unwrap_or_else(Instant::now)), if expires.is_some() => {
                    return Err(statement_timeout().into());
                }
                _ = self.tick.tick() => {
                    self.check_running()?;
                    if self.cancel.is_cancelled() {
                        return Err(user_request().into());
                    }
                }
            }
        }
    }

    /// Runs a piece of a statement to its end, asking it to stop when something interrupts.
    pub async fn run<T>(
        &mut self,
        wire: &mut Wire,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Failure> {
        let mut work = pin!(work);
        // Why the connection is over, once it is.
        let mut end = None;
        loop {
            tokio::select! {
                biased;
                result = &mut work => return match (result, end) {
                    (_, Some(end)) => Err(Failure::Connection(end)),
                    (Err(error), None) if error.state() == SqlState::QueryCanceled => {
                        Err(self.why_cancelled(error))
                    }
                    (result, None) => result.map_err(Failure::Statement),
                },
                read = wire.read_ahead(), if end.is_none() => {
                    if !matches!(read, Ok(1..)) {
                        end = Some(End::Gone);
                        self.cancel.cancel();
                    }
                }
                _ = self.tick.tick(), if end.is_none() => {
                    if let Err(fatal) = self.check_running() {
                        end = Some(fatal);
                        self.cancel.cancel();
                    }
                }
            }
        }
    }

    /// A statement was cancelled.
    fn why_cancelled(&self, error: Error) -> Failure {
        if self.cancel.is_terminated() {
            return End::Fatal(terminated()).into();
        }
        if self.has_expired() { statement_timeout().into() } else { error.into() }
    }

    fn has_expired(&self) -> bool {
        self.timer.as_ref().is_some_and(Timer::has_expired)
    }

    /// Sends what is gathered, at the client's pace.
    pub async fn flush(&mut self, wire: &mut Wire) -> Result<(), End> {
        loop {
            tokio::select! {
                biased;
                flushed = wire.flush() => return Ok(flushed?),
                _ = self.tick.tick() => self.check_running()?,
            }
        }
    }

    /// Between two flushes of a long result: whether the statement may go on.
    pub fn check_statement(&self) -> Result<(), Failure> {
        if self.has_expired() {
            return Err(statement_timeout().into());
        }
        match self.cancel.is_cancelled() {
            true => Err(self.why_cancelled(user_request())),
            false => Ok(()),
        }
    }
}
