//! `sepal dev`: init if needed, serve, one tenant `dev`, one key for as long as it runs.
//!
//! Made for a laptop and for tests: the same directory may be started again and again; each start makes a new
//! key and revokes those of earlier starts, so that a token in an old env file is worth nothing.

use std::path::PathBuf;

use clap::Args;

use crate::{
    admin::{Answer, NewKey, Request},
    config::{Config, files},
};

use super::{
    failure::Failure,
    flags::ServerFlags,
    init,
    key::{now, unexpected},
    logging,
    output::{self, Style},
    process::{self, Running},
    psql::Login,
    runtime,
};

/// The tenant's name.
const TENANT: &str = "dev";
/// Where a plugin under development sends to.
pub(super) const LOOPBACK: &str = "127.0.0.0/8, ::1/128";
/// What our keys are called, so that the next start knows them.
const LABEL: &str = "sepal dev";
/// A forgotten key dies by itself: 30 days, in seconds.
const KEY_LIFETIME: i64 = 30 * 86_400;

#[derive(Args)]
pub struct Dev {
    #[command(flatten)]
    server: ServerFlags,
    /// Write PGHOST, PGPORT, PGUSER, PGPASSWORD, PGDATABASE, PGSSLMODE and PGSSLROOTCERT to a file that a shell
    /// can source (mode 0600); it appears when the server is ready
    #[arg(long, value_name = "FILE")]
    env_file: Option<PathBuf>,
}

impl Dev {
    pub fn run(self) -> Result<(), Failure> {
        // Not serve's directory: trying things out must never touch a database that matters.
        let defaults = Config {
            data: PathBuf::from("sepal-dev"),
            private_networks: LOOPBACK.into(),
            allow_unsigned_plugins: true,
            ..Config::default()
        };
        let config = self.server.load(&defaults)?.config;
        if !init::is_made(&config.data) {
            init::make(&config)?;
        }
        logging::start(&config, "warn")?;
        runtime()?.block_on(async {
            let running = Running::start(config).await?;
            let served = self.serve(&running).await;
            running.stop().await;
            served
        })
    }

    async fn serve(&self, running: &Running) -> Result<(), Failure> {
        let new = fresh_key(running).await?;
        let login =
            Login { endpoint: &new.endpoint, user: &new.key.id, token: &new.token, database: "default" };
        if let Some(path) = &self.env_file {
            files::replace(path, login.exports().as_bytes(), 0o600)?;
        }
        announce(running, &login, self.env_file.as_ref())?;
        let ended = process::interrupted().await;
        running.ask(Request::KeyRevoke { key: new.key.id.clone() }).await?;
        Ok(ended?)
    }
}

async fn fresh_key(running: &Running) -> Result<NewKey, Failure> {
    let Answer::Tenants(tenants) = running.ask(Request::TenantList).await? else { return Err(unexpected()) };
    if !tenants.iter().any(|tenant| tenant.name == TENANT) {
        running.ask(Request::TenantCreate { name: TENANT.into() }).await?;
    }
    let Answer::Keys(keys) = running.ask(Request::KeyList { tenant: TENANT.into() }).await? else {
        return Err(unexpected());
    };
    for key in keys.into_iter().filter(|key| key.label == LABEL && key.revoked_at.is_none()) {
        running.ask(Request::KeyRevoke { key: key.id }).await?;
    }
    let request = Request::KeyCreate {
        tenant: TENANT.into(),
        environment: None,
        write: true,
        label: LABEL.into(),
        expires_at: Some(now() + KEY_LIFETIME),
    };
    let Answer::Key(new) = running.ask(request).await? else { return Err(unexpected()) };
    Ok(new)
}

fn announce(running: &Running, login: &Login<'_>, env_file: Option<&PathBuf>) -> Result<(), Failure> {
    let style = Style::of_stderr();
    output::talk(&style.warning(
        "*** DEVELOPMENT ONLY: the root key lies beside the data, and a key is printed on this terminal. ***",
    ));
    output::talk(&format!("Postgres on {}, health and metrics on http://{}", running.pg, running.http));
    output::talk(&format!("Data in {}, tenant {TENANT}", running.config.data.display()));
    if let Some(path) = env_file {
        output::talk(&format!("Then, in another shell:  . {}  &&  psql", path.display()));
    }
    output::talk("Connect with:");
    output::data(&login.line())?;
    output::talk("Ctrl-C stops it and revokes the key.");
    Ok(())
}
