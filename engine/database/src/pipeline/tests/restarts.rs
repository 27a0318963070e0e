//! What is sent after a crash, and what is not sent twice under another id.

use std::{collections::BTreeSet, sync::Arc};

use parking_lot::Mutex;

use sepal_types::{Lsn, RowId};

use super::{
    alter, create, database, definition,
    destination::{Destination, fault, lines_of},
    noted, status, until_status,
};
use crate::{
    connector::{Batch, Delivered, FaultKind, Tier},
    delivery::system_tables::{Cell, SystemTable},
    fixtures::run,
    maintain::checkpoint,
    pipeline::{position::Position, state::PipelineState, take_holds},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_was_begun_is_the_same_after_a_crash() {
    let down = Destination::with(|_| Err(fault(FaultKind::Transient, "http.503")));
    let fixture = database(&down).await;
    let mut session = fixture.session().await;
    create(&fixture, "SELECT id, label FROM items", |def| def.snapshot = false).await;
    run(&mut session, "INSERT INTO items VALUES (1, 'a'), (2, 'b')").await;
    down.until("tried", |destination| !destination.attempts().is_empty()).await;
    run(&mut session, "INSERT INTO items VALUES (3, 'c')").await;
    let up = Destination::new();
    let connectors = up.connectors();
    let after = fixture.crash_with(|options| options.connectors = Some(connectors));
    after.tenant().await;
    assert_eq!(up.until_changes(3).await, ["c 1 a", "c 2 b", "c 3 c"]);
    let (before, again) = (&down.attempts()[0], &up.attempts()[0]);
    assert_eq!((&before.id, &before.payload), (&again.id, &again.payload));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_leaves_once_it_is_noted_and_counts_once_it_has_arrived() {
    let destination = Destination::new();
    let fixture = database(&destination).await;
    let tenant = fixture.tenant().await;
    let seen: Arc<Mutex<Vec<(Batch, PipelineState)>>> = Arc::default();
    let notes = Arc::clone(&seen);
    destination.now(move |batch| {
        notes.lock().push((batch.clone(), noted(&tenant)));
        Ok(Delivered::Durable(Vec::new()))
    });
    let mut session = fixture.session().await;
    run(&mut session, "INSERT INTO items SELECT i, 'x' FROM generate_series(1, 200) AS g(i)").await;
    create(&fixture, "SELECT id, label FROM items", |_| {}).await;
    run(&mut session, "INSERT INTO items SELECT i, 'y' FROM generate_series(201, 400) AS g(i)").await;
    destination.until_changes(400).await;
    until_status(&fixture, "acknowledged", |row| row.rows_delivered == 400).await;
    assert_eq!(seen.lock().len(), 40, "each batch once");
    for (batch, state) in &*seen.lock() {
        assert!(state.open.iter().any(|bounds| bounds.id == batch.id), "{state:?}");
        assert!(state.open.len() <= 3, "one before it and one after it: {state:?}");
        let first = Position::parse(&batch.first).unwrap();
        assert!(state.position.is_none_or(|position| position < first), "{state:?}");
    }
}

/// A batch is acknowledged while the next one is on its way. This is a crash when that one has arrived too.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_before_an_acknowledgement_sends_that_batch_and_the_next_again() {
    let destination = Destination::new();
    let fixture = database(&destination).await;
    let tenant = fixture.tenant().await;
    // Two batches and the state in which neither is acknowledged.
    let found: Arc<Mutex<Option<PipelineState>>> = Arc::default();
    let keep = Arc::clone(&found);
    destination.now(move |batch| {
        let mut found = keep.lock();
        let is_one_of = |state: &PipelineState| state.open.iter().any(|bounds| bounds.id == batch.id);
        let taken = match &*found {
            Some(state) => is_one_of(state),
            // What is written beside the first attempt is durable at the second.
            None if batch.attempt > 1 => {
                *found = Some(noted(&tenant)).filter(|state| state.open.len() == 2 && is_one_of(state));
                true
            }
            None => false,
        };
        if taken { Ok(Delivered::Durable(Vec::new())) } else { Err(fault(FaultKind::Transient, "http.503")) }
    });
    let mut session = fixture.session().await;
    create(&fixture, "SELECT id, label FROM items", |def| def.snapshot = false).await;
    run(&mut session, "INSERT INTO items SELECT i, 'x' FROM generate_series(1, 200) AS g(i)").await;
    let arrived = |destination: &Destination| {
        let attempts = destination.attempts();
        found.lock().as_ref().is_some_and(|state| attempts.iter().any(|batch| batch.id == state.open[1].id))
    };
    destination.until("both arrived", arrived).await;
    let state = found.lock().clone().unwrap();

    // Nothing runs in it: it has no connectors.
    let image = fixture.crash();
    let tenant = image.tenant().await;
    let row = vec![Cell::text(definition(&tenant).id), Cell::text(serde_json::to_string(&state).unwrap())];
    let view = tenant.store.snapshot();
    let ops = SystemTable::PipelineState.upsert_ops(&tenant.store, &view, &[row]).unwrap();
    tenant.store.commit(&view, ops).unwrap();
    let up = Destination::new();
    let connectors = up.connectors();
    let after = image.crash_with(|options| options.connectors = Some(connectors));
    after.tenant().await;
    up.until("both again", |destination| destination.attempts().len() >= 2).await;
    for (bounds, again) in state.open.iter().zip(up.attempts()) {
        let first = destination.attempts().into_iter().find(|batch| batch.id == bounds.id).unwrap();
        assert_eq!((&first.id, &first.payload), (&again.id, &again.payload));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_goes_on_over_a_table_that_has_changed() {
    let mut batches = 0;
    let down = Destination::with(move |_| {
        batches += 1;
        match batches {
            1..=2 => Ok(Delivered::Durable(Vec::new())),
            _ => Err(fault(FaultKind::Transient, "http.503")),
        }
    });
    let fixture = database(&down).await;
    let mut session = fixture.session().await;
    run(&mut session, "INSERT INTO items SELECT i, 'old' FROM generate_series(1, 50) AS g(i)").await;
    create(&fixture, "SELECT id, label FROM items", |_| {}).await;
    down.until("stuck", |destination| destination.attempts().len() > 3).await;
    run(&mut session, "DELETE FROM items WHERE id IN (5, 25, 26, 45)").await;
    run(&mut session, "UPDATE items SET label = 'new' WHERE id IN (6, 27)").await;
    run(&mut session, "INSERT INTO items VALUES (51, 'late')").await;
    checkpoint(&*fixture.tenant().await).unwrap();
    run(&mut session, "DELETE FROM items WHERE id = 46").await;

    let up = Destination::new();
    let connectors = up.connectors();
    let after = fixture.crash_with(|options| options.connectors = Some(connectors));
    after.tenant().await;
    let changes = up.until_changes(30 + 8).await;
    let expected: Vec<String> = (21..=50).map(|id| format!("r {id} old")).collect();
    assert_eq!(changes[..30], expected);
    let later: BTreeSet<&str> = changes[30..].iter().map(String::as_str).collect();
    let wanted = ["c 51 late", "d 25", "d 26", "d 45", "d 46", "d 5", "u 27 new", "u 6 new"];
    assert_eq!(later, BTreeSet::from(wanted));
    let (begun, again) = (&down.attempts()[2], &up.attempts()[0]);
    assert_eq!((&begun.id, &begun.payload), (&again.id, &again.payload));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_again_that_was_acknowledged() {
    let destination = Destination::new();
    let fixture = database(&destination).await;
    let mut session = fixture.session().await;
    create(&fixture, "SELECT id, label FROM items", |_| {}).await;
    run(&mut session, "INSERT INTO items VALUES (1, 'a')").await;
    until_status(&fixture, "done", |row| row.rows_delivered == 1).await;
    let next = Destination::new();
    let connectors = next.connectors();
    let after = fixture.crash_with(|options| options.connectors = Some(connectors));
    let mut session = after.session().await;
    run(&mut session, "INSERT INTO items VALUES (2, 'b')").await;
    assert_eq!(next.until_changes(1).await, ["c 2 b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_keeps_the_position_is_believed() {
    let down = Destination::with(|_| Err(fault(FaultKind::Transient, "http.503")));
    let fixture = database(&down).await;
    let mut session = fixture.session().await;
    create(&fixture, "SELECT id, label FROM items", |def| {
        (def.snapshot, def.tier) = (false, Tier::Transactional);
    })
    .await;
    run(&mut session, "INSERT INTO items VALUES (1, 'a'), (2, 'b')").await;
    down.until("tried", |destination| !destination.attempts().is_empty()).await;
    run(&mut session, "INSERT INTO items VALUES (3, 'c')").await;
    let up = Destination::new();
    up.has_through(&down.attempts()[0].last);
    let connectors = up.connectors();
    let after = fixture.crash_with(|options| options.connectors = Some(connectors));
    after.tenant().await;
    assert_eq!(up.until_changes(1).await, ["c 3 c"]);
    assert_eq!(lines_of(&up.attempts()[0]).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_cannot_be_passes_over_nothing() {
    for (position, told) in
        [("00000000ffffffff.ffffffff", "after this database's last commit"), ("4711", "not")]
    {
        let destination = Destination::new();
        destination.has_through(position);
        let fixture = database(&destination).await;
        let mut session = fixture.session().await;
        run(&mut session, "INSERT INTO items VALUES (1, 'a')").await;
        create(&fixture, "SELECT id, label FROM items", |def| def.tier = Tier::Transactional).await;
        until_status(&fixture, "paused", |row| row.state == "paused").await;
        let row = status(&fixture).await.unwrap();
        assert_eq!((row.last_error_code.as_deref(), row.position), (Some("sink.position"), None));
        let error = row.last_error.unwrap();
        assert!(error.contains(told) && !error.contains(position), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_nothing_was_sent_up_to_passes_over_nothing() {
    let destination = Destination::new();
    let fixture = database(&destination).await;
    let mut session = fixture.session().await;
    create(&fixture, "SELECT id, label FROM items", |def| {
        (def.snapshot, def.tier) = (false, Tier::Transactional);
    })
    .await;
    run(&mut session, "INSERT INTO items VALUES (1, 'a')").await;
    until_status(&fixture, "done", |row| row.rows_delivered == 1).await;
    alter(&fixture, |def| def.paused = true).await;
    until_status(&fixture, "paused", |row| row.state == "paused").await;
    run(&mut session, "INSERT INTO items VALUES (2, 'b')").await;
    // As after a restore: it had a commit of this number before, and that was another one.
    let head = fixture.tenant().await.store.snapshot().lsn();
    destination.has_through(&Position::Feed { lsn: head, index: 0 }.to_string());
    alter(&fixture, |def| (def.paused, def.resumed) = (false, 1)).await;
    let refused = |code: Option<&str>| code == Some("sink.position");
    until_status(&fixture, "refused", |row| refused(row.last_error_code.as_deref())).await;
    assert_eq!(destination.changes(), ["c 1 a"]);
    // Without it the pipeline goes on where it was.
    destination.has_nothing();
    alter(&fixture, |def| def.resumed = 2).await;
    assert_eq!(destination.until_changes(2).await, ["c 1 a", "c 2 b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_promised_no_position_is_not_asked_for_one() {
    let destination = Destination::new();
    let fixture = database(&destination).await;
    let mut session = fixture.session().await;
    let after = fixture.tenant().await.store.snapshot().lsn().0 + 1_000;
    destination.has_through(&Position::end_of(Lsn(after)).to_string());
    create(&fixture, "SELECT id, label FROM items", |def| def.snapshot = false).await;
    run(&mut session, "INSERT INTO items VALUES (1, 'a')").await;
    assert_eq!(destination.until_changes(1).await, ["c 1 a"]);
}

#[test]
fn a_pipeline_goes_on_behind_its_own_positions_only() {
    let state = PipelineState { start: Some(Lsn(5)), ..PipelineState::default() };
    let at = |lsn: u64| Position::Feed { lsn: Lsn(lsn), index: 0 };
    let in_snapshot = |lsn: u64| Position::Snapshot { lsn: Lsn(lsn), row: RowId(u64::MAX) };
    assert_eq!([state.refuses(at(9), Lsn(9)), state.refuses(in_snapshot(5), Lsn(9))], [None, None]);
    for wrong in [at(10), at(u64::MAX), in_snapshot(4), in_snapshot(6), in_snapshot(10)] {
        assert!(state.refuses(wrong, Lsn(9)).is_some(), "{wrong}");
    }
}

#[test]
fn a_position_reads_as_it_is_written() {
    for text in ["s00000000000000ff.0000000000000001", "00000000000000ff.0000000a"] {
        assert_eq!(Position::parse(text).unwrap().to_string(), text);
    }
    let damaged =
        ["", "1.2", "s00000000000000ff.1", "00000000000000ff.0000000000000001", "+0000000000000ff.0000000a"];
    for text in damaged {
        Position::parse(text).unwrap_err();
    }
    let ascending = [
        "s00000000000000ff.0000000000000001",
        "s00000000000000ff.0000000000000002",
        "0000000000000100.00000000",
        "0000000000000100.0000000a",
        "0000000000000101.00000000",
    ];
    assert!(ascending.map(|text| Position::parse(text).unwrap()).is_sorted());
}

/// What failed when the tenant was opened is done again, until then the log only grows: by then pipelines run.
#[tokio::test(flavor = "multi_thread")]
async fn holds_are_taken_beside_what_runs() {
    let destination = Destination::new();
    let fixture = database(&destination).await;
    let mut session = fixture.session().await;
    create(&fixture, "SELECT id, label FROM items", |def| def.snapshot = false).await;
    run(&mut session, "INSERT INTO items VALUES (1, 'a')").await;
    destination.until_changes(1).await;
    let tenant = fixture.tenant().await;
    let worker = Arc::clone(&tenant);
    tokio::task::spawn_blocking(move || take_holds(&worker)).await.unwrap().unwrap();
    assert!(tenant.pipelines.entries.lock().values().all(|entry| entry.task.is_some()));
    run(&mut session, "INSERT INTO items VALUES (2, 'b')").await;
    assert_eq!(destination.until_changes(2).await, ["c 1 a", "c 2 b"]);
}
