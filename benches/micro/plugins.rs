//! Calls of a guest: the bundled webhook, compiled here, against an outside that answers at once.
//!
//! `fresh_instance` is a store, an instance and `open`; `empty_call` is a call of an instance that is there already
//! and does nothing. Both cross from the caller's runtime to the guests' and back, which `floor_other_runtime` does
//! alone. `batch…` hands a payload in, lets the guest copy it and takes it out again as a request's body, in this
//! process and over the socket of a worker; the floor is the same bytes copied as often as cannot be avoided: in,
//! and out. [`report`] tells the quantiles of what the host itself counted.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use async_trait::async_trait;
use divan::{
    Bencher, black_box,
    counter::{BytesCount, ItemsCount},
};
use parking_lot::Mutex;
use sepal_database::{
    TenantId,
    connector::{BatchSchema, Encoding, Envelope},
};
use sepal_plugins::{
    bundled,
    call::{
        Call, Code, GuestBatch, GuestHost, HttpError, HttpRequest, HttpResponse, Level, OpenArgs, Operation,
        Outcome, Outside, Reply, SecretError, SessionId, SinkCall, Usage,
    },
    compile::Compiler,
    host::{HostOptions, LocalHost},
    manifest::EffectiveLimits,
    package::Package,
    worker::{WorkerOptions, Workers},
};
use tokio::runtime::Runtime;

const TENANT: TenantId = TenantId([7; 16]);
const PLAIN: &str = r#"{"url":"https://hooks.example.com/in"}"#;
const SIGNED: &str = r#"{"url":"https://hooks.example.com/in","token":{"$secret":"token"},
    "signing_key":{"$secret":"signing_key"}}"#;
const KIB: [usize; 3] = [64, 1024, 4096];
/// Enough for a p99 that means something.
const CALLS: u32 = 5_000;

/// Of each fresh instance, as the host counted.
static FRESH: Mutex<Vec<Usage>> = Mutex::new(Vec::new());

#[divan::bench(args = ["pooled", "on_demand"], sample_count = CALLS, sample_size = 1)]
fn fresh_instance(bencher: Bencher, memory: &str) {
    let plugins = Plugins::shared();
    let options = HostOptions { pooled: memory == "pooled", ..HostOptions::default() };
    let host = LocalHost::new(options).expect("a host");
    let open = || Call { session: None, ..kept(Operation::OpenSink(sink(PLAIN))) };
    // Loads the code.
    plugins.ask(&host, open());
    bencher.counter(ItemsCount::new(1usize)).with_inputs(open).bench_local_values(|call| {
        let reply = plugins.ask(&host, call);
        if memory == "pooled" {
            FRESH.lock().push(reply.usage);
        }
    });
}

#[divan::bench]
fn empty_call(bencher: Bencher) {
    let plugins = Plugins::shared();
    plugins.ask(&plugins.here, kept(Operation::OpenSink(sink(PLAIN))));
    let flush = || kept(Operation::Flush(SinkCall { schema: None, ..sink(PLAIN) }));
    bencher
        .counter(ItemsCount::new(1usize))
        .with_inputs(flush)
        .bench_local_values(|call| plugins.ask(&plugins.here, call));
}

#[divan::bench]
fn floor_other_runtime(bencher: Bencher) {
    let plugins = Plugins::shared();
    let other = tokio::runtime::Builder::new_multi_thread().build().expect("a runtime");
    bencher.counter(ItemsCount::new(1usize)).bench_local(|| {
        let task = other.spawn(std::future::ready(black_box(1)));
        plugins.runtime.block_on(task).expect("a task that ends")
    });
}

#[divan::bench(args = KIB)]
fn batch_here(bencher: Bencher, kib: usize) {
    let plugins = Plugins::shared();
    batches(bencher, kib, PLAIN, &plugins.here);
}

#[divan::bench(args = KIB)]
fn batch_worker(bencher: Bencher, kib: usize) {
    let plugins = Plugins::shared();
    batches(bencher, kib, PLAIN, &plugins.workers);
}

/// With a token and a signature: two handles, and the body once more for the signature.
#[divan::bench(args = KIB)]
fn batch_worker_signed(bencher: Bencher, kib: usize) {
    let plugins = Plugins::shared();
    batches(bencher, kib, SIGNED, &plugins.workers);
}

#[divan::bench(args = KIB)]
fn batch_floor_memcpy(bencher: Bencher, kib: usize) {
    let payload = payload(kib);
    let (mut inside, mut outside) = (vec![0; payload.len()], vec![0; payload.len()]);
    counted(bencher, kib).bench_local(|| {
        inside.copy_from_slice(black_box(&payload));
        outside.copy_from_slice(black_box(&inside));
        black_box(&mut outside);
    });
}

/// Prints the quantiles of fresh instances, if any were made.
pub fn report() {
    let fresh = FRESH.lock();
    if fresh.is_empty() {
        return;
    }
    let quantiles = |of: fn(&Usage) -> u64| {
        let mut times: Vec<u64> = fresh.iter().map(of).collect();
        times.sort_unstable();
        let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
        format!("p50 {} µs, p99 {} µs", at(50), at(99))
    };
    eprintln!(
        "plugins::fresh_instance, {} calls, as the host counts them: instance {}; with `open` {} (bar: 50 µs)",
        fresh.len(),
        quantiles(|usage| usage.instantiate_us.into()),
        quantiles(|usage| usage.wall_us),
    );
}

fn batches(bencher: Bencher, kib: usize, config: &str, host: &dyn GuestHost) {
    let plugins = Plugins::shared();
    let payload = payload(kib);
    let write = || {
        let limits = kept(Operation::Close).limits.with_room_for(payload.len());
        Call { limits, ..kept(Operation::Write(sink(config), batch(&payload))) }
    };
    // Opens the session with this configuration; the first call of a worker starts it.
    plugins.ask(host, kept(Operation::OpenSink(sink(config))));
    counted(bencher, kib).with_inputs(write).bench_local_values(|call| plugins.ask(host, call));
}

fn counted<'a, 'b>(bencher: Bencher<'a, 'b>, kib: usize) -> Bencher<'a, 'b> {
    bencher.counter(BytesCount::new(kib << 10))
}

/// A runtime for callers, the guest's code, and both ways to run it.
struct Plugins {
    runtime: Runtime,
    code: Code,
    here: LocalHost,
    workers: Workers,
}

impl Plugins {
    fn shared() -> &'static Plugins {
        static SHARED: OnceLock<Plugins> = OnceLock::new();
        SHARED.get_or_init(|| {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
            let component = bundled::component("webhook").expect("it is bundled");
            let package = Package::read(component).expect("a package of ours");
            let compiler = Arc::new(Compiler::in_this_process().expect("a compiler"));
            let compiling = compiler.code(package.hash, package.world, component.into());
            let code = runtime.block_on(compiling).expect("a component of ours");
            let here = LocalHost::new(HostOptions::default()).expect("a host");
            // The worker is this program again: see `main`.
            let options = WorkerOptions { loud: true, ..WorkerOptions::default() };
            let workers = Workers::new(options).expect("a thread");
            Plugins { runtime, code, here, workers }
        })
    }

    fn ask(&self, host: &dyn GuestHost, call: Call) -> Reply {
        let asking = host.call(TENANT, &self.code, call, Arc::new(AtOnce));
        let reply = self.runtime.block_on(asking).expect("a guest of ours does not trap");
        assert!(!matches!(reply.outcome, Outcome::Failed(_)), "{:?}", reply.outcome);
        reply
    }
}

/// A call of the session that is kept.
fn kept(operation: Operation) -> Call {
    let limits = EffectiveLimits { requests_per_second: 1_000_000, ..EffectiveLimits::UNASKED };
    Call { limits, session: Some(SessionId(1)), continues: false, operation }
}

fn sink(config: &str) -> SinkCall {
    SinkCall {
        open: OpenArgs {
            config_json: config.to_owned(),
            encoding: Encoding::Ndjson,
            envelope: Envelope::Append,
            sink_id: "bench".to_owned(),
            worker: 0,
            parallelism: 1,
            attributes: Vec::new(),
        },
        schema: Some(BatchSchema { id: "1".to_owned(), payload: b"{}".to_vec(), key_columns: Vec::new() }),
        state: BTreeMap::new(),
    }
}

fn batch(payload: &[u8]) -> GuestBatch {
    GuestBatch {
        id: "0123456789abcdef".to_owned(),
        schema_id: "1".to_owned(),
        first: "1".to_owned(),
        last: "2".to_owned(),
        rows: 1,
        attempt: 1,
        snapshot: false,
        attributes: Vec::new(),
        payload: payload.to_vec(),
    }
}

fn payload(kib: usize) -> Vec<u8> {
    vec![b'x'; kib << 10]
}

/// Takes everything and has every secret.
#[derive(Debug)]
struct AtOnce;

#[async_trait]
impl Outside for AtOnce {
    async fn http(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        black_box(request);
        Ok(HttpResponse { status: 200, headers: Vec::new(), body: Vec::new(), truncated: false })
    }

    async fn secret(&self, _slot: &str) -> Result<String, SecretError> {
        Ok("1".to_owned())
    }

    /// Without computing it: `egress` measures that.
    async fn hmac_sha256(&self, _slot: &str, _prefix: &[u8], data: &[u8]) -> Result<Vec<u8>, SecretError> {
        black_box(data);
        Ok(vec![7; 32])
    }

    async fn reveal(&self, _slot: &str) -> Result<Vec<u8>, SecretError> {
        Err(SecretError::Unavailable)
    }

    fn log(&self, _level: Level, _message: &str, _fields: &[(String, String)]) {}

    fn counter_add(&self, _name: &str, _value: u32) {}

    fn gauge_set(&self, _name: &str, _value: f64) {}
}
