//! Who is there: a startup request becomes a `Principal`, an environment and a database session.
//!
//! Called by `session::run` within the startup timeout. A user that looks like a key id logs in by SCRAM, so
//! its token never crosses the wire; any other user is a tenant's name and sends the whole token as password,
//! over TLS, or over loopback where plaintext is allowed. Every failed login gets the same answer, whatever was wrong.
//!
//! ```text
//! key id   AuthenticationSASL → SASLInitialResponse → SASLContinue → SASLResponse → SASLFinal, Ok
//! tenant   AuthenticationCleartextPassword → PasswordMessage → Ok
//! then     ParameterStatus … BackendKeyData ReadyForQuery, in one write
//! ```

use std::sync::Arc;

use sepal_database::{Error, Principal, Session, SqlState, scram::ServerExchange};
use zeroize::Zeroizing;

use super::{
    cancel::Registration,
    errors::{End, protocol},
    seats::Seat,
    startup::Request,
    wire::{Frame, Wire},
};
use crate::{
    frame::{FrameLimits, Frontend, decode, sasl_initial_response, write},
    server::Shared,
};

/// Letters and digits of a key id.
const KEY_ID_LENGTH: usize = 12;
/// Where a client that names no database goes, unless its key is limited to an environment.
const DEFAULT_ENVIRONMENT: &str = "default";

/// An authenticated connection.
pub struct Login {
    pub session: Session,
    pub principal: Principal,
    pub seat: Seat,
    pub registration: Registration,
}

/// Authenticates, opens the session and says so. The client may send statements when this returns.
pub async fn log_in(shared: &Arc<Shared>, wire: &mut Wire, request: &Request) -> Result<Login, End> {
    let refuse = |reason: &'static str| {
        move |error: Error| {
            shared.metrics.connections_refused.with_label_values(&[reason]).inc();
            End::Fatal(error)
        }
    };
    // Asked again when it sits down; who cannot come in anyway need not prove who it is.
    shared.seats.check_room().map_err(refuse("limit"))?;
    if request.minor > 0 || !request.unknown_options.is_empty() {
        let unknown: Vec<&str> = request.unknown_options.iter().map(String::as_str).collect();
        write::negotiate_protocol_version(&mut wire.out, &unknown);
    }
    let principal = if is_key_id(&request.user) {
        scram(shared, wire, &request.user).await
    } else {
        cleartext(shared, wire, &request.user).await
    };
    let principal = principal.map_err(|end| match end {
        End::Fatal(error) => {
            shared.told.note(None, &error);
            refuse("password")(error)
        }
        End::Gone => End::Gone,
    })?;
    let environment = environment(&principal, request).map_err(refuse("environment"))?;
    let tenant_seat = shared.seats.sit(principal.tenant, &principal.tenant_name).map_err(refuse("limit"))?;
    let session = shared.database.connect(principal.clone(), &environment, &request.settings).await.map_err(
        |error| match error.state() {
            SqlState::InvalidCatalogName => refuse("environment")(no_such_database(&environment)),
            _ => {
                shared.told.note(Some(principal.tenant), &error);
                End::Fatal(error)
            }
        },
    )?;
    let registration = shared.cancels.register(session.backend_pid(), session.cancel_token());
    greet(wire, &session, &request.user, &registration);
    let limits = &shared.options.limits;
    let frame_limits = FrameLimits { large: limits.max_message_bytes, ..FrameLimits::UNAUTHENTICATED };
    wire.raise_limits(frame_limits, tenant_seat.budget.clone());
    wire.flush().await?;
    Ok(Login { session, principal, seat: tenant_seat, registration })
}

/// Key ids are twelve letters and digits, one of them a capital; tenants' names have no capitals. Keys of old
/// versions that have none either log in by token, as a tenant does.
fn is_key_id(user: &str) -> bool {
    user.len() == KEY_ID_LENGTH
        && user.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && user.bytes().any(|byte| byte.is_ascii_uppercase())
}

/// The one answer to every failed login.
fn wrong_password(user: &str) -> Error {
    Error::new(SqlState::InvalidPassword, format!("password authentication failed for user \"{user}\""))
}

/// The same whether the environment does not exist or the key may not enter it.
fn no_such_database(name: &str) -> Error {
    Error::new(SqlState::InvalidCatalogName, format!("database \"{name}\" does not exist"))
}

async fn cleartext(shared: &Arc<Shared>, wire: &mut Wire, user: &str) -> Result<Principal, End> {
    write::authentication_cleartext_password(&mut wire.out);
    let frame = answer(wire).await?;
    let token = match password(&frame)?.strip_suffix(b"\0").map(std::str::from_utf8) {
        Some(Ok(token)) if !token.contains('\0') => Zeroizing::new(token.to_owned()),
        _ => {
            return Err(End::Fatal(protocol(
                "invalid password message: one string and its terminator expected",
            )));
        }
    };
    let found = blocking(shared, move |shared| shared.database.control().authenticate_token(&token)).await?;
    let principal = found.map_err(|error| End::Fatal(error.for_login(user)))?;
    if *principal.tenant_name != *user && *principal.key_id != *user {
        return Err(End::Fatal(wrong_password(user)));
    }
    Ok(principal)
}

async fn scram(shared: &Arc<Shared>, wire: &mut Wire, user: &str) -> Result<Principal, End> {
    // PLUS is offered on TLS connections only; elsewhere there is nothing to bind to.
    let tls = shared.options.tls.clone().filter(|_| wire.is_tls());
    let end_point = tls.as_deref().and_then(|tls| tls.end_point());
    write::authentication_sasl(&mut wire.out, ServerExchange::mechanisms(end_point.is_some()));
    let frame = answer(wire).await?;
    let initial = sasl_initial_response(password(&frame)?)
        .map_err(|rejection| End::Fatal(rejection.error().clone()))?;
    let key_id = user.to_owned();
    let (verifier, principal) =
        blocking(shared, move |shared| shared.database.control().scram_verifier(&key_id))
            .await?
            .map_err(|error| End::Fatal(error.for_login(user)))?;
    let failed = |error: sepal_database::scram::ScramError| End::Fatal(error.to_error(user));
    let mut exchange = ServerExchange::new(initial.mechanism, end_point, verifier).map_err(failed)?;
    let challenge = exchange.client_first(initial.data).map_err(failed)?;
    write::authentication_sasl_continue(&mut wire.out, challenge.as_bytes());
    let frame = answer(wire).await?;
    let proof = exchange.client_final(password(&frame)?).map_err(failed)?;
    let principal = principal.ok_or_else(|| End::Fatal(wrong_password(user)))?;
    shared.database.control().note_use(&principal);
    write::authentication_sasl_final(&mut wire.out, proof.as_bytes());
    Ok(principal)
}

/// Sends what is gathered and waits for the client's answer.
async fn answer(wire: &mut Wire) -> Result<Frame, End> {
    wire.flush().await?;
    loop {
        match wire.take_frame() {
            Ok(Some(frame)) => return Ok(frame),
            Ok(None) if wire.fill().await? == 0 => return Err(End::Gone),
            Ok(None) => {}
            Err(rejection) => return Err(End::Fatal(rejection.error().clone())),
        }
    }
}

fn password(frame: &Frame) -> Result<&[u8], End> {
    match decode(frame.kind, &frame.body) {
        Ok(Frontend::Password(data)) => Ok(data),
        Ok(Frontend::Terminate) => Err(End::Gone),
        Ok(_) => Err(End::Fatal(protocol(format!(
            "expected a password or SASL response, got message type {}",
            frame.kind
        )))),
        Err(rejection) => Err(End::Fatal(rejection.error().clone())),
    }
}

/// Key look-ups may read the control database, which must not hold up other sessions of this thread.
async fn blocking<T: Send + 'static>(
    shared: &Arc<Shared>,
    work: impl FnOnce(&Shared) -> T + Send + 'static,
) -> Result<T, End> {
    let shared = shared.clone();
    tokio::task::spawn_blocking(move || work(&shared))
        .await
        .map_err(|_| End::Fatal(Error::bug("the authentication task ended early")))
}

/// The environment asked for, if the key may enter it.
fn environment(principal: &Principal, request: &Request) -> Result<String, Error> {
    let limited = principal.environment.as_deref();
    // Clients that are given no database send the user's name, as libpq does.
    let asked = request.database.as_deref().filter(|database| *database != request.user);
    let name = asked.or(limited).unwrap_or(DEFAULT_ENVIRONMENT);
    if limited.is_some_and(|limited| limited != name) {
        return Err(no_such_database(name));
    }
    Ok(name.to_owned())
}

fn greet(wire: &mut Wire, session: &Session, user: &str, registration: &Registration) {
    // What drivers wait for, with the value if the session has no setting of that name.
    const REPORTED: [(&str, &str); 12] = [
        ("server_version", "17.2"),
        ("server_encoding", "UTF8"),
        ("client_encoding", "UTF8"),
        ("DateStyle", "ISO, MDY"),
        ("TimeZone", "UTC"),
        ("integer_datetimes", "on"),
        ("standard_conforming_strings", "on"),
        ("IntervalStyle", "postgres"),
        ("is_superuser", "off"),
        ("application_name", ""),
        ("in_hot_standby", "off"),
        ("default_transaction_read_only", "off"),
    ];
    let out = &mut wire.out;
    write::authentication_ok(out);
    for (name, default) in REPORTED {
        let value = session.setting(name);
        write::parameter_status(out, name, value.as_deref().unwrap_or(default));
    }
    let authorized = session.setting("session_authorization");
    write::parameter_status(out, "session_authorization", authorized.as_deref().unwrap_or(user));
    write::backend_key_data(out, registration.process, registration.secret);
    write::ready_for_query(out, b'I');
}
