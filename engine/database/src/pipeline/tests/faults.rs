//! What becomes of a batch that the destination does not take.

use std::sync::Arc;

use sepal_query::DeliveryControl;

use super::{
    create, database, dead_letters,
    destination::{Answer, Destination, fault, lines_of},
    status, until_status,
};
use crate::{
    connector::{BadRow, Batch, Delivered, Fault, FaultKind},
    delivery::{
        Replay,
        objects::{Objects, OnExhausted},
        system_tables::{Cell, SystemTable},
    },
    fixtures::{Fixture, run},
    pipeline::{
        journal::Journal,
        retry::{Reaction, Tries, wait},
    },
};

fn taken() -> Answer {
    Ok(Delivered::Durable(Vec::new()))
}

fn has(batch: &Batch, id: i64) -> bool {
    lines_of(batch).iter().any(|line| line["key"]["id"] == id)
}

/// Twenty rows that are there when the pipeline begins.
async fn twenty(destination: &Destination) -> Fixture {
    let fixture = database(destination).await;
    let mut session = fixture.session().await;
    run(&mut session, "INSERT INTO items SELECT i, 'x' FROM generate_series(1, 20) AS g(i)").await;
    fixture
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_batch_has_the_same_bytes_at_every_attempt() {
    let mut refusals = 0;
    let destination = Destination::with(move |_| {
        refusals += 1;
        if refusals < 4 { Err(fault(FaultKind::Transient, "http.503")) } else { taken() }
    });
    let fixture = twenty(&destination).await;
    create(&fixture, "SELECT id, label FROM items", |_| {}).await;
    destination.until_changes(20).await;
    let attempts = destination.attempts();
    assert_eq!(attempts.len(), 5);
    for (attempt, number) in attempts[..4].iter().zip(1..) {
        assert_eq!((&attempt.id, &attempt.payload), (&attempts[0].id, &attempts[0].payload));
        assert_eq!(attempt.attempt, number);
        assert!(attempt.snapshot);
    }
    assert_ne!(attempts[4].id, attempts[0].id);
    assert_eq!(destination.times_opened(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_refused_is_set_aside_and_can_be_sent_again() {
    let destination = Destination::with(|batch| match has(batch, 7) {
        true => Err(fault(FaultKind::Rejected, "http.422")),
        false => taken(),
    });
    let fixture = twenty(&destination).await;
    create(&fixture, "SELECT id, label FROM items", |_| {}).await;
    let mut changes = destination.until_changes(19).await;
    changes.sort();
    changes.dedup();
    assert_eq!(changes.len(), 19, "each row once");
    until_status(&fixture, "done", |row| row.rows_delivered == 19 && row.rows_dead == 1).await;
    assert_eq!(dead_letters(&fixture).await, [("http.422".to_owned(), 7)]);

    destination.now(|_| taken());
    let tenant = fixture.tenant().await;
    assert_eq!(Replay::new(tenant, "default", true).replay("p", None).unwrap(), 1);
    let changes = destination.until_changes(20).await;
    assert_eq!(changes[19], "r 7 x");
    assert!(destination.attempts().last().unwrap().id.starts_with("dlq-"));
    until_status(&fixture, "replayed", |row| row.rows_delivered == 20).await;
    assert!(dead_letters(&fixture).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_an_answer_names_are_set_aside_or_sent_again() {
    let mut partly = true;
    let destination = Destination::with(move |batch| {
        if has(batch, 1) && std::mem::take(&mut partly) {
            return Ok(Delivered::RetryRows(vec![2, 4]));
        }
        if batch.rows == 10 {
            let bad = BadRow { index: 9, code: Some("pg.23505".into()), message: "there is one".into() };
            return Ok(Delivered::Durable(vec![bad]));
        }
        taken()
    });
    let fixture = twenty(&destination).await;
    create(&fixture, "SELECT id, label FROM items", |_| {}).await;
    until_status(&fixture, "done", |row| row.rows_delivered == 19).await;
    let sizes: Vec<u32> = destination.attempts().iter().map(|batch| batch.rows).collect();
    assert_eq!(sizes, [10, 2, 10]);
    let ids: Vec<String> = destination.attempts().into_iter().map(|batch| batch.id).collect();
    assert_ne!(ids[0], ids[1], "other bytes, another id");
    assert_eq!(dead_letters(&fixture).await, [("pg.23505".to_owned(), 20)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_traps_is_found_and_a_plugin_that_always_does_pauses() {
    let destination = Destination::with(|batch| match has(batch, 13) {
        true => Err(fault(FaultKind::Internal, "plugin.trap")),
        false => taken(),
    });
    let fixture = twenty(&destination).await;
    create(&fixture, "SELECT id, label FROM items", |_| {}).await;
    until_status(&fixture, "done", |row| row.rows_delivered == 19).await;
    assert_eq!(dead_letters(&fixture).await, [("plugin.trap".to_owned(), 13)]);

    let broken = Destination::with(|_| Err(fault(FaultKind::Internal, "plugin.trap")));
    let fixture = twenty(&broken).await;
    create(&fixture, "SELECT id, label FROM items", |_| {}).await;
    until_status(&fixture, "paused", |row| row.state == "paused").await;
    assert!(dead_letters(&fixture).await.is_empty(), "nothing is thrown away for a bug of the plugin's");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_that_stopped_goes_on_when_somebody_says_so() {
    let destination = Destination::with(|_| Err(fault(FaultKind::Misconfigured, "http.404")));
    let fixture = twenty(&destination).await;
    create(&fixture, "SELECT id, label FROM items", |_| {}).await;
    until_status(&fixture, "paused", |row| row.state == "paused").await;
    let row = status(&fixture).await.unwrap();
    assert_eq!(row.last_error_code.as_deref(), Some("http.404"));
    let first = destination.attempts()[0].clone();
    destination.now(|_| taken());
    super::alter(&fixture, |def| def.resumed += 1).await;
    destination.until_changes(20).await;
    assert_eq!(destination.attempts()[1].id, first.id, "the batch that was begun comes first");
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_credentials_are_looked_up_anew_once() {
    let destination = Destination::with(|_| Err(fault(FaultKind::Unauthorized, "http.403")));
    let fixture = twenty(&destination).await;
    create(&fixture, "SELECT id, label FROM items", |_| {}).await;
    until_status(&fixture, "paused", |row| row.state == "paused").await;
    assert_eq!(destination.times_opened(), 2);
    assert!(dead_letters(&fixture).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_end_and_dead_letters_begin_where_that_is_wanted() {
    let destination = Destination::with(|batch| match has(batch, 1) {
        true => Err(fault(FaultKind::Transient, "http.503")),
        false => taken(),
    });
    let fixture = twenty(&destination).await;
    create(&fixture, "SELECT id, label FROM items", |def| {
        (def.max_attempts, def.on_exhausted) = (3, OnExhausted::DeadLetter);
    })
    .await;
    until_status(&fixture, "done", |row| row.rows_delivered == 10 && row.rows_dead == 10).await;
    assert_eq!(destination.attempts().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_believed_as_a_whole_and_a_row_is_bad_once() {
    let mut tries = 0;
    let destination = Destination::with(move |batch| {
        let bad = |index| BadRow { index, code: Some("pg.23505".into()), message: "it is there".into() };
        tries += 1;
        match tries {
            // There is no such row, so nothing that it says of others counts.
            1 => Ok(Delivered::Durable(vec![bad(0), bad(99)])),
            _ if has(batch, 1) => Ok(Delivered::Durable(vec![bad(1), bad(0), bad(1)])),
            _ => taken(),
        }
    });
    let fixture = twenty(&destination).await;
    create(&fixture, "SELECT id, label FROM items", |_| {}).await;
    until_status(&fixture, "done", |row| row.rows_delivered == 18 && row.rows_dead == 2).await;
    let letters = [("pg.23505".to_owned(), 1), ("pg.23505".to_owned(), 2)];
    assert_eq!(dead_letters(&fixture).await, letters);
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_read_as_many_as_fit() {
    let destination = Destination::new();
    let fixture = database(&destination).await;
    create(&fixture, "SELECT id, label FROM items", |def| def.paused = true).await;
    let tenant = fixture.tenant().await;
    let view = tenant.store.snapshot();
    let def = Objects::of(&view).unwrap().pipeline("default", "p").unwrap().clone();
    let letter = |pipeline: &str, row: &str, replay: bool| {
        let texts = ["http.422", "no", "c", "{}", row, "batch", "0000000000000001.00000001"].map(Cell::text);
        let mut cells = vec![Cell::Null, Cell::text(pipeline), Cell::text("default"), Cell::Time(0)];
        cells.extend(texts);
        cells.push(Cell::Flag(replay));
        cells
    };
    let commits = [
        vec![letter(&def.id, "1", true), letter(&def.id, "2", false), letter("another", "3", true)],
        vec![letter(&def.id, "4", true), letter(&def.id, "5", true)],
    ];
    for rows in commits {
        let view = tenant.store.snapshot();
        let ops = SystemTable::DeadLetters.insert_ops(&tenant.store, &view, &rows).unwrap();
        tenant.store.commit(&view, ops).unwrap();
    }
    let journal = Journal::new(Arc::clone(&tenant), Arc::new(def));
    let rows = |most: usize, bytes: usize| -> Vec<String> {
        let letters = journal.replays(&tenant.store.snapshot(), most, bytes).unwrap();
        letters.into_iter().map(|(_, letter)| letter.row).collect()
    };
    assert_eq!(rows(10, usize::MAX), ["1", "4", "5"]);
    assert_eq!(rows(2, usize::MAX), ["1", "4"]);
    assert_eq!(rows(10, 1), ["1"], "one in any case, the oldest");
}

#[test]
fn waits_grow_to_half_a_minute_and_obey_the_destination() {
    let plain = Fault::new(FaultKind::Transient, "");
    let seconds: Vec<u64> = (1..=10).map(|attempt| wait(attempt, &plain, 1.0).as_secs()).collect();
    assert_eq!(seconds, [1, 2, 3, 5, 8, 13, 21, 30, 30, 30]);
    assert_eq!(wait(5, &plain, 0.25).as_millis(), 2_000);
    let asked = Fault { retry_after_ms: Some(3_600_000), ..plain };
    assert_eq!(wait(1, &asked, 0.0).as_secs(), 300);
}

#[test]
fn each_kind_has_its_reaction() {
    let reactions = |kind, code: &str| {
        let mut tries = Tries::default();
        let fault = Fault::new(kind, "").with_code(code);
        let mut next = || {
            tries.attempts += 1;
            tries.react(&fault, 3)
        };
        [next(), next(), next()]
    };
    use Reaction::{Exhausted, Isolate, Pause, Reauthorize, Reopen, Wait};
    assert_eq!(reactions(FaultKind::Transient, "x"), [Wait, Wait, Exhausted]);
    assert_eq!(reactions(FaultKind::NotConnected, "x"), [Reopen, Reopen, Exhausted]);
    assert_eq!(reactions(FaultKind::Unauthorized, "x"), [Reauthorize, Pause, Pause]);
    assert_eq!(reactions(FaultKind::Rejected, "x")[0], Isolate);
    assert_eq!(reactions(FaultKind::Misconfigured, "x")[0], Pause);
    assert_eq!(reactions(FaultKind::Internal, "plugin.memory"), [Reopen, Reopen, Pause]);
    assert_eq!(reactions(FaultKind::Internal, "plugin.trap"), [Reopen, Isolate, Isolate]);
}
