//! Does the simulation find what it is there to find? Bugs are planted, one at a time, and must show in a seed.

use super::run::run;
use crate::planted::{Bug, plant};

/// Within so many seeds.
const SEEDS: u64 = 1_000;

/// Takes the bug out again, also after a panic.
struct Planted;

impl Planted {
    fn new(bug: Bug) -> Self {
        plant(Some(bug));
        Self
    }
}

impl Drop for Planted {
    fn drop(&mut self) {
        plant(None);
    }
}

/// The first seed that shows something wrong, and what.
fn first_found() -> Option<(u64, String)> {
    (1..=SEEDS).find_map(|seed| run(seed).violation.map(|violation| (seed, violation)))
}

fn finds(bug: Bug) {
    let _planted = Planted::new(bug);
    let found = first_found();
    let (seed, violation) = found.unwrap_or_else(|| panic!("{bug:?} is not found in {SEEDS} seeds"));
    println!("{bug:?} is found by seed {seed}: {violation}");
}

#[test]
fn a_log_that_is_not_synced() {
    finds(Bug::LogNotSynced);
}

#[test]
fn a_directory_that_is_not_synced() {
    finds(Bug::DirectoryNotSynced);
}

#[test]
fn a_sync_that_failed_and_is_tried_again() {
    finds(Bug::FailedSyncRetried);
}

#[test]
fn a_failed_group_that_stays_in_the_log() {
    finds(Bug::FailedGroupKept);
}

#[test]
fn a_tombstone_that_a_checkpoint_drops() {
    finds(Bug::TombstoneDropped);
}

#[test]
fn a_tombstone_lost_while_a_checkpoint_writes() {
    finds(Bug::TombstoneLostInSwap);
}

#[test]
fn files_that_go_too_early() {
    finds(Bug::EarlyGc);
}

#[test]
fn a_log_that_goes_on_in_its_last_file() {
    finds(Bug::LogFileReused);
}

#[test]
fn a_torn_tail_that_counts_as_a_commit() {
    finds(Bug::TornTailAccepted);
}

#[test]
fn a_page_cache_that_is_built_upon() {
    finds(Bug::TailNotSettled);
}

#[test]
fn a_name_that_is_built_upon() {
    finds(Bug::NamesNotSettled);
}

#[test]
fn a_copy_whose_name_is_not_synced() {
    finds(Bug::CopyNotSynced);
}

#[test]
fn an_older_key_that_is_destroyed_too_early() {
    finds(Bug::OlderKeyNotCounted);
}

#[test]
fn a_clone_whose_deleted_rows_are_not_logged() {
    finds(Bug::CloneTombstoneNotLogged);
}

#[test]
fn a_name_that_keeps_nothing() {
    finds(Bug::NameNotKept);
}

/// A release build has no such nonce to plant.
#[cfg(debug_assertions)]
#[test]
fn a_nonce_that_repeats() {
    use sepal_crypto::planted::repeat_nonces;

    repeat_nonces(true);
    let found = first_found();
    repeat_nonces(false);
    let (seed, violation) = found.expect("a repeated nonce is found");
    assert!(violation.contains("nonce"), "seed {seed} found something else: {violation}");
}
