//! The events that Vector gets.

use sepal_plugin::Batch;

use super::*;

#[test]
fn an_event_is_the_row_with_its_origin() {
    let rows = concat!(
        r#"{"op":"u","key":{"id":7},"after":{"id":7,"title":"a\nb"},"pos":"9.0","ts":"2026-01-01T00:00:00Z"}"#,
        "\n",
        r#"{"op":"d","key":{"id":8},"after":null,"pos":"9.1","ts":"2026-01-01T00:00:00Z"}"#,
    );
    let body = events(&Batch::of_ndjson("b1", rows)).expect("two events");
    let events: Vec<Value> = body
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).expect("JSON"))
        .collect();
    let about = |op: &str, id: u8, pos: &str| {
        let time = "2026-01-01T00:00:00Z";
        json!({ "op": op, "key": {"id": id}, "pos": pos, "time": time, "batch": "b1" })
    };
    let first = json!({ "id": 7, "title": "a\nb", "_sepal": about("update", 7, "9.0") });
    let second = json!({ "id": 8, "_sepal": about("delete", 8, "9.1") });
    assert_eq!(events, [first, second]);
}

#[test]
fn numbers_keep_their_digits() {
    let row = r#"{"op":"c","key":{},"after":{"doc":{"n":12345678901234567890.10}},"pos":"1.0","ts":""}"#;
    let body = events(&Batch::of_ndjson("b", row)).expect("an event");
    let text = String::from_utf8(body).expect("text");
    assert!(text.contains(r#""doc":{"n":12345678901234567890.10}"#), "{text}");
}
