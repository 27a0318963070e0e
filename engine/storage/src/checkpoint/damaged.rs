//! Segments that flushes and compactions leave alone: those that one of them reads now, and those that did not open
//! when one wanted to merge them.
//!
//! A damaged segment is an error for whoever reads its rows. That the log is flushed, and that other segments are
//! merged, must not wait for its repair: sooner or later the whole tenant could not write any more. Never touches a
//! file. What is known here is forgotten with the store: a repair takes place while that is closed.

use std::collections::HashSet;

use sepal_types::FileId;

use crate::{StoreError, TenantStore};

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

    /// One of these segments, or several, cannot be merged: none of them is from here on.
    pub(super) fn leave_alone(&self, files: impl IntoIterator<Item = FileId>, error: &StoreError) {
        self.damaged.lock().extend(files);
        tracing::error!(
            tenant = %self.tenant,
            %error,
            "segments that do not open stay as they are, beside the others, until the tenant is repaired"
        );
    }
}
