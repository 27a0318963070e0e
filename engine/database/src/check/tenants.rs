//! One tenant's store within a check, and directories that are no tenant's.

use std::{collections::BTreeSet, fs, path::Path};

use sepal_control::{Control, ControlError, Tenant};
use sepal_storage::{CheckOptions, TenantStore};
use sepal_types::{Result, TenantId};

use super::{Check, CheckRequest, Indexes, Problem, Severity, Tenants};
use crate::tenant::directory;

/// What a store's own check has to know.
pub(crate) fn store_options(control: &Control, tenant: TenantId, fast: bool) -> Result<CheckOptions> {
    Ok(CheckOptions { fast, log_end: control.log_end(tenant)?, ..CheckOptions::default() })
}

/// How much there is to read.
pub(super) fn bytes(data: &Path, tenant: TenantId) -> u64 {
    let folders = ["manifest", "wal", "segments"].map(|folder| directory(data, tenant).join(folder));
    let files = folders.iter().flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten());
    files.filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum()
}

impl Check<'_> {
    pub(super) fn tenant(&mut self, request: &CheckRequest, control: &Control, tenant: &Tenant) {
        self.summary.tenants += 1;
        let path = directory(&request.data_dir, tenant.id);
        let tell = |what: String, consequence: &str| Problem {
            severity: Severity::Error,
            tenant: Some(tenant.id),
            file: format!("tenants/{}", tenant.id),
            what,
            consequence: consequence.to_owned(),
        };
        let options = match store_options(control, tenant.id, request.fast) {
            Ok(options) => options,
            Err(error) => return self.found(tell(error.to_string(), "the tenant cannot be opened")),
        };
        let key = match control.tenant_keys(tenant.id) {
            Ok(key) => key,
            Err(error) => {
                let consequence = match &error {
                    ControlError::OwnKey { .. } => {
                        "nothing of the tenant was checked: check it again when its provider gives the key"
                    }
                    _ => "the tenant cannot be opened",
                };
                return self.found(tell(error.to_string(), consequence));
            }
        };
        match TenantStore::is_made(&path) {
            Ok(true) => {}
            // It was never used, or its making was cut short: the next session makes it.
            Ok(false) if options.log_end.is_none() => return,
            Ok(false) if path.exists() => {}
            Ok(false) => {
                let consequence = "all of the tenant's data is gone: restore the directory from a backup";
                return self.found(tell("the directory is missing".to_owned(), consequence));
            }
            Err(error) => return self.found(tell(error.to_string(), "the tenant cannot be opened")),
        }
        let mut observer = Tenants::new(self, tenant.id);
        let checked = TenantStore::check(&path, tenant.id, key, &options, &Indexes, &mut observer);
        self.summary.files += checked.files;
        self.summary.bytes += checked.bytes;
        self.summary.tables += checked.tables;
        self.summary.rows += checked.rows;
        self.summary.commits += checked.commits;
    }

    /// What lies among the tenants' directories and is no tenant's.
    pub(super) fn strays(&mut self, data: &Path, control: &Control) {
        // Those whose rows do not open are tenants, too: they were told already.
        let Ok(known) = control.tenant_ids() else { return };
        let known: BTreeSet<String> = known.iter().map(ToString::to_string).collect();
        let Ok(entries) = fs::read_dir(data.join("tenants")) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !known.contains(&name) {
                self.found(Problem {
                    severity: Severity::Warning,
                    tenant: None,
                    file: format!("tenants/{name}"),
                    what: "it belongs to no tenant that control.db knows".to_owned(),
                    consequence:
                        "nobody can open it: it is left of a tenant that was dropped, or control.db is older \
                                  than it"
                            .to_owned(),
                });
            }
        }
    }
}
