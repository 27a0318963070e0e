//! When a backup follows by itself.

use sepal_database::TenantId;

use super::*;
use crate::moment::SECOND;

const TENANT: TenantId = TenantId([7; 16]);
const NOW: i64 = 1_795_316_400 * SECOND;

fn with_a_gap() -> Round {
    Round { gaps: vec![TENANT], ..Round::default() }
}

fn refused() -> Result<()> {
    Err(Error::new(SqlState::IoError, "another tenant's log cannot be read"))
}

#[test]
fn what_a_round_finds_is_followed_by_a_backup_though_the_round_fails() {
    let renewed = Round { renewed: vec![TENANT], ..Round::default() };
    for (round, gaps) in [(with_a_gap(), 1), (renewed, 0)] {
        for done in [Ok(()), refused()] {
            let failed = done.is_err();
            let mut state = State { retry_at: NOW + 1, ..State::default() };
            state.note_round(&round, done);
            assert_eq!((state.status.archive.gaps, state.status.archive.error.is_some()), (gaps, failed));
            assert!(state.due(None, NOW).is_some(), "at once, and without a schedule");
        }
    }
    let mut state = State::default();
    state.note_round(&Round::default(), Ok(()));
    assert!(state.due(None, NOW).is_none());
}

/// A restored directory finds the backups that it came from, and its own log goes on from none of them.
#[test]
fn a_line_without_a_backup_gets_one_at_once() {
    let schedule: Schedule = "daily 03:00".parse().unwrap();
    let mut state = State { known: true, ..State::default() };
    state.status.last_backup_us = Some(NOW - SECOND);
    assert!(state.due(Some(schedule), NOW).is_some());
    assert!(state.due(None, NOW).is_none(), "without a schedule a person decides");
    state.last_of_line_us = Some(NOW);
    assert!(state.due(Some(schedule), NOW).is_none());
}

#[test]
fn a_backup_that_is_under_way_is_followed_by_another() {
    let mut state = State { watch: Some(Arc::default()), ..State::default() };
    state.note_round(&with_a_gap(), Ok(()));
    state.watch = None;
    assert!(state.due(None, NOW).is_some());
    // It waits after one that failed, as any other, and is not forgotten.
    state.retry_at = NOW + RETRY_US;
    assert!(state.due(None, NOW).is_none());
    assert!(state.due(None, NOW + RETRY_US).is_some());
}
