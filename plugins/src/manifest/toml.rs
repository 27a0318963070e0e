//! `plugin.toml`: the manifest as its author writes it.
//!
//! Called by `sepal plugin check` and `sepal plugin pack`. Reads the schema's file through the caller, which knows
//! where the project lies.

use serde_json::Value;

use super::{Manifest, ManifestError};

impl Manifest {
    /// Parses and checks. `read` gives the file of `[config] schema = "config.schema.json"`; its error says what was
    /// wrong with the file.
    pub fn from_toml(
        text: &str,
        read: &dyn Fn(&str) -> Result<Vec<u8>, String>,
    ) -> Result<Self, ManifestError> {
        let whole = |error: ::toml::de::Error| ManifestError::new("plugin.toml", error.to_string());
        let mut manifest: Self = ::toml::from_str(text).map_err(whole)?;
        if let Value::String(path) = &manifest.config.schema {
            manifest.config.schema = schema_file(path, read)?;
        }
        manifest.check()?;
        Ok(manifest)
    }
}

fn schema_file(path: &str, read: &dyn Fn(&str) -> Result<Vec<u8>, String>) -> Result<Value, ManifestError> {
    let wrong = |problem: String| ManifestError::new(format!("config.schema ({path})"), problem);
    let bytes = read(path).map_err(wrong)?;
    serde_json::from_slice(&bytes).map_err(|error| wrong(format!("it is not JSON: {error}")))
}
