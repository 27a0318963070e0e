//! `VectorLateral` in a logical plan: the rows of a table that are nearest to each row of its input.

use std::{
    cmp::Ordering,
    collections::HashMap,
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use datafusion::{
    arrow::datatypes::Field,
    common::{
        DFSchema, DFSchemaRef, TableReference,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    error::Result,
    logical_expr::{Expr, LogicalPlan, SortExpr, UserDefinedLogicalNodeCore},
};
use sepal_types::{ColumnId, Metric};

use crate::{
    table::UserTable,
    vector::node::{subqueries, with_subqueries},
};

/// Columns with the relations that they are named after.
pub(super) type NamedFields = Vec<(Option<TableReference>, Arc<Field>)>;

/// What is asked of the table for one row of the input. Columns of the input stand as outer references in all
/// expressions but `query`, so that a table may be searched for vectors of its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Hash)]
pub struct Question {
    /// Over the input's columns alone.
    pub query: Expr,
    pub skip: usize,
    pub fetch: usize,
    /// Over the table's columns alone.
    pub filter: Option<Expr>,
    /// Over both.
    pub correlated: Option<Expr>,
    /// The sort keys after the distance.
    pub ties: Vec<SortExpr>,
    /// What the subquery selects.
    pub outputs: Vec<Expr>,
    /// LEFT JOIN: a row without any neighbour stays, with NULLs.
    pub keeps_unmatched: bool,
}

/// What is searched, and how.
#[derive(Clone, Debug)]
pub struct Searched {
    /// What the filter's columns are qualified with.
    pub table_name: TableReference,
    pub table: UserTable,
    pub column: ColumnId,
    pub metric: Metric,
}

/// The node.
#[derive(Clone, Debug)]
pub struct Lateral {
    pub input: LogicalPlan,
    pub searched: Searched,
    pub question: Question,
    /// The names and types of the question's outputs.
    pub fields: NamedFields,
    /// The input's columns, then the outputs.
    schema: DFSchemaRef,
}

impl Lateral {
    pub fn new(
        input: LogicalPlan,
        searched: Searched,
        question: Question,
        fields: NamedFields,
    ) -> Result<Self> {
        let mut all: NamedFields =
            input.schema().iter().map(|(relation, field)| (relation.cloned(), Arc::clone(field))).collect();
        all.extend(fields.iter().cloned());
        let schema = Arc::new(DFSchema::new_with_metadata(all, HashMap::new())?);
        Ok(Self { input, searched, question, fields, schema })
    }

    /// How many columns of its schema are the input's.
    pub fn input_columns(&self) -> usize {
        self.input.schema().fields().len()
    }

    fn identity(&self) -> (&LogicalPlan, u32, usize, u32, &'static str, &Question) {
        let Searched { table, column, metric, .. } = &self.searched;
        (&self.input, table.def().id.0, table.moment(), column.0, metric.operator(), &self.question)
    }
}

impl Question {
    /// Its expressions that name columns of the table.
    fn over_table(&self) -> impl Iterator<Item = &Expr> {
        let ties = self.ties.iter().map(|tie| &tie.expr);
        self.filter.iter().chain(&self.correlated).chain(ties).chain(&self.outputs)
    }

    /// The positions of the columns of `input` that it reads.
    fn reads(&self, input: &DFSchema) -> Vec<usize> {
        let mut positions: Vec<usize> = self
            .query
            .column_refs()
            .into_iter()
            .filter_map(|column| input.maybe_index_of_column(column))
            .collect();
        for expr in self.over_table() {
            // The walk cannot fail: the closure does not.
            let _ = expr.apply(|expr| {
                if let Expr::OuterReferenceColumn(_, column) = expr {
                    positions.extend(input.maybe_index_of_column(column));
                }
                Ok(TreeNodeRecursion::Continue)
            });
        }
        positions
    }
}

impl PartialEq for Lateral {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for Lateral {}

impl PartialOrd for Lateral {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.identity().partial_cmp(&other.identity())
    }
}

impl Hash for Lateral {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

impl UserDefinedLogicalNodeCore for Lateral {
    fn name(&self) -> &'static str {
        "VectorLateral"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    /// Those over the table's columns are left out: DataFusion would look for them in the input.
    fn expressions(&self) -> Vec<Expr> {
        let mut exprs = vec![self.question.query.clone()];
        exprs.extend(self.question.filter.as_ref().map(subqueries).unwrap_or_default());
        exprs
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Question { query, skip, fetch, .. } = &self.question;
        let (table, operator) = (&self.searched.table_name, self.searched.metric.operator());
        write!(f, "VectorLateral: {table} by {operator} {query}, k={fetch}, skip={skip}")
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        let mut question = self.question.clone();
        let mut exprs = exprs.into_iter();
        if let Some(query) = exprs.next() {
            question.query = query;
        }
        question.filter = question.filter.map(|filter| with_subqueries(filter, &mut exprs)).transpose()?;
        let input = inputs.pop().unwrap_or_else(|| self.input.clone());
        Self::new(input, self.searched.clone(), question, self.fields.clone())
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let mut needed = self.question.reads(self.input.schema());
        let own = self.input_columns();
        needed.extend(output_columns.iter().filter(|position| **position < own));
        needed.sort_unstable();
        needed.dedup();
        Some(vec![needed])
    }
}
