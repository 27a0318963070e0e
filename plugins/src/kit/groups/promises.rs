//! Group 5: a row is called durable only after the destination said so.

use sepal_database::connector::{Delivered, FaultKind};

use super::classes::{STATUSES, failures};
use crate::{
    call::{Outcome, Reply},
    kit::{
        case::{Answer, Wanted},
        destination::Weather,
        report::{Checks, Group, Wrong},
        rows::Sample,
        subject::{Attempt, Subject},
    },
};

/// Beyond this many requests for one batch only the first ones are made to fail, one at a time.
const MOST_REQUESTS: usize = 32;

pub(super) async fn run(subject: &Subject) -> Checks {
    let mut checks = Checks::of(Group::Promises);
    let redirects = [(302, Wanted::Misconfigured), (307, Wanted::Misconfigured)];
    for (status, _) in STATUSES.into_iter().chain(redirects) {
        let own = subject.case.statuses.get(&status.to_string());
        if own == Some(&Wanted::Delivered) {
            checks.skip(format!("status {status}"), "conformance.toml says that it means success");
            continue;
        }
        let attempt = subject.work(Weather::Every(Answer::status(status))).await;
        let what = format!("every request was answered with {status}");
        checks.judge(format!("status {status}"), nothing_claimed(&attempt, &what));
        if status >= 500 && own.is_none() {
            checks.judge(format!("status {status} is no reason to drop rows"), nothing_dropped(&attempt));
        }
    }
    for error in failures() {
        let attempt = subject.work(Weather::Fails(error.clone())).await;
        let what = format!("no request was answered ({error:?})");
        checks.judge(format!("{error:?}"), nothing_claimed(&attempt, &what));
    }
    one_request_fails(subject, &mut checks).await;
    checks
}

fn nothing_claimed(attempt: &Attempt, what: &str) -> Result<(), Wrong> {
    let claimed = attempt.claimed().len();
    if claimed == 0 {
        return Ok(());
    }
    Err(Wrong::new(format!("no row to be durable, as {what}"), format!("{claimed} rows that are durable")))
}

/// A row that is bad goes among the dead letters: that is for data, not for a destination that is down.
fn nothing_dropped(attempt: &Attempt) -> Result<(), Wrong> {
    let dropped = match &attempt.result {
        Ok(Reply { outcome: Outcome::Written(Delivered::Durable(bad)), .. }) => bad.len(),
        Ok(Reply { outcome: Outcome::Failed(fault), .. }) if fault.kind == FaultKind::Rejected => {
            attempt.sample.as_ref().map_or(0, Sample::len)
        }
        _ => 0,
    };
    if dropped == 0 {
        return Ok(());
    }
    Err(Wrong::new("rows that are sent again", format!("{dropped} rows among the dead letters")))
}

/// Each request in turn is answered with 500, the others well.
async fn one_request_fails(subject: &Subject, checks: &mut Checks) {
    let check = "each request failing alone";
    let fair = subject.work(Weather::Fair).await.destination.requests();
    if fair == 0 {
        return checks.skip(check, "the plugin makes no request");
    }
    if !subject.case.rows.visible {
        return checks.skip(check, "[rows] visible = false: what a request is about cannot be seen");
    }
    for number in 0..fair.min(MOST_REQUESTS) {
        let attempt = subject.work(Weather::Nth(number, Answer::status(500))).await;
        let Some(sample) = &attempt.sample else { continue };
        let arrivals = sample.arrivals(&attempt.destination.sent());
        if let Some(row) = attempt.claimed().into_iter().find(|row| arrivals[*row] == 0) {
            let wrong = Wrong::new(
                "rows that are durable to have been in a request that was answered with 2xx",
                format!("row {row} in none, after request {} was answered with 500", number + 1),
            );
            return checks.fail(check, wrong);
        }
    }
    checks.pass(check);
}
