//! Whether everything in control.db opens and belongs where it lies.
//!
//! `sepal check` and `sepal repair` ask, when no server runs. They work on a copy in memory ([`Control::open_copy`]):
//! opening the file itself would bring an older format to today's and roll back what a crash left in its journal, and
//! neither is theirs to do; a copy in a file would be one more place with tenants' wrapped keys, which a tenant's drop
//! would not reach. Never repairs: what SQLite can still read of a damaged file it cannot prove.

mod journal;

use std::{fs, io::ErrorKind, path::Path};

use rusqlite::{Connection, MAIN_DB};
use sepal_crypto::Key;
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

impl Control {
    /// Opens a copy of `path` in memory, without what a crash left half done. Nothing of it, and nothing that is done
    /// to it, reaches a file. It needs as much memory as the file has bytes.
    ///
    /// Errors: as [`Control::open`].
    pub fn open_copy(path: &Path, root: &Key, options: ControlOptions) -> Result<Self> {
        let mut database = read_if_there(path)?.ok_or_else(|| ControlError::NoDatabase(path.to_owned()))?;
        if let Some(journal) = read_if_there(&journal_of(path))? {
            journal::roll_back(&mut database, &journal)?;
        }
        let mut connection = Connection::open_in_memory()?;
        // SQLite has no buffer without bytes; an empty file is an empty database, as this one is.
        if !database.is_empty() {
            connection.deserialize_read_exact(MAIN_DB, database.as_slice(), database.len(), false)?;
        }
        Ok(Self::over(connection, path, root, options)?.0)
    }

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

fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ControlError::Io { path: path.to_owned(), source }),
    }
}

fn misplaced(what: &'static str) -> ControlError {
    ControlError::Corrupt { what, why: "it is not found by its name".to_owned() }
}

#[cfg(test)]
mod tests;
