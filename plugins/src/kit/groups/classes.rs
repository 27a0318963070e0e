//! Group 3: what a destination answers has a kind, and the host acts by it.

use sepal_database::connector::{FaultKind, PluginKind};

use crate::{
    call::HttpError,
    kit::{
        case::{Answer, Wanted},
        destination::Weather,
        outside::Circumstances,
        report::{Checks, Group, Wrong},
        subject::{Observed, Subject},
    },
};

/// Statuses, with what the SDK makes of them.
pub(super) const STATUSES: [(u16, Wanted); 14] = [
    (400, Wanted::Rejected),
    (401, Wanted::Unauthorized),
    (403, Wanted::Unauthorized),
    (404, Wanted::Misconfigured),
    (408, Wanted::Transient),
    (410, Wanted::Misconfigured),
    (413, Wanted::Rejected),
    (422, Wanted::Rejected),
    (425, Wanted::Transient),
    (429, Wanted::Transient),
    (500, Wanted::Transient),
    (502, Wanted::Transient),
    (503, Wanted::Transient),
    (504, Wanted::Transient),
];

const RETRY_SECONDS: u32 = 7;

/// What befalls a request that nobody answers.
pub(super) fn failures() -> [HttpError; 6] {
    [
        HttpError::Dns,
        HttpError::Connect,
        HttpError::Tls("the certificate has expired".to_owned()),
        HttpError::Timeout,
        HttpError::Protocol("the connection was closed in between".to_owned()),
        HttpError::Throttled(1500),
    ]
}

pub(super) async fn run(subject: &Subject) -> Checks {
    let mut checks = Checks::of(Group::Classes);
    let fair = subject.work(Weather::Fair).await;
    if fair.destination.requests() == 0 {
        checks.skip("statuses", "the plugin makes no request");
        return checks;
    }
    for (status, usual) in STATUSES {
        let wanted = subject.case.statuses.get(&status.to_string()).copied().unwrap_or(usual);
        let attempt = subject.work(Weather::Every(Answer::status(status))).await;
        judge(&mut checks, subject.kind(), format!("status {status}"), wanted, &attempt.observed());
    }
    for error in failures() {
        let attempt = subject.work(Weather::Fails(error.clone())).await;
        let check = format!("a request that fails: {}", name_of(&error));
        judge(&mut checks, subject.kind(), check, Wanted::Transient, &attempt.observed());
    }
    for status in [429, 503] {
        retry_after(subject, status, &mut checks).await;
    }
    if fair.outside.heard().asked_for_secrets {
        let away = Circumstances { secrets_away: true, ..Circumstances::default() };
        let attempt = subject.work_in(Weather::Fair, away).await;
        let check = "a secret that is out of reach".to_owned();
        judge(&mut checks, subject.kind(), check, Wanted::Transient, &attempt.observed());
    }
    checks
}

fn name_of(error: &HttpError) -> &'static str {
    match error {
        HttpError::Denied(_) => "denied",
        HttpError::Dns => "dns",
        HttpError::Connect => "connect",
        HttpError::Tls(_) => "tls",
        HttpError::Timeout => "timeout",
        HttpError::Protocol(_) => "protocol",
        HttpError::Throttled(_) => "throttled",
    }
}

fn judge(checks: &mut Checks, kind: PluginKind, check: String, wanted: Wanted, observed: &Observed) {
    match (observed, wanted.kind()) {
        (Observed::Delivered, None) => checks.pass(check),
        // Group 5 is about success that is none.
        (Observed::Delivered, Some(_)) => checks.skip(check, "it was taken for success, so there is no kind"),
        (Observed::NotFound, Some(FaultKind::Misconfigured)) if kind == PluginKind::Resolver => {
            checks.pass(check);
        }
        (Observed::Failed(fault), Some(wanted)) if is(fault.kind, wanted) => checks.pass(check),
        (other, wanted) => {
            let wanted = wanted.map_or("success", FaultKind::name);
            checks.fail(check, Wrong::new(wanted, other.to_string()));
        }
    }
}

/// A destination that is gone may be told as such.
fn is(kind: FaultKind, wanted: FaultKind) -> bool {
    kind == wanted || (wanted == FaultKind::Transient && kind == FaultKind::NotConnected)
}

async fn retry_after(subject: &Subject, status: u16, checks: &mut Checks) {
    let answer = Answer::status(status).header("retry-after", &RETRY_SECONDS.to_string());
    let check = format!("retry-after of a {status}");
    match subject.work(Weather::Every(answer)).await.observed() {
        Observed::Failed(fault) if fault.retry_after_ms == Some(RETRY_SECONDS * 1000) => checks.pass(check),
        Observed::Failed(fault) => {
            let observed = match fault.retry_after_ms {
                Some(ms) => format!("retry-after-ms = {ms}"),
                None => "no retry-after-ms".to_owned(),
            };
            checks.fail(check, Wrong::new(format!("retry-after-ms = {}", RETRY_SECONDS * 1000), observed));
        }
        other => checks.skip(check, format!("there is no error: {other}")),
    }
}
