//! Rows from their pages are those of the whole column, and a damaged page is told by whoever reads it.

use arrow::{
    array::{FixedSizeListArray, Float32Array, Int64Array, StringArray, UInt32Array},
    datatypes::{Field, Schema},
    record_batch::RecordBatch,
};
use parquet::arrow::ArrowWriter;
use proptest::prelude::*;
use sepal_crypto::Key;
use sepal_types::{FileId, SqlType, TableId};

use super::*;
use crate::{
    arrow_type,
    fixtures::TENANT,
    segment::{Identity, ROW_ID, tests::by_parquet},
};

pub(in crate::segment) const ROWS: usize = 2_000;
pub(in crate::segment) const DIMENSIONS: u16 = 300;
pub(in crate::segment) const KEY: ColumnId = ColumnId(1);
pub(in crate::segment) const LABEL: ColumnId = ColumnId(2);
pub(in crate::segment) const VECTOR: ColumnId = ColumnId(3);
pub(in crate::segment) const SPARSE: ColumnId = ColumnId(4);

fn identity() -> Identity {
    Identity { tenant: TENANT, table: TableId(20_000), file: FileId([5; 16]), key: Key::from_bytes([6; 32]) }
}

fn vectors(valid: Option<Vec<bool>>) -> ArrayRef {
    let DataType::FixedSizeList(item, size) = arrow_type(&SqlType::Vector(Some(DIMENSIONS))) else {
        unreachable!()
    };
    let values = (0..ROWS * usize::from(DIMENSIONS)).map(|value| value as f32);
    let values = Arc::new(Float32Array::from_iter_values(values));
    Arc::new(FixedSizeListArray::new(item, size, values, valid.map(Into::into)))
}

/// Numbers, texts with a dictionary, vectors, and vectors of which every third is NULL.
pub(in crate::segment) fn columns() -> Vec<(ColumnId, DataType, ArrayRef)> {
    let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(0..ROWS as i64));
    let labels: ArrayRef =
        Arc::new(StringArray::from_iter_values((0..ROWS).map(|row| format!("label {}", row % 7))));
    let sparse = vectors(Some((0..ROWS).map(|row| row % 3 != 0).collect()));
    [(KEY, keys), (LABEL, labels), (VECTOR, vectors(None)), (SPARSE, sparse)]
        .map(|(id, array)| (id, array.data_type().clone(), array))
        .into()
}

/// A segment in row groups of 700 rows.
pub(in crate::segment) fn written(path: &Path) -> Footer {
    let ids: ArrayRef = Arc::new(arrow::array::UInt64Array::from_iter_values(1..=ROWS as u64));
    let mut fields = vec![Field::new(ROW_ID, DataType::UInt64, false)];
    let mut stored = vec![ids];
    for (id, _, array) in columns() {
        let array = layout::to_stored(&array).unwrap();
        fields.push(Field::new(stored_name(id), array.data_type().clone(), array.null_count() > 0));
        stored.push(array);
    }
    let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), stored).unwrap();
    let properties = by_parquet(rows.schema_ref(), &identity(), 700);
    let file = std::fs::File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, rows.schema(), Some(properties)).unwrap();
    for first in (0..ROWS).step_by(100) {
        writer.write(&rows.slice(first, 100)).unwrap();
    }
    assert_eq!(writer.close().unwrap().num_row_groups(), 3);
    opened(path).unwrap()
}

pub(in crate::segment) fn opened(path: &Path) -> Result<Footer, StoreError> {
    let bytes = std::fs::metadata(path).unwrap().len();
    Footer::open(&Disk::default(), path, &identity(), ROWS as u32, bytes)
}

#[test]
fn they_are_the_columns_rows() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("segment");
    let footer = written(&path);
    let all: Vec<u32> = (0..ROWS as u32).collect();
    for positions in [&[][..], &[0], &[ROWS as u32 - 1], &[63, 64, 699, 700, 701, 1_399, 1_400], &all] {
        for (id, ty, whole) in columns() {
            let found = footer.rows(&Disk::default(), &path, id, &ty, positions).unwrap().unwrap();
            let expected =
                arrow::compute::take(&whole, &UInt32Array::from(positions.to_vec()), None).unwrap();
            assert_eq!(&found, &expected, "column {id}, {} rows", positions.len());
        }
    }
    let absent = footer.rows(&Disk::default(), &path, ColumnId(99), &DataType::Int64, &[1]).unwrap();
    assert!(absent.is_none(), "the segment is older than the column");
}

/// Of a vector's page nothing but itself is read.
#[test]
fn a_damaged_page_is_told_by_who_reads_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("segment");
    let footer = written(&path);
    let ty = arrow_type(&SqlType::Vector(Some(DIMENSIONS)));
    let rows = |footer: &Footer, row: u32| footer.rows(&Disk::default(), &path, VECTOR, &ty, &[row]);
    let place = Place { group: 1, root: 3 };
    let file = Opened::new(&Disk::default(), &path).unwrap();
    let paged = footer.paged(&Disk::default(), &path).unwrap();
    let spans = pages(paged, &file, place, std::iter::once(200..201)).unwrap();
    let [span] = spans.as_slice() else { panic!("{spans:?}") };
    assert!(span.end - span.start < 200_000, "of 2,400,000 bytes: {span:?}");
    let mut sealed = std::fs::read(&path).unwrap();
    sealed[span.start as usize + 5_000] ^= 1;
    std::fs::write(&path, &sealed).unwrap();
    let footer = opened(&path).unwrap();
    assert!(rows(&footer, 700).is_ok() && rows(&footer, 300).is_ok() && rows(&footer, 1_999).is_ok());
    match rows(&footer, 900) {
        Err(StoreError::Corrupt { file, .. }) => assert!(file.ends_with("segment"), "{file}"),
        other => panic!("{other:?}"),
    }
    // Nor is the offset index believed when somebody wrote in it.
    let metadata = footer.metadata.metadata();
    let column = metadata.row_group(0).column(3);
    sealed[usize::try_from(column.offset_index_offset().unwrap()).unwrap() + 20] ^= 1;
    std::fs::write(&path, &sealed).unwrap();
    assert!(matches!(rows(&opened(&path).unwrap(), 0), Err(StoreError::Corrupt { .. })));
}

/// parquet-rs would ask the allocator for as much as it says, gigabytes perhaps, before it opens anything.
#[test]
fn a_page_that_says_another_length_is_not_handed_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("segment");
    let footer = written(&path);
    let file = Opened::new(&Disk::default(), &path).unwrap();
    let paged = footer.paged(&Disk::default(), &path).unwrap();
    let spans = pages(paged, &file, Place { group: 1, root: 2 }, std::iter::once(200..201)).unwrap();
    let sealed = std::fs::read(&path).unwrap();
    // The highest byte of a length, and the lowest.
    let length_at = spans[0].start as usize;
    for place in [length_at + 3, length_at] {
        let mut changed = sealed.clone();
        changed[place] ^= 0x40;
        std::fs::write(&path, &changed).unwrap();
        let footer = opened(&path).unwrap();
        let whole = footer.column(&Disk::default(), &path, LABEL, &DataType::Utf8);
        let rows = footer.rows(&Disk::default(), &path, LABEL, &DataType::Utf8, &[900]);
        for found in [whole, rows] {
            match found {
                Err(StoreError::Corrupt { why, .. }) => assert!(why.contains("as long as they say"), "{why}"),
                other => panic!("{other:?}"),
            }
        }
        // Whoever looks elsewhere notices nothing.
        footer.rows(&Disk::default(), &path, LABEL, &DataType::Utf8, &[0]).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn any_rows_are_the_columns_rows(wanted in prop::collection::btree_set(0..ROWS as u32, 1..60)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("segment");
        let footer = written(&path);
        let positions: Vec<u32> = wanted.into_iter().collect();
        for (id, ty, whole) in columns() {
            let found = footer.rows(&Disk::default(), &path, id, &ty, &positions).unwrap().unwrap();
            let expected =
                arrow::compute::take(&whole, &UInt32Array::from(positions.clone()), None).unwrap();
            prop_assert_eq!(&found, &expected);
        }
    }
}
