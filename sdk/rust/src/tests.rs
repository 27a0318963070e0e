//! What of the SDK needs no host: statuses, times, rows, and that the WIT beside it is the one the host serves.

use serde_json::{Map, Value, json};

use crate::{Answer, Batch, ErrorKind, Op, Resolved, http, http::HttpStatus, time::Civil};

#[test]
fn statuses_have_the_kinds_that_the_reference_promises() {
    use ErrorKind::{Misconfigured, Rejected, Transient, Unauthorized};
    let kinds = [
        (vec![200, 201, 204, 299], None),
        (vec![408, 425, 429, 500, 502, 503, 504, 599], Some(Transient)),
        (vec![401, 403, 407], Some(Unauthorized)),
        (vec![301, 302, 307, 404, 405, 410], Some(Misconfigured)),
        (vec![400, 409, 413, 415, 422, 451], Some(Rejected)),
    ];
    for (statuses, kind) in kinds {
        for status in statuses {
            assert_eq!(HttpStatus(status).classify(), kind, "{status}");
        }
    }
}

#[test]
fn an_error_of_an_answer_says_what_the_destination_said() {
    let answer = http::Response {
        status: 429,
        headers: vec![("Retry-After".to_owned(), "2".to_owned())],
        body: b"slow down".to_vec(),
        truncated: false,
    };
    let error = answer.ok().expect_err("429 is no success");
    assert_eq!(
        (error.kind, error.code.as_deref(), error.retry_after_ms),
        (ErrorKind::Transient, Some("http.429"), Some(2_000))
    );
    assert!(error.message.ends_with(": slow down"), "{}", error.message);
}

#[test]
fn retry_after_is_seconds_or_a_date() {
    let now = 1_445_412_470;
    assert_eq!(http::retry_after_ms("120", now), Some(120_000));
    assert_eq!(http::retry_after_ms("Wed, 21 Oct 2015 07:28:00 GMT", now), Some(10_000));
    assert_eq!(http::retry_after_ms("Wed, 21 Oct 2015 07:27:00 GMT", now), Some(0));
    for nonsense in
        ["", "soon", "Wed, 21 Foo 2015 07:28:00 GMT", "9999999999999999999", "x, 1 Jan 99999999999 0:0:0 GMT"]
    {
        assert_eq!(http::retry_after_ms(nonsense, now), None, "{nonsense}");
    }
}

#[test]
fn civil_times_go_there_and_back() {
    for seconds in [0, 951_782_400, 951_868_799, 1_440_938_160, 4_102_444_799, -1, -62_135_596_800] {
        assert_eq!(Civil::of(seconds).unix_seconds(), seconds);
    }
    assert_eq!(Civil::of(1_440_938_160).basic(), "20150830T123600Z");
    assert_eq!(Civil::of_rfc3339("2015-08-30T12:36:00.25Z"), Some((1_440_938_160, 250_000_000)));
    assert_eq!(Civil::of_rfc3339("2015-08-30 14:36:00+02"), Some((1_440_938_160, 0)));
    assert_eq!(Civil::of_rfc3339("2015-08-30 09:06:00-03:30"), Some((1_440_938_160, 0)));
    for nonsense in ["", "T", "2015-08-30", "2015-13-30T00:00:00Z", "2015-08-30T00:00:00+é", "-1-2-3T4:5:6Z"]
    {
        assert_eq!(Civil::of_rfc3339(nonsense), None, "{nonsense}");
    }
}

#[test]
fn rows_are_read_line_by_line() {
    let batch = Batch::of_ndjson(
        "b",
        concat!(
            r#"{"op":"i","key":{"id":1},"after":{"id":1,"n":null},"pos":"1.0","ts":"1970-01-01T00:00:01Z"}"#,
            "\n",
            r#"{"op":"d","key":{"id":1},"after":null}"#,
            "\n",
            r#"{"op":"?"}"#,
        ),
    );
    assert_eq!(batch.row_count, 3);
    let rows: Vec<_> = batch.rows::<Map<String, Value>>().collect();
    let first = rows[0].as_ref().expect("a row");
    assert_eq!(
        (first.op, &first.key, first.unix_nanos()),
        (Op::Insert, &json!({"id": 1}), Some(1_000_000_000))
    );
    assert_eq!(first.after.as_ref().map(|after| &after["n"]), Some(&Value::Null));
    let second = rows[1].as_ref().expect("a row");
    assert_eq!((second.op, &second.after), (Op::Delete, &None));
    let third = rows[2].as_ref().expect_err("no operation");
    assert_eq!((third.kind, third.code.as_deref()), (ErrorKind::Rejected, Some("row.decode")));
}

#[test]
fn a_version_the_host_holds_is_not_sent_again() {
    let resolved = Resolved { value: b"v".to_vec(), version: Some("3".to_owned()), ..Resolved::default() };
    assert_eq!(Answer::unless_held(resolved.clone(), Some("3")), Answer::Unchanged);
    assert_eq!(Answer::unless_held(resolved.clone(), Some("2")), Answer::Value(resolved.clone()));
    assert_eq!(Answer::unless_held(resolved.clone(), None), Answer::Value(resolved));
}

#[test]
fn the_wit_is_the_frozen_one() {
    let frozen = concat!(env!("CARGO_MANIFEST_DIR"), "/../wit/v0.1/plugin.wit");
    // A project that got its own copy of this crate has nothing to compare with.
    if let Ok(frozen) = std::fs::read_to_string(frozen) {
        assert_eq!(frozen, include_str!("../wit/plugin.wit"));
    }
}
