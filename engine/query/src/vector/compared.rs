//! Distances to more than a plain vector column: to bit strings, and to the expressions of a vector column that an
//! index may be over.
//!
//! Called by `rule` for the keys of ORDER BY. What is read: `embedding::halfvec(n)` beside a vector, `bits` and
//! `binary_quantize(embedding)::bit(n)` beside a bit string. A search takes the place of the scan only where there is
//! an index for it: all else is left to the scan, which evaluates the expression for every row.

use datafusion::{
    arrow::datatypes::DataType,
    common::{Column, DFSchema, ScalarValue},
    datasource::source_as_provider,
    logical_expr::{Expr, ExprSchemable, TableScan},
};
use sepal_types::{ColumnId, Measure, SqlType};

use super::rule::{names_column, unnamed};
use crate::{
    functions::{bit_metric_of_function, metric_of_function},
    output::is_sparse,
    table::as_user_table,
};

/// A distance between an expression of a column and something else.
pub(super) struct Compared<'a> {
    column: &'a Column,
    pub measure: Measure,
    /// Dimensions or bits, where a cast says them.
    length: Option<u32>,
    pub query: &'a Expr,
}

/// A sort key taken apart, where only one side names a column of the level it stands on. `None` also for a distance to
/// a vector column itself, which [`super::rule::distance`] reads.
pub(super) fn compared(key: &Expr) -> Option<Compared<'_>> {
    let Expr::ScalarFunction(call) = unnamed(key) else { return None };
    let [left, right] = call.args.as_slice() else { return None };
    let (one, query) = match (names_column(left), names_column(right)) {
        (true, false) => (left, right),
        (false, true) => (right, left),
        _ => return None,
    };
    if let Some(metric) = metric_of_function(&call.func) {
        // Beside a sparsevec the rounded column becomes one, and the query is not rounded.
        if query.get_type(&DFSchema::empty()).is_ok_and(|ty| is_sparse(&ty)) {
            return None;
        }
        let (column, length) = rounded(one)?;
        return Some(Compared { column, measure: Measure::Halves(metric), length, query });
    }
    let metric = bit_metric_of_function(&call.func)?;
    Some(match one {
        Expr::Column(column) => Compared { column, measure: Measure::Bits(metric), length: None, query },
        other => {
            let (column, length) = signs(other)?;
            Compared { column, measure: Measure::Signs(metric), length, query }
        }
    })
}

/// `column::halfvec(n)`
fn rounded(expr: &Expr) -> Option<(&Column, Option<u32>)> {
    match cast("sepal_cast_halfvec", expr)? {
        (Expr::Column(column), length) => Some((column, length)),
        _ => None,
    }
}

/// `binary_quantize(column)::bit(n)`, with the cast or without it.
fn signs(expr: &Expr) -> Option<(&Column, Option<u32>)> {
    let (quantized, length) = cast("sepal_cast_bit", expr).unwrap_or((expr, None));
    let Expr::ScalarFunction(call) = quantized else { return None };
    match call.args.as_slice() {
        [Expr::Column(column)] if call.func.name() == "binary_quantize" => Some((column, length)),
        _ => None,
    }
}

/// The operand of a cast, and the cast's modifier.
fn cast<'a>(name: &str, expr: &'a Expr) -> Option<(&'a Expr, Option<u32>)> {
    let Expr::ScalarFunction(call) = expr else { return None };
    if call.func.name() != name {
        return None;
    }
    match call.args.as_slice() {
        [operand] => Some((operand, None)),
        [operand, Expr::Literal(modifier, _)] => match modifier.cast_to(&DataType::Int32).ok()? {
            ScalarValue::Int32(Some(length)) => Some((operand, Some(u32::try_from(length).ok()?))),
            _ => None,
        },
        _ => None,
    }
}

impl Compared<'_> {
    /// The column of a scanned table, where an index is for comparing it so. All rows of the table have the expression
    /// then: what could not be rounded would not have been written.
    pub fn indexed_column(&self, scan: &TableScan) -> Option<ColumnId> {
        let provider = source_as_provider(&scan.source).ok()?;
        let table = as_user_table(provider.as_ref())?;
        if scan.fetch.is_some() || table.is_filtered() {
            return None;
        }
        let def = table.def();
        let column = def.column(&self.column.name)?;
        let own = match (self.measure, &column.ty) {
            (Measure::Halves(_), SqlType::Vector(Some(dimensions)))
            | (Measure::Signs(_), SqlType::Vector(Some(dimensions)) | SqlType::HalfVec(Some(dimensions))) => {
                u32::from(*dimensions)
            }
            (Measure::Bits(_), SqlType::Bit(Some(length))) => *length,
            _ => return None,
        };
        let same = self.length.is_none_or(|length| length == own);
        (same && def.measured_by(column.id, self.measure).is_some()).then_some(column.id)
    }
}
