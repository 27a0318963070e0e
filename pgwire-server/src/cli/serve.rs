//! `sepal serve`: serves a data directory until it is told to stop.

use clap::Args;
use sepal_database::backup;

use crate::config::{Config, PluginIsolation, Sourced};

use super::{
    failure::Failure,
    flags::ServerFlags,
    hardened, init, logging, output,
    process::{self, Running},
    runtime,
};

#[derive(Args)]
pub struct Serve {
    #[command(flatten)]
    server: ServerFlags,
}

impl Serve {
    pub fn run(self) -> Result<(), Failure> {
        let Sourced { config, ignored, .. } = self.server.load(&Config::of_this_machine())?;
        if !init::is_made(&config.data) {
            return Err(Failure::configuration(format!(
                "{0} holds no Sepal database: make one with `sepal init --data {0}`, or try `sepal dev`",
                config.data.display()
            )));
        }
        if config.plugin_isolation == PluginIsolation::None {
            return Err(Failure::configuration(
                "plugin_isolation = \"none\" is for `sepal dev`: a server runs plugins in processes of their own",
            ));
        }
        logging::start(&config, "info")?;
        for variable in ignored {
            tracing::warn!(
                variable,
                "no setting of this name: it is ignored. `sepal config` prints them all"
            );
        }
        backup::check_finished(&config.data)?;
        hardened::keep_memory_private();
        runtime()?.block_on(async {
            let running = Running::start(config).await?;
            output::data(&format!("pg_listen = \"{}\"\nhttp_listen = \"{}\"", running.pg, running.http))?;
            process::interrupted().await?;
            running.stop().await;
            Ok(())
        })
    }
}
