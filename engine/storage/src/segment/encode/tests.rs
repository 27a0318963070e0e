//! What is encoded here is what parquet-rs writes and reads, and opens nowhere else.

use arrow::{
    array::{
        ArrayRef, BinaryArray, BooleanArray, FixedSizeBinaryArray, Float64Array, Int64Array, ListArray,
        StringArray, UInt64Array,
    },
    compute,
    datatypes::{Field, Int32Type},
};
use bytes::Bytes;
use parquet::{
    arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder},
    encryption::decrypt::FileDecryptionProperties,
    file::metadata::PageIndexPolicy,
};
use sepal_crypto::Key;
use sepal_types::{FileId, TableId};

use super::*;
use crate::{
    fixtures::TENANT,
    pieces::made_and_written,
    segment::{ROW_ID, tests::by_parquet},
};

/// Bytes of a vector: less than 64 of them are a page.
const WIDTH: i32 = 1_204;

fn identity() -> Identity {
    Identity { tenant: TENANT, table: TableId(20_000), file: FileId([5; 16]), key: Key::from_bytes([6; 32]) }
}

/// Columns with and without dictionaries, levels and lists, vectors between them.
fn rows(first: usize, count: usize) -> RecordBatch {
    let numbers = || first..first + count;
    let vectors = |width: i32| {
        let bytes = numbers().flat_map(|row| (0..width).map(move |place| (row * 31 + place as usize) as u8));
        FixedSizeBinaryArray::try_new(width, bytes.collect::<Vec<u8>>().into(), None).unwrap()
    };
    let third = |row: usize| (!row.is_multiple_of(3)).then_some(row);
    let sparse = numbers().map(|row| third(row).map(|row| vec![row as u8; 16]));
    let lists = numbers().map(|row| third(row).map(|row| (0..row % 4).map(|item| Some(item as i32))));
    let columns: Vec<(&str, ArrayRef)> = vec![
        (ROW_ID, Arc::new(UInt64Array::from_iter_values(numbers().map(|row| 7 + row as u64)))),
        ("c1", Arc::new(vectors(WIDTH))),
        ("c2", Arc::new(StringArray::from_iter_values(numbers().map(|row| format!("label {}", row % 7))))),
        ("c3", Arc::new(numbers().map(|row| third(row).map(|row| row as i64)).collect::<Int64Array>())),
        ("c4", Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(sparse, 16).unwrap())),
        ("c5", Arc::new(vectors(16))),
        ("c6", Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(lists))),
        ("c7", Arc::new(BinaryArray::from_iter_values(numbers().map(|row| vec![row as u8; row % 90])))),
        ("c8", Arc::new(BooleanArray::from_iter(numbers().map(|row| Some(row.is_multiple_of(2)))))),
        ("c9", Arc::new(Float64Array::from_iter_values(numbers().map(|row| row as f64 / 7.0)))),
    ];
    let nullable = |name: &str| ["c3", "c4", "c6"].contains(&name);
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, array)| Field::new(*name, array.data_type().clone(), nullable(name)))
        .collect();
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
}

/// `batches` as a file, made here.
fn made(batches: &[RecordBatch]) -> Vec<u8> {
    let mut file = Vec::new();
    let plain = made_and_written(
        0,
        |out| {
            let rows = batches.iter().cloned().map(Ok);
            encode(out, Path::new("segment"), &identity(), &batches[0].schema(), rows)
        },
        |piece| {
            file.extend_from_slice(piece);
            Ok::<(), io::Error>(())
        },
    );
    let plain = plain.unwrap().unwrap();
    assert!(plain.variable > 0 && plain.all > plain.variable);
    file
}

fn loaded(file: &[u8]) -> Result<ArrowReaderMetadata, ParquetError> {
    let decryption = FileDecryptionProperties::builder(identity().key.expose().to_vec())
        .with_aad_prefix(identity().aad_prefix())
        .build()?;
    let options = ArrowReaderOptions::new()
        .with_file_decryption_properties(decryption)
        .with_page_index_policy(PageIndexPolicy::Required);
    ArrowReaderMetadata::load(&Bytes::copy_from_slice(file), options)
}

/// By parquet-rs, every column.
fn read(file: &[u8]) -> Result<RecordBatch, ParquetError> {
    let metadata = loaded(file)?;
    let bytes = Bytes::copy_from_slice(file);
    let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(bytes, metadata.clone()).build()?;
    let batches = reader.collect::<Result<Vec<_>, _>>()?;
    Ok(compute::concat_batches(metadata.schema(), &batches)?)
}

#[test]
fn parquet_reads_what_is_made_here() {
    for counts in [&[1][..], &[63], &[64], &[65, 1, 1, 300], &[1_000, 2_000, 5_000, 6_000, 3_000]] {
        let mut first = 0;
        let mut batches = Vec::new();
        for count in counts {
            batches.push(rows(first, *count));
            first += count;
        }
        let file = made(&batches);
        let metadata = loaded(&file).unwrap();
        let groups = metadata.metadata().num_row_groups();
        assert_eq!(groups, if first > 10_000 { 2 } else { 1 }, "{first} rows");
        assert_eq!(read(&file).unwrap(), rows(0, first));
        let of = metadata.metadata().row_group(groups - 1);
        assert!(of.columns().iter().all(|column| column.crypto_metadata().is_some()));
        assert_eq!(of.compressed_size(), of.total_byte_size());
    }
}

/// But for places, sizes and what only statistics of pages say.
#[test]
fn a_file_says_of_itself_what_parquet_says_of_its_own() {
    let batch = rows(0, 3_000);
    let mut theirs = Vec::new();
    let properties = by_parquet(batch.schema_ref(), &identity(), 1 << 20);
    let mut writer = ArrowWriter::try_new(&mut theirs, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let (theirs, ours) = (loaded(&theirs).unwrap(), loaded(&made(&[batch])).unwrap());
    assert_eq!(theirs.schema(), ours.schema());
    let (theirs, ours) = (theirs.metadata(), ours.metadata());
    let about = |of: &ParquetMetaData| {
        let about = of.file_metadata();
        (about.num_rows(), about.version(), about.key_value_metadata().cloned(), about.schema().clone())
    };
    assert_eq!(about(theirs), about(ours));
    assert_eq!(theirs.column_index().unwrap(), ours.column_index().unwrap());
    for (theirs, ours) in theirs.row_group(0).columns().iter().zip(ours.row_group(0).columns()) {
        let said = |of: &ColumnChunkMetaData| {
            let encodings: Vec<Encoding> = of.encodings().collect();
            let dictionary = of.dictionary_page_offset().is_some();
            let crypto = of.crypto_metadata().cloned();
            (encodings, of.compression(), of.num_values(), of.statistics().cloned(), dictionary, crypto)
        };
        assert_eq!(said(theirs), said(ours), "{}", theirs.column_path());
        // parquet-rs ends a page of vectors a few rows behind its size.
        if theirs.column_path().string() != "c1" {
            assert_eq!(theirs.compressed_size(), ours.compressed_size(), "{}", theirs.column_path());
        }
    }
}

#[test]
fn one_byte_changed_anywhere_is_told() {
    let file = made(&[rows(0, 70)]);
    let whole = read(&file).unwrap();
    let mut unnoticed = 0;
    for place in 0..file.len() {
        let mut changed = file.clone();
        changed[place] ^= 0x10;
        let found = std::panic::catch_unwind(|| read(&changed));
        if let Ok(Ok(found)) = found {
            // The magic, and the lengths of modules whose length is told elsewhere, too.
            assert_eq!(found, whole, "byte {place}");
            unnoticed += 1;
        }
    }
    assert!(unnoticed < file.len() / 100, "{unnoticed} of {}", file.len());
}

/// What was written so could not be read: the offsets of an array end at 2 GiB. The rows share their memory.
#[test]
fn a_column_that_no_array_holds_is_not_written() {
    let text: ArrayRef = Arc::new(StringArray::from(vec!["x".repeat(1 << 20); 4]));
    let rows = RecordBatch::try_from_iter([("c2", text)]).unwrap();
    let mut spans = Spans(vec![0]);
    for _ in 0..511 {
        assert!(spans.add(&rows).is_ok());
    }
    assert!(spans.add(&rows.slice(0, 3)).is_ok());
    match spans.add(&rows.slice(0, 1)) {
        Err(Failure::Store(StoreError::Bug(why))) => assert!(why.contains("2 GiB in column c2"), "{why}"),
        _ => panic!("2,048 MiB"),
    }
}

#[test]
fn nothing_of_a_file_shows_in_it() {
    let file = made(&[rows(0, 500)]);
    let contains = |needle: &[u8]| file.windows(needle.len()).any(|window| window == needle);
    assert!(!contains(b"label 3") && !contains(ROW_ID.as_bytes()) && !contains(b"parquet-rs"));
    assert!(file.starts_with(b"PARE") && file.ends_with(b"PARE"));
    // The same rows again are other bytes.
    assert_ne!(file, made(&[rows(0, 500)]));
}
