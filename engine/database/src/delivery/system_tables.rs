//! The tables of the environment `$system`: what a tenant defines besides its own tables, and where its pipelines
//! stand. `objects` and `session::delivery` read and write definitions, `pipeline` the rest.
//!
//! They are ordinary tables of the tenant's store, so whatever is written to them is one commit with what it belongs
//! to, sealed and recovered like any row. No session can name them: an environment's name has no `$`
//! ([`sepal_control::EnvironmentName`]), and every lookup by name and every catalog is bound to one environment.
//! Reading tolerates tables and columns that are not there (yet).
//!
//! ```text
//! objects         kind, environment, name → body                 definitions, as JSON (`objects`)
//! components      sha256 → bytes                                 WASM by its hash, lower-case hex
//! pipeline_state  id → body                                      a pipeline's position, as JSON (`pipeline`)
//! plugin_state    pipeline, key → value                          what a sink asked to be kept
//! statistics      id → body                                      what ANALYZE found of a table, as JSON (`statistics`)
//! dead_letters    id → pipeline, environment, at, code, message, op, key, row, batch_id, position, replay
//! ```
//! `id` of `pipeline_state`, and `pipeline` of the last two, is [`super::objects::PipelineDef::id`]: a pipeline that
//! is dropped and made again under its name begins with nothing.

mod scan;

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Int64Array, RecordBatch, StringArray,
        TimestampMicrosecondArray,
    },
    datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimestampMicrosecondType, UInt64Type},
};
use sepal_storage::{Op, Snapshot, StoreError, TableVersion, TenantStore, arrow_type, stored_name};
use sepal_types::{
    ColumnDef, ColumnId, Constraints, Error, PUBLIC_SCHEMA, RelationRef, Result, RowId, SqlType, TableDef,
    TableId, UniqueDef,
};

/// Where the tables are. No environment can have this name.
pub const SYSTEM_ENVIRONMENT: &str = "$system";

/// The column that [`Rows`] adds: the row's id.
const ROW_ID: &str = "$row";

/// Names of the columns with their types; the first `key` of them are the primary key.
struct Layout {
    name: &'static str,
    key: usize,
    columns: &'static [(&'static str, SqlType)],
}

const OBJECTS: Layout = Layout {
    name: "objects",
    key: 3,
    columns: &[
        ("kind", SqlType::Text),
        ("environment", SqlType::Text),
        ("name", SqlType::Text),
        ("body", SqlType::Text),
    ],
};

const COMPONENTS: Layout =
    Layout { name: "components", key: 1, columns: &[("sha256", SqlType::Text), ("bytes", SqlType::Bytea)] };

const PIPELINE_STATE: Layout =
    Layout { name: "pipeline_state", key: 1, columns: &[("id", SqlType::Text), ("body", SqlType::Text)] };

const PLUGIN_STATE: Layout = Layout {
    name: "plugin_state",
    key: 2,
    columns: &[("pipeline", SqlType::Text), ("key", SqlType::Text), ("value", SqlType::Bytea)],
};

const STATISTICS: Layout =
    Layout { name: "statistics", key: 1, columns: &[("id", SqlType::Int8), ("body", SqlType::Text)] };

const DEAD_LETTERS: Layout = Layout {
    name: "dead_letters",
    key: 1,
    columns: &[
        ("id", SqlType::Int8),
        ("pipeline", SqlType::Text),
        ("environment", SqlType::Text),
        ("at", SqlType::Timestamptz),
        ("code", SqlType::Text),
        ("message", SqlType::Text),
        ("op", SqlType::Text),
        ("key", SqlType::Text),
        ("row", SqlType::Text),
        ("batch_id", SqlType::Text),
        ("position", SqlType::Text),
        ("replay", SqlType::Bool),
    ],
};

/// One of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SystemTable {
    Objects,
    Components,
    PipelineState,
    PluginState,
    DeadLetters,
    Statistics,
}

/// A value on its way into a row, or a key to look for.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    Null,
    Text(String),
    Bytes(Vec<u8>),
    Int(i64),
    /// Microseconds since 1970 UTC.
    Time(i64),
    Flag(bool),
}

static NULL: Cell = Cell::Null;

impl Cell {
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    pub fn optional(text: Option<impl Into<String>>) -> Self {
        text.map_or(Self::Null, |text| Self::Text(text.into()))
    }
}

/// Live rows of a table. Columns are asked for by name; one that the stored table lacks reads as NULL.
#[derive(Clone, Debug)]
pub struct Rows {
    batch: RecordBatch,
}

impl SystemTable {
    pub const ALL: [Self; 6] = [
        Self::Objects,
        Self::Components,
        Self::PipelineState,
        Self::PluginState,
        Self::DeadLetters,
        Self::Statistics,
    ];

    const fn layout(self) -> &'static Layout {
        match self {
            Self::Objects => &OBJECTS,
            Self::Components => &COMPONENTS,
            Self::PipelineState => &PIPELINE_STATE,
            Self::PluginState => &PLUGIN_STATE,
            Self::DeadLetters => &DEAD_LETTERS,
            Self::Statistics => &STATISTICS,
        }
    }

    pub const fn name(self) -> &'static str {
        self.layout().name
    }

    /// The table in a snapshot; `None` before the tenant's first definition of this family.
    pub fn find(self, snapshot: &Snapshot) -> Option<&Arc<TableVersion>> {
        // Whatever search path a session's snapshot has.
        snapshot.find(SYSTEM_ENVIRONMENT, RelationRef { schema: Some(PUBLIC_SCHEMA), name: self.name() })
    }

    pub fn id(self, snapshot: &Snapshot) -> Option<TableId> {
        self.find(snapshot).map(|version| version.def.id)
    }

    /// The live row of a primary key. Reads the chunk that holds it, not the table.
    pub fn get(self, snapshot: &Snapshot, key: &[Cell]) -> Result<Option<Rows>> {
        let Some(version) = self.find(snapshot) else { return Ok(None) };
        let Some(row) = self.row_id(version, key)? else { return Ok(None) };
        let Some((chunk, position)) = version.locate(row)? else { return Ok(None) };
        let (chunk, position) = (&version.chunks[chunk].chunk, position as usize);
        let ids: ArrayRef = chunk.row_ids()?;
        let mut arrays = vec![ids.slice(position, 1)];
        let names = self.layout().columns.iter();
        let columns: Vec<&ColumnDef> = names.filter_map(|(name, _)| version.def.column(name)).collect();
        for column in &columns {
            arrays.push(chunk.column(column)?.slice(position, 1));
        }
        let batch = RecordBatch::try_new(schema(&columns), arrays).map_err(StoreError::from)?;
        Ok(Some(Rows { batch }))
    }

    /// The row id of a primary key.
    fn row_id(self, version: &TableVersion, key: &[Cell]) -> Result<Option<RowId>> {
        let Some(unique) = version.def.primary_key() else {
            return Err(Error::bug(format!("the system table {} has lost its key", self.name())));
        };
        let columns = &self.layout().columns[..self.layout().key];
        if key.len() != columns.len() {
            return Err(Error::bug(format!("a key of {} has {} columns", self.name(), columns.len())));
        }
        let arrays: Vec<ArrayRef> = columns
            .iter()
            .zip(key)
            .map(|((_, ty), cell)| array(ty, std::iter::once(cell)))
            .collect::<Result<_>>()?;
        Ok(version.lookup_unique(unique, &arrays)?.first().copied().flatten())
    }

    /// Operations that add rows. Each row has the table's columns in the order of the module's description; missing
    /// ones at the end are NULL. A dead letter without an id gets one here.
    pub fn insert_ops(self, store: &TenantStore, snapshot: &Snapshot, rows: &[Vec<Cell>]) -> Result<Vec<Op>> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let def = &self.existing(snapshot)?.def;
        let first_row = store.reserve_rows(def.id, rows.len() as u64);
        let mut arrays = Vec::with_capacity(def.columns.len());
        let mut fields = Vec::with_capacity(def.columns.len());
        for column in &def.columns {
            let at = self.layout().columns.iter().position(|(name, _)| *name == column.name);
            let cells = rows.iter().map(|row| at.and_then(|at| row.get(at)).unwrap_or(&NULL));
            let values = match (self, at) {
                (Self::DeadLetters, Some(0)) => numbered(first_row, cells),
                _ => array(&column.ty, cells)?,
            };
            fields.push(Field::new(stored_name(column.id), arrow_type(&column.ty), true));
            arrays.push(values);
        }
        let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).map_err(StoreError::from)?;
        Ok(vec![Op::Insert { table: def.id, first_row, rows }])
    }

    /// The same, in the place of the rows that have the same keys. No two of `rows` have the same key.
    pub fn upsert_ops(self, store: &TenantStore, snapshot: &Snapshot, rows: &[Vec<Cell>]) -> Result<Vec<Op>> {
        let keys: Vec<Vec<Cell>> =
            rows.iter().map(|row| row.iter().take(self.layout().key).cloned().collect()).collect();
        let mut ops = self.delete_ops(snapshot, &keys)?;
        ops.extend(self.insert_ops(store, snapshot, rows)?);
        Ok(ops)
    }

    /// Operations that remove the rows of primary keys, those of them that are there.
    pub fn delete_ops(self, snapshot: &Snapshot, keys: &[Vec<Cell>]) -> Result<Vec<Op>> {
        let Some(version) = self.find(snapshot) else { return Ok(Vec::new()) };
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            found.extend(self.row_id(version, key)?);
        }
        Ok(self.delete_rows(snapshot, found))
    }

    /// Operations that remove rows by their ids.
    pub fn delete_rows(self, snapshot: &Snapshot, mut rows: Vec<RowId>) -> Vec<Op> {
        let Some(table) = self.id(snapshot).filter(|_| !rows.is_empty()) else { return Vec::new() };
        rows.sort_unstable();
        rows.dedup();
        vec![Op::Delete { table, rows }]
    }

    fn existing(self, snapshot: &Snapshot) -> Result<&Arc<TableVersion>> {
        let missing =
            || Error::bug(format!("the system table {} was written before it was made", self.name()));
        self.find(snapshot).ok_or_else(missing)
    }

    fn definition(self, store: &TenantStore) -> TableDef {
        let layout = self.layout();
        let columns: Vec<ColumnDef> = layout
            .columns
            .iter()
            .zip(1..)
            .map(|((name, ty), id)| ColumnDef::new(ColumnId(id), *name, ty.clone()))
            .collect();
        let id = store.next_object_id();
        let key = UniqueDef {
            id: store.next_object_id(),
            name: format!("{}_pkey", layout.name),
            columns: columns.iter().take(layout.key).map(|column| column.id).collect(),
            primary: true,
            index: None,
        };
        let next_column = columns.last().map_or(ColumnId(1), |column| ColumnId(column.id.0 + 1));
        TableDef {
            id,
            environment: SYSTEM_ENVIRONMENT.to_owned(),
            schema: "public".to_owned(),
            name: layout.name.to_owned(),
            columns,
            next_column,
            uniques: vec![key],
            indexes: Vec::new(),
            captured: false,
            constraints: Constraints::default(),
        }
    }
}

/// Makes the tables that are not there yet, in a commit of its own, and gives a snapshot that has them all. Blocking.
///
/// A commit of its own, so that two sessions that make their first definitions at once do not fail each other: whoever
/// comes second finds them made.
pub fn ensure(store: &TenantStore) -> Result<Snapshot> {
    loop {
        let snapshot = store.snapshot();
        let missing = SystemTable::ALL.iter().filter(|table| table.find(&snapshot).is_none());
        let ops: Vec<Op> = missing.map(|table| Op::CreateTable(table.definition(store))).collect();
        if ops.is_empty() {
            return Ok(snapshot);
        }
        match store.commit(&snapshot, ops) {
            Ok(_) | Err(StoreError::DuplicateTable(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

impl Rows {
    fn none() -> Self {
        Self { batch: RecordBatch::new_empty(Arc::new(Schema::empty())) }
    }

    pub fn len(&self) -> usize {
        self.batch.num_rows()
    }

    fn present(&self, column: &str, row: usize) -> Option<&ArrayRef> {
        self.batch.column_by_name(column).filter(|array| array.is_valid(row))
    }

    pub fn text(&self, column: &str, row: usize) -> Option<&str> {
        Some(self.present(column, row)?.as_string_opt::<i32>()?.value(row))
    }

    pub fn bytes(&self, column: &str, row: usize) -> Option<&[u8]> {
        Some(self.present(column, row)?.as_binary_opt::<i32>()?.value(row))
    }

    pub fn int(&self, column: &str, row: usize) -> Option<i64> {
        Some(self.present(column, row)?.as_primitive_opt::<Int64Type>()?.value(row))
    }

    /// Microseconds since 1970 UTC.
    pub fn time(&self, column: &str, row: usize) -> Option<i64> {
        Some(self.present(column, row)?.as_primitive_opt::<TimestampMicrosecondType>()?.value(row))
    }

    pub fn flag(&self, column: &str, row: usize) -> Option<bool> {
        Some(self.present(column, row)?.as_boolean_opt()?.value(row))
    }

    /// For [`SystemTable::delete_rows`].
    pub fn row_id(&self, row: usize) -> Option<RowId> {
        Some(RowId(self.present(ROW_ID, row)?.as_primitive_opt::<UInt64Type>()?.value(row)))
    }

    pub fn row_ids(&self) -> Vec<RowId> {
        (0..self.len()).filter_map(|row| self.row_id(row)).collect()
    }

    /// A row as [`SystemTable::insert_ops`] takes it, to be written again with something changed.
    pub fn cells(&self, table: SystemTable, row: usize) -> Vec<Cell> {
        let cell = |(name, ty): &(&'static str, SqlType)| match ty {
            SqlType::Bytea => self.bytes(name, row).map(|bytes| Cell::Bytes(bytes.to_vec())),
            SqlType::Int8 => self.int(name, row).map(Cell::Int),
            SqlType::Timestamptz => self.time(name, row).map(Cell::Time),
            SqlType::Bool => self.flag(name, row).map(Cell::Flag),
            _ => self.text(name, row).map(Cell::text),
        };
        table.layout().columns.iter().map(|column| cell(column).unwrap_or(Cell::Null)).collect()
    }
}

/// Of [`Rows`]: the row's id and the columns under their own names.
fn schema(columns: &[&ColumnDef]) -> SchemaRef {
    let id = Field::new(ROW_ID, DataType::UInt64, false);
    let columns = columns.iter().map(|column| Field::new(&column.name, arrow_type(&column.ty), true));
    Arc::new(Schema::new(std::iter::once(id).chain(columns).collect::<Vec<_>>()))
}

/// Ids where there are none, from row ids: no row id is ever used twice, so no id is either.
fn numbered<'a>(first: RowId, cells: impl Iterator<Item = &'a Cell>) -> ArrayRef {
    let ids = (first.0..).zip(cells).map(|(row, cell)| match cell {
        Cell::Int(id) => *id,
        _ => i64::try_from(row).unwrap_or(i64::MAX),
    });
    Arc::new(Int64Array::from_iter_values(ids))
}

/// Cells of one column. Errors: a cell of another type, which is a bug of ours.
fn array<'a>(ty: &SqlType, cells: impl Iterator<Item = &'a Cell> + Clone) -> Result<ArrayRef> {
    let fits = |cell: &Cell| {
        matches!(
            (ty, cell),
            (_, Cell::Null)
                | (SqlType::Text, Cell::Text(_))
                | (SqlType::Bytea, Cell::Bytes(_))
                | (SqlType::Int8, Cell::Int(_))
                | (SqlType::Timestamptz, Cell::Time(_))
                | (SqlType::Bool, Cell::Flag(_))
        )
    };
    if !cells.clone().all(fits) {
        return Err(Error::bug(format!("a value that is no {} for a system table", ty.display_name())));
    }
    Ok(match ty {
        SqlType::Bytea => Arc::new(BinaryArray::from_iter(cells.map(|cell| match cell {
            Cell::Bytes(bytes) => Some(bytes.as_slice()),
            _ => None,
        }))),
        SqlType::Int8 => Arc::new(Int64Array::from_iter(cells.map(|cell| match cell {
            Cell::Int(number) => Some(*number),
            _ => None,
        }))),
        SqlType::Timestamptz => Arc::new(
            TimestampMicrosecondArray::from_iter(cells.map(|cell| match cell {
                Cell::Time(time) => Some(*time),
                _ => None,
            }))
            .with_timezone("UTC"),
        ),
        SqlType::Bool => Arc::new(BooleanArray::from_iter(cells.map(|cell| match cell {
            Cell::Flag(flag) => Some(*flag),
            _ => None,
        }))),
        _ => Arc::new(StringArray::from_iter(cells.map(|cell| match cell {
            Cell::Text(text) => Some(text.as_str()),
            _ => None,
        }))),
    })
}
