//! The streams that Loki gets.

use sepal_plugin::{Batch, ErrorKind};

use super::*;

fn loki(labels: &str, label_columns: &str) -> Result<Loki, Error> {
    let config = Config {
        url: "https://loki.test".to_owned(),
        labels: Some(labels.to_owned()),
        label_columns: Some(label_columns.to_owned()),
        line_column: Some("message".to_owned()),
        time_column: Some("at".to_owned()),
        org_id: None,
        token: None,
        user: None,
        password: None,
    };
    let context = Context {
        encoding: sepal_plugin::Encoding::Ndjson,
        envelope: sepal_plugin::Envelope::Append,
        sink_id: String::new(),
        worker: 0,
        parallelism: 1,
        attributes: Vec::new(),
    };
    Loki::open(config, &context)
}

#[test]
fn rows_of_equal_labels_share_a_stream() {
    let rows = [
        r#"{"op":"i","after":{"message":"one","level":"info","at":"1970-01-01T00:00:01Z"}}"#,
        r#"{"op":"i","after":{"message":"two","level":"warn"},"ts":"1970-01-01T00:00:02Z"}"#,
        r#"{"op":"i","after":{"message":"three","level":"info"}}"#,
        r#"{"op":"i","after":{"n":1}}"#,
    ];
    let loki = loki("job=sepal, env=prod", "level").expect("a configuration");
    let body = loki.streams(&Batch::of_ndjson("b", &rows.join("\n")), 5).expect("streams");
    let expected = json!({ "streams": [
        { "stream": {"env": "prod", "job": "sepal"}, "values": [["5000000000", r#"{"n":1}"#]] },
        {
            "stream": {"env": "prod", "job": "sepal", "level": "info"},
            "values": [["1000000000", "one"], ["5000000000", "three"]],
        },
        { "stream": {"env": "prod", "job": "sepal", "level": "warn"}, "values": [["2000000000", "two"]] },
    ] });
    assert_eq!(body, expected);
}

#[test]
fn labels_that_loki_refuses_are_refused_when_the_sink_is_made() {
    for (labels, columns) in [("job", ""), ("1a=b", ""), ("a=b", "user-id"), ("=b", "")] {
        let error = loki(labels, columns).err().expect(labels);
        assert_eq!(error.kind, ErrorKind::Misconfigured, "{labels} {columns}");
    }
}
