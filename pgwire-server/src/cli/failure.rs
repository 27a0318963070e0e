//! How a command ends when it does not succeed: an exit code and words that say what to do.

use std::{fmt, io, process::ExitCode};

use crate::{admin::client::AskError, config::ConfigError};

/// The exit codes, for scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It did not work, or a check failed.
    Failed,
    /// The command line is wrong.
    Usage,
    /// The configuration is wrong: file, root key, certificate (`EX_CONFIG` of `sysexits.h`).
    Configuration,
}

impl Exit {
    pub fn code(self) -> ExitCode {
        ExitCode::from(match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Configuration => 78,
        })
    }
}

/// Why a command ended. The text has the value that was wrong and the next step.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    pub exit: Exit,
    message: String,
}

impl Failure {
    pub fn failed(message: impl Into<String>) -> Self {
        Self { exit: Exit::Failed, message: message.into() }
    }

    pub fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, message: message.into() }
    }

    pub fn configuration(message: impl Into<String>) -> Self {
        Self { exit: Exit::Configuration, message: message.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)
    }
}

impl std::error::Error for Failure {}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::configuration(error.0)
    }
}

impl From<AskError> for Failure {
    fn from(error: AskError) -> Self {
        Self::failed(error.to_string())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::failed(error.to_string())
    }
}

impl From<sepal_database::Error> for Failure {
    fn from(error: sepal_database::Error) -> Self {
        let mut message = error.operator_message().to_owned();
        for more in [error.detail(), error.hint()].into_iter().flatten() {
            message.push_str(". ");
            message.push_str(more);
        }
        Self::failed(message)
    }
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::failed(match error.as_db_error() {
            Some(server) => format!("{} (SQLSTATE {})", server.message(), server.code().code()),
            None => error.to_string(),
        })
    }
}
