//! `sepal plugin keygen`: a key pair of the author. The private half goes to a file and nowhere else.

use std::path::PathBuf;

use clap::Args;
use sepal_plugins::author;

use super::failed;
use crate::cli::{failure::Failure, flags::JsonFlag, output};

#[derive(Args)]
pub struct Keygen {
    /// File for the private key, which must not be there yet; the public one goes to FILE.pub
    #[arg(value_name = "FILE")]
    path: PathBuf,
    #[command(flatten)]
    json: JsonFlag,
}

impl Keygen {
    pub fn run(self) -> Result<(), Failure> {
        let public = author::keygen(&self.path).map_err(failed)?;
        if self.json.json {
            let key = self.path.display().to_string();
            return output::json(&serde_json::json!({ "public": public, "key": key }));
        }
        output::data(&public)?;
        output::talk(&format!(
            "Keep {} to yourself. Who trusts you runs: CREATE PLUGIN TRUST KEY name AS '{public}'",
            self.path.display()
        ));
        Ok(())
    }
}
