//! `sepal config`: the effective settings as TOML, each with where it came from.

use clap::Args;

use super::{failure::Failure, flags::ServerFlags, output};

#[derive(Args)]
pub struct Config {
    #[command(flatten)]
    server: ServerFlags,
    /// Print JSON, without the sources
    #[arg(long)]
    json: bool,
}

impl Config {
    pub fn run(self) -> Result<(), Failure> {
        let sourced = self.server.load(&crate::config::Config::of_this_machine())?;
        for name in &sourced.ignored {
            output::talk(&format!("{name} is no setting: it is ignored."));
        }
        if self.json {
            return output::json(&sourced.config);
        }
        output::data(sourced.to_toml()?.trim_end())
    }
}
