//! `sepal plugin new|build|check|test|run|watch|pack|keygen|sign`: what the author of a plugin does.
//!
//! The work is `sepal_plugins::author` and `sepal_plugins::kit`; here are their arguments and what is printed. Only
//! `watch --server` talks to a server, as any client would; nothing here opens a database.

mod build;
mod check;
mod keygen;
mod new;
mod pack;
mod run;
mod sign;
mod source;
mod test;
#[cfg(test)]
mod tests;
mod upload;
mod watch;

use std::fmt;

use clap::Subcommand;

use super::failure::Failure;

#[derive(Subcommand)]
pub enum Plugin {
    /// Make a project: a plugin that builds, passes its tests and does something
    New(new::New),
    /// Compile a project to a component
    ///
    /// Rust needs cargo and the target wasm32-wasip2. The toolchains of Python and JavaScript are fetched once, into
    /// ~/.cache/sepal/toolchains.
    Build(build::Build),
    /// Say what a plugin asks for, imports and weighs, and whether it compiles
    Check(check::Check),
    /// Run a plugin's cases and the conformance kit
    ///
    /// The kit plays the destination: it answers with every kind of error, kills the plugin at each of its calls to the
    /// host and looks for lost rows, leaked secrets and requests to where the plugin may not go. conformance.toml
    /// beside plugin.toml gives options that work; without it the first case in cases/ does.
    Test(test::Test),
    /// Call a plugin once against a real destination: check, then one batch or one secret
    Run(run::Run),
    /// Build and test again whenever a file of the project changes
    ///
    /// With --server the plugin is replaced in a running server each time it passes. PGHOST, PGPORT, PGUSER,
    /// PGPASSWORD, PGDATABASE, PGSSLMODE and PGSSLROOTCERT say which, as in the file of `sepal dev --env-file`.
    Watch(watch::Watch),
    /// Build a project and write the file to upload: the component with its manifest in it
    Pack(pack::Pack),
    /// Make a key to sign plugins with
    Keygen(keygen::Keygen),
    /// Sign a packed component
    Sign(sign::Sign),
}

impl Plugin {
    pub fn run(self) -> Result<(), Failure> {
        match self {
            Self::New(command) => command.run(),
            Self::Build(command) => command.run(),
            Self::Check(command) => command.run(),
            Self::Test(command) => command.run(),
            Self::Run(command) => command.run(),
            Self::Watch(command) => command.run(),
            Self::Pack(command) => command.run(),
            Self::Keygen(command) => command.run(),
            Self::Sign(command) => command.run(),
        }
    }
}

/// What the library says is said as it is.
fn failed(error: impl fmt::Display) -> Failure {
    Failure::failed(error.to_string())
}
