//! Every type as JSON, and the Arrow stream.

use std::{io::Cursor, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, Int64Array},
    datatypes::{Field, Int64Type, Schema},
    ipc::reader::StreamReader,
    record_batch::RecordBatch,
};
use sepal_query::{output::OutputColumn, values::Builder};
use sepal_types::{Lsn, SqlType};
use serde_json::Value;

use crate::{
    connector::{Encoding, Envelope},
    pipeline::{
        encode::Encoder,
        event::{Events, Operation},
        position::Position,
    },
};

/// One event whose only column besides the key has the text.
fn event(operation: Operation, ty: &SqlType, text: Option<&str>) -> (Vec<OutputColumn>, Events) {
    let mut builder = Builder::new(ty, 1);
    match text {
        Some(text) => builder.append_text(text.as_bytes()).unwrap(),
        None => builder.append_null(),
    }
    let id: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let value = builder.finish().unwrap();
    let fields = [&id, &value].map(|array| Field::new("", array.data_type().clone(), true)).to_vec();
    let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), vec![id, value]).unwrap();
    let columns = vec![OutputColumn::new("id", SqlType::Int8), OutputColumn::new("v", ty.clone())];
    let events = Events {
        operations: vec![operation].into(),
        positions: vec![Position::Feed { lsn: Lsn(1), index: 0 }].into(),
        before: Some(rows.clone()),
        rows: Some(rows),
    };
    (columns, events)
}

fn json(ty: &SqlType, text: Option<&str>) -> String {
    let (columns, events) = event(Operation::Create, ty, text);
    let encoder = Encoder::new(Encoding::Ndjson, Envelope::Upsert, columns, vec![0]).unwrap();
    let encoded = encoder.encode(&events, 0, 1 << 20).unwrap();
    let line = String::from_utf8(encoded.payload.to_vec()).unwrap();
    serde_json::from_str::<Value>(&line).expect("a line is JSON");
    let after = line.split_once("\"v\":").unwrap().1;
    let end = "},\"pos\":\"0000000000000001.00000000\",\"ts\":\"1970-01-01T00:00:00Z\"}\n";
    after.strip_suffix(end).unwrap_or_else(|| panic!("{line}")).to_owned()
}

#[test]
fn each_type_has_its_json() {
    let cases = [
        (SqlType::Bool, "t", "true"),
        (SqlType::Bytea, "\\x00ff", r#""\\x00ff""#),
        (SqlType::Date, "2024-02-29", r#""2024-02-29""#),
        (SqlType::Float4, "0.1", "0.1"),
        (SqlType::Float4, "1e-30", "1e-30"),
        (SqlType::Float8, "NaN", r#""NaN""#),
        (SqlType::Float8, "-Infinity", r#""-Infinity""#),
        (SqlType::Float8, "0.1", "0.1"),
        (SqlType::Int8, "9007199254740993", "9007199254740993"),
        (SqlType::Json, "{\"a\":\n 1}", "{\"a\":  1}"),
        (SqlType::Jsonb, "{\"a\":[1.50]}", "{\"a\": [1.50]}"),
        (SqlType::Numeric(Some((10, 2))), "12.5", r#""12.50""#),
        (SqlType::Text, "\"\\\n\u{1}ü", r#""\"\\\n\u0001ü""#),
        (SqlType::Timestamp, "2024-01-02 03:04:05.5", r#""2024-01-02T03:04:05.5""#),
        (SqlType::Timestamptz, "2024-01-02 03:04:05+00", r#""2024-01-02T03:04:05Z""#),
        (SqlType::TsVector, "b a:1A", r#""'a':1A 'b'""#),
        (SqlType::TsQuery, "a & b", r#""'a' & 'b'""#),
        (SqlType::Vector(Some(3)), "[1,2.5,-0.25]", "[1,2.5,-0.25]"),
        (SqlType::Vector(None), "[1,2]", "[1,2]"),
        (SqlType::HalfVec(Some(2)), "[0.1,2.5]", "[0.099975586,2.5]"),
        (SqlType::HalfVec(None), "[1,2]", "[1,2]"),
        (SqlType::Bit(Some(3)), "101", r#""101""#),
        (SqlType::SparseVec(Some(5)), "{3:2,1:1.5}/5", r#""{1:1.5,3:2}/5""#),
        (SqlType::Array(Box::new(SqlType::Text)), "{a,NULL,\"b c\"}", r#"["a",null,"b c"]"#),
    ];
    for (ty, text, expected) in cases {
        assert_eq!(json(&ty, Some(text)), expected, "{}", ty.display_name());
        assert_eq!(json(&ty, None), "null");
    }
}

#[test]
fn a_batch_is_cut_where_its_bytes_end() {
    let (columns, one) = event(Operation::Create, &SqlType::Text, Some("0123456789"));
    let parts = vec![one; 20];
    let many = Events::concat(&parts).unwrap();
    for encoding in [Encoding::Ndjson, Encoding::ArrowIpcStream] {
        let encoder = Encoder::new(encoding, Envelope::Append, columns.clone(), vec![0]).unwrap();
        let whole = encoder.encode(&many, 0, usize::MAX).unwrap();
        assert_eq!(whole.rows, 20);
        let part = encoder.encode(&many, 0, whole.payload.len() - 1).unwrap();
        assert!((1..20).contains(&part.rows) && part.payload.len() < whole.payload.len());
        assert_eq!(encoder.encode(&many, 0, 1).unwrap().rows, 1, "one row always goes");
    }
}

fn arrow(envelope: Envelope, operation: Operation) -> RecordBatch {
    let (columns, events) = event(operation, &SqlType::Vector(Some(2)), Some("[1,2]"));
    let encoder = Encoder::new(Encoding::ArrowIpcStream, envelope, columns, vec![0]).unwrap();
    let encoded = encoder.encode(&events, 0, 1 << 20).unwrap();
    assert!(encoded.payload.starts_with(&encoder.schema().payload), "the stream begins with the schema");
    let mut reader = StreamReader::try_new(Cursor::new(encoded.payload), None).unwrap();
    let batch = reader.next().unwrap().unwrap();
    assert!(reader.next().is_none());
    batch
}

#[test]
fn a_sparse_vector_in_arrow_is_its_text() {
    let ty = SqlType::SparseVec(Some(5));
    let (columns, events) = event(Operation::Create, &ty, Some("{3:2,1:1.5}/5"));
    let encoder = Encoder::new(Encoding::ArrowIpcStream, Envelope::Append, columns, vec![0]).unwrap();
    let encoded = encoder.encode(&events, 0, 1 << 20).unwrap();
    let mut reader = StreamReader::try_new(Cursor::new(encoded.payload), None).unwrap();
    let batch = reader.next().unwrap().unwrap();
    let texts = batch.column_by_name("v").unwrap().as_string::<i32>();
    assert_eq!(texts.value(0), "{1:1.5,3:2}/5");
}

#[test]
fn an_update_in_arrow_has_the_row_before_it_if_that_is_known() {
    let known = arrow(Envelope::Debezium, Operation::Update);
    assert!(known.column_by_name("__before").unwrap().is_valid(0));

    let (columns, events) = event(Operation::Update, &SqlType::Text, Some("after"));
    let encoder = Encoder::new(Encoding::ArrowIpcStream, Envelope::Debezium, columns, vec![0]).unwrap();
    // As dead letters are that are sent again.
    let encoded = encoder.encode(&Events { before: None, ..events }, 0, 1 << 20).unwrap();
    let batch = StreamReader::try_new(Cursor::new(encoded.payload), None).unwrap().next().unwrap().unwrap();
    assert!(batch.column_by_name("__before").unwrap().is_null(0));
    assert_eq!(batch.column_by_name("v").unwrap().as_string::<i32>().value(0), "after");
}

#[test]
fn a_deletion_in_arrow_has_what_its_envelope_says() {
    let names = |batch: &RecordBatch| -> Vec<String> {
        batch.schema().fields().iter().map(|field| field.name().clone()).collect()
    };
    let append = arrow(Envelope::Append, Operation::Delete);
    assert_eq!(names(&append), ["__op", "__pos", "__ts", "id", "v"]);
    assert_eq!(append.column(0).as_string::<i32>().value(0), "d");
    assert!(append.column(4).is_valid(0));
    let upsert = arrow(Envelope::Upsert, Operation::Delete);
    assert_eq!(upsert.column(3).as_primitive::<Int64Type>().value(0), 1);
    assert!(upsert.column(4).is_null(0));
    let debezium = arrow(Envelope::Debezium, Operation::Delete);
    assert_eq!(names(&debezium).last().unwrap(), "__before");
    assert!(debezium.column(3).is_null(0));
    let before = debezium.column(5).as_struct();
    assert_eq!(before.column(0).as_primitive::<Int64Type>().value(0), 1);
    let created = arrow(Envelope::Debezium, Operation::Create);
    assert!(created.column(5).is_null(0));
}
