//! What a plugin's author does with `sepal plugin`: new, build, pack, keygen, sign. The command line calls it; no
//! server does.
//!
//! ```text
//! my-hook/                 plugin.toml, config.schema.json, cases/, README.md
//!   src/lib.rs             Rust, with its copy of the SDK in sepal-plugin/
//!   app.py | app.js        Python or JavaScript, with the interface in wit/
//!   my-hook-0.1.0.wasm     what `pack` writes: the component with its manifest
//!   my-hook-0.1.0.wasm.sig what `sign` writes
//! ```
//! Nothing here connects to a database. Python and JavaScript get their toolchains from PyPI and npm, once, into a
//! folder of the user's; Rust needs the network for crates that are not there yet.

mod build;
mod pack;
mod project;
mod sign;
mod templates;
#[cfg(test)]
mod tests;

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{manifest::ManifestError, package::PackageError};

pub use self::{
    build::{Toolchains, build_project},
    pack::{pack, packed},
    project::{Kind, Language, new_project},
    sign::{keygen, sign},
};

/// Why a step failed, for the person who took it.
#[derive(Debug, thiserror::Error)]
pub enum AuthorError {
    #[error("{}: {error}", .path.display())]
    File { path: PathBuf, error: io::Error },
    /// What was wrong and what to do.
    #[error("{0}")]
    Project(String),
    /// A program said why on standard error, which it shares with this one.
    #[error("{program} failed{}", .code.map(|code| format!(" with exit code {code}")).unwrap_or_default())]
    Program { program: String, code: Option<i32> },
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error(transparent)]
    Package(#[from] PackageError),
}

impl AuthorError {
    fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |error| Self::File { path, error }
    }
}

type Result<T> = std::result::Result<T, AuthorError>;
