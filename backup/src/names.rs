//! What objects are called: the repository's layout. The only place that forms or parses a name.
//!
//! ```text
//! sepal-backup.json                               format version, the repository's id
//! keys/recovery/<fingerprint>                     a root key, wrapped under the recovery key
//! keys/tenants/<tenant>                           a tenant's wrapped keys, in one object: gone with the tenant
//! control/<backup>                                control.db without those keys
//! tenants/<tenant>/segments/<file>                as in the data directory
//! tenants/<tenant>/manifest/<number>-<hash>       the first 8 bytes of its SHA-256
//! tenants/<tenant>/clones/<line>/<log number>-<bytes>-<sha256>-<file>
//!                                                 the log needs that file of segments/
//! tenants/<tenant>/wal/<line>/<number>-<file id>/<from>-<to>-<hash>
//!                                                 bytes of a log file; the first 16 bytes of their SHA-256
//! backups/<backup>.json, verified/<backup>.json, census/<day>.json
//! archived/<line>.json                            how far that line's logs are here
//! locks/<kind>-<random>
//! ```
//! A line is one data directory's life: one that was restored begins another, so that the two logs which both go on
//! from the same commit keep apart.

use sepal_database::{TenantId, backup::FileId};

use crate::entry::Object;

pub(crate) const REPOSITORY: &str = "sepal-backup.json";
pub(crate) const BACKUPS: &str = "backups";
pub(crate) const TENANTS: &str = "tenants";
pub(crate) const TENANT_KEYS: &str = "keys/tenants";
pub(crate) const RECOVERY: &str = "keys/recovery";
pub(crate) const CONTROL: &str = "control";
pub(crate) const VERIFIED: &str = "verified";
pub(crate) const LOCKS: &str = "locks";

pub(crate) fn entry(backup: &str) -> String {
    format!("{BACKUPS}/{backup}.json")
}

/// The backup in `backups/<backup>.json`.
pub(crate) fn backup_of(name: &str) -> Option<&str> {
    name.strip_prefix("backups/")?.strip_suffix(".json").filter(|id| is_backup(id))
}

/// Whether a text can be a backup's id. Ids become names, so nothing that leads elsewhere is one.
pub(crate) fn is_backup(id: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (1..=64).contains(&id.len()) && id.bytes().all(plain)
}

pub(crate) fn verified(backup: &str) -> String {
    format!("{VERIFIED}/{backup}.json")
}

/// The backup in `verified/<backup>.json`.
pub(crate) fn verified_of(name: &str) -> Option<&str> {
    name.strip_prefix("verified/")?.strip_suffix(".json").filter(|id| is_backup(id))
}

/// A line is in our own entries, and is no path.
pub(crate) fn archived(line: &str) -> String {
    format!("archived/{line}.json")
}

pub(crate) fn census(day: &str) -> String {
    format!("census/{day}.json")
}

pub(crate) fn control(backup: &str) -> String {
    format!("{CONTROL}/{backup}")
}

pub(crate) fn recovery(fingerprint: &str) -> String {
    format!("{RECOVERY}/{fingerprint}")
}

pub(crate) fn tenant_keys(tenant: TenantId) -> String {
    format!("{TENANT_KEYS}/{tenant}")
}

/// Whether an object is wrapped keys: nothing of it may stay where it was.
pub(crate) fn holds_keys(name: &str) -> bool {
    name.starts_with("keys/")
}

/// A file of a tenant's directory that keeps its name.
pub(crate) fn tenant_file(tenant: TenantId, name: &str) -> String {
    format!("{TENANTS}/{tenant}/{name}")
}

/// `manifest/<number>.manifest` of a tenant's directory, with the beginning of its hash.
pub(crate) fn manifest(tenant: TenantId, name: &str, sha256: &str) -> String {
    format!("{TENANTS}/{tenant}/{}-{}", name.trim_end_matches(".manifest"), &sha256[..16])
}

/// The number of a tenant's manifest, by its object's name.
pub(crate) fn manifest_number(tenant: TenantId, name: &str) -> Option<u64> {
    let (number, _) = name.strip_prefix(&tenant_file(tenant, "manifest/"))?.split_once('-')?;
    hex16(number)
}

/// Where an object of a tenant goes in its directory, and nowhere else: a folder that is ours, and a plain name.
pub(crate) fn local(tenant: TenantId, name: &str) -> Option<String> {
    let (folder, file) = name.strip_prefix(&tenant_file(tenant, ""))?.split_once('/')?;
    let plain = !file.is_empty() && !file.starts_with('.') && !file.contains('/');
    match folder {
        "segments" if plain => Some(format!("segments/{file}")),
        "manifest" if plain => {
            let (number, _) = file.split_once('-')?;
            hex16(number).map(|number| format!("manifest/{number:016x}.manifest"))
        }
        _ => None,
    }
}

/// The folder of a tenant's log on a line.
pub(crate) fn log(tenant: TenantId, line: &str) -> String {
    format!("{TENANTS}/{tenant}/wal/{line}")
}

/// The folder of marks of what a tenant's log on a line names.
pub(crate) fn clones(tenant: TenantId, line: &str) -> String {
    format!("{TENANTS}/{tenant}/clones/{line}")
}

/// A file that the archived log names (`clones`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub tenant: TenantId,
    pub line: String,
    /// The clone is in the log file of this number, or in an earlier one.
    pub number: u64,
    /// Below `segments/`.
    pub object: Object,
}

impl Mark {
    /// `None` for an object that is elsewhere.
    pub(crate) fn name(&self) -> Option<String> {
        let file = self.object.name.strip_prefix(&tenant_file(self.tenant, "segments/"))?;
        let folder = clones(self.tenant, &self.line);
        let Object { bytes, sha256, .. } = &self.object;
        Some(format!("{folder}/{:016x}-{bytes:016x}-{sha256}-{file}", self.number))
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        let mut parts = name.strip_prefix("tenants/")?.split('/');
        let tenant = TenantId::parse(parts.next()?)?;
        if parts.next()? != "clones" {
            return None;
        }
        let line = parts.next()?.to_owned();
        let mut facts = parts.next()?.splitn(4, '-');
        let (number, bytes) = (hex16(facts.next()?)?, hex16(facts.next()?)?);
        let (sha256, file) = (facts.next()?.to_owned(), facts.next()?);
        let name = tenant_file(tenant, &format!("segments/{file}"));
        let whole = parts.next().is_none() && sha256.len() == 64 && local(tenant, &name).is_some();
        whole.then_some(Self { tenant, line, number, object: Object { name, bytes, sha256 } })
    }
}

/// Bytes of a log file, as their object's name tells them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub tenant: TenantId,
    pub line: String,
    pub number: u64,
    pub file: FileId,
    pub from: u64,
    pub to: u64,
    /// The first 16 bytes, in hex.
    pub hash: String,
}

impl Part {
    pub(crate) fn name(&self) -> String {
        let folder = log(self.tenant, &self.line);
        let Self { number, file, from, to, hash, .. } = self;
        format!("{folder}/{number:016x}-{file}/{from:016x}-{to:016x}-{hash}")
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        let mut parts = name.strip_prefix("tenants/")?.split('/');
        let tenant = TenantId::parse(parts.next()?)?;
        if parts.next()? != "wal" {
            return None;
        }
        let line = parts.next()?.to_owned();
        let (number, file) = parts.next()?.split_once('-')?;
        let mut range = parts.next()?.splitn(3, '-');
        let (from, to, hash) = (hex16(range.next()?)?, hex16(range.next()?)?, range.next()?.to_owned());
        let whole = parts.next().is_none() && hash.len() == 32 && from < to;
        whole.then(|| {
            Some(Self { tenant, line, number: hex16(number)?, file: FileId::parse(file)?, from, to, hash })
        })?
    }
}

fn hex16(digits: &str) -> Option<u64> {
    (digits.len() == 16).then(|| u64::from_str_radix(digits, 16).ok())?
}

/// The tenant in `tenants/<tenant>/…` and `keys/tenants/<tenant>`.
pub(crate) fn tenant_of(name: &str) -> Option<TenantId> {
    let rest = name.strip_prefix("tenants/").or_else(|| name.strip_prefix("keys/tenants/"))?;
    TenantId::parse(rest.split('/').next()?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_manifests_object_tells_its_number() {
        let tenant = TenantId([7; 16]);
        let name = manifest(tenant, "manifest/00000000000000ff.manifest", &"0123456789abcdef".repeat(4));
        assert_eq!(manifest_number(tenant, &name), Some(255));
        assert_eq!(manifest_number(TenantId([8; 16]), &name), None);
        assert_eq!(manifest_number(tenant, &tenant_file(tenant, "segments/00000000000000ff-0")), None);
    }

    proptest! {
        #[test]
        fn a_part_is_read_as_it_was_named(
            (number, from, length) in (any::<u64>(), 0..u64::MAX / 2, 1..u64::MAX / 2),
            (tenant, file) in (any::<[u8; 16]>(), any::<[u8; 16]>()),
        ) {
            let part = Part {
                tenant: TenantId(tenant),
                line: "0a1b2c3d".into(),
                number,
                file: FileId(file),
                from,
                to: from + length,
                hash: "0123456789abcdef".repeat(2),
            };
            prop_assert_eq!(Part::parse(&part.name()), Some(part));
        }

        #[test]
        fn a_mark_is_read_as_it_was_named(
            (number, bytes) in any::<(u64, u64)>(),
            (tenant, file) in any::<([u8; 16], [u8; 16])>(),
        ) {
            let tenant = TenantId(tenant);
            let name = tenant_file(tenant, &format!("segments/{}.parquet", FileId(file)));
            let sha256 = "0123456789abcdef".repeat(4);
            let mark =
                Mark { tenant, line: "0a1b2c3d".into(), number, object: Object { name, bytes, sha256 } };
            let name = mark.name().expect("a segment");
            prop_assert_eq!(tenant_of(&name), Some(tenant));
            prop_assert_eq!(Part::parse(&name), None);
            prop_assert_eq!(Mark::parse(&name), Some(mark));
        }

        #[test]
        fn nothing_leads_out_of_a_tenants_directory(name in "(segments|manifest|wal|\\.\\.)/[a-f0-9./-]{0,40}") {
            let tenant = TenantId([7; 16]);
            if let Some(local) = local(tenant, &tenant_file(tenant, &name)) {
                prop_assert!(!local.contains("..") || local.matches('/').count() == 1, "{}", local);
                prop_assert_eq!(local.matches('/').count(), 1);
            }
        }

        #[test]
        fn no_backups_name_leads_elsewhere(id in "[0-9A-Za-z./\\\\-]{0,20}") {
            let name = entry(&id);
            prop_assert_eq!(backup_of(&name).is_some(), is_backup(&id));
            prop_assert!(!is_backup(&id) || !id.contains(['.', '/', '\\']));
        }

        #[test]
        fn no_name_is_too_strange_to_be_refused(name in "[tenas/wl0-9a-f-]{0,80}") {
            let _ = (Part::parse(&name), Mark::parse(&name), tenant_of(&name), backup_of(&name));
        }
    }
}
