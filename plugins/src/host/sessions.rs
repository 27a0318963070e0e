//! Guests that are kept between calls: lifecycle `session`.
//!
//! Whoever made a session closes it after a while; here one is dropped only when its place is needed, or its tenant is
//! gone. What it held is replayed then: the next call that goes on with it is told that it is gone.

use std::collections::HashMap;

use parking_lot::Mutex;
use sepal_database::TenantId;

use super::instance::Instance;
use crate::call::{ComponentHash, SessionId};

type Name = (TenantId, SessionId);

struct Kept {
    instance: Instance,
    hash: ComponentHash,
    used: u64,
}

#[derive(Default)]
pub(super) struct Sessions(Mutex<Table>);

#[derive(Default)]
struct Table {
    kept: HashMap<Name, Kept>,
    clock: u64,
}

impl Sessions {
    /// Takes it out for a call; a session of another component is none.
    pub(super) fn take(
        &self,
        tenant: TenantId,
        session: SessionId,
        hash: &ComponentHash,
    ) -> Option<Instance> {
        let kept = self.0.lock().kept.remove(&(tenant, session))?;
        (kept.hash == *hash).then_some(kept.instance)
    }

    pub(super) fn keep(&self, tenant: TenantId, session: SessionId, hash: ComponentHash, instance: Instance) {
        let mut table = self.0.lock();
        table.clock += 1;
        let used = table.clock;
        let replaced = table.kept.insert((tenant, session), Kept { instance, hash, used });
        drop(table);
        // A store is not torn down under the lock.
        drop(replaced);
    }

    pub(super) fn count(&self) -> usize {
        self.0.lock().kept.len()
    }

    /// Drops the one that was not used for longest.
    pub(super) fn drop_oldest(&self) {
        let mut table = self.0.lock();
        let oldest = table.kept.iter().min_by_key(|(_, kept)| kept.used).map(|(name, _)| *name);
        let dropped = oldest.and_then(|name| table.kept.remove(&name));
        drop(table);
        drop(dropped);
    }

    pub(super) fn forget_tenant(&self, tenant: TenantId) {
        let mut table = self.0.lock();
        let gone: Vec<Kept> =
            table.kept.extract_if(|(owner, _), _| *owner == tenant).map(|(_, kept)| kept).collect();
        drop(table);
        drop(gone);
    }
}
