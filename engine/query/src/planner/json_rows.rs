//! `jsonb_each(…)`, `jsonb_array_elements(…)` and their kin in FROM, also WITH ORDINALITY.
//!
//! Called by `relation`. The rows are lists that are unnested side by side; where the argument is a column of the items
//! before, `lateral_rows` puts both beside those. Names of columns come with the alias (`sql::json_rows`).

use datafusion::{
    common::{Column, DFSchema},
    error::Result,
    logical_expr::{
        Expr,
        planner::{PlannedRelation, RelationPlannerContext},
    },
    sql::sqlparser::ast::{FunctionArg, FunctionArgExpr, TableFactor},
};

use super::unnested::side_by_side;
use crate::{
    error::{carry, undefined_function},
    functions::json_rows,
};

/// The rows as a relation; `None` for any other.
pub(super) fn plan(
    relation: &TableFactor,
    context: &mut dyn RelationPlannerContext,
) -> Result<Option<PlannedRelation>> {
    let (name, args, ordinality, alias) = match relation {
        TableFactor::Table { name, args: Some(args), with_ordinality, alias, .. } => {
            (name, args.args.as_slice(), *with_ordinality, alias)
        }
        TableFactor::Function { name, args, with_ordinality, alias, .. } => {
            (name, args.as_slice(), *with_ordinality, alias)
        }
        _ => return Ok(None),
    };
    let Some(rows) = name.0.last().and_then(|part| part.as_ident()).and_then(|name| json_rows(&name.value))
    else {
        return Ok(None);
    };
    let [FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))] = args else {
        let what = format!("{} with {} arguments", rows.name, args.len());
        return Err(carry(undefined_function(&what)));
    };
    let argument = context.sql_to_expr(argument.clone(), &DFSchema::empty())?;
    let lists = rows.lists(&argument, ordinality);
    let mut names: Vec<String> =
        rows.columns().into_iter().map(|name| name.unwrap_or(rows.name).to_owned()).collect();
    names.extend(ordinality.then(|| "ordinality".to_owned()));
    let named = lists.into_iter().zip(&names).map(|(list, name)| list.alias(name)).collect();
    let outputs: Vec<Expr> = names
        .iter()
        .enumerate()
        .map(|(position, name)| {
            let element = Expr::Column(Column::from_name(name));
            rows.typed(position, element).map(|typed| typed.alias(name))
        })
        .collect::<Result<_>>()?;
    Ok(Some(PlannedRelation::new(side_by_side(named, outputs)?, alias.clone())))
}
