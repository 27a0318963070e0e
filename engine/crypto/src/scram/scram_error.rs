//! Why a SCRAM login ended, with Postgres' words and codes (`src/backend/libpq/auth-scram.c`).

use std::fmt;

use sepal_types::{Error, SqlState};

/// A refused exchange. It tells the client nothing that depends on the stored verifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScramError {
    /// The client asked for a mechanism that was not offered.
    UnknownMechanism,
    /// A message does not follow the grammar; the text says where.
    Malformed(&'static str),
    /// The nonce in client-final is not the one that was agreed on.
    NonceMismatch,
    /// The client supports channel binding and thinks that the server does not, although it does (a
    /// downgrade), or flag and mechanism contradict each other.
    BindingNegotiation(&'static str),
    /// The client is on another TLS channel than the server: somebody sits between them.
    BindingMismatch,
    /// Wrong password, unknown user, revoked key: one answer for all.
    WrongProof,
}

impl ScramError {
    /// The error to send to the client that tried to log in as `user`.
    pub fn to_error(self, user: &str) -> Error {
        match self {
            Self::UnknownMechanism => Error::new(
                SqlState::ProtocolViolation,
                "client selected an invalid SASL authentication mechanism",
            ),
            Self::Malformed(detail) => {
                Error::new(SqlState::ProtocolViolation, "malformed SCRAM message").with_detail(detail)
            }
            Self::NonceMismatch => Error::new(SqlState::ProtocolViolation, "invalid SCRAM response")
                .with_detail("Nonce does not match."),
            Self::BindingNegotiation(detail) => {
                Error::new(SqlState::InvalidAuthorization, "SCRAM channel binding negotiation error")
                    .with_detail(detail)
            }
            Self::BindingMismatch => {
                Error::new(SqlState::InvalidAuthorization, "SCRAM channel binding check failed")
            }
            Self::WrongProof => Error::new(
                SqlState::InvalidPassword,
                format!("password authentication failed for user \"{user}\""),
            ),
        }
    }
}

impl fmt::Display for ScramError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownMechanism => f.write_str("unknown SASL mechanism"),
            Self::Malformed(detail) => write!(f, "malformed SCRAM message: {detail}"),
            Self::NonceMismatch => f.write_str("SCRAM nonce does not match"),
            Self::BindingNegotiation(detail) => {
                write!(f, "SCRAM channel binding negotiation error: {detail}")
            }
            Self::BindingMismatch => f.write_str("SCRAM channel binding check failed"),
            Self::WrongProof => f.write_str("SCRAM proof does not match"),
        }
    }
}

impl std::error::Error for ScramError {}
