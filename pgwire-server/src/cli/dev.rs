//! `sepal dev`: init if needed, serve, one tenant `dev`, one key.
//!
//! Made for a laptop and for tests: the same directory may be started again and again, with the same key: what was
//! defined under a key (sinks and resolvers, and their right to secrets) ends with it. The token is kept for that.
//!
//! ```text
//! DIR/dev.token   0600   the token, one line
//! ```
//! Without the root key it opens nothing. Removing it makes the next start revoke the key and make another.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap::Args;
use sepal_database::Token;
use zeroize::Zeroizing;

use crate::{
    admin::{Answer, Key, Request},
    config::{Config, files},
    root_key::NewRoot,
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
/// Where the token is kept, in the data directory.
const TOKEN_FILE: &str = "dev.token";

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
            ..Config::of_this_machine()
        };
        let config = self.server.load(&defaults)?.config;
        if !init::is_made(&config.data) {
            init::make(&config, &NewRoot::File)?;
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
        let (key, token) = own_key(running).await?;
        let Answer::Status(status) = running.ask(Request::Status).await? else { return Err(unexpected()) };
        let login =
            Login { endpoint: &status.endpoint, user: &key.id, token: token.expose(), database: "default" };
        if let Some(path) = &self.env_file {
            files::replace(path, login.exports().as_bytes(), 0o600)?;
        }
        announce(running, &login, self.env_file.as_ref())?;
        Ok(process::interrupted().await?)
    }
}

/// The key of earlier starts, if its token was kept and it still counts; else a new one. Others of ours are revoked.
async fn own_key(running: &Running) -> Result<(Key, Token), Failure> {
    let Answer::Tenants(tenants) = running.ask(Request::TenantList).await? else { return Err(unexpected()) };
    if !tenants.iter().any(|tenant| tenant.name == TENANT) {
        running.ask(Request::TenantCreate { name: TENANT.into() }).await?;
    }
    let Answer::Keys(keys) = running.ask(Request::KeyList { tenant: TENANT.into() }).await? else {
        return Err(unexpected());
    };
    let path = running.config.data.join(TOKEN_FILE);
    let kept = kept_token(&path)?;
    let mut own = None;
    for key in keys.into_iter().filter(|key| key.label == LABEL && key.revoked_at.is_none()) {
        match &kept {
            Some(token) if opens(token, &key, now()) => own = Some((key, token.clone())),
            _ => drop(running.ask(Request::KeyRevoke { key: key.id }).await?),
        }
    }
    match own {
        Some(own) => Ok(own),
        None => new_key(running, &path).await,
    }
}

async fn new_key(running: &Running, path: &Path) -> Result<(Key, Token), Failure> {
    let request = Request::KeyCreate {
        tenant: TENANT.into(),
        environment: None,
        write: true,
        label: LABEL.into(),
        expires_at: None,
    };
    let Answer::Key(new) = running.ask(request).await? else { return Err(unexpected()) };
    let token = Token::parse(&new.token).ok_or_else(unexpected)?;
    files::replace(path, new.token.as_bytes(), 0o600)?;
    Ok((new.key, token))
}

/// `None` when there is none, and for what is no token.
fn kept_token(path: &Path) -> Result<Option<Token>, Failure> {
    match fs::read_to_string(path).map(Zeroizing::new) {
        Ok(text) => Ok(Token::parse(text.trim())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::failed(format!("{}: {error}", path.display()))),
    }
}

/// Whether a token is a key's that still counts.
fn opens(token: &Token, key: &Key, now: i64) -> bool {
    token.key_id() == key.id
        && key.revoked_at.is_none()
        && key.expires_at.is_none_or(|expires_at| now < expires_at)
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
    output::talk("Ctrl-C stops it. The key stays the same at the next start.");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "sepal_live_all_000000000000_0000000000000000000000000000000000000000000_11myvN";

    fn key() -> Key {
        Key {
            id: "000000000000".into(),
            tenant: TENANT.into(),
            environment: None,
            read: true,
            write: true,
            label: LABEL.into(),
            created_at: 0,
            expires_at: None,
            revoked_at: None,
            last_used_at: None,
        }
    }

    #[test]
    fn a_token_is_kept_and_opens_its_own_key_while_that_counts() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(TOKEN_FILE);
        assert!(kept_token(&path).unwrap().is_none(), "none yet");
        files::replace(&path, b"something else", 0o600).unwrap();
        assert!(kept_token(&path).unwrap().is_none(), "what is no token is none");
        files::replace(&path, format!("{TOKEN}\n").as_bytes(), 0o600).unwrap();
        let token = kept_token(&path).unwrap().unwrap();
        assert_eq!(token.expose(), TOKEN);
        assert!(opens(&token, &key(), 10));
        assert!(!opens(&token, &Key { id: "000000000001".into(), ..key() }, 10), "another key's");
        assert!(!opens(&token, &Key { revoked_at: Some(5), ..key() }, 10), "revoked");
        assert!(!opens(&token, &Key { expires_at: Some(10), ..key() }, 10), "expired");
        assert!(opens(&token, &Key { expires_at: Some(11), ..key() }, 10));
    }
}
