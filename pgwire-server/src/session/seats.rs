//! Who may sit: clients that are still logging in, those that have logged in, in total and per tenant, and each
//! tenant's memory for large messages.
//!
//! Made by `server`, asked by `session`. A seat is a guard: dropping it frees the place, whatever ended the
//! connection. Counts are exact; a tenant at its limit takes nothing from another, and a socket that only sits there
//! takes nothing from those that have logged in.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use sepal_database::{Error, SqlState, TenantId};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::server::Limits;

/// A client is given this long to log in before its own address' next one may take its place.
const GRACE: Duration = Duration::from_secs(1);

/// The registry of one server.
#[derive(Debug)]
pub struct Seats {
    max_logins: usize,
    max_total: usize,
    max_per_tenant: usize,
    /// KiB that a tenant's large messages may hold together.
    tenant_kib: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    /// Those that log in, the oldest first.
    arriving: BTreeMap<u64, Arriving>,
    next: u64,
    total: usize,
    tenants: HashMap<TenantId, Tenant>,
}

#[derive(Debug)]
struct Arriving {
    network: IpAddr,
    since: Instant,
    evicted: CancellationToken,
}

#[derive(Debug)]
struct Tenant {
    connections: usize,
    budget: Arc<Semaphore>,
}

/// A place among those that log in.
#[derive(Debug)]
pub struct Arrival {
    seats: Arc<Seats>,
    number: u64,
    evicted: CancellationToken,
}

/// The place of a client that has logged in, in the total count and its tenant's.
#[derive(Debug)]
pub struct Seat {
    seats: Arc<Seats>,
    tenant: TenantId,
    /// KiB, shared by the tenant's connections.
    pub budget: Arc<Semaphore>,
}

impl Seats {
    pub fn new(limits: &Limits) -> Self {
        Self {
            max_logins: limits.max_logins.max(1),
            max_total: limits.max_connections,
            max_per_tenant: limits.max_connections_per_tenant,
            // At least one message of the largest size, or it would wait for ever.
            tenant_kib: limits.tenant_message_bytes.max(limits.max_message_bytes) as usize / 1024 + 1,
            taken: Mutex::default(),
        }
    }

    /// Takes a place for a new socket. When all are taken, the network with most of them loses its oldest: at once
    /// to another network's client, to its own only after [`GRACE`]. `None`: it has to wait for that.
    pub fn arrive(self: &Arc<Self>, address: IpAddr, now: Instant) -> Option<Arrival> {
        let network = network(address);
        let mut taken = self.taken.lock();
        if taken.arriving.len() >= self.max_logins {
            let victim = taken.victim(network, now)?;
            if let Some(victim) = taken.arriving.remove(&victim) {
                victim.evicted.cancel();
            }
        }
        let (number, evicted) = (taken.next, CancellationToken::new());
        taken.next += 1;
        taken.arriving.insert(number, Arriving { network, since: now, evicted: evicted.clone() });
        Some(Arrival { seats: self.clone(), number, evicted })
    }

    /// Errors: 53300 while everything is taken.
    pub fn check_room(&self) -> Result<(), Error> {
        self.room(&self.taken.lock())
    }

    fn room(&self, taken: &Taken) -> Result<(), Error> {
        if taken.total >= self.max_total {
            return Err(too_many("sorry, too many clients already"));
        }
        Ok(())
    }

    /// Takes a place for an authenticated connection of `tenant`. Errors: 53300.
    pub fn sit(self: &Arc<Self>, tenant: TenantId, name: &str) -> Result<Seat, Error> {
        let mut taken = self.taken.lock();
        self.room(&taken)?;
        let entry = taken
            .tenants
            .entry(tenant)
            .or_insert_with(|| Tenant { connections: 0, budget: Arc::new(Semaphore::new(self.tenant_kib)) });
        if entry.connections >= self.max_per_tenant {
            return Err(too_many(format!("too many connections for tenant \"{name}\"")));
        }
        entry.connections += 1;
        let budget = entry.budget.clone();
        taken.total += 1;
        drop(taken);
        Ok(Seat { seats: self.clone(), tenant, budget })
    }
}

impl Taken {
    /// Who has to go for a newcomer from `network`.
    fn victim(&self, network: IpAddr, now: Instant) -> Option<u64> {
        let mut counts: HashMap<IpAddr, usize> = HashMap::new();
        for arriving in self.arriving.values() {
            *counts.entry(arriving.network).or_default() += 1;
        }
        let own = counts.get(&network).copied().unwrap_or(0);
        let (fullest, most) = counts.into_iter().max_by_key(|(_, count)| *count)?;
        let loser = if own == most { network } else { fullest };
        let (number, oldest) = self.arriving.iter().find(|(_, arriving)| arriving.network == loser)?;
        (loser != network || now.duration_since(oldest.since) >= GRACE).then_some(*number)
    }
}

impl Arrival {
    /// Somebody else has got the place.
    pub async fn evicted(&self) {
        self.evicted.cancelled().await;
    }
}

/// What one client can have many addresses of: a /64 of IPv6.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
        address => address,
    }
}

fn too_many(message: impl Into<String>) -> Error {
    Error::new(SqlState::TooManyConnections, message)
        .with_hint("Close idle connections, use a connection pool, or raise the server's connection limits.")
}

impl Drop for Arrival {
    fn drop(&mut self) {
        self.seats.taken.lock().arriving.remove(&self.number);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken.lock();
        taken.total -= 1;
        if let Some(entry) = taken.tenants.get_mut(&self.tenant) {
            entry.connections -= 1;
            if entry.connections == 0 {
                taken.tenants.remove(&self.tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn seats(max_logins: usize) -> Arc<Seats> {
        Arc::new(Seats::new(&Limits { max_logins, ..Limits::default() }))
    }

    #[test]
    fn a_full_address_makes_room_for_others_at_once() {
        let (seats, now) = (seats(3), Instant::now());
        let silent: Vec<Arrival> =
            (0..3).map(|_| seats.arrive(ip("192.0.2.1"), now).expect("a place")).collect();
        let other = seats.arrive(ip("192.0.2.2"), now).expect("the first one's place");
        let gone: Vec<bool> = silent.iter().map(|one| one.evicted.is_cancelled()).collect();
        assert_eq!(gone, [true, false, false]);
        assert!(!other.evicted.is_cancelled());
        assert_eq!(seats.taken.lock().arriving.len(), 3);
        drop((silent, other));
        assert!(seats.taken.lock().arriving.is_empty());
    }

    #[test]
    fn an_address_waits_for_its_own() {
        let (seats, now) = (seats(2), Instant::now());
        let first = seats.arrive(ip("::ffff:192.0.2.1"), now).expect("a place");
        let second = seats.arrive(ip("192.0.2.1"), now).expect("a place");
        assert!(seats.arrive(ip("192.0.2.1"), now + GRACE / 2).is_none(), "they are logging in");
        drop(second);
        let third = seats.arrive(ip("192.0.2.1"), now).expect("the place that is free");
        let fourth = seats.arrive(ip("192.0.2.1"), now + GRACE).expect("the silent one's place");
        assert!(first.evicted.is_cancelled() && !third.evicted.is_cancelled());
        drop((third, fourth));
    }

    #[test]
    fn an_ipv6_client_has_one_network() {
        assert_eq!(network(ip("2001:db8:1:2:3::4")), network(ip("2001:db8:1:2:ffff::1")));
        assert_ne!(network(ip("2001:db8:1:2::1")), network(ip("2001:db8:1:3::1")));
    }
}
