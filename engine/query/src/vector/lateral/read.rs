//! What a lateral subquery asks for, if it is a search: `SELECT … FROM t [WHERE …] ORDER BY distance [, …] LIMIT n`.
//!
//! Followed down through projections and aliases, so that all of it ends up over the columns of the one table.

use datafusion::{
    arrow::datatypes::DataType,
    common::ScalarValue,
    error::Result,
    logical_expr::{Expr, Limit, LogicalPlan, SortExpr, TableScan},
};

use crate::vector::rule::{columns_of, is_settled, substitute};

/// A subquery taken apart. Its expressions are over the scan's columns, and outer references.
pub(super) struct Body {
    pub scan: TableScan,
    pub skip: usize,
    pub fetch: usize,
    pub keys: Vec<SortExpr>,
    pub filters: Vec<Expr>,
    pub outputs: Vec<Expr>,
}

/// What has been seen on the way down.
struct Seen {
    limit: Option<(usize, usize)>,
    keys: Vec<SortExpr>,
    filters: Vec<Expr>,
    outputs: Vec<Expr>,
}

/// `None` for any other subquery.
pub(super) fn read(subquery: &LogicalPlan) -> Result<Option<Body>> {
    let mut seen = Seen { limit: None, keys: Vec::new(), filters: Vec::new(), outputs: columns_of(subquery) };
    let mut plan = subquery;
    loop {
        plan = match plan {
            LogicalPlan::Projection(projection) => {
                seen.see_through(plan, &projection.expr)?;
                &projection.input
            }
            LogicalPlan::SubqueryAlias(alias) => {
                seen.see_through(plan, &columns_of(&alias.input))?;
                &alias.input
            }
            LogicalPlan::Limit(limit) if seen.limit.is_none() && seen.keys.is_empty() => {
                let Some(counts) = counts(limit)? else {
                    return Ok(None);
                };
                seen.limit = Some(counts);
                &limit.input
            }
            LogicalPlan::Sort(sort) if seen.keys.is_empty() => {
                seen.keys.clone_from(&sort.expr);
                seen.limit = seen.limit.or(sort.fetch.map(|fetch| (0, fetch)));
                &sort.input
            }
            // Above the LIMIT it would take away from the rows found.
            LogicalPlan::Filter(filter) if !seen.keys.is_empty() => {
                seen.filters.push(filter.predicate.clone());
                &filter.input
            }
            LogicalPlan::TableScan(scan) => return Ok(seen.at(scan)),
            _ => return Ok(None),
        };
    }
}

impl Seen {
    /// Puts what a node computes in place of its columns.
    fn see_through(&mut self, node: &LogicalPlan, computed: &[Expr]) -> Result<()> {
        let exprs = self.filters.iter_mut().chain(&mut self.outputs);
        for expr in exprs.chain(self.keys.iter_mut().map(|key| &mut key.expr)) {
            *expr = substitute(std::mem::take(expr), node.schema(), computed)?;
        }
        Ok(())
    }

    fn at(mut self, scan: &TableScan) -> Option<Body> {
        let (skip, fetch) = self.limit?;
        self.filters.extend(scan.filters.iter().cloned());
        let Self { keys, filters, outputs, .. } = self;
        (!keys.is_empty()).then(|| Body { scan: scan.clone(), skip, fetch, keys, filters, outputs })
    }
}

/// OFFSET and LIMIT, where both are known.
fn counts(limit: &Limit) -> Result<Option<(usize, usize)>> {
    let skip = match &limit.skip {
        Some(skip) => count(skip)?,
        None => Some(0),
    };
    let fetch = match &limit.fetch {
        Some(fetch) => count(fetch)?,
        None => None,
    };
    Ok(skip.zip(fetch))
}

/// `None` for what is no constant, for NULL, and for less than nothing.
fn count(expr: &Expr) -> Result<Option<usize>> {
    let constant = match expr {
        Expr::Literal(..) => expr.clone(),
        expr if is_settled(expr) => crate::planner::fold_constant(expr.clone())?,
        _ => return Ok(None),
    };
    let Expr::Literal(value, _) = constant else {
        return Ok(None);
    };
    Ok(match value.cast_to(&DataType::Int64)? {
        ScalarValue::Int64(count) => count.and_then(|count| usize::try_from(count).ok()),
        _ => None,
    })
}
