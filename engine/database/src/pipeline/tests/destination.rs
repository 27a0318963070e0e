//! The other end: keeps what it is given and answers as a test says.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use sepal_types::TenantId;
use serde_json::Value;

use crate::connector::{
    Batch, BatchSchema, Connectors, Delivered, Fault, FaultKind, Opened, PluginFacts, ResolveAnswer,
    ResolveRequest, ResolverSpec, Secrets, Sink, SinkSpec, StateChange,
};

pub type Answer = Result<Delivered, Fault>;
type Rule = Box<dyn FnMut(&Batch) -> Answer + Send>;

/// Shared by every sink that is opened towards it.
#[derive(Clone)]
pub struct Destination(Arc<Inside>);

struct Inside {
    /// Every attempt with its answer.
    attempts: Mutex<Vec<(Batch, Answer)>>,
    rule: Mutex<Rule>,
    opened: Mutex<u32>,
    committed_through: Mutex<Option<String>>,
    /// What a flush makes durable, and a new session forgets.
    buffered: Mutex<Vec<Batch>>,
    durable: Mutex<Vec<Batch>>,
    /// Of each time that it was opened.
    remembered: Mutex<Vec<BTreeMap<String, Vec<u8>>>>,
    /// What it wants to remember.
    staged: Mutex<Vec<StateChange>>,
}

/// A fault after which the next attempt is at once.
pub fn fault(kind: FaultKind, code: &str) -> Fault {
    Fault { retry_after_ms: Some(1), ..Fault::new(kind, "as the test says").with_code(code) }
}

impl Destination {
    /// Takes everything.
    pub fn new() -> Self {
        Self::with(|_| Ok(Delivered::Durable(Vec::new())))
    }

    pub fn with(rule: impl FnMut(&Batch) -> Answer + Send + 'static) -> Self {
        Self(Arc::new(Inside {
            attempts: Mutex::default(),
            rule: Mutex::new(Box::new(rule)),
            opened: Mutex::default(),
            committed_through: Mutex::default(),
            buffered: Mutex::default(),
            durable: Mutex::default(),
            remembered: Mutex::default(),
            staged: Mutex::default(),
        }))
    }

    pub fn now(&self, rule: impl FnMut(&Batch) -> Answer + Send + 'static) {
        *self.0.rule.lock() = Box::new(rule);
    }

    pub fn has_through(&self, position: &str) {
        *self.0.committed_through.lock() = Some(position.to_owned());
    }

    /// Somebody has removed the position.
    pub fn has_nothing(&self) {
        *self.0.committed_through.lock() = None;
    }

    pub fn connectors(&self) -> Arc<dyn Connectors> {
        Arc::new(self.clone())
    }

    pub fn attempts(&self) -> Vec<Batch> {
        self.0.attempts.lock().iter().map(|(batch, _)| batch.clone()).collect()
    }

    pub fn times_opened(&self) -> u32 {
        *self.0.opened.lock()
    }

    /// What it was opened with, each time.
    pub fn remembered(&self) -> Vec<BTreeMap<String, Vec<u8>>> {
        self.0.remembered.lock().clone()
    }

    /// With the next answer.
    pub fn remember(&self, key: &str, value: &str) {
        self.0.staged.lock().push((key.to_owned(), Some(value.as_bytes().to_vec())));
    }

    /// Lines of the batches that were taken, in order; a batch counts once.
    pub fn lines(&self) -> Vec<Value> {
        let mut seen = Vec::new();
        let mut lines = Vec::new();
        for (batch, answer) in &*self.0.attempts.lock() {
            if answer.is_err() || seen.contains(&batch.id) {
                continue;
            }
            seen.push(batch.id.clone());
            lines.extend(lines_of(batch));
        }
        lines
    }

    /// Ids of the rows that no crash of the destination's takes away, each once.
    pub fn durable_ids(&self) -> Vec<i64> {
        let durable = self.0.durable.lock();
        let ids = durable.iter().flat_map(lines_of).map(|line| line["key"]["id"].as_i64().unwrap());
        ids.collect::<BTreeSet<i64>>().into_iter().collect()
    }

    /// `op` and id of each line, with the label after it.
    pub fn changes(&self) -> Vec<String> {
        self.lines()
            .iter()
            .map(|line| {
                let (op, id) = (line["op"].as_str().unwrap(), &line["key"]["id"]);
                match line["after"]["label"].as_str() {
                    Some(label) => format!("{op} {id} {label}"),
                    None => format!("{op} {id}"),
                }
            })
            .collect()
    }

    pub async fn until(&self, what: &str, is: impl Fn(&Self) -> bool) {
        for _ in 0..6_000 {
            if is(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("not {what}: {:?}", self.changes());
    }

    pub async fn until_changes(&self, count: usize) -> Vec<String> {
        self.until(&format!("{count} changes"), |destination| destination.lines().len() >= count).await;
        self.changes()
    }
}

pub fn lines_of(batch: &Batch) -> Vec<Value> {
    let text = std::str::from_utf8(&batch.payload).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

impl std::fmt::Debug for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Destination")
    }
}

#[async_trait]
impl Sink for Destination {
    async fn open(&mut self, state: BTreeMap<String, Vec<u8>>) -> Result<Opened, Fault> {
        self.0.remembered.lock().push(state);
        *self.0.opened.lock() += 1;
        self.0.buffered.lock().clear();
        Ok(Opened { committed_through: self.0.committed_through.lock().clone(), max_writers: None })
    }

    async fn set_schema(&mut self, schema: &BatchSchema) -> Result<(), Fault> {
        assert_eq!(schema.key_columns, ["id"]);
        serde_json::from_slice::<Value>(&schema.payload).expect("a JSON Schema");
        Ok(())
    }

    async fn write(&mut self, batch: &Batch) -> Answer {
        let answer = {
            let mut rule = self.0.rule.lock();
            (*rule)(batch)
        };
        self.0.attempts.lock().push((batch.clone(), answer.clone()));
        let mut buffered = self.0.buffered.lock();
        match &answer {
            Ok(Delivered::Buffered) => buffered.push(batch.clone()),
            Ok(Delivered::Durable(_)) => {
                self.0.durable.lock().extend(buffered.drain(..).chain([batch.clone()]));
            }
            Ok(Delivered::RetryRows(_)) | Err(_) => {}
        }
        drop(buffered);
        answer
    }

    /// The last position that was buffered, if there is anything.
    async fn flush(&mut self) -> Result<Option<String>, Fault> {
        let flushed = std::mem::take(&mut *self.0.buffered.lock());
        let last = flushed.last().map(|batch| batch.last.clone());
        self.0.durable.lock().extend(flushed);
        Ok(last)
    }

    fn take_state_changes(&mut self) -> Vec<StateChange> {
        std::mem::take(&mut *self.0.staged.lock())
    }

    async fn close(&mut self) {}
}

#[async_trait]
impl Connectors for Destination {
    fn bundled(&self) -> Vec<PluginFacts> {
        Vec::new()
    }

    fn native(&self) -> &[&'static str] {
        &["test"]
    }

    async fn inspect(&self, _: TenantId, _: Arc<[u8]>) -> Result<PluginFacts, Fault> {
        Err(fault(FaultKind::Misconfigured, "test"))
    }

    fn validate(&self, _: &SinkSpec) -> Result<(), Fault> {
        Ok(())
    }

    async fn check_sink(&self, _: &SinkSpec, _: Arc<dyn Secrets>) -> Result<(), Fault> {
        Ok(())
    }

    async fn open_sink(&self, _: &SinkSpec, _: Arc<dyn Secrets>) -> Result<Box<dyn Sink>, Fault> {
        Ok(Box::new(self.clone()))
    }

    async fn check_resolver(&self, _: &ResolverSpec, _: Arc<dyn Secrets>) -> Result<(), Fault> {
        Ok(())
    }

    async fn resolve(
        &self,
        _: &ResolverSpec,
        _: Arc<dyn Secrets>,
        _: Vec<ResolveRequest>,
    ) -> Result<Vec<ResolveAnswer>, Fault> {
        Ok(Vec::new())
    }

    async fn revoke_lease(&self, _: &ResolverSpec, _: Arc<dyn Secrets>, _: &str) -> Result<(), Fault> {
        Ok(())
    }

    fn forget_tenant(&self, _: TenantId) {}
}
