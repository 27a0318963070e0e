//! What the operator hears of errors that clients got: damage, a device that fails, a key that is not to be had, a
//! bug of ours. A client may never pass it on.
//!
//! Called wherever a session ends a statement or a connection with an error. Says the same of a tenant once in a
//! while: a client that asks again and again does not fill the log.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use sepal_database::{Error, ErrorKind, SqlState, TenantId};
use tokio::time::Instant;

/// The same of the same tenant is not said again for so long.
const AGAIN: Duration = Duration::from_secs(300);
/// Different things that are remembered. Beyond, some may be said twice.
const MOST: usize = 1_000;

/// When what was said of whom.
type Said = HashMap<(Option<TenantId>, String), Instant>;

/// See the module.
#[derive(Default)]
pub struct Told(Mutex<Said>);

impl Told {
    /// Logs the error if it is the operator's. `tenant`: `None` before a client has logged in.
    pub fn note(&self, tenant: Option<TenantId>, error: &Error) {
        if is_the_operators(error) && self.is_new(tenant, error, Instant::now()) {
            let who = tenant.map(|tenant| tenant.to_string());
            let why = words(error);
            let code = error.state().code();
            tracing::error!(tenant = who, code, why, "a client was sent an error that is not its own");
        }
    }

    fn is_new(&self, tenant: Option<TenantId>, error: &Error, now: Instant) -> bool {
        let mut said = self.0.lock();
        if said.len() >= MOST {
            said.retain(|_, at| now.duration_since(*at) < AGAIN);
            if said.len() >= MOST {
                said.clear();
            }
        }
        // What is said, not what the client is sent: that may be another text each time, and as long as a statement.
        let what = (tenant, words(error).to_owned());
        let before = said.get(&what).copied();
        if before.is_some_and(|at| now.duration_since(at) < AGAIN) {
            return false;
        }
        said.insert(what, now);
        true
    }
}

/// What the operator may read of it. A planner that does not understand itself quotes the statement, with its values.
fn words(error: &Error) -> &str {
    match error.kind() {
        ErrorKind::Bug => "a bug of ours; only the client has the words, which may quote its values",
        _ => error.operator_message(),
    }
}

fn is_the_operators(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Bug)
        || matches!(error.state(), SqlState::IoError | SqlState::SystemError)
        || error.is_private()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_said_once_in_a_while() {
        let (told, now) = (Told::default(), Instant::now());
        let damage = |file: &str| Error::new(SqlState::DataCorrupted, format!("{file} is damaged"));
        let (one, other) = (Some(TenantId([1; 16])), Some(TenantId([2; 16])));
        assert!(told.is_new(one, &damage("a"), now));
        assert!(!told.is_new(one, &damage("a"), now + AGAIN / 2));
        assert!(told.is_new(one, &damage("b"), now) && told.is_new(other, &damage("a"), now));
        assert!(told.is_new(one, &damage("a"), now + AGAIN));
        // Of bugs the same is said whatever they quote.
        assert!(told.is_new(one, &Error::bug("no plan for SELECT 1"), now));
        assert!(!told.is_new(one, &Error::bug("no plan for SELECT 2"), now));
    }

    #[test]
    fn a_clients_own_mistakes_are_its_own() {
        assert!(!is_the_operators(&Error::new(SqlState::SyntaxError, "syntax error")));
        assert!(!is_the_operators(&Error::new(SqlState::UniqueViolation, "duplicate key")));
        let private = Error::new(SqlState::CannotConnectNow, "no key").with_private("no key in /x");
        assert!(is_the_operators(&private));
        assert!(is_the_operators(&Error::bug("impossible")));
    }
}
