//! The conformance kit: does a plugin keep what its manifest promises? Anybody can run it; `sepal plugin test` does,
//! and so do the tests of the plugins that come along.
//!
//! # What it does
//! 1. [`Kit::run`] compiles the component and runs it in this process (`host`), one fresh instance after the other.
//! 2. What the plugin asks for goes through the same way out as in a server (`egress`): destinations are judged,
//!    secrets put in place, answers scrubbed. Only the network is not there: `destination` answers by script.
//! 3. `groups` have it work in one weather after the other and judge what it says (`report`); `courier` delivers
//!    batches and kills it at every call to the host.
//!
//! A test case ([`TestCase`]) brings options that work and, where the plugin needs more than a 200, the destination's
//! answers. The same case gives the same report: nothing waits and nothing is drawn by chance. The groups are in
//! docs/plugins/conformance.md.

mod arrow_rows;
mod case;
mod courier;
mod destination;
mod groups;
mod live;
mod lookup;
mod outside;
mod report;
mod rows;
mod setup;
mod subject;
#[cfg(test)]
mod tests;

use std::{fmt, ops::Deref, sync::Arc};

pub use self::{
    case::{CaseError, Plaintext, TestCase},
    live::{Live, LiveOptions, LiveWork},
    report::{Check, Level, Report, Verdict},
};
use self::{
    report::{Checks, Group, Wrong},
    subject::{Subject, Unready},
};
use crate::{
    call::{Code, GuestHost},
    compile::{CompileError, Compiler},
    egress::EgressError,
    host::{HostOptions, LocalHost, StartError},
    manifest::Manifest,
    package::{Package, PackageError},
};

/// How a run goes.
#[derive(Clone, Copy, Debug)]
pub struct KitOptions {
    /// What the plugin is held to; else what its manifest claims.
    pub level: Option<Level>,
    /// Kill at every call to the host, however many there are.
    pub thorough: bool,
    /// Have the host show that it contains what breaks limits.
    pub host: bool,
    /// How many instances are made one after the other to see that memory stays flat; 0 leaves that out.
    pub instances: u32,
}

impl Default for KitOptions {
    fn default() -> Self {
        Self { level: None, thorough: false, host: false, instances: 1000 }
    }
}

impl KitOptions {
    pub fn thorough() -> Self {
        Self { thorough: true, instances: 10_000, ..Self::default() }
    }
}

/// Why there is no report: something of this machine.
#[derive(Debug, thiserror::Error)]
pub enum KitError {
    #[error(transparent)]
    Host(#[from] StartError),
    #[error(transparent)]
    Compiler(#[from] CompileError),
    #[error(transparent)]
    Egress(#[from] EgressError),
    /// Of [`Kit::live`]: the options.
    #[error("{0}")]
    Options(String),
}

/// A package together with the component it was read from.
#[derive(Debug)]
pub struct Specimen {
    pub package: Package,
    pub component: Arc<[u8]>,
}

impl Specimen {
    /// Errors: as [`Package::read`].
    pub fn read(component: impl Into<Arc<[u8]>>) -> Result<Self, PackageError> {
        let component = component.into();
        Ok(Self { package: Package::read(&component)?, component })
    }
}

impl Deref for Specimen {
    type Target = Package;

    fn deref(&self) -> &Package {
        &self.package
    }
}

/// Runs plugins under test.
pub struct Kit {
    host: Arc<LocalHost>,
    compiler: Arc<Compiler>,
}

impl fmt::Debug for Kit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kit").field("compiler", &self.compiler).finish_non_exhaustive()
    }
}

impl Kit {
    pub fn new(compiler: Compiler) -> Result<Self, KitError> {
        // Not pooled: what an instance had is given back at once, so that what is left can be seen.
        let options = HostOptions { guests: 4, threads: 2, pooled: false };
        Ok(Self { host: Arc::new(LocalHost::new(options)?), compiler: Arc::new(compiler) })
    }

    /// Holds the plugin to its level. A plugin that does not compile has a report that says so.
    pub async fn run(
        &self,
        package: &Specimen,
        case: &TestCase,
        options: &KitOptions,
    ) -> Result<Report, KitError> {
        let level = options.level.unwrap_or_else(|| Level::of(&package.manifest));
        let report = Report::new(&package.manifest, &package.hash, level);
        let code = match self.code(package).await {
            Ok(code) => code,
            Err(KitError::Compiler(
                error @ (CompileError::Rejected(_) | CompileError::TooSlow | CompileError::Died(_)),
            )) => return Ok(unready(report, "the component compiles", &error.to_string())),
            Err(error) => return Err(error),
        };
        let host = Arc::clone(&self.host) as Arc<dyn GuestHost>;
        examine(report, host, code, &package.manifest, package.imports.clone(), case, options).await
    }

    async fn code(&self, package: &Specimen) -> Result<Code, KitError> {
        let component = Arc::clone(&package.component);
        Ok(self.compiler.code(package.hash, package.world, component).await?)
    }
}

/// The run itself, with any host.
async fn examine(
    mut report: Report,
    host: Arc<dyn GuestHost>,
    code: Code,
    manifest: &Manifest,
    imports: Vec<String>,
    case: &TestCase,
    options: &KitOptions,
) -> Result<Report, KitError> {
    let subject = match Subject::new(host, code, manifest.clone(), imports, case.clone()) {
        Ok(subject) => subject,
        Err(Unready::Egress(error)) => return Err(error.into()),
        Err(error @ (Unready::Manifest(_) | Unready::Options(_))) => {
            return Ok(unready(report, "the test case's options fit the schema", &error.to_string()));
        }
    };
    for checks in groups::run(&subject, report.level, options).await {
        report.add(checks);
    }
    Ok(report)
}

fn unready(mut report: Report, check: &str, problem: &str) -> Report {
    let mut checks = Checks::of(Group::Loads);
    checks.fail(check, Wrong::new("no error", problem));
    report.add(checks);
    report
}
