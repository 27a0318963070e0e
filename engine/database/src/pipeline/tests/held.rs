//! What a sink holds until it is flushed: nothing of it is lost when its session ends, and nothing waits for ever.

use std::sync::Arc;

use sepal_query::DeliveryControl;

use super::{
    alter, create, database, dead_letters,
    destination::{Answer, Destination, fault, lines_of},
    noted, until_status,
};
use crate::{
    connector::{Batch, Delivered, FaultKind, Tier},
    delivery::{Replay, objects::OnExhausted},
    fixtures::{Fixture, run},
    pipeline::state::PipelineState,
};

fn has(batch: &Batch, id: i64) -> bool {
    lines_of(batch).iter().any(|line| line["key"]["id"] == id)
}

fn taken() -> Answer {
    Ok(Delivered::Durable(Vec::new()))
}

/// Twenty rows that are there when the pipeline begins.
async fn twenty(destination: &Destination) -> Fixture {
    let fixture = database(destination).await;
    let mut session = fixture.session().await;
    run(&mut session, "INSERT INTO items SELECT i, 'x' FROM generate_series(1, 20) AS g(i)").await;
    fixture
}

fn all_but(without: &[i64]) -> Vec<i64> {
    (1..=20).filter(|id| !without.contains(id)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_traps_takes_nothing_along() {
    let destination = Destination::with(|batch| match has(batch, 17) {
        true => Err(fault(FaultKind::Internal, "plugin.trap")),
        false => Ok(Delivered::Buffered),
    });
    let fixture = twenty(&destination).await;
    create(&fixture, "SELECT id, label FROM items", |_| {}).await;
    until_status(&fixture, "done", |row| row.rows_delivered == 19 && row.lag_rows == Some(0)).await;
    assert_eq!(dead_letters(&fixture).await, [("plugin.trap".to_owned(), 17)]);
    assert_eq!(destination.durable_ids(), all_but(&[17]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_row_may_be_refused() {
    let destination = Destination::with(|batch| match has(batch, 20) {
        true => Err(fault(FaultKind::Rejected, "http.422")),
        false => Ok(Delivered::Buffered),
    });
    let fixture = twenty(&destination).await;
    create(&fixture, "SELECT id, label FROM items", |def| def.max_attempts = 3).await;
    until_status(&fixture, "done", |row| row.rows_delivered == 19 && row.lag_rows == Some(0)).await;
    assert_eq!(dead_letters(&fixture).await, [("http.422".to_owned(), 20)]);
    assert_eq!(destination.durable_ids(), all_but(&[20]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_ends_with_the_last_attempt_takes_nothing_along() {
    // Once, behind a batch that is held: each row would be a dead letter then, and the next is held anew.
    let mut ended = false;
    let destination = Destination::with(move |batch| {
        if has(batch, 11) && !std::mem::replace(&mut ended, true) {
            return Err(fault(FaultKind::NotConnected, "plugin.gone"));
        }
        Ok(Delivered::Buffered)
    });
    let fixture = twenty(&destination).await;
    create(&fixture, "SELECT id, label FROM items", |def| {
        (def.max_attempts, def.on_exhausted, def.linger_ms) = (1, OnExhausted::DeadLetter, 60_000);
    })
    .await;
    until_status(&fixture, "paused", |row| row.state == "paused").await;
    assert!(dead_letters(&fixture).await.is_empty());
    alter(&fixture, |def| (def.resumed, def.linger_ms) = (1, 1)).await;
    until_status(&fixture, "done", |row| row.rows_delivered == 20).await;
    assert_eq!(destination.durable_ids(), all_but(&[]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_durable_batch_makes_those_before_it_durable() {
    let destination = Destination::with(|batch| match has(batch, 1) {
        true => Ok(Delivered::Buffered),
        false => taken(),
    });
    let fixture = twenty(&destination).await;
    create(&fixture, "SELECT id, label FROM items", |def| {
        // Nobody asks for a flush meanwhile.
        (def.max_attempts, def.linger_ms) = (1, 60_000);
    })
    .await;
    until_status(&fixture, "done", |row| row.rows_delivered == 20 && row.lag_rows == Some(0)).await;
    assert_eq!(destination.times_opened(), 1);
    assert_eq!(destination.durable_ids(), all_but(&[]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_sink_remembers_of_a_half_outlives_its_session() {
    let destination = Destination::new();
    let (told, mut refused, mut ended) = (destination.clone(), false, false);
    destination.now(move |batch| {
        if has(batch, 1) && !std::mem::replace(&mut refused, true) {
            return Err(fault(FaultKind::Rejected, "http.422"));
        }
        if has(batch, 6) && !has(batch, 1) && !std::mem::replace(&mut ended, true) {
            return Err(fault(FaultKind::NotConnected, "plugin.gone"));
        }
        told.remember("first", &lines_of(batch)[0]["key"]["id"].to_string());
        taken()
    });
    let fixture = twenty(&destination).await;
    create(&fixture, "SELECT id, label FROM items", |_| {}).await;
    until_status(&fixture, "done", |row| row.rows_delivered == 20).await;
    let remembered: Vec<Option<Vec<u8>>> =
        destination.remembered().iter().map(|state| state.get("first").cloned()).collect();
    assert_eq!(remembered, [None, Some(b"1".to_vec())]);
}

/// In halves, of which the first is refused again: its letter is durable with the rest, and where the pipeline is has
/// nothing to do with it.
#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_that_are_sent_again_move_no_position() {
    let destination = Destination::with(|batch| match has(batch, 3) || has(batch, 4) {
        true => Err(fault(FaultKind::Rejected, "http.422")),
        false => taken(),
    });
    let fixture = twenty(&destination).await;
    create(&fixture, "SELECT id, label FROM items", |def| def.tier = Tier::Transactional).await;
    until_status(&fixture, "done", |row| row.rows_delivered == 18 && row.rows_dead == 2).await;
    let tenant = fixture.tenant().await;
    // Nothing of the new generation arrives before the letters are sent: the run begins with them.
    destination.now(|batch| match (batch.id.starts_with("dlq-"), has(batch, 3)) {
        (true, false) => taken(),
        (true, true) => Err(fault(FaultKind::Rejected, "http.422")),
        (false, _) => Err(fault(FaultKind::Misconfigured, "http.404")),
    });
    alter(&fixture, |def| def.paused = true).await;
    until_status(&fixture, "paused", |row| row.state == "paused").await;
    assert_eq!(Replay::new(Arc::clone(&tenant), "default", true).replay("p", None).unwrap(), 2);
    alter(&fixture, |def| (def.paused, def.generation) = (false, 2)).await;
    until_status(&fixture, "stuck", |row| row.last_error_code.as_deref() == Some("http.404")).await;
    assert_eq!(dead_letters(&fixture).await, [("http.422".to_owned(), 3)]);
    let PipelineState { position, dead_letters: left, .. } = noted(&tenant);
    assert_eq!((position, left), (None, 1));
}
