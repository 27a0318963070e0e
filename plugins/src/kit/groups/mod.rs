//! The groups of checks, one file each, in the order of docs/plugins/conformance.md.

mod batches;
mod cases;
mod classes;
mod crashes;
mod limits;
mod loads;
mod promises;
mod reach;
mod recycling;
mod resolver;
mod secrets;

use super::{
    KitOptions,
    report::{Checks, Group, Level, is_about},
    subject::Subject,
};

/// All groups that this plugin and this level call for. Where a plugin asks is judged last: every other group adds to
/// what is known about it.
pub(super) async fn run(subject: &Subject, level: Level, options: &KitOptions) -> Vec<Checks> {
    let mut found = vec![cases::run(subject).await, loads::run(subject).await];
    let of_rows = [Group::Batches, Group::Classes, Group::Crashes, Group::Promises, Group::Resolver];
    for group in of_rows {
        found.push(if !is_about(group, subject.kind()) {
            Checks::skipped(
                group,
                if group == Group::Resolver { "this is a sink" } else { "this is a resolver" },
            )
        } else if level == Level::L0 {
            Checks::skipped(group, "level L0 asks nothing of it")
        } else {
            match group {
                Group::Batches => batches::run(subject).await,
                Group::Crashes => crashes::run(subject, level, options).await,
                Group::Promises => promises::run(subject).await,
                Group::Resolver => resolver::run(subject).await,
                _ => classes::run(subject).await,
            }
        });
    }
    found.push(secrets::run(subject).await);
    found.push(limits::run(subject, options).await);
    found.push(recycling::run(subject, options).await);
    found.push(reach::run(subject).await);
    found
}
