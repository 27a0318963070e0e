//! Which plugin a command is about: a project's folder, which is built, or a packed component as it is.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::Args;
use sepal_plugins::{
    author::{self, Toolchains},
    compile::Compiler,
    kit::{Kit, Specimen, TestCase},
};

use super::failed;
use crate::cli::{failure::Failure, output};

#[derive(Args)]
pub struct Source {
    /// The project's folder, or a packed component
    #[arg(value_name = "PATH", default_value = ".")]
    path: PathBuf,
}

impl Source {
    /// The component with its manifest; a project is built.
    pub fn bytes(&self) -> Result<Vec<u8>, Failure> {
        if self.path.is_file() {
            return fs::read(&self.path).map_err(|error| at(&self.path, &error));
        }
        with_toolchains(|toolchains| author::packed(&self.path, toolchains).map_err(failed))
    }

    pub fn package(&self) -> Result<Specimen, Failure> {
        Specimen::read(self.bytes()?).map_err(failed)
    }

    /// Where the files of the project are.
    pub fn folder(&self) -> &Path {
        if self.path.is_file() { self.path.parent().unwrap_or(&self.path) } else { &self.path }
    }

    /// What the project says about its tests.
    pub fn case(&self) -> Result<TestCase, Failure> {
        TestCase::of_folder(self.folder()).map_err(failed)
    }
}

/// Runs something that may fetch a toolchain, and says so.
pub fn with_toolchains<T>(act: impl FnOnce(&Toolchains<'_>) -> Result<T, Failure>) -> Result<T, Failure> {
    let say = |line: &str| output::talk(line);
    act(&Toolchains::of_user(&say).map_err(failed)?)
}

/// Components are compiled in children of this process, as a server does.
pub fn compiler() -> Result<Compiler, Failure> {
    Compiler::in_children(None).map_err(failed)
}

pub fn kit() -> Result<Kit, Failure> {
    Kit::new(compiler()?).map_err(failed)
}

/// An error about a file, with its name.
pub fn at(path: &Path, error: &std::io::Error) -> Failure {
    Failure::failed(format!("{}: {error}", path.display()))
}
