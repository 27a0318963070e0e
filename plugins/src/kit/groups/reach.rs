//! Group 7: it asks where its manifest says, takes no for an answer, and follows nobody.
//!
//! Names are judged by the same code as in a server; where they lead is told by the kit's own resolver.

use sepal_database::connector::{FaultKind, PluginKind};

use crate::{
    call::HttpError,
    kit::{
        case::Answer,
        destination::Weather,
        lookup,
        outside::{Circumstances, Road},
        report::{Checks, Group, Wrong},
        subject::{Attempt, Observed, Subject},
    },
};

const METADATA: &str = "http://169.254.169.254/latest/meta-data/";

pub(super) async fn run(subject: &Subject) -> Checks {
    let mut checks = Checks::of(Group::Reach);
    let fair = subject.work(Weather::Fair).await;
    if fair.destination.requests() == 0 {
        checks.skip("destinations that are denied", "the plugin makes no request");
    } else {
        let denied = Weather::Fails(HttpError::Denied("the kit denies it".to_owned()));
        let attempt = subject.work(denied).await;
        checks.judge("a destination that is denied", misconfigured(&attempt));
        for (place, answer) in lookup::ANSWERS.into_iter().enumerate() {
            subject.names.answer_with(place);
            let check = format!("a name that leads to {}", answer.join(" and "));
            let nowhere = Circumstances { road: Road::Real, ..Circumstances::default() };
            let attempt = subject.work_in(Weather::Fair, nowhere).await;
            match attempt.destination.requests() {
                0 => checks.skip(check, "the test case names an address, which is not looked up"),
                _ => checks.judge(check, misconfigured(&attempt)),
            }
        }
        for status in [301, 302, 307] {
            let moved = Answer::status(status).header("location", METADATA);
            let attempt = subject.work(Weather::Every(moved)).await;
            let check = format!("a {status} to an address of the private kind");
            checks.judge(check, redirected(subject.kind(), &attempt));
        }
    }
    checks.judge("everything that was asked is among [capabilities] http", asked_where_it_may(subject));
    checks
}

/// Denied for ever: to try again would not help.
fn misconfigured(attempt: &Attempt) -> Result<(), Wrong> {
    match attempt.observed() {
        Observed::Failed(fault) if fault.kind == FaultKind::Misconfigured => Ok(()),
        other => {
            Err(Wrong::new("misconfigured, as a destination that is denied stays denied", other.to_string()))
        }
    }
}

/// The same, and nobody asked at the new address.
fn redirected(kind: PluginKind, attempt: &Attempt) -> Result<(), Wrong> {
    let heard = attempt.outside.heard();
    if let Some(call) = heard.calls.iter().find(|call| call.contains("169.254.169.254")) {
        return Err(Wrong::new("redirects that are not followed", call.clone()));
    }
    match attempt.observed() {
        Observed::Failed(fault) if fault.kind == FaultKind::Misconfigured => Ok(()),
        // Group 5 is about success that is none; a resolver has no other group for it.
        Observed::Delivered if kind == PluginKind::Sink => Ok(()),
        other => Err(Wrong::new("misconfigured, as the address has to be named anew", other.to_string())),
    }
}

fn asked_where_it_may(subject: &Subject) -> Result<(), Wrong> {
    match subject.strays().first() {
        None => Ok(()),
        Some(stray) => Err(Wrong::new("requests that the way out lets through", stray.clone())),
    }
}
