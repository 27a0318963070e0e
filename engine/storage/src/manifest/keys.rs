//! The file keys in a manifest, wrapped anew when the tenant's key was replaced.
//!
//! Every manifest passes here on its way to the disk, so that it names no key under an older one, wherever its entries
//! come from. No file is touched: the keys inside stay the same.

use std::path::Path;

use sepal_crypto::KeyRing;
use sepal_types::{FileId, TableId, TenantId};

use super::{BlobEntry, Manifest, SegmentEntry};
use crate::{
    StoreError,
    paths::{DataKind, Paths, file_key_aad, show},
};

impl Manifest {
    /// Wraps every key under the ring's current one.
    ///
    /// Errors: a key that no key of the ring opens.
    pub(crate) fn rewrap(&mut self, tenant: TenantId, keys: &KeyRing) -> Result<(), StoreError> {
        for table in &mut self.tables {
            for segment in &mut table.segments {
                segment.rewrap(tenant, table.def.id, keys)?;
            }
        }
        Ok(())
    }

    /// Whether every key in it is wrapped under the ring's current one.
    pub(crate) fn is_under(&self, keys: &KeyRing) -> bool {
        self.tables.iter().flat_map(|table| &table.segments).all(|segment| segment.is_under(keys))
    }
}

impl SegmentEntry {
    /// As [`Manifest::rewrap`], for an entry of `table`.
    fn rewrap(&mut self, tenant: TenantId, table: TableId, keys: &KeyRing) -> Result<(), StoreError> {
        let wrapping = Wrapping { tenant, table: self.sealed_for(table), keys };
        wrapping.wrap(DataKind::Segment, self.file, &mut self.key)?;
        if let Some(deleted) = &mut self.deleted {
            wrapping.blob(DataKind::Deleted, &mut deleted.blob)?;
        }
        self.indexes.iter_mut().try_for_each(|index| wrapping.blob(DataKind::Index, &mut index.blob))
    }

    /// Whether its keys are wrapped under the ring's current one.
    pub(crate) fn is_under(&self, keys: &KeyRing) -> bool {
        keys.is_current(&self.key)
            && self.deleted.iter().all(|deleted| keys.is_current(&deleted.blob.key))
            && self.indexes.iter().all(|index| keys.is_current(&index.blob.key))
    }
}

/// Whose keys are wrapped, and under what.
struct Wrapping<'a> {
    tenant: TenantId,
    /// Under whose id the files are sealed.
    table: TableId,
    keys: &'a KeyRing,
}

impl Wrapping<'_> {
    fn blob(&self, kind: DataKind, entry: &mut BlobEntry) -> Result<(), StoreError> {
        self.wrap(kind, entry.file, &mut entry.key)
    }

    fn wrap(&self, kind: DataKind, file: FileId, wrapped: &mut Vec<u8>) -> Result<(), StoreError> {
        if self.keys.is_current(wrapped) {
            return Ok(());
        }
        let aad = file_key_aad(kind, self.tenant, self.table, file);
        let key = self.keys.unwrap(&aad, wrapped).map_err(|error| {
            let path = Paths::new(Path::new("")).data(kind, file);
            StoreError::sealed(&show(&path), error)
        })?;
        *wrapped = self.keys.wrap(&aad, &key);
        Ok(())
    }
}
