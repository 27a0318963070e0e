//! Group 6: a secret is in nothing that the plugin hands out, even when the destination repeats it.
//!
//! Its memory is not searched: the plaintext never gets there, unless the manifest asks for `reveal`. Then requests may
//! carry it, that is what it is for; logs, errors, state and metrics still may not.

use sepal_database::connector::Delivered;

use crate::{
    call::{Outcome, Reply, ResolverAnswer},
    egress::{MIN_SECRET_BYTES, Scrubber},
    kit::{
        destination::Weather,
        report::{Checks, Group, Wrong},
        subject::{Attempt, Subject},
    },
};

pub(super) async fn run(subject: &Subject) -> Checks {
    let mut checks = Checks::of(Group::Secrets);
    let secrets = &subject.setup.secrets.0;
    let detector = Scrubber::default();
    for (slot, value) in secrets {
        if value.as_bytes().len() < MIN_SECRET_BYTES {
            let why = format!(
                "the test case's secret is under {MIN_SECRET_BYTES} bytes: too short to be looked for"
            );
            checks.skip(format!("secret {slot}"), why);
        }
        detector.learn(slot, value.as_bytes());
    }
    if secrets.is_empty() {
        checks.skip("secrets", "the manifest has no slot, or the test case fills none");
    } else {
        checks
            .judge("not in its options", clean(&detector, "options", subject.setup.config_json().as_bytes()));
    }
    let weathers = [
        ("the destination answers well", Weather::Fair),
        ("the destination repeats the request's headers", Weather::Echo(200)),
        ("the destination refuses and repeats the headers", Weather::Echo(400)),
        ("the destination fails and repeats the headers", Weather::Echo(500)),
    ];
    for (what, weather) in weathers {
        let attempt = subject.work(weather).await;
        if let Ok(Reply { outcome: Outcome::Resolved(answers), .. }) = &attempt.result {
            for answer in answers {
                if let ResolverAnswer::Value { value, .. } = answer {
                    detector.learn("the resolved value", value);
                }
            }
        }
        checks.judge(format!("not handed out when {what}"), nowhere(subject, &detector, &attempt));
    }
    checks
}

fn clean(detector: &Scrubber, place: &str, bytes: &[u8]) -> Result<(), Wrong> {
    if detector.scrub_bytes(bytes.to_vec()) == bytes {
        return Ok(());
    }
    // What was found is not repeated.
    Err(Wrong::new("no secret in anything that leaves the plugin", format!("one in {place}")))
}

fn nowhere(subject: &Subject, detector: &Scrubber, attempt: &Attempt) -> Result<(), Wrong> {
    let heard = attempt.outside.heard();
    for said in &heard.said {
        clean(detector, "a log line or the name of a metric", said.as_bytes())?;
    }
    if !subject.manifest.capabilities.reveal {
        for written in &heard.written {
            clean(detector, "what it wrote into a request", written)?;
        }
    }
    match &attempt.result {
        Err(error) => clean(detector, "the message of a trap", error.to_string().as_bytes())?,
        Ok(reply) => {
            for (place, text) in messages(reply) {
                clean(detector, place, text.as_bytes())?;
            }
            for (key, value) in &reply.state_changes {
                clean(detector, "a key of its state", key.as_bytes())?;
                clean(detector, "its state", value.as_deref().unwrap_or_default())?;
            }
        }
    }
    Ok(())
}

/// Texts of an answer that people see.
fn messages(reply: &Reply) -> Vec<(&'static str, String)> {
    match &reply.outcome {
        Outcome::Failed(fault) => vec![("an error", fault.to_string())],
        Outcome::Written(Delivered::Durable(bad)) => {
            let texts =
                bad.iter().map(|row| format!("{} {}", row.code.as_deref().unwrap_or(""), row.message));
            texts.map(|text| ("the message about a bad row", text)).collect()
        }
        Outcome::Resolved(answers) => answers
            .iter()
            .filter_map(|answer| match answer {
                ResolverAnswer::Value { version, lease_id, .. } => {
                    let facts = [version, lease_id].map(|fact| fact.clone().unwrap_or_default());
                    Some(("the version or lease of a value", facts.join(" ")))
                }
                ResolverAnswer::Failed(fault) => Some(("an error", fault.to_string())),
                ResolverAnswer::Unchanged | ResolverAnswer::NotFound => None,
            })
            .collect(),
        Outcome::Flushed(position) => vec![("a position", position.clone().unwrap_or_default())],
        Outcome::Written(Delivered::Buffered | Delivered::RetryRows(_))
        | Outcome::Done
        | Outcome::Opened(_) => Vec::new(),
    }
}
