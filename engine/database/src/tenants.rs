//! Which tenants are open, who needs them, and how long nobody has.
//!
//! A tenant is opened when it is first used and closed when nobody has needed it for a while: a server of ten thousand
//! tenants holds those that are at work. Sessions take a [`Seat`]; so must everything else that goes on after the call
//! that asked for the tenant. Opening and closing hold the slot, so whoever comes while a tenant is being closed waits,
//! and opens it again.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use sepal_types::TenantId;

use crate::tenant::OpenTenant;

/// The tenants of a process.
#[derive(Default)]
pub struct Tenants {
    slots: Mutex<HashMap<TenantId, Arc<Slot>>>,
    open: AtomicUsize,
    /// Those that were opened since somebody asked.
    opened: Mutex<HashSet<TenantId>>,
}

/// A tenant that is open, or was, or will be.
pub struct Slot {
    tenant: tokio::sync::Mutex<Option<Arc<OpenTenant>>>,
    seats: AtomicUsize,
    last_needed: Mutex<Instant>,
}

/// Keeps a tenant from being closed for want of use.
pub struct Seat {
    slot: Arc<Slot>,
}

/// What opening and closing change; held, nobody else does either.
pub struct Held<'a> {
    tenant: tokio::sync::MutexGuard<'a, Option<Arc<OpenTenant>>>,
    slot: &'a Arc<Slot>,
    open: &'a AtomicUsize,
    opened: &'a Mutex<HashSet<TenantId>>,
}

impl Tenants {
    pub fn slot(&self, id: TenantId) -> Arc<Slot> {
        let new = || {
            Arc::new(Slot {
                tenant: tokio::sync::Mutex::default(),
                seats: AtomicUsize::new(0),
                last_needed: Mutex::new(Instant::now()),
            })
        };
        Arc::clone(self.slots.lock().entry(id).or_insert_with(new))
    }

    /// Takes the slot away: who asks for the tenant from now on gets another one.
    pub fn remove(&self, id: TenantId) -> Option<Arc<Slot>> {
        self.slots.lock().remove(&id)
    }

    /// Takes all of them away.
    pub fn drain(&self) -> Vec<(TenantId, Arc<Slot>)> {
        self.slots.lock().drain().collect()
    }

    /// Tenants that are open.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Those that are open and not being opened or closed.
    pub fn settled(&self) -> Vec<Arc<OpenTenant>> {
        let slots = self.slots.lock();
        slots.values().filter_map(|slot| slot.tenant.try_lock().ok()?.clone()).collect()
    }

    /// Those that were opened since this was last asked, whether or not they still are.
    pub fn take_opened(&self) -> HashSet<TenantId> {
        std::mem::take(&mut *self.opened.lock())
    }

    /// The slot of a tenant that somebody has asked for.
    pub fn find(&self, id: TenantId) -> Option<Arc<Slot>> {
        self.slots.lock().get(&id).cloned()
    }

    /// Waits for whoever opens or closes it.
    pub async fn hold<'a>(&'a self, slot: &'a Arc<Slot>) -> Held<'a> {
        Held { tenant: slot.tenant.lock().await, slot, open: &self.open, opened: &self.opened }
    }

    /// `None` while somebody opens or closes it.
    pub fn try_hold<'a>(&'a self, slot: &'a Arc<Slot>) -> Option<Held<'a>> {
        let tenant = slot.tenant.try_lock().ok()?;
        Some(Held { tenant, slot, open: &self.open, opened: &self.opened })
    }

    /// Who nobody needs, and for how long: the longest first. Slots that are empty and that nobody waits for are
    /// removed on the way.
    pub fn unneeded(&self) -> Vec<(TenantId, Arc<Slot>, Duration)> {
        let mut slots = self.slots.lock();
        // Another handle is taken under this lock only, so what has one handle has no user.
        slots.retain(|_, slot| {
            Arc::strong_count(slot) > 1 || slot.tenant.try_lock().is_ok_and(|open| open.is_some())
        });
        let unneeded = slots.iter().filter(|(_, slot)| slot.is_unneeded());
        let mut unneeded: Vec<_> =
            unneeded.map(|(id, slot)| (*id, Arc::clone(slot), slot.last_needed.lock().elapsed())).collect();
        drop(slots);
        unneeded.sort_by_key(|(_, _, since)| std::cmp::Reverse(*since));
        unneeded
    }
}

impl Slot {
    fn is_unneeded(&self) -> bool {
        self.seats.load(Ordering::Acquire) == 0
    }
}

impl Held<'_> {
    pub fn tenant(&self) -> Option<&Arc<OpenTenant>> {
        self.tenant.as_ref()
    }

    /// Keeps what was opened.
    pub fn put(&mut self, tenant: Arc<OpenTenant>) {
        self.opened.lock().insert(tenant.id);
        if self.tenant.replace(tenant).is_none() {
            self.open.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Gives up what was open, to close it.
    pub fn take(&mut self) -> Option<Arc<OpenTenant>> {
        let tenant = self.tenant.take();
        if tenant.is_some() {
            self.open.fetch_sub(1, Ordering::Relaxed);
        }
        tenant
    }

    /// Whether nobody sits. While this is held, nobody sits down.
    pub fn is_unneeded(&self) -> bool {
        self.slot.is_unneeded()
    }

    pub fn sit(&self) -> Seat {
        self.slot.seats.fetch_add(1, Ordering::AcqRel);
        Seat { slot: Arc::clone(self.slot) }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        *self.slot.last_needed.lock() = Instant::now();
        self.slot.seats.fetch_sub(1, Ordering::AcqRel);
    }
}

impl std::fmt::Debug for Seat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seat").finish_non_exhaustive()
    }
}
