//! What the parser takes and what it refuses.

use super::{Action, Expected, Wrong, parse};
use crate::isolation::answer::Answer;

const GOOD: &str = "# two sessions
setup
    CREATE TABLE t (id int)

case one row
setup
    INSERT INTO t VALUES (1)
T1: BEGIN
T1: UPDATE t SET id = 2
    changed 1
T2: UPDATE t SET id = 3
    waits
T1: SELECT id, NULL FROM t
    | 2 | NULL
    | 3 | NULL
T1: COMMIT
    T2 error 40001 could not serialize

case a circle
T1: SELECT 1
    waits
T2: SELECT 2
    deadlock T1 T2
T1: \\disconnect
";

#[test]
fn a_file_is_read_as_it_is_meant() {
    let spec = parse(GOOD).expect("a good file");
    assert_eq!(spec.setup, ["CREATE TABLE t (id int)"]);
    assert_eq!(
        spec.cases.iter().map(|case| case.title.as_str()).collect::<Vec<_>>(),
        ["one row", "a circle"]
    );
    let case = &spec.cases[0];
    assert_eq!(
        (case.line, &case.setup[..], case.sessions()),
        (5, &["INSERT INTO t VALUES (1)".to_owned()][..], vec!["T1", "T2"])
    );
    let own: Vec<&Expected> = case.steps.iter().map(|step| &step.own).collect();
    let rows = Expected::Rows(vec!["| 2 | NULL".into(), "| 3 | NULL".into()]);
    assert_eq!(own, [&Expected::Quiet, &Expected::Changed(1), &Expected::Waits, &rows, &Expected::Quiet]);
    let refused = Expected::Error { code: "40001".into(), message: "could not serialize".into() };
    assert_eq!(case.steps[4].others, [("T2".to_owned(), refused)]);
    assert_eq!(spec.cases[1].steps[1].deadlock, ["T1", "T2"]);
    assert_eq!(spec.cases[1].steps[2].action, Action::Disconnect);
}

#[test]
fn what_is_not_meant_is_refused() {
    for (line, says, text) in [
        (1, "no `case`", "setup\n    SELECT 1\n"),
        (1, "before the first `case`", "T1: SELECT 1\n"),
        (2, "is no `setup`", "case a\nT1 SELECT 1\n"),
        (2, "is no `setup`", "case a\nT 1: SELECT 1\n"),
        (2, "neither", "case a\nT1: \\go\n"),
        (3, "four blanks", "case a\nT1: SELECT 1\n  ok\n"),
        (3, "four blanks", "case a\nT1: SELECT 1\n     ok\n"),
        (3, "blanks at the end", "case a\nT1: SELECT 1\n    ok \n"),
        (3, "is no answer", "case a\nT1: SELECT 1\n    T1 maybe\n"),
        (3, "a SQLSTATE", "case a\nT1: SELECT 1\n    error wrong\n"),
        (3, "needs a number", "case a\nT1: SELECT 1\n    changed many\n"),
        (3, "nothing comes after", "case a\nT1: SELECT 1\n    ok then\n"),
        (4, "two answers", "case a\nT1: SELECT 1\n    | 1\n    ok\n"),
        (4, "two answers", "case a\nT1: SELECT 1\n    empty\n    | 1\n"),
        (2, "still waits at the end", "case a\nT1: SELECT 1\n    waits\n"),
        (4, "speaks while it waits", "case a\nT1: SELECT 1\n    waits\nT1: SELECT 2\n"),
        (2, "does not wait", "case a\nT1: SELECT 1\n    T1 ok\n"),
        (2, "no session of this case", "case a\nT1: SELECT 1\n    T2 ok\n"),
        (2, "nothing to cancel", "case a\nT1: \\cancel\n"),
        (3, "has disconnected", "case a\nT1: \\disconnect\nT1: SELECT 1\n"),
        (2, "at least two", "case a\nT1: SELECT 1\n    deadlock T1\n"),
        (3, "an earlier case", "case a\nT1: SELECT 1\ncase a\nT1: SELECT 1\n"),
        (3, "right after `case`", "case a\nT1: SELECT 1\nsetup\n    SELECT 1\n"),
    ] {
        // The line is 1 where the file as a whole is wrong, the step's where its answers contradict each other.
        match parse(text) {
            Err(Wrong { line: found, what }) if what.contains(says) => {
                assert_eq!(found, line, "{text}{what}")
            }
            other => panic!("{text}should be refused with {says:?}, but: {other:?}"),
        }
    }
}

#[test]
fn an_answer_fits_only_what_it_is() {
    let rows = |rows: &[&str]| Answer::Rows(rows.iter().map(ToString::to_string).collect());
    let refused = Answer::Refused { code: "40001".into(), message: "could not serialize access".into() };
    let error = |code: &str, message: &str| Expected::Error { code: code.into(), message: message.into() };
    for (expected, answer, fits) in [
        (Expected::Quiet, Answer::Done(3), true),
        (Expected::Quiet, rows(&[]), false),
        (Expected::Ok, rows(&["| 1"]), true),
        (Expected::Ok, refused.clone(), false),
        (Expected::Changed(1), Answer::Done(1), true),
        (Expected::Changed(1), Answer::Done(0), false),
        (Expected::Changed(0), rows(&[]), false),
        (Expected::Rows(vec![]), rows(&[]), true),
        (Expected::Rows(vec!["| 1".into()]), rows(&["| 1", "| 2"]), false),
        (error("40001", "serialize"), refused.clone(), true),
        (error("40P01", ""), refused.clone(), false),
        (error("40001", "deadlock"), refused, false),
        (Expected::Quiet, Answer::Lost("closed".into()), false),
    ] {
        assert_eq!(expected.fits(&answer), fits, "{expected} / {answer}");
    }
}
