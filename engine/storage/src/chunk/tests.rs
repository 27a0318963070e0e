//! Keys, merging, columns that came later, and the cache's budget.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, AsArray, Float64Array, Int32Array, Int64Array, IntervalMonthDayNanoArray,
        StringArray,
    },
    datatypes::{
        Date32Type, Float16Type, Float32Type, Int32Type, Int64Type, IntervalMonthDayNano,
        TimestampMicrosecondType, UInt8Type,
    },
};
use sepal_types::{ColumnId, FileId, RowId, SqlType, TableId, TenantId};

use super::{CacheKey, Chunk, ChunkRef, ColumnCache, KeyMap, MemoryChunk, merge};
use crate::{
    NoBlobs, Op, RunSpace, StoreError, arrow_type,
    fixtures::{TENANT, batch, column, commit, create, items, put},
};

fn found(map: &KeyMap, keys: &KeyMap) -> Vec<Vec<u32>> {
    (0..u32::try_from(keys.len()).unwrap())
        .map(|key| {
            let mut positions: Vec<u32> = map.find(keys, key).collect();
            positions.sort_unstable();
            positions
        })
        .collect()
}

#[test]
fn keys_are_found_and_duplicates_counted() {
    let held: ArrayRef = Arc::new(Int64Array::from(vec![Some(5), None, Some(-1), Some(5), None]));
    let map = KeyMap::build(&[held]).unwrap();
    assert_eq!(map.duplicate(), Some(3));
    assert_eq!(map.present().collect::<Vec<_>>(), [0, 2, 3], "NULLs are in no map");
    let wanted: ArrayRef = Arc::new(Int64Array::from(vec![5, -1, 0]));
    assert_eq!(found(&map, &KeyMap::build(&[wanted]).unwrap()), [vec![0, 3], vec![2], vec![]]);

    let many: ArrayRef = Arc::new(Int64Array::from_iter_values((0..10_000).map(|i| i * 7)));
    let map = KeyMap::build(&[Arc::clone(&many)]).unwrap();
    assert_eq!(map.duplicate(), None);
    assert!((0..10_000).all(|key| map.find(&map, key).eq([key])));
}

#[test]
fn several_columns_make_one_key() {
    let a: ArrayRef = Arc::new(StringArray::from(vec![Some("x"), Some("xy"), None]));
    let b: ArrayRef = Arc::new(StringArray::from(vec![Some("yz"), Some("z"), Some("z")]));
    let map = KeyMap::build(&[a, b]).unwrap();
    assert_eq!(map.duplicate(), None);
    assert_eq!(map.present().count(), 2);
}

#[test]
fn equality_is_postgres() {
    let zeros: ArrayRef = Arc::new(Float64Array::from(vec![0.0, -0.0]));
    assert_eq!(KeyMap::build(&[Arc::clone(&zeros)]).unwrap().duplicate(), Some(1));
    assert_eq!(KeyMap::build(&[Arc::clone(&zeros), zeros]).unwrap().duplicate(), Some(1));
    let nans: ArrayRef = Arc::new(Float64Array::from(vec![f64::NAN, -f64::NAN]));
    assert_eq!(KeyMap::build(&[nans]).unwrap().duplicate(), Some(1));
    let month = IntervalMonthDayNano::new(1, 0, 0);
    let days = IntervalMonthDayNano::new(0, 29, 86_400_000_000_000);
    let intervals: ArrayRef = Arc::new(IntervalMonthDayNanoArray::from(vec![month, days]));
    assert_eq!(KeyMap::build(&[intervals]).unwrap().duplicate(), Some(1));
}

fn chunk(first_row: u64, ids: &[i64]) -> ChunkRef {
    ChunkRef::new(Chunk::memory(MemoryChunk::inserted(RowId(first_row), &batch(ids), 1).unwrap()))
}

#[test]
fn merged_rows_come_in_row_order_without_the_deleted() {
    let mut late = chunk(10, &[10, 11, 12]);
    late.deleted = Arc::new([1].into_iter().collect());
    let merged = merge(&items(20_000, "items"), &[late, chunk(5, &[5, 6])], 1).unwrap().unwrap();
    let merged = Chunk::memory(merged);
    assert_eq!(merged.row_ids().unwrap().values().to_vec(), [5, 6, 10, 12]);
    let ids = merged.column(&column(1, "id", SqlType::Int8)).unwrap();
    assert_eq!(ids.as_primitive::<Int64Type>().values().to_vec(), [5, 6, 10, 12]);
    assert_eq!(merged.position(RowId(10)).unwrap(), Some(2));
    assert_eq!(merged.position(RowId(11)).unwrap(), None);
    assert_eq!(merged.row_at(3).unwrap(), RowId(12));

    let mut gone = chunk(1, &[1]);
    gone.deleted = Arc::new([0].into_iter().collect());
    assert!(merge(&items(20_000, "items"), &[gone], 1).unwrap().is_none());
}

#[test]
fn columns_added_later_have_their_missing_value() {
    let chunk = chunk(1, &[1, 2]).chunk;
    let with = |ty: SqlType, missing: &str| {
        let mut column = column(9, "added", ty.clone());
        column.missing = Some(missing.into());
        let array = chunk.column(&column).unwrap();
        assert_eq!(
            (array.len(), array.null_count(), array.data_type()),
            (2, 0, &arrow_type(&ty)),
            "{missing}"
        );
        array
    };
    assert_eq!(with(SqlType::Int4, "7").as_primitive::<Int32Type>().value(1), 7);
    assert!(with(SqlType::Bool, "t").as_boolean().value(1));
    assert_eq!(with(SqlType::Text, "a,\"b").as_string::<i32>().value(1), "a,\"b");
    assert_eq!(with(SqlType::Bytea, "\\x00ff").as_binary::<i32>().value(1), [0, 255]);
    let uuid = with(SqlType::Uuid, "00000000-0000-0000-0000-0000000000ff");
    assert_eq!(uuid.as_fixed_size_binary().value(1)[15], 255);
    let vector = with(SqlType::Vector(Some(2)), "[1,2.5]").as_fixed_size_list().value(1);
    assert_eq!(vector.as_primitive::<Float32Type>().values().to_vec(), [1.0, 2.5]);
    let half = with(SqlType::HalfVec(Some(2)), "[1,2.5]").as_fixed_size_list().value(1);
    let half: Vec<u16> =
        half.as_primitive::<Float16Type>().values().iter().map(|half| half.to_bits()).collect();
    assert_eq!(half, [0x3c00, 0x4100]);
    let bits = with(SqlType::Bit(Some(9)), "101100011").as_fixed_size_list().value(1);
    assert_eq!(bits.as_primitive::<UInt8Type>().values().to_vec(), [0b1011_0001, 0b1000_0000]);
    let sparse = with(SqlType::SparseVec(Some(5)), "{1:1.5}/5").as_list::<i32>().value(1);
    let words = [i32::MAX, 0x3fc0_0000, i32::MIN + 10];
    assert_eq!(sparse.as_primitive::<Int32Type>().values().to_vec(), words);
    let any = with(SqlType::Vector(None), "[1,2,3]").as_list::<i32>().value(1);
    assert_eq!(any.len(), 3);
    let texts = with(SqlType::Array(Box::new(SqlType::Text)), "{a,NULL,\"NULL\",\"b \\\"c\\\"\"}");
    let texts = texts.as_list::<i32>().value(1);
    let texts: Vec<Option<&str>> = texts.as_string::<i32>().iter().collect();
    assert_eq!(texts, [Some("a"), None, Some("NULL"), Some("b \"c\"")]);
    for (ty, text) in [
        (SqlType::Int8, "-5"),
        (SqlType::Float8, "1.5"),
        (SqlType::Numeric(Some((10, 2))), "12.50"),
        (SqlType::Numeric(None), "3"),
        (SqlType::Date, "2024-02-29"),
        (SqlType::Time, "12:34:56.789"),
        (SqlType::Timestamp, "2024-02-29 12:00:00"),
        (SqlType::Timestamptz, "2024-02-29 12:00:00+00"),
        (SqlType::Interval, "1 day 2 hours"),
        (SqlType::Jsonb, "{}"),
    ] {
        with(ty, text);
    }
    let mut wrong = column(9, "added", SqlType::Int4);
    wrong.missing = Some("x".into());
    assert!(chunk.column(&wrong).is_err());
    assert_eq!(chunk.column(&column(9, "added", SqlType::Int4)).unwrap().null_count(), 2);
}

/// Arrow reads none of these.
#[test]
fn missing_times_may_be_infinite_and_far_away() {
    let chunk = chunk(1, &[1, 2]).chunk;
    let added = |ty: SqlType, missing: &str| {
        let mut column = column(9, "added", ty);
        column.missing = Some(missing.into());
        chunk.column(&column)
    };
    let with = |ty: SqlType, missing: &str| added(ty, missing).unwrap();
    for (text, days) in [
        ("infinity", i32::MAX),
        ("-infinity", i32::MIN),
        ("0001-12-31 BC", -719_163),
        ("10000-01-01", 2_932_897),
    ] {
        assert_eq!(with(SqlType::Date, text).as_primitive::<Date32Type>().value(1), days, "{text}");
    }
    for (text, micros) in [
        ("infinity", i64::MAX),
        ("-infinity", i64::MIN),
        ("1970-01-01 00:53:28.5+00:53:28", 500_000),
        ("10000-01-01 00:00:00-05:30", (2_932_897 * 86_400 + 19_800) * 1_000_000),
        ("0001-12-31 00:00:00+00 BC", -719_163 * 86_400_000_000),
    ] {
        let instant = with(SqlType::Timestamptz, text);
        assert_eq!(instant.as_primitive::<TimestampMicrosecondType>().value(1), micros, "{text}");
    }
    assert_eq!(
        with(SqlType::Timestamp, "infinity").as_primitive::<TimestampMicrosecondType>().value(0),
        i64::MAX
    );
    for (ty, text) in [(SqlType::Date, "10000-02-30"), (SqlType::Timestamp, "10000-01-01 x")] {
        assert!(added(ty, text).is_err(), "{text}");
    }
}

#[test]
fn runs_are_parts_of_whole_columns_and_are_not_kept() {
    const ITEMS: TableId = TableId(20_000);
    let dir = tempfile::tempdir().unwrap();
    let store = create(dir.path());
    commit(&store, vec![Op::CreateTable(items(20_000, "items"))]);
    put(&store, ITEMS, &(0..1_000).collect::<Vec<_>>());
    store.checkpoint(&NoBlobs).unwrap();
    put(&store, ITEMS, &(1_000..1_100).collect::<Vec<_>>());
    let snapshot = store.snapshot();
    let version = snapshot.table(ITEMS).unwrap();
    assert_eq!(version.chunks.len(), 2);
    let mut late = column(9, "late", SqlType::Int4);
    late.missing = Some("7".into());
    let space = RunSpace::default();
    for held in &version.chunks {
        let chunk = &held.chunk;
        for rows in [0..1, 5..chunk.rows() - 1, 0..chunk.rows()] {
            for column in version.def.columns.iter().chain([&late]) {
                store.cache.forget_tenant(TENANT);
                let keys = store.cache.tenant_bytes(TENANT);
                let run = chunk.column_run(column, rows.clone(), &space).unwrap();
                assert_eq!(store.cache.tenant_bytes(TENANT), keys);
                let whole = chunk.column(column).unwrap().slice(rows.start as usize, rows.len());
                assert_eq!((&run, run.data_type()), (&whole, &arrow_type(&column.ty)), "{rows:?}");
                assert_eq!(&chunk.column_run(column, rows.clone(), &space).unwrap(), &run, "from the cache");
            }
            let ids = chunk.row_ids_run(rows.clone()).unwrap();
            let whole = chunk.row_ids().unwrap();
            assert_eq!(*ids, whole.slice(rows.start as usize, rows.len()));
        }
        let (column, end) = (&version.def.columns[0], chunk.rows());
        assert!(chunk.run(&[Some(column.id), None], 0..end, 1).is_ok_and(|run| run.rows.start == 0));
        let empty = end..end;
        for rows in [empty, 0..end + 1] {
            assert!(matches!(chunk.column_run(column, rows.clone(), &space), Err(StoreError::Bug(_))));
            assert!(matches!(chunk.row_ids_run(rows.clone()), Err(StoreError::Bug(_))));
            assert!(matches!(chunk.run(&[None], rows, 1), Err(StoreError::Bug(_))));
        }
    }
}

#[test]
fn the_cache_keeps_its_budget_and_its_tenants_apart() {
    let array = |value: i32| -> ArrayRef { Arc::new(Int32Array::from(vec![value; 250])) };
    let bytes = array(0).get_array_memory_size();
    let cache = ColumnCache::new(bytes * 2);
    let key = |tenant: u8, column: u32| CacheKey {
        tenant: TenantId([tenant; 16]),
        file: FileId([1; 16]),
        column: Some(ColumnId(column)),
    };
    cache.put(key(1, 1), &array(1));
    cache.put(key(2, 1), &array(2));
    assert_eq!(cache.get(&key(1, 1)).unwrap().as_primitive::<Int32Type>().value(0), 1);
    cache.put(key(1, 2), &array(3));
    assert_eq!(cache.used_bytes(), bytes * 2);
    assert!(cache.get(&key(1, 1)).is_none(), "the least recently used column of who holds most left");
    assert!(cache.get(&key(2, 1)).is_some(), "one tenant does not push out another's");
    cache.put(key(1, 2), &array(4));
    assert_eq!(cache.used_bytes(), bytes * 2, "a replaced column is not counted twice");
    cache.forget_tenant(TenantId([1; 16]));
    assert_eq!((cache.used_bytes(), cache.tenant_bytes(TenantId([2; 16]))), (bytes, bytes));
    cache.forget_file(TenantId([2; 16]), FileId([1; 16]));
    assert_eq!(cache.used_bytes(), 0);
    let large: ArrayRef = Arc::new(Int32Array::from(vec![0; 10_000]));
    cache.put(key(1, 1), &large);
    assert_eq!(cache.used_bytes(), 0, "a column above the budget is not kept");
}

#[test]
fn maps_of_segments_keys_count_for_as_long_as_they_live() {
    const ITEMS: TableId = TableId(20_000);
    let dir = tempfile::tempdir().unwrap();
    let store = create(dir.path());
    commit(&store, vec![Op::CreateTable(items(20_000, "items"))]);
    put(&store, ITEMS, &(0..1_000).collect::<Vec<_>>());
    store.checkpoint(&NoBlobs).unwrap();
    let cache = Arc::clone(&store.cache);
    cache.forget_tenant(TENANT);
    assert_eq!(cache.tenant_bytes(TENANT), 0);
    // Whether its key is there already.
    put(&store, ITEMS, &[1_000]);
    cache.forget_tenant(TENANT);
    let map = cache.tenant_bytes(TENANT);
    assert!((16_000..20_000).contains(&map), "1,000 words and 2,048 slots: {map} bytes");
    put(&store, ITEMS, &[1_001]);
    assert_eq!(cache.tenant_bytes(TENANT), map, "once");
    assert_eq!(cache.used_bytes(), map);
    drop(store);
    assert_eq!((cache.tenant_bytes(TENANT), cache.used_bytes()), (0, 0));
}
