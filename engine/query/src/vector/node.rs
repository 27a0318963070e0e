//! `VectorTopK` in a logical plan: a leaf that stands where a table scan stood.
//!
//! The query vector is any expression that has one value for the whole statement, `(SELECT v FROM t WHERE id = 7)`
//! included: it stands among the node's expressions, where DataFusion finds the subqueries that it has to run first.

use std::{
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use datafusion::{
    arrow::datatypes::{DataType, Field},
    common::{
        DFSchema, DFSchemaRef, TableReference,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    error::Result,
    logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNodeCore},
};
use parking_lot::RwLock;
use sepal_types::{ColumnId, Measure, Metric};

use crate::{
    context::{SearchSettings, StatementContext},
    output::typed_field,
    table::UserTable,
    vector::IndexCache,
};

/// What runs the search: handed from the statement to the physical node.
#[derive(Clone, Debug)]
pub struct Runtime {
    pub indexes: Arc<IndexCache>,
    pub settings: Arc<RwLock<SearchSettings>>,
}

impl Runtime {
    pub fn of(context: &StatementContext) -> Self {
        Self { indexes: Arc::clone(&context.indexes), settings: Arc::clone(&context.search) }
    }
}

/// The `k` rows of a table nearest to `query`.
#[derive(Clone, Debug)]
pub struct TopK {
    pub table_name: TableReference,
    pub table: UserTable,
    pub column: ColumnId,
    /// What of the column is compared with the query.
    pub measure: Measure,
    /// Without columns.
    pub query: Expr,
    /// A constant or a parameter.
    pub k: Expr,
    /// More sort keys follow: all rows as far as the last of the `k` are wanted, for them to choose from.
    pub ties: bool,
    /// Over the table's columns, typed already. Not among `expressions()`, but for its subqueries: a leaf has no input
    /// schema that DataFusion could resolve its columns against.
    pub filter: Option<Expr>,
    pub ef_search: Option<usize>,
    /// Columns of the table's schema, then perhaps `distance`.
    pub projection: Vec<usize>,
    pub with_distance: bool,
    pub schema: DFSchemaRef,
    pub runtime: Runtime,
}

/// What tells two nodes apart: table, moment, column, measure, query, `k` and ties, filter, projection.
type Identity<'a> =
    (u32, usize, u32, &'static str, &'a Expr, (&'a Expr, bool), Option<&'a Expr>, &'a [usize]);

impl TopK {
    /// The node of a `knn()` call: all columns of the table, and `distance`.
    #[expect(clippy::too_many_arguments, reason = "the arguments of knn(), resolved, one by one")]
    pub fn for_knn(
        table_name: TableReference,
        table: UserTable,
        column: ColumnId,
        metric: Metric,
        query: Expr,
        k: Expr,
        filter: Option<Expr>,
        ef_search: Option<usize>,
        context: &StatementContext,
    ) -> Result<Self> {
        let mut fields: Vec<(Option<TableReference>, Arc<Field>)> = table
            .arrow_schema()
            .fields()
            .iter()
            .map(|field| (Some(table_name.clone()), Arc::clone(field)))
            .collect();
        let projection = (0..fields.len()).collect();
        let distance = typed_field("distance", DataType::Float64, &sepal_types::SqlType::Float8);
        fields.push((Some(table_name.clone()), Arc::new(distance)));
        let schema = Arc::new(DFSchema::new_with_metadata(fields, std::collections::HashMap::new())?);
        Ok(Self {
            table_name,
            table,
            column,
            measure: Measure::Vectors(metric),
            query,
            k,
            ties: false,
            filter,
            ef_search,
            projection,
            with_distance: true,
            schema,
            runtime: Runtime::of(context),
        })
    }

    fn identity(&self) -> Identity<'_> {
        // Of one column it tells all measures apart.
        let class = self.measure.opclass();
        (
            self.table.def().id.0,
            self.table.moment(),
            self.column.0,
            class,
            &self.query,
            (&self.k, self.ties),
            self.filter.as_ref(),
            &self.projection,
        )
    }
}

impl PartialEq for TopK {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for TopK {}

impl PartialOrd for TopK {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.identity().partial_cmp(&other.identity())
    }
}

impl Hash for TopK {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

impl UserDefinedLogicalNodeCore for TopK {
    fn name(&self) -> &'static str {
        "VectorTopK"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        Vec::new()
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        let mut exprs = vec![self.query.clone(), self.k.clone()];
        exprs.extend(self.filter.as_ref().map(subqueries).unwrap_or_default());
        exprs
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VectorTopK: {} by {}, k={}", self.table_name, self.measure.operator(), self.k)?;
        match &self.filter {
            Some(filter) => write!(f, ", filter={filter}"),
            None => Ok(()),
        }
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, _inputs: Vec<LogicalPlan>) -> Result<Self> {
        let mut node = self.clone();
        let mut exprs = exprs.into_iter();
        if let (Some(query), Some(k)) = (exprs.next(), exprs.next()) {
            node.query = query;
            node.k = k;
        }
        node.filter = node.filter.map(|filter| with_subqueries(filter, &mut exprs)).transpose()?;
        Ok(node)
    }
}

/// The scalar subqueries of an expression, in order.
pub(super) fn subqueries(expr: &Expr) -> Vec<Expr> {
    let mut found = Vec::new();
    let walked = expr.apply(|expr| {
        if matches!(expr, Expr::ScalarSubquery(_)) {
            found.push(expr.clone());
        }
        Ok(TreeNodeRecursion::Continue)
    });
    walked.map_or_else(|_| Vec::new(), |_| found)
}

/// The same expression with others in place of its scalar subqueries, in the order of [`subqueries`].
pub(super) fn with_subqueries(expr: Expr, others: &mut impl Iterator<Item = Expr>) -> Result<Expr> {
    expr.transform_down(|expr| match expr {
        Expr::ScalarSubquery(_) => match others.next() {
            Some(other) => Ok(Transformed::new(other, true, TreeNodeRecursion::Jump)),
            None => Ok(Transformed::no(expr)),
        },
        expr => Ok(Transformed::no(expr)),
    })
    .map(|replaced| replaced.data)
}
