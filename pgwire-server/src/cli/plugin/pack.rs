//! `sepal plugin pack`: the file to upload.

use std::path::PathBuf;

use clap::Args;
use sepal_plugins::author;

use super::{failed, source::with_toolchains};
use crate::cli::{failure::Failure, flags::JsonFlag, output};

#[derive(Args)]
pub struct Pack {
    /// The project's folder
    #[arg(value_name = "DIR", default_value = ".")]
    directory: PathBuf,
    #[command(flatten)]
    json: JsonFlag,
}

impl Pack {
    pub fn run(self) -> Result<(), Failure> {
        let packed = with_toolchains(|toolchains| author::pack(&self.directory, toolchains).map_err(failed))?;
        let shown = packed.display().to_string();
        if self.json.json {
            return output::json(&serde_json::json!({ "package": shown }));
        }
        output::data(&shown)?;
        output::talk(&format!("Next: sepal plugin sign {shown} --key KEY, then CREATE PLUGIN."));
        Ok(())
    }
}
