//! Walks a bound plan row by row.
//!
//! Everything lives in memory and for one run: rows of relations, results of queries that do not depend on
//! where they stand, CTEs. A budget of row steps ends a query that multiplies rows without bound, and every so
//! many steps it looks whether it is to stop.

mod aggregate;
mod cast;
mod expr;
mod from;
mod query;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use sepal_types::{Error, Result, SqlState};

use super::super::CatalogContext;
use super::super::names::{self, reg_name};
use super::super::value::Value;
use super::plan::Query;
use super::ty::Ty;

type Row = Vec<Value>;
type Rows = Vec<Row>;

/// Rows that one catalog query may touch: some seconds of work.
const ROW_BUDGET: u64 = 50_000_000;
/// Steps between two looks at whether the statement was cancelled: some microseconds.
const LOOK_EVERY: u64 = 1_024;

/// Runs a query; parameters are in the types that binding found.
pub(super) fn run(query: &Query, parameters: &[Value], context: &CatalogContext) -> Result<Rows> {
    let run = Run {
        context,
        parameters,
        relations: RefCell::default(),
        ctes: RefCell::default(),
        results: RefCell::default(),
        constants: RefCell::default(),
        budget: Cell::new(ROW_BUDGET),
    };
    let rows = run.query(query, None)?;
    drop(run);
    Ok(Rc::unwrap_or_clone(rows))
}

/// A value as it leaves: names for what is an oid inside.
pub(super) fn outward(context: &CatalogContext, ty: &Ty, value: Value) -> Value {
    match (ty, &value) {
        (Ty::Namespace | Ty::Role, Value::Int(oid)) => match ty.reg() {
            Some(reg) => Value::text(reg_name(context, reg, *oid)),
            None => value,
        },
        (Ty::Sql(ty), _) => names::outward(context, ty, value),
        (Ty::Record(_), Value::Record(_)) => Value::text(value.to_text()),
        _ => value,
    }
}

struct Run<'a> {
    context: &'a CatalogContext,
    parameters: &'a [Value],
    relations: RefCell<HashMap<(&'static str, &'static str), Rc<Rows>>>,
    ctes: RefCell<HashMap<usize, Rc<Rows>>>,
    /// Of independent queries, by their id.
    results: RefCell<HashMap<usize, Rc<Rows>>>,
    /// Of `Expr::Once`.
    constants: RefCell<HashMap<usize, Value>>,
    budget: Cell<u64>,
}

/// Where an expression is computed: this query's row and what was computed for it, then the enclosing ones.
#[derive(Clone, Copy)]
struct Frame<'f> {
    row: &'f [Value],
    aggregates: &'f [Value],
    windows: &'f [Value],
    sets: &'f [Value],
    outer: Option<&'f Frame<'f>>,
}

impl<'f> Frame<'f> {
    fn new(row: &'f [Value], outer: Option<&'f Frame<'f>>) -> Self {
        Self { row, aggregates: &[], windows: &[], sets: &[], outer }
    }
}

impl Run<'_> {
    /// Counts a row step.
    fn spend(&self) -> Result<()> {
        match self.budget.get().checked_sub(1) {
            Some(left) => {
                self.budget.set(left);
                if left.is_multiple_of(LOOK_EVERY) && (self.context.interrupted)() {
                    let message = "canceling statement due to user request";
                    return Err(Error::new(SqlState::QueryCanceled, message));
                }
                Ok(())
            }
            None => {
                let error = Error::new(
                    SqlState::ProgramLimitExceeded,
                    format!("catalog query touches more than {ROW_BUDGET} rows"),
                );
                Err(error.with_hint("Add join conditions, or a LIMIT to a recursive query."))
            }
        }
    }
}
