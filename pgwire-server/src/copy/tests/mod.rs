//! COPY held against what PostgreSQL 15 reads, refuses and writes.

mod decoding;
mod encoding;
mod properties;
mod refused;

use arrow::array::{Array, RecordBatch};
use sepal_database::{CopyFormat, CopyKind, OutputColumn, Result, SqlType};

use super::{Decoder, Encoder};
use sepal_database::values::encode_text;

/// `items(a int, b text, c text)`.
fn items() -> Vec<OutputColumn> {
    columns(&[("a", "int4"), ("b", "text"), ("c", "text")])
}

fn columns(columns: &[(&str, &str)]) -> Vec<OutputColumn> {
    columns
        .iter()
        .map(|(name, ty)| OutputColumn {
            name: (*name).to_owned(),
            ty: SqlType::from_name(ty).unwrap(),
            table: 0,
            column: 0,
        })
        .collect()
}

fn format(kind: CopyKind) -> CopyFormat {
    CopyFormat::new(kind)
}

/// Decodes data that comes in the given pieces.
fn decode_pieces<'a>(
    format: &CopyFormat,
    columns: &[OutputColumn],
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Vec<RecordBatch>> {
    let mut decoder = Decoder::new(format, columns, "items");
    let mut batches = Vec::new();
    for piece in pieces {
        decoder.push(piece)?;
        while let Some(batch) = decoder.take_batch()? {
            batches.push(batch);
        }
    }
    batches.extend(decoder.finish()?);
    Ok(batches)
}

/// Decodes data in one piece and prints its rows, `None` for NULL.
fn rows(format: &CopyFormat, columns: &[OutputColumn], data: &[u8]) -> Result<Vec<Vec<Option<String>>>> {
    Ok(printed(columns, &decode_pieces(format, columns, [data])?))
}

fn printed(columns: &[OutputColumn], batches: &[RecordBatch]) -> Vec<Vec<Option<String>>> {
    let cell = |batch: &RecordBatch, column: usize, row: usize| {
        let array = batch.column(column);
        (!array.is_null(row)).then(|| {
            let mut out = bytes::BytesMut::new();
            encode_text(array.as_ref(), row, &columns[column].ty, &mut out).unwrap();
            String::from_utf8(out.to_vec()).unwrap()
        })
    };
    batches
        .iter()
        .flat_map(|batch| {
            (0..batch.num_rows())
                .map(move |row| (0..columns.len()).map(|column| cell(batch, column, row)).collect())
        })
        .collect()
}

fn encode(format: &CopyFormat, columns: &[OutputColumn], batches: &[RecordBatch]) -> Vec<u8> {
    let encoder = Encoder::new(format, columns);
    let mut out = bytes::BytesMut::new();
    encoder.header(&mut out);
    batches.iter().for_each(|batch| encoder.rows(batch, &mut out).unwrap());
    encoder.trailer(&mut out);
    out.to_vec()
}

/// A binary file: the header and these bytes.
fn binary_file(body: &[u8]) -> Vec<u8> {
    [b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".as_slice(), body].concat()
}
