//! Structured logs on stderr: text for a person, JSON for a collector.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use crate::config::{Config, LogFormat};

use super::failure::Failure;

/// Starts logging for a command that serves. `quiet` is the filter where nobody set one.
pub fn start(config: &Config, quiet: &str) -> Result<(), Failure> {
    let wanted = config.log.clone().or_else(|| std::env::var("RUST_LOG").ok().filter(|log| !log.is_empty()));
    let directives = wanted.as_deref().unwrap_or(quiet);
    let filter = EnvFilter::try_new(directives).map_err(|error| {
        Failure::configuration(format!(
            "log filter \"{directives}\" is not understood ({error}): write it as in sepal=debug,info"
        ))
    })?;
    let text = match config.log_format {
        LogFormat::Auto => io::stderr().is_terminal(),
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let builder = tracing_subscriber::fmt().with_writer(io::stderr).with_env_filter(filter);
    let started = if text {
        let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        builder.with_ansi(colour).try_init()
    } else {
        builder.json().flatten_event(true).try_init()
    };
    started.map_err(|error| Failure::failed(format!("logging does not start: {error}")))
}
