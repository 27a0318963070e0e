//! Group 8: within its limits at its largest batch, and alive after an answer that is too long. What a hostile plugin
//! does is the host's to contain: [`KitOptions::host`] has the host show that, with this plugin under limits that no
//! plugin can keep.

use std::collections::BTreeMap;

use sepal_database::connector::{FaultKind, PluginKind};

use crate::{
    call::{CallError, Operation, Outcome, Reply, Usage},
    kit::{
        KitOptions,
        destination::Weather,
        outside::Circumstances,
        report::{Checks, Group, Wrong},
        subject::{Attempt, Ended, Observed, Subject},
    },
    manifest::EffectiveLimits,
};

pub(super) async fn run(subject: &Subject, options: &KitOptions) -> Checks {
    let mut checks = Checks::of(Group::Limits);
    let attempt = largest(subject).await;
    let check = "the most it is given at once";
    match &attempt.result {
        Ok(Reply { usage, .. }) => checks.note(check, describe(usage, &subject.limits)),
        Err(error) => checks.fail(check, Wrong::new("a call within its limits", error.to_string())),
    }
    let flooded = subject.work(Weather::Flood).await;
    checks.judge("an answer longer than it takes", alive(&flooded));
    if options.host {
        host_contains(subject, &mut checks).await;
    } else {
        checks.skip("the host contains what breaks limits", "asked for with --host");
    }
    checks
}

async fn largest(subject: &Subject) -> Attempt {
    match subject.kind() {
        PluginKind::Sink => {
            let batch = subject.manifest.sink.as_ref().map(|sink| sink.batch).unwrap_or_default();
            let sample = subject.sampler().largest(batch.max_rows, batch.max_bytes.0);
            subject.write(sample, Weather::Fair, Circumstances::default()).await
        }
        PluginKind::Resolver => {
            subject.resolve(subject.requests(100), Weather::Fair, Circumstances::default()).await
        }
    }
}

fn describe(usage: &Usage, limits: &EffectiveLimits) -> String {
    format!(
        "{:.1} of {} MiB of memory, {} of {} ms of CPU time",
        usage.peak_memory_bytes as f64 / f64::from(1 << 20),
        limits.memory_bytes >> 20,
        usage.cpu_us / 1000,
        limits.cpu_per_call_ms,
    )
}

fn alive(attempt: &Attempt) -> Result<(), Wrong> {
    match attempt.observed() {
        Observed::Broke(error) => Err(Wrong::new("an answer or an error", error.to_string())),
        Observed::Failed(fault) if fault.kind == FaultKind::Internal => {
            Err(Wrong::new("an answer or an error of the destination", format!("internal: {fault}")))
        }
        _ => Ok(()),
    }
}

/// Each limit in turn is one that nothing can keep; then all is well again.
async fn host_contains(subject: &Subject, checks: &mut Checks) {
    let limits = subject.limits;
    let starved = [
        ("memory", EffectiveLimits { memory_bytes: 1 << 12, ..limits }),
        ("table elements", EffectiveLimits { table_elements: 0, ..limits }),
        ("instances", EffectiveLimits { instances: 1, ..limits }),
        ("bytes in a call to the host", EffectiveLimits { hostcall_bytes: 16, ..limits }),
    ];
    for (what, limits) in starved {
        let broke = match work_within(subject, limits).await {
            Ended::Broke(
                CallError::Memory { .. } | CallError::Limit(_) | CallError::Unfit(_) | CallError::Trap(_),
            ) => Ok(()),
            Ended::Broke(error) => Err(Wrong::new("the limit that was broken", error.to_string())),
            Ended::Crashed | Ended::Replied(_) => Err(Wrong::new("a call that is ended", "an answer")),
        };
        checks.judge(format!("the host ends a call without {what}"), broke);
    }
    let well = match work_within(subject, limits).await {
        Ended::Replied(Reply { outcome: Outcome::Failed(fault), .. }) => {
            Err(Wrong::new("an answer", fault.to_string()))
        }
        Ended::Replied(_) => Ok(()),
        Ended::Broke(error) => Err(Wrong::new("an answer", error.to_string())),
        Ended::Crashed => Err(Wrong::new("an answer", "none")),
    };
    checks.judge("the host is well afterwards", well);
}

async fn work_within(subject: &Subject, limits: EffectiveLimits) -> Ended {
    let destination = subject.destination(Weather::Fair);
    let outside = subject.outside(&subject.setup, &destination, Circumstances::default());
    let operation = match subject.kind() {
        PluginKind::Sink => {
            let sample = subject.sampler().plain(2);
            let call = subject.sink_call(&subject.setup, &sample, &BTreeMap::new());
            Operation::Write(call, sample.batch)
        }
        PluginKind::Resolver => {
            Operation::Resolve { config_json: subject.setup.config_json(), requests: subject.requests(1) }
        }
    };
    subject.call_within(limits, &outside, None, operation).await
}
