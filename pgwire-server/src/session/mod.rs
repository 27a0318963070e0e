//! One client's connection, from its first byte to its last: one task, one database session, one state.
//!
//! Called by `server`. The states, and the file that holds each:
//!
//! ```text
//! socket ─ startup (TLS, parameters) ─ auth (key) ─┬─ simple    Query
//!                                                  ├─ extended  Parse Bind Describe Execute Close Sync Flush
//!                                                  │            after an error: everything up to Sync is skipped
//!                                                  └─ copy_in, copy_out   inside a statement of either
//! ```
//!
//! A malformed frame, a revoked key and a panic end this connection and no other. Nothing here parses SQL or
//! knows a tenant's data; statements go to `sepal_database::Session`.

mod auth;
mod awake;
mod busy_poll;
mod cancel;
mod copy_in;
mod copy_out;
mod errors;
mod extended;
mod held;
mod keep_alive;
mod options;
mod rows;
mod seats;
mod simple;
mod socket;
mod startup;
mod timer;
mod told;
mod watch;
mod wire;

#[cfg(test)]
mod tests;

use std::{net::SocketAddr, panic::AssertUnwindSafe, sync::Arc};

use futures::FutureExt;
use prometheus::IntCounter;
use sepal_database::{Error, Session, SqlState, TenantId, TransactionStatus};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep, timeout_at},
};

use self::{
    auth::Login,
    errors::{End, Failure, protocol},
    held::Held,
    startup::Opened,
    watch::Watch,
    wire::{Frame, Wire},
};
use crate::{
    frame::{Frontend, Rejection, Severity, decode, error_response, notice_response, write},
    server::Shared,
};

pub use self::{
    busy_poll::Pollers,
    cancel::CancelRegistry,
    keep_alive::keep_alive,
    seats::{Arrival, Seats},
    told::Told,
};

/// Serves one client to the end.
pub(crate) async fn run(shared: Arc<Shared>, socket: TcpStream, peer: SocketAddr, arrival: Arrival) {
    let admitted = tokio::select! {
        biased;
        admitted = admit(&shared, socket, peer) => admitted,
        () = arrival.evicted() => {
            shared.metrics.connections_refused.with_label_values(&["evicted"]).inc();
            None
        }
    };
    // It has logged in and is counted there now.
    drop(arrival);
    if let Some((wire, login)) = admitted {
        converse(&shared, wire, login).await;
    }
}

/// TLS, startup packet, authentication: what has to be done within the startup timeout. `None`: the client is gone,
/// and was told why if that could be told.
async fn admit(shared: &Arc<Shared>, socket: TcpStream, peer: SocketAddr) -> Option<(Wire, Login)> {
    let expires = Instant::now() + shared.options.limits.startup_timeout;
    let refused = |reason: &str| shared.metrics.connections_refused.with_label_values(&[reason]).inc();
    let (mut wire, request) = match timeout_at(expires, startup::negotiate(shared, socket, peer)).await {
        Ok(Ok(Opened::Client(wire, request))) => (wire, request),
        Ok(Ok(Opened::Refused(wire, error))) => {
            wire.end(Some(&error)).await;
            return None;
        }
        Ok(Ok(Opened::Done)) => return None,
        Ok(Err(error)) => {
            tracing::debug!(%error, %peer, "no startup packet");
            return None;
        }
        Err(_) => {
            refused("timeout");
            return None;
        }
    };
    let login = match timeout_at(expires, auth::log_in(shared, &mut wire, &request)).await {
        Ok(login) => login,
        Err(_) => {
            refused("timeout");
            Err(End::Fatal(Error::new(SqlState::QueryCanceled, "canceling authentication due to timeout")))
        }
    };
    match login {
        Ok(login) => {
            login.session.set_client(peer);
            return Some((wire, login));
        }
        Err(End::Fatal(error)) => wire.end(Some(&error)).await,
        Err(End::Gone) => wire.end(None).await,
    }
    None
}

async fn converse(shared: &Arc<Shared>, wire: Wire, login: Login) {
    let Login { session, principal, seat, registration } = login;
    let tenant = principal.tenant;
    tracing::debug!(tenant = %principal.tenant_name, key = %principal.key_id, "session opened");
    let watch = Watch::new(shared.clone(), principal, session.cancel_token());
    let limits = &shared.options.limits;
    let named = session.named_statements();
    named.limit(limits.max_statements, limits.max_held_bytes);
    session.limit_portals(limits.max_portals);
    let mut connection = Connection {
        wire,
        session,
        watch,
        held: Held::new(named, limits.max_portals),
        skipping: false,
        implicit: false,
        failed: false,
        idle_until: None,
        tenant,
        simple_statements: shared.metrics.statements.with_label_values(&["simple"]),
        extended_statements: shared.metrics.statements.with_label_values(&["extended"]),
        shared: shared.clone(),
    };
    // A panic must not pass for a lost connection: the client is told, and only this one is affected.
    let end = match AssertUnwindSafe(connection.serve()).catch_unwind().await {
        Ok(end) => end,
        Err(_) => {
            shared.metrics.panics.inc();
            End::Fatal(
                Error::bug("the server met an unexpected condition and closed this connection")
                    .with_hint("Reconnect. Please report what you ran: this is a bug."),
            )
        }
    };
    drop(registration);
    let Connection { wire, session, .. } = connection;
    drop(session);
    match &end {
        End::Fatal(error) => {
            shared.metrics.errors.with_label_values(&[error.state().code()]).inc();
            shared.told.note(Some(tenant), error);
            wire.end(Some(error)).await;
        }
        End::Gone => wire.end(None).await,
    }
    drop(seat);
}

/// An authenticated client.
struct Connection {
    wire: Wire,
    session: Session,
    watch: Watch,
    held: Held,
    /// An extended message failed: all are skipped up to Sync.
    skipping: bool,
    /// An implicit transaction is open: of a pipeline up to Sync, or of one query string.
    implicit: bool,
    /// Something failed in it.
    failed: bool,
    /// When a client that is in a transaction and sends nothing is sent away.
    idle_until: Option<Instant>,
    tenant: TenantId,
    simple_statements: IntCounter,
    extended_statements: IntCounter,
    shared: Arc<Shared>,
}

impl Connection {
    async fn serve(&mut self) -> End {
        loop {
            let handled = match self.next_frame().await {
                Ok(frame) => {
                    self.idle_until = None;
                    self.handle(&frame).await
                }
                Err(end) => Err(end),
            };
            if let Err(end) = handled {
                return end;
            }
        }
    }

    async fn next_frame(&mut self) -> Result<Frame, End> {
        loop {
            match self.wire.take_frame() {
                Ok(Some(frame)) => return Ok(frame),
                Ok(None) => self.wait().await?,
                Err(rejection) => return Err(self.violated(&rejection)),
            }
        }
    }

    /// Waits for more input. What the client holds is let go of when it gets too old meanwhile.
    async fn wait(&mut self) -> Result<(), End> {
        loop {
            let limit = self.session.max_snapshot_age();
            let ages = [self.session.snapshot_expires_in(), self.held.results_expire_in(limit)];
            let Some(left) = ages.into_iter().flatten().min() else {
                return self.watch.input(&mut self.wire, self.idle_until).await;
            };
            tokio::select! {
                biased;
                read = self.watch.input(&mut self.wire, self.idle_until) => return read,
                () = sleep(left) => {}
            }
            self.held.expire_results(limit);
            if self.session.expire_snapshot() {
                self.held.drop_portals();
            }
            if !self.held.is_sending() {
                self.session.forget_shown();
            }
        }
    }

    fn violated(&self, rejection: &Rejection) -> End {
        self.shared.metrics.protocol_violations.inc();
        End::Fatal(rejection.error().clone())
    }

    async fn handle(&mut self, frame: &Frame) -> Result<(), End> {
        let message = match decode(frame.kind, &frame.body) {
            Ok(message) => message,
            Err(rejection @ Rejection::Frame(_)) => return Err(self.violated(&rejection)),
            Err(Rejection::Content(error)) => return self.content_error(frame.kind, &error).await,
        };
        if self.skipping && !matches!(message, Frontend::Sync | Frontend::Terminate) {
            return Ok(());
        }
        let extended = match message {
            Frontend::Query(sql) => return self.query(sql).await,
            Frontend::Parse(parse) => self.parse(parse).await,
            Frontend::Bind(bind) => self.bind(bind),
            Frontend::Describe(target) => self.describe(target),
            Frontend::Execute { portal, max_rows } => self.execute(portal, max_rows).await,
            Frontend::Close(target) => {
                self.close(target);
                Ok(())
            }
            Frontend::Flush => return self.watch.flush(&mut self.wire).await,
            Frontend::Sync => {
                self.skipping = false;
                return self.ready().await;
            }
            // Left over from a COPY that failed: Postgres ignores them here too.
            Frontend::CopyData(_) | Frontend::CopyDone | Frontend::CopyFail(_) => return Ok(()),
            Frontend::FunctionCall => {
                self.report(&Error::unsupported("fastpath function calls are not supported"));
                return self.ready().await;
            }
            Frontend::Password(_) => {
                return Err(End::Fatal(protocol("a password message came after authentication")));
            }
            Frontend::Terminate => return Err(End::Gone),
        };
        match extended {
            Ok(()) => Ok(()),
            Err(Failure::Statement(error)) => {
                self.report(&error);
                self.skipping = true;
                // Postgres flushes after an error: a client may wait for it before its Sync.
                self.watch.flush(&mut self.wire).await
            }
            Err(Failure::Connection(end)) => Err(end),
        }
    }

    /// The frame was whole but its text is not UTF-8.
    async fn content_error(&mut self, kind: u8, error: &Error) -> Result<(), End> {
        if self.skipping || kind == b'f' {
            return Ok(());
        }
        self.report(error);
        if kind == b'Q' {
            return self.ready().await;
        }
        self.skipping = true;
        Ok(())
    }

    /// Tells the client about an error and fails the transaction it happened in.
    fn report(&mut self, error: &Error) {
        self.session.fail_transaction();
        // Its time is over in any case, and its client may be slow to go on.
        self.watch.finish();
        self.failed = true;
        self.send_notices();
        self.shared.metrics.errors.with_label_values(&[error.state().code()]).inc();
        self.shared.told.note(Some(self.tenant), error);
        error_response(&mut self.wire.out, Severity::Error, error);
    }

    /// Opens the implicit transaction, unless one is open or BEGIN was said. After a COMMIT in the middle of a
    /// pipeline the next statement opens another.
    fn begin_implicit(&mut self) {
        if !self.implicit {
            self.implicit = true;
            self.failed = false;
        }
        self.session.begin_implicit();
    }

    /// Commits or rolls back the implicit transaction, if one is open.
    async fn end_implicit(&mut self, commit: bool) -> Result<(), Failure> {
        if !self.implicit {
            return Ok(());
        }
        self.implicit = false;
        self.start_clock();
        self.watch.run(&mut self.wire, self.session.end_implicit(commit)).await
    }

    /// Ends a query string or a pipeline: commits what is implicit, reports changes, and hands the turn over.
    async fn ready(&mut self) -> Result<(), End> {
        let commit = !self.failed;
        match self.end_implicit(commit).await {
            Ok(()) => {}
            Err(Failure::Statement(error)) => self.report(&error),
            Err(Failure::Connection(end)) => return Err(end),
        }
        self.watch.finish();
        self.send_notices();
        self.send_parameter_changes();
        let status = match self.session.transaction_status() {
            TransactionStatus::Idle => {
                // Portals live no longer than their transaction.
                self.held.drop_portals();
                b'I'
            }
            TransactionStatus::Active => b'T',
            TransactionStatus::Failed => b'E',
        };
        write::ready_for_query(&mut self.wire.out, status);
        // Whoever has the answer sees the session at rest.
        self.session.rest();
        self.watch.flush(&mut self.wire).await?;
        self.idle_until = self.session.idle_in_transaction_timeout().map(|limit| Instant::now() + limit);
        Ok(())
    }

    fn send_notices(&mut self) {
        for notice in self.session.take_notices() {
            notice_response(&mut self.wire.out, notice.severity, &notice.error);
        }
    }

    fn command_complete(&mut self, tag: &str) {
        self.send_notices();
        self.send_parameter_changes();
        write::command_complete(&mut self.wire.out, tag);
    }

    fn send_parameter_changes(&mut self) {
        for (name, value) in self.session.take_parameter_changes() {
            write::parameter_status(&mut self.wire.out, &name, &value);
        }
    }

    /// Gives the next piece of work `statement_timeout` from now.
    fn start_clock(&mut self) {
        self.watch.start(self.session.statement_timeout());
    }
}
