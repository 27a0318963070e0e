//! `sepal version`: prints the version; opens nothing.

use clap::Args;
use serde::Serialize;

use super::{failure::Failure, flags::JsonFlag, output};

/// The version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

#[derive(Args)]
pub struct Version {
    #[command(flatten)]
    json: JsonFlag,
}

#[derive(Serialize)]
struct Facts {
    version: &'static str,
    target: String,
    debug: bool,
}

impl Version {
    pub fn run(self) -> Result<(), Failure> {
        let target = format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS);
        if self.json.json {
            return output::json(&Facts { version: VERSION, target, debug: cfg!(debug_assertions) });
        }
        let build = if cfg!(debug_assertions) { ", unoptimised build" } else { "" };
        output::data(&format!("sepal {VERSION} ({target}{build})"))
    }
}
