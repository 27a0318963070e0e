//! A worker from both ends, without a process: frames, questions, cancelled calls, workers that misbehave. What the
//! sandbox takes away is tried in processes of their own.

mod conversation;
mod frames;
mod sandboxed;

use std::{collections::BTreeMap, sync::Arc};

use sepal_database::{
    TenantId,
    connector::{Encoding, Envelope},
};

use crate::{
    call::{Call, Code, GuestBatch, OpenArgs, Operation, SinkCall},
    manifest::{EffectiveLimits, World},
};

const TENANT: TenantId = TenantId([3; 16]);

fn code() -> Code {
    Code { hash: [9; 32], world: World::Sink { reveal: false }, machine_code: Arc::from(vec![1; 100_000]) }
}

fn call(operation: Operation) -> Call {
    let limits = EffectiveLimits {
        memory_bytes: 1 << 20,
        table_elements: 10,
        instances: 1,
        cpu_per_call_ms: 1000,
        wall_per_call_ms: 20_000,
        hostcall_bytes: 1 << 20,
        response_bytes: 1 << 20,
        requests_per_second: 1,
        concurrent_requests: 1,
        log_lines_per_second: 1,
        metric_series: 1,
        state_bytes: 1,
    };
    Call { limits, session: None, continues: false, operation }
}

fn sink() -> SinkCall {
    let open = OpenArgs {
        config_json: r#"{"token":{"$secret":"token"}}"#.to_owned(),
        encoding: Encoding::Ndjson,
        envelope: Envelope::Upsert,
        sink_id: "id".to_owned(),
        worker: 0,
        parallelism: 1,
        attributes: Vec::new(),
    };
    SinkCall { open, schema: None, state: BTreeMap::from([("k".to_owned(), vec![1, 2])]) }
}

fn batch(payload: Vec<u8>) -> GuestBatch {
    GuestBatch {
        id: "b".to_owned(),
        schema_id: "s".to_owned(),
        first: "1.0".to_owned(),
        last: "1.9".to_owned(),
        rows: 10,
        attempt: 1,
        snapshot: false,
        attributes: Vec::new(),
        payload,
    }
}
