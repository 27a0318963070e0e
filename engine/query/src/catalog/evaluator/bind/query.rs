//! Queries: WITH, set operations, VALUES, ORDER BY over them, and LIMIT.

use datafusion::sql::sqlparser::ast::{self, LimitClause, OrderByKind, SetExpr, SetOperator, SetQuantifier};
use sepal_types::{Error, SqlState};

use super::super::plan::{Body, Column, Cte, Expr, Query, Recursion, SetKind, SetOperation, Sort, SortKey};
use super::super::ty::Ty;
use super::{Binder, Bound, CteName, Read, Scope, Stop, fold};

impl Binder<'_> {
    pub fn query(&mut self, ast: &ast::Query) -> Bound<Query> {
        if !ast.locks.is_empty() || ast.for_clause.is_some() || !ast.pipe_operators.is_empty() {
            return Err(Stop::Decline);
        }
        let (level, first_read, visible) = (self.scopes.len(), self.reads.len(), self.ctes.len());
        let id = self.id();
        let ctes = match &ast.with {
            Some(with) => self.with(with)?,
            None => Vec::new(),
        };
        let order = match &ast.order_by {
            None => &[][..],
            Some(order) => match &order.kind {
                OrderByKind::Expressions(keys) => keys,
                OrderByKind::All(_) => return Err(Stop::Decline),
            },
        };
        let (body, columns, sort) = self.body(&ast.body, order)?;
        let (limit, offset) = self.limits(ast)?;
        self.ctes.truncate(visible);
        let own: Vec<usize> = ctes.iter().map(|cte: &Cte| cte.id).collect();
        let outer = |read: &Read| match read {
            Read::Column { level: of, .. } => *of < level,
            Read::Cte(id) => !own.contains(id),
        };
        let kept: Vec<Read> = self.reads.drain(first_read..).filter(outer).collect();
        let dependent = !kept.is_empty();
        self.reads.extend(kept);
        Ok(Query { id, ctes, body, sort, limit, offset, columns, dependent })
    }

    fn body(&mut self, body: &SetExpr, order: &[ast::OrderByExpr]) -> Bound<(Body, Vec<Column>, Vec<Sort>)> {
        match body {
            SetExpr::Select(select) => {
                let (select, columns, sort) = self.select(select, order)?;
                Ok((Body::Select(Box::new(select)), columns, sort))
            }
            SetExpr::Query(query) => {
                let query = self.query(query)?;
                let columns = query.columns.clone();
                let sort = output_sort(&columns, order)?;
                Ok((Body::Nested(Box::new(query)), columns, sort))
            }
            SetExpr::SetOperation { op, set_quantifier, left, right } => {
                let (left, right) = (self.operand(left)?, self.operand(right)?);
                let operation = set_operation(*op, *set_quantifier, left, right)?;
                let columns = set_columns(&operation);
                let sort = output_sort(&columns, order)?;
                Ok((Body::Set(Box::new(operation)), columns, sort))
            }
            SetExpr::Values(values) => {
                let (rows, columns) = self.values(values)?;
                let sort = output_sort(&columns, order)?;
                Ok((Body::Values(rows), columns, sort))
            }
            _ => Err(Stop::Decline),
        }
    }

    /// One side of a set operation, as a query of its own.
    fn operand(&mut self, body: &SetExpr) -> Bound<Query> {
        let (level, first_read) = (self.scopes.len(), self.reads.len());
        let id = self.id();
        let (body, columns, sort) = self.body(body, &[])?;
        let outer = |read: &Read| !matches!(read, Read::Column { level: of, .. } if *of >= level);
        let kept: Vec<Read> = self.reads.drain(first_read..).filter(outer).collect();
        let dependent = !kept.is_empty();
        self.reads.extend(kept);
        Ok(Query { id, ctes: Vec::new(), body, sort, limit: None, offset: None, columns, dependent })
    }

    fn with(&mut self, with: &ast::With) -> Bound<Vec<Cte>> {
        let mut ctes = Vec::new();
        for cte in &with.cte_tables {
            let id = self.id();
            let names: Vec<String> = cte.alias.columns.iter().map(|column| fold(&column.name)).collect();
            let name = fold(&cte.alias.name);
            let (cte, columns) = match (with.recursive, cte.query.body.as_ref()) {
                (true, SetExpr::SetOperation { op: SetOperator::Union, set_quantifier, left, right })
                    if cte.query.order_by.is_none() && cte.query.limit_clause.is_none() =>
                {
                    self.recursive(id, &name, &names, (left, right), *set_quantifier)?
                }
                _ => {
                    let query = self.query(&cte.query)?;
                    let columns = renamed(&query.columns, &names);
                    (Cte { id, query, recursion: None }, columns)
                }
            };
            self.ctes.push(CteName { name, id, columns, used: false });
            ctes.push(cte);
        }
        Ok(ctes)
    }

    /// `base UNION [ALL] step`, where the step may read the CTE itself.
    fn recursive(
        &mut self,
        id: usize,
        name: &str,
        names: &[String],
        (left, right): (&SetExpr, &SetExpr),
        quantifier: SetQuantifier,
    ) -> Bound<(Cte, Vec<Column>)> {
        let base = self.operand(left)?;
        let columns = renamed(&base.columns, names);
        self.ctes.push(CteName { name: name.to_owned(), id, columns: columns.clone(), used: false });
        let step = self.operand(right)?;
        let used = self.ctes.pop().is_some_and(|cte| cte.used);
        let all = quantifier == SetQuantifier::All;
        if step.columns.len() != columns.len() {
            return Err(uneven_columns().into());
        }
        if used {
            return Ok((Cte { id, query: base, recursion: Some(Recursion { step, all }) }, columns));
        }
        let operation = set_operation(SetOperator::Union, quantifier, base, step)?;
        let columns = renamed(&set_columns(&operation), names);
        let query = Query {
            id: self.id(),
            ctes: Vec::new(),
            body: Body::Set(Box::new(operation)),
            sort: Vec::new(),
            limit: None,
            offset: None,
            columns: columns.clone(),
            dependent: true,
        };
        Ok((Cte { id, query, recursion: None }, columns))
    }

    fn values(&mut self, values: &ast::Values) -> Bound<(Vec<Vec<Expr>>, Vec<Column>)> {
        self.scopes.push(Scope::default());
        let width = values.rows.first().map_or(0, |row| row.content.len());
        let mut columns: Vec<Vec<Expr>> = Vec::new();
        let mut names = Vec::new();
        for place in 0..width {
            let mut typed = Vec::new();
            for row in &values.rows {
                let value = row.content.get(place).ok_or(Stop::Decline)?;
                typed.push(self.expr(value)?);
            }
            let (exprs, ty) = self.meet_all(typed)?;
            columns.push(exprs);
            names.push(Column { name: format!("column{}", place + 1), ty });
        }
        self.scopes.pop();
        let mut rows: Vec<Vec<Expr>> = values.rows.iter().map(|_| Vec::new()).collect();
        for column in columns {
            for (row, value) in rows.iter_mut().zip(column) {
                row.push(value);
            }
        }
        Ok((rows, names))
    }

    fn limits(&mut self, ast: &ast::Query) -> Bound<(Option<Expr>, Option<Expr>)> {
        let (mut limit, mut offset) = match &ast.limit_clause {
            None => (None, None),
            Some(LimitClause::LimitOffset { limit, offset, limit_by }) if limit_by.is_empty() => {
                (limit.as_ref(), offset.as_ref().map(|offset| &offset.value))
            }
            Some(LimitClause::OffsetCommaLimit { offset, limit }) => (Some(limit), Some(offset)),
            Some(LimitClause::LimitOffset { .. }) => return Err(Stop::Decline),
        };
        if let Some(fetch) = &ast.fetch {
            limit = fetch.quantity.as_ref();
        }
        self.scopes.push(Scope::default());
        let mut bind = |expr: Option<&ast::Expr>| -> Bound<Option<Expr>> {
            let Some(expr) = expr else { return Ok(None) };
            let typed = self.expr(expr)?;
            Ok(Some(self.coerce(typed, &Ty::INT8)?))
        };
        let bound = (bind(limit.take())?, bind(offset.take())?);
        self.scopes.pop();
        Ok(bound)
    }
}

pub(super) fn sort_key(key: &ast::OrderByExpr, target: SortKey) -> Sort {
    let descending = key.options.asc == Some(false);
    Sort { key: target, descending, nulls_first: key.options.nulls_first.unwrap_or(descending) }
}

/// ORDER BY over a set operation: output names and numbers only.
fn output_sort(columns: &[Column], order: &[ast::OrderByExpr]) -> Bound<Vec<Sort>> {
    let mut sort = Vec::new();
    for key in order {
        let place = output_place(&key.expr).or_else(|| named_output(columns, &key.expr));
        match place {
            Some(place) if place < columns.len() => sort.push(sort_key(key, SortKey::Output(place))),
            Some(place) => return Err(no_such_output(place).into()),
            None => return Err(Stop::Decline),
        }
    }
    Ok(sort)
}

pub(super) fn no_such_output(place: usize) -> Error {
    let place = place.saturating_add(1);
    Error::new(SqlState::InvalidColumnReference, format!("ORDER BY position {place} is not in select list"))
}

/// `2` is the second output, from 0.
pub(super) fn output_place(expr: &ast::Expr) -> Option<usize> {
    match expr {
        ast::Expr::Value(value) => match &value.value {
            ast::Value::Number(number, _) => number.parse::<usize>().ok()?.checked_sub(1),
            _ => None,
        },
        _ => None,
    }
}

pub(super) fn named_output(columns: &[Column], expr: &ast::Expr) -> Option<usize> {
    match expr {
        ast::Expr::Identifier(ident) => columns.iter().position(|column| column.name == fold(ident)),
        _ => None,
    }
}

fn renamed(columns: &[Column], names: &[String]) -> Vec<Column> {
    let name = |place: usize, column: &Column| names.get(place).unwrap_or(&column.name).clone();
    let renamed = columns.iter().enumerate();
    renamed.map(|(place, column)| Column { name: name(place, column), ty: column.ty.clone() }).collect()
}

fn uneven_columns() -> Error {
    Error::new(SqlState::SyntaxError, "each UNION query must have the same number of columns")
}

fn set_operation(
    operator: SetOperator,
    quantifier: SetQuantifier,
    left: Query,
    right: Query,
) -> Bound<SetOperation> {
    let kind = match operator {
        SetOperator::Union => SetKind::Union,
        SetOperator::Except => SetKind::Except,
        SetOperator::Intersect => SetKind::Intersect,
        SetOperator::Minus => return Err(Stop::Decline),
    };
    let all = match quantifier {
        SetQuantifier::All => true,
        SetQuantifier::None | SetQuantifier::Distinct => false,
        _ => return Err(Stop::Decline),
    };
    if left.columns.len() != right.columns.len() {
        return Err(uneven_columns().into());
    }
    let mut types = Vec::new();
    for (left, right) in left.columns.iter().zip(&right.columns) {
        let both_untyped = left.ty.is_unknown() && right.ty.is_unknown();
        let ty = left.ty.common(&right.ty).ok_or_else(|| {
            let message = format!("UNION types {} and {} cannot be matched", left.ty.name(), right.ty.name());
            Error::new(SqlState::DatatypeMismatch, message)
        })?;
        types.push(if both_untyped { Ty::UNKNOWN } else { ty });
    }
    Ok(SetOperation { kind, all, left, right, types })
}

/// Named by the left side.
fn set_columns(operation: &SetOperation) -> Vec<Column> {
    let names = operation.left.columns.iter().map(|column| column.name.clone());
    names.zip(&operation.types).map(|(name, ty)| Column { name, ty: ty.clone() }).collect()
}
