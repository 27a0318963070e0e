//! Resolvers: every question is a fresh instance, gone with its answer.
//!
//! What a resolver answers is a stranger's: a value goes where a stored secret would, its version into logs and views.
//! So a value has the size of a stored one at most, and a version is a short line without the value in it.

use std::sync::Arc;

use sepal_database::connector::{Fault, ResolveAnswer, ResolveRequest, ResolvedValue, ResolverSpec, Secrets};
use zeroize::Zeroizing;

use super::{Runtime, faults, prepare::Prepared};
use crate::call::{Operation, Outcome, ResolverAnswer, ResolverRequest};

/// As much as `CREATE SECRET` takes.
pub(super) const MAX_VALUE_BYTES: usize = 64 << 10;
/// Vault's and Azure's are under 40, an ETag under 100.
pub(super) const MAX_VERSION_BYTES: usize = 128;
pub(super) const MAX_LEASE_BYTES: usize = 1 << 10;
/// Longer values are no part of a version, and few messages repeat them whole.
const LOOKED_FOR_BYTES: usize = 256;

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
        Outcome::Resolved(answers) if answers.len() == asked => Ok(judged(&prepared, answers)),
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

/// The answers as they may go on. Every value is known before the first word is looked at: what is said of one secret
/// may hold another.
pub(super) fn judged(prepared: &Prepared, answers: Vec<ResolverAnswer>) -> Vec<ResolveAnswer> {
    for (index, given) in answers.iter().enumerate() {
        if let ResolverAnswer::Value { value, .. } = given
            && value.len() <= LOOKED_FOR_BYTES
        {
            prepared.outside.scrubber().learn(&format!("answer {index}"), value);
        }
    }
    answers.into_iter().map(|given| answer(prepared, given)).collect()
}

fn answer(prepared: &Prepared, answer: ResolverAnswer) -> ResolveAnswer {
    match answer {
        ResolverAnswer::Value { value, version, ttl_seconds, lease_id } => {
            let resolved = ResolvedValue { value: Zeroizing::new(value), version, ttl_seconds, lease_id };
            match refused(prepared, &resolved) {
                None => ResolveAnswer::Value(resolved),
                Some(problem) => ResolveAnswer::Failed(faults::protocol(problem)),
            }
        }
        ResolverAnswer::Unchanged => ResolveAnswer::Unchanged,
        ResolverAnswer::NotFound => ResolveAnswer::NotFound,
        ResolverAnswer::Failed(fault) => ResolveAnswer::Failed(prepared.scrubbed(fault)),
    }
}

/// What is wrong with it, without repeating any of it. Refused, not fingerprinted: the hash of a short value is as
/// good as the value.
fn refused(prepared: &Prepared, resolved: &ResolvedValue) -> Option<String> {
    let too_long = |what: &str, bytes: usize, most: usize| {
        format!("the resolver gave a {what} of {bytes} bytes; {most} is the most")
    };
    if resolved.value.len() > MAX_VALUE_BYTES {
        return Some(too_long("value", resolved.value.len(), MAX_VALUE_BYTES));
    }
    if let Some(lease) = resolved.lease_id.as_ref().filter(|lease| lease.len() > MAX_LEASE_BYTES) {
        return Some(too_long("lease", lease.len(), MAX_LEASE_BYTES));
    }
    let version = resolved.version.as_deref()?;
    if version.len() > MAX_VERSION_BYTES {
        return Some(too_long("version", version.len(), MAX_VERSION_BYTES));
    }
    if version.chars().any(char::is_control) {
        return Some("the resolver gave a version that is not one line of text".to_owned());
    }
    (prepared.clean(version) != version).then(|| {
        "the resolver gave a version that holds a secret; it is shown in views: give a number, or leave it out"
            .to_owned()
    })
}

fn done(outcome: Outcome, asked: &str) -> Result<(), Fault> {
    match outcome {
        Outcome::Done => Ok(()),
        other => Err(faults::unexpected(asked, &other)),
    }
}
