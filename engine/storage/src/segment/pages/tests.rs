//! Columns opened page by page are the columns that were written, and one byte changed in a page is told.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, FixedSizeListArray, Float32Array, UInt64Array},
    datatypes::{DataType, Field, Schema},
    record_batch::RecordBatch,
};
use parquet::arrow::ArrowWriter;
use sepal_crypto::Key;
use sepal_types::{ColumnId, FileId, SqlType, TableId};

use super::*;
use crate::{
    arrow_type,
    fixtures::TENANT,
    segment::{Identity, ROW_ID, layout, tests::by_parquet},
    stored_name,
};

const DIMENSIONS: u16 = 300;
const VECTOR: ColumnId = ColumnId(1);
const SPARSE: ColumnId = ColumnId(2);
/// Where the columns stand in the file, behind the row ids.
const VECTOR_ROOT: usize = 1;
const SPARSE_ROOT: usize = 2;

fn identity() -> Identity {
    Identity { tenant: TENANT, table: TableId(20_000), file: FileId([5; 16]), key: Key::from_bytes([6; 32]) }
}

fn vector_type() -> DataType {
    arrow_type(&SqlType::Vector(Some(DIMENSIONS)))
}

fn vectors(rows: usize, valid: Option<Vec<bool>>) -> ArrayRef {
    let DataType::FixedSizeList(item, size) = vector_type() else { unreachable!() };
    let values = (0..rows * usize::from(DIMENSIONS)).map(|value| value as f32);
    let values = Arc::new(Float32Array::from_iter_values(values));
    Arc::new(FixedSizeListArray::new(item, size, values, valid.map(Into::into)))
}

/// A segment of two columns of vectors, the second with NULLs.
fn written(path: &Path, rows: usize, group_rows: usize) -> Footer {
    let columns = [vectors(rows, None), vectors(rows, Some((0..rows).map(|row| row % 3 != 0).collect()))];
    let ids: ArrayRef = Arc::new(UInt64Array::from_iter_values(1..=rows as u64));
    let mut fields = vec![Field::new(ROW_ID, DataType::UInt64, false)];
    let mut stored = vec![ids];
    for (id, array) in [VECTOR, SPARSE].iter().zip(&columns) {
        let array = layout::to_stored(array).unwrap();
        fields.push(Field::new(stored_name(*id), array.data_type().clone(), array.null_count() > 0));
        stored.push(array);
    }
    let count = rows;
    let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), stored).unwrap();
    let properties = by_parquet(rows.schema_ref(), &identity(), group_rows);
    let file = std::fs::File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, rows.schema(), Some(properties)).unwrap();
    for first in (0..rows.num_rows()).step_by(100) {
        writer.write(&rows.slice(first, 100.min(rows.num_rows() - first))).unwrap();
    }
    writer.close().unwrap();
    opened(path, count)
}

fn opened(path: &Path, rows: usize) -> Footer {
    let bytes = std::fs::metadata(path).unwrap().len();
    Footer::open(&Disk::default(), path, &identity(), rows as u32, bytes).unwrap()
}

fn whole(footer: &Footer, path: &Path, column: ColumnId) -> Result<ArrayRef, StoreError> {
    footer.column(&Disk::default(), path, column, &vector_type()).map(Option::unwrap)
}

/// Where the vectors' pages lie, of all row groups.
fn pages(footer: &Footer, path: &Path) -> Vec<Range<u64>> {
    let disk = Disk::default();
    let column = footer.fixed(&disk, path, VECTOR_ROOT).unwrap().unwrap();
    let file = Opened::new(&disk, path).unwrap();
    let groups = 0..column.metadata.num_row_groups();
    let pages =
        groups.flat_map(|group| (0..column.locations(group).unwrap().len()).map(move |page| (group, page)));
    pages.map(|(group, page)| column.page(&file, group, page, 0).unwrap().span).collect()
}

#[test]
fn a_column_is_read_whole_by_one_thread_or_two() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("segment");
    for (rows, group_rows) in [(1, 1), (64, 64), (65, 100), (700, 99), (APART_BYTES / 1_200 + 3, 1_500)] {
        let footer = written(&path, rows, group_rows);
        let fixed = |root| footer.fixed(&Disk::default(), &path, root).unwrap();
        assert!(fixed(VECTOR_ROOT).is_some(), "nothing else is measured here");
        assert!(fixed(SPARSE_ROOT).is_none(), "levels come before the values there");
        let found = whole(&footer, &path, VECTOR).unwrap();
        assert_eq!(&found, &vectors(rows, None), "{rows} rows in groups of {group_rows}");
        let some = rows as u32 / 9..rows as u32 - rows as u32 / 9;
        let wanted = (VECTOR, &vector_type());
        let run = footer.column_run(&Disk::default(), &path, wanted, &some, &RunSpace::default()).unwrap();
        let expected = found.slice(some.start as usize, some.len());
        assert_eq!(&run.unwrap(), &expected, "{some:?} of {rows} rows");
        let valid = (0..rows).map(|row| row % 3 != 0).collect();
        assert_eq!(&whole(&footer, &path, SPARSE).unwrap(), &vectors(rows, Some(valid)));
    }
}

/// Of each page its header, its length, its nonce, a value and its tag; of columns that one thread reads, and two.
#[test]
fn one_byte_changed_in_a_page_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("segment");
    for (rows, group_rows) in [(300, 128), (APART_BYTES / 1_200 + 3, 1_500)] {
        let footer = written(&path, rows, group_rows);
        let spans = pages(&footer, &path);
        let sealed = std::fs::read(&path).unwrap();
        for span in [&spans[0], &spans[spans.len() / 2], &spans[spans.len() - 1]] {
            let (start, end) = (span.start as usize, span.end as usize);
            let step = if rows < 1_000 { 1 } else { 17 };
            for place in (start..start + 120).step_by(step).chain([(start + end) / 2, end - 17, end - 1]) {
                let mut changed = sealed.clone();
                changed[place] ^= 0x10;
                std::fs::write(&path, &changed).unwrap();
                match whole(&opened(&path, rows), &path, VECTOR) {
                    Err(StoreError::Corrupt { file, .. }) => assert!(file.ends_with("segment"), "{file}"),
                    other => panic!("byte {place} of page {span:?}: {:?}", other.map(|array| array.len())),
                }
            }
        }
    }
}

/// Whole columns do not need to know where each page lies: the rows are all there, and can be written anew.
#[test]
fn a_damaged_offset_index_takes_no_rows_along() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("segment");
    let footer = written(&path, 300, 128);
    let metadata = footer.metadata.metadata();
    let index = metadata.row_group(1).column(VECTOR_ROOT).offset_index_offset().unwrap();
    let mut changed = std::fs::read(&path).unwrap();
    changed[usize::try_from(index).unwrap() + 20] ^= 1;
    std::fs::write(&path, changed).unwrap();
    let footer = opened(&path, 300);
    assert!(footer.fixed(&Disk::default(), &path, VECTOR_ROOT).is_err());
    assert_eq!(&whole(&footer, &path, VECTOR).unwrap(), &vectors(300, None));
    let rows = footer.rows(&Disk::default(), &path, VECTOR, &vector_type(), &[0]);
    assert!(matches!(rows, Err(StoreError::Corrupt { .. })), "told by whoever needs it");
}

/// Each page is whole, and none is where it belongs.
#[test]
fn pages_that_change_places_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("segment");
    let bytes = |span: &Range<u64>| span.start as usize..span.end as usize;
    // Of one row group, and of two.
    for group_rows in [1_000, layout::rows_per_page(4 * usize::from(DIMENSIONS))] {
        let footer = written(&path, 1_000, group_rows);
        let spans = pages(&footer, &path);
        let of_one_length = |pair: &&[Range<u64>]| bytes(&pair[0]).len() == bytes(&pair[1]).len();
        let pair = spans.windows(2).find(of_one_length).expect("two that fit in each other's place");
        let (one, other) = (bytes(&pair[0]), bytes(&pair[1]));
        let sealed = std::fs::read(&path).unwrap();
        let mut changed = sealed.clone();
        changed[one.clone()].copy_from_slice(&sealed[other.clone()]);
        changed[other].copy_from_slice(&sealed[one]);
        std::fs::write(&path, changed).unwrap();
        let footer = opened(&path, 1_000);
        assert!(matches!(whole(&footer, &path, VECTOR), Err(StoreError::Corrupt { .. })));
        let all: Vec<u32> = (0..1_000).collect();
        let rows = footer.rows(&Disk::default(), &path, VECTOR, &vector_type(), &all);
        assert!(matches!(rows, Err(StoreError::Corrupt { .. })));
        assert_eq!(whole(&footer, &path, SPARSE).unwrap().len(), 1_000, "the other column is what it was");
    }
}

#[test]
fn what_is_unique_to_a_file_is_found_where_our_writer_puts_it() {
    let unique = |bytes: &[u8]| unique_of_file(bytes).map(<[u8]>::to_vec);
    assert_eq!(unique(&[0x1c, 0x1c, 0x28, 2, 7, 8, 0x11, 0, 0]), Some(vec![7, 8]));
    let others: [&[u8]; 6] = [
        &[],
        &[0x1c, 0x1c, 0x28],
        &[0x1c, 0x1c, 0x28, 9, 7, 8],
        // An AAD prefix that the file keeps; another algorithm; a longer string than any of ours.
        &[0x1c, 0x1c, 0x18, 1, 0, 0x18, 2, 7, 8],
        &[0x1c, 0x2c, 0x28, 2, 7, 8],
        &[0x1c, 0x1c, 0x28, 0x80, 1, 7, 8],
    ];
    assert!(others.iter().all(|bytes| unique(bytes).is_none()));
}
