//! Seeds.
//!
//! `SEPAL_SIM_SEEDS=n` runs n of them from a random one on, which is printed; `SEPAL_SIM_SEED=s` runs one and prints
//! what it did.

use super::run::{Report, run};

/// What a developer waits for.
const SEEDS: u64 = 300;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

fn check(report: &Report) {
    assert!(report.violation.is_none(), "{}", report.told());
}

#[test]
fn no_seed_breaks_a_promise() {
    if let Some(seed) = number("SEPAL_SIM_SEED") {
        let report = run(seed);
        println!("{}", report.told());
        return check(&report);
    }
    let (first, seeds) = match number("SEPAL_SIM_SEEDS") {
        None => (1, SEEDS),
        Some(seeds) => {
            let first = u64::from_be_bytes(sepal_crypto::random_bytes()) >> 16;
            (number("SEPAL_SIM_FIRST").unwrap_or(first), seeds)
        }
    };
    println!("seeds {first} to {}", first + seeds - 1);
    for seed in first..first + seeds {
        check(&run(seed));
        if (seed - first + 1).is_multiple_of(1_000) {
            println!("{} seeds, nothing wrong", seed - first + 1);
        }
    }
}

#[test]
fn a_seed_is_a_history() {
    for seed in [3, 17, 170, 2_024] {
        let (first, second) = (run(seed), run(seed));
        assert_eq!(first.trace, second.trace, "seed {seed} took another course");
        assert_eq!(first.digest, second.digest, "seed {seed} came to another end");
        assert!(first.trace.len() > 20, "seed {seed} did next to nothing");
    }
}

/// A simulation that never meets trouble proves little.
#[test]
fn seeds_meet_every_kind_of_trouble() {
    let traces: Vec<String> = (1..=240).flat_map(|seed| run(seed).trace).collect();
    for wanted in [
        "PowerCut",
        "Killed",
        "Orderly",
        "does not open",
        "1 unknown",
        "meanwhile",
        "segments_written: 1",
        "segments_removed: 1",
        "no space left",
        "Input/output error",
        "attach index",
        "hold the log",
        "look back at Commit",
        "look back at Named",
        "clone into",
        "name the snapshot",
        "drop the snapshot",
        "KeyUse { manifests: 0, log_files: 0 }",
        "generation: 1, running: false",
        "mark the log: true",
        "flipped",
        "the repair gives up [\"rows\"",
        "the repair gives up [\"commits\"",
        "the repair is refused",
        "commit: 3 from",
    ] {
        let times = traces.iter().filter(|line| line.contains(wanted)).count();
        assert!(times > 0, "no seed met: {wanted}");
    }
}
