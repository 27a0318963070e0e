//! Bulk bodies, and what their answers mean for the rows.

use sepal_plugin::Batch;

use super::*;

fn bulk_of(rows: &[&str]) -> Bulk {
    let batch = Batch::of_ndjson("b", &rows.join("\n"));
    let rows: Vec<_> = batch.rows().collect::<Result<_, Error>>().expect("rows");
    bulk("docs", &rows).expect("a body")
}

fn outcome(items: &Value, ids: &[(u32, String)], bad: Vec<BadRow>) -> Result<Outcome, Error> {
    let answer: BulkAnswer =
        serde_json::from_value(json!({ "errors": true, "items": items })).expect("an answer");
    answer.outcome(ids, bad)
}

fn ids(ids: &[&str]) -> Vec<(u32, String)> {
    (0..).zip(ids).map(|(index, id)| (index, (*id).to_owned())).collect()
}

#[test]
fn documents_are_named_by_key_or_position() {
    let bulk = bulk_of(&[
        r#"{"op":"i","key":{"id":1},"after":{"id":1,"t":"a"}}"#,
        r#"{"op":"d","key":{"id":"x"},"after":null}"#,
        r#"{"op":"u","key":{"b":"2","a":1},"after":{}}"#,
        r#"{"op":"i","key":null,"after":{"n":1},"pos":"7.0"}"#,
        r#"{"op":"d","after":null,"pos":"7.1"}"#,
    ]);
    let expected = [
        r#"{"index":{"_id":"1","_index":"docs"}}"#,
        r#"{"id":1,"t":"a"}"#,
        r#"{"delete":{"_id":"x","_index":"docs"}}"#,
        r#"{"index":{"_id":"[1,\"2\"]","_index":"docs"}}"#,
        "{}",
        r#"{"index":{"_id":"7.0","_index":"docs"}}"#,
        r#"{"n":1}"#,
        "",
    ];
    assert_eq!(String::from_utf8(bulk.body).expect("text"), expected.join("\n"));
    assert_eq!(bulk.ids.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert_eq!(bulk.bad.iter().map(|row| row.index).collect::<Vec<_>>(), [4]);
}

#[test]
fn a_refused_document_is_a_bad_row_and_a_missing_one_is_deleted() {
    let items = json!([
        { "index": { "status": 201 } },
        { "index": { "status": 400, "error": { "type": "document_parsing_exception", "reason": "not a date" } } },
        { "delete": { "status": 404 } },
    ]);
    let outcome = outcome(&items, &ids(&["1", "2", "3"]), Vec::new()).expect("an outcome");
    let bad = BadRow {
        index: 1,
        code: Some("elasticsearch.document_parsing_exception".to_owned()),
        message: "document_parsing_exception: not a date".to_owned(),
    };
    assert_eq!(outcome, Outcome::Durable(vec![bad]));
}

#[test]
fn later_rows_of_a_busy_document_go_again_with_it() {
    let busy = json!({ "index": { "status": 429, "error": { "type": "es_rejected_execution_exception" } } });
    let fine = json!({ "index": { "status": 200 } });
    let refused = json!({ "index": { "status": 400 } });
    let items = json!([fine, busy, fine, fine, refused]);
    let outcome = outcome(&items, &ids(&["a", "a", "b", "a", "c"]), Vec::new()).expect("an outcome");
    // Row 0 is done and row 2 is another document; row 4 is bad, but would count as delivered if it were left out.
    assert_eq!(outcome, Outcome::RetryRows(vec![1, 3, 4]));
}

#[test]
fn a_refused_key_stops_everything() {
    let items =
        json!([{ "index": { "status": 403, "error": { "type": "security_exception", "reason": "no" } } }]);
    let error = outcome(&items, &ids(&["1"]), Vec::new()).expect_err("403");
    assert_eq!((error.kind, error.code.as_deref()), (ErrorKind::Unauthorized, Some("http.403")));
}
