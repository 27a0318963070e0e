//! `SELECT columns FROM t WHERE key = $1`: one row by its primary key or a unique constraint, without DataFusion.
//!
//! The second query of nearly every application. Compiled at Parse like `vector::FastKnn`; an execution asks the
//! maps that storage keeps for its uniqueness checks. What is more than that is for `point`.

use std::sync::Arc;

use datafusion::{
    arrow::array::{Array, ArrayRef, RecordBatch},
    sql::sqlparser::ast::{BinaryOperator, Expr, LimitClause, Query, Value},
};
use sepal_storage::{TableVersion, arrow_type, has_arrow_type};
use sepal_types::{ColumnId, Result, SqlType, TableDef, TableId};

use crate::{
    context::StatementContext,
    output::{Described, OutputColumn},
    sql::{
        ParameterTypes,
        shape::{parameter, plain_column, plain_item, plain_select, plain_table},
    },
    values::decode_text,
    vector::{Hit, fetch},
};

/// Where one column of the key comes from.
#[derive(Clone, Debug)]
enum Key {
    Constant(ArrayRef),
    /// The parameter's position, from 0.
    Parameter(usize),
}

/// A compiled look-up.
#[derive(Clone, Debug)]
pub struct FastLookup {
    table: TableId,
    unique: TableId,
    /// In the order of the constraint's columns.
    keys: Vec<Key>,
    outputs: Vec<ColumnId>,
    described: Described,
}

impl FastLookup {
    /// Compiles a prepared query of this shape, its parameters typed; `None` for any other.
    pub fn compile(query: &Query, context: &StatementContext, parameters: &ParameterTypes) -> Option<Self> {
        let select = plain_select(query)?;
        if query.order_by.is_some() || !takes_one_row(query.limit_clause.as_ref()) {
            return None;
        }
        let (name, alias) = plain_table(select)?;
        let snapshot = context.snapshot.get();
        let def = &snapshot.find(&context.environment, &name)?.def;
        let names = [Some(name.name.as_str()), alias.as_deref()];
        let mut given = Vec::new();
        equalities(select.selection.as_ref()?, def, &names, &mut given)?;
        let unique = def.uniques.iter().find(|unique| {
            unique.columns.len() == given.len()
                && unique.columns.iter().all(|column| given.iter().any(|(id, _)| id == column))
        })?;
        let keys = unique
            .columns
            .iter()
            .map(|id| {
                let ty = &def.column_by_id(*id)?.ty;
                let (_, value) = given.iter().find(|(column, _)| column == id)?;
                key(value, ty, parameters)
            })
            .collect::<Option<_>>()?;
        let mut outputs = Vec::new();
        let mut columns = Vec::new();
        for item in &select.projection {
            let (expr, name) = plain_item(item)?;
            let definition = def.column_by_id(plain_column(expr, def, &names)?)?;
            outputs.push(definition.id);
            columns.push(OutputColumn::of(definition, def, name));
        }
        let described = Described::new(columns);
        Some(Self { table: def.id, unique: unique.id, keys, outputs, described })
    }

    /// Looks the row up. `None` when the table changed so that the statement must be planned anew.
    pub fn run(&self, context: &StatementContext, parameters: &[ArrayRef]) -> Result<Option<RecordBatch>> {
        let snapshot = context.snapshot.get();
        let Some(version) = snapshot.table(self.table) else {
            return Ok(None);
        };
        let Some(unique) = version.def.uniques.iter().find(|unique| unique.id == self.unique) else {
            return Ok(None);
        };
        let mut keys = Vec::with_capacity(self.keys.len());
        for (key, id) in self.keys.iter().zip(&unique.columns) {
            let array = match key {
                Key::Constant(array) => Some(array),
                Key::Parameter(position) => parameters.get(*position),
            };
            let column = version.def.column_by_id(*id);
            match (array, column) {
                (Some(array), Some(column)) if has_arrow_type(array.data_type(), &column.ty) => {
                    keys.push(Arc::clone(array));
                }
                _ => return Ok(None),
            }
        }
        let row = version.lookup_unique(unique, &keys)?.first().copied().flatten();
        let hits: Vec<Hit> = match row.map(|row| version.locate(row)).transpose()?.flatten() {
            Some((chunk, position)) => vec![Hit { chunk, position, distance: None }],
            None => Vec::new(),
        };
        self.rows(version, &hits)
    }

    fn rows(&self, version: &TableVersion, hits: &[Hit]) -> Result<Option<RecordBatch>> {
        let mut arrays = Vec::with_capacity(self.outputs.len());
        for id in &self.outputs {
            match version.def.column_by_id(*id) {
                Some(column) => arrays.push(fetch(version, column, hits)?),
                None => return Ok(None),
            }
        }
        self.described.batch(arrays, hits.len()).map(Some)
    }

    /// As Postgres words it in EXPLAIN.
    pub fn explain_lines(&self, context: &StatementContext) -> Vec<String> {
        let snapshot = context.snapshot.get();
        let Some(version) = snapshot.table(self.table) else {
            return Vec::new();
        };
        index_scan(version, self.unique)
    }
}

/// A look-up by a constraint's key, as Postgres words it in EXPLAIN.
pub(crate) fn index_scan(version: &TableVersion, unique: TableId) -> Vec<String> {
    let unique = version.def.uniques.iter().find(|known| known.id == unique);
    let name = unique.map_or("?", |unique| unique.name.as_str());
    let conditions: Vec<String> = unique
        .iter()
        .flat_map(|unique| &unique.columns)
        .filter_map(|id| version.def.column_by_id(*id))
        .map(|column| format!("({} = …)", column.name))
        .collect();
    vec![
        format!("Index Scan using {name} on {}", version.def.name),
        format!("  Index Cond: {}", conditions.join(" AND ")),
    ]
}

/// No LIMIT, or one that lets a row through.
fn takes_one_row(limit: Option<&LimitClause>) -> bool {
    match limit {
        None => true,
        Some(LimitClause::LimitOffset { limit: Some(Expr::Value(value)), offset: None, limit_by }) => {
            limit_by.is_empty()
                && matches!(&value.value, Value::Number(digits, _) if digits.parse::<u64>().is_ok_and(|count| count > 0))
        }
        Some(_) => false,
    }
}

/// Collects `column = value` of a conjunction. `None` when there is anything else in it, or a column twice.
fn equalities<'a>(
    expr: &'a Expr,
    def: &TableDef,
    names: &[Option<&str>],
    given: &mut Vec<(ColumnId, &'a Expr)>,
) -> Option<()> {
    match expr {
        Expr::Nested(inner) => equalities(inner, def, names, given),
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            equalities(left, def, names, given)?;
            equalities(right, def, names, given)
        }
        Expr::BinaryOp { left, op: BinaryOperator::Eq, right } => {
            let (column, value) = match (plain_column(left, def, names), plain_column(right, def, names)) {
                (Some(column), None) => (column, right.as_ref()),
                (None, Some(column)) => (column, left.as_ref()),
                _ => return None,
            };
            if given.iter().any(|(id, _)| *id == column) {
                return None;
            }
            given.push((column, value));
            Some(())
        }
        _ => None,
    }
}

/// A parameter of just the column's type, or a literal that reads as one.
fn key(value: &Expr, ty: &SqlType, parameters: &ParameterTypes) -> Option<Key> {
    if let Some(position) = parameter(value) {
        let declared = parameters.get(position + 1)?;
        let same_enum = declared.enum_type().map(|of| of.id) == ty.enum_type().map(|of| of.id);
        let same = same_enum && arrow_type(declared) == arrow_type(ty);
        return same.then_some(Key::Parameter(position));
    }
    let Expr::Value(value) = value else {
        return None;
    };
    let text = match (&value.value, ty) {
        (Value::Number(digits, _), SqlType::Int2 | SqlType::Int4 | SqlType::Int8) => digits,
        (Value::SingleQuotedString(text), ty) if !matches!(ty, SqlType::Numeric(_)) => text,
        _ => return None,
    };
    decode_text(ty, Some(text.as_bytes())).ok().map(Key::Constant)
}
