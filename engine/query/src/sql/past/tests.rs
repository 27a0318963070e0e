//! Clauses rewritten, found again and refused.

use super::super::{Statement as Parsed, StatementKind, parse_statements};
use super::*;

fn parsed(sql: &str) -> Statement {
    let Ok([Parsed { kind: StatementKind::Sql(statement), .. }]) =
        <[Parsed; 1]>::try_from(parse_statements(sql).unwrap())
    else {
        panic!("{sql}");
    };
    *statement
}

#[test]
fn clauses_become_arguments() {
    let cases = [
        (
            "SELECT * FROM items FOR SYSTEM_TIME AS OF now() - interval '1 hour' AS i WHERE i.id = 1",
            "SELECT * FROM items(sepal_as_of('0', now() - INTERVAL '1 hour')) AS i WHERE i.id = 1",
        ),
        (
            "SELECT * FROM public.items AS OF SNAPSHOT 'a' i, b",
            "SELECT * FROM public.items(sepal_as_of_snapshot('0', 'a')) i, b",
        ),
        (
            "SELECT * FROM a FOR SYSTEM_TIME AS OF $1 JOIN b FOR SYSTEM_TIME AS OF SNAPSHOT nightly ON true",
            "SELECT * FROM a(sepal_as_of('1', $1)) JOIN b(sepal_as_of_snapshot('0', 'nightly')) ON true",
        ),
        (
            "SELECT * FROM knn(items, v, '[1]', 3) AS OF SNAPSHOT \"A b\"",
            "SELECT * FROM knn(items, v, '[1]', 3, sepal_as_of_snapshot('0', 'A b'))",
        ),
        (
            "SELECT * FROM a FOR SYSTEM_TIME AS OF (SELECT m FROM b AS OF SNAPSHOT 's')",
            "SELECT * FROM a(sepal_as_of('1', (SELECT m FROM b(sepal_as_of_snapshot('0', 's')))))",
        ),
    ];
    for (sql, expected) in cases {
        assert_eq!(parsed(sql).to_string(), expected);
    }
}

#[test]
fn a_name_with_a_dash_is_a_text() {
    let refused =
        parse_statements("SELECT * FROM a AS OF SNAPSHOT before-import").expect_err("it is refused");
    assert_eq!(refused.state().code(), "42601");
    assert!(refused.hint().is_some_and(|hint| hint.contains("as a text")), "{refused:?}");
}

#[test]
fn moments_are_found_by_number() {
    let statement = parsed(
        "INSERT INTO t SELECT * FROM a FOR SYSTEM_TIME AS OF $2 UNION SELECT * FROM b AS OF SNAPSHOT 's'",
    );
    let moments = moments(&statement).unwrap();
    assert!(matches!(&moments[0], Moment::Snapshot(expr) if expr.to_string() == "'s'"));
    assert!(matches!(&moments[1], Moment::Time(expr) if expr.to_string() == "$2"));
    assert_eq!(moments.len(), 2);
}

#[test]
fn what_is_no_source_is_refused() {
    let state = |sql: &str| parse_statements(sql).expect_err(sql).state().code();
    for sql in [
        "INSERT INTO items AS OF SNAPSHOT 'a' VALUES (1)",
        "UPDATE items AS OF SNAPSHOT 'a' SET v = 1",
        "DELETE FROM items FOR SYSTEM_TIME AS OF now()",
        "COPY items AS OF SNAPSHOT 'a' TO STDOUT",
    ] {
        assert_eq!(state(sql), "0A000", "{sql}");
    }
    for sql in [
        "SELECT * FROM items i AS OF SNAPSHOT 'a'",
        "SELECT * FROM (SELECT 1) AS OF SNAPSHOT 'a'",
        "SELECT * FROM items AS OF SNAPSHOT",
        "SELECT * FROM items FOR SYSTEM_TIME BETWEEN 1 AND 2",
        "SELECT * FROM items FOR SYSTEM_TIME AS OF",
        "AS OF SNAPSHOT 'a'",
    ] {
        assert_eq!(state(sql), "42601", "{sql}");
    }
    let locking = parsed("SELECT * FROM items AS OF SNAPSHOT 'a' FOR UPDATE");
    assert_eq!(moments(&locking).expect_err("a lock").state().code(), "0A000");
}

#[test]
fn other_words_of_the_kind_stay() {
    for sql in ["SELECT 1 AS of", "SELECT snapshot FROM t", "SELECT system_time FROM t FOR UPDATE"] {
        assert!(moments(&parsed(sql)).unwrap().is_empty(), "{sql}");
    }
}
