//! Segments that flushes and compactions leave alone: those that one of them reads now, and those that did not open
//! when one wanted to merge them.
//!
//! A damaged segment is an error for whoever reads its rows. That the log is flushed, and that other segments are
//! merged, must not wait for its repair: sooner or later the whole tenant could not write any more. Never touches a
//! file. What is known here is forgotten with the store: a repair takes place while that is closed.

use std::collections::HashSet;

use sepal_types::FileId;

use crate::{
    StoreError, TenantStore,
    paths::{DataKind, show},
};

impl TenantStore {
    /// What a flush does not rewrite.
    pub(super) fn untouched(&self) -> HashSet<FileId> {
        let mut files = self.underway.lock().inputs.clone();
        files.extend(self.damaged.lock().iter().copied());
        files
    }

    /// Segments that a merge has failed to read.
    pub(super) fn unmergeable(&self) -> HashSet<FileId> {
        self.damaged.lock().clone()
    }

    /// A merge of these segments met damage: of the one that the error names, or, if that is none of them, of any. It
    /// takes part in no merge from here on.
    pub(super) fn leave_alone(&self, files: impl IntoIterator<Item = FileId>, error: &StoreError) {
        let files: Vec<FileId> = files.into_iter().collect();
        let is_named = |segment: &&FileId| match error {
            StoreError::Corrupt { file, .. } => *file == show(&self.paths.data(DataKind::Segment, **segment)),
            _ => false,
        };
        let named: Vec<FileId> = files.iter().filter(is_named).copied().collect();
        self.damaged.lock().extend(if named.is_empty() { files } else { named });
        tracing::error!(
            tenant = %self.tenant,
            %error,
            "a segment that does not open stays as it is, beside the others, until the tenant is repaired"
        );
    }
}

/// Whether what does not open is a deletion vector: the segment itself does.
pub(super) fn is_of_deletions(error: &StoreError) -> bool {
    matches!(error, StoreError::Corrupt { file, .. } if is_deletions(file))
}

fn is_deletions(shown: &str) -> bool {
    shown.rsplit_once('.').is_some_and(|(_, extension)| extension == DataKind::Deleted.extension())
}
