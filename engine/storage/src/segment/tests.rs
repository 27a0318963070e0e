//! Every type through Parquet and back, and that nothing readable is in the file.

use std::{path::Path, sync::Arc};

use arrow::{
    array::{
        Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, FixedSizeBinaryArray,
        FixedSizeListArray, Float32Array, Float64Array, Int16Array, Int32Array, IntervalMonthDayNanoArray,
        ListArray, StringArray, Time64MicrosecondArray, TimestampMicrosecondArray, UInt8Array,
    },
    buffer::OffsetBuffer,
    datatypes::{DataType, Field, IntervalMonthDayNano, Schema},
    record_batch::RecordBatch,
};
use parquet::{
    arrow::ArrowWriter, encryption::encrypt::FileEncryptionProperties, file::properties::WriterProperties,
};
use sepal_crypto::Key;
use sepal_types::{ColumnDef, ColumnId, FileId, RowId, SqlType, TableDef, TableId, TenantId};

use super::{Footer, Identity, write};
use crate::{
    ChunkRef, Freely, StoreError, arrow_type,
    chunk::{Chunk, MemoryChunk},
    disk::Disk,
    fixtures::{TENANT, batch, column, items},
    stored_name,
};

fn identity() -> Identity {
    Identity { tenant: TENANT, table: TableId(20_000), file: FileId([5; 16]), key: Key::from_bytes([6; 32]) }
}

/// What parquet-rs needs to write a whole segment, in row groups of `rows`: as it did before it was only asked to encode.
pub(super) fn by_parquet(schema: &Schema, identity: &Identity, rows: usize) -> WriterProperties {
    let encryption = FileEncryptionProperties::builder(identity.key.expose().to_vec())
        .with_footer_key_metadata(identity.file.as_bytes().to_vec())
        .with_aad_prefix(identity.aad_prefix())
        .with_aad_prefix_storage(false)
        .build()
        .unwrap();
    super::layout::writer_properties(schema)
        .with_file_encryption_properties(encryption)
        .set_max_row_group_row_count(Some(rows))
        .build()
}

fn memory(first_row: u64, rows: &RecordBatch) -> ChunkRef {
    ChunkRef::new(Chunk::memory(MemoryChunk::inserted(RowId(first_row), rows, 1).unwrap()))
}

fn lists(ty: &SqlType, lengths: &[usize], values: ArrayRef, nulls: &[bool]) -> ArrayRef {
    let DataType::List(item) = arrow_type(ty) else { panic!("{ty:?} is a list") };
    let offsets = OffsetBuffer::from_lengths(lengths.iter().copied());
    Arc::new(ListArray::new(item, offsets, values, Some(nulls.to_vec().into())))
}

fn bits(length: u32, bytes: &[u8], valid: &[bool]) -> ArrayRef {
    let DataType::FixedSizeList(item, size) = arrow_type(&SqlType::Bit(Some(length))) else { unreachable!() };
    let values = Arc::new(UInt8Array::from(bytes.to_vec()));
    Arc::new(FixedSizeListArray::new(item, size, values, Some(valid.to_vec().into())))
}

/// Vectors as halfvecs.
fn halved(vectors: &ArrayRef, ty: &SqlType) -> ArrayRef {
    arrow::compute::cast(vectors, &arrow_type(ty)).unwrap()
}

/// `{1:1.5}/5`, nothing, and `{}/5`.
fn sparse(valid: &[bool]) -> ArrayRef {
    let words = Int32Array::from(vec![i32::MAX, 0x3fc0_0000, i32::MIN + 10, i32::MIN + 10]);
    lists(&SqlType::SparseVec(Some(5)), &[3, 0, 1], Arc::new(words), valid)
}

/// Three rows of every type, the second NULL.
fn every_type() -> Vec<(SqlType, ArrayRef)> {
    let valid = [true, false, true];
    let vector = |dimensions: u16| -> ArrayRef {
        let DataType::FixedSizeList(item, size) = arrow_type(&SqlType::Vector(Some(dimensions))) else {
            unreachable!()
        };
        let values = Float32Array::from_iter_values((0..3 * dimensions).map(f32::from));
        Arc::new(FixedSizeListArray::new(item, size, Arc::new(values), Some(valid.to_vec().into())))
    };
    let interval = IntervalMonthDayNano::new(1, -2, 3_000);
    let uuids = || {
        FixedSizeBinaryArray::try_from_sparse_iter_with_size(
            [Some([1; 16]), None, Some([3; 16])].into_iter(),
            16,
        )
        .unwrap()
    };
    let decimal =
        Decimal128Array::from(vec![Some(1250), None, Some(-5)]).with_precision_and_scale(10, 2).unwrap();
    let intervals = || IntervalMonthDayNanoArray::from(vec![Some(interval), None, Some(interval)]);
    let floats: ArrayRef = Arc::new(Float32Array::from(vec![1.0, 2.0, 3.0]));
    vec![
        (SqlType::Bool, Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)]))),
        (SqlType::Int2, Arc::new(Int16Array::from(vec![Some(1), None, Some(-3)]))),
        (SqlType::Float8, Arc::new(Float64Array::from(vec![Some(f64::NAN), None, Some(-0.0)]))),
        (SqlType::Numeric(Some((10, 2))), Arc::new(decimal)),
        (SqlType::Varchar(Some(9)), Arc::new(StringArray::from(vec![Some("ä"), None, Some("")]))),
        (SqlType::Bytea, Arc::new(BinaryArray::from(vec![Some(&b"\0\xff"[..]), None, Some(b"")]))),
        (SqlType::Uuid, Arc::new(uuids())),
        (SqlType::Date, Arc::new(Date32Array::from(vec![Some(1), None, Some(-1)]))),
        (SqlType::Time, Arc::new(Time64MicrosecondArray::from(vec![Some(1), None, Some(2)]))),
        (SqlType::Timestamp, Arc::new(TimestampMicrosecondArray::from(vec![Some(1), None, Some(2)]))),
        (
            SqlType::Timestamptz,
            Arc::new(TimestampMicrosecondArray::from(vec![Some(1), None, Some(2)]).with_timezone("UTC")),
        ),
        (SqlType::Interval, Arc::new(intervals())),
        (SqlType::Vector(Some(3)), vector(3)),
        (SqlType::Vector(None), lists(&SqlType::Vector(None), &[2, 0, 1], Arc::clone(&floats), &valid)),
        (SqlType::Bit(Some(13)), bits(13, &[0xff, 0xf8, 0, 0, 1, 8], &valid)),
        (SqlType::HalfVec(Some(3)), halved(&vector(3), &SqlType::HalfVec(Some(3)))),
        (
            SqlType::HalfVec(None),
            halved(&lists(&SqlType::Vector(None), &[2, 0, 1], floats, &valid), &SqlType::HalfVec(None)),
        ),
        (SqlType::SparseVec(Some(5)), sparse(&valid)),
        (
            SqlType::Array(Box::new(SqlType::Text)),
            lists(
                &SqlType::Array(Box::new(SqlType::Text)),
                &[2, 0, 0],
                Arc::new(StringArray::from(vec![Some("a"), None])),
                &valid,
            ),
        ),
        (
            SqlType::Array(Box::new(SqlType::Interval)),
            lists(&SqlType::Array(Box::new(SqlType::Interval)), &[1, 0, 2], Arc::new(intervals()), &valid),
        ),
        (
            SqlType::Array(Box::new(SqlType::Vector(Some(3)))),
            lists(&SqlType::Array(Box::new(SqlType::Vector(Some(3)))), &[1, 0, 2], vector(3), &valid),
        ),
    ]
}

#[test]
fn every_type_survives() {
    let typed = every_type();
    let columns: Vec<ColumnDef> =
        typed.iter().zip(1..).map(|((ty, _), id)| column(id, "x", ty.clone())).collect();
    let fields: Vec<Field> = columns
        .iter()
        .map(|column| Field::new(stored_name(column.id), arrow_type(&column.ty), true))
        .collect();
    let arrays: Vec<ArrayRef> = typed.iter().map(|(_, array)| Arc::clone(array)).collect();
    let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap();
    let def = TableDef { columns, uniques: Vec::new(), indexes: Vec::new(), ..items(20_000, "items") };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("segment");
    // Sliced, so that offsets that do not start at zero are stored right too.
    let inputs = [memory(1, &rows.slice(0, 1)), memory(2, &rows.slice(1, 2)), memory(9, &rows)];
    let written = write(&Disk::default(), &path, &identity(), &def, &inputs, &Freely).unwrap().unwrap();
    assert_eq!((written.rows, written.first_row, written.last_row), (6, RowId(1), RowId(11)));
    let footer = Footer::open(&Disk::default(), &path, &identity(), written.rows, written.bytes).unwrap();
    for (column, (ty, array)) in def.columns.iter().zip(&typed) {
        let found = footer.column(&Disk::default(), &path, column.id, &arrow_type(ty)).unwrap().unwrap();
        let expected = arrow::compute::concat(&[array, array]).unwrap();
        assert_eq!(found.to_data(), expected.to_data(), "{}", ty.display_name());
    }
    assert!(footer.column(&Disk::default(), &path, ColumnId(99), &DataType::Int64).unwrap().is_none());
}

/// More than 2 GiB into the buffer that it shares with others. Zeros that nobody touches take no memory.
#[test]
fn a_slice_of_vectors_is_stored_from_wherever_it_begins() {
    let first = 1_i32 << 29;
    let values = Arc::new(Float32Array::from(vec![0.0; (1 << 29) + 3]));
    let DataType::List(item) = arrow_type(&SqlType::Vector(None)) else { unreachable!() };
    let offsets = OffsetBuffer::new(vec![first, first + 1, first + 3].into());
    let array: ArrayRef = Arc::new(ListArray::new(item, offsets, values, None));
    let stored = super::layout::to_stored(&array).unwrap();
    let expected = BinaryArray::from_vec(vec![&[0; 4][..], &[0; 8]]);
    assert_eq!(stored.to_data(), expected.to_data());
}

#[test]
fn vectors_are_not_copied_on_the_way_out_of_parquet() {
    let ids: Vec<i64> = (0..5_000).collect();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("segment");
    let def = items(20_000, "items");
    let written = write(&Disk::default(), &path, &identity(), &def, &[memory(1, &batch(&ids))], &Freely)
        .unwrap()
        .unwrap();
    let footer = Footer::open(&Disk::default(), &path, &identity(), written.rows, written.bytes).unwrap();
    let vectors = footer
        .column(&Disk::default(), &path, ColumnId(3), &arrow_type(&def.columns[2].ty))
        .unwrap()
        .unwrap();
    let expected = batch(&ids);
    assert_eq!(vectors.to_data(), expected.column(2).to_data());
    assert_eq!(vectors.nulls(), None);
}

#[test]
fn columns_of_several_row_groups_come_out_whole() {
    let typed = every_type();
    let ids: ArrayRef = Arc::new(arrow::array::UInt64Array::from_iter_values(1..=6));
    let mut fields = vec![Field::new(super::ROW_ID, DataType::UInt64, false)];
    let (mut stored, mut expected) = (vec![ids], Vec::new());
    for ((ty, array), id) in typed.iter().zip(1..) {
        let twice = arrow::compute::concat(&[array, array]).unwrap();
        let column = super::layout::to_stored(&twice).unwrap();
        fields.push(Field::new(stored_name(ColumnId(id)), column.data_type().clone(), true));
        stored.push(column);
        expected.push((ColumnId(id), arrow_type(ty), twice));
    }
    let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), stored).unwrap();
    let properties = by_parquet(rows.schema_ref(), &identity(), 2);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("segment");
    let file = std::fs::File::create(&path).unwrap();
    let mut writer = ArrowWriter::try_new(file, rows.schema(), Some(properties)).unwrap();
    writer.write(&rows).unwrap();
    assert_eq!(writer.close().unwrap().num_row_groups(), 3);
    let bytes = std::fs::metadata(&path).unwrap().len();
    let footer = Footer::open(&Disk::default(), &path, &identity(), 6, bytes).unwrap();
    for (column, ty, expected) in expected {
        let found = footer.column(&Disk::default(), &path, column, &ty).unwrap().unwrap();
        assert_eq!(found.to_data(), expected.to_data(), "{ty}");
    }
}

#[test]
fn deleted_rows_stay_behind_and_interleaved_ids_are_ordered() {
    let dir = tempfile::tempdir().unwrap();
    let def = items(20_000, "items");
    let mut first = memory(1, &batch(&[1, 2, 3]));
    first.deleted = Arc::new([0, 2].into_iter().collect());
    let spread =
        crate::chunk::merge(&def, &[memory(5, &batch(&[5])), memory(8, &batch(&[8]))], 1).unwrap().unwrap();
    let inputs = [ChunkRef::new(Chunk::memory(spread)), memory(6, &batch(&[6, 7])), first];
    let path = dir.path().join("segment");
    let written = write(&Disk::default(), &path, &identity(), &def, &inputs, &Freely).unwrap().unwrap();
    assert_eq!((written.rows, written.first_row, written.last_row), (5, RowId(2), RowId(8)));
    let footer = Footer::open(&Disk::default(), &path, &identity(), written.rows, written.bytes).unwrap();
    let ids = footer.row_ids(&Disk::default(), &path).unwrap();
    assert_eq!(ids.to_data(), arrow::array::UInt64Array::from(vec![2, 5, 6, 7, 8]).to_data());
    let keys = footer.column(&Disk::default(), &path, ColumnId(1), &DataType::Int64).unwrap().unwrap();
    assert_eq!(keys.to_data(), arrow::array::Int64Array::from(vec![2, 5, 6, 7, 8]).to_data());

    let mut gone = memory(1, &batch(&[1]));
    gone.deleted = Arc::new([0].into_iter().collect());
    let path = dir.path().join("empty");
    assert!(write(&Disk::default(), &path, &identity(), &def, &[gone], &Freely).unwrap().is_none());
    assert!(!path.exists());
}

#[test]
fn a_segment_opens_only_where_it_belongs_and_shows_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("segment");
    let def = items(20_000, "items");
    let rows = crate::fixtures::batch_of(&[1, 2], &["canary-label".into(), "other".into()]);
    let written =
        write(&Disk::default(), &path, &identity(), &def, &[memory(1, &rows)], &Freely).unwrap().unwrap();
    let open = |identity: &Identity| {
        Footer::open(&Disk::default(), &path, identity, written.rows, written.bytes).map(drop)
    };
    open(&identity()).unwrap();
    for other in [
        Identity { tenant: TenantId([1; 16]), ..identity() },
        Identity { table: TableId(20_001), ..identity() },
        Identity { file: FileId([1; 16]), ..identity() },
        Identity { key: Key::random(), ..identity() },
    ] {
        assert!(matches!(open(&other), Err(StoreError::Corrupt { .. })));
    }
    let bytes = std::fs::read(&path).unwrap();
    let contains = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
    assert!(!contains(b"canary") && !contains(b"row_id"));
    assert!(bytes.ends_with(b"PARE"), "the footer is encrypted");
}

/// Rows as a segment stores them, in a file that somebody else wrote with parquet-rs.
fn forged(path: &Path, properties: WriterProperties) -> u64 {
    let rows = batch(&[1, 2, 3]);
    let row_ids: ArrayRef = Arc::new(arrow::array::UInt64Array::from(vec![1, 2, 3]));
    let mut columns = vec![(super::ROW_ID.to_owned(), row_ids)];
    for (field, array) in rows.schema().fields().iter().zip(rows.columns()) {
        columns.push((field.name().clone(), super::layout::to_stored(array).unwrap()));
    }
    let rows = RecordBatch::try_from_iter(columns).unwrap();
    let file = std::fs::File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, rows.schema(), Some(properties)).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
    std::fs::metadata(path).unwrap().len()
}

#[track_caller]
fn refused(path: &Path, bytes: u64, why: &str) {
    match Footer::open(&Disk::default(), path, &identity(), 3, bytes).map(drop) {
        Err(StoreError::Corrupt { file, why: found }) => {
            assert!(file.ends_with("segment") && found.contains(why), "{file}: {found}");
        }
        other => panic!("{other:?}"),
    }
}

/// parquet-rs takes such a file for one without encryption, whatever key it is given.
#[test]
fn a_plaintext_file_is_not_taken_for_a_segment() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("segment");
    let bytes = forged(&path, WriterProperties::default());
    refused(&path, bytes, "its footer is not sealed");
    // Nor with one or both of the marks of a sealed file.
    let plain = std::fs::read(&path).unwrap();
    for (at, why) in [(0, "its footer is not sealed"), (plain.len() - 4, "")] {
        let mut marked = std::fs::read(&path).unwrap();
        marked[at..at + 4].copy_from_slice(b"PARE");
        std::fs::write(&path, marked).unwrap();
        refused(&path, bytes, why);
    }
}

/// With a signed footer in plaintext, too, whoever made it.
#[test]
fn a_footer_in_plaintext_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("segment");
    let encryption = FileEncryptionProperties::builder(identity().key.expose().to_vec())
        .with_aad_prefix(identity().aad_prefix())
        .with_plaintext_footer(true)
        .build()
        .unwrap();
    let bytes =
        forged(&path, WriterProperties::builder().with_file_encryption_properties(encryption).build());
    refused(&path, bytes, "its footer is not sealed");
}

/// Once one column has a key of its own, parquet-rs writes those without one in plaintext.
#[test]
fn a_column_that_is_not_sealed_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("segment");
    for column in [super::ROW_ID, "c3"] {
        let encryption = FileEncryptionProperties::builder(identity().key.expose().to_vec())
            .with_aad_prefix(identity().aad_prefix())
            .with_column_key(column, identity().key.expose().to_vec())
            .build()
            .unwrap();
        let bytes =
            forged(&path, WriterProperties::builder().with_file_encryption_properties(encryption).build());
        refused(&path, bytes, "not sealed under the file's key");
    }
}

#[test]
fn a_read_that_fails_is_not_damage() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("segment");
    // Opens as no file does: a loop.
    std::os::unix::fs::symlink(&path, &path).unwrap();
    let error = Footer::open(&Disk::default(), &path, &identity(), 3, 1_000).map(drop).unwrap_err();
    assert!(matches!(error, StoreError::Io { action: "read", .. }), "{error}");
}
