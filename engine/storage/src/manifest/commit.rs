//! Manifests on disk: published whole, the newest one read, older ones removed.
//!
//! Called by checkpoints and `attach_index` under the maintenance lock, and once by `open`.

use sepal_crypto::{KeyRing, sha256};
use sepal_types::TenantId;

use super::{
    Manifest,
    encode::{self, hex::digits},
};
use crate::{
    StoreError,
    disk::{Disk, PublishError},
    paths::{Paths, number, show},
};

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
    disk.publish("manifest", &paths.manifest(manifest.number), &bytes)?;
    Ok(digits(&sha256(&bytes)))
}

/// The manifest with the highest number, and its file's hash. It must open: an older one would lose commits.
pub(crate) fn newest(
    disk: &Disk,
    paths: &Paths,
    tenant: TenantId,
    keys: &KeyRing,
) -> Result<(Manifest, String), StoreError> {
    let names = disk.list(&paths.manifests())?;
    let newest = names.iter().filter_map(|name| number(name, "manifest")).max();
    let Some(newest) = newest else {
        return Err(StoreError::corrupt(&show(&paths.manifests()), "no manifest is there"));
    };
    let path = paths.manifest(newest);
    let bytes = disk.read(&path)?;
    let manifest =
        encode::decode(tenant, keys, newest, &bytes).map_err(|why| StoreError::corrupt(&show(&path), why))?;
    Ok((manifest, digits(&sha256(&bytes))))
}

/// Removes manifests below `number`, and unfinished ones.
pub(crate) fn remove_older(disk: &Disk, paths: &Paths, newest: u64) -> Result<(), StoreError> {
    for name in disk.list(&paths.manifests())? {
        let older = number(&name, "manifest").is_some_and(|number| number < newest);
        if older || number(&name, "tmp").is_some() {
            disk.remove("manifest", &paths.manifests().join(name))?;
        }
    }
    Ok(())
}
