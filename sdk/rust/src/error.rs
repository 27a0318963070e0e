//! What went wrong, and by its kind what the host does about it. Sinks and resolvers answer with it.

use std::fmt;

use crate::{ErrorKind, bindings};

/// An error of a plugin. The message is for people and holds no secret: the host scrubs what it knows, no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    pub kind: ErrorKind,
    /// Machine-readable and stable, `http.503`.
    pub code: Option<String>,
    pub message: String,
    pub retry_after_ms: Option<u32>,
}

impl Error {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, code: None, message: message.into(), retry_after_ms: None }
    }

    /// Retry the same batch with backoff.
    pub fn transient(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Transient, message)
    }

    /// The destination's session is gone: the host opens again, then retries.
    pub fn not_connected(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotConnected, message)
    }

    /// Credentials were refused: the host resolves them anew, opens once more, then pauses.
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unauthorized, message)
    }

    /// This data can never be accepted: the host isolates the rows and dead-letters them.
    pub fn rejected(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Rejected, message)
    }

    /// The configuration is wrong: the host pauses, nothing is lost.
    pub fn misconfigured(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Misconfigured, message)
    }

    /// A bug of the plugin: a few tries, then a pause.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    #[must_use]
    pub fn code(mut self, code: impl Into<String>) -> Self {
        self.code = Some(code.into());
        self
    }

    #[must_use]
    pub fn retry_after_ms(mut self, retry_after_ms: Option<u32>) -> Self {
        self.retry_after_ms = retry_after_ms;
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.code {
            Some(code) => write!(f, "{} ({code})", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for Error {}

/// JSON that the plugin itself wrote or expected: its bug.
impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::internal(format!("JSON: {error}")).code("plugin.json")
    }
}

impl From<Error> for bindings::sink::sepal::plugin::types::Error {
    fn from(error: Error) -> Self {
        let Error { kind, code, message, retry_after_ms } = error;
        Self { kind, code, message, retry_after_ms }
    }
}

impl From<Error> for bindings::resolver::sepal::plugin::types::Error {
    fn from(error: Error) -> Self {
        use bindings::resolver::sepal::plugin::types::ErrorKind as Kind;
        let kind = match error.kind {
            ErrorKind::Transient => Kind::Transient,
            ErrorKind::NotConnected => Kind::NotConnected,
            ErrorKind::Unauthorized => Kind::Unauthorized,
            ErrorKind::Rejected => Kind::Rejected,
            ErrorKind::Misconfigured => Kind::Misconfigured,
            ErrorKind::Internal => Kind::Internal,
        };
        Self { kind, code: error.code, message: error.message, retry_after_ms: error.retry_after_ms }
    }
}
