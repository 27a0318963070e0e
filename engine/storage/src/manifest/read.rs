//! One manifest by its number: for those who look at more than the newest.

use sepal_crypto::{KeyRing, sha256};
use sepal_types::TenantId;

use super::{
    Manifest,
    encode::{self, hex::digits},
};
use crate::{
    StoreError,
    disk::Disk,
    paths::{Paths, show},
};

/// The manifest, its file's hash and length.
pub(crate) fn read(
    disk: &Disk,
    paths: &Paths,
    tenant: TenantId,
    keys: &KeyRing,
    number: u64,
) -> Result<(Manifest, String, u64), StoreError> {
    let path = paths.manifest(number);
    let bytes = disk.read(&path)?;
    let manifest =
        encode::decode(tenant, keys, number, &bytes).map_err(|why| StoreError::corrupt(&show(&path), why))?;
    Ok((manifest, digits(&sha256(&bytes)), bytes.len() as u64))
}
