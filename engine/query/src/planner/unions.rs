//! The columns of UNION, the results of CASE, and their like: their types are those that the branches have together.
//!
//! DataFusion describes both by the first branch, until types are resolved; that is after a statement was described, so
//! that the rows of `SELECT 1 UNION ALL SELECT 2.5` would be integers. Nor does it know of dates beside timestamps what
//! PostgreSQL knows, or of decimals beside floats: of those in CASE `floats` and `instants` have been asked. Called by
//! `untyped` for every plan.

use std::{mem, sync::Arc};

use datafusion::{
    arrow::datatypes::{DataType, Field, FieldRef},
    common::{Column, DFSchema, ScalarValue, tree_node::Transformed},
    error::Result,
    logical_expr::{Cast, Expr, ExprSchemable, LogicalPlan, Projection, Union, binary::type_union_coercion},
};
use sepal_types::SqlType;

use super::{
    chosen, floats, instants,
    untyped::{Operand, operand},
};
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

/// Casts the results of a CASE, and what `lag` and `lead` give, to the number that they are together where they are
/// several kinds of numbers. Tells whether it did.
pub(super) fn unify_numbers(expr: &mut Expr, schema: &DFSchema) -> bool {
    let groups = match expr {
        Expr::Case(case) => {
            let results = case.when_then_expr.iter_mut().map(|(_, then)| then.as_mut());
            vec![results.chain(case.else_expr.as_deref_mut()).collect::<Vec<&mut Expr>>()]
        }
        // Functions have seen to that themselves.
        Expr::ScalarFunction(_) => return false,
        other => chosen::groups(other),
    };
    let mut changed = false;
    for results in groups {
        changed |= unify(results, schema);
    }
    changed
}

fn unify(results: Vec<&mut Expr>, schema: &DFSchema) -> bool {
    let mut types = Vec::with_capacity(results.len());
    for result in &results {
        match operand(result, schema) {
            Operand::Typed(ty) if ty.is_number() => types.extend(number(result, schema)),
            // It has the type of the others.
            Operand::Unknown => {}
            Operand::Typed(_) | Operand::Undetermined => return false,
        }
    }
    let Some(first) = types.first().cloned() else { return false };
    if types.iter().all(|ty| *ty == first) {
        return false;
    }
    let Some(common) = types.iter().try_fold(first, |common, ty| type_union_coercion(&common, ty)) else {
        return false;
    };
    for result in results {
        if number(result, schema).is_some() && !result.get_type(schema).is_ok_and(|ty| ty == common) {
            *result = Expr::Cast(Cast::new(Box::new(mem::take(result)), common.clone()));
        }
    }
    true
}

/// A number's type; an integer literal that nothing has typed is an `integer` where it can be one.
fn number(expr: &Expr, schema: &DFSchema) -> Option<DataType> {
    if let Expr::Literal(ScalarValue::Int64(Some(value)), None) = expr
        && i32::try_from(*value).is_ok()
    {
        return Some(DataType::Int32);
    }
    expr.get_type(schema).ok().filter(DataType::is_numeric)
}

#[cfg(test)]
mod tests {
    use datafusion::{
        arrow::datatypes::Schema,
        logical_expr::{lit, when},
        prelude::ident,
    };

    use super::*;

    #[test]
    fn a_case_is_what_its_results_are_together() {
        let columns = vec![
            Field::new("i", DataType::Int32, true),
            Field::new("l", DataType::Int64, true),
            Field::new("n", DataType::Decimal128(10, 2), true),
            Field::new("f", DataType::Float64, true),
            Field::new("t", DataType::Utf8, true),
        ];
        let schema = DFSchema::try_from(Schema::new(columns)).expect("distinct names");
        let unified = |then: Expr, otherwise: Expr| {
            let mut case = when(lit(true), then).otherwise(otherwise).expect("a CASE");
            let changed = unify_numbers(&mut case, &schema);
            changed.then(|| case.get_type(&schema).expect("a type"))
        };
        assert_eq!(unified(ident("i"), ident("l")), Some(DataType::Int64));
        assert_eq!(unified(lit(0_i64), ident("n")), Some(DataType::Decimal128(12, 2)));
        assert_eq!(unified(ident("i"), ident("f")), Some(DataType::Float64));
        for (then, otherwise) in [
            (lit(0_i64), ident("i")),
            (ident("l"), ident("l")),
            (ident("t"), ident("i")),
            (ident("i"), Expr::Literal(ScalarValue::Null, None)),
        ] {
            assert_eq!(unified(then.clone(), otherwise.clone()), None, "{then}, {otherwise}");
        }
    }
}
