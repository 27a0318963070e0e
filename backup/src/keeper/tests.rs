//! When a backup follows by itself.

use sepal_database::{Database, DatabaseOptions, Key, TenantId};

use super::*;
use crate::{identity, moment::SECOND};

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

/// A prune that cannot work, here because an entry is damaged, is no reason to try no backup any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_tried_though_nothing_can_be_pruned() {
    let place = tempfile::tempdir().unwrap();
    let (data, root) = (place.path().join("data"), Key::random());
    std::fs::create_dir(&data).unwrap();
    Database::init(&data, root.clone()).unwrap();
    let database = Database::open(DatabaseOptions::new(data, root, 64 << 20)).unwrap();
    database.control().create_recovery(None, false).unwrap();
    let settings = Settings {
        location: Location::Directory(place.path().join("repository")),
        archive: Duration::from_secs(60),
        schedule: Some("every 24h".parse().unwrap()),
        retention: Retention::default(),
        verify_days: 1,
        alert_days: 0,
        bytes_per_second: None,
    };
    let keeper = Keeper::new(Source::new(database), settings).unwrap();
    identity::make(keeper.repository()).await.unwrap();
    let damaged = "20200101T000000Z-00000000";
    keeper.repository().put(&format!("backups/{damaged}.json"), b"{".to_vec()).await.unwrap();
    keeper.work().await;
    let status = keeper.status();
    assert_eq!((status.job.state.as_str(), status.job.error.as_ref()), ("done", None), "{status:?}");
    assert!(status.last_verified_us.is_some(), "{status:?}");
    assert!(status.last_error.unwrap().contains(damaged), "the prune's failure is told");
}
