//! `unnest(…)` and `generate_series(…)` in FROM over columns of the items before, also WITH ORDINALITY.
//!
//! Called by `relation` for what `sql::lateral_lists` found to look at other rows. The rows are lists that are unnested
//! side by side; `lateral_rows` puts them beside the columns that they come from.

use datafusion::{
    arrow::datatypes::DataType,
    common::{Column, DFSchema},
    error::Result,
    logical_expr::{
        Cast, Expr, ExprSchemable,
        planner::{PlannedRelation, RelationPlannerContext},
    },
    sql::sqlparser::ast::{FunctionArg, FunctionArgExpr, TableFactor},
};
use sepal_types::SqlType;

use super::{series::is_integer, unnested::side_by_side};
use crate::{
    error::{carry, undefined_function_call},
    functions::{cast_function, ordinals, series},
    output::{natural_type, sql_type},
};

/// A list, and what becomes of its elements.
struct List {
    list: Expr,
    then: Then,
}

/// What an element is when it has become a row.
enum Then {
    AsItIs,
    /// Of a type that Arrow has not: unnesting forgets its name.
    Of(SqlType),
    Integer,
}

/// The rows as a relation; `None` for any other.
pub(super) fn plan(
    relation: &TableFactor,
    context: &mut dyn RelationPlannerContext,
) -> Result<Option<PlannedRelation>> {
    let TableFactor::Function { name, args, with_ordinality, alias, .. } = relation else {
        return Ok(None);
    };
    let name = name.0.last().and_then(|part| part.as_ident()).map(|name| name.value.to_lowercase());
    let empty = DFSchema::empty();
    let mut arguments = Vec::with_capacity(args.len());
    for arg in args {
        let FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) = arg else { return Ok(None) };
        arguments.push(expr.clone());
    }
    let mut planned = || {
        let plan = |expr| context.sql_to_expr(expr, &empty);
        arguments.drain(..).map(plan).collect::<Result<Vec<Expr>>>()
    };
    let lists = match name.as_deref() {
        Some("unnest") if !args.is_empty() => unnest(planned()?, &empty)?,
        Some("generate_series") if matches!(args.len(), 2 | 3) => {
            let planned = planned()?;
            match integers(planned, &empty) {
                Some(list) => vec![list],
                None => return Ok(None),
            }
        }
        _ => return Ok(None),
    };
    let numbers = with_ordinality.then(|| ordinals(lists.iter().map(|list| list.list.clone()).collect()));
    let mut named = Vec::with_capacity(lists.len() + 1);
    let mut outputs = Vec::with_capacity(lists.len() + 1);
    for (position, List { list, then }) in lists.into_iter().enumerate() {
        let column = format!("sepal_list_{position}");
        outputs.push(then.of(Expr::Column(Column::from_name(&column))).alias(&column));
        named.push(list.alias(column));
    }
    if let Some(numbers) = numbers {
        named.push(numbers.alias("ordinality"));
        outputs.push(Expr::Column(Column::from_name("ordinality")));
    }
    Ok(Some(PlannedRelation::new(side_by_side(named, outputs)?, alias.clone())))
}

impl Then {
    fn of(self, element: Expr) -> Expr {
        match self {
            Self::AsItIs => element,
            Self::Of(ty) => cast_function(ty).call(vec![element]),
            Self::Integer => Expr::Cast(Cast::new(Box::new(element), DataType::Int32)),
        }
    }
}

/// Errors: 42883 for what is no array.
fn unnest(arguments: Vec<Expr>, empty: &DFSchema) -> Result<Vec<List>> {
    let mut types = Vec::with_capacity(arguments.len());
    for argument in &arguments {
        let (_, field) = argument.to_field(empty)?;
        let item = match field.data_type() {
            DataType::List(item) | DataType::LargeList(item) => Some(natural_type(item.data_type())),
            _ => None,
        };
        types.push((sql_type(&field), item));
    }
    let mut lists = Vec::with_capacity(arguments.len());
    for (list, (ty, item)) in arguments.into_iter().zip(&types) {
        let SqlType::Array(element) = ty else {
            let types: Vec<SqlType> = types.iter().map(|(ty, _)| ty.clone()).collect();
            return Err(carry(undefined_function_call("unnest", &types)));
        };
        let then = if item.as_ref() == Some(element.as_ref()) {
            Then::AsItIs
        } else {
            Then::Of(element.as_ref().clone())
        };
        lists.push(List { list, then });
    }
    Ok(lists)
}

/// `None` for a series of anything but integers.
fn integers(arguments: Vec<Expr>, empty: &DFSchema) -> Option<List> {
    let whole = |expr: &Expr| {
        let data_type = expr.get_type(empty);
        data_type.is_ok_and(|ty| matches!(ty, DataType::Int16 | DataType::Int32 | DataType::Int64))
    };
    if !arguments.iter().all(|expr| whole(expr) || matches!(expr, Expr::Placeholder(_))) {
        return None;
    }
    let small = arguments.iter().all(|expr| is_integer(expr, empty));
    let then = if small { Then::Integer } else { Then::AsItIs };
    let wide = |expr: Expr| Expr::Cast(Cast::new(Box::new(expr), DataType::Int64));
    Some(List { list: series(arguments.into_iter().map(wide).collect()), then })
}
