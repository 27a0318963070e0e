//! The WHERE clause of a fast search: typed when the statement is prepared, its parameters filled in when it runs.
//!
//! Only predicates whose value depends on the row and the parameters alone; anything else, a subquery or `now()`,
//! takes the planned way.

use std::sync::{Arc, OnceLock};

use datafusion::{
    common::{Column, DFSchemaRef, ParamValues},
    datasource::source_as_provider,
    logical_expr::{Expr, LogicalPlan},
    scalar::ScalarValue,
};
use sepal_types::{ColumnId, Result};

use crate::{
    error::translate,
    planner::{Engine, executable, fill_parameters, is_pure, names_parameter},
    table::as_user_table,
    vector::filter::Filter,
};

/// A predicate over one table, typed.
#[derive(Debug)]
pub struct FastFilter {
    predicate: Expr,
    /// The table's columns, all of them in order.
    schema: DFSchemaRef,
    /// Those that the predicate names.
    reads: Vec<ColumnId>,
    has_parameters: bool,
    /// What a predicate without parameters is compiled to, once.
    compiled: OnceLock<Arc<Filter>>,
}

impl FastFilter {
    /// The WHERE clause of a plan over one table. `None` when it must take the planned way.
    pub fn of(engine: &Engine, plan: &LogicalPlan) -> Option<Self> {
        let mut node = plan;
        let filter = loop {
            match (node, node.inputs().as_slice()) {
                (LogicalPlan::Filter(filter), _) => break filter,
                (_, [input]) => node = input,
                _ => return None,
            }
        };
        let input = match filter.input.as_ref() {
            LogicalPlan::SubqueryAlias(alias) => alias.input.as_ref(),
            input => input,
        };
        let LogicalPlan::TableScan(scan) = input else {
            return None;
        };
        if scan.projection.is_some() || !is_pure(&filter.predicate) {
            return None;
        }
        let provider = source_as_provider(&scan.source).ok()?;
        let def = as_user_table(provider.as_ref())?.def();
        let LogicalPlan::Filter(typed) = engine.analyze(LogicalPlan::Filter(filter.clone())).ok()? else {
            return None;
        };
        let schema = Arc::clone(typed.input.schema());
        let read = |column: &Column| Some(def.columns.get(schema.maybe_index_of_column(column)?)?.id);
        let reads = typed.predicate.column_refs().into_iter().map(read).collect::<Option<Vec<ColumnId>>>()?;
        Some(Self {
            schema,
            reads,
            has_parameters: names_parameter(&typed.predicate),
            predicate: typed.predicate,
            compiled: OnceLock::new(),
        })
    }

    /// The columns that the predicate names, each once.
    pub fn reads(&self) -> &[ColumnId] {
        &self.reads
    }

    /// The predicate with `$1`, `$2`, … filled in.
    pub fn compile(&self, engine: &Engine, values: &[ScalarValue]) -> Result<Arc<Filter>> {
        if let Some(compiled) = self.compiled.get() {
            return Ok(Arc::clone(compiled));
        }
        let predicate = match self.has_parameters {
            true => fill_parameters(self.predicate.clone(), &ParamValues::from(values.to_vec())),
            false => Ok(self.predicate.clone()),
        };
        let filter = predicate
            .and_then(|predicate| executable(engine, predicate, &self.schema))
            .map(|predicate| Arc::new(Filter::new(predicate, self.schema.as_arrow())))
            .map_err(translate)?;
        if self.has_parameters {
            return Ok(filter);
        }
        Ok(Arc::clone(self.compiled.get_or_init(|| filter)))
    }
}
