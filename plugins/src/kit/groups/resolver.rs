//! Group 10: a resolver's answers: a value, nothing new, nothing at all, some of several, and a lease given back.

use sepal_database::connector::FaultKind;
use serde_json::Value;

use crate::{
    call::{Outcome, Reply, ResolverAnswer},
    kit::{
        case::Answer,
        destination::Weather,
        outside::Circumstances,
        report::{Checks, Group, Wrong},
        subject::{Attempt, Observed, Subject},
    },
};

/// A time to live beyond this is a mistake of units.
const MOST_TTL_SECONDS: u32 = 366 * 86_400;

/// What came with a value.
struct Facts {
    version: Option<String>,
    ttl_seconds: Option<u32>,
    lease_id: Option<String>,
}

pub(super) async fn run(subject: &Subject) -> Checks {
    let mut checks = Checks::of(Group::Resolver);
    let attempt = subject.work(Weather::Fair).await;
    let facts = match value(subject, &attempt) {
        Ok(facts) => facts,
        Err(wrong) => {
            checks.fail("a secret that is there", wrong);
            return checks;
        }
    };
    checks.pass("a secret that is there");
    checks.judge("a secret that is not there", missing(subject).await);
    unchanged(subject, &facts, &mut checks).await;
    match facts.ttl_seconds {
        None => checks.skip("time to live", "the value has none"),
        Some(1..=MOST_TTL_SECONDS) => checks.pass("time to live"),
        Some(seconds) => {
            let wrong = Wrong::new("between a second and a year", format!("{seconds} seconds"));
            checks.fail("time to live", wrong);
        }
    }
    some_fail(subject, &mut checks).await;
    revoked(subject, &facts, &mut checks).await;
    checks
}

fn value(subject: &Subject, attempt: &Attempt) -> Result<Facts, Wrong> {
    let answers = match &attempt.result {
        Ok(Reply { outcome: Outcome::Resolved(answers), .. }) => answers,
        _ => return Err(Wrong::new("a value", attempt.observed().to_string())),
    };
    let [ResolverAnswer::Value { value, version, ttl_seconds, lease_id }] = answers.as_slice() else {
        return Err(Wrong::new("a value", attempt.observed().to_string()));
    };
    // Neither value is shown: test cases are copied from real ones.
    match &subject.case.resolver.value {
        Some(wanted) if wanted.as_bytes() != value.as_slice() => {
            let observed = format!("{} other bytes", value.len());
            return Err(Wrong::new("the value of the test case", observed));
        }
        None if value.is_empty() => return Err(Wrong::new("a value", "an empty one")),
        _ => {}
    }
    Ok(Facts { version: version.clone(), ttl_seconds: *ttl_seconds, lease_id: lease_id.clone() })
}

async fn missing(subject: &Subject) -> Result<(), Wrong> {
    let missing = &subject.case.resolver.missing;
    let mut requests = subject.requests(1);
    if let (Some(options), Some(request)) = (&missing.options, requests.first_mut()) {
        request.options_json = Value::Object(options.clone()).to_string();
    }
    // With options of its own the destination knows what to say; else it says this.
    let weather = match &missing.options {
        Some(_) if missing.answer == Answer::status(404) => Weather::Fair,
        _ => Weather::Every(missing.answer.clone()),
    };
    match subject.resolve(requests, weather, Circumstances::default()).await.observed() {
        Observed::NotFound => Ok(()),
        other => Err(Wrong::new("not found", other.to_string())),
    }
}

/// A plugin may answer `unchanged`; the same version with the same value does no harm.
async fn unchanged(subject: &Subject, facts: &Facts, checks: &mut Checks) {
    let check = "a secret that the host holds already";
    let Some(version) = &facts.version else {
        return checks.skip(check, "the value has no version");
    };
    let mut requests = subject.requests(1);
    for request in &mut requests {
        request.have_version = Some(version.clone());
    }
    let attempt = subject.resolve(requests, Weather::Fair, Circumstances::default()).await;
    let expected = format!("unchanged, or version {version} again");
    match &attempt.result {
        Ok(Reply { outcome: Outcome::Resolved(answers), .. }) => match answers.as_slice() {
            [ResolverAnswer::Unchanged] => checks.pass(check),
            [ResolverAnswer::Value { version: again, .. }] if again.as_ref() == Some(version) => {
                checks.note(check, "it sends the value again; unchanged would save its way");
            }
            _ => checks.fail(check, Wrong::new(expected, attempt.observed().to_string())),
        },
        _ => checks.fail(check, Wrong::new(expected, attempt.observed().to_string())),
    }
}

/// The last of three fails alone.
async fn some_fail(subject: &Subject, checks: &mut Checks) {
    let check = "one of several secrets failing";
    let fair = subject.resolve(subject.requests(3), Weather::Fair, Circumstances::default()).await;
    let requests = fair.destination.requests();
    if requests < 3 {
        return checks.skip(check, "several secrets take fewer requests than there are secrets");
    }
    let weather = Weather::Nth(requests - 1, Answer::status(500));
    let attempt = subject.resolve(subject.requests(3), weather, Circumstances::default()).await;
    let expected = "two values and an error, in order";
    let result = match &attempt.result {
        Ok(Reply { outcome: Outcome::Resolved(answers), .. }) => match answers.as_slice() {
            [ResolverAnswer::Value { .. }, ResolverAnswer::Value { .. }, ResolverAnswer::Failed(fault)]
                if fault.kind != FaultKind::Internal =>
            {
                Ok(())
            }
            other => Err(Wrong::new(expected, format!("{other:?}"))),
        },
        _ => Err(Wrong::new(expected, attempt.observed().to_string())),
    };
    checks.judge(check, result);
}

async fn revoked(subject: &Subject, facts: &Facts, checks: &mut Checks) {
    let lease = facts.lease_id.clone();
    let check = match lease {
        Some(_) => "a lease that is given back",
        None => "a lease that it never gave",
    };
    let result = match subject.revoke(&lease.unwrap_or_else(|| "kit-lease".to_owned())).await {
        Ok(Reply { outcome: Outcome::Failed(fault), .. }) if fault.kind == FaultKind::Internal => {
            Err(Wrong::new("no error, or one about the lease", format!("internal: {fault}")))
        }
        Ok(Reply { outcome: Outcome::Failed(fault), .. }) if facts.lease_id.is_some() => {
            Err(Wrong::new("no error", format!("{}: {fault}", fault.kind.name())))
        }
        Ok(_) => Ok(()),
        Err(error) => Err(Wrong::new("an answer", error.to_string())),
    };
    checks.judge(check, result);
}
