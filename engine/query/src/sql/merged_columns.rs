//! JOIN … USING and NATURAL JOIN: which of the two columns a name means, and what `*` shows of them.
//!
//! PostgreSQL merges them into one (`transformFromClauseItem`): the left one's of an inner and a left join, the right
//! one's of a right join, of a full join whichever is there; `*` shows the merged ones first, then what else the left
//! side has, then the right. DataFusion takes the left one always, and for `*` the one whose table is first in the
//! alphabet. So names and wildcards are written out. Called by `wildcard`, which knows the columns of every item; where
//! those of one are not known, all stays as it is.

use std::{ops::ControlFlow, slice::Iter};

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Ident, JoinConstraint, JoinOperator, ObjectName, OrderByExpr, Query, Select,
    SelectItem, TableFactor, TableWithJoins, Visit, VisitMut, Visitor, WildcardAdditionalOptions,
};

use super::{
    names::normalized,
    outermost::{change_outermost, change_with_queries},
    rewrite::call_of,
};

/// An item of FROM that is not a join: its name and its columns.
pub(super) struct Item<'a> {
    pub name: &'a str,
    pub columns: &'a [String],
}

/// A column in sight.
struct Shown {
    name: String,
    value: Expr,
    /// Of two columns.
    merged: bool,
}

/// Writes out the names of merged columns and the wildcards over them, also in `keys`, by which the rows are sorted.
/// `items` are those of FROM in order.
pub(super) fn spell(select: &mut Select, keys: &mut [OrderByExpr], items: &[Item<'_>]) {
    // A copy: what is known too late not to be known leaves no join half written.
    let mut from = select.from.clone();
    let mut rest = items.iter();
    let mut shown = Vec::new();
    for table in &mut from {
        let Some(columns) = joined(table, &mut rest) else { return };
        shown.extend(columns);
    }
    let projection = std::mem::take(&mut select.projection);
    select.projection = projection.into_iter().flat_map(|item| written_out(item, &shown)).collect();
    // Its own expressions alone.
    select.from = Vec::new();
    spell_names(select, &shown);
    select.from = from;
    for key in keys {
        if !names_output(&key.expr, &select.projection) {
            spell_names(&mut key.expr, &shown);
        }
    }
}

/// Hands over the queries among a SELECT's own expressions in which a join merges columns.
pub(super) fn visit_nested(select: &mut Select, each: &mut dyn FnMut(&mut Query)) {
    let from = std::mem::take(&mut select.from);
    let within = |query: &mut Query| {
        if has_merging(query) {
            each(query);
        }
    };
    change_with_queries(select, |_| {}, within);
    select.from = from;
}

/// What an item of FROM shows. `None` where that is not known.
fn joined(table: &mut TableWithJoins, items: &mut Iter<'_, Item<'_>>) -> Option<Vec<Shown>> {
    let mut left = columns(&mut table.relation, items)?;
    for join in &mut table.joins {
        let right = columns(&mut join.relation, items)?;
        let (kind, constraint) = constraint(&mut join.join_operator)?;
        left = combined(left, right, kind, constraint)?;
    }
    Some(left)
}

fn columns(factor: &mut TableFactor, items: &mut Iter<'_, Item<'_>>) -> Option<Vec<Shown>> {
    if let TableFactor::NestedJoin { table_with_joins, alias: None } = factor {
        return joined(table_with_joins, items);
    }
    let item = items.next()?;
    let column = |name: &String| {
        let parts = vec![Ident::with_quote('"', item.name), Ident::with_quote('"', name)];
        Shown { name: name.clone(), value: Expr::CompoundIdentifier(parts), merged: false }
    };
    Some(item.columns.iter().map(column).collect())
}

/// Whose value a merged column has.
#[derive(Clone, Copy)]
enum Kind {
    Either,
    Left,
    Right,
}

fn constraint(operator: &mut JoinOperator) -> Option<(Kind, &mut JoinConstraint)> {
    Some(match operator {
        JoinOperator::Join(constraint)
        | JoinOperator::Inner(constraint)
        | JoinOperator::CrossJoin(constraint)
        | JoinOperator::Left(constraint)
        | JoinOperator::LeftOuter(constraint) => (Kind::Left, constraint),
        JoinOperator::Right(constraint) | JoinOperator::RightOuter(constraint) => (Kind::Right, constraint),
        JoinOperator::FullOuter(constraint) => (Kind::Either, constraint),
        _ => return None,
    })
}

/// What a join shows. `None` where a name that it merges is not one column on each side: the planner says so.
fn combined(
    mut left: Vec<Shown>,
    mut right: Vec<Shown>,
    kind: Kind,
    constraint: &mut JoinConstraint,
) -> Option<Vec<Shown>> {
    let names: Vec<String> = match constraint {
        JoinConstraint::Using(names) => {
            let name = |name: &ObjectName| Some(normalized(name.0.last()?.as_ident()?));
            names.iter().map(name).collect::<Option<_>>()?
        }
        JoinConstraint::Natural => {
            let of_both = |name: &String| right.iter().any(|other| other.name == *name);
            left.iter().map(|column| column.name.clone()).filter(of_both).collect()
        }
        JoinConstraint::On(condition) => {
            left.append(&mut right);
            spell_names(condition, &left);
            return Some(left);
        }
        JoinConstraint::None => Vec::new(),
    };
    let mut shown = Vec::with_capacity(left.len() + right.len());
    let mut equal = Vec::with_capacity(names.len());
    let mut again = false;
    for name in names {
        let (one, other) = (taken(&mut left, &name)?, taken(&mut right, &name)?);
        again |= one.merged || other.merged;
        equal.push((one.value.clone(), other.value.clone()));
        let value = match kind {
            Kind::Either => call_of("coalesce", vec![one.value, other.value]),
            Kind::Left => one.value,
            Kind::Right => other.value,
        };
        shown.push(Shown { name, value, merged: true });
    }
    // DataFusion would look for one column of that name.
    if again {
        let compared = |(left, right)| Expr::BinaryOp {
            left: Box::new(left),
            op: BinaryOperator::Eq,
            right: Box::new(right),
        };
        let both = |left, right| Expr::BinaryOp {
            left: Box::new(left),
            op: BinaryOperator::And,
            right: Box::new(right),
        };
        *constraint = JoinConstraint::On(equal.into_iter().map(compared).reduce(both)?);
    }
    shown.append(&mut left);
    shown.append(&mut right);
    Some(shown)
}

/// The one column of a name, which leaves its side.
fn taken(side: &mut Vec<Shown>, name: &str) -> Option<Shown> {
    let mut places = side.iter().enumerate().filter(|(_, column)| column.name == name);
    let (place, None) = (places.next()?.0, places.next()) else { return None };
    Some(side.remove(place))
}

/// A wildcard as its columns, a merged column under its name.
fn written_out(item: SelectItem, shown: &[Shown]) -> Vec<SelectItem> {
    let named = |column: &Shown| match &column.value {
        Expr::CompoundIdentifier(_) => SelectItem::UnnamedExpr(column.value.clone()),
        value => SelectItem::ExprWithAlias {
            expr: value.clone(),
            alias: Ident::with_quote('"', column.name.as_str()),
        },
    };
    match &item {
        SelectItem::Wildcard(options) if *options == WildcardAdditionalOptions::default() => {
            shown.iter().map(named).collect()
        }
        SelectItem::UnnamedExpr(Expr::Identifier(ident)) => match merged(ident, shown) {
            Some(column) => vec![named(column)],
            None => vec![item],
        },
        _ => vec![item],
    }
}

fn merged<'a>(ident: &Ident, shown: &'a [Shown]) -> Option<&'a Shown> {
    let name = normalized(ident);
    let mut called = shown.iter().filter(|column| column.name == name);
    match (called.next(), called.next()) {
        (Some(column), None) if column.merged => Some(column),
        _ => None,
    }
}

/// Whether a key is the lone name of an output; one that a wildcard brings is.
fn names_output(key: &Expr, projection: &[SelectItem]) -> bool {
    let ident = match key {
        Expr::Identifier(ident) => ident,
        Expr::Nested(inner) => return names_output(inner, projection),
        _ => return false,
    };
    let name = normalized(ident);
    projection.iter().any(|item| match item {
        SelectItem::UnnamedExpr(Expr::Identifier(column)) => normalized(column) == name,
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => {
            parts.last().is_some_and(|column| normalized(column) == name)
        }
        SelectItem::ExprWithAlias { alias, .. } => normalized(alias) == name,
        SelectItem::UnnamedExpr(_) => false,
        _ => true,
    })
}

/// Puts what they mean in the place of the names of merged columns.
fn spell_names(node: &mut impl VisitMut, shown: &[Shown]) {
    change_outermost(node, |expr| {
        if let Expr::Identifier(ident) = &*expr
            && let Some(column) = merged(ident, shown)
        {
            *expr = column.value.clone();
        }
    });
}

fn has_merging(query: &Query) -> bool {
    Visit::visit(query, &mut Merging).is_break()
}

/// Looks for a join that merges columns.
struct Merging;

impl Visitor for Merging {
    type Break = ();

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        if select.from.iter().any(merging) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

fn merging(table: &TableWithJoins) -> bool {
    let nested = |factor: &TableFactor| match factor {
        TableFactor::NestedJoin { table_with_joins, .. } => merging(table_with_joins),
        _ => false,
    };
    nested(&table.relation)
        || table.joins.iter().any(|join| nested(&join.relation) || merges(&join.join_operator))
}

/// Whether a join merges columns of equal names (USING, NATURAL).
pub(super) fn merges(operator: &JoinOperator) -> bool {
    match operator {
        JoinOperator::Join(constraint)
        | JoinOperator::Inner(constraint)
        | JoinOperator::Left(constraint)
        | JoinOperator::LeftOuter(constraint)
        | JoinOperator::Right(constraint)
        | JoinOperator::RightOuter(constraint)
        | JoinOperator::FullOuter(constraint)
        | JoinOperator::CrossJoin(constraint) => {
            matches!(constraint, JoinConstraint::Using(_) | JoinConstraint::Natural)
        }
        _ => true,
    }
}
