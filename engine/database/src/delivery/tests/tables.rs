//! The tables of `$system`: made once, written in a transaction, invisible.

use crate::{
    delivery::system_tables::{Cell, SystemTable, ensure},
    fixtures::{Fixture, run, try_run},
};

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_put_found_replaced_and_removed() {
    let fixture = Fixture::new();
    let store = fixture.tenant().await.store.clone();
    let table = SystemTable::PluginState;
    assert_eq!(table.rows(&store.snapshot()).unwrap().len(), 0, "a table that is not there is empty");
    assert!(
        table.delete_ops(&store.snapshot(), &[vec![Cell::text("p"), Cell::text("k")]]).unwrap().is_empty()
    );
    let snapshot = ensure(&store).unwrap();
    assert_eq!(ensure(&store).unwrap().lsn(), snapshot.lsn(), "made once");
    let row = |key: &str, value: &[u8]| vec![Cell::text("p"), Cell::text(key), Cell::Bytes(value.to_vec())];
    let ops = table.upsert_ops(&store, &snapshot, &[row("a", b"1"), row("b", b"2")]).unwrap();
    let snapshot = store.commit(&snapshot, ops).unwrap();
    let ops = table.upsert_ops(&store, &snapshot, &[row("b", b"3"), row("c", b"4")]).unwrap();
    let snapshot = store.commit(&snapshot, ops).unwrap();
    let found = table.get(&snapshot, &[Cell::text("p"), Cell::text("b")]).unwrap().unwrap();
    assert_eq!(found.bytes("value", 0), Some(&b"3"[..]));
    assert!(table.get(&snapshot, &[Cell::text("q"), Cell::text("b")]).unwrap().is_none());
    let rows = table.rows_where(&snapshot, "pipeline", "p").unwrap();
    let mut keys: Vec<&str> = (0..rows.len()).filter_map(|row| rows.text("key", row)).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["a", "b", "c"]);
    let gone = [vec![Cell::text("p"), Cell::text("a")], vec![Cell::text("p"), Cell::text("none")]];
    let ops = table.delete_ops(&snapshot, &gone).unwrap();
    let snapshot = store.commit(&snapshot, ops).unwrap();
    assert_eq!(table.rows(&snapshot).unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_numbered_once() {
    let fixture = Fixture::new();
    let store = fixture.tenant().await.store.clone();
    let snapshot = ensure(&store).unwrap();
    let table = SystemTable::DeadLetters;
    let letter = vec![Cell::Null, Cell::text("p"), Cell::text("default"), Cell::Time(5)];
    let ops = table.insert_ops(&store, &snapshot, &[letter.clone(), letter]).unwrap();
    let snapshot = store.commit(&snapshot, ops).unwrap();
    let rows = table.rows(&snapshot).unwrap();
    let ids: Vec<i64> = (0..rows.len()).filter_map(|row| rows.int("id", row)).collect();
    assert!(ids.len() == 2 && ids[0] != ids[1], "{ids:?}");
    // Written again with something changed, it keeps its number.
    let mut cells = rows.cells(table, 0);
    *cells.last_mut().unwrap() = Cell::Flag(true);
    let mut ops = table.delete_rows(&snapshot, vec![rows.row_id(0).unwrap()]);
    ops.extend(table.insert_ops(&store, &snapshot, &[cells]).unwrap());
    let snapshot = store.commit(&snapshot, ops).unwrap();
    let found = table.get(&snapshot, &[Cell::Int(ids[0])]).unwrap().unwrap();
    assert_eq!((found.flag("replay", 0), found.time("at", 0)), (Some(true), Some(5)));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_sees_them() {
    let fixture = Fixture::new();
    ensure(&fixture.tenant().await.store).unwrap();
    let mut session = fixture.session().await;
    let listed = "SELECT count(*) FROM pg_class WHERE relname IN ('objects', 'components', 'dead_letters')";
    assert_eq!(run(&mut session, listed).await, [0]);
    for sql in [
        "SELECT * FROM objects",
        "SELECT * FROM \"$system\".objects",
        "SELECT * FROM \"$system\".public.objects",
    ] {
        assert!(try_run(&mut session, sql).await.is_err(), "{sql}");
    }
    let principal = fixture.principal(sepal_control::Scopes::READ_WRITE);
    assert!(fixture.database.connect(principal, "$system", &[]).await.is_err());
    assert!(sepal_control::EnvironmentName::parse("$system").is_err());
    run(&mut session, "CREATE TABLE objects (a int)").await;
}
