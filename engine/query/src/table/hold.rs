//! Making rows fit to be held: what sorts, nested loops and aggregates keep, they count and put aside by the batch.
//!
//! A scan hands out slices of a segment's decoded columns, and operators count a slice as the whole column. Under one
//! that holds rows a scan copies them out instead. And batches are made so small that many fit into the memory:
//! an external merge holds two of each run, which of 8192 rows of wide vectors are more than all of it.
//!
//! A scan whose rows nobody holds, nor picks some of, is told that, too: it streams.

use std::sync::Arc;

use datafusion::{
    arrow::datatypes::{DataType, Schema},
    physical_plan::{
        ExecutionPlan,
        aggregates::AggregateExec,
        coalesce_partitions::CoalescePartitionsExec,
        coop::CooperativeExec,
        joins::{NestedLoopJoinExec, SortMergeJoinExec},
        limit::{GlobalLimitExec, LocalLimitExec},
        projection::ProjectionExec,
        sorts::sort::SortExec,
        union::UnionExec,
    },
};

use super::TableScan;
use crate::planner::{BATCH_ROWS, OnceExec};

/// Which part of the tenant's memory a batch may be.
const BATCH_PART: usize = 512;
/// Fewer rows cost more than they save.
const LEAST_ROWS: usize = 64;
/// Bytes of a value of unknown width, where no table tells better.
const UNKNOWN_WIDTH: usize = 32;

/// What a plan holds.
#[derive(Default)]
struct Found {
    /// Of the widest rows held, those of fixed width.
    fixed: usize,
    /// Any of the rows held has values of variable width.
    variable: bool,
    /// What values of variable width take per row, of the widest table.
    variable_width: usize,
}

/// Rows per batch for a plan, after its scans have been told to copy where rows are held, and to stream where they go
/// out as they come. `budget_bytes`: the tenant's memory.
pub fn prepare(plan: &Arc<dyn ExecutionPlan>, budget_bytes: usize) -> usize {
    let mut found = Found::default();
    walk(plan, Above { passes: true, ..Above::default() }, &mut found);
    let variable = if found.variable { found.variable_width.max(UNKNOWN_WIDTH) } else { 0 };
    let width = (found.fixed + variable).max(1);
    (budget_bytes / BATCH_PART / width).clamp(LEAST_ROWS, BATCH_ROWS)
}

/// What operators above do with a plan's rows.
#[derive(Clone, Copy, Default)]
struct Above {
    /// One keeps the batches as they come.
    kept: bool,
    /// One keeps something made of them.
    used: bool,
    /// All pass them on as they come, or something made of each.
    passes: bool,
}

fn walk(plan: &Arc<dyn ExecutionPlan>, above: Above, found: &mut Found) {
    if let Some(scan) = plan.downcast_ref::<TableScan>()
        && above.passes
    {
        scan.pass_on();
    }
    if let Some(scan) = plan.downcast_ref::<TableScan>()
        && above.used
    {
        let (fixed, _) = widths(&scan.stored_schema());
        found.variable_width = found.variable_width.max(scan.row_bytes().saturating_sub(fixed));
        if above.kept {
            scan.copy_out();
        }
    }
    // The rows of a WITH query are held as they come, for all its names.
    if let Some(once) = plan.downcast_ref::<OnceExec>() {
        let (fixed, variable) = widths(&plan.schema());
        found.fixed = found.fixed.max(fixed);
        found.variable |= variable > 0;
        walk(once.evaluated(), Above { kept: true, used: true, passes: false }, found);
    }
    let sorts = plan.is::<SortExec>() && plan.fetch().is_none();
    let keeps = sorts || plan.is::<NestedLoopJoinExec>() || plan.is::<SortMergeJoinExec>();
    let groups = plan.is::<AggregateExec>();
    if keeps || groups {
        let (fixed, variable) = widths(&plan.schema());
        found.fixed = found.fixed.max(fixed);
        found.variable |= variable > 0;
    }
    // What an aggregate keeps, it has made.
    let below = Above {
        kept: keeps || (above.kept && !groups),
        used: above.used || keeps || groups,
        passes: above.passes && passes_on(plan),
    };
    for child in plan.children() {
        walk(child, below, found);
    }
}

/// Rows as they come, or something made of each.
fn passes_on(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let limits = plan.is::<LocalLimitExec>() || plan.is::<GlobalLimitExec>();
    let gathers =
        plan.is::<CoalescePartitionsExec>() || plan.is::<CooperativeExec>() || plan.is::<UnionExec>();
    limits || gathers || plan.is::<ProjectionExec>()
}

/// Bytes of a row's values of fixed width, and how many others it has.
fn widths(schema: &Schema) -> (usize, usize) {
    let known = schema.fields().iter().map(|field| width(field.data_type()));
    known.fold((0, 0), |(fixed, others), width| match width {
        Some(width) => (fixed + width, others),
        None => (fixed, others + 1),
    })
}

fn width(ty: &DataType) -> Option<usize> {
    match ty {
        DataType::FixedSizeList(item, length) => {
            Some(width(item.data_type())?.saturating_mul(usize::try_from(*length).ok()?))
        }
        DataType::FixedSizeBinary(length) => usize::try_from(*length).ok(),
        DataType::Boolean | DataType::Null => Some(1),
        other => other.primitive_width(),
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::datatypes::Field;

    use super::*;

    #[test]
    fn vectors_and_numbers_have_a_width_and_texts_have_none() {
        let item = Arc::new(Field::new("item", DataType::Float32, true));
        let schema = Schema::new(vec![
            Field::new("id", DataType::Int64, true),
            Field::new("v", DataType::FixedSizeList(item, 1536), true),
            Field::new("t", DataType::Utf8, true),
            Field::new("b", DataType::Boolean, true),
        ]);
        assert_eq!(widths(&schema), (8 + 6144 + 1, 1));
    }
}
