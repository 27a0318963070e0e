//! Resolvers: every question is a fresh instance, gone with its answer.

use std::sync::Arc;

use sepal_database::connector::{Fault, ResolveAnswer, ResolveRequest, ResolvedValue, ResolverSpec, Secrets};
use zeroize::Zeroizing;

use super::{Runtime, faults, prepare::Prepared};
use crate::call::{Operation, Outcome, ResolverAnswer, ResolverRequest};

pub(super) async fn check(
    runtime: &Runtime,
    spec: &ResolverSpec,
    secrets: Arc<dyn Secrets>,
) -> Result<(), Fault> {
    let (prepared, config_json) = runtime.0.prepare_resolver(spec, secrets).await?;
    done(runtime.ask(&prepared, Operation::CheckResolver { config_json }).await?, "check")
}

pub(super) async fn resolve(
    runtime: &Runtime,
    spec: &ResolverSpec,
    secrets: Arc<dyn Secrets>,
    requests: Vec<ResolveRequest>,
) -> Result<Vec<ResolveAnswer>, Fault> {
    let asked = requests.len();
    let (prepared, config_json) = runtime.0.prepare_resolver(spec, secrets).await?;
    let requests = requests.into_iter().map(request).collect();
    match runtime.ask(&prepared, Operation::Resolve { config_json, requests }).await? {
        Outcome::Resolved(answers) if answers.len() == asked => {
            Ok(answers.into_iter().map(|given| answer(&prepared, given)).collect())
        }
        other => Err(faults::unexpected("resolve", &other)),
    }
}

pub(super) async fn revoke(
    runtime: &Runtime,
    spec: &ResolverSpec,
    secrets: Arc<dyn Secrets>,
    lease: &str,
) -> Result<(), Fault> {
    let (prepared, config_json) = runtime.0.prepare_resolver(spec, secrets).await?;
    let operation = Operation::Revoke { config_json, lease_id: lease.to_owned() };
    done(runtime.ask(&prepared, operation).await?, "revoke")
}

fn request(request: ResolveRequest) -> ResolverRequest {
    let options = request.options.into_iter().map(|(name, text)| (name, text.into())).collect();
    ResolverRequest {
        name: request.name,
        options_json: serde_json::Value::Object(options).to_string(),
        have_version: request.have_version,
    }
}

fn answer(prepared: &Prepared, answer: ResolverAnswer) -> ResolveAnswer {
    match answer {
        ResolverAnswer::Value { value, version, ttl_seconds, lease_id } => {
            ResolveAnswer::Value(ResolvedValue {
                value: Zeroizing::new(value),
                version,
                ttl_seconds,
                lease_id,
            })
        }
        ResolverAnswer::Unchanged => ResolveAnswer::Unchanged,
        ResolverAnswer::NotFound => ResolveAnswer::NotFound,
        ResolverAnswer::Failed(fault) => ResolveAnswer::Failed(prepared.scrubbed(fault)),
    }
}

fn done(outcome: Outcome, asked: &str) -> Result<(), Fault> {
    match outcome {
        Outcome::Done => Ok(()),
        other => Err(faults::unexpected(asked, &other)),
    }
}
