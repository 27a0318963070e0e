//! A plugin's request on its way out: checked, with its secret in place, to a receiver in this process and back.
//!
//! `post` sends a bearer token; its floor sends as many bytes by a bare socket. `hmac` signs a body under a secret;
//! its floor is the library's HMAC-SHA-256. `scrub` searches what comes back for the secret in all its spellings;
//! its floor reads the bytes once. A byte is one of the body.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use async_trait::async_trait;
use divan::{Bencher, black_box, counter::BytesCount};
use sepal_benches::receiver::{Poster, Receiver};
use sepal_crypto::{Key, hmac_sha256};
use sepal_database::{
    TenantId,
    connector::{CertificateValue, Fault, FaultKind, SecretValue, Secrets},
};
use sepal_plugins::{
    call::{HeaderValue, HttpRequest, Outside},
    egress::{Egress, EgressOptions, EgressSpec, HostRule, PluginOutside, Scrubber, SlotGrant},
    manifest::{EffectiveLimits, SlotUse},
};
use tokio::runtime::Runtime;
use zeroize::Zeroizing;

const KIB: [usize; 3] = [1, 256, 1024];
const SECRET: &[u8] = b"a-token-of-some-length/+";

#[divan::bench(args = KIB)]
fn post(bencher: Bencher, kib: usize) {
    let way = Way::shared();
    let url = format!("{}/in", way.receiver.origin());
    let request = || HttpRequest {
        method: "POST".to_owned(),
        url: url.clone(),
        headers: vec![
            ("content-type".to_owned(), HeaderValue::Text("application/x-ndjson".to_owned())),
            ("authorization".to_owned(), HeaderValue::Bearer("token".to_owned())),
        ],
        body: Some(body(kib)),
        body_secrets: Vec::new(),
        timeout_ms: None,
        max_response_bytes: None,
    };
    counted(bencher, kib).with_inputs(request).bench_local_values(|request| {
        let response = way.runtime.block_on(way.outside.http(request)).expect("a receiver of ours");
        assert_eq!(response.status, 200);
    });
}

#[divan::bench(args = KIB)]
fn post_floor(bencher: Bencher, kib: usize) {
    let receiver = &Way::shared().receiver;
    let mut poster = Poster::connect(receiver.address()).expect("a receiver of ours");
    let mut request = format!(
        "POST /in HTTP/1.1\r\nhost: {}\r\ncontent-type: application/x-ndjson\r\n\
         authorization: Bearer {}\r\ncontent-length: {}\r\n\r\n",
        receiver.address(),
        String::from_utf8_lossy(SECRET),
        kib << 10
    )
    .into_bytes();
    request.extend_from_slice(&body(kib));
    counted(bencher, kib).bench_local(|| poster.send(&request).expect("a receiver of ours"));
}

#[divan::bench(args = KIB)]
fn hmac(bencher: Bencher, kib: usize) {
    let (way, body) = (Way::shared(), body(kib));
    counted(bencher, kib).bench_local(|| {
        let signing = way.outside.hmac_sha256("token", &[], black_box(&body));
        way.runtime.block_on(signing).expect("a secret that is there")
    });
}

#[divan::bench(args = KIB)]
fn hmac_floor(bencher: Bencher, kib: usize) {
    let (key, body) = (Key::random(), body(kib));
    counted(bencher, kib).bench_local(|| hmac_sha256(&key, black_box(&body)));
}

#[divan::bench(args = KIB)]
fn scrub(bencher: Bencher, kib: usize) {
    let scrubber = Scrubber::default();
    scrubber.learn("token", SECRET);
    counted(bencher, kib)
        .with_inputs(|| body(kib))
        .bench_local_values(|body| scrubber.scrub_start(black_box(body), usize::MAX));
}

#[divan::bench(args = KIB)]
fn scrub_floor(bencher: Bencher, kib: usize) {
    let body = body(kib);
    counted(bencher, kib).bench_local(|| black_box(&body).iter().filter(|byte| **byte == b'\n').count());
}

fn counted<'a, 'b>(bencher: Bencher<'a, 'b>, kib: usize) -> Bencher<'a, 'b> {
    bencher.counter(BytesCount::new(kib << 10))
}

/// Lines of JSON, as bodies are.
fn body(kib: usize) -> Vec<u8> {
    const LINE: &[u8] =
        b"{\"op\":\"c\",\"key\":{\"id\":1},\"after\":{\"id\":1,\"name\":\"item number 1\"}}\n";
    LINE.iter().copied().cycle().take(kib << 10).collect()
}

/// A sink's way to the receiver.
struct Way {
    runtime: Runtime,
    receiver: Receiver,
    outside: Arc<PluginOutside>,
}

impl Way {
    fn shared() -> &'static Way {
        static SHARED: OnceLock<Way> = OnceLock::new();
        SHARED.get_or_init(|| {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
            let receiver = Receiver::start().expect("a free port");
            let options = EgressOptions {
                private_networks: vec!["127.0.0.0/8".parse().expect("a network")],
                ..EgressOptions::default()
            };
            let inside = runtime.enter();
            let egress = Egress::new(options).expect("an HTTP client");
            let limits = EffectiveLimits { requests_per_second: 1_000_000, ..EffectiveLimits::UNASKED };
            let uses = vec![SlotUse::HttpHeader, SlotUse::Hmac];
            let grant = SlotGrant { secret: "token".to_owned(), version: None, uses };
            let outside = egress.outside(EgressSpec {
                tenant: TenantId([7; 16]),
                name: "bench".to_owned(),
                pipeline: "bench".to_owned(),
                slots: BTreeMap::from([("token".to_owned(), grant)]),
                secrets: Arc::new(OneSecret),
                allow: vec![HostRule::parse(&receiver.origin()).expect("a host")],
                reveal: false,
                limits,
            });
            drop(inside);
            Way { runtime, receiver, outside }
        })
    }
}

/// The same value for every name.
#[derive(Debug)]
struct OneSecret;

#[async_trait]
impl Secrets for OneSecret {
    async fn secret(&self, _name: &str, _version: Option<u64>) -> Result<SecretValue, Fault> {
        let value = Arc::new(Zeroizing::new(SECRET.to_vec()));
        Ok(SecretValue { value, version: "1".to_owned(), allowed_hosts: None })
    }

    async fn certificate(&self, name: &str) -> Result<CertificateValue, Fault> {
        Err(Fault::new(FaultKind::Misconfigured, format!("there is no certificate {name}")))
    }

    fn forget(&self, _name: &str) {}

    fn note_reveal(&self, _name: &str) {}
}
