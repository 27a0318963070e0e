//! Room for what a tenant has committed: in memory until it is flushed, and on disk.
//!
//! `session::execute` asks before each commit, [`super::maintain`] flushes and reports. Rows that only memory and the
//! log hold are counted by the log's bytes, which are about theirs. Writers of a tenant that has too many wait for its
//! flush; where all together have too many, who has most is flushed. A tenant over its disk quota takes no rows;
//! flushes, deletes, TRUNCATE, DROP and VACUUM go on, because they make room.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use sepal_types::{Error, Result, SqlState, TenantId};
use tokio::sync::Notify;

const MIB: u64 = 1 << 20;

/// Rows of all tenants that are not flushed.
#[derive(Debug)]
pub struct Unflushed {
    limit_bytes: u64,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    bytes: u64,
    tenants: HashMap<TenantId, (u64, Arc<Flush>)>,
}

/// A flush that is asked for whether or not the log is long enough for one to pay.
#[derive(Debug, Default)]
pub struct Flush {
    asked: AtomicBool,
    wake: Notify,
}

impl Flush {
    pub fn ask(&self) {
        self.asked.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// Waits for somebody to ask.
    pub async fn asked(&self) {
        self.wake.notified().await;
    }

    /// Whether somebody has asked since this was last asked.
    pub fn take(&self) -> bool {
        self.asked.swap(false, Ordering::AcqRel)
    }
}

impl Unflushed {
    pub fn new(limit_bytes: u64) -> Arc<Self> {
        Arc::new(Self { limit_bytes, held: Mutex::default() })
    }

    /// Bytes of all tenants.
    pub fn bytes(&self) -> u64 {
        self.held.lock().bytes
    }

    /// A tenant holds that many now. Asks for a flush of the one that holds most when all hold too many.
    fn note(&self, tenant: TenantId, bytes: u64, flush: &Arc<Flush>) {
        let mut held = self.held.lock();
        let entry = held.tenants.entry(tenant).or_insert_with(|| (0, Arc::clone(flush)));
        // Opened anew before the one that was closed is gone: the new one is to be asked.
        if !Arc::ptr_eq(&entry.1, flush) {
            entry.1 = Arc::clone(flush);
        }
        let before = std::mem::replace(&mut entry.0, bytes);
        held.bytes = held.bytes - before + bytes;
        if held.bytes > self.limit_bytes
            && let Some((_, flush)) = held.tenants.values().max_by_key(|(bytes, _)| *bytes)
        {
            flush.ask();
        }
    }

    /// The tenant was closed. One that was opened anew meanwhile stays.
    fn forget(&self, tenant: TenantId, flush: &Arc<Flush>) {
        let mut held = self.held.lock();
        let own = held.tenants.get(&tenant).is_some_and(|(_, known)| Arc::ptr_eq(known, flush));
        if own && let Some((bytes, _)) = held.tenants.remove(&tenant) {
            held.bytes -= bytes;
        }
    }
}

/// One tenant's room.
#[derive(Debug)]
pub struct Room {
    tenant: TenantId,
    unflushed_limit: u64,
    unflushed: Arc<Unflushed>,
    pub flush: Arc<Flush>,
    /// Wakes writers that wait for a flush.
    flushed: Notify,
    /// Why the last flush failed.
    problem: Mutex<Option<Error>>,
    /// 0: none.
    quota_bytes: AtomicU64,
    /// All files but the log, as they were last counted.
    settled_bytes: AtomicU64,
}

impl Room {
    /// `unflushed_limit`: bytes of one tenant above which its writers wait.
    pub fn new(tenant: TenantId, unflushed_limit: u64, quota_bytes: u64, unflushed: Arc<Unflushed>) -> Self {
        Self {
            tenant,
            unflushed_limit,
            unflushed,
            flush: Arc::default(),
            flushed: Notify::new(),
            problem: Mutex::default(),
            quota_bytes: AtomicU64::new(quota_bytes),
            settled_bytes: AtomicU64::new(0),
        }
    }

    pub fn unflushed_limit(&self) -> u64 {
        self.unflushed_limit
    }

    /// Takes note of what is not flushed.
    pub fn note_unflushed(&self, bytes: u64) {
        self.unflushed.note(self.tenant, bytes, &self.flush);
    }

    /// Takes note of what all files but the log hold.
    pub fn note_settled(&self, bytes: u64) {
        self.settled_bytes.store(bytes, Ordering::Relaxed);
    }

    /// A flush ended.
    pub fn flushed(&self, problem: Option<Error>) {
        *self.problem.lock() = problem;
        self.flushed.notify_waiters();
    }

    /// Whether writers have to wait. `unflushed`: bytes now.
    pub fn is_short(&self, unflushed: u64) -> bool {
        unflushed >= self.unflushed_limit
    }

    /// Waits until a flush has made room. `unflushed` tells what is not flushed at the moment.
    ///
    /// Errors: the one that keeps it from being flushed.
    pub async fn wait(&self, unflushed: impl Fn() -> u64) -> Result<()> {
        let mut tried = false;
        loop {
            let flushed = self.flushed.notified();
            tokio::pin!(flushed);
            // From here on no flush is missed.
            flushed.as_mut().enable();
            if !self.is_short(unflushed()) {
                return Ok(());
            }
            if tried && let Some(problem) = self.problem.lock().clone() {
                return Err(problem);
            }
            tried = true;
            self.flush.ask();
            flushed.await;
        }
    }

    /// Waits for two flushes: the first may have begun before.
    pub async fn flush_twice(&self) {
        for _ in 0..2 {
            let flushed = self.flushed.notified();
            tokio::pin!(flushed);
            flushed.as_mut().enable();
            self.flush.ask();
            flushed.await;
        }
    }

    /// 0: none.
    pub fn quota_bytes(&self) -> u64 {
        self.quota_bytes.load(Ordering::Relaxed)
    }

    pub fn set_quota(&self, bytes: u64) {
        self.quota_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Bytes of the tenant's files. `log`: those of its log.
    pub fn disk_bytes(&self, log: u64) -> u64 {
        self.settled_bytes.load(Ordering::Relaxed).saturating_add(log)
    }

    /// Errors: 53100 when the tenant's files have, or would have with `more`, more bytes than its quota.
    pub fn check_quota(&self, log: u64, more: u64) -> Result<()> {
        let (quota, used) = (self.quota_bytes(), self.disk_bytes(log));
        if quota == 0 || used.saturating_add(more) <= quota {
            return Ok(());
        }
        let message =
            format!("disk quota of tenant exceeded: used {} of {} MiB", used.div_ceil(MIB), quota / MIB);
        Err(Error::new(SqlState::DiskFull, message)
            .with_detail(format!("{used} bytes are in use, and the statement would add about {more}."))
            .with_hint(
                "Drop or truncate tables or delete rows, drop snapshots that nobody needs, then VACUUM FULL: until \
                 then the past keeps the files. Or ask the operator for more (sepal tenant quota).",
            ))
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.unflushed.forget(self.tenant, &self.flush);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(number: u8, unflushed: &Arc<Unflushed>) -> Room {
        Room::new(TenantId([number; 16]), 100, 0, Arc::clone(unflushed))
    }

    #[test]
    fn who_has_most_is_flushed_when_all_have_too_many() {
        let unflushed = Unflushed::new(1_000);
        let (small, large) = (room(1, &unflushed), room(2, &unflushed));
        large.note_unflushed(700);
        small.note_unflushed(300);
        assert!(!large.flush.take() && !small.flush.take());
        small.note_unflushed(301);
        assert!(large.flush.take() && !small.flush.take(), "not the one that wrote last");
        large.note_unflushed(0);
        assert_eq!(unflushed.bytes(), 301);
        drop(small);
        assert_eq!(unflushed.bytes(), 0);
    }

    #[tokio::test]
    async fn writers_wait_for_a_flush_and_learn_of_its_failure() {
        let unflushed = Unflushed::new(1_000);
        let room = Arc::new(room(1, &unflushed));
        let bytes = Arc::new(AtomicU64::new(100));
        let (waiting, held) = (Arc::clone(&room), Arc::clone(&bytes));
        let waits = move || {
            let (room, held) = (Arc::clone(&waiting), Arc::clone(&held));
            tokio::spawn(async move { room.wait(|| held.load(Ordering::Relaxed)).await })
        };
        let writer = waits();
        room.flush.asked().await;
        bytes.store(99, Ordering::Relaxed);
        room.flushed(None);
        writer.await.unwrap().unwrap();
        bytes.store(100, Ordering::Relaxed);
        let writer = waits();
        room.flush.asked().await;
        room.flushed(Some(Error::new(SqlState::DiskFull, "no room")));
        assert_eq!(writer.await.unwrap().unwrap_err().state().code(), "53100");
        // An old failure is not believed before another try.
        let writer = waits();
        room.flush.asked().await;
        bytes.store(0, Ordering::Relaxed);
        room.flushed(None);
        writer.await.unwrap().unwrap();
    }

    #[test]
    fn a_quota_is_about_what_would_be() {
        let unflushed = Unflushed::new(1_000);
        let room = room(1, &unflushed);
        room.check_quota(u64::MAX, u64::MAX).unwrap();
        room.set_quota(4 * MIB);
        room.note_settled(3 * MIB);
        room.check_quota(MIB / 2, MIB / 2).unwrap();
        let over = room.check_quota(MIB / 2, MIB / 2 + 1).unwrap_err();
        assert_eq!(over.state().code(), "53100");
        assert_eq!(over.message(), "disk quota of tenant exceeded: used 4 of 4 MiB");
    }
}
