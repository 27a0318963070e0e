//! `sepal demo`: the product in a minute, over the wire, with real data and checks that can fail.
//!
//! 1. A server with TLS starts on an empty data directory, and tenants get a key each.
//! 2. A story is told: of [`search`], or of what leaves the database, [`pipeline`].
//! 3. A psql line is printed and the server goes on until Ctrl-C, unless it was asked to exit.
//!
//! Called by `cli::demo`. Everything about data goes over the wire, as any client's would; tenants and keys are
//! made as the admin socket makes them. Stories share the bundled [`sample`], its way in ([`load`]) and the search of
//! every file for what should not be there ([`disk`]).

mod client;
mod disk;
mod load;
mod pipeline;
mod progress;
mod sample;
mod search;

use std::time::Duration;

use crate::{
    admin::{Answer, NewKey, Request},
    cli::{
        Login, Style,
        failure::Failure,
        process::{self, Running},
    },
    config::Config,
};

use self::sample::SampleError;

/// What is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Story {
    /// Load 10,240 real embeddings, index and search them, and look for plaintext on the disk
    #[default]
    Search,
    /// Carry rows and every change to a webhook, through its failures, and look for the secrets that it took
    Pipeline,
}

/// Runs a story on a data directory that has just been made; then serves until Ctrl-C, unless `exit`.
pub async fn run(config: Config, story: Story, exit: bool) -> Result<(), Failure> {
    let running = Running::start(config).await?;
    let told = tokio::select! {
        told = tell(&running, story, exit) => told,
        interrupted = process::interrupted() => interrupted.map_err(Failure::from),
    };
    running.stop().await;
    told
}

async fn tell(running: &Running, story: Story, exit: bool) -> Result<(), Failure> {
    let stage = Stage { running, style: Style::of_stdout() };
    match story {
        Story::Search => search::tell(stage, exit).await,
        Story::Pipeline => pipeline::tell(stage, exit).await,
    }
}

/// Where a story is told: a running server, and whoever reads along.
struct Stage<'a> {
    running: &'a Running,
    style: Style,
}

impl Stage<'_> {
    fn introduce(&self) {
        println!("  data in {}; what tenants store there is sealed", self.running.config.data.display());
        println!(
            "  Postgres with TLS on {}, metrics on http://{}/metrics",
            self.running.pg, self.running.http
        );
    }

    async fn tenant(&self, name: &str) -> Result<NewKey, Failure> {
        self.running.ask(Request::TenantCreate { name: name.into() }).await?;
        let request = Request::KeyCreate {
            tenant: name.into(),
            environment: None,
            write: true,
            label: "sepal demo".into(),
            expires_at: None,
        };
        let Answer::Key(new) = self.running.ask(request).await? else {
            return Err(Failure::failed("the server did not answer with a key"));
        };
        println!("  tenant {name}: its own encryption key, API key {}", new.key.id);
        Ok(new)
    }

    /// The end: what the person can try, for as long as they like.
    async fn invite(&self, acme: &NewKey, try_these: &[&str], exit: bool) {
        if exit {
            println!("\n{}", self.style.bold("Done. Without --exit the server stays for you to try."));
            return;
        }
        self.heading("Your turn");
        let login =
            Login { endpoint: &acme.endpoint, user: &acme.key.id, token: &acme.token, database: "default" };
        println!("{}", login.line());
        println!("  try:");
        for sql in try_these {
            self.sql(sql);
        }
        println!("  {}", self.style.dim("Serving until Ctrl-C."));
        std::future::pending::<()>().await;
    }

    fn heading(&self, text: &str) {
        println!("\n{}", self.style.bold(text));
    }

    fn sql(&self, sql: &str) {
        println!("  {}", self.style.dim(sql));
    }

    fn holds(&self, what: &str) {
        println!("  {} {what}", self.style.green("✓"));
    }
}

fn unreadable(error: SampleError) -> Failure {
    Failure::failed(error.to_string())
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn per_second(count: u64, time: Duration) -> u64 {
    let microseconds = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1);
    count.saturating_mul(1_000_000) / microseconds
}
