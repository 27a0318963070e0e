//! The plugins that come with Sepal, held to what their manifests claim.

use super::*;
use crate::bundled;

async fn holds(name: &str, conformance: &str) {
    holds_with(name, conformance, "").await;
}

async fn holds_with(name: &str, conformance: &str, cases: &str) {
    let component = bundled::component(name).expect("it is bundled");
    let package = Specimen::read(component).unwrap();
    let mut case = TestCase::parse(name, conformance).unwrap();
    case.cases = TestCase::cases(name, cases).unwrap();
    let kit = Kit::new(Compiler::in_this_process().unwrap()).unwrap();
    let options = KitOptions { host: true, instances: 200, ..KitOptions::default() };
    let report = kit.run(&package, &case, &options).await.unwrap();
    assert!(report.passed, "{name}:\n{}", Failures(&report));
    assert!(report.checks.iter().any(|check| check.group == 9 && !check.failed()));
}

#[tokio::test]
async fn webhook_conforms() {
    holds("webhook", include_str!("../../../guests/webhook/conformance.toml")).await;
}

#[tokio::test]
async fn vector_conforms() {
    holds("vector", include_str!("../../../guests/vector/conformance.toml")).await;
}

#[tokio::test]
async fn loki_conforms() {
    holds("loki", include_str!("../../../guests/loki/conformance.toml")).await;
}

#[tokio::test]
async fn elasticsearch_conforms() {
    let conformance = include_str!("../../../guests/elasticsearch/conformance.toml");
    let cases = include_str!("../../../guests/elasticsearch/cases/partial.toml");
    holds_with("elasticsearch", conformance, cases).await;
}

#[tokio::test]
async fn vault_conforms() {
    holds("vault", include_str!("../../../guests/vault/conformance.toml")).await;
}

#[tokio::test]
async fn aws_secrets_conforms() {
    holds("aws-secrets", include_str!("../../../guests/aws-secrets/conformance.toml")).await;
}

#[tokio::test]
async fn one_call_for_real_is_denied_what_is_private() {
    let package = Specimen::read(bundled::component("webhook").expect("it is bundled")).unwrap();
    let kit = Kit::new(Compiler::in_this_process().unwrap()).unwrap();
    let config = serde_json::json!({ "url": "http://127.0.0.1:9/in" });
    let options = LiveOptions {
        config: config.as_object().unwrap().clone(),
        secrets: Default::default(),
        work: LiveWork::Sample,
        allow_private: false,
    };
    let live = kit.live(&package, &options).await.unwrap();
    assert!(!live.succeeded);
    let [(step, said)] = &live.steps[..] else { panic!("{:?}", live.steps) };
    assert!(step == "check" && said.contains("misconfigured"), "{said}");
    let rows = LiveOptions { work: LiveWork::Secret(Default::default()), ..options };
    assert!(matches!(kit.live(&package, &rows).await, Err(KitError::Options(_))));
}
