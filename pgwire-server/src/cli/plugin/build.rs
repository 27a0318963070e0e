//! `sepal plugin build`: from a project to a component.

use std::path::PathBuf;

use clap::Args;
use sepal_plugins::author;

use super::{failed, source::with_toolchains};
use crate::cli::{failure::Failure, flags::JsonFlag, output};

#[derive(Args)]
pub struct Build {
    /// The project's folder
    #[arg(value_name = "DIR", default_value = ".")]
    directory: PathBuf,
    #[command(flatten)]
    json: JsonFlag,
}

impl Build {
    pub fn run(self) -> Result<(), Failure> {
        let built =
            with_toolchains(|toolchains| author::build_project(&self.directory, toolchains).map_err(failed))?;
        let shown = built.display().to_string();
        if self.json.json {
            return output::json(&serde_json::json!({ "component": shown }));
        }
        output::data(&shown)
    }
}
