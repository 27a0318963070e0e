//! RETURNING: a query over the rows just written.
//!
//! The rows stand in a table of their own. Where the statement has FROM or USING, each relation there has such a
//! table too, joined to the first by the number of the row.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{ArrayRef, RecordBatch, UInt64Array},
        compute::cast,
        datatypes::{DataType, Field, Schema, SchemaRef},
    },
    logical_expr::LogicalPlan,
    scalar::ScalarValue,
    sql::sqlparser::ast::{self, Expr, Ident, SelectItem, SelectItemQualifiedWildcardKind},
};
use sepal_types::{Error, Result, TableDef};

use super::{
    DmlContext,
    assign::{TargetRows, row_schema},
    rows_table::RowsTable,
};
use crate::{
    ddl::identifier,
    output::{Described, OutputColumn, conform, conform_array},
    planner::{RowPlan, TemporaryTables},
    sql::{ParameterTypes, StatementKind, expand_wildcards, parse_statements, prepare_query},
    table::ROW_ID,
};

/// The number of a row, which joins the relations of one statement.
const PAIR: &str = "__pair";
/// Most rows for which the list is computed on the spot; the plan has threads of its own.
const FEW_ROWS: usize = 256;

/// A planned RETURNING list.
#[derive(Debug)]
pub struct Returning {
    plan: LogicalPlan,
    /// The plan again, where it reads the rows alone.
    list: Option<RowPlan>,
    columns: Vec<OutputColumn>,
    described: Described,
    rows: RowsTable,
    beside: Vec<RowsTable>,
}

/// A relation of FROM or USING: the name that the list calls it by, and its columns.
#[derive(Clone, Debug)]
pub struct Beside {
    pub name: String,
    pub fields: Vec<Field>,
}

impl Returning {
    /// Plans `items` over the target's columns. `alias` is the name the statement gives the target.
    pub fn prepare(
        items: &[SelectItem],
        def: &Arc<TableDef>,
        alias: Option<&str>,
        parameters: &mut ParameterTypes,
        context: &DmlContext,
    ) -> Result<Self> {
        Self::prepare_beside(items, def, alias, &[], parameters, context)
    }

    /// The same, with the columns of the relations of FROM or USING in sight.
    pub fn prepare_beside(
        items: &[SelectItem],
        def: &Arc<TableDef>,
        alias: Option<&str>,
        relations: &[Beside],
        parameters: &mut ParameterTypes,
        context: &DmlContext,
    ) -> Result<Self> {
        let shown = alias.unwrap_or(&def.name);
        let alone = relations.is_empty();
        let own = row_schema(def);
        let rows = if alone { own } else { numbered(own.fields().iter().map(|field| field.as_ref())) };
        let rows = RowsTable::new(rows);
        let mut temporary = TemporaryTables::default().instead_of(def, Arc::new(rows.clone()));
        let mut beside = Vec::with_capacity(relations.len());
        let mut query = if alone { skeleton(def, alias)? } else { joined(def, shown, relations)? };
        for (number, relation) in relations.iter().enumerate() {
            let table = RowsTable::new(numbered(relation.fields.iter()));
            temporary = temporary.with(&temporary_name(number), Arc::new(table.clone()));
            beside.push(table);
        }
        if let ast::SetExpr::Select(select) = query.body.as_mut() {
            select.projection =
                if alone { items.to_vec() } else { without_numbers(items, def, shown, relations) };
        }
        expand_wildcards(&mut query, &context.statement.table_columns());
        let columns = context.statement.column_types(&query);
        prepare_query(&mut query, parameters, &[], &columns);
        let plan = context.engine.plan(context.statement, &temporary, &query, parameters)?;
        let columns: Vec<OutputColumn> =
            plan.schema().fields().iter().map(|field| OutputColumn::from_field(field)).collect();
        let list = if alone { RowPlan::compile(context.engine, &plan) } else { None };
        let described = Described::new(columns.clone());
        Ok(Self { plan, list, columns, described, rows, beside })
    }

    pub fn columns(&self) -> &[OutputColumn] {
        &self.columns
    }

    /// The list evaluated over `rows`.
    pub async fn run(
        &self,
        def: &TableDef,
        rows: &TargetRows,
        values: &[ScalarValue],
        context: &DmlContext<'_>,
    ) -> Result<Vec<RecordBatch>> {
        if let Some(shown) = self.on_the_spot(rows, values, context)? {
            return Ok(shown);
        }
        self.rows.set(vec![rows.batch(def)?]);
        self.evaluate(values, context).await
    }

    /// The same without a plan. `None` for many rows, and for a list that asks for more than its row.
    fn on_the_spot(
        &self,
        rows: &TargetRows,
        values: &[ScalarValue],
        context: &DmlContext<'_>,
    ) -> Result<Option<Vec<RecordBatch>>> {
        let Some(list) = self.list.as_ref().filter(|_| rows.rows <= FEW_ROWS) else { return Ok(None) };
        let column = |place: usize| {
            let array = rows.arrays.get(place).cloned();
            array.ok_or_else(|| Error::bug("RETURNING reads a column that the table has not"))
        };
        let Some(batch) = list.run(context.engine, values, rows.rows, column)? else { return Ok(None) };
        let arrays = batch.columns().iter().zip(&self.columns);
        let arrays = arrays.map(|(array, column)| conform_array(array, &column.ty)).collect::<Result<_>>()?;
        Ok(Some(vec![self.described.batch(arrays, batch.num_rows())?]))
    }

    /// The list evaluated over `rows`; `beside` has the columns of FROM's relations, in order, a value per row.
    pub async fn run_beside(
        &self,
        def: &TableDef,
        rows: &TargetRows,
        beside: &[ArrayRef],
        values: &[ScalarValue],
        context: &DmlContext<'_>,
    ) -> Result<Vec<RecordBatch>> {
        if self.beside.is_empty() {
            return self.run(def, rows, values, context).await;
        }
        let numbers: ArrayRef =
            Arc::new(UInt64Array::from_iter_values(0..u64::try_from(rows.rows).unwrap_or(u64::MAX)));
        set_numbered(&self.rows, &rows.arrays, &numbers)?;
        let mut rest = beside;
        for table in &self.beside {
            let (own, others) = rest.split_at(table.schema().fields().len() - 1);
            set_numbered(table, own, &numbers)?;
            rest = others;
        }
        self.evaluate(values, context).await
    }

    async fn evaluate(&self, values: &[ScalarValue], context: &DmlContext<'_>) -> Result<Vec<RecordBatch>> {
        let batches = context.engine.collect(&self.plan, values.to_vec()).await?;
        self.rows.set(Vec::new());
        self.beside.iter().for_each(|table| table.set(Vec::new()));
        batches.into_iter().map(|batch| conform(batch, &self.columns)).collect()
    }
}

/// Columns, all nullable, and the row's number.
fn numbered<'f>(fields: impl Iterator<Item = &'f Field>) -> SchemaRef {
    let mut fields: Vec<Field> = fields.map(|field| field.clone().with_nullable(true)).collect();
    fields.push(Field::new(PAIR, DataType::UInt64, false));
    Arc::new(Schema::new(fields))
}

fn set_numbered(table: &RowsTable, columns: &[ArrayRef], numbers: &ArrayRef) -> Result<()> {
    let schema = table.schema();
    let mut arrays = Vec::with_capacity(columns.len() + 1);
    for (array, field) in columns.iter().zip(schema.fields()) {
        arrays.push(if array.data_type() == field.data_type() {
            Arc::clone(array)
        } else {
            cast(array, field.data_type()).map_err(crate::error::arrow)?
        });
    }
    arrays.push(Arc::clone(numbers));
    let batch = RecordBatch::try_new(Arc::clone(schema), arrays).map_err(crate::error::arrow)?;
    table.set(vec![batch]);
    Ok(())
}

fn temporary_name(number: usize) -> String {
    format!("__from_{number}")
}

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The target and the relations beside it, row by row, in the order of the rows.
fn joined(def: &TableDef, shown: &str, relations: &[Beside]) -> Result<Box<ast::Query>> {
    let target = quote(shown);
    let mut sql = format!("SELECT 1 FROM {} AS {target}", qualified(def));
    for (number, relation) in relations.iter().enumerate() {
        let (table, name) = (quote(&temporary_name(number)), quote(&relation.name));
        sql.push_str(&format!(" JOIN {table} AS {name} ON {target}.{PAIR} = {name}.{PAIR}"));
    }
    parse_query(&format!("{sql} ORDER BY {target}.{PAIR}"))
}

/// The list with its wildcards written out: the rows' numbers and ids are nobody's columns.
fn without_numbers(
    items: &[SelectItem],
    def: &TableDef,
    shown: &str,
    relations: &[Beside],
) -> Vec<SelectItem> {
    let column = |relation: &str, name: &str| {
        let parts = vec![Ident::with_quote('"', relation), Ident::with_quote('"', name)];
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts))
    };
    let target: Vec<SelectItem> =
        def.columns.iter().map(|definition| column(shown, &definition.name)).collect();
    let others = |relation: &Beside| -> Vec<SelectItem> {
        let fields = relation.fields.iter().filter(|field| field.name() != ROW_ID);
        fields.map(|field| column(&relation.name, field.name())).collect()
    };
    let mut written = Vec::with_capacity(items.len());
    for item in items {
        match item {
            SelectItem::Wildcard(_) => {
                written.extend(target.iter().cloned());
                written.extend(relations.iter().flat_map(others));
            }
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) => {
                let name = name.0.last().and_then(|part| part.as_ident()).map(identifier).unwrap_or_default();
                match relations.iter().find(|relation| relation.name == name) {
                    _ if name == shown => written.extend(target.iter().cloned()),
                    Some(relation) => written.extend(others(relation)),
                    None => written.push(item.clone()),
                }
            }
            _ => written.push(item.clone()),
        }
    }
    written
}

/// A table's name that no search path has a say in.
pub fn qualified(def: &TableDef) -> String {
    format!("{}.{}", quote(&def.schema), quote(&def.name))
}

/// `SELECT 1 FROM "schema"."table" [AS "alias"]`, to be given another list.
pub fn skeleton(def: &TableDef, alias: Option<&str>) -> Result<Box<ast::Query>> {
    let alias = alias.map(|alias| format!(" AS {}", quote(alias))).unwrap_or_default();
    parse_query(&format!("SELECT 1 FROM {}{alias}", qualified(def)))
}

/// Parses a query of our own making.
pub fn parse_query(sql: &str) -> Result<Box<ast::Query>> {
    let statement = parse_statements(sql)?.into_iter().next();
    match statement.map(|statement| statement.kind) {
        Some(StatementKind::Sql(statement)) => match *statement {
            ast::Statement::Query(query) => Ok(query),
            other => Err(sepal_types::Error::bug(format!("not a query: {other}"))),
        },
        _ => Err(sepal_types::Error::bug(format!("not a query: {sql}"))),
    }
}
