//! The columns of UNION: their types are those that the branches have together.
//!
//! DataFusion describes a union by its first branch, until its types are resolved; that is after a statement was
//! described, so that the rows of `SELECT 1 UNION ALL SELECT 2.5` would be integers. Nor does it know of dates beside
//! timestamps what PostgreSQL knows, or of decimals beside floats. Called by `untyped` for every plan.

use std::sync::Arc;

use datafusion::{
    arrow::datatypes::{DataType, Field, FieldRef},
    common::{Column, DFSchema, tree_node::Transformed},
    error::Result,
    logical_expr::{Expr, LogicalPlan, Projection, Union, binary::type_union_coercion},
};
use sepal_types::SqlType;

use super::{floats, instants};
use crate::output::sql_type;

/// The union with the types that its branches have together. Branches of another width are left to DataFusion.
pub(super) fn unite(union: Union) -> Result<Transformed<LogicalPlan>> {
    let width = union.schema.fields().len();
    if union.inputs.iter().any(|input| input.schema().fields().len() != width) {
        return Ok(Transformed::no(LogicalPlan::Union(union)));
    }
    let Union { mut inputs, schema } = union;
    let wanted: Vec<Option<SqlType>> = (0..width)
        .map(|column| {
            let types: Vec<SqlType> =
                inputs.iter().map(|input| sql_type(input.schema().field(column))).collect();
            instants::common(&types).or_else(|| floats::common(&types))
        })
        .collect();
    let mut changed = wanted.iter().any(Option::is_some);
    if changed {
        inputs = inputs.iter().map(|input| cast(input, &wanted)).collect::<Result<_>>()?;
    }
    let mut fields = Vec::with_capacity(width);
    for (column, (relation, field)) in schema.iter().enumerate() {
        let together = together(&inputs, column, field);
        changed |= together.is_some();
        fields.push((relation.cloned(), together.unwrap_or_else(|| Arc::clone(field))));
    }
    if !changed {
        return Ok(Transformed::no(LogicalPlan::Union(Union { inputs, schema })));
    }
    let schema = Arc::new(DFSchema::new_with_metadata(fields, schema.metadata().clone())?);
    Ok(Transformed::yes(LogicalPlan::Union(Union { inputs, schema })))
}

/// A branch with some of its columns cast.
fn cast(input: &Arc<LogicalPlan>, wanted: &[Option<SqlType>]) -> Result<Arc<LogicalPlan>> {
    let columns = input.schema().iter().zip(wanted).map(|((relation, field), wanted)| {
        let (column, ty) = (Expr::Column(Column::new(relation.cloned(), field.name())), sql_type(field));
        match wanted {
            Some(wanted) if ty != *wanted => {
                instants::become_one(column, &ty, wanted).alias_qualified(relation.cloned(), field.name())
            }
            _ => column,
        }
    });
    let cast = Projection::try_new(columns.collect(), Arc::clone(input))?;
    Ok(Arc::new(LogicalPlan::Projection(cast)))
}

/// A column's field where that is another than the one it has: of numbers and times, and in the place of NULLs. What
/// is text might be a literal that nothing types.
fn together(inputs: &[Arc<LogicalPlan>], column: usize, field: &FieldRef) -> Option<FieldRef> {
    let mut branches = inputs.iter().map(|input| input.schema().field(column));
    let first = branches.next()?.data_type().clone();
    let common =
        branches.try_fold(first, |common, branch| type_union_coercion(&common, branch.data_type()))?;
    let known = common.is_numeric() || common.is_temporal() || *field.data_type() == DataType::Null;
    if !known || common == *field.data_type() {
        return None;
    }
    // What Arrow's type does not tell of SQL's is in the metadata.
    let mut branches = inputs.iter().map(|input| input.schema().field(column));
    let metadata =
        branches.find(|branch| *branch.data_type() == common).map(|branch| branch.metadata().clone());
    let together = Field::new(field.name(), common, true).with_metadata(metadata.unwrap_or_default());
    Some(Arc::new(together))
}
