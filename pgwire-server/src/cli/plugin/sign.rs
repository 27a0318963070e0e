//! `sepal plugin sign`: who made this file.

use std::path::PathBuf;

use clap::Args;
use sepal_plugins::author;

use super::failed;
use crate::cli::{failure::Failure, flags::JsonFlag, output};

#[derive(Args)]
pub struct Sign {
    /// What `sepal plugin pack` wrote
    #[arg(value_name = "COMPONENT")]
    component: PathBuf,
    /// The private key, from `sepal plugin keygen`
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    #[command(flatten)]
    json: JsonFlag,
}

impl Sign {
    pub fn run(self) -> Result<(), Failure> {
        let signature = author::sign(&self.component, &self.key).map_err(failed)?;
        let shown = signature.display().to_string();
        if self.json.json {
            return output::json(&serde_json::json!({ "signature": shown }));
        }
        output::data(&shown)
    }
}
