//! Group 1: it loads, asks for what it imports, and refuses options that are wrong.

use sepal_database::connector::FaultKind;
use serde_json::{Map, Value};

use crate::{
    call::{CallError, Outcome, Reply},
    kit::{
        destination::Weather,
        report::{Checks, Group, Wrong},
        setup::{Setup, settings},
        subject::Subject,
    },
};

const UNKNOWN: &str = "no_plugin_has_this_option";

pub(super) async fn run(subject: &Subject) -> Checks {
    let mut checks = Checks::of(Group::Loads);
    let destination = subject.destination(Weather::Fair);
    let checked = subject.check(&subject.setup, &destination).await;
    checks.judge("an instance starts", started(&checked));
    checks.judge("check passes with options that are right", passed(&checked));
    checks.judge("the manifest asks for what the component imports", asks_for_its_imports(subject));
    checks.judge("an option that it does not have is refused", refuses_unknown(subject));
    wrong_options(subject, &mut checks).await;
    checks
}

fn started(checked: &Result<Reply, CallError>) -> Result<(), Wrong> {
    match checked {
        Ok(_) => Ok(()),
        Err(error) => Err(Wrong::new("an answer to check", error.to_string())),
    }
}

fn passed(checked: &Result<Reply, CallError>) -> Result<(), Wrong> {
    match checked {
        Ok(Reply { outcome: Outcome::Done, .. }) => Ok(()),
        Ok(Reply { outcome: Outcome::Failed(fault), .. }) => Err(Wrong::new(
            "no error, as the destination answers well",
            format!("{}: {fault}", fault.kind.name()),
        )),
        Ok(reply) => Err(Wrong::new("no error", format!("{:?}", reply.outcome))),
        Err(error) => Err(Wrong::new("an answer", error.to_string())),
    }
}

/// Whoever asks for more than it uses is granted more than it needs. What toolchains import unused is no harm.
fn asks_for_its_imports(subject: &Subject) -> Result<(), Wrong> {
    let imports = |interface: &str| {
        let start = format!("sepal:plugin/{interface}@");
        subject.imports.iter().any(|name| name.starts_with(&start))
    };
    let asked = &subject.manifest.capabilities;
    let wishes = [
        ("http", !asked.http.is_empty(), "[capabilities] http"),
        ("state", asked.state.0 > 0, "[capabilities] state"),
        ("reveal", asked.reveal, "[capabilities] reveal"),
        ("secrets", !subject.manifest.secrets.is_empty(), "[secrets]"),
    ];
    match wishes.into_iter().find(|(interface, wished, _)| *wished && !imports(interface)) {
        None => Ok(()),
        Some((interface, _, place)) => Err(Wrong::new(
            format!("an import of sepal:plugin/{interface}, which {place} asks for"),
            format!("imports of {}; take {place} out of plugin.toml", subject.imports.join(", ")),
        )),
    }
}

fn refuses_unknown(subject: &Subject) -> Result<(), Wrong> {
    let mut config = subject.case.config.clone();
    config.insert(UNKNOWN.to_owned(), Value::from("x"));
    match subject.schema.configure(&settings(&config, &subject.setup.secrets.0)) {
        Err(_) => Ok(()),
        Ok(_) => Err(Wrong::new(format!("an error about {UNKNOWN}"), "options that are taken")),
    }
}

/// Those of the test case, and each required option left out.
async fn wrong_options(subject: &Subject, checks: &mut Checks) {
    let invalid = &subject.case.invalid;
    for (number, wrong) in invalid.iter().enumerate() {
        let check = format!("wrong options {} are refused", number + 1);
        checks.judge(check, refuses(subject, &wrong.config).await);
    }
    let required: Vec<&String> =
        subject.case.config.keys().filter(|name| subject.schema.is_required(name)).collect();
    for name in &required {
        let mut config = subject.case.config.clone();
        config.remove(*name);
        checks.judge(format!("options without {name} are refused"), refuses(subject, &config).await);
    }
    if invalid.is_empty() && required.is_empty() {
        let why = "no option is required, and conformance.toml has no [[invalid]] config";
        checks.skip("wrong options are refused", why);
    }
}

/// By the schema, or by `check` as misconfigured.
async fn refuses(subject: &Subject, config: &Map<String, Value>) -> Result<(), Wrong> {
    let Ok(setup) = Setup::new(&subject.manifest, &subject.schema, config, &subject.case.secrets) else {
        return Ok(());
    };
    let expected = "an error of the schema, or misconfigured from check";
    match subject.check(&setup, &subject.destination(Weather::Fair)).await {
        Ok(Reply { outcome: Outcome::Failed(fault), .. }) if fault.kind == FaultKind::Misconfigured => Ok(()),
        Ok(Reply { outcome: Outcome::Failed(fault), .. }) => {
            Err(Wrong::new(expected, format!("{}: {fault}", fault.kind.name())))
        }
        Ok(_) => Err(Wrong::new(expected, format!("a check that passes with {}", setup.config_json()))),
        Err(error) => Err(Wrong::new(expected, error.to_string())),
    }
}
