//! Expressions over pairs of rows, one of the input and one of the table: of both only the columns that are read.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{ArrayRef, NullArray, RecordBatch, RecordBatchOptions},
        datatypes::{DataType, Field, Schema, SchemaRef},
    },
    catalog::Session,
    common::{
        Column, DFSchema,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    error::Result,
    logical_expr::{Expr, physical_planning_context::PhysicalPlanningContext},
    physical_expr::{PhysicalExpr, utils::collect_columns},
    physical_planner::PhysicalPlanner,
};

use crate::vector::exec::simplifier;

/// The columns of both sides, as one schema in which every name stands once.
pub(super) struct Sides<'a> {
    input: &'a DFSchema,
    table: &'a Schema,
    both: DFSchema,
}

/// Expressions that are evaluated together.
#[derive(Debug)]
pub(super) struct Pairs {
    exprs: Vec<Arc<dyn PhysicalExpr>>,
    /// The columns of the input, then those of the table; those that no expression reads as NULLs.
    schema: SchemaRef,
    reads: Vec<bool>,
    /// How many columns are the input's.
    input: usize,
}

impl<'a> Sides<'a> {
    pub fn new(input: &'a DFSchema, table: &'a Schema) -> Result<Self> {
        let of_input = input.fields().iter().map(|field| field.as_ref());
        let of_table = table.fields().iter().map(|field| field.as_ref());
        let named = |(position, field): (usize, &Field)| field.clone().with_name(name(position));
        let fields: Vec<Field> = of_input.chain(of_table).enumerate().map(named).collect();
        let both = DFSchema::from_unqualified_fields(fields.into(), std::collections::HashMap::new())?;
        Ok(Self { input, table, both })
    }

    /// Makes expressions executable in which columns are the table's and outer references the input's.
    pub fn plan<'e>(
        &self,
        exprs: impl Iterator<Item = &'e Expr>,
        planner: &dyn PhysicalPlanner,
        session: &dyn Session,
    ) -> Result<Pairs> {
        let planning = PhysicalPlanningContext::default();
        let simplifier = simplifier(&self.both, session);
        let exprs: Vec<Arc<dyn PhysicalExpr>> = exprs
            .map(|expr| {
                let expr = simplifier.simplify(self.renamed(expr.clone())?)?;
                planner.create_physical_expr(&expr, &self.both, session, &planning)
            })
            .collect::<Result<_>>()?;
        let mut reads = vec![false; self.both.fields().len()];
        for column in exprs.iter().flat_map(collect_columns) {
            if let Some(read) = reads.get_mut(column.index()) {
                *read = true;
            }
        }
        let read = |(field, read): (&Arc<Field>, &bool)| match read {
            true => field.as_ref().clone().with_nullable(true),
            false => Field::new(field.name(), DataType::Null, true),
        };
        let fields: Vec<Field> = self.both.fields().iter().zip(&reads).map(read).collect();
        Ok(Pairs { exprs, schema: Arc::new(Schema::new(fields)), reads, input: self.input.fields().len() })
    }

    fn renamed(&self, expr: Expr) -> Result<Expr> {
        expr.transform(|expr| {
            let position = match &expr {
                Expr::OuterReferenceColumn(_, column) => self.input.index_of_column(column)?,
                Expr::Column(column) => self.input.fields().len() + self.table.index_of(&column.name)?,
                _ => return Ok(Transformed::no(expr)),
            };
            let column = Expr::Column(Column::new_unqualified(name(position)));
            Ok(Transformed::new(column, true, TreeNodeRecursion::Jump))
        })
        .map(|renamed| renamed.data)
    }
}

/// A column's name among those of both sides.
fn name(position: usize) -> String {
    format!("column {position}")
}

impl Pairs {
    pub fn is_empty(&self) -> bool {
        self.exprs.is_empty()
    }

    pub fn exprs(&self) -> &[Arc<dyn PhysicalExpr>] {
        &self.exprs
    }

    /// The positions of the input's columns that are read.
    pub fn of_input(&self) -> impl Iterator<Item = usize> + '_ {
        let of_input = self.reads.iter().take(self.input).enumerate();
        of_input.filter_map(|(position, read)| read.then_some(position))
    }

    /// The positions of the table's columns that are read.
    pub fn of_table(&self) -> impl Iterator<Item = usize> + '_ {
        let of_table = self.reads.iter().skip(self.input).enumerate();
        of_table.filter_map(|(position, read)| read.then_some(position))
    }

    /// The expressions' values for so many pairs, whose columns are made by these where they are read.
    pub fn evaluate(
        &self,
        rows: usize,
        of_input: impl Fn(usize) -> Result<ArrayRef>,
        of_table: impl Fn(usize) -> Result<ArrayRef>,
    ) -> Result<Vec<ArrayRef>> {
        let column = |(position, read): (usize, &bool)| match position.checked_sub(self.input) {
            _ if !read => Ok(Arc::new(NullArray::new(rows)) as ArrayRef),
            None => of_input(position),
            Some(position) => of_table(position),
        };
        let columns = self.reads.iter().enumerate().map(column).collect::<Result<_>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?;
        self.exprs.iter().map(|expr| expr.evaluate(&batch)?.into_array(rows)).collect()
    }
}
