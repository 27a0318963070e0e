//! Who may sit: connections counted in total and per tenant, and each tenant's memory for large messages.
//!
//! Made by `server`, asked by `session`. A seat is a guard: dropping it frees the place, whatever ended the
//! connection. Counts are exact; a tenant at its limit takes nothing from another.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use sepal_database::{Error, SqlState, TenantId};
use tokio::sync::Semaphore;

use crate::server::Limits;

/// Connections beyond the limit that are still let in, only to be told so (53300). More are just closed.
const REFUSALS_AT_ONCE: usize = 32;

/// The registry of one server.
#[derive(Debug)]
pub struct Seats {
    max_total: usize,
    max_per_tenant: usize,
    /// KiB that a tenant's large messages may hold together.
    tenant_kib: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    total: usize,
    tenants: HashMap<TenantId, Tenant>,
}

#[derive(Debug)]
struct Tenant {
    connections: usize,
    budget: Arc<Semaphore>,
}

/// A place in the total count.
#[derive(Debug)]
pub struct Seat {
    seats: Arc<Seats>,
    over_limit: bool,
}

/// A place in a tenant's count.
#[derive(Debug)]
pub struct TenantSeat {
    seats: Arc<Seats>,
    tenant: TenantId,
    /// KiB, shared by the tenant's connections.
    pub budget: Arc<Semaphore>,
}

impl Seats {
    pub fn new(limits: &Limits) -> Self {
        Self {
            max_total: limits.max_connections,
            max_per_tenant: limits.max_connections_per_tenant,
            // At least one message of the largest size, or it would wait for ever.
            tenant_kib: limits.tenant_message_bytes.max(limits.max_message_bytes) as usize / 1024 + 1,
            taken: Mutex::default(),
        }
    }

    /// Takes a place for a new socket; `None` when even the places for refusals are taken.
    pub fn enter(self: &Arc<Self>) -> Option<Seat> {
        let mut taken = self.taken.lock();
        if taken.total >= self.max_total.saturating_add(REFUSALS_AT_ONCE) {
            return None;
        }
        taken.total += 1;
        Some(Seat { seats: self.clone(), over_limit: taken.total > self.max_total })
    }

    /// Takes a place for an authenticated connection of `tenant`.
    pub fn enter_tenant(self: &Arc<Self>, tenant: TenantId, name: &str) -> Result<TenantSeat, Error> {
        let mut taken = self.taken.lock();
        let entry = taken
            .tenants
            .entry(tenant)
            .or_insert_with(|| Tenant { connections: 0, budget: Arc::new(Semaphore::new(self.tenant_kib)) });
        if entry.connections >= self.max_per_tenant {
            return Err(too_many(format!("too many connections for tenant \"{name}\"")));
        }
        entry.connections += 1;
        let budget = entry.budget.clone();
        drop(taken);
        Ok(TenantSeat { seats: self.clone(), tenant, budget })
    }
}

impl Seat {
    /// 53300 if this seat was given only to say so.
    pub fn check(&self) -> Result<(), Error> {
        if self.over_limit { Err(too_many("sorry, too many clients already")) } else { Ok(()) }
    }
}

fn too_many(message: impl Into<String>) -> Error {
    Error::new(SqlState::TooManyConnections, message)
        .with_hint("Close idle connections, use a connection pool, or raise the server's connection limits.")
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.taken.lock().total -= 1;
    }
}

impl Drop for TenantSeat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken.lock();
        if let Some(entry) = taken.tenants.get_mut(&self.tenant) {
            entry.connections -= 1;
            if entry.connections == 0 {
                taken.tenants.remove(&self.tenant);
            }
        }
    }
}
