//! That a filter lets through what its predicate says of each row, whatever is kept of it and whatever has happened to
//! the table meanwhile.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{
            Array, ArrayRef, BooleanArray, Date32Array, FixedSizeBinaryArray, FixedSizeListArray,
            Float32Array, Int32Array, Int64Array, RecordBatch, StringArray,
        },
        buffer::NullBuffer,
        datatypes::{DataType, Field, Schema},
    },
    common::DFSchema,
    logical_expr::{Expr, cast, col, execution_props::ExecutionProps, lit},
    physical_expr::create_physical_expr,
    scalar::ScalarValue,
};
use proptest::prelude::*;
use sepal_crypto::Key;
use sepal_storage::{
    ChunkRef, ColumnCache, NoBlobs, Op, StoreOptions, TableVersion, TenantStore, arrow_field, arrow_type,
    stored_name,
};
use sepal_types::{
    ColumnDef, ColumnId, Constraints, IndexDef, IndexMethod, RowId, SqlState, SqlType, TableDef, TableId,
    TenantId, UniqueDef,
};
use tempfile::TempDir;

use super::*;
use crate::vector::{
    IndexCache, IndexMemory,
    search::{without_deleted, without_nulls},
};

const TABLE: TableId = TableId(20_001);
const TEXTS: [&str; 6] = ["", "a", "ab", "b", "ä", "z"];

/// A store with one table, and what filters keep of it.
struct World {
    store: Arc<TenantStore>,
    indexes: IndexCache,
    rows: i32,
    directory: TempDir,
}

fn column(id: u32, name: &str, ty: SqlType) -> ColumnDef {
    ColumnDef::new(ColumnId(id), name, ty)
}

/// All but `plain`, `v` and `late` are indexed. `late` comes with a value for the rows that are older.
fn definition(late: Option<&str>) -> TableDef {
    let mut columns = vec![
        column(1, "id", SqlType::Int8),
        column(2, "name", SqlType::Text),
        column(3, "n", SqlType::Int4),
        column(4, "flag", SqlType::Bool),
        column(5, "day", SqlType::Date),
        column(6, "u", SqlType::Uuid),
        column(7, "plain", SqlType::Int4),
        column(8, "v", SqlType::Vector(Some(2))),
    ];
    if let Some(missing) = late {
        columns.push(ColumnDef { missing: Some(missing.into()), ..column(9, "late", SqlType::Text) });
    }
    let index = |number: u32| IndexDef {
        id: TableId(20_100 + number),
        name: format!("i{number}"),
        columns: vec![ColumnId(number)],
        method: IndexMethod::Scalar { access_method: if number == 2 { "hash" } else { "btree" }.into() },
        valid: true,
        clauses: None,
    };
    TableDef {
        id: TABLE,
        environment: "default".into(),
        schema: "public".into(),
        name: "t".into(),
        columns,
        next_column: ColumnId(10),
        uniques: vec![UniqueDef {
            id: TableId(20_002),
            name: "t_pkey".into(),
            columns: vec![ColumnId(1)],
            primary: true,
            index: None,
        }],
        indexes: (2..=6).chain(late.map(|_| 9)).map(index).collect(),
        captured: false,
        constraints: Constraints::default(),
    }
}

/// A number that looks random, from a row and a column.
fn mixed(row: i32, column: u64) -> u64 {
    let mixed = (row as u64 ^ (column << 40)).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 33
}

fn uuid(number: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[0] = number as u8 * 50;
    bytes[15] = number as u8;
    bytes
}

/// One in seven is NULL.
fn values<T>(
    rows: std::ops::Range<i32>,
    of: u64,
    value: impl Fn(u64) -> T,
) -> impl Iterator<Item = Option<T>> {
    rows.map(move |row| mixed(row, of)).map(move |mixed| (mixed % 7 > 0).then(|| value(mixed / 7)))
}

fn array(column: &ColumnDef, rows: std::ops::Range<i32>) -> ArrayRef {
    let of = u64::from(column.id.0);
    match &column.ty {
        SqlType::Int8 => Arc::new(rows.map(i64::from).collect::<Int64Array>()),
        SqlType::Text => {
            Arc::new(values(rows, of, |number| TEXTS[number as usize % 6]).collect::<StringArray>())
        }
        SqlType::Int4 => Arc::new(values(rows, of, |number| (number % 9) as i32 - 4).collect::<Int32Array>()),
        SqlType::Bool => Arc::new(values(rows, of, |number| number % 2 == 0).collect::<BooleanArray>()),
        SqlType::Date => {
            Arc::new(values(rows, of, |number| (number % 9) as i32 - 4).collect::<Date32Array>())
        }
        SqlType::Uuid => {
            let bytes = values(rows, of, |number| uuid(number % 5));
            Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(bytes, 16).unwrap())
        }
        SqlType::Vector(_) => {
            let DataType::FixedSizeList(item, _) = arrow_type(&column.ty) else { unreachable!() };
            let valid: Vec<bool> = values(rows.clone(), of, |_| ()).map(|value| value.is_some()).collect();
            let floats = rows.flat_map(|row| [row as f32, 1.0]).collect::<Float32Array>();
            Arc::new(FixedSizeListArray::new(item, 2, Arc::new(floats), Some(NullBuffer::from(valid))))
        }
        ty => panic!("{} is {ty:?}", column.name),
    }
}

impl World {
    fn new(cache_bytes: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let tenant = TenantId([7; 16]);
        let options = StoreOptions::new(ColumnCache::new(1 << 20));
        let store = TenantStore::create(directory.path(), tenant, Key::from_bytes([5; 32]), options).unwrap();
        let indexes = IndexCache::new(tenant, Arc::new(IndexMemory::new(cache_bytes)));
        let world = Self { store, indexes, rows: 0, directory };
        world.commit(Op::CreateTable(definition(None)));
        world
    }

    fn version(&self) -> Arc<TableVersion> {
        Arc::clone(self.store.snapshot().table(TABLE).unwrap())
    }

    fn commit(&self, op: Op) {
        self.store.commit(&self.store.snapshot(), vec![op]).unwrap();
    }

    fn insert(&mut self, count: i32) {
        let def = Arc::clone(&self.version().def);
        let rows = self.rows..self.rows + count;
        self.rows = rows.end;
        let arrays: Vec<ArrayRef> = def.columns.iter().map(|column| array(column, rows.clone())).collect();
        let field = |(column, array): (&ColumnDef, &ArrayRef)| {
            Field::new(stored_name(column.id), array.data_type().clone(), true)
        };
        let fields: Vec<Field> = def.columns.iter().zip(&arrays).map(field).collect();
        let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap();
        let first_row = self.store.reserve_rows(TABLE, rows.num_rows() as u64);
        self.commit(Op::Insert { table: TABLE, first_row, rows });
    }

    /// Deletes every so manieth row that is live.
    fn delete(&self, every: usize) {
        let mut rows: Vec<RowId> = Vec::new();
        for reference in &self.version().chunks {
            let ids = reference.chunk.row_ids().unwrap();
            let live = (0_u32..).zip(ids.values()).filter(|(at, _)| !reference.deleted.contains(*at));
            rows.extend(live.step_by(every).map(|(_, id)| RowId(*id)));
        }
        rows.sort_unstable();
        if !rows.is_empty() {
            self.commit(Op::Delete { table: TABLE, rows });
        }
    }

    fn checkpoint(&self) {
        self.store.checkpoint(&NoBlobs).unwrap();
    }

    fn ask(&self, filter: &Filter, version: &TableVersion, reference: &ChunkRef) -> Selected {
        filter.passing(version, reference, self.indexes.filters()).unwrap()
    }

    /// Asks and compares with what each row says.
    fn check(&self, expr: &Expr) {
        let version = self.version();
        let filter = filter(&version.def, expr);
        for reference in &version.chunks {
            let passing = self.ask(&filter, &version, reference);
            let evaluated = filter.evaluate(&version, reference).unwrap();
            assert_eq!(passing, evaluated, "{expr} over {:?}", reference.chunk);
            assert_eq!(passing.count(), passing.bits().count());
            let column = reference.chunk.column(&version.def.columns[7]).unwrap();
            let there = without_deleted(reference, passing.unless_all());
            let there = without_nulls(&column, there.as_ref());
            for position in 0..reference.chunk.rows() {
                let row = position as usize;
                let expected =
                    evaluated.has(row) && !reference.deleted.contains(position) && column.is_valid(row);
                assert_eq!(there.as_ref().is_none_or(|rows| rows.has(row)), expected, "{expr}, row {row}");
            }
        }
    }
}

fn filter(def: &TableDef, expr: &Expr) -> Filter {
    let schema = Schema::new(def.columns.iter().map(arrow_field).collect::<Vec<_>>());
    let named = DFSchema::try_from(schema.clone()).unwrap();
    let predicate = create_physical_expr(expr, &named, &ExecutionProps::new(), &Default::default()).unwrap();
    Filter::new(predicate, &schema)
}

/// The first sealed chunk.
fn sealed(version: &TableVersion) -> &ChunkRef {
    version.chunks.iter().find(|reference| reference.chunk.segment().is_some()).unwrap()
}

#[test]
fn what_is_asked_again_is_known_until_the_question_or_the_segment_is_another() {
    let mut world = World::new(1 << 22);
    world.insert(500);
    world.checkpoint();
    let version = world.version();
    let reference = sealed(&version);
    let known = |filter: &Filter, version: &TableVersion| {
        let kept = world.indexes.filters();
        let name = Named::new(filter.identity.as_ref().unwrap(), version, &filter.reads);
        kept.rows(&kept.key(reference.chunk.segment().unwrap(), &name), &name)
    };
    let plain = filter(&version.def, &col("plain").gt(lit(1_i32)));
    let first = world.ask(&plain, &version, reference);
    assert_eq!(known(&plain, &version), None, "once is not enough");
    world.ask(&plain, &version, reference);
    assert_eq!(known(&plain, &version), Some(first.clone()));
    let again = world.ask(&filter(&version.def, &col("plain").gt(lit(1_i32))), &version, reference);
    let kept = known(&plain, &version).unwrap();
    assert_eq!(again.bits().words().as_ptr(), kept.bits().words().as_ptr(), "not copied");
    for other in [col("plain").gt(lit(2_i32)), col("plain").gt_eq(lit(1_i32)), col("n").gt(lit(1_i32))] {
        assert_eq!(known(&filter(&version.def, &other), &version), None, "{other}");
    }

    let mut retyped = TableVersion::clone(&version);
    let mut def = TableDef::clone(&version.def);
    def.columns[6].id = ColumnId(3);
    retyped.def = Arc::new(def.clone());
    assert_eq!(known(&plain, &retyped), None, "another column of the same name");
    def = TableDef::clone(&version.def);
    def.id = TableId(20_009);
    retyped.def = Arc::new(def);
    assert_eq!(known(&plain, &retyped), None, "another table with the same segment");
}

#[test]
fn rows_are_asked_anew_when_one_has_no_answer_but_not_when_they_cannot_be_read() {
    let mut world = World::new(1 << 22);
    world.insert(500);
    world.checkpoint();
    let (version, kept) = (world.version(), world.indexes.filters());
    let reference = sealed(&version);
    let quotient = filter(&version.def, &(lit(1_i32) / col("plain")).eq(lit(1_i32)));
    let failed = quotient.of_all(&version, reference, kept);
    assert!(matches!(failed, Err(Failure::Evaluating(_))), "some are divided by 0: {failed:?}");
    let zero = world.ask(&filter(&version.def, &col("plain").eq(lit(0_i32))), &version, reference);
    let ids = reference.chunk.row_ids().unwrap();
    let rows = zero.bits().iter().map(|position| RowId(ids.value(position))).collect();
    world.commit(Op::Delete { table: TABLE, rows });
    let version = world.version();
    let reference = sealed(&version);
    let expected = world.ask(&filter(&version.def, &col("plain").eq(lit(1_i32))), &version, reference);
    assert_eq!(world.ask(&quotient, &version, reference), expected, "those are deleted");

    let mut files = std::fs::read_dir(world.directory.path().join("segments")).unwrap();
    std::fs::remove_file(files.next().unwrap().unwrap().path()).unwrap();
    let unread = filter(&version.def, &(lit(1_i32) / col("n")).eq(lit(1_i32)));
    let failed = unread.of_all(&version, reference, kept);
    assert!(matches!(failed, Err(Failure::Other(_))), "{failed:?}");
    assert_eq!(unread.passing(&version, reference, kept).unwrap_err().state(), SqlState::DataCorrupted);
}

#[test]
fn a_changing_value_of_an_indexed_column_is_looked_up() {
    let mut world = World::new(1 << 22);
    world.insert(2_000);
    world.checkpoint();
    let version = world.version();
    let segment = Segment {
        version: &version,
        reference: sealed(&version),
        file: sealed(&version).chunk.segment().unwrap(),
    };
    let kept = world.indexes.filters();
    let looked_up = |expr: &Expr| filter(&version.def, expr).by_labels(segment, kept).unwrap();
    assert!(looked_up(&col("id").eq(lit(1_i64))).is_none(), "once is not enough");
    for id in 0..2_000_i64 {
        let (rows, is_cheap) = looked_up(&col("id").eq(lit(id))).unwrap();
        assert_eq!((rows.bits().iter().collect::<Vec<_>>(), is_cheap), (vec![id as usize], true));
    }
    assert!(looked_up(&col("plain").eq(lit(1_i32))).is_none(), "not indexed");
    let both = col("id").lt(lit(100_i64)).and(col("plain").eq(lit(1_i32)));
    let (rows, _) = looked_up(&both).unwrap();
    assert_eq!(rows, filter(&version.def, &both).evaluate(&version, segment.reference).unwrap());
    let both = col("id").gt(lit(100_i64)).and(col("plain").eq(lit(1_i32)));
    assert!(looked_up(&both).is_none(), "too many to ask one by one");
    let both = col("id").lt(lit(3_i64)).or(col("plain").eq(lit(1_i32)));
    assert!(looked_up(&both).is_none(), "one of two is not enough for OR");
}

#[test]
fn what_may_answer_otherwise_tomorrow_is_not_kept() {
    let def = definition(None);
    let call = |name: &str, argument: Expr| {
        let functions = crate::functions::scalar_functions();
        functions.into_iter().find(|function| function.name() == name).unwrap().call(vec![argument])
    };
    let day = |text: &str| col("day").gt(call("sepal_cast_date", lit(text)));
    assert!(filter(&def, &day("yesterday")).identity.is_none());
    assert!(filter(&def, &call("sepal_cast_date", col("name")).eq(col("day"))).identity.is_none());
    assert!(filter(&def, &call("sepal_cast_text", col("n")).eq(col("name"))).identity.is_some());
    let list = (0..5_000_i64).map(lit).collect();
    assert!(filter(&def, &col("id").in_list(list, false)).identity.is_none(), "too long");
}

#[test]
fn a_tenant_that_is_gone_leaves_nothing() {
    let mut world = World::new(1 << 22);
    let memory = Arc::new(IndexMemory::new(1 << 22));
    let (tenant, other) = (TenantId([7; 16]), TenantId([8; 16]));
    world.indexes = IndexCache::new(tenant, Arc::clone(&memory));
    world.insert(300);
    world.checkpoint();
    for _ in 0..3 {
        world.check(&col("plain").gt(lit(1_i32)));
        world.check(&col("n").eq(lit(1_i32)));
    }
    assert!(memory.tenant_bytes(tenant) > 600, "rows and labels");
    assert_eq!((memory.bytes(), memory.tenant_bytes(other)), (memory.tenant_bytes(tenant), 0));
    memory.forget_tenant(tenant);
    assert_eq!((memory.bytes(), memory.tenant_bytes(tenant)), (0, 0));
    world.check(&col("plain").gt(lit(1_i32)));
}

/// A comparison, by what it compares, how, and with what.
fn leaf(kind: u8, operator: u8, a: i32, b: i32) -> Expr {
    let compare = |left: Expr, right: Expr| match operator % 6 {
        0 => left.eq(right),
        1 => left.not_eq(right),
        2 => left.lt(right),
        3 => left.lt_eq(right),
        4 => left.gt(right),
        _ => left.gt_eq(right),
    };
    let text = |number: i32| lit(TEXTS[number.rem_euclid(6) as usize]);
    let date = |number: i32| Expr::Literal(ScalarValue::Date32(Some(number)), None);
    let id = |number: i32| {
        let bytes = uuid(number.rem_euclid(5) as u64).to_vec();
        Expr::Literal(ScalarValue::FixedSizeBinary(16, Some(bytes)), None)
    };
    match kind % 14 {
        0 => compare(col("id"), lit(i64::from(a) * 20)),
        1 => compare(lit(a), col("n")),
        2 => compare(col("name"), text(a)),
        3 => compare(col("day"), date(a)),
        4 => compare(col("u"), id(a)),
        5 => compare(col("flag"), lit(b > 0)),
        6 => col("flag"),
        7 => compare(cast(col("n"), DataType::Int64), lit(i64::from(a))),
        8 => col("n").between(lit(a.min(b)), lit(a.max(b))),
        9 => col("name")
            .in_list(vec![text(a), text(b), lit(ScalarValue::Utf8(None))], operator.is_multiple_of(2)),
        10 => compare(col("n"), lit(ScalarValue::Int32(None))),
        11 => compare(col("plain") + col("n"), lit(a)),
        12 => compare(col("plain"), lit(b)),
        _ => col("n").is_null(),
    }
}

fn predicate() -> impl Strategy<Value = Expr> {
    let leaf =
        (any::<u8>(), any::<u8>(), -5..6_i32, -5..6_i32).prop_map(|(kind, how, a, b)| leaf(kind, how, a, b));
    leaf.prop_recursive(3, 12, 2, |inner| {
        prop_oneof![
            3 => (inner.clone(), inner.clone()).prop_map(|(left, right)| left.and(right)),
            2 => (inner.clone(), inner.clone()).prop_map(|(left, right)| left.or(right)),
            1 => inner.prop_map(|inner| !inner),
        ]
    })
}

#[derive(Clone, Debug)]
enum Step {
    Insert(i32),
    Delete(usize),
    Checkpoint,
    /// The column `late` comes, or was taken back and comes with another value for older rows.
    Late(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1..150_i32).prop_map(Step::Insert),
        2 => (2..40_usize).prop_map(Step::Delete),
        3 => Just(Step::Checkpoint),
        1 => any::<bool>().prop_map(Step::Late),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn kept_or_not_the_same_rows_pass(
        predicates in prop::collection::vec(predicate(), 1..5),
        steps in prop::collection::vec(step(), 1..8),
        is_roomy in any::<bool>(),
    ) {
        let mut world = World::new(if is_roomy { 1 << 22 } else { 1 << 15 });
        world.insert(200);
        world.checkpoint();
        let mut has_late = false;
        for step in [Step::Delete(50)].into_iter().chain(steps) {
            for _ in 0..3 {
                predicates.iter().for_each(|predicate| world.check(predicate));
                if has_late {
                    world.check(&col("late").eq(lit("a")));
                    world.check(&col("late").eq(lit("b")).and(col("n").gt(lit(0_i32))));
                }
            }
            match step {
                Step::Insert(count) => world.insert(count),
                Step::Delete(every) => world.delete(every),
                Step::Checkpoint => world.checkpoint(),
                Step::Late(other) => {
                    has_late = true;
                    world.commit(Op::AlterTable(definition(Some(if other { "a" } else { "b" }))));
                }
            }
        }
        predicates.iter().for_each(|predicate| world.check(predicate));
    }
}
