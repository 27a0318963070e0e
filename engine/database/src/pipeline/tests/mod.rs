//! Pipelines over a real store, with a destination that does as it is told.

mod delivery;
mod destination;
mod encoding;
mod events;
mod faults;
mod held;
mod log;
mod restarts;
mod source;

use std::{sync::Arc, time::Duration};

use sepal_query::catalog::delivery::PipelineStatusRow;
use sepal_storage::Op;
use sepal_types::TableDef;
use serde_json::Value;

use self::destination::Destination;
use crate::{
    connector::{Encoding, Envelope, Tier},
    delivery::{
        objects::{self, Objects, OnExhausted, OnRejected, PipelineDef, SinkConnector, SinkDef},
        system_tables::{self, SystemTable},
    },
    fixtures::{Fixture, run},
    pipeline::{journal::Journal, state::PipelineState},
    tenant::OpenTenant,
};

const ENVIRONMENT: &str = "default";
const PIPELINE: &str = "p";

/// A database with `items (id, label)`, whose sinks lead to the destination.
async fn database(destination: &Destination) -> Fixture {
    let connectors = destination.connectors();
    let fixture = Fixture::new_with(|options| options.connectors = Some(connectors));
    let mut session = fixture.session().await;
    run(&mut session, "CREATE TABLE items (id bigint PRIMARY KEY, label text)").await;
    fixture
}

/// As CREATE PIPELINE does it: with the commit that makes its table captured.
async fn create(fixture: &Fixture, query: &str, adjust: impl FnOnce(&mut PipelineDef)) {
    let tenant = fixture.tenant().await;
    let view = system_tables::ensure(&tenant.store).unwrap();
    let table = view.find(ENVIRONMENT, "items").unwrap();
    let sink = SinkDef {
        name: "s".into(),
        environment: ENVIRONMENT.into(),
        connector: SinkConnector::Native("test".into()),
        options: std::collections::BTreeMap::new(),
        allow_hosts: Vec::new(),
        created_by: "test".into(),
        created_at: 0,
        revision: 1,
    };
    let mut def = PipelineDef {
        id: "00112233445566778899aabbccddeeff".into(),
        name: PIPELINE.into(),
        environment: ENVIRONMENT.into(),
        query: query.into(),
        sink: "s".into(),
        key: vec!["id".into()],
        encoding: Encoding::Ndjson,
        envelope: Envelope::Append,
        tier: Tier::AtLeastOnce,
        table: table.def.id,
        reads: table.def.columns.iter().map(|column| column.id).collect(),
        paused: false,
        generation: 1,
        resume_from: None,
        resumed: 0,
        snapshot: true,
        batch_rows: 10,
        batch_bytes: 1 << 20,
        linger_ms: 1,
        max_attempts: u32::MAX,
        on_exhausted: OnExhausted::Pause,
        on_rejected: OnRejected::DeadLetter,
        created_after: view.lsn().0,
        created_by: "test".into(),
        created_at: 0,
    };
    adjust(&mut def);
    let captured = TableDef { captured: true, ..table.def.as_ref().clone() };
    let mut ops = vec![Op::AlterTable(captured)];
    ops.extend(objects::put(&tenant.store, &view, &sink).unwrap());
    ops.extend(objects::put(&tenant.store, &view, &def).unwrap());
    let after = tenant.store.commit(&view, ops).unwrap();
    tenant.committed(true, after.lsn());
    tenant.pipelines_changed.notify_one();
}

/// As ALTER PIPELINE does it.
async fn alter(fixture: &Fixture, change: impl FnOnce(&mut PipelineDef)) {
    let tenant = fixture.tenant().await;
    let view = tenant.store.snapshot();
    let mut def = Objects::of(&view).unwrap().pipeline(ENVIRONMENT, PIPELINE).unwrap().clone();
    change(&mut def);
    let ops = objects::put(&tenant.store, &view, &def).unwrap();
    let after = tenant.store.commit(&view, ops).unwrap();
    tenant.committed(false, after.lsn());
    tenant.pipelines_changed.notify_one();
}

fn definition(tenant: &OpenTenant) -> PipelineDef {
    let view = tenant.store.snapshot();
    Objects::of(&view).unwrap().pipeline(ENVIRONMENT, PIPELINE).unwrap().clone()
}

/// What a crash at this moment would find noted.
fn noted(tenant: &Arc<OpenTenant>) -> PipelineState {
    let journal = Journal::new(Arc::clone(tenant), Arc::new(definition(tenant)));
    journal.state(&tenant.store.snapshot()).unwrap().unwrap()
}

async fn status(fixture: &Fixture) -> Option<PipelineStatusRow> {
    fixture.tenant().await.pipelines.status(ENVIRONMENT).into_iter().next()
}

/// Until the view says so.
async fn until_status(fixture: &Fixture, what: &str, is: impl Fn(&PipelineStatusRow) -> bool) {
    for _ in 0..6_000 {
        if status(fixture).await.as_ref().is_some_and(&is) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("not {what}: {:?}", status(fixture).await);
}

/// Ids of the rows that are dead letters.
async fn dead_letters(fixture: &Fixture) -> Vec<(String, i64)> {
    let tenant = fixture.tenant().await;
    let rows = SystemTable::DeadLetters.rows(&tenant.store.snapshot()).unwrap();
    let mut letters: Vec<(String, i64)> = (0..rows.len())
        .map(|row| {
            let key: Value = serde_json::from_str(rows.text("key", row).unwrap()).unwrap();
            (rows.text("code", row).unwrap().to_owned(), key["id"].as_i64().unwrap())
        })
        .collect();
    letters.sort();
    letters
}
