//! What a source knows of what it has not read.

use std::sync::Arc;

use super::{create, database, definition, destination::Destination};
use crate::{
    fixtures::run,
    pipeline::{
        compile::compile,
        scan::Scan,
        source::{Begin, Filled, Source},
    },
};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_ahead_is_what_was_counted_and_not_read_since() {
    let fixture = database(&Destination::new()).await;
    create(&fixture, "SELECT id, label FROM items", |def| def.paused = true).await;
    let tenant = fixture.tenant().await;
    let now = tenant.store.snapshot();
    let view = Arc::new(compile(&tenant, &now, &definition(&tenant)).unwrap());
    let hold = Arc::new(tenant.store.hold_log(now.lsn()).unwrap());
    let begin = Begin { start: now.lsn(), snapshot: false, position: None, creation: None };
    let mut source = Source::open(view, Arc::clone(&tenant.store), hold, &begin).unwrap();
    let mut session = fixture.session().await;
    for first in [1, 11, 21, 31] {
        let insert =
            format!("INSERT INTO items SELECT i, 'x' FROM generate_series({first}, {}) AS g(i)", first + 9);
        run(&mut session, &insert).await;
    }
    assert_eq!(source.ahead(), 0, "nothing was counted");
    source.count_ahead().unwrap();
    assert_eq!(source.ahead(), 40);
    assert_eq!(source.fill(15, usize::MAX).unwrap(), Filled::Full);
    assert_eq!((source.pending_rows(), source.ahead()), (20, 20), "two commits are read");
    run(&mut session, "UPDATE items SET label = 'y' WHERE id < 6").await;
    source.count_ahead().unwrap();
    assert_eq!(source.ahead(), 25);
    assert_eq!(source.fill(usize::MAX, usize::MAX).unwrap(), Filled::CaughtUp);
    assert_eq!((source.pending_rows(), source.ahead()), (45, 0));
    run(&mut session, "DELETE FROM items WHERE id > 38").await;
    source.count_ahead().unwrap();
    assert_eq!((source.pending_rows(), source.ahead()), (45, 2), "counting reads nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_rows_that_no_one_wants_hold_no_memory() {
    let fixture = database(&Destination::new()).await;
    let mut session = fixture.session().await;
    let rows = "INSERT INTO items SELECT i, CASE WHEN i = 7 THEN 'in' ELSE 'out' END \
                FROM generate_series(1, 20) AS g(i)";
    run(&mut session, rows).await;
    create(&fixture, "SELECT id, label FROM items WHERE label = 'in'", |def| def.paused = true).await;
    let tenant = fixture.tenant().await;
    let start = tenant.store.snapshot();
    let view = Arc::new(compile(&tenant, &start, &definition(&tenant)).unwrap());
    let hold = Arc::new(tenant.store.hold_log(start.lsn()).unwrap());
    for delete in ["DELETE FROM items WHERE id < 6", "DELETE FROM items WHERE id < 9"] {
        run(&mut session, delete).await;
    }
    let mut scan = Scan::open(&view, &tenant.store, &hold, start.lsn(), 0).unwrap();
    assert_eq!(scan.rows_held(), 1);
    let events = scan.window(&view, &tenant.store, &hold, 100).unwrap().unwrap();
    assert_eq!(events.len(), 1, "as it was at the start");
}
