//! What a transaction's private view accepts and refuses.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, BinaryArray, Int64Array, StringArray},
    buffer::{Buffer, OffsetBuffer},
    datatypes::{DataType, Field, Schema},
    record_batch::RecordBatch,
};
use roaring::RoaringTreemap;
use sepal_types::{
    CheckDef, ColumnDef, ColumnId, RelationName, RowId, SearchPath, SqlType, TableDef, TableId, UniqueDef,
};

use super::{Rules, Snapshot, State, TableVersion, insert::check_values};
use crate::{
    Op, StoreError,
    fixtures::{batch, batch_of, items, scan},
};

const ITEMS: TableId = TableId(20_000);

fn apply(snapshot: &Snapshot, ops: &[Op]) -> Result<Snapshot, StoreError> {
    ops.iter().try_fold(snapshot.clone(), |snapshot, op| snapshot.apply(op))
}

fn with_items() -> Snapshot {
    Snapshot::new(State::default()).apply(&Op::CreateTable(items(20_000, "items"))).unwrap()
}

fn insert(first_row: u64, ids: &[i64]) -> Op {
    Op::Insert { table: ITEMS, first_row: RowId(first_row), rows: batch(ids) }
}

fn delete(rows: &[u64]) -> Op {
    Op::Delete { table: ITEMS, rows: rows.iter().copied().map(RowId).collect() }
}

#[test]
fn a_taken_key_is_named_as_postgres_names_it() {
    let snapshot = with_items().apply(&insert(1, &[1, 2])).unwrap();
    let error = snapshot.apply(&insert(3, &[3, 2])).unwrap_err();
    let StoreError::UniqueViolation { table, constraint, columns, key_text, .. } = error else {
        panic!("{error}")
    };
    assert_eq!((&*table, &*constraint, &*columns, &*key_text), ("items", "items_pkey", "id", "2"));
    assert!(snapshot.apply(&insert(3, &[3, 3])).is_err(), "within one batch");
    // Freed by a delete of the same transaction, before the insert.
    let snapshot = apply(&snapshot, &[delete(&[2]), insert(3, &[2])]).unwrap();
    assert_eq!(scan(snapshot.table(ITEMS).unwrap()).into_keys().collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn rows_that_refer_are_found_among_live_rows_with_the_place_of_their_key() {
    let labelled = |first: u64, labels: &[&str]| {
        let labels: Vec<String> = labels.iter().map(ToString::to_string).collect();
        let ids: Vec<i64> = (first as i64..).take(labels.len()).collect();
        Op::Insert { table: ITEMS, first_row: RowId(first), rows: batch_of(&ids, &labels) }
    };
    let ops = [labelled(1, &["a", "b", "a"]), labelled(4, &["c", "a"]), delete(&[3])];
    let snapshot = apply(&with_items(), &ops).unwrap();
    let version = snapshot.table(ITEMS).unwrap();
    let keys: Vec<ArrayRef> = vec![Arc::new(StringArray::from(vec![Some("c"), None, Some("a"), Some("x")]))];
    let found = version.rows_referring(&[ColumnId(2)], &keys).unwrap();
    assert_eq!(found, [(2, RowId(1)), (0, RowId(4)), (2, RowId(5))]);
    let two: Vec<ArrayRef> =
        vec![Arc::new(Int64Array::from(vec![5, 4])), Arc::new(StringArray::from(vec!["a", "a"]))];
    let found = version.rows_referring(&[ColumnId(1), ColumnId(2)], &two).unwrap();
    assert_eq!(found, [(0, RowId(5))], "all columns of a key count");
    let nothing: Vec<ArrayRef> = vec![Arc::new(StringArray::from(vec![None::<&str>]))];
    assert!(version.rows_referring(&[ColumnId(2)], &nothing).unwrap().is_empty());
    // By a unique key, which has the columns in another order.
    let mut keyed = items(20_000, "items");
    keyed.uniques[0].columns = vec![ColumnId(2), ColumnId(1)];
    let snapshot = snapshot.apply(&Op::AlterTable(keyed)).unwrap();
    let found = snapshot.table(ITEMS).unwrap().rows_referring(&[ColumnId(1), ColumnId(2)], &two).unwrap();
    assert_eq!(found, [(0, RowId(5))], "the row with 4 has another label");
    let one: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(vec![Some(5), None, Some(3), Some(2)]))];
    let found = version.rows_referring(&[ColumnId(1)], &one).unwrap();
    assert_eq!(found, [(3, RowId(2)), (0, RowId(5))], "3 is deleted");
    let places = version.locate_each(&[RowId(1), RowId(3), RowId(5), RowId(9)]).unwrap();
    let rows: Vec<Option<RowId>> = places.iter().map(|place| place.map(|located| located.row)).collect();
    assert_eq!(rows, [Some(RowId(1)), None, Some(RowId(5)), None]);
}

/// Rows that were not asked to keep to a constraint do not come beside it.
#[test]
fn rows_mean_something_else_once_a_constraint_has_come() {
    let base = with_items();
    let mut def = items(20_000, "items");
    def.constraints.checks.push(CheckDef {
        id: TableId(20_009),
        name: "c".into(),
        expression: "\"id\" > 0".into(),
        shown: "(id > 0)".into(),
        columns: vec![ColumnId(1)],
        not_valid: false,
    });
    let head = base.apply(&Op::AlterTable(def)).unwrap();
    assert!(base.check_base(&base, &insert(1, &[1])).is_ok());
    let refused = head.check_base(&base, &insert(1, &[1]));
    assert_eq!(refused, Err(StoreError::WriteConflict { table: "items".into() }));
    assert!(head.check_base(&base, &delete(&[1])).is_ok());
}

/// Whoever only asks is told what whoever applies is told.
#[test]
fn what_is_admitted_applies() {
    let snapshot = apply(&with_items(), &[insert(1, &[1, 2, -3]), insert(4, &[9]), delete(&[2])]).unwrap();
    let other = Op::Insert { table: TableId(7), first_row: RowId(5), rows: batch(&[5]) };
    let narrow =
        Op::Insert { table: ITEMS, first_row: RowId(5), rows: batch(&[5]).project(&[0, 1]).unwrap() };
    let ops = [
        insert(5, &[5]),
        insert(5, &[]),
        insert(5, &[2]),
        insert(5, &[i64::MIN, 0, i64::MAX]),
        insert(5, &[1]),
        insert(5, &[6, -3]),
        insert(5, &[6, 6]),
        insert(u64::MAX, &[6]),
        delete(&[1]),
        delete(&[2]),
        other,
        narrow,
    ];
    let mut refused = 0;
    for op in &ops {
        let applied = snapshot.apply(op);
        assert_eq!(snapshot.admits(op), applied.as_ref().map(|_| ()).map_err(StoreError::clone), "{op:?}");
        let Ok(applied) = applied else {
            refused += 1;
            continue;
        };
        let admitted = snapshot.apply_admitted(op).unwrap();
        assert_eq!(scan(admitted.table(ITEMS).unwrap()), scan(applied.table(ITEMS).unwrap()));
        // It knows its keys, too.
        let again = Op::Insert { table: ITEMS, first_row: RowId(50), rows: batch(&[5]) };
        assert_eq!(admitted.admits(&again), applied.admits(&again));
    }
    assert_eq!(refused, 7);
}

#[test]
fn rows_are_deleted_once() {
    let snapshot = with_items().apply(&insert(1, &[1, 2, 3])).unwrap();
    let after = snapshot.apply(&delete(&[1, 3])).unwrap();
    assert_eq!(after.table(ITEMS).unwrap().live_rows(), 1);
    assert_eq!(snapshot.table(ITEMS).unwrap().live_rows(), 3, "the older snapshot keeps its rows");
    for gone in [&[1][..], &[2, 2], &[9]] {
        assert!(matches!(after.apply(&delete(gone)), Err(StoreError::WriteConflict { .. })), "{gone:?}");
    }
    assert!(matches!(snapshot.apply(&delete(&[2, 1])), Err(StoreError::Bug(_))));
    let table = after.table(ITEMS).unwrap();
    assert_eq!(table.locate(RowId(2)).unwrap(), Some((0, 1)));
    assert_eq!(table.locate(RowId(3)).unwrap(), None);
}

#[test]
fn newer_versions_of_some_rows_are_seen_and_nothing_else_of_theirs() {
    let seen = with_items().apply(&insert(1, &[1, 2, 3])).unwrap();
    let newest = apply(&seen, &[delete(&[1, 2]), insert(4, &[10, 20, 30])]).unwrap();
    let rows = |ids: &[u64]| ids.iter().copied().collect::<RoaringTreemap>();
    let ids = |snapshot: &Snapshot| scan(snapshot.table(ITEMS).unwrap()).into_keys().collect::<Vec<_>>();
    let mixed = seen.with_newer(&newest, ITEMS, &rows(&[1]), &rows(&[4])).unwrap();
    assert_eq!(ids(&mixed), [2, 3, 10], "2 is as it was, 20 and 30 are not there yet");
    let table = mixed.table(ITEMS).unwrap();
    assert_eq!(table.live_rows(), 3);
    assert_eq!(table.locate(RowId(1)).unwrap(), None);
    assert!(table.locate(RowId(4)).unwrap().is_some());
    let key = |id: i64| {
        let keys: ArrayRef = Arc::new(Int64Array::from(vec![id]));
        table.lookup_unique(&table.def.uniques[0], &[keys]).unwrap()[0]
    };
    assert_eq!([key(1), key(10), key(20)], [None, Some(RowId(4)), None]);
    // A key that has gone from one row to another meanwhile: to the statement both have it.
    let moved = apply(&seen, &[delete(&[1, 2]), insert(4, &[2])]).unwrap();
    let mixed = seen.with_newer(&moved, ITEMS, &rows(&[1]), &rows(&[4])).unwrap();
    let holders = |table: &TableVersion, id: Option<i64>| {
        let keys: ArrayRef = Arc::new(Int64Array::from(vec![id]));
        let found = table.find_key(&table.def.uniques[0], &[keys]).unwrap();
        for located in &found {
            assert_eq!(table.locate(located.row).unwrap(), Some((located.chunk, located.position)));
        }
        found.into_iter().map(|located| located.row.0).collect::<Vec<_>>()
    };
    assert_eq!(holders(mixed.table(ITEMS).unwrap(), Some(2)), [2, 4]);
    assert_eq!(holders(moved.table(ITEMS).unwrap(), Some(2)), [4]);
    assert_eq!(holders(moved.table(ITEMS).unwrap(), Some(1)), [0_u64; 0]);
    assert_eq!(holders(moved.table(ITEMS).unwrap(), None), [0_u64; 0]);
    // A row that was removed has no successor; a successor that is replaced in its turn stays as it was locked.
    let gone = seen.with_newer(&newest, ITEMS, &rows(&[1, 2]), &rows(&[])).unwrap();
    assert_eq!(ids(&gone), [3]);
    let later = newest.apply(&delete(&[4])).unwrap();
    assert_eq!(ids(&seen.with_newer(&later, ITEMS, &rows(&[1]), &rows(&[4])).unwrap()), [2, 3, 10]);
    assert_eq!(ids(&seen), [1, 2, 3]);
}

#[test]
fn keys_are_looked_up_across_chunks() {
    let snapshot = apply(&with_items(), &[insert(1, &[1, 2]), insert(3, &[3]), delete(&[2])]).unwrap();
    let table = snapshot.table(ITEMS).unwrap();
    let keys: ArrayRef = Arc::new(Int64Array::from(vec![Some(3), Some(2), None, Some(1), Some(9)]));
    let found = table.lookup_unique(&table.def.uniques[0], &[keys]).unwrap();
    assert_eq!(found, [Some(RowId(3)), None, None, Some(RowId(1)), None]);
}

#[test]
fn names_are_shared_by_tables_and_indexes_of_one_environment() {
    let snapshot = with_items();
    let taken = |name: &str| snapshot.apply(&Op::CreateTable(items(20_010, name)));
    assert_eq!(taken("items").unwrap_err(), StoreError::DuplicateTable("items".into()));
    assert_eq!(
        taken("items_embedding_idx").unwrap_err(),
        StoreError::DuplicateTable("items_embedding_idx".into())
    );
    let mut elsewhere = items(20_010, "items");
    elsewhere.environment = "staging".into();
    let both = snapshot.apply(&Op::CreateTable(elsewhere)).unwrap();
    assert_eq!(both.find("staging", "items").unwrap().def.id, TableId(20_010));
    assert_eq!(both.find("default", "items").unwrap().def.id, ITEMS);
    assert!(both.find("default", "items_embedding_idx").is_none(), "an index is not a table");

    let renamed = snapshot.apply(&Op::AlterTable(items(20_000, "goods"))).unwrap();
    assert!(renamed.find("default", "items").is_none());
    renamed.apply(&Op::CreateTable(items(20_010, "items"))).unwrap();
    let dropped = renamed.apply(&Op::DropTable(ITEMS)).unwrap();
    dropped.apply(&Op::CreateTable(items(20_020, "goods"))).unwrap();
    for op in [Op::DropTable(ITEMS), Op::Truncate(ITEMS), insert(1, &[1]), Op::AlterTable(items(20_000, "x"))]
    {
        assert_eq!(dropped.apply(&op).unwrap_err(), StoreError::NoSuchTable(ITEMS));
    }
}

fn schema(id: u32, name: &str) -> Op {
    Op::CreateTable(TableDef::of_schema(TableId(id), "default", name.into()))
}

/// `items` in a schema.
fn items_of(schema: &str, id: u32) -> TableDef {
    TableDef { schema: schema.into(), ..items(id, "items") }
}

#[test]
fn names_are_told_apart_by_their_schema() {
    let missing = with_items().apply(&Op::CreateTable(items_of("s", 20_020))).unwrap_err();
    assert_eq!(missing, StoreError::NoSuchSchema("s".into()));
    let both = apply(&with_items(), &[schema(20_010, "s"), Op::CreateTable(items_of("s", 20_020))]).unwrap();
    let found = |snapshot: &Snapshot, name: &RelationName| {
        snapshot.find("default", name).map(|version| version.def.id.0)
    };
    let bare = RelationName::bare("items");
    assert_eq!(found(&both, &bare), Some(20_000));
    assert_eq!(found(&both, &RelationName::qualified("s", "items")), Some(20_020));
    assert_eq!(found(&both, &RelationName::qualified("public", "items")), Some(20_000));
    assert_eq!(found(&both, &RelationName::qualified("none", "items")), None);
    assert!(both.find("default", "s").is_none(), "a schema is no table");
    let along = |path: &str| both.clone().searching(SearchPath::parse(path, "me").unwrap());
    assert_eq!(found(&along("s, public"), &bare), Some(20_020));
    assert_eq!(found(&along("none, public"), &bare), Some(20_000));
    assert_eq!(found(&along(""), &bare), None);
    // What is made of a snapshot keeps its path.
    let later = along("s").apply(&insert(1, &[1])).unwrap();
    assert_eq!(found(&later, &bare), Some(20_020));
    let visible = |path: &str, schema: &str| along(path).is_visible("default", schema, "items_pkey");
    assert!(visible("public, s", "public") && visible("s, public", "s"));
    assert!(!visible("public, s", "s") && !visible("", "public"));
    assert_eq!(both.schemas("default").map(|def| def.name.as_str()).collect::<Vec<_>>(), ["s"]);
    assert_eq!(both.schemas("staging").count(), 0);
    assert_eq!(both.tables().count(), 2);
    assert_eq!(both.apply(&schema(20_030, "s")).unwrap_err(), StoreError::DuplicateSchema("s".into()));
}

#[test]
fn a_schema_goes_with_all_that_is_in_it() {
    let base = apply(&with_items(), &[schema(20_010, "s")]).unwrap();
    let head = base.apply(&Op::CreateTable(items_of("s", 20_020))).unwrap();
    let dropped = Op::DropTable(TableId(20_010));
    assert!(matches!(head.apply(&dropped), Err(StoreError::WriteConflict { .. })));
    let renamed = Op::AlterTable(TableDef::of_schema(TableId(20_010), "default", "r".into()));
    for op in [&dropped, &renamed] {
        assert!(matches!(head.check_base(&base, op), Err(StoreError::WriteConflict { .. })), "{op:?}");
        assert!(base.check_base(&base, op).is_ok());
        let view = base.apply(op).unwrap();
        let rebased = head.rebase(&base, &view, std::slice::from_ref(op));
        assert!(matches!(rebased, Err(StoreError::WriteConflict { .. })), "{op:?}");
    }
    let moved = [renamed, Op::AlterTable(items_of("r", 20_020))];
    let after = apply(&head, &moved).unwrap();
    assert_eq!(after.find("default", &RelationName::qualified("r", "items")).unwrap().def.id.0, 20_020);
    assert!(!after.has_schema("default", "s"));
    let gone = apply(&head, &[Op::DropTable(TableId(20_020)), dropped]).unwrap();
    assert!(!gone.has_schema("default", "s") && gone.has_schema("default", "public"));
}

#[test]
fn many_small_inserts_leave_few_chunks() {
    let mut snapshot = with_items();
    for id in 0..1_000u32 {
        snapshot = snapshot.apply(&insert(u64::from(id) + 1, &[i64::from(id)])).unwrap();
        if id % 3 == 0 {
            snapshot = snapshot.apply(&delete(&[u64::from(id) + 1])).unwrap();
        }
    }
    let table = snapshot.table(ITEMS).unwrap();
    assert!(table.chunks.len() <= 20, "{} chunks", table.chunks.len());
    assert_eq!(
        scan(table).into_keys().collect::<Vec<_>>(),
        (0..1_000).filter(|id| id % 3 != 0).collect::<Vec<_>>()
    );
    let error = snapshot.apply(&insert(2_000, &[998])).unwrap_err();
    assert!(matches!(error, StoreError::UniqueViolation { .. }));
}

#[test]
fn a_batch_of_another_shape_is_a_bug_before_it_is_logged() {
    let snapshot = with_items();
    let rows = batch(&[1]);
    let swapped = rows.project(&[1, 0, 2]).unwrap();
    let short = rows.project(&[0, 1]).unwrap();
    for rows in [swapped, short] {
        let op = Op::Insert { table: ITEMS, first_row: RowId(1), rows };
        assert!(matches!(snapshot.apply(&op), Err(StoreError::Bug(_))));
    }
}

#[test]
fn a_constraint_added_later_checks_the_rows_that_are_there() {
    let labels = ["a".to_owned(), "b".to_owned(), "a".to_owned()];
    let rows = Op::Insert { table: ITEMS, first_row: RowId(1), rows: batch_of(&[1, 2, 3], &labels) };
    let snapshot = with_items().apply(&rows).unwrap();
    let mut def = items(20_000, "items");
    def.uniques.push(UniqueDef {
        id: TableId(20_009),
        name: "items_label_key".into(),
        columns: vec![ColumnId(2)],
        primary: false,
        index: None,
    });
    let error = snapshot.apply(&Op::AlterTable(def.clone())).unwrap_err();
    assert!(matches!(&error, StoreError::UniqueViolation { key_text, .. } if key_text == "a"), "{error}");
    let snapshot = apply(&snapshot, &[delete(&[1]), Op::AlterTable(def.clone())]).unwrap();
    // Across chunks, too.
    let again = Op::Insert { table: ITEMS, first_row: RowId(9), rows: batch_of(&[9], &["b".into()]) };
    assert!(matches!(snapshot.apply(&again), Err(StoreError::UniqueViolation { .. })));
    let before = apply(&with_items(), &[rows, delete(&[1]), again]).unwrap();
    assert!(matches!(before.apply(&Op::AlterTable(def)), Err(StoreError::UniqueViolation { .. })));
}

#[test]
fn not_null_added_later_checks_the_rows_that_are_there() {
    // A column that no row has yet: NULL in every one.
    let mut def = items(20_000, "items");
    def.columns.push(ColumnDef::new(ColumnId(90), "note", SqlType::Text));
    let wider = Op::AlterTable(def.clone());
    def.columns.last_mut().unwrap().not_null = true;
    let strict = Op::AlterTable(def);
    let snapshot = apply(&with_items(), &[insert(1, &[1, 2]), wider]).unwrap();
    let error = snapshot.apply(&strict).unwrap_err();
    assert_eq!(error, StoreError::NullValues { table: "items".into(), column: "note".into() });
    // Also where the column comes with it: rows may have come since it was found that there are none.
    let snapshot = apply(&with_items(), &[insert(1, &[1, 2])]).unwrap();
    let error = snapshot.apply(&strict).unwrap_err();
    assert_eq!(error, StoreError::NullValues { table: "items".into(), column: "note".into() });
    // Deleted rows do not count.
    apply(&snapshot, &[delete(&[1, 2]), strict.clone()]).unwrap();
    // With a value for them it may.
    let Op::AlterTable(mut def) = strict else { panic!("a definition") };
    def.columns.last_mut().unwrap().missing = Some("none".into());
    snapshot.apply(&Op::AlterTable(def)).unwrap();
}

/// `items` with a text that the rows before have.
fn with_default(bytes: usize) -> Op {
    let mut def = items(20_000, "items");
    let missing = Some("x".repeat(bytes));
    def.columns.push(ColumnDef { missing, ..ColumnDef::new(ColumnId(90), "note", SqlType::Text) });
    Op::AlterTable(def)
}

/// Nobody could read the column: its offsets end at 2 GiB.
#[test]
fn a_default_that_not_all_rows_can_have_is_refused() {
    let many: Vec<i64> = (0..100_000).collect();
    let snapshot = with_items().apply(&insert(1, &many)).unwrap();
    let error = snapshot.apply(&with_default(22_000)).unwrap_err();
    assert_eq!(error, StoreError::DefaultTooLarge { column: "note".into(), rows: 100_000 });
    snapshot.apply(&with_default(20_000)).unwrap();
    with_items().apply(&insert(1, &[1])).unwrap().apply(&with_default(22_000)).unwrap();
}

/// No page of a segment holds it: the log would never be flushed. Zeros that nobody touches take no memory.
#[test]
fn a_value_of_more_than_a_gibibyte_is_refused() {
    const GIB: i32 = 1 << 30;
    let column = ColumnDef::new(ColumnId(2), "body", SqlType::Bytea);
    let bytes = Buffer::from_vec(vec![0_u8; GIB as usize + 2_000]);
    let checked = |ends: &[i32]| {
        let offsets = OffsetBuffer::new(ends.to_vec().into());
        let array: ArrayRef = Arc::new(BinaryArray::new(offsets, bytes.clone(), None));
        check_values(&column, &array)
    };
    assert_eq!(checked(&[0, GIB]), Ok(()));
    assert_eq!(checked(&[0, 5, GIB, GIB + 2_000]), Ok(()), "in several");
    let refused = Err(StoreError::ValueTooLarge { column: "body".into() });
    assert_eq!(checked(&[0, 5, GIB + 1_500]), refused);
}

/// A commit that merges small chunks does not write a long default into each of their rows.
#[test]
fn chunks_without_a_large_default_are_not_merged() {
    let chunks = |bytes: usize| {
        let part = |first: i64| insert(first.cast_unsigned(), &(first..first + 1_000).collect::<Vec<_>>());
        let ops = [part(1), part(1_001), part(2_001), with_default(bytes)];
        let wider = commit(&with_items(), &ops);
        let rows = batch(&(3_001..4_001).collect::<Vec<_>>());
        let notes: ArrayRef = Arc::new(StringArray::from(vec!["short"; 1_000]));
        let (schema, mut arrays, _) = rows.into_parts();
        let mut fields: Vec<Field> = schema.fields().iter().map(|field| (**field).clone()).collect();
        fields.push(Field::new("c90", DataType::Utf8, true));
        arrays.push(notes);
        let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap();
        let all = commit(&wider, &[Op::Insert { table: ITEMS, first_row: RowId(3_001), rows }]);
        assert_eq!(ids(&all).len(), 4_000);
        all.table(ITEMS).unwrap().chunks.len()
    };
    assert_eq!((chunks(10), chunks(100_000)), (1, 4));
}

/// As a commit applies them: committed chunks are merged with each other, never with a transaction's.
fn commit(snapshot: &Snapshot, ops: &[Op]) -> Snapshot {
    let mut state = snapshot.state().clone();
    ops.iter().for_each(|op| state.apply(op, Rules { generation: 1, trusted: false }).unwrap());
    Snapshot::new(state)
}

fn ids(snapshot: &Snapshot) -> Vec<i64> {
    scan(snapshot.table(ITEMS).unwrap()).into_keys().collect()
}

#[test]
fn a_view_moves_to_a_newer_head_with_what_the_transaction_did() {
    let base = commit(&with_items(), &[insert(1, &[1, 2, 3]), insert(4, &[4]), insert(5, &[5])]);
    let own = [delete(&[2, 5]), insert(20, &[20, 21]), delete(&[21]), insert(22, &[22])];
    let view = apply(&base, &own).unwrap();
    // The fourth of a size merges the chunks that rows were deleted from.
    let head = commit(&base, &[delete(&[1]), insert(6, &[6]), insert(7, &[7]), insert(8, &[8])]);
    let moved = head.rebase(&base, &view, &own).unwrap();
    assert_eq!(ids(&moved), [3, 4, 6, 7, 8, 20, 22]);
    assert_eq!(ids(&moved), ids(&apply(&head, &own).unwrap()), "as if done again");
    // And on from there.
    let more = [own.as_slice(), &[delete(&[6, 20])]].concat();
    let view = moved.apply(&delete(&[6, 20])).unwrap();
    let later = commit(&head, &[insert(9, &[9])]);
    assert_eq!(ids(&later.rebase(&head, &view, &more).unwrap()), [3, 4, 7, 8, 9, 22]);
    for taken in [2, 5] {
        let taken = commit(&base, &[delete(&[taken])]);
        let view = apply(&base, &own).unwrap();
        assert!(matches!(taken.rebase(&base, &view, &own), Err(StoreError::WriteConflict { .. })));
    }
}

#[test]
fn tables_that_nobody_else_touched_are_carried_over_whole() {
    let base = commit(&with_items(), &[insert(1, &[1])]);
    let own =
        [Op::AlterTable(items(20_000, "goods")), insert(2, &[2]), Op::CreateTable(items(20_010, "items"))];
    let view = apply(&base, &own).unwrap();
    let mut elsewhere = items(20_020, "items");
    elsewhere.environment = "staging".into();
    let head = commit(&base, &[Op::CreateTable(elsewhere)]);
    let moved = head.rebase(&base, &view, &own).unwrap();
    assert!(Arc::ptr_eq(moved.table(ITEMS).unwrap(), view.table(ITEMS).unwrap()));
    assert_eq!(moved.find("default", "goods").unwrap().def.id, ITEMS);
    assert_eq!(moved.find("default", "items").unwrap().def.id, TableId(20_010));
    assert!(moved.find("staging", "items").is_some());
    let dropped = [Op::DropTable(ITEMS)];
    let view = apply(&base, &dropped).unwrap();
    assert!(head.rebase(&base, &view, &dropped).unwrap().table(ITEMS).is_none());
}
