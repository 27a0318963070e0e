//! The author's own cases: what goes in, what the destination answers, and what has to come of it.

use std::{collections::BTreeMap, sync::Arc};

use sepal_database::connector::{BatchSchema, Delivered, Fault, PluginKind};
use serde_json::Value;

use crate::{
    call::{GuestBatch, Operation, Outcome, Reply, ResolverAnswer, ResolverRequest, SinkCall},
    kit::{
        case::{Case, CaseRequest, Expect, ExpectedAnswer, ExpectedRequest, ExpectedValue},
        destination::{Destination, Sent},
        outside::Circumstances,
        report::{Checks, Group, Wrong},
        setup::Setup,
        subject::{Ended, Subject},
    },
};

pub(super) async fn run(subject: &Subject) -> Checks {
    let mut checks = Checks::of(Group::Cases);
    if subject.case.cases.is_empty() {
        checks.skip("cases", "there is no file in cases/");
    }
    for case in &subject.case.cases {
        checks.judge(case.name.clone(), try_case(subject, case).await);
    }
    checks
}

async fn try_case(subject: &Subject, case: &Case) -> Result<(), Wrong> {
    let setup = Setup::new(&subject.manifest, &subject.schema, &case.config, &case.secrets)
        .map_err(|fault| Wrong::new("options that fit the schema", fault.to_string()))?;
    let destination = Arc::new(Destination::in_order(&case.answers));
    let outside = subject.outside(&setup, &destination, Circumstances::default());
    let operation = match subject.kind() {
        PluginKind::Sink => {
            let (call, batch) = batch(subject, &setup, case);
            Operation::Write(call, batch)
        }
        PluginKind::Resolver => {
            Operation::Resolve { config_json: setup.config_json(), requests: requests(case) }
        }
    };
    let session = subject.next_session();
    let ended = subject.call(&outside, session.map(|session| (session, false)), operation).await;
    if let Some(session) = session {
        // Its answer says nothing.
        let _ = subject.call(&outside, Some((session, false)), Operation::Close).await;
    }
    let reply = match ended {
        Ended::Replied(reply) => reply,
        Ended::Broke(error) => return Err(Wrong::new("an answer", error.to_string())),
        Ended::Crashed => return Err(Wrong::new("an answer", "none")),
    };
    answered(&case.expect, &reply)?;
    match &case.expect.requests {
        Some(expected) => sent(expected, &destination.sent()),
        None => Ok(()),
    }
}

fn batch(subject: &Subject, setup: &Setup, case: &Case) -> (SinkCall, GuestBatch) {
    let form = subject.form();
    let payload: String = case.rows.iter().map(|row| format!("{row}\n")).collect();
    let position = |row: Option<&String>| {
        let row = row.and_then(|row| serde_json::from_str::<Value>(row).ok());
        row.and_then(|row| Some(row.get("pos")?.as_str()?.to_owned())).unwrap_or_default()
    };
    let key = case.rows.first().and_then(|row| serde_json::from_str::<Value>(row).ok());
    let key = key.as_ref().and_then(|row| row.get("key")?.as_object()).into_iter().flatten();
    let key_columns = key.map(|(name, _)| name.clone()).collect();
    let schema = BatchSchema { id: "case".to_owned(), payload: b"{}".to_vec(), key_columns };
    let call = SinkCall {
        open: subject.open_args(setup, form.encoding, form.envelope),
        schema: Some(schema),
        state: BTreeMap::new(),
    };
    let batch = GuestBatch {
        id: "case-batch-1".to_owned(),
        schema_id: "case".to_owned(),
        first: position(case.rows.first()),
        last: position(case.rows.last()),
        rows: u32::try_from(case.rows.len()).unwrap_or(u32::MAX),
        attempt: 1,
        snapshot: false,
        attributes: Vec::new(),
        payload: payload.into_bytes(),
    };
    (call, batch)
}

fn requests(case: &Case) -> Vec<ResolverRequest> {
    let request = |request: &CaseRequest| ResolverRequest {
        name: request.name.clone(),
        options_json: Value::Object(request.options.clone()).to_string(),
        have_version: request.have_version.clone(),
    };
    case.requests.iter().map(request).collect()
}

fn answered(expect: &Expect, reply: &Reply) -> Result<(), Wrong> {
    if let Some(wanted) = expect.error {
        let wanted = wanted.kind().map_or("delivered", |kind| kind.name());
        return match &reply.outcome {
            Outcome::Failed(fault) => failed(expect, wanted, fault),
            Outcome::Resolved(answers) => match answers.as_slice() {
                [ResolverAnswer::Failed(fault)] => failed(expect, wanted, fault),
                _ => Err(Wrong::new(format!("error {wanted}"), describe(&reply.outcome))),
            },
            other => Err(Wrong::new(format!("error {wanted}"), describe(other))),
        };
    }
    match (&expect.values, expect.outcome.as_deref(), &reply.outcome) {
        (Some(values), _, Outcome::Resolved(answers)) => resolved(values, answers),
        (None, Some("durable"), Outcome::Written(Delivered::Durable(bad))) => {
            same_rows("bad_rows", &expect.bad_rows, bad.iter().map(|row| row.index).collect())
        }
        (None, Some("buffered"), Outcome::Written(Delivered::Buffered)) => Ok(()),
        (None, Some("retry-rows"), Outcome::Written(Delivered::RetryRows(rows))) => {
            same_rows("retry_rows", &expect.retry_rows, rows.clone())
        }
        (None, None, Outcome::Failed(fault)) => Err(Wrong::new("no error", describe_fault(fault))),
        (None, None, _) => Ok(()),
        (Some(_), _, other) => Err(Wrong::new("values", describe(other))),
        (None, Some(wanted), other) => Err(Wrong::new(wanted, describe(other))),
    }
}

fn same_rows(what: &str, wanted: &[u32], mut got: Vec<u32>) -> Result<(), Wrong> {
    let mut wanted = wanted.to_vec();
    wanted.sort_unstable();
    got.sort_unstable();
    if wanted == got {
        return Ok(());
    }
    Err(Wrong::new(format!("{what} = {wanted:?}"), format!("{got:?}")))
}

fn failed(expect: &Expect, wanted: &str, fault: &Fault) -> Result<(), Wrong> {
    let code = expect.code.is_none() || expect.code == fault.code;
    let wait = expect.retry_after_ms.is_none() || expect.retry_after_ms == fault.retry_after_ms;
    if fault.kind.name() == wanted && code && wait {
        return Ok(());
    }
    let mut expected = format!("error {wanted}");
    if let Some(code) = &expect.code {
        expected.push_str(&format!(" with code {code}"));
    }
    if let Some(ms) = expect.retry_after_ms {
        expected.push_str(&format!(" and retry-after-ms = {ms}"));
    }
    Err(Wrong::new(expected, describe_fault(fault)))
}

fn describe_fault(fault: &Fault) -> String {
    let wait = fault.retry_after_ms.map(|ms| format!(", retry-after-ms = {ms}")).unwrap_or_default();
    format!("{}: {fault}{wait}", fault.kind.name())
}

fn describe(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Failed(fault) => describe_fault(fault),
        Outcome::Resolved(answers) => format!("{answers:?}"),
        Outcome::Written(Delivered::Durable(bad)) if bad.is_empty() => "durable".to_owned(),
        Outcome::Written(Delivered::Durable(bad)) => {
            let rows: Vec<u32> = bad.iter().map(|row| row.index).collect();
            format!("durable with bad_rows = {rows:?}")
        }
        Outcome::Written(Delivered::Buffered) => "buffered".to_owned(),
        Outcome::Written(Delivered::RetryRows(rows)) => format!("retry-rows with retry_rows = {rows:?}"),
        Outcome::Done | Outcome::Opened(_) | Outcome::Flushed(_) => "no outcome of a batch".to_owned(),
    }
}

fn resolved(expected: &[ExpectedAnswer], answers: &[ResolverAnswer]) -> Result<(), Wrong> {
    if expected.len() != answers.len() {
        return Err(Wrong::new(format!("{} answers", expected.len()), format!("{answers:?}")));
    }
    for (number, (expected, answer)) in expected.iter().zip(answers).enumerate() {
        let same = match (expected, answer) {
            (ExpectedAnswer::Value(wanted), answer) => same_value(wanted, answer),
            (ExpectedAnswer::Word(word), ResolverAnswer::Unchanged) => word == "unchanged",
            (ExpectedAnswer::Word(word), ResolverAnswer::NotFound) => word == "not-found",
            (ExpectedAnswer::Word(word), ResolverAnswer::Failed(fault)) => word == fault.kind.name(),
            (ExpectedAnswer::Word(_), ResolverAnswer::Value { .. }) => false,
        };
        if !same {
            let expected = match expected {
                ExpectedAnswer::Word(word) => word.clone(),
                ExpectedAnswer::Value(wanted) => format!("{wanted:?}"),
            };
            return Err(Wrong::new(format!("answer {}: {expected}", number + 1), shown(answer)));
        }
    }
    Ok(())
}

/// What is not named may be anything.
fn same_value(wanted: &ExpectedValue, answer: &ResolverAnswer) -> bool {
    let ResolverAnswer::Value { value, version, ttl_seconds, lease_id } = answer else { return false };
    wanted.value.as_bytes() == value.as_slice()
        && (wanted.version.is_none() || wanted.version == *version)
        && (wanted.ttl_seconds.is_none() || wanted.ttl_seconds == *ttl_seconds)
        && (wanted.lease_id.is_none() || wanted.lease_id == *lease_id)
}

/// Without the value.
fn shown(answer: &ResolverAnswer) -> String {
    match answer {
        ResolverAnswer::Value { value, version, ttl_seconds, lease_id } => format!(
            "a value of {} bytes, version {version:?}, ttl_seconds {ttl_seconds:?}, lease_id {lease_id:?}",
            value.len()
        ),
        ResolverAnswer::Failed(fault) => describe_fault(fault),
        ResolverAnswer::Unchanged => "unchanged".to_owned(),
        ResolverAnswer::NotFound => "not-found".to_owned(),
    }
}

fn sent(expected: &[ExpectedRequest], sent: &[Sent]) -> Result<(), Wrong> {
    if expected.len() != sent.len() {
        let observed = format!("{}: {sent:?}", sent.len());
        return Err(Wrong::new(format!("{} requests", expected.len()), observed));
    }
    for (number, (expected, sent)) in expected.iter().zip(sent).enumerate() {
        let wrong = |what: &str, wanted: &str, got: &str| {
            Err(Wrong::new(format!("{what} {wanted:?} in request {}", number + 1), format!("{got:?}")))
        };
        if let Some(method) = expected.method.as_ref().filter(|method| **method != sent.method) {
            return wrong("method", method, &sent.method);
        }
        if let Some(url) = expected.url.as_ref().filter(|url| **url != sent.url) {
            return wrong("url", url, &sent.url);
        }
        for (name, value) in &expected.headers {
            let got = sent.header(name).unwrap_or("(no such header)");
            if got != value {
                return wrong(&format!("header {name}:"), value, got);
            }
        }
        let body = String::from_utf8_lossy(&sent.body);
        if let Some(wanted) = expected.body.as_ref().filter(|wanted| **wanted != body) {
            return wrong("body", wanted, &body);
        }
    }
    Ok(())
}
