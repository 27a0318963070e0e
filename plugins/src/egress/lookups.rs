//! Looks for secrets on behalf of one sink's guests, seldom enough that a guest's loop is no load.
//!
//! Behind [`Secrets`] stands a record of every use. So many lookups a second are made, in bursts of what a second allows;
//! answers are kept by the engine, which knows when a grant or a value has changed. `outside` asks here and nowhere else.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use parking_lot::Mutex;
use sepal_database::connector::{CertificateValue, Fault, FaultKind, SecretValue, Secrets};

use super::telemetry::Source;

/// How far records of one secret's reveals are apart.
const KEPT: Duration = Duration::from_secs(1);

/// The secrets of one opened sink or resolver.
#[derive(Debug)]
pub(super) struct Lookups {
    secrets: Arc<dyn Secrets>,
    source: Arc<Source>,
    /// When a reveal was last recorded, by name.
    revealed: Mutex<BTreeMap<String, Instant>>,
}

impl Lookups {
    pub fn new(secrets: Arc<dyn Secrets>, source: Arc<Source>) -> Self {
        Self { secrets, source, revealed: Mutex::default() }
    }
}

#[async_trait]
impl Secrets for Lookups {
    async fn secret(&self, name: &str, version: Option<u64>) -> Result<SecretValue, Fault> {
        self.source.lookups.turn(1).await.map_err(too_often)?;
        self.secrets.secret(name, version).await
    }

    async fn certificate(&self, name: &str) -> Result<CertificateValue, Fault> {
        self.source.lookups.turn(1).await.map_err(too_often)?;
        self.secrets.certificate(name).await
    }

    fn forget(&self, name: &str) {
        self.secrets.forget(name);
    }

    /// Each is a task and a record: those of one second are one.
    fn note_reveal(&self, name: &str) {
        let mut revealed = self.revealed.lock();
        if revealed.get(name).is_some_and(|at| at.elapsed() < KEPT) {
            return;
        }
        revealed.insert(name.to_owned(), Instant::now());
        self.secrets.note_reveal(name);
    }
}

fn too_often(milliseconds: u32) -> Fault {
    let mut fault = Fault::new(FaultKind::Transient, "the plugin asks for its secrets too often")
        .with_code("egress.lookups");
    fault.retry_after_ms = Some(milliseconds);
    fault
}
