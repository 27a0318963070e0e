//! Manifests on disk: published whole, read by number, those that are no history removed.
//!
//! Written and removed by checkpoints, `attach_index` and named snapshots under the maintenance lock, read when a store
//! opens and when somebody asks for the past.

use std::collections::BTreeSet;

use sepal_crypto::{KeyRing, hex, sha256};
use sepal_types::TenantId;

use super::{Manifest, encode};
use crate::{
    StoreError,
    disk::{Disk, PublishError},
    paths::{Paths, number, show},
};

/// What a manifest's file has at most: room for some 200,000 segments, or tables. Nothing vouches for a length before
/// the whole file was read, so that this is also what a damaged one may cost.
pub(super) const MAX_FILE_BYTES: usize = 256 << 20;

/// Makes `manifest` the newest and gives its file's hash, for its successor.
pub(crate) fn commit(
    disk: &Disk,
    paths: &Paths,
    tenant: TenantId,
    keys: &KeyRing,
    manifest: &Manifest,
) -> Result<String, PublishError> {
    let bytes = encode::encode(tenant, keys.current(), manifest).map_err(|why| {
        PublishError::Before(StoreError::Bug(format!("a manifest does not serialise: {why}")))
    })?;
    check_size(bytes.len()).map_err(PublishError::Before)?;
    disk.publish("manifest", &paths.manifest(manifest.number), &bytes)?;
    Ok(hex(&sha256(&bytes)))
}

/// Nothing is written that would not be read.
pub(super) fn check_size(bytes: usize) -> Result<(), StoreError> {
    if bytes > MAX_FILE_BYTES {
        return Err(StoreError::ManifestTooLarge { bytes, limit: MAX_FILE_BYTES });
    }
    Ok(())
}

/// The manifest with the highest number, and its file's hash. It must open: an older one would lose commits.
pub(crate) fn newest(
    disk: &Disk,
    paths: &Paths,
    tenant: TenantId,
    keys: &KeyRing,
) -> Result<(Manifest, String), StoreError> {
    let Some(newest) = numbers(disk, paths)?.last().copied() else {
        return Err(StoreError::corrupt(&show(&paths.manifests()), "no manifest is there"));
    };
    read(disk, paths, tenant, keys, newest)
}

/// The numbers of the manifests that are there.
pub(crate) fn numbers(disk: &Disk, paths: &Paths) -> Result<BTreeSet<u64>, StoreError> {
    let names = disk.list(&paths.manifests())?;
    Ok(names.iter().filter_map(|name| number(name, "manifest")).collect())
}

/// The manifest of this number, and its file's hash.
pub(crate) fn read(
    disk: &Disk,
    paths: &Paths,
    tenant: TenantId,
    keys: &KeyRing,
    number: u64,
) -> Result<(Manifest, String), StoreError> {
    let path = paths.manifest(number);
    let bytes = disk.read(&path, MAX_FILE_BYTES)?;
    let manifest =
        encode::decode(tenant, keys, number, &bytes).map_err(|why| StoreError::corrupt(&show(&path), why))?;
    Ok((manifest, hex(&sha256(&bytes))))
}

/// Every data file that any manifest in the directory names: what may be under `segments/`.
#[cfg(test)]
pub(crate) fn all_named(
    disk: &Disk,
    paths: &Paths,
    tenant: TenantId,
    keys: &KeyRing,
) -> Result<std::collections::BTreeSet<(crate::paths::DataKind, sepal_types::FileId)>, StoreError> {
    let mut files = std::collections::BTreeSet::new();
    for number in disk.list(&paths.manifests())?.iter().filter_map(|name| number(name, "manifest")) {
        let path = paths.manifest(number);
        let manifest = encode::decode(tenant, keys, number, &disk.read(&path, MAX_FILE_BYTES)?)
            .map_err(|why| StoreError::corrupt(&show(&path), why))?;
        files.extend(manifest.files().into_keys());
    }
    Ok(files)
}

/// Removes the manifests below the newest that are not to be kept, and unfinished ones. Returns the bytes and whether
/// there were any: the caller makes that durable before it removes what they name.
pub(crate) fn remove_others(
    disk: &Disk,
    paths: &Paths,
    keep: &BTreeSet<u64>,
) -> Result<Option<u64>, StoreError> {
    let newest = keep.last().copied().unwrap_or(0);
    let mut removed = None;
    for name in disk.list(&paths.manifests())? {
        let older =
            number(&name, "manifest").is_some_and(|number| number < newest && !keep.contains(&number));
        if older || number(&name, "tmp").is_some() {
            let path = paths.manifests().join(name);
            removed = Some(removed.unwrap_or(0) + disk.length(&path).unwrap_or(0));
            disk.remove("manifest", &path)?;
        }
    }
    Ok(removed)
}
