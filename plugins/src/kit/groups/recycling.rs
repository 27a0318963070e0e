//! Group 9: instances that were dropped leave no memory behind. Seen from the process as a whole: `VmRSS`.

use std::fs;

use crate::kit::{
    KitOptions,
    destination::Weather,
    report::{Checks, Group, Wrong},
    subject::{Observed, Subject},
};

/// What allocators keep for themselves; a leak of one page in each of a thousand instances would be 4 MiB.
const SLACK_BYTES: u64 = 24 << 20;

pub(super) async fn run(subject: &Subject, options: &KitOptions) -> Checks {
    let mut checks = Checks::of(Group::Recycling);
    let instances = options.instances;
    let check = format!("{instances} instances one after the other");
    if instances == 0 {
        checks.skip("instances one after the other", "the kit was asked to make none");
        return checks;
    }
    // The first ones fill caches: of compiled code, of the allocator, of the pool.
    let warm = (instances / 4).max(1);
    let mut before = None;
    for number in 0..instances {
        if number == warm {
            before = resident_bytes();
        }
        if let Observed::Broke(error) = subject.work(Weather::Fair).await.observed() {
            let observed = format!("instance {}: {error}", number + 1);
            checks.fail(check, Wrong::new("every instance to work", observed));
            return checks;
        }
    }
    match (before, resident_bytes()) {
        (Some(before), Some(after)) => {
            let grown = after.saturating_sub(before);
            let told = format!("{:.1} MiB more after {instances}", grown as f64 / f64::from(1 << 20));
            if grown <= SLACK_BYTES {
                checks.note(check, told);
            } else {
                let expected = format!("at most {} MiB more than after {warm}", SLACK_BYTES >> 20);
                checks.fail(check, Wrong::new(expected, told));
            }
        }
        _ => checks.skip(check, "this system does not say how much memory a process has"),
    }
    checks
}

fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes << 10)
}
