//! What of a failure stands in the server's log, and what in the tenant's view.

use std::fmt::{self, Write};

use parking_lot::Mutex;
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

use super::{create, database, destination::Destination, status, until_status};
use crate::{
    connector::{Fault, FaultKind},
    fixtures::run,
};

/// Events of all tests of this process.
static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Writes down all that is logged.
struct Listener;

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = write!(self.0, "{field}={value:?} ");
    }
}

impl Subscriber for Listener {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        if event.metadata().target().starts_with("sepal") {
            let mut line = Line(String::new());
            event.record(&mut line);
            LINES.lock().push(line.0);
        }
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_a_destination_quotes_are_for_the_tenant_alone() {
    tracing::subscriber::set_global_default(Listener).expect("nobody else listens in these tests");
    let text = format!("duplicate key (iban)=(NL91ABNA0417164300)\nforged line {}", "x".repeat(9_000));
    let mut tries = 0;
    let destination = Destination::with(move |_| {
        tries += 1;
        let kind = if tries == 1 { FaultKind::Transient } else { FaultKind::Misconfigured };
        Err(Fault {
            retry_after_ms: Some(1),
            ..Fault::new(kind, text.clone()).with_code("pg.23505 NL91ABNA")
        })
    });
    let fixture = database(&destination).await;
    let mut session = fixture.session().await;
    run(&mut session, "INSERT INTO items VALUES (1, 'a')").await;
    create(&fixture, "SELECT id, label FROM items", |_| {}).await;
    until_status(&fixture, "paused", |row| row.state == "paused").await;
    let row = status(&fixture).await.unwrap();
    let error = row.last_error.unwrap();
    assert!(error.starts_with("duplicate key (iban)=(NL91ABNA0417164300)\\nforged line xxx"), "{error}");
    assert!(error.len() <= 4 << 10 && !error.contains('\n'));
    assert_eq!(row.last_error_code.as_deref(), Some("misconfigured"));
    let tenant = fixture.tenant().await;
    let told = |may_read: bool| {
        let rows = crate::delivery::rows(&tenant, &tenant.store.snapshot(), super::ENVIRONMENT, may_read);
        let row = rows.pipeline_status.into_iter().next().unwrap();
        (row.last_error.is_some(), row.last_error_code.is_some())
    };
    assert_eq!((told(true), told(false)), ((true, true), (false, true)), "to a key that may read");
    let lines = LINES.lock();
    let about = |what: &str| lines.iter().any(|line| line.contains(what));
    assert!(about("a sink did not take a batch") && about("a pipeline has paused"), "it listens");
    assert!(!about("NL91ABNA"), "{lines:?}");
}
