//! Queries over a small table: what becomes of its rows, and what no pipeline can have.

use datafusion::arrow::array::{Int32Array, Int64Array, StringArray};
use sepal_crypto::Key;
use sepal_storage::{ColumnCache, Op, SpillFiles, SpillSpace, StoreOptions, TenantStore};
use sepal_types::{Constraints, Error, SqlState, SqlType, TenantId, UniqueDef};
use tempfile::TempDir;

use super::*;
use crate::{
    CatalogSlot, SequenceSource, SettingSink, SnapshotSlot, StatementContext,
    budget::{QueryMemory, TenantMemory},
    catalog::CatalogContext,
    planner::{Engine, Planning},
    sql::{StatementKind, ast, parse_statements},
    vector::{IndexCache, IndexMemory},
};

/// A session without sequences and settings.
#[derive(Debug)]
struct Nothing;

impl SequenceSource for Nothing {
    fn reserve(&self, _: &str, _: u64) -> Result<i64> {
        Err(Error::bug("no sequence is read here"))
    }

    fn current(&self, name: &str) -> Result<i64> {
        self.reserve(name, 1)
    }

    fn last(&self) -> Result<i64> {
        self.reserve("", 1)
    }

    fn set(&self, name: &str, _: i64, _: bool) -> Result<()> {
        self.reserve(name, 1).map(|_| ())
    }
}

impl SettingSink for Nothing {
    fn set(&self, _: &str, value: &str, _: bool) -> Result<String> {
        Ok(value.to_owned())
    }

    fn sleep(&self, _: std::time::Duration) {}

    fn advisory(&self, _: crate::AdvisoryCall, _: crate::AdvisoryNumber) -> Result<bool> {
        Ok(false)
    }
}

fn column(id: u32, name: &str, ty: SqlType, not_null: bool) -> ColumnDef {
    ColumnDef { not_null, ..ColumnDef::new(ColumnId(id), name, ty) }
}

/// `items (id integer PRIMARY KEY, sku text NOT NULL UNIQUE, code text UNIQUE, n bigint, at timestamptz)`; `late` has
/// a column that came later.
fn items(late: bool) -> TableDef {
    let unique = |id, column, primary| UniqueDef {
        id: TableId(id),
        name: format!("u{column}"),
        columns: vec![ColumnId(column)],
        primary,
        index: None,
    };
    let mut columns = vec![
        column(1, "id", SqlType::Int4, true),
        column(3, "sku", SqlType::Text, true),
        column(4, "code", SqlType::Text, false),
        column(5, "n", SqlType::Int8, false),
        column(6, "at", SqlType::Timestamptz, false),
    ];
    if late {
        let mut note = column(7, "note", SqlType::Text, false);
        note.missing = Some("none".into());
        columns.push(note);
        columns.push(column(8, "more", SqlType::Vector(Some(2)), false));
    }
    TableDef {
        id: TableId(20_001),
        environment: "default".into(),
        schema: "public".into(),
        name: "items".into(),
        columns,
        next_column: ColumnId(9),
        uniques: vec![unique(20_002, 1, true), unique(20_003, 3, false), unique(20_004, 4, false)],
        indexes: Vec::new(),
        captured: true,
        constraints: Constraints::default(),
    }
}

struct World {
    engine: Engine,
    context: StatementContext,
    _runtime: tokio::runtime::Runtime,
    _directory: TempDir,
}

fn world(def: TableDef) -> World {
    let directory = tempfile::tempdir().unwrap();
    let tenant = TenantId([3; 16]);
    let options = StoreOptions::new(ColumnCache::new(1 << 20));
    let store = TenantStore::create(directory.path(), tenant, Key::from_bytes([5; 32]), options).unwrap();
    let snapshot = store.commit(&store.snapshot(), vec![Op::CreateTable(def)]).unwrap();
    let catalog = CatalogContext::bare(snapshot.clone(), "default", "acme", "acme");
    let context = StatementContext {
        catalog: CatalogSlot::new(catalog),
        snapshot: SnapshotSlot::new(snapshot),
        environment: "default".into(),
        indexes: Arc::new(IndexCache::new(tenant, Arc::new(IndexMemory::new(1 << 20)))),
        search: Arc::default(),
        sequences: Arc::new(Nothing),
        settings: Arc::new(Nothing),
        nested: Arc::default(),
        past: Arc::default(),
        reads: crate::TablesRead::default(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let memory = TenantMemory::new(1 << 24, QueryMemory::new(1 << 24));
    let spill = SpillSpace::open(directory.path(), 0, SpillFiles::new(1)).unwrap();
    let planning = Planning::new(1 << 24, 1).unwrap();
    let engine = Engine::new(planning, memory, spill, runtime.handle().clone()).unwrap();
    World { engine, context, _runtime: runtime, _directory: directory }
}

fn query(sql: &str) -> Box<ast::Query> {
    let kind = parse_statements(sql).unwrap().pop().unwrap().kind;
    let StatementKind::Sql(statement) = kind else { panic!("{sql}") };
    let ast::Statement::Query(query) = *statement else { panic!("{sql}") };
    query
}

impl World {
    fn compile(&self, sql: &str, key: &[&str]) -> Result<ChangeQuery> {
        let key: Vec<String> = key.iter().map(ToString::to_string).collect();
        ChangeQuery::compile(&self.engine, &self.context, &query(sql), &key)
    }
}

/// Three rows as the feed gives them: without the columns that came later, and in an order of its own.
fn rows() -> RecordBatch {
    let skus: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "c"]));
    let ids: ArrayRef = Arc::new(Int32Array::from(vec![1, 2, 3]));
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(10), None, Some(0)]));
    RecordBatch::try_from_iter_with_nullable([("c3", skus, true), ("c5", numbers, true), ("c1", ids, true)])
        .unwrap()
}

fn shown(batch: &RecordBatch) -> Vec<String> {
    let cell = |column: &ArrayRef, row: usize| match column.is_null(row) {
        true => "-".to_owned(),
        false => datafusion::arrow::util::display::array_value_to_string(column, row).unwrap(),
    };
    let row = |row| batch.columns().iter().map(|column| cell(column, row)).collect::<Vec<_>>().join("|");
    (0..batch.num_rows()).map(row).collect()
}

#[test]
fn rows_are_projected_and_filtered() {
    let world = world(items(false));
    let compiled =
        world.compile("SELECT id AS order_id, upper(sku) AS \"SKU\", n + 1 AS n FROM items", &[]).unwrap();
    assert_eq!(compiled.table(), TableId(20_001));
    let columns: Vec<(&str, &SqlType)> =
        compiled.columns().iter().map(|column| (column.name.as_str(), &column.ty)).collect();
    assert_eq!(columns, [("order_id", &SqlType::Int4), ("SKU", &SqlType::Text), ("n", &SqlType::Int8)]);
    assert_eq!(compiled.key(), [0]);
    assert_eq!(compiled.reads(), [ColumnId(1), ColumnId(3), ColumnId(5)]);
    let (batch, passes) = compiled.apply(&items(false), &rows()).unwrap();
    assert_eq!(shown(&batch), ["1|A|11", "2|B|-", "3|C|1"]);
    assert_eq!(passes.true_count(), 3);

    let some = world.compile("SELECT * FROM items i WHERE i.n > 5", &["sku"]).unwrap();
    assert_eq!(some.key(), [1]);
    let (batch, passes) = some.apply(&items(false), &rows()).unwrap();
    assert_eq!(shown(&batch), ["1|a|-|10|-", "-|-|-|-|-", "-|-|-|-|-"]);
    // NULL > 5 does not pass, and is not NULL here.
    assert_eq!(passes, BooleanArray::from(vec![true, false, false]));

    let none = world.compile("SELECT sku, 'x' AS x FROM items WHERE n > 100", &[]).unwrap();
    assert!(none.key().is_empty(), "the primary key is not in the list");
    let (batch, passes) = none.apply(&items(false), &rows()).unwrap();
    assert_eq!((shown(&batch), passes.true_count()), (vec!["-|-".to_owned(); 3], 0));
}

#[test]
fn the_projection_of_a_row_that_does_not_pass_is_not_computed() {
    let world = world(items(false));
    let compiled = world.compile("SELECT id, 100 / n AS share FROM items WHERE n <> 0", &[]).unwrap();
    let (batch, _) = compiled.apply(&items(false), &rows()).unwrap();
    assert_eq!(shown(&batch), ["1|10", "-|-", "-|-"]);
    let all = world.compile("SELECT id, 100 / n AS share FROM items", &[]).unwrap();
    assert_eq!(all.apply(&items(false), &rows()).unwrap_err().state(), SqlState::DivisionByZero);
}

#[test]
fn functions_that_only_stand_for_others_are_computed() {
    let world = world(items(false));
    let sql =
        "SELECT id, coalesce(n, -1) AS n, coalesce(sku, 'none') AS sku FROM items WHERE coalesce(n, 5) > 0";
    let compiled = world.compile(sql, &[]).unwrap();
    let (batch, _) = compiled.apply(&items(false), &rows()).unwrap();
    assert_eq!(shown(&batch), ["1|10|a", "2|-1|b", "-|-|-"]);
}

#[test]
fn rows_older_than_a_column_have_its_missing_value() {
    let world = world(items(true));
    let compiled = world.compile("SELECT id, note, more FROM items WHERE note = 'none'", &[]).unwrap();
    let (batch, passes) = compiled.apply(&items(true), &rows()).unwrap();
    assert_eq!(shown(&batch), ["1|none|-", "2|none|-", "3|none|-"]);
    assert_eq!(passes.true_count(), 3);
    assert_eq!(batch.column(2).data_type(), &arrow_type(&SqlType::Vector(Some(2))));
    // At the time of the rows the column did not exist: what it says now holds.
    assert_eq!(compiled.apply(&items(false), &rows()).unwrap().1.true_count(), 3);
}

#[test]
fn more_than_a_projection_and_a_filter_is_refused() {
    let world = world(items(false));
    let cases = [
        ("SELECT id FROM items ORDER BY id", "ORDER BY"),
        ("SELECT id FROM items LIMIT 1", "LIMIT"),
        ("SELECT DISTINCT id FROM items", "DISTINCT"),
        ("SELECT id FROM items GROUP BY id", "GROUP BY"),
        ("SELECT count(*) AS c FROM items", "an aggregate"),
        ("SELECT row_number() OVER () AS r FROM items", "a window function"),
        ("SELECT a.id FROM items a JOIN items b ON true", "a join"),
        ("SELECT a.id FROM items a, items b", "a join"),
        ("SELECT (SELECT 1) AS one FROM items", "a subquery"),
        ("SELECT id FROM items WHERE id IN (SELECT 1)", "a subquery"),
        ("SELECT id FROM (SELECT * FROM items) i", "FROM"),
        ("WITH a AS (SELECT 1) SELECT id FROM items", "WITH"),
        ("SELECT id FROM items UNION SELECT 1", "UNION"),
        ("SELECT 1 AS one", "an empty FROM"),
        ("SELECT id FROM items WHERE n = $1", "parameters"),
        ("VALUES (1)", "SELECT"),
    ];
    for (sql, what) in cases {
        let error = world.compile(sql, &[]).unwrap_err();
        assert_eq!(error.state(), SqlState::FeatureNotSupported, "{sql}: {error}");
        assert!(error.message().contains(what), "{sql}: {error}");
    }
    let state = |sql: &str| world.compile(sql, &[]).unwrap_err().state();
    assert_eq!(state("SELECT id FROM pg_class"), SqlState::UndefinedTable);
    assert_eq!(state("SELECT nothing FROM items"), SqlState::UndefinedColumn);
    assert_eq!(state("SELECT id, n AS id FROM items"), SqlState::DuplicateColumn);
}

#[test]
fn what_changes_by_itself_is_refused() {
    let world = world(items(false));
    for sql in [
        "SELECT id, now() AS t FROM items",
        "SELECT id FROM items WHERE at > now() - interval '1 hour'",
        "SELECT id, random() AS r FROM items",
        "SELECT id, gen_random_uuid() AS u FROM items",
        "SELECT id, nextval('s') AS s FROM items",
        "SELECT id, current_setting('x') AS s FROM items",
        "SELECT id FROM items WHERE at > 'yesterday'",
        "SELECT id, 'now'::timestamptz AS t FROM items",
        "SELECT id, date 'today' AS d FROM items",
    ] {
        let error = world.compile(sql, &[]).unwrap_err();
        assert_eq!(error.state(), SqlState::InvalidObjectDefinition, "{sql}: {error}");
    }
    for sql in [
        "SELECT id FROM items WHERE sku = 'now'",
        "SELECT id, 'now' AS word FROM items WHERE at > '2024-01-01'",
        "SELECT id, at::text AS t FROM items",
    ] {
        world.compile(sql, &[]).unwrap_or_else(|error| panic!("{error}: {sql}"));
    }
}

#[test]
fn a_key_tells_rows_apart() {
    let world = world(items(false));
    let all = "SELECT id, sku AS s, code, n, n + 1 AS m FROM items";
    assert_eq!(world.compile(all, &["id"]).unwrap().key(), [0]);
    assert_eq!(world.compile(all, &["s"]).unwrap().key(), [1]);
    let cases = [
        ("sku", SqlState::UndefinedColumn),
        ("m", SqlState::InvalidColumnReference),
        ("n", SqlState::InvalidColumnReference),
        // It may be NULL.
        ("code", SqlState::InvalidColumnReference),
    ];
    for (key, state) in cases {
        assert_eq!(world.compile(all, &[key]).unwrap_err().state(), state, "{key}");
    }
    assert_eq!(world.compile(all, &["id", "id"]).unwrap_err().state(), SqlState::DuplicateColumn);
    assert_eq!(world.compile(all, &["id", "n"]).unwrap_err().state(), SqlState::InvalidColumnReference);
}
