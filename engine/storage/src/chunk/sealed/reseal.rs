//! A segment under other keys: its file keys wrapped anew, or its rows in a new file with a key of its own.
//!
//! Called by `rotation`, and where a clone's entry is made. A new file has the same rows at the same positions, deleted
//! ones too: deletion vectors and vector indexes say of it what they said of the old one.

use std::{collections::BTreeMap, sync::Arc};

use sepal_crypto::{Key, KeyRing};
use sepal_types::FileId;

use super::{SealedChunk, SealedParts};
use crate::{
    StoreError,
    blob::{Blob, Owner},
    checkpoint::Pace,
    manifest::SegmentEntry,
    paths::{DataKind, Paths, file_key_aad},
    segment::{self, Identity},
};

impl SealedChunk {
    /// To whom its blobs belong.
    pub(crate) fn owner(&self) -> Owner {
        let Identity { tenant, table, file, .. } = self.parts.identity;
        Owner { tenant, table, segment: file }
    }

    /// Wraps the keys in an entry of this segment under the ring's current one. They are in memory: it takes no older
    /// key, and no blob that the chunk does not have.
    pub(crate) fn rewrap(&self, entry: &mut SegmentEntry, keys: &KeyRing) {
        let Identity { tenant, table, file, key } = &self.parts.identity;
        if !keys.is_current(&entry.key) {
            entry.key = keys.wrap(&file_key_aad(DataKind::Segment, *tenant, *table, *file), key);
        }
        let blobs = self.indexes.read();
        for index in &mut entry.indexes {
            if let Some(blob) = blobs.values().find(|blob| blob.entry().file == index.blob.file) {
                index.blob.key = blob.wrapped(keys, self.owner());
            }
        }
    }

    /// Writes the rows to a new file, which `file` names, under a fresh key. Durable except for its name. The new chunk
    /// has no indexes yet.
    pub(crate) fn resealed(
        &self,
        paths: &Paths,
        keys: &KeyRing,
        file: FileId,
        pace: &dyn Pace,
    ) -> Result<Self, StoreError> {
        let parts = &self.parts;
        let identity = Identity { file, key: Key::random(), ..parts.identity.clone() };
        let path = paths.data(DataKind::Segment, file);
        let bytes = segment::copy(&parts.disk, self.footer()?, &parts.path, &path, &identity, pace)?;
        let aad = file_key_aad(DataKind::Segment, identity.tenant, identity.table, file);
        let key = keys.wrap(&aad, &identity.key);
        let entry = SegmentEntry { file, bytes, key, ..parts.entry.clone() };
        Ok(Self::new(SealedParts {
            disk: parts.disk.clone(),
            path,
            identity,
            cache: Arc::clone(&parts.cache),
            entry,
            indexes: BTreeMap::new(),
        }))
    }

    /// The indexes' blobs, each file once.
    pub(crate) fn index_blobs(&self) -> Vec<Blob> {
        let indexes = self.indexes.read();
        let mut blobs: BTreeMap<FileId, Blob> = BTreeMap::new();
        for blob in indexes.values() {
            blobs.entry(blob.entry().file).or_insert_with(|| blob.clone());
        }
        blobs.into_values().collect()
    }
}
