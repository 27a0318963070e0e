//! What is written, byte for byte as Postgres writes it.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, Int32Array, RecordBatch, StringArray},
    datatypes::{Field, Schema},
};
use sepal_database::{CopyFormat, CopyHeader, CopyKind, OutputColumn};

use super::{Encoder, columns, encode, format};

fn batch(columns: &[OutputColumn], arrays: Vec<ArrayRef>) -> RecordBatch {
    let fields: Vec<Field> = columns
        .iter()
        .zip(&arrays)
        .map(|(column, array)| Field::new(&column.name, array.data_type().clone(), true))
        .collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
}

fn texts(names: &[&str], values: &[Option<&str>]) -> (Vec<OutputColumn>, RecordBatch) {
    let columns = columns(&names.iter().map(|name| (*name, "text")).collect::<Vec<_>>());
    let arrays = values.iter().map(|value| Arc::new(StringArray::from(vec![*value])) as ArrayRef).collect();
    let batch = batch(&columns, arrays);
    (columns, batch)
}

fn written(format: &CopyFormat, names: &[&str], values: &[Option<&str>]) -> String {
    let (columns, batch) = texts(names, values);
    String::from_utf8(encode(format, &columns, &[batch])).unwrap()
}

#[test]
fn text() {
    let special = "x\ty\nz\\ \r\u{1},\"q\"";
    let values = [Some("1"), Some(special), None, Some(""), Some("\\.")];
    let names = ["a,b", "b", "c", "d", "e"];
    assert_eq!(
        written(&format(CopyKind::Text), &names, &values),
        "1\tx\\ty\\nz\\\\ \\r\u{1},\"q\"\t\\N\t\t\\\\.\n"
    );
    let mut options = format(CopyKind::Text);
    options.delimiter = b'|';
    options.null = "N".to_owned();
    assert_eq!(
        written(&options, &["a", "b", "c"], &[Some("a|b"), Some("x\\y"), Some("N")]),
        "a\\|b|x\\\\y|N\n"
    );
    options.header = CopyHeader::Yes;
    assert_eq!(written(&options, &["a|"], &[None]), "a\\|\nN\n");
}

#[test]
fn csv() {
    let special = "x\ty\nz\\ \r\u{1},\"q\"";
    let values = [Some("1"), Some(special), None, Some(""), Some("\\.")];
    let mut options = format(CopyKind::Csv);
    options.header = CopyHeader::Yes;
    assert_eq!(
        written(&options, &["a,b", "b", "c", "d", "e"], &values),
        "\"a,b\",b,c,d,e\n1,\"x\ty\nz\\ \r\u{1},\"\"q\"\"\",,\"\",\\.\n"
    );
    assert_eq!(written(&format(CopyKind::Csv), &["a"], &[Some("\\.")]), "\"\\.\"\n");
    let mut options = format(CopyKind::Csv);
    options.null = "N".to_owned();
    options.quote = b'\'';
    options.escape = b'!';
    assert_eq!(
        written(&options, &["a", "b", "c"], &[Some("a"), Some("x'!y"), Some("N")]),
        "a,'x!'!!y','N'\n"
    );
    options.force_quote = Some(Vec::new());
    assert_eq!(written(&options, &["a", "b"], &[None, Some("x\\y")]), "N,'x\\y'\n");
    options.force_quote = Some(vec!["b".to_owned()]);
    assert_eq!(written(&options, &["a", "b"], &[Some("x"), Some("y")]), "x,'y'\n");
}

#[test]
fn binary() {
    let columns = columns(&[("a", "int4")]);
    let batch = batch(&columns, vec![Arc::new(Int32Array::from(vec![Some(1), None]))]);
    let expected = [
        b"PGCOPY\n\xff\r\n\0".as_slice(),
        &[0; 8],
        b"\0\x01\0\0\0\x04\0\0\0\x01",
        b"\0\x01\xff\xff\xff\xff",
        b"\xff\xff",
    ];
    assert_eq!(encode(&format(CopyKind::Binary), &columns, &[batch]), expected.concat());
}

#[test]
fn a_batch_of_other_columns_is_a_bug() {
    let (_, batch) = texts(&["a"], &[Some("x")]);
    let error =
        Encoder::new(&format(CopyKind::Text), &columns(&[("a", "int4")])).start(&batch).err().unwrap();
    assert_eq!(error.state().code(), "XX000");
    let error = Encoder::new(&format(CopyKind::Text), &[]).start(&batch).err().unwrap();
    assert_eq!(error.state().code(), "XX000");
}
