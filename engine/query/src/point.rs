//! The row of a plan whose WHERE clause names a key: `SELECT a + 1 FROM t WHERE id = $1 AND b > 0`, also where it is to
//! be changed or locked.
//!
//! Compiled from the plan when a statement is prepared (`dml`, `locking`, `database::Session`). An execution looks the
//! key up in the maps that storage keeps for its uniqueness checks, and computes the plan's expressions for that row:
//! while a transaction has a row that others wait for, nothing is planned. What an execution cannot do so, because the
//! table or a parameter is not what it was compiled for or a column would have to be read first, takes the planned way,
//! with the same rows.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{ArrayRef, RecordBatch, UInt64Array},
        compute::{CastOptions, cast_with_options},
        datatypes::DataType,
    },
    common::DFSchema,
    datasource::source_as_provider,
    logical_expr::{BinaryExpr, Cast, Expr, ExprSchemable, LogicalPlan, Operator, utils::split_conjunction},
    scalar::ScalarValue,
};
use sepal_storage::{Located, TableVersion, arrow_type};
use sepal_types::{ColumnDef, ColumnId, Error, Result, SqlType, TableDef, TableId};

use crate::{
    error::{self, translate},
    lookup::index_scan,
    planner::{Engine, Moment, RowParts, RowPlan},
    table::{UserTable, as_user_table},
    vector::{Hit, fetch},
};

/// A compiled plan.
#[derive(Debug)]
pub struct PointRead {
    table: UserTable,
    unique: TableId,
    /// The constraint's columns.
    columns: Vec<ColumnId>,
    /// Their values, in that order, from the parameters.
    key: RowPlan,
    /// The whole plan, over the rows that have the key.
    rows: RowPlan,
    /// What the WHERE clause asks beside the key, in words.
    filter: Option<String>,
}

impl PointRead {
    /// Compiles `SELECT … FROM table WHERE key = … [AND …]`, planned. `None` for any other plan, and where an
    /// expression asks for more than its row, the parameters and the time.
    pub fn compile(engine: &Engine, plan: &LogicalPlan) -> Option<Self> {
        RowParts::of(plan)?.predicate?;
        let (plan, moment) = Moment::name(plan).ok()?;
        let plan = engine.analyze(plan).ok()?;
        let parts = RowParts::of(&plan)?;
        let predicate = parts.predicate?;
        let provider = source_as_provider(&parts.scan.source).ok()?;
        let table = as_user_table(provider.as_ref())?.clone();
        if !matches!(predicate.get_type(&**parts.columns), Ok(DataType::Boolean)) {
            return None;
        }
        let conjuncts = split_conjunction(predicate);
        let equalities: Vec<(usize, ColumnId, &Expr)> = (0..)
            .zip(&conjuncts)
            .filter_map(|(place, conjunct)| {
                let (column, value) = equality(conjunct, parts.columns, table.def())?;
                Some((place, column, value))
            })
            .collect();
        let value_of = |id: &ColumnId| equalities.iter().find(|(_, column, _)| column == id);
        let uniques = table.def().uniques.iter();
        let (unique, used) = uniques.filter(|unique| !unique.columns.is_empty()).find_map(|unique| {
            Some((unique, unique.columns.iter().map(value_of).collect::<Option<Vec<_>>>()?))
        })?;
        let values: Vec<Expr> = used.iter().map(|(_, _, value)| (*value).clone()).collect();
        let rest = (0..).zip(&conjuncts).filter(|(place, _)| used.iter().all(|(taken, ..)| taken != place));
        let rest: Vec<String> =
            rest.map(|(_, conjunct): (usize, _)| conjunct.human_display().to_string()).collect();
        Some(Self {
            unique: unique.id,
            columns: unique.columns.clone(),
            key: RowPlan::new(engine, &DFSchema::empty(), None, &values, moment.clone())?,
            rows: RowPlan::new(engine, parts.columns, Some(predicate), parts.outputs, moment)?,
            filter: (!rest.is_empty()).then(|| rest.join(" AND ")),
            table,
        })
    }

    /// The plan's rows in what its table shows now, by ascending row id; `values` are those of `$1`, `$2`, … `None`:
    /// the plan is to be run.
    ///
    /// Errors: as the planned way gives them.
    pub fn find(&self, engine: &Engine, values: &[ScalarValue]) -> Result<Option<RecordBatch>> {
        let version = self.table.version().map_err(translate)?;
        let Some(mut found) = self.with_key(&version, engine, values)? else { return Ok(None) };
        if let Some(shown) = self.table.shown_rows() {
            found.retain(|located| shown.shows(located.row.0));
        }
        if !self.is_at_hand(&version, &found) {
            return Ok(None);
        }
        let hit =
            |located: &Located| Hit { chunk: located.chunk, position: located.position, distance: None };
        let hits: Vec<Hit> = found.iter().map(hit).collect();
        let column = |place: usize| match self.table.column_at(place) {
            Some(column) => fetch(&version, column, &hits),
            None => {
                let ids = found.iter().map(|located| located.row.0);
                Ok(Arc::new(UInt64Array::from_iter_values(ids)) as ArrayRef)
            }
        };
        self.rows.run(engine, values, found.len(), column)
    }

    /// The rows that have the key.
    fn with_key(
        &self,
        version: &TableVersion,
        engine: &Engine,
        values: &[ScalarValue],
    ) -> Result<Option<Vec<Located>>> {
        let same = version.def.uniques.iter().find(|unique| unique.id == self.unique);
        let Some(unique) = same.filter(|unique| unique.columns == self.columns) else { return Ok(None) };
        let no_column = |_: usize| Err(Error::bug("the value of a key reads a column"));
        let Some(given) = self.key.run(engine, values, 1, no_column)? else { return Ok(None) };
        let mut key = Vec::with_capacity(self.columns.len());
        for (array, id) in given.columns().iter().zip(&self.columns) {
            let Some(column) = version.def.column_by_id(*id) else { return Ok(None) };
            match fitted(array, column)? {
                Some(array) => key.push(array),
                None => return Ok(None),
            }
        }
        Ok(Some(version.find_key(unique, &key)?))
    }

    /// Whether nothing has to be decoded for these rows: that is done where it holds nobody up.
    fn is_at_hand(&self, version: &TableVersion, found: &[Located]) -> bool {
        let read = self.table.def().columns.iter().enumerate().filter(|(place, _)| self.rows.reads(*place));
        let read: Vec<ColumnId> = read.map(|(_, column)| column.id).collect();
        let mut chunks = found.iter().map(|located| &version.chunks[located.chunk].chunk);
        chunks.all(|chunk| read.iter().all(|column| chunk.is_at_hand(*column)))
    }

    /// As Postgres words it in EXPLAIN.
    pub fn explain_lines(&self) -> Vec<String> {
        let Ok(version) = self.table.version() else { return Vec::new() };
        let mut lines = index_scan(&version, self.unique);
        lines.extend(self.filter.iter().map(|filter| format!("  Filter: {filter}")));
        lines
    }
}

/// The column of `column = value`, where the value is the same for all rows and keys of the column can be looked up by
/// it.
fn equality<'e>(expr: &'e Expr, columns: &DFSchema, def: &TableDef) -> Option<(ColumnId, &'e Expr)> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = expr else { return None };
    [(left, right), (right, left)].into_iter().find_map(|(column, value)| {
        let column = key_column(column, columns, def)?;
        let is_given = value.column_refs().is_empty();
        let fits = is_given && is_key_value(&value.get_type(columns).ok()?, &column.ty);
        fits.then_some((column.id, &**value))
    })
}

/// The column that an expression is, or widens: an `integer` is compared with a `bigint` as a `bigint`.
fn key_column<'d>(expr: &Expr, columns: &DFSchema, def: &'d TableDef) -> Option<&'d ColumnDef> {
    match expr {
        Expr::Column(column) => def.columns.get(columns.maybe_index_of_column(column)?),
        Expr::Cast(Cast { expr, field }) => {
            let column = key_column(expr, columns, def)?;
            let (from, to) = (width(&arrow_type(&column.ty))?, width(field.data_type())?);
            (from < to).then_some(column)
        }
        _ => None,
    }
}

/// Whether values of a type can be looked up among keys of a column. Not among numbers with a fraction: what is equal
/// there is for the planned way to say.
fn is_key_value(value: &DataType, ty: &SqlType) -> bool {
    let wanted = arrow_type(ty);
    match ty {
        SqlType::Int2 | SqlType::Int4 | SqlType::Int8 => width(value).is_some(),
        SqlType::Bytea
        | SqlType::Date
        | SqlType::Text
        | SqlType::Timestamp
        | SqlType::Timestamptz
        | SqlType::Uuid
        | SqlType::Varchar(_) => *value == wanted,
        _ => false,
    }
}

/// Bytes of an integer.
const fn width(data_type: &DataType) -> Option<u8> {
    match data_type {
        DataType::Int16 => Some(2),
        DataType::Int32 => Some(4),
        DataType::Int64 => Some(8),
        _ => None,
    }
}

/// A key's value as the column has it; NULL, which no key is, for a number that is out of its range. `None` for a type
/// that the plan did not promise.
fn fitted(array: &ArrayRef, column: &ColumnDef) -> Result<Option<ArrayRef>> {
    let wanted = arrow_type(&column.ty);
    if *array.data_type() == wanted {
        return Ok(Some(Arc::clone(array)));
    }
    if width(array.data_type()).is_none() || width(&wanted).is_none() {
        return Ok(None);
    }
    let options = CastOptions { safe: true, ..CastOptions::default() };
    cast_with_options(array, &wanted, &options).map(Some).map_err(error::arrow)
}
