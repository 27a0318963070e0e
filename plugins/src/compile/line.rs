//! Who compiles next.
//!
//! One component of tenants' at a time: a compilation is all the CPU there is to spare. A tenant stands in the line
//! once, however many plugins it has, and so waits for as many compilations as there are other tenants in it. Our own
//! components have a line of their own: what tenants upload never holds up what comes with Sepal.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use sepal_database::TenantId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::CompileError;

/// Of one tenant, the one that is compiled among them. Each holds its component in memory.
pub(super) const MOST_WAITING: usize = 5;

pub(super) struct Line {
    ours: Arc<Semaphore>,
    tenants: Arc<Semaphore>,
    queues: Mutex<HashMap<TenantId, Queue>>,
}

/// One tenant's.
struct Queue {
    /// As many as may wait.
    places: Arc<Semaphore>,
    /// Who of them stands in the line.
    front: Arc<Semaphore>,
}

/// Compile now; the next may when this is dropped.
pub(super) struct Turn {
    _turn: OwnedSemaphorePermit,
    /// Front and place of a tenant's.
    _queue: Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)>,
}

impl Default for Line {
    fn default() -> Self {
        let one = || Arc::new(Semaphore::new(1));
        Self { ours: one(), tenants: one(), queues: Mutex::default() }
    }
}

impl Default for Queue {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(MOST_WAITING)), front: Arc::new(Semaphore::new(1)) }
    }
}

impl Line {
    /// `None`: for one of our own.
    pub async fn turn(&self, tenant: Option<TenantId>) -> Result<Turn, CompileError> {
        let Some(tenant) = tenant else {
            return Ok(Turn { _turn: acquire(&self.ours).await?, _queue: None });
        };
        let (place, front) = self.stand(tenant)?;
        let front = acquire(&front).await?;
        Ok(Turn { _turn: acquire(&self.tenants).await?, _queue: Some((front, place)) })
    }

    /// Takes a place in the tenant's queue and says where its front is.
    fn stand(&self, tenant: TenantId) -> Result<(OwnedSemaphorePermit, Arc<Semaphore>), CompileError> {
        let mut queues = self.queues.lock();
        // Compilations are rare: nobody else has to tidy up.
        queues.retain(|_, queue| queue.places.available_permits() < MOST_WAITING);
        let queue = queues.entry(tenant).or_default();
        let place = Arc::clone(&queue.places).try_acquire_owned();
        let place = place.map_err(|_| CompileError::Busy { waiting: MOST_WAITING })?;
        Ok((place, Arc::clone(&queue.front)))
    }
}

async fn acquire(semaphore: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, CompileError> {
    let permit = Arc::clone(semaphore).acquire_owned().await;
    permit.map_err(|_| CompileError::Unavailable("it is shutting down".to_owned()))
}
