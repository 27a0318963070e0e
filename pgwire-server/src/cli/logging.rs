//! Structured logs on stderr: text for a person, JSON for a collector. No statement of a tenant is ever in them.

use std::io::{self, IsTerminal};

use tracing::Level;
use tracing_subscriber::{EnvFilter, filter::filter_fn, fmt, layer::SubscriberExt, util::SubscriberInitExt};

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
    // What may be said at all comes after the filter: no directive of the operator's, however narrow, lifts it.
    let registry = tracing_subscriber::registry()
        .with(filter)
        .with(filter_fn(|event| may_be_logged(event.target(), *event.level())));
    let started = if text {
        let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        registry.with(fmt::layer().with_writer(io::stderr).with_ansi(colour)).try_init()
    } else {
        registry.with(fmt::layer().json().flatten_event(true).with_writer(io::stderr)).try_init()
    };
    started.map_err(|error| Failure::failed(format!("logging does not start: {error}")))
}

/// Whether a library may say this. Those that see statements print them below WARN, with the tenants' literals in
/// clear. A log is a file, and no file holds plaintext.
fn may_be_logged(target: &str, level: Level) -> bool {
    let library = target.split("::").next().unwrap_or_default();
    let sees_statements =
        library.starts_with("datafusion") || ["sqlparser", "tokio_postgres"].contains(&library);
    // The greater level is the more talkative one.
    level <= Level::WARN || !sees_statements
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_that_see_statements_only_warn() {
        for target in [
            "sqlparser::parser",
            "sqlparser::dialect",
            "datafusion",
            "datafusion::physical_planner",
            "datafusion_optimizer::optimizer",
            "datafusion_sql::planner",
            "tokio_postgres::query",
        ] {
            for level in [Level::INFO, Level::DEBUG, Level::TRACE] {
                assert!(!may_be_logged(target, level), "{target} {level}");
            }
            assert!(may_be_logged(target, Level::WARN), "{target}");
        }
        assert!(may_be_logged("sepal_database::maintain", Level::TRACE));
    }
}
