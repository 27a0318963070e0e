//! `COPY … FROM STDIN`: bytes in the three formats into batches, by the server's decoder.
//!
//! The bytes are what the server itself writes for the same rows, and come in pieces as clients send them. An item is
//! a row, a byte one as sent. Floors: for vectors as text, the standard library's parser over the same numbers; for
//! binary, copying the bytes once.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray},
    datatypes::{Field, Schema},
    record_batch::RecordBatch,
};
use bytes::BytesMut;
use divan::{
    Bencher, black_box,
    counter::{BytesCount, ItemsCount},
};
use sepal_database::{CopyFormat, CopyKind, OutputColumn, SqlType};
use sepal_pgwire_server::copy::{Decoder, Encoder};

use crate::numbers::{uniform, vector_array};

const DIM: u16 = 384;
/// One CopyData message.
const PIECE_BYTES: usize = 64 << 10;
const FORMATS: [&str; 3] = ["binary", "csv", "text"];

/// `(id bigint, embedding vector(384))`: 1.6 KB a row in binary.
#[divan::bench(args = FORMATS)]
fn vectors(bencher: Bencher, format: &str) {
    measure(bencher, &vector_rows(), format);
}

/// `(id bigint, name text, price float8, made timestamptz, active boolean)`: what tables have beside vectors.
#[divan::bench(args = FORMATS)]
fn scalars(bencher: Bencher, format: &str) {
    measure(bencher, &scalar_rows(), format);
}

#[divan::bench]
fn vectors_floor_memcpy(bencher: Bencher) {
    let rows = vector_rows();
    let data = rows.encoded(&copy_format("binary"));
    counted(bencher, &rows, &data).bench_local(|| black_box(&data).clone());
}

#[divan::bench]
fn vectors_floor_std_parse(bencher: Bencher) {
    let rows = vector_rows();
    let data = String::from_utf8(rows.encoded(&copy_format("text"))).expect("COPY's text is UTF-8");
    let mut parsed = Vec::with_capacity(rows.batch.num_rows() * usize::from(DIM));
    counted(bencher, &rows, data.as_bytes()).bench_local(|| {
        parsed.clear();
        for line in black_box(&data).lines() {
            let vector = line.split_once("\t[").and_then(|(_, vector)| vector.strip_suffix(']'));
            let numbers = vector.expect("a vector in brackets").split(',');
            parsed.extend(numbers.map(|number| number.parse::<f32>().expect("a number")));
        }
        black_box(&mut parsed);
    });
}

fn measure(bencher: Bencher, rows: &Rows, format: &str) {
    let format = copy_format(format);
    let data = rows.encoded(&format);
    assert_eq!(decode(rows, &format, &data), rows.batch.num_rows(), "rows are lost");
    counted(bencher, rows, &data).bench_local(|| decode(rows, &format, black_box(&data)));
}

fn counted<'a, 'b>(bencher: Bencher<'a, 'b>, rows: &Rows, data: &[u8]) -> Bencher<'a, 'b> {
    bencher.counter(ItemsCount::new(rows.batch.num_rows())).counter(BytesCount::new(data.len()))
}

/// As `session/copy_in.rs` does; the number of rows.
fn decode(rows: &Rows, format: &CopyFormat, data: &[u8]) -> usize {
    let mut decoder = Decoder::new(format, &rows.columns, "items");
    let mut count = 0;
    for piece in data.chunks(PIECE_BYTES) {
        decoder.push(piece).expect("a piece");
        while let Some(batch) = decoder.take_batch().expect("well-formed rows") {
            count += black_box(batch).num_rows();
        }
    }
    let last = decoder.finish().expect("well-formed rows");
    count + last.map_or(0, |batch| black_box(batch).num_rows())
}

fn copy_format(name: &str) -> CopyFormat {
    CopyFormat::new(match name {
        "binary" => CopyKind::Binary,
        "csv" => CopyKind::Csv,
        _ => CopyKind::Text,
    })
}

struct Rows {
    columns: Vec<OutputColumn>,
    batch: RecordBatch,
}

impl Rows {
    fn new(columns: Vec<(&str, SqlType, ArrayRef)>) -> Rows {
        let field = |(name, _, array): &(&str, SqlType, ArrayRef)| {
            Field::new((*name).to_owned(), array.data_type().clone(), true)
        };
        let schema = Schema::new(columns.iter().map(field).collect::<Vec<_>>());
        let arrays = columns.iter().map(|(_, _, array)| Arc::clone(array)).collect();
        let batch = RecordBatch::try_new(Arc::new(schema), arrays).expect("columns of one length");
        let columns = columns.into_iter().map(|(name, ty, _)| OutputColumn::new(name, ty)).collect();
        Rows { columns, batch }
    }

    fn encoded(&self, format: &CopyFormat) -> Vec<u8> {
        let encoder = Encoder::new(format, &self.columns);
        let mut out = BytesMut::new();
        encoder.header(&mut out);
        encoder.rows(&self.batch, &mut out).expect("columns of the described types");
        encoder.trailer(&mut out);
        out.to_vec()
    }
}

fn vector_rows() -> Rows {
    const ROWS: usize = 2_000;
    Rows::new(vec![
        ("id", SqlType::Int8, ids(ROWS)),
        ("embedding", SqlType::Vector(Some(DIM)), vector_array(ROWS, DIM, 5)),
    ])
}

fn scalar_rows() -> Rows {
    const ROWS: usize = 20_000;
    const YEAR_2026_US: i64 = 1_767_225_600_000_000;
    let names: Vec<String> = (0..ROWS).map(|row| format!("item number {row}")).collect();
    let names: ArrayRef = Arc::new(StringArray::from(names));
    let prices = uniform(ROWS, 6).into_iter().map(|value| f64::from(value) * 100.0);
    let prices: ArrayRef = Arc::new(Float64Array::from_iter_values(prices));
    let made = (0..).map(|row: i64| YEAR_2026_US + row * 1_234_567).take(ROWS);
    let made: ArrayRef = Arc::new(TimestampMicrosecondArray::from_iter_values(made).with_timezone("UTC"));
    let active: Vec<bool> = (0..ROWS).map(|row| row % 3 == 0).collect();
    let active: ArrayRef = Arc::new(BooleanArray::from(active));
    Rows::new(vec![
        ("id", SqlType::Int8, ids(ROWS)),
        ("name", SqlType::Text, names),
        ("price", SqlType::Float8, prices),
        ("made", SqlType::Timestamptz, made),
        ("active", SqlType::Bool, active),
    ])
}

fn ids(rows: usize) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values((0..).take(rows)))
}
