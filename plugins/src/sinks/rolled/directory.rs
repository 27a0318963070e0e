//! Files under a directory of the server's machine, if its operator gave one for that. Each tenant has its own in it,
//! named by the tenant's id: `<sink_file_root>/<tenant>/<path>/<file>`.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, Write},
    path::{Component, Path, PathBuf},
};

use async_trait::async_trait;
use bytes::Bytes;
use sepal_database::{
    TenantId,
    connector::{Fault, FaultKind},
};

use super::{
    super::{misconfigured, options::Options},
    Rolling, Shelf,
};

/// `path` below the tenant's directory.
#[derive(Clone, Debug)]
pub(in super::super) struct Directory {
    /// The operator's.
    root: PathBuf,
    tenant: TenantId,
    path: PathBuf,
}

impl Directory {
    pub fn parse(options: &Options<'_>, root: Option<&Path>, tenant: TenantId) -> Result<Self, Fault> {
        let root = root.ok_or_else(|| {
            misconfigured(
                "the sink file is off: the operator turns it on with the setting sink_file_root, a directory for it",
            )
        })?;
        let path = Path::new(options.required("path")?);
        if path.components().any(|part| !matches!(part, Component::Normal(_))) {
            return Err(misconfigured(
                "/path: a path below the tenant's directory, without .. or a leading /",
            ));
        }
        Rolling::parse(options)?;
        options.finish()?;
        Ok(Self { root: root.to_owned(), tenant, path: path.to_owned() })
    }

    /// Makes the directory, and writes and removes a file.
    pub async fn check(&self) -> Result<(), Fault> {
        let this = self.clone();
        blocking(move || {
            let directory = this.make()?;
            let probe = directory.join(".sepal-check");
            File::create(&probe)?.sync_all()?;
            fs::remove_file(probe)
        })
        .await
    }

    /// The directory itself. No symbolic link may lead out of the tenant's: each step is judged before the next one
    /// is made, so nothing appears outside either.
    fn make(&self) -> io::Result<PathBuf> {
        let home = step(&self.root.canonicalize()?, self.tenant.to_string().as_ref())?;
        let mut directory = home.clone();
        for part in &self.path {
            directory = step(&directory, part)?;
            if !directory.starts_with(&home) {
                return Err(io::Error::new(
                    io::ErrorKind::PermissionDenied,
                    "a symbolic link leads out of the tenant's directory",
                ));
            }
        }
        Ok(directory)
    }
}

/// A directory in another one, made if it is not there, by its real name.
fn step(directory: &Path, name: &OsStr) -> io::Result<PathBuf> {
    let next = directory.join(name);
    match fs::create_dir(&next) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => next.canonicalize(),
    }
}

#[async_trait]
impl Shelf for Directory {
    async fn put(&self, name: &str, bytes: Bytes) -> Result<(), Fault> {
        let (this, name) = (self.clone(), name.to_owned());
        blocking(move || {
            let directory = this.make()?;
            let unfinished = directory.join(format!(".{name}.unfinished"));
            let mut file = File::create(&unfinished)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&unfinished, directory.join(name))?;
            File::open(&directory)?.sync_all()
        })
        .await
    }
}

async fn blocking(work: impl FnOnce() -> io::Result<()> + Send + 'static) -> Result<(), Fault> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| fault(&error)),
        Err(problem) => Err(Fault::new(FaultKind::Internal, format!("writing a file panicked: {problem}"))),
    }
}

fn fault(error: &io::Error) -> Fault {
    let kind = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied | io::ErrorKind::NotADirectory => {
            FaultKind::Misconfigured
        }
        _ => FaultKind::Transient,
    };
    Fault::new(kind, format!("the file could not be written: {error}")).with_code("file.io")
}
