//! UNION, INTERSECT and EXCEPT: the columns of both branches have the types that PostgreSQL gives them.
//!
//! DataFusion describes the result by its first branch, and compares what it can make alike. Here, a literal or a
//! parameter that nothing types takes the type of the other branch, also where that is a wildcard, and columns of two
//! types are cast to the one that they have in common. Called by `untyped` for every node, once those below it are
//! typed; `sql/branches.rs` has read literals before where the types could be told.

use std::sync::Arc;

use datafusion::{
    arrow::datatypes::{DataType, Field},
    common::{Column, ScalarValue, metadata::FieldMetadata, tree_node::Transformed},
    error::Result,
    logical_expr::{Cast, Distinct, Expr, Join, JoinType, LogicalPlan, Projection, SubqueryAlias, Union},
};
use sepal_storage::arrow_type;
use sepal_types::SqlType;

use super::{
    chosen::{constant, is_untyped},
    instants::become_one,
    multisets::compares_rows,
    untyped::Operand,
};
use crate::{
    error::carry,
    output::sql_type,
    sql::{matched, time_rank},
};

/// Both branches of a set operation.
type Branches = (Arc<LogicalPlan>, Arc<LogicalPlan>);

/// What a column of both becomes, and what holds its values.
type Target = (SqlType, DataType);

/// A set operation whose branches agree; any other node as it is. `reshaped`: something below it has another type now.
///
/// Errors: 42804 and 42846 for types that have none in common, and those of input functions.
pub(super) fn agree(plan: LogicalPlan, reshaped: bool) -> Result<Transformed<LogicalPlan>> {
    match plan {
        LogicalPlan::Union(union) => {
            let [left, right] = union.inputs.as_slice() else {
                return Ok(Transformed::no(LogicalPlan::Union(union)));
            };
            let inputs = match agreed("UNION", left, right)? {
                Some((left, right)) => vec![left, right],
                None if reshaped => union.inputs,
                None => return Ok(Transformed::no(LogicalPlan::Union(union))),
            };
            Ok(Transformed::yes(LogicalPlan::Union(Union::try_new_with_loose_types(inputs)?)))
        }
        LogicalPlan::Join(join) if compares_rows(&join) => {
            let name = if join.join_type == JoinType::LeftSemi { "INTERSECT" } else { "EXCEPT" };
            let Some((left, right)) = agreed(name, &join.left, &join.right)? else {
                return Ok(Transformed::no(LogicalPlan::Join(join)));
            };
            let Join { on, join_type, join_constraint, null_equality, null_aware, .. } = join;
            let join =
                Join::try_new(left, right, on, None, join_type, join_constraint, null_equality, null_aware)?;
            Ok(Transformed::yes(LogicalPlan::Join(join)))
        }
        other => Ok(Transformed::no(other)),
    }
}

/// `None` where nothing is to be done.
fn agreed(name: &str, left: &Arc<LogicalPlan>, right: &Arc<LogicalPlan>) -> Result<Option<Branches>> {
    let width = left.schema().fields().len().min(right.schema().fields().len());
    let (mut left, mut right, mut changed) = (Arc::clone(left), Arc::clone(right), false);
    let mut targets: Vec<Option<Target>> = Vec::with_capacity(width);
    for column in 0..width {
        match (shown(&left, column), shown(&right, column)) {
            (Operand::Typed(_), Operand::Unknown) => {
                if let Some(typed) = give(&right, column, left.schema().field(column))? {
                    (right, changed) = (Arc::new(typed), true);
                }
            }
            (Operand::Unknown, Operand::Typed(_)) => {
                if let Some(typed) = give(&left, column, right.schema().field(column))? {
                    (left, changed) = (Arc::new(typed), true);
                }
            }
            _ => {}
        }
        targets.push(match (shown(&left, column), shown(&right, column)) {
            (Operand::Typed(_), Operand::Typed(_)) => {
                common(name, left.schema().field(column), right.schema().field(column))?
            }
            _ => None,
        });
    }
    if targets.iter().any(Option::is_some) {
        (left, right, changed) = (cast(&left, &targets)?, cast(&right, &targets)?, true);
    }
    Ok(changed.then_some((left, right)))
}

/// What two columns are cast to; `None` where they are left as they are.
fn common(name: &str, left: &Field, right: &Field) -> Result<Option<Target>> {
    let types = [sql_type(left), sql_type(right)];
    if types[0] == types[1] {
        return Ok(None);
    }
    let Some(common) = matched(name, &types).map_err(carry)? else { return Ok(None) };
    let held = match time_rank(&common) {
        Some(_) => Some(arrow_type(&common)),
        None => held_as(&common, &types),
    };
    Ok(held.map(|held| (common, held)))
}

/// What values of several types are cast to that have one in common, times aside, which have a cast of their own
/// (`instants`); `None` where that is left to DataFusion.
pub(super) fn held_as(common: &SqlType, types: &[SqlType]) -> Option<DataType> {
    let plain = |ty: &SqlType| ty.is_number() && !matches!(ty, SqlType::Numeric(_));
    match common {
        SqlType::Numeric(_) => holding(types),
        SqlType::Array(element) if plain(element) => Some(arrow_type(common)),
        ty if plain(ty) => Some(arrow_type(ty)),
        _ => None,
    }
}

/// The decimal that holds the values of several numbers.
fn holding(types: &[SqlType]) -> Option<DataType> {
    let (mut whole, mut scale) = (0_i16, 0_i16);
    for ty in types {
        let (digits, after) = match ty {
            SqlType::Int2 => (5, 0),
            SqlType::Int4 => (10, 0),
            SqlType::Int8 => (19, 0),
            ty => match arrow_type(ty) {
                DataType::Decimal128(precision, scale) => (i16::from(precision), i16::from(scale)),
                _ => return None,
            },
        };
        (whole, scale) = (whole.max(digits - after), scale.max(after));
    }
    let precision = (whole + scale).clamp(1, 38);
    Some(DataType::Decimal128(u8::try_from(precision).ok()?, i8::try_from(scale).ok()?))
}

/// What is known of a branch's column. A literal of a branch's own list has no type yet.
fn shown(branch: &LogicalPlan, column: usize) -> Operand {
    let field = branch.schema().field(column);
    let untyped = output(branch, column).is_some_and(|expr| is_untyped(expr) || is_null(expr));
    if untyped || field.data_type().is_null() { Operand::Unknown } else { Operand::Typed(sql_type(field)) }
}

/// What a branch selects, under its name.
fn output(branch: &LogicalPlan, column: usize) -> Option<&Expr> {
    match branch {
        LogicalPlan::Projection(projection) => projection.expr.get(column).map(without_name),
        LogicalPlan::SubqueryAlias(alias) => output(&alias.input, column),
        LogicalPlan::Sort(sort) => output(&sort.input, column),
        LogicalPlan::Limit(limit) => output(&limit.input, column),
        LogicalPlan::Distinct(Distinct::All(input)) => output(input, column),
        _ => None,
    }
}

fn without_name(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(alias) => without_name(&alias.expr),
        other => other,
    }
}

fn is_null(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(ScalarValue::Null, None))
}

/// The branch with an untyped column as the other branch's. `None` beside text, which it is already, and where it is
/// not the branch's own.
fn give(branch: &LogicalPlan, column: usize, beside: &Field) -> Result<Option<LogicalPlan>> {
    let Some(expr) = output(branch, column) else { return Ok(None) };
    let given = if is_null(expr) {
        let metadata = (!beside.metadata().is_empty()).then(|| FieldMetadata::from(beside));
        Expr::Literal(ScalarValue::try_from(beside.data_type())?, metadata)
    } else {
        constant(expr.clone(), &sql_type(beside))?
    };
    if given == *expr { Ok(None) } else { with_output(branch, column, given).map(Some) }
}

/// The branch with something else in the place of a column's expression, down to where that is.
fn with_output(branch: &LogicalPlan, column: usize, expr: Expr) -> Result<LogicalPlan> {
    let below = |input: &LogicalPlan, expr: Expr| with_output(input, column, expr).map(Arc::new);
    Ok(match branch {
        LogicalPlan::Projection(projection) => {
            let (relation, field) = projection.schema.qualified_field(column);
            let mut exprs = projection.expr.clone();
            exprs[column] = expr.alias_qualified(relation.cloned(), field.name());
            LogicalPlan::Projection(Projection::try_new(exprs, Arc::clone(&projection.input))?)
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let input = below(&alias.input, expr)?;
            LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(input, alias.alias.clone())?)
        }
        LogicalPlan::Sort(sort) => {
            let mut sort = sort.clone();
            sort.input = below(&sort.input, expr)?;
            LogicalPlan::Sort(sort)
        }
        LogicalPlan::Limit(limit) => {
            let mut limit = limit.clone();
            limit.input = below(&limit.input, expr)?;
            LogicalPlan::Limit(limit)
        }
        LogicalPlan::Distinct(Distinct::All(input)) => {
            LogicalPlan::Distinct(Distinct::All(below(input, expr)?))
        }
        other => other.clone(),
    })
}

/// A branch with its columns cast where they are of other types. Below DISTINCT: what is equal then is one row.
fn cast(branch: &Arc<LogicalPlan>, targets: &[Option<Target>]) -> Result<Arc<LogicalPlan>> {
    if let LogicalPlan::Distinct(Distinct::All(input)) = branch.as_ref() {
        return Ok(Arc::new(LogicalPlan::Distinct(Distinct::All(cast(input, targets)?))));
    }
    let mut casts = false;
    let columns = branch.schema().iter().zip(targets).map(|((relation, field), target)| {
        let column = Expr::Column(Column::new(relation.cloned(), field.name()));
        match target.as_ref().filter(|(_, held)| held != field.data_type()) {
            Some((wanted, held)) => {
                casts = true;
                let cast = match time_rank(wanted) {
                    Some(_) => become_one(column, &sql_type(field), wanted),
                    None => Expr::Cast(Cast::new(Box::new(column), held.clone())),
                };
                cast.alias_qualified(relation.cloned(), field.name())
            }
            None => column,
        }
    });
    let columns: Vec<Expr> = columns.collect();
    if !casts {
        return Ok(Arc::clone(branch));
    }
    Ok(Arc::new(LogicalPlan::Projection(Projection::try_new(columns, Arc::clone(branch))?)))
}

#[cfg(test)]
mod tests {
    use datafusion::{logical_expr::LogicalPlanBuilder, prelude::lit};

    use super::*;
    use crate::error::translate;

    fn branch(expr: Expr) -> LogicalPlan {
        LogicalPlanBuilder::empty(true).project(vec![expr.alias("x")]).unwrap().build().unwrap()
    }

    fn typed_as(plan: &LogicalPlan) -> DataType {
        plan.schema().field(0).data_type().clone()
    }

    fn union(left: Expr, right: Expr) -> Result<LogicalPlan> {
        let plan = LogicalPlanBuilder::from(branch(left)).union(branch(right))?.build()?;
        agree(plan, false).map(|agreed| agreed.data)
    }

    #[test]
    fn branches_have_one_type() {
        let text = |text: &str| Expr::Literal(ScalarValue::Utf8(Some(text.to_owned())), None);
        let decimal = Expr::Literal(ScalarValue::Decimal128(Some(25), 2, 1), None);
        for (left, right, expected) in [
            (lit(1_i32), lit(2_i64), DataType::Int64),
            (lit(1_i64), lit(2_i32), DataType::Int64),
            (lit(1_i32), decimal.clone(), DataType::Decimal128(11, 1)),
            (lit(1_f32), decimal, DataType::Float32),
            (text("7"), lit(1_i32), DataType::Int32),
            (lit(1_i32), text("7"), DataType::Int32),
            (Expr::Literal(ScalarValue::Null, None), lit(1_i32), DataType::Int32),
            (text("a"), text("b"), DataType::Utf8),
        ] {
            let plan = union(left, right).unwrap();
            let LogicalPlan::Union(union) = &plan else { panic!("a union stays one") };
            assert_eq!(typed_as(&plan), expected);
            assert!(union.inputs.iter().all(|input| typed_as(input) == expected), "{plan}");
        }
        let error = translate(union(lit(true), lit(1_i32)).unwrap_err());
        assert_eq!(error.message(), "UNION types boolean and integer cannot be matched");
        let error = translate(union(lit(1_i32), text("x")).unwrap_err());
        assert_eq!(error.message(), "invalid input syntax for type integer: \"x\"");
    }

    #[test]
    fn what_is_compared_is_cast_below_distinct() {
        let (left, right) = (branch(lit(1_i32)), branch(lit(2_i64)));
        let plan = LogicalPlanBuilder::except(left, right, false).unwrap();
        let agreed = agree(plan, false).unwrap();
        assert!(agreed.transformed);
        let LogicalPlan::Join(join) = agreed.data else { panic!("EXCEPT is a join") };
        assert!(matches!(join.left.as_ref(), LogicalPlan::Distinct(_)));
        assert_eq!(join.schema.field(0).data_type(), &DataType::Int64);
    }

    #[test]
    fn a_decimal_holds_both_numbers() {
        let numeric = |precision, scale| SqlType::Numeric(Some((precision, scale)));
        assert_eq!(holding(&[numeric(6, 2), SqlType::Int8]), Some(DataType::Decimal128(21, 2)));
        assert_eq!(holding(&[numeric(38, 0), numeric(4, 4)]), Some(DataType::Decimal128(38, 4)));
        assert_eq!(holding(&[SqlType::Int2, SqlType::Float4]), None);
    }
}
