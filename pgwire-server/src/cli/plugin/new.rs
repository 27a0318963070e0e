//! `sepal plugin new`: a project to start from.

use std::path::PathBuf;

use clap::Args;
use sepal_plugins::author::{self, Kind, Language};

use super::failed;
use crate::cli::{failure::Failure, flags::JsonFlag, output};

#[derive(Args)]
pub struct New {
    /// hook or acme/hook: lower-case letters, digits, - and _
    name: String,
    /// What it is written in: rust, python or js
    #[arg(long, value_name = "LANGUAGE", default_value = "rust")]
    lang: Language,
    /// What it does: sink (takes rows somewhere) or resolver (fetches secrets)
    #[arg(long, value_name = "KIND", default_value = "sink")]
    kind: Kind,
    /// The folder to make [default: the name]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    #[command(flatten)]
    json: JsonFlag,
}

impl New {
    pub fn run(self) -> Result<(), Failure> {
        let last = self.name.rsplit('/').next().unwrap_or(&self.name);
        let directory = self.dir.unwrap_or_else(|| PathBuf::from(last));
        author::new_project(&directory, &self.name, self.lang, self.kind).map_err(failed)?;
        let shown = directory.display().to_string();
        if self.json.json {
            return output::json(&serde_json::json!({ "directory": shown }));
        }
        output::data(&shown)?;
        output::talk(&format!("Made. Next: cd {shown} && sepal plugin test"));
        Ok(())
    }
}
