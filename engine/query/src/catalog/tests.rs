//! Every captured client query over a small catalog, and the answers that clients depend on.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::util::display::array_value_to_string;
use datafusion::catalog::{MemTable, MemorySchemaProvider, SchemaProvider};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::sqlparser::ast::Statement;
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;
use sepal_crypto::Key;
use sepal_storage::{ColumnCache, Op, StoreOptions, TenantStore};
use sepal_types::{
    ColumnDef, ColumnId, Constraints, Generated, IndexDef, IndexMethod, Metric, SqlState, SqlType, TableDef,
    TableId, TenantId, UniqueDef, VectorIndexOptions,
};

use super::delivery::{DeadLetterRow, SecretRow};
use super::history::{HistoryRow, SnapshotRow};
use super::relations::{ALL, procedures};
use super::sessions::{NoSessions, SessionDetails, SessionRow};
use super::value::{Value, column, parse_list};
use super::work::{ColumnStatistics, CopyRow, StorageRow, TableStatistics, TaskRow, WorkRows};
use super::*;

mod client_queries;
mod datafusion_path;
mod documented;
mod relations_and_functions;

const ITEMS: u32 = 20_001;

fn column_def(id: u32, name: &str, ty: SqlType) -> ColumnDef {
    ColumnDef::new(ColumnId(id), name, ty)
}

/// A table with a serial key, a unique name, a default, an array, a vector and an index of each kind.
fn items() -> TableDef {
    let mut id = column_def(1, "id", SqlType::Int8);
    id.generated = Some(Generated::Serial);
    id.not_null = true;
    let mut name = column_def(2, "name", SqlType::Varchar(Some(64)));
    name.not_null = true;
    let mut score = column_def(3, "score", SqlType::Numeric(Some((10, 2))));
    score.default = Some("0".into());
    TableDef {
        id: TableId(ITEMS),
        environment: "default".into(),
        schema: "public".into(),
        name: "items".into(),
        columns: vec![
            id,
            name,
            score,
            column_def(4, "tags", SqlType::Array(Box::new(SqlType::Text))),
            column_def(5, "meta", SqlType::Jsonb),
            column_def(6, "embedding", SqlType::Vector(Some(3))),
        ],
        next_column: ColumnId(7),
        uniques: vec![unique(20_002, "items_pkey", 1, true), unique(20_003, "items_name_key", 2, false)],
        indexes: vec![
            index(20_004, "items_tags", 4, IndexMethod::Scalar { access_method: "gin".into() }),
            index(
                20_005,
                "items_embedding_idx",
                6,
                IndexMethod::Vector(VectorIndexOptions::Hnsw {
                    metric: Metric::Cosine,
                    m: 24,
                    ef_construction: 64,
                }),
            ),
        ],
        captured: false,
        constraints: Constraints::default(),
    }
}

/// A table whose name needs quotes, with an identity key.
fn notes(environment: &str, id: u32) -> TableDef {
    let mut key = column_def(1, "id", SqlType::Int4);
    key.generated = Some(Generated::IdentityByDefault);
    key.not_null = true;
    TableDef {
        id: TableId(id),
        environment: environment.into(),
        schema: "public".into(),
        name: "Notes".into(),
        columns: vec![key, column_def(2, "body", SqlType::Text)],
        next_column: ColumnId(3),
        uniques: vec![unique(id + 1, "Notes_pkey", 1, true)],
        indexes: Vec::new(),
        captured: false,
        constraints: Constraints::default(),
    }
}

fn unique(id: u32, name: &str, column: u32, primary: bool) -> UniqueDef {
    UniqueDef { id: TableId(id), name: name.into(), columns: vec![ColumnId(column)], primary, index: None }
}

fn index(id: u32, name: &str, column: u32, method: IndexMethod) -> IndexDef {
    let columns = vec![ColumnId(column)];
    IndexDef { id: TableId(id), name: name.into(), columns, method, valid: true, clauses: None }
}

fn context() -> CatalogContext {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions::new(ColumnCache::new(1 << 20));
    let store =
        TenantStore::create(dir.path(), TenantId([3; 16]), Key::from_bytes([5; 32]), options).unwrap();
    let tables = [items(), notes("default", 20_010), notes("staging", 20_020)];
    let ops = tables.into_iter().map(Op::CreateTable).collect();
    let snapshot = store.commit(&store.snapshot(), ops).unwrap();
    let setting = |name: &str, value: &str| SettingRow {
        name: name.into(),
        setting: value.into(),
        boot_val: Some(value.into()),
        vartype: "string".into(),
        ..SettingRow::default()
    };
    CatalogContext {
        snapshot,
        environment: "default".into(),
        environments: LazyLock::new(Box::new(|| vec!["default".into(), "staging".into()])),
        tenant: "acme".into(),
        user: "acme".into(),
        backend_pid: 4_242,
        settings: LazyLock::new(Box::new(move || {
            vec![
                setting("search_path", "\"$user\", public"),
                setting("default_table_access_method", "heap"),
                setting("jit", "off"),
            ]
        })),
        builds: vec![BuildProgress {
            pid: 7,
            index: TableId(20_005),
            table: TableId(ITEMS),
            phase: "building index: loading tuples".into(),
            blocks_total: 8,
            blocks_done: 1,
            tuples_total: 800,
            tuples_done: 100,
        }],
        usage: LazyLock::new(Box::new(|| {
            let disk =
                UsageRow { resource: "disk", used_bytes: 7, limit_bytes: None, setting: "tenant_disk_mib" };
            vec![disk]
        })),
        keys: LazyLock::new(Box::new(|| {
            Some(KeyRow { epoch: 2, created_us: 1_700_000_000_000_000, files_total: 9, ..KeyRow::default() })
        })),
        locks: LazyLock::new(Box::new(|| {
            let row = |object, granted| LockRow { pid: 7, object, mode: "ExclusiveLock", granted };
            vec![
                row(LockedObject::Table(TableId(ITEMS)), true),
                row(LockedObject::Row(TableId(ITEMS)), false),
                row(LockedObject::Table(TableId(9)), true),
                row(LockedObject::Advisory { class: 1, object: 2, kind: 1 }, true),
            ]
        })),
        sessions: LazyLock::new(Box::new(sessions)),
        signals: Arc::new(NoSessions),
        blocking: Arc::new(|pid| if pid == 7 { vec![4_242] } else { Vec::new() }),
        work: LazyLock::new(Box::new(work)),
        delivery: LazyLock::new(Box::new(delivery)),
        history: LazyLock::new(Box::new(history)),
        named: LazyLock::new(Box::new(named::NamedRows::default)),
        searches: None,
        control: Arc::new(Replays),
        table_bytes: Arc::new(|id| u64::from(id.0) * 1_000),
        start_time_us: 1_700_000_000_250_000,
        interrupted: Arc::new(|| false),
    }
}

/// Its own, that waits for a row, and one of another key's that it may not know more of.
fn sessions() -> Vec<SessionRow> {
    let own = SessionDetails {
        client: "192.0.2.7:5000".parse().ok(),
        began_us: 1_700_000_000_000_000,
        transaction_us: Some(1_700_000_000_500_000),
        query_us: None,
        changed_us: 1_700_000_001_000_000,
        state: "active",
        waits: Some(("Lock", "tuple")),
        query: "SELECT 1".into(),
    };
    let row = |pid, environment: &str, details| SessionRow {
        pid,
        environment: environment.into(),
        user: "key".into(),
        application: "psql".into(),
        details,
    };
    vec![row(4_242, "default", Some(own)), row(7, "staging", None)]
}

fn work() -> WorkRows {
    let task = |task, table| TaskRow {
        pid: 7,
        task,
        table,
        phase: "scanning heap",
        unit: "bytes",
        done: 8_192,
        total: 16_385,
        started_us: 1_700_000_000_000_000,
        per_second: 4_096,
    };
    let name = ColumnStatistics {
        column: ColumnId(2),
        null_frac: 0.25,
        avg_width: 6,
        n_distinct: -0.5,
        common: vec![("a b".into(), 0.125), ("c".into(), 0.0625)],
        histogram: vec!["d".into(), "e,f".into()],
    };
    let known = TableStatistics {
        vacuumed_us: Some(1_700_000_000_000_000),
        vacuums: 2,
        columns: vec![name],
        ..TableStatistics::default()
    };
    WorkRows {
        // Of another environment is the third.
        tasks: vec![
            task("vacuum", Some(TableId(ITEMS))),
            task("flush", None),
            task("compaction", Some(TableId(20_020))),
        ],
        copies: vec![CopyRow { pid: 7, table: TableId(ITEMS), bytes: 100, rows: 3 }],
        statistics: [(TableId(ITEMS), known)].into(),
        storage: StorageRow { live_rows: 5, write_amplification: Some(2.5), ..StorageRow::default() },
    }
}

fn delivery() -> DeliveryRows {
    let letter = |id, pipeline: &str| DeadLetterRow {
        id,
        pipeline: pipeline.into(),
        at: Some(1_700_000_000_000_000 + id),
        code: "rejected".into(),
        ..DeadLetterRow::default()
    };
    let letters = vec![letter(1, "orders"), letter(2, "notes"), letter(3, "orders")];
    DeliveryRows {
        secrets: vec![SecretRow {
            name: "hook".into(),
            version: 3,
            allowed_hosts: Some(vec!["a.example.com".into(), "*.b.com".into()]),
            ..SecretRow::default()
        }],
        dead_letters: LazyLock::new(Box::new(move || letters)),
        ..DeliveryRows::default()
    }
}

fn history() -> HistoryRows {
    let snapshot = SnapshotRow {
        name: "nightly".into(),
        at: 1_700_000_000_000_000,
        lsn: 9,
        comment: Some("before the move".into()),
        rows: 12,
        ..SnapshotRow::default()
    };
    let history = HistoryRow { oldest_lsn: 4, versions: 2, keep_minutes: 60, ..HistoryRow::default() };
    HistoryRows { snapshots: vec![snapshot], history: Some(history) }
}

/// Says what it was asked: 7 for all, else the instant.
#[derive(Debug)]
struct Replays;

impl DeliveryControl for Replays {
    fn replay(&self, pipeline: &str, since_us: Option<i64>) -> Result<i64> {
        assert_eq!(pipeline, "orders");
        Ok(since_us.unwrap_or(7))
    }
}

fn parse(sql: &str) -> Statement {
    let statements = Parser::parse_sql(&PostgreSqlDialect {}, sql);
    statements.unwrap_or_else(|error| panic!("{error}: {sql}")).remove(0)
}

/// A parameter's text as the array that the session hands in.
fn parameter(ty: &SqlType, text: &str) -> ArrayRef {
    let value = match ty {
        SqlType::Array(_) => {
            Value::List(parse_list(text).unwrap().into_iter().map(Value::from).collect::<Vec<_>>().into())
        }
        _ => Value::text(text),
    };
    column(ty, &[value]).unwrap()
}

fn run(context: &CatalogContext, sql: &str, parameters: &[&str]) -> Result<RecordBatch> {
    let query = prepare(&parse(sql), &[], context).unwrap_or_else(|| panic!("declined: {sql}"))?;
    let types = query.parameters().to_vec();
    let arrays: Vec<ArrayRef> = types.iter().zip(parameters).map(|(ty, text)| parameter(ty, text)).collect();
    query.run(&arrays, context)
}

/// The result as psql prints it with `-At`: `|` between columns, one line a row.
fn lines(context: &CatalogContext, sql: &str) -> Vec<String> {
    rendered(&run(context, sql, &[]).unwrap_or_else(|error| panic!("{error}: {sql}")))
}

fn rendered(batch: &RecordBatch) -> Vec<String> {
    let cell = |column: &ArrayRef, row: usize| match column.is_null(row) {
        true => String::new(),
        false => array_value_to_string(column, row).unwrap(),
    };
    let row = |row| batch.columns().iter().map(|column| cell(column, row)).collect::<Vec<_>>().join("|");
    (0..batch.num_rows()).map(row).collect()
}
