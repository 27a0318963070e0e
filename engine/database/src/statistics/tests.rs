//! What ANALYZE finds, and that it is remembered.

use crate::fixtures::{Fixture, run};

use super::{Known, KnownColumn, all};

/// What is known of `public.t` of the environment, by the columns' numbers.
async fn known(fixture: &Fixture) -> Known {
    let tenant = fixture.tenant().await;
    let snapshot = tenant.store.snapshot();
    let table = snapshot.find("default", "t").unwrap().def.id;
    all(&snapshot).unwrap().remove(&table).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_are_described_and_remembered() {
    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    run(&mut session, "CREATE TABLE t (id int8 PRIMARY KEY, half int, name text, v vector(3))").await;
    let rows = "INSERT INTO t SELECT x, CASE WHEN x % 2 = 0 THEN x % 10 END, \
                CASE WHEN x <= 900 THEN 'common' ELSE 'n' || x END, '[1,2,3]'::vector \
                FROM generate_series(1, 1000) AS s(x)";
    run(&mut session, rows).await;
    run(&mut session, "ANALYZE t").await;
    let found = known(&fixture).await;
    let [id, half, name, vector]: &[KnownColumn; 4] = found.columns.as_slice().try_into().unwrap();
    assert!((id.n_distinct + 1.0).abs() < 1e-9, "unique");
    assert!(id.common.is_empty());
    assert_eq!(
        (id.histogram.len(), id.histogram[0].as_str(), id.histogram[100].as_str()),
        (101, "1", "1000")
    );
    assert!((half.null_frac - 0.5).abs() < 1e-9);
    assert!((half.n_distinct - 5.0).abs() < 1e-9, "{}", half.n_distinct);
    assert_eq!(half.common.len(), 5);
    assert!((half.common[0].1 - 0.1).abs() < 1e-9);
    assert!(half.histogram.is_empty(), "all values are common");
    assert_eq!(name.common[0].0, "common");
    assert!((name.common[0].1 - 0.9).abs() < 1e-9);
    assert!(vector.n_distinct.abs() < 1e-9 && vector.common.is_empty() && vector.avg_width >= 12);
    assert_eq!(found.analyses, 1);

    run(&mut session, "DELETE FROM t WHERE id > 500; ANALYZE t (half)").await;
    let again = known(&fixture).await;
    assert_eq!((again.analyses, &again.columns[0]), (2, id), "only what was asked for");
    assert!((again.columns[1].null_frac - 0.5).abs() < 1e-9);
    drop(session);

    let fixture = fixture.restart().await;
    assert_eq!(known(&fixture).await, again, "it is durable");
    let mut session = fixture.session().await;
    run(&mut session, "CREATE TABLE u (id int); DROP TABLE t; ANALYZE u").await;
    let tenant = fixture.tenant().await;
    assert_eq!(all(&tenant.store.snapshot()).unwrap().len(), 1, "a dropped table is forgotten");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_table_is_sampled() {
    let fixture = Fixture::new();
    let mut session = fixture.session().await;
    run(&mut session, "CREATE TABLE t (id int8, many int, few int)").await;
    let rows = "INSERT INTO t SELECT x, x / 4, x % 7 FROM generate_series(1, 90000) AS s(x)";
    run(&mut session, rows).await;
    run(&mut session, "ANALYZE t").await;
    let found = known(&fixture).await;
    let [id, many, few]: &[KnownColumn; 3] = found.columns.as_slice().try_into().unwrap();
    assert!((id.n_distinct + 1.0).abs() < 1e-9, "{}", id.n_distinct);
    assert!((-1.0..=-0.1).contains(&many.n_distinct), "a quarter of the rows, as far as a sample tells");
    assert!((few.n_distinct - 7.0).abs() < 1e-9, "{}", few.n_distinct);
    assert_eq!(few.common.len(), 7);
}
