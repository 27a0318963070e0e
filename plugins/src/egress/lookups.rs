//! Looks for secrets on behalf of one sink's guests, seldom enough that a guest's loop is no load.
//!
//! Behind [`Secrets`] stand the control database's one connection and a record of every use. An answer, good or bad,
//! serves for a second; past that so many lookups a second are made. `outside` asks here and nowhere else; a sink that
//! is opened again begins with nothing kept.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use parking_lot::Mutex;
use sepal_database::connector::{CertificateValue, Fault, FaultKind, SecretValue, Secrets};

use super::telemetry::Source;

/// How long an answer serves. A grant that was taken back, or a new value, is noticed this much later.
const KEPT: Duration = Duration::from_secs(1);

/// The secrets of one opened sink or resolver.
#[derive(Debug)]
pub(super) struct Lookups {
    secrets: Arc<dyn Secrets>,
    source: Arc<Source>,
    /// By name and version: as many as the sink has slots.
    recent: Mutex<BTreeMap<(String, Option<u64>), Recent>>,
    /// When a reveal was last recorded, by name.
    revealed: Mutex<BTreeMap<String, Instant>>,
}

#[derive(Debug)]
struct Recent {
    at: Instant,
    answer: Result<SecretValue, Fault>,
}

impl Lookups {
    pub fn new(secrets: Arc<dyn Secrets>, source: Arc<Source>) -> Self {
        Self { secrets, source, recent: Mutex::default(), revealed: Mutex::default() }
    }

    fn known(&self, key: &(String, Option<u64>)) -> Option<Result<SecretValue, Fault>> {
        let recent = self.recent.lock();
        recent.get(key).filter(|known| known.at.elapsed() < KEPT).map(|known| known.answer.clone())
    }
}

#[async_trait]
impl Secrets for Lookups {
    async fn secret(&self, name: &str, version: Option<u64>) -> Result<SecretValue, Fault> {
        let key = (name.to_owned(), version);
        if let Some(known) = self.known(&key) {
            return known;
        }
        self.source.lookups.turn(1).await.map_err(too_often)?;
        let answer = self.secrets.secret(name, version).await;
        self.recent.lock().insert(key, Recent { at: Instant::now(), answer: answer.clone() });
        answer
    }

    async fn certificate(&self, name: &str) -> Result<CertificateValue, Fault> {
        self.source.lookups.turn(1).await.map_err(too_often)?;
        self.secrets.certificate(name).await
    }

    fn forget(&self, name: &str) {
        self.recent.lock().retain(|(known, _), _| known != name);
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
