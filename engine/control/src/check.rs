//! Whether everything in control.db opens and belongs where it lies.
//!
//! `sepal check` and `sepal repair` ask, when no server runs. They work on a copy ([`ControlCopy`]): opening the file
//! itself would bring an older format to today's and roll back what a crash left in its journal, and neither is theirs
//! to do. Never repairs: what SQLite can still read of a damaged file it cannot prove.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{ErrorKind, Write},
    ops::Deref,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use sepal_crypto::{Key, hex, random_bytes};
use sepal_types::TenantId;

use crate::{
    Control, ControlError, ControlOptions, Grantable, KEPT_VERSIONS, Scope, Tenant, api_keys::KeyRow,
    control::journal_of, control_error::Result, tenants::open_tenant,
};

/// Something in control.db that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlFinding {
    /// Whose it is; `None`: the file's.
    pub tenant: Option<TenantId>,
    pub what: String,
}

/// A copy of control.db, opened. It is overwritten and removed when this is dropped.
pub struct ControlCopy {
    control: Control,
    _directory: Scratch,
}

/// A directory for this process alone.
struct Scratch(PathBuf);

impl ControlCopy {
    /// Copies `path`, with the journal that a crash may have left, to the system's temporary directory.
    ///
    /// Errors: as [`Control::open`].
    pub fn open(path: &Path, root: &Key, options: ControlOptions) -> Result<Self> {
        if !path.try_exists().map_err(|source| ControlError::Io { path: path.to_owned(), source })? {
            return Err(ControlError::NoDatabase(path.to_owned()));
        }
        let directory = Scratch::new()?;
        let copy = directory.0.join("control.db");
        copy_file(path, &copy)?;
        let journal = journal_of(path);
        if journal.exists() {
            copy_file(&journal, &journal_of(&copy))?;
        }
        let control = Control::open(&copy, root, options).map_err(|error| renamed(error, path))?;
        Ok(Self { control, _directory: directory })
    }
}

impl Deref for ControlCopy {
    type Target = Control;

    fn deref(&self) -> &Control {
        &self.control
    }
}

impl Control {
    /// Reads every row, opens every sealed value and looks every name up by its HMAC. Gives the tenants whose own rows
    /// are whole; of the others nothing can be read. Asks tenants' own providers: one that does not give the key damages
    /// nothing, so nothing is found then, and [`Control::tenant_keys`] says why.
    ///
    /// Errors: the tenants cannot be listed at all.
    pub fn check(&self, found: &mut dyn FnMut(ControlFinding)) -> Result<Vec<Tenant>> {
        for what in self.check_file()? {
            found(ControlFinding { tenant: None, what });
        }
        let mut whole = Vec::new();
        for (id, outcome) in self.read_tenants()? {
            let mut wrong = |what: String| found(ControlFinding { tenant: Some(id), what });
            let tenant = match outcome.and_then(|tenant| self.check_tenant(tenant)) {
                Ok(tenant) => tenant,
                Err(error) => {
                    wrong(error.to_string());
                    continue;
                }
            };
            if let Err(error) = self.check_keys(id) {
                wrong(error.to_string());
            }
            match self.list_environments(id) {
                // Without the provider's key no secret opens.
                Ok(_) if self.vault.own.must_ask(id) => {}
                Ok(environments) => {
                    for environment in environments {
                        if let Err(error) = self.check_environment(id, &environment.name) {
                            wrong(format!("environment \"{}\": {error}", environment.name));
                        }
                    }
                }
                Err(error) => wrong(error.to_string()),
            }
            whole.push(tenant);
        }
        Ok(whole)
    }

    /// What SQLite itself finds wrong: pages, indexes, rows without the row that they belong to.
    fn check_file(&self) -> Result<Vec<String>> {
        let database = self.database.lock();
        let mut wrong = Vec::new();
        let mut statement = database.prepare("PRAGMA integrity_check")?;
        for line in statement.query_map([], |row| row.get::<_, String>(0))? {
            let line = line?;
            if line != "ok" {
                wrong.push(format!("SQLite: {line}"));
            }
        }
        let mut statement = database.prepare("PRAGMA foreign_key_check")?;
        for table in statement.query_map([], |row| row.get::<_, String>(0))? {
            wrong.push(format!("a row of {} belongs to one that is not there", table?));
        }
        Ok(wrong)
    }

    fn read_tenants(&self) -> Result<Vec<(TenantId, Result<Tenant>)>> {
        let database = self.database.lock();
        let mut statement = database.prepare("SELECT id, name_mac, body FROM tenants ORDER BY id")?;
        let rows = statement.query_map([], |row| {
            let (id, mac, sealed): ([u8; 16], [u8; 32], Vec<u8>) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let id = TenantId(id);
            Ok((id, open_tenant(&self.vault, id, &mac, &sealed)))
        })?;
        rows.map(|row| Ok(row?)).collect()
    }

    /// The row is found by its name, the key opens as far as it is ours to open.
    fn check_tenant(&self, tenant: Tenant) -> Result<Tenant> {
        match self.tenant_keys(tenant.id) {
            Ok(_) | Err(ControlError::OwnKey { .. }) => {}
            Err(error) => return Err(error),
        }
        self.log_end(tenant.id)?;
        match self.tenant_by_name(&tenant.name)? {
            Some(found) if found.id == tenant.id => Ok(tenant),
            _ => Err(misplaced("a tenant's name")),
        }
    }

    fn check_keys(&self, tenant: TenantId) -> Result<()> {
        for key in self.list_keys(tenant)? {
            let row = KeyRow::find(&self.database.lock(), &key.id)?;
            row.ok_or_else(|| misplaced("an API key"))?.open_verifier(&self.vault)?;
        }
        Ok(())
    }

    /// Secrets with every kept version, certificates with their keys, grants and uses.
    fn check_environment(&self, tenant: TenantId, environment: &str) -> Result<()> {
        if !self.has_environment(tenant, environment)? {
            return Err(misplaced("its name"));
        }
        let scope = Scope { tenant, environment };
        for secret in self.list_secrets(&scope)? {
            let name: &str = &secret.name;
            self.secret(&scope, name)?.ok_or_else(|| misplaced("a secret's name"))?;
            for version in secret.version.saturating_sub(KEPT_VERSIONS) + 1..=secret.version {
                self.secret_value(&scope, name, Some(version))?;
            }
            self.grantees(&scope, Grantable::Secret, name)?;
        }
        for certificate in self.list_certificates(&scope)? {
            let name: &str = &certificate.name;
            self.certificate_pem(&scope, name)?.ok_or_else(|| misplaced("a certificate's name"))?;
            self.grantees(&scope, Grantable::Certificate, name)?;
        }
        self.secret_uses(&scope, usize::MAX)?;
        Ok(())
    }
}

impl Scratch {
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("sepal-check-{}", hex(&random_bytes::<8>())));
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|source| ControlError::Io { path: path.clone(), source })?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Wrapped keys of tenants are among the bytes: a tenant that is dropped later must not live on in free blocks.
        for entry in fs::read_dir(&self.0).into_iter().flatten().flatten() {
            let length = entry.metadata().map_or(0, |metadata| metadata.len());
            let zeros = vec![0; usize::try_from(length).unwrap_or(0)];
            let opened = OpenOptions::new().write(true).open(entry.path());
            let wiped = opened.and_then(|mut file| {
                file.write_all(&zeros)?;
                file.sync_data()
            });
            if let Err(error) = wiped {
                tracing::warn!(%error, path = %entry.path().display(), "a copy was not overwritten");
            }
        }
        if let Err(error) = fs::remove_dir_all(&self.0)
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %self.0.display(), "a copy of control.db was not removed: remove it");
        }
    }
}

/// For its owner alone, whatever the source's mode and the process' mask are.
fn copy_file(from: &Path, to: &Path) -> Result<()> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| ControlError::Io { path, source }
    };
    let bytes = fs::read(from).map_err(io(from))?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).map_err(io(to))?;
    file.write_all(&bytes).map_err(io(to))
}

/// Errors speak of the file, not of its copy.
fn renamed(error: ControlError, path: &Path) -> ControlError {
    match error {
        ControlError::WrongRootKey { .. } => ControlError::WrongRootKey { database: path.to_owned() },
        ControlError::UnsupportedFormat { format, expected, .. } => {
            ControlError::UnsupportedFormat { database: path.to_owned(), format, expected }
        }
        other => other,
    }
}

fn misplaced(what: &'static str) -> ControlError {
    ControlError::Corrupt { what, why: "it is not found by its name".to_owned() }
}

#[cfg(test)]
mod tests;
