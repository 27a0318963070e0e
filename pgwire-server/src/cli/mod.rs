//! The command line: one file per command, each `run(self) -> Result<(), Failure>`.
//!
//! Conventions, for every command: data on stdout, talk on stderr; a table only on a terminal, `--json` for
//! machines; exit 0 done, 1 failed, 2 wrong usage, 78 wrong configuration ([`failure::Exit`]). No secret is
//! ever an argument. Called by `main.rs`; knows nothing about how data is stored.

mod audit;
mod backup;
mod byok;
mod check;
mod config;
mod demo;
mod descriptors;
mod dev;
pub mod failure;
mod flags;
mod hardened;
pub mod init;
mod key;
mod logging;
mod offline;
mod output;
mod plugin;
pub mod process;
mod psql;
mod recovery;
mod repair;
mod root;
mod root_flags;
mod rotate;
mod secret;
mod serve;
mod tenant;
mod version;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::failure::Failure;
pub use self::{
    output::{Style, table},
    psql::Login,
};

/// Sepal, an encrypted vector database that speaks Postgres.
#[derive(Parser)]
#[command(name = "sepal", version, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage, 78 wrong configuration.\n\
    Every server setting can also be given as SEPAL_<NAME> or in sepal.toml; `sepal config` prints them.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a data directory: root key, control database, TLS certificate
    Init(Box<init::Init>),
    /// Serve a data directory until SIGINT or SIGTERM
    Serve(serve::Serve),
    /// For development: init if needed, serve, and make one tenant with a key
    Dev(dev::Dev),
    /// See it work: search real embeddings, or carry changes to a webhook, and look for what should not be there
    ///
    /// Without --data it runs in a temporary directory that is removed at the end.
    Demo(demo::Demo),
    /// Make, list and drop tenants of a running server
    #[command(subcommand)]
    Tenant(tenant::Tenant),
    /// Make, list and revoke API keys of a running server
    #[command(subcommand)]
    Key(key::Key),
    /// Replace the root key, or keep it elsewhere
    #[command(subcommand)]
    Root(root::Root),
    /// Make and verify the recovery key, which opens a directory whose root key is lost
    #[command(subcommand)]
    Recovery(recovery::Recovery),
    /// Have the root key of a directory back, from the recovery key or its shares
    Recover(Box<recovery::Recover>),
    /// List, verify and export the audit trail
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Set, list, remove, grant and check secrets of a running server
    #[command(subcommand)]
    Secret(secret::Secret),
    /// Back up, list, verify, restore and prune
    #[command(subcommand)]
    Backup(backup::Backup),
    /// Write plugins: make, build, test, pack and sign sinks and secret resolvers
    #[command(subcommand)]
    Plugin(plugin::Plugin),
    /// Read every byte of a data directory that no server has open, and say what is wrong; changes nothing
    ///
    /// Exits with 0 when nothing is lost, though there may be warnings, and with 1 when something is, or when a tenant
    /// was not read because the provider that it brought for its key (`sepal tenant byok`) did not give it.
    Check(check::Check),
    /// Give up what is damaged, so that a tenant opens again; says exactly what is gone
    ///
    /// What is damaged is moved to DIR/quarantine, never deleted. A backup is the better way where there is one. A
    /// provider that the tenant brought for its key (`sepal tenant byok`) is asked for it.
    Repair(repair::Repair),
    /// Print every setting, its value and where the value comes from
    Config(config::Config),
    /// Print the version
    Version(version::Version),
}

/// Parses the arguments and runs the command. Wrong usage exits with 2 from inside.
pub fn run() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Init(command) => command.run(),
        Command::Serve(command) => command.run(),
        Command::Dev(command) => command.run(),
        Command::Demo(command) => command.run(),
        Command::Tenant(command) => command.run(),
        Command::Key(command) => command.run(),
        Command::Root(command) => command.run(),
        Command::Recovery(command) => command.run(),
        Command::Recover(command) => command.run(),
        Command::Audit(command) => command.run(),
        Command::Secret(command) => command.run(),
        Command::Backup(command) => command.run(),
        Command::Plugin(command) => command.run(),
        Command::Check(command) => command.run(),
        Command::Repair(command) => command.run(),
        Command::Config(command) => command.run(),
        Command::Version(command) => command.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::talk(&format!("{failure}"));
            failure.exit.code()
        }
    }
}

/// The runtime of a command that serves.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("sepal")
        .thread_stack_size(sepal_database::PLANNING_STACK)
        .build()
        .map_err(|error| Failure::failed(format!("the runtime does not start: {error}")))
}

#[cfg(test)]
mod tests;
