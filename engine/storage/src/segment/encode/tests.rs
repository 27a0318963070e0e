//! What is encoded here is what parquet-rs writes and reads, and opens nowhere else.

use arrow::{
    array::{
        ArrayRef, BinaryArray, BooleanArray, Decimal128Array, FixedSizeBinaryArray, Float64Array, Int64Array,
        ListArray, StringArray, UInt32Array, UInt64Array,
    },
    compute,
    datatypes::{ArrowPrimitiveType, Field, Float16Type, Int32Type},
};
use bytes::Bytes;
use parquet::{
    arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder},
    encryption::decrypt::FileDecryptionProperties,
    file::metadata::PageIndexPolicy,
};
use sepal_crypto::Key;
use sepal_types::{ColumnId, FileId, TableId};

use super::*;
use crate::{
    disk::Disk,
    fixtures::TENANT,
    pieces::made_and_written,
    segment::{Footer, ROW_ID, tests::by_parquet},
};

type Half = <Float16Type as ArrowPrimitiveType>::Native;

/// Bytes of a vector: some of them are a page.
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

/// In a file, by our own reader: each column whole, and some of its rows.
fn is_read_back(batches: &[RecordBatch], groups: usize) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("segment");
    let (disk, file) = (Disk::default(), made(batches));
    std::fs::write(&path, &file).unwrap();
    let expected = compute::concat_batches(batches[0].schema_ref(), batches).unwrap();
    let count = expected.num_rows() as u32;
    let footer = Footer::open(&disk, &path, &identity(), count, file.len() as u64).unwrap();
    assert_eq!(footer.metadata.metadata().num_row_groups(), groups);
    assert_eq!(&footer.row_ids(&disk, &path).unwrap(), expected.column(0));
    let some: Vec<u32> = (0..count).filter(|row| row % 997 < 2 || row + 2 > count).collect();
    for (number, array) in (0..).zip(expected.columns()).skip(1) {
        let (column, wanted) = (ColumnId(number), array.data_type());
        let whole = footer.column(&disk, &path, column, wanted).unwrap().unwrap();
        assert_eq!(&whole, array, "column {number}");
        let rows = footer.rows(&disk, &path, column, wanted, &some).unwrap().unwrap();
        let taken = compute::take(array, &UInt32Array::from(some.clone()), None).unwrap();
        assert_eq!(&rows, &taken, "column {number}, {} rows", some.len());
    }
}

#[test]
fn what_is_made_here_is_what_our_reader_finds() {
    is_read_back(&[rows(0, 1)], 1);
    let batches: Vec<RecordBatch> = (0..17).map(|part| rows(part * 1_000, 1_000)).collect();
    is_read_back(&batches, 2);
}

/// Nothing but NULLs, values that no page holds several of, dictionaries that grow too large, rows far from each other.
#[test]
fn odd_columns_come_back() {
    let count = 3_000;
    let large = |row: usize| match row % 1_000 {
        7 => "ä".repeat(1 << 20),
        _ => format!("{:>width$}", row % 40, width = row % 600),
    };
    let of_none =
        FixedSizeBinaryArray::try_from_sparse_iter_with_size(vec![None::<[u8; 16]>; count].into_iter(), 16);
    let items = |row: usize| if row == 1_500 { 400_000 } else { row % 3 };
    let lists = (0..count).map(|row| Some((0..items(row)).map(|item| Some(item as i32))));
    let ids = (0..count as u64).map(|row| 1 + row * row * row * row * 50_000);
    let floats = [f64::NAN, -0.0, 0.0, f64::INFINITY, f64::MIN_POSITIVE / 2.0];
    let numbers = [i128::MAX / 10, -1, 0, i128::MIN / 10];
    let decimals =
        Decimal128Array::from_iter_values((0..count).map(|row| numbers[row % numbers.len()] / 1_000));
    let halves = (0..count).map(|row| Some([Half::NAN, Half::from_f32(row as f32)].map(Some)));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(UInt64Array::from_iter_values(ids)),
        Arc::new(Int64Array::from(vec![None::<i64>; count])),
        Arc::new(of_none.unwrap()),
        Arc::new(StringArray::from(vec![None::<&str>; count])),
        Arc::new(StringArray::from_iter_values((0..count).map(large))),
        Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(lists)),
        Arc::new(ListArray::new_null(Arc::new(Field::new("item", DataType::Utf8, true)), count)),
        Arc::new(Float64Array::from_iter_values((0..count).map(|row| floats[row % floats.len()]))),
        Arc::new(decimals.with_precision_and_scale(38, 2).unwrap()),
        Arc::new(ListArray::from_iter_primitive::<Float16Type, _, _>(halves)),
        Arc::new(BooleanArray::from(vec![None::<bool>; count])),
        Arc::new(StringArray::from_iter(
            (0..count).map(|row| (row > 2_000).then(|| "\u{10ffff}".repeat(row / 10))),
        )),
        Arc::new(BinaryArray::from_iter_values((0..count).map(|row| vec![0xff; row % 3]))),
    ];
    let named = |(number, array): (usize, ArrayRef)| {
        let name = if number == 0 { ROW_ID.to_owned() } else { format!("c{number}") };
        let nullable = array.null_count() > 0;
        (name, array, nullable)
    };
    let all = RecordBatch::try_from_iter_with_nullable(columns.into_iter().enumerate().map(named)).unwrap();
    is_read_back(&[all.slice(0, 1_000), all.slice(1_000, 1), all.slice(1_001, 1_999)], 1);
}

/// As many columns as a table may have, in row groups of which the footer does not say more than of few.
#[test]
fn many_columns_come_back() {
    const ROWS: usize = 2_100;
    let wide = |number: usize| -> ArrayRef {
        let numbers = (0..ROWS).map(|row| (number * 31 + row) as i64);
        match number {
            0 => Arc::new(UInt64Array::from_iter_values(5..5 + ROWS as u64)),
            _ if number.is_multiple_of(2) => Arc::new(Int64Array::from_iter_values(numbers)),
            _ => {
                let values: Vec<u8> = numbers.flat_map(i64::to_le_bytes).collect();
                Arc::new(FixedSizeBinaryArray::try_new(8, values.into(), None).unwrap())
            }
        }
    };
    let named = |number: usize| {
        let name = if number == 0 { ROW_ID.to_owned() } else { format!("c{number}") };
        (name, wide(number), false)
    };
    let mut columns: Vec<(String, ArrayRef, bool)> = (0..=1_600).map(named).collect();
    columns.push(("c1601".to_owned(), Arc::new(StringArray::from(vec!["x"; ROWS])), false));
    let rows = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
    // Two of three are more than a row group of few columns has.
    let file = made(&[rows.slice(0, 700), rows.slice(700, 700), rows.slice(1_400, 700)]);
    assert_eq!(read(&file).unwrap(), rows);
    assert_eq!(loaded(&file).unwrap().metadata().num_row_groups(), 1);
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
