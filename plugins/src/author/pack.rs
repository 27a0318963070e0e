//! `sepal plugin pack`: the component with its manifest in it, under the name and version that the manifest gives.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    AuthorError, Result,
    build::{Toolchains, build_project, manifest_of},
};
use crate::package;

/// Builds the project and writes `<name>-<version>.wasm` beside `plugin.toml`.
///
/// Errors: what [`packed`] says.
pub fn pack(directory: &Path, toolchains: &Toolchains<'_>) -> Result<PathBuf> {
    let about = manifest_of(directory)?.plugin;
    let bytes = packed(directory, toolchains)?;
    let name = about.name.split_once('/').map_or(about.name.as_str(), |(_, name)| name);
    let path = directory.join(format!("{name}-{}.wasm", about.version));
    fs::write(&path, bytes).map_err(AuthorError::at(&path))?;
    Ok(path)
}

/// Builds the project and gives the component with its manifest in it, without leaving a file of it.
///
/// Errors: what [`build_project`] says; a manifest that is wrong, or that the component does not keep.
pub fn packed(directory: &Path, toolchains: &Toolchains<'_>) -> Result<Vec<u8>> {
    let manifest = manifest_of(directory)?;
    let built = build_project(directory, toolchains)?;
    let component = fs::read(&built).map_err(AuthorError::at(&built))?;
    Ok(package::pack(&component, &manifest)?)
}
