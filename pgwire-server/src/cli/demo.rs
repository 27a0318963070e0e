//! `sepal demo`: where it runs; the stories themselves are [`crate::demo`].

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use clap::Args;

use crate::{
    config::Config,
    demo::{self, Story},
    root_key::NewRoot,
};

use super::{dev::LOOPBACK, failure::Failure, flags::ServerFlags, init, logging, runtime};

#[derive(Args)]
pub struct Demo {
    /// What to show
    #[arg(value_name = "STORY", value_enum, default_value_t)]
    story: Story,
    #[command(flatten)]
    server: ServerFlags,
    /// End after the last check instead of serving until Ctrl-C
    #[arg(long)]
    exit: bool,
}

impl Demo {
    pub fn run(self) -> Result<(), Failure> {
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let temporary = std::env::temp_dir().join(format!("sepal-demo-{:016x}", rand::random::<u64>()));
        let defaults = Config {
            data: temporary.clone(),
            pg_listen: any_port,
            http_listen: any_port,
            private_networks: LOOPBACK.into(),
            ..Config::default()
        };
        let config = self.server.load(&defaults)?.config;
        if init::is_made(&config.data) {
            return Err(Failure::failed(format!(
                "{} already holds a Sepal database: the demo wants a new directory",
                config.data.display()
            )));
        }
        let _removed = (config.data == temporary).then(|| RemovedAtEnd(temporary));
        init::make(&config, &NewRoot::File)?;
        let level = match self.story {
            Story::Search => "warn",
            // What goes wrong there is meant to, and told.
            Story::Pipeline => "error",
        };
        logging::start(&config, level)?;
        runtime()?.block_on(demo::run(config, self.story, self.exit))
    }
}

/// A directory that goes when the demo ends, however it ends.
struct RemovedAtEnd(PathBuf);

impl Drop for RemovedAtEnd {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::debug!(%error, path = %self.0.display(), "temporary directory not removed");
        }
    }
}
