//! SELECT: its clauses in the order in which their names come into sight.

use datafusion::sql::sqlparser::ast::{self, GroupByExpr, SelectItem, SelectItemQualifiedWildcardKind};
use sepal_types::{Error, SqlState};

use super::super::plan::{Column, Distinct, Expr, Select, Sort, SortKey};
use super::super::ty::Ty;
use super::name::presented_name;
use super::query::{named_output, no_such_output, output_place, sort_key};
use super::{Binder, Bound, Read, Scope, Stop, fold};

impl Binder<'_> {
    pub(super) fn select(
        &mut self,
        ast: &ast::Select,
        order: &[ast::OrderByExpr],
    ) -> Bound<(Select, Vec<Column>, Vec<Sort>)> {
        let plain = ast.top.is_none()
            && ast.into.is_none()
            && ast.exclude.is_none()
            && ast.lateral_views.is_empty()
            && ast.prewhere.is_none()
            && ast.connect_by.is_empty()
            && ast.cluster_by.is_empty()
            && ast.distribute_by.is_empty()
            && ast.sort_by.is_empty()
            && ast.named_window.is_empty()
            && ast.qualify.is_none();
        if !plain {
            return Err(Stop::Decline);
        }
        self.scopes.push(Scope::default());
        let mut from = self.from(&ast.from)?;
        let filter = match &ast.selection {
            Some(condition) => self.conditions(&mut from, condition)?,
            None => Vec::new(),
        };
        self.scope()?.allows_sets = true;
        let (output, columns) = self.projection(&ast.projection)?;
        let distinct = match &ast.distinct {
            None | Some(ast::Distinct::All) => Distinct::No,
            Some(ast::Distinct::Distinct) => Distinct::Rows,
            Some(ast::Distinct::On(keys)) => {
                let mut bound = Vec::new();
                for key in keys {
                    bound.push(self.expr(key)?.0);
                }
                Distinct::On(bound)
            }
        };
        let sort = self.sort(ast, &columns, order)?;
        self.scope()?.allows_sets = false;
        let groups = self.groups(ast)?;
        let having = match &ast.having {
            Some(having) => Some(self.condition(having)?),
            None => None,
        };
        let scope = self.scopes.pop().ok_or(Stop::Decline)?;
        let grouped = !groups.is_empty() || having.is_some() || !scope.aggregates.is_empty();
        let select = Select {
            from,
            filter,
            group: grouped.then_some(groups),
            having,
            aggregates: scope.aggregates,
            windows: scope.windows,
            sets: scope.sets,
            output,
            distinct,
        };
        Ok((select, columns, sort))
    }

    fn projection(&mut self, items: &[SelectItem]) -> Bound<(Vec<Expr>, Vec<Column>)> {
        let (mut output, mut columns) = (Vec::new(), Vec::new());
        for item in items {
            match item {
                SelectItem::UnnamedExpr(expr) => {
                    let (value, ty) = self.expr(expr)?;
                    output.push(value);
                    columns.push(Column { name: presented_name(expr), ty });
                }
                SelectItem::ExprWithAlias { expr, alias } => {
                    let (value, ty) = self.expr(expr)?;
                    output.push(value);
                    columns.push(Column { name: fold(alias), ty });
                }
                SelectItem::Wildcard(_) => self.star(None, &mut output, &mut columns)?,
                SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) => {
                    let parts = super::name_parts(name).ok_or(Stop::Decline)?;
                    self.star(parts.last().map(String::as_str), &mut output, &mut columns)?;
                }
                SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::Expr(expr), _) => {
                    self.star_of_record(expr, &mut output, &mut columns)?;
                }
                SelectItem::ExprWithAliases { .. } => return Err(Stop::Decline),
            }
        }
        Ok((output, columns))
    }

    fn star(
        &mut self,
        qualifier: Option<&str>,
        output: &mut Vec<Expr>,
        columns: &mut Vec<Column>,
    ) -> Bound<()> {
        let level = self.scopes.len() - 1;
        let mut offered: Vec<_> = self.scopes[level].columns.iter().cloned().enumerate().collect();
        if qualifier.is_none() {
            offered.sort_by_key(|(_, column)| !column.leads);
        }
        let before = output.len();
        for (index, column) in offered {
            let wanted = qualifier.is_none_or(|qualifier| column.qualifier == qualifier);
            let left_out = column.hidden || (column.merged && qualifier.is_none());
            if wanted && !left_out {
                self.reads.push(Read::Column { level, index });
                output.push(Expr::Column { depth: 0, index });
                columns.push(Column { name: column.name, ty: column.ty });
            }
        }
        match qualifier {
            Some(qualifier) if output.len() == before => {
                let message = format!("missing FROM-clause entry for table \"{qualifier}\"");
                Err(Error::new(SqlState::UndefinedTable, message).into())
            }
            _ => Ok(()),
        }
    }

    /// `(f(x)).*`
    fn star_of_record(
        &mut self,
        record: &ast::Expr,
        output: &mut Vec<Expr>,
        columns: &mut Vec<Column>,
    ) -> Bound<()> {
        let (_, ty) = self.expr(record)?;
        let Ty::Record(fields) = ty else { return Err(Stop::Decline) };
        for (place, (name, ty)) in fields.iter().enumerate() {
            let (value, _) = self.expr(record)?;
            output.push(Expr::Field(Box::new(value), place));
            columns.push(Column { name: name.clone(), ty: ty.clone() });
        }
        Ok(())
    }

    /// GROUP BY: expressions, output names, output numbers.
    fn groups(&mut self, ast: &ast::Select) -> Bound<Vec<Expr>> {
        let GroupByExpr::Expressions(keys, modifiers) = &ast.group_by else { return Err(Stop::Decline) };
        if !modifiers.is_empty() {
            return Err(Stop::Decline);
        }
        let mut groups = Vec::new();
        for key in keys {
            let key = match output_place(key) {
                Some(place) => projected(ast, place).ok_or(Stop::Decline)?,
                None => key,
            };
            let bound = match self.expr(key) {
                Err(Stop::Fail(error)) => match aliased(ast, key) {
                    Some(expr) => self.expr(expr)?,
                    None => return Err(Stop::Fail(error)),
                },
                bound => bound?,
            };
            groups.push(bound.0);
        }
        Ok(groups)
    }

    fn sort(
        &mut self,
        ast: &ast::Select,
        columns: &[Column],
        order: &[ast::OrderByExpr],
    ) -> Bound<Vec<Sort>> {
        let mut sort = Vec::new();
        for key in order {
            // An output's name wins over an input column; the same expression is not computed twice.
            let same = |item: &SelectItem| matches!(item, SelectItem::UnnamedExpr(expr) if *expr == key.expr);
            let starless = !ast
                .projection
                .iter()
                .any(|item| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..)));
            let place = output_place(&key.expr)
                .or_else(|| named_output(columns, &key.expr))
                .or_else(|| ast.projection.iter().position(same).filter(|_| starless));
            let target = match place {
                Some(place) if place < columns.len() => SortKey::Output(place),
                Some(place) => return Err(no_such_output(place).into()),
                None => SortKey::Expr(self.expr(&key.expr)?.0),
            };
            sort.push(sort_key(key, target));
        }
        Ok(sort)
    }
}

fn projected(ast: &ast::Select, place: usize) -> Option<&ast::Expr> {
    match ast.projection.get(place)? {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => Some(expr),
        _ => None,
    }
}

fn aliased<'a>(ast: &'a ast::Select, key: &ast::Expr) -> Option<&'a ast::Expr> {
    let ast::Expr::Identifier(name) = key else { return None };
    ast.projection.iter().find_map(|item| match item {
        SelectItem::ExprWithAlias { expr, alias } if fold(alias) == fold(name) => Some(expr),
        _ => None,
    })
}
