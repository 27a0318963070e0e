//! FROM and WHERE: what each item offers, and where each condition can be decided first.

use datafusion::sql::sqlparser::ast::{
    self, BinaryOperator, FunctionArg, FunctionArgExpr, JoinConstraint, JoinOperator, TableAlias, TableFactor,
};
use sepal_types::SqlType;

use super::super::super::shape::{PG_CATALOG, shape};
use super::super::plan::{Comparison, Expr, From, Join, SetCall, SetFunction, Source, Step, Test};
use super::super::ty::Ty;
use super::{Binder, Bound, Read, ScopeColumn, Stop, fold, name_parts};

/// What an item of FROM is bound to.
struct Item {
    source: Source,
    columns: Vec<ScopeColumn>,
    lateral: bool,
}

/// A condition and the places of its own query's row that it reads.
struct Condition {
    expr: Expr,
    reads: Vec<usize>,
}

impl Binder<'_> {
    pub(super) fn from(&mut self, tables: &[ast::TableWithJoins]) -> Bound<From> {
        let mut from = From::default();
        for table in tables {
            // `a, b RIGHT JOIN c`: the rows that the join makes by itself are of b and c alone.
            let alone = |join: &ast::Join| {
                matches!(
                    join.join_operator,
                    JoinOperator::Right(_) | JoinOperator::RightOuter(_) | JoinOperator::FullOuter(_)
                )
            };
            if !from.steps.is_empty() && table.joins.iter().any(alone) {
                let nested =
                    TableFactor::NestedJoin { table_with_joins: Box::new(table.clone()), alias: None };
                self.step(&mut from, &nested, Join::Inner, &JoinConstraint::None)?;
            } else {
                self.joined(&mut from, table)?;
            }
        }
        Ok(from)
    }

    fn joined(&mut self, from: &mut From, table: &ast::TableWithJoins) -> Bound<()> {
        self.step(from, &table.relation, Join::Inner, &JoinConstraint::None)?;
        for join in &table.joins {
            let (kind, constraint) = match &join.join_operator {
                JoinOperator::Join(constraint)
                | JoinOperator::Inner(constraint)
                | JoinOperator::CrossJoin(constraint) => (Join::Inner, constraint),
                JoinOperator::Left(constraint) | JoinOperator::LeftOuter(constraint) => {
                    (Join::Left, constraint)
                }
                JoinOperator::Right(constraint) | JoinOperator::RightOuter(constraint) => {
                    (Join::Right, constraint)
                }
                JoinOperator::FullOuter(constraint) => (Join::Full, constraint),
                _ => return Err(Stop::Decline),
            };
            self.step(from, &join.relation, kind, constraint)?;
        }
        Ok(())
    }

    fn step(
        &mut self,
        from: &mut From,
        factor: &TableFactor,
        kind: Join,
        constraint: &JoinConstraint,
    ) -> Bound<()> {
        let offset = self.scope()?.columns.len();
        let item = self.item(factor)?;
        // A join in parentheses has put its columns there itself.
        self.scope()?.columns.extend(item.columns);
        let width = self.scope()?.columns.len() - offset;
        from.steps.push(Step {
            source: item.source,
            kind,
            offset,
            width,
            lateral: item.lateral,
            own: Vec::new(),
            keys: Vec::new(),
            on: Vec::new(),
            filter: Vec::new(),
        });
        let at = from.steps.len() - 1;
        match constraint {
            JoinConstraint::None => {}
            JoinConstraint::On(condition) => {
                for condition in conjuncts(condition) {
                    let condition = self.condition_with_reads(condition)?;
                    attach_on(&mut from.steps[at], condition);
                }
            }
            JoinConstraint::Using(names) => {
                for name in names {
                    let name = name_parts(name).and_then(|mut parts| parts.pop()).ok_or(Stop::Decline)?;
                    self.merge(from, at, &name)?;
                }
            }
            JoinConstraint::Natural => {
                let columns = &self.scope()?.columns;
                let visible = |column: &&ScopeColumn| !column.hidden && !column.merged;
                let left: Vec<String> =
                    columns[..offset].iter().filter(visible).map(|column| column.name.clone()).collect();
                let own: Vec<String> =
                    columns[offset..].iter().filter(visible).map(|column| column.name.clone()).collect();
                for name in own.into_iter().filter(|name| left.contains(name)) {
                    self.merge(from, at, &name)?;
                }
            }
        }
        Ok(())
    }

    /// USING: the pair is compared, and only one is found by its bare name: the left one, or the right one of a right
    /// join. A full join would make a third of them.
    fn merge(&mut self, from: &mut From, at: usize, name: &str) -> Bound<()> {
        let offset = from.steps[at].offset;
        let columns = &mut self.scope()?.columns;
        let visible = |column: &ScopeColumn| column.name == name && !column.hidden && !column.merged;
        let left = columns[..offset].iter().position(visible).ok_or(Stop::Decline)?;
        let right = offset + columns[offset..].iter().position(visible).ok_or(Stop::Decline)?;
        let (left_ty, right_ty) = (columns[left].ty.clone(), columns[right].ty.clone());
        let (kept, other) = match from.steps[at].kind {
            Join::Full => return Err(Stop::Decline),
            Join::Right => (right, left),
            Join::Inner | Join::Left => (left, right),
        };
        columns[kept].leads = true;
        columns[other].merged = true;
        let (left, right, _) = self.meet(
            (Expr::Column { depth: 0, index: left }, left_ty),
            (Expr::Column { depth: 0, index: right }, right_ty),
            "=",
        )?;
        from.steps[at].keys.push((left, right));
        Ok(())
    }

    fn item(&mut self, factor: &TableFactor) -> Bound<Item> {
        match factor {
            TableFactor::Table { name, alias, args: None, with_ordinality: false, sample: None, .. } => {
                let parts = name_parts(name).ok_or(Stop::Decline)?;
                self.relation(&parts, alias.as_ref())
            }
            TableFactor::Table { name, alias, args: Some(arguments), with_ordinality, .. } => {
                let parts = name_parts(name).ok_or(Stop::Decline)?;
                self.table_function(&parts, &arguments.args, *with_ordinality, alias.as_ref())
            }
            TableFactor::Function { name, args, with_ordinality, alias, .. } => {
                let parts = name_parts(name).ok_or(Stop::Decline)?;
                self.table_function(&parts, args, *with_ordinality, alias.as_ref())
            }
            TableFactor::UNNEST { alias, array_exprs, with_ordinality, with_offset: false, .. } => {
                let argument = |array: &ast::Expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(array.clone()));
                let arguments: Vec<FunctionArg> = array_exprs.iter().map(argument).collect();
                self.table_function(&["unnest".to_owned()], &arguments, *with_ordinality, alias.as_ref())
            }
            TableFactor::Derived { lateral, subquery, alias, sample: None } => {
                self.derived(*lateral, subquery, alias.as_ref())
            }
            TableFactor::NestedJoin { table_with_joins, alias: None } => {
                let mut from = From { base: self.scope()?.columns.len(), steps: Vec::new() };
                self.joined(&mut from, table_with_joins)?;
                let lateral = from.steps.iter().any(|step| step.lateral);
                Ok(Item { source: Source::Join(from), columns: Vec::new(), lateral })
            }
            _ => Err(Stop::Decline),
        }
    }

    /// A CTE or a catalog relation; a user's table ends the evaluator's part.
    fn relation(&mut self, parts: &[String], alias: Option<&TableAlias>) -> Bound<Item> {
        let (schema, name) = match parts {
            [name] => (None, name),
            [schema, name] => (Some(schema.as_str()), name),
            [catalog, schema, name] if *catalog == self.context.environment => (Some(schema.as_str()), name),
            _ => return Err(Stop::Decline),
        };
        if schema.is_none()
            && let Some(cte) = self.ctes.iter_mut().rev().find(|cte| cte.name == *name)
        {
            cte.used = true;
            let (id, columns) = (cte.id, cte.columns.clone());
            self.reads.push(Read::Cte(id));
            let columns = columns.into_iter().map(|column| (column.name, column.ty)).collect();
            return Ok(Item {
                source: Source::Cte(id),
                columns: offered(name, alias, columns),
                lateral: false,
            });
        }
        let shape = shape(schema.unwrap_or(PG_CATALOG), name).ok_or(Stop::Decline)?;
        self.touched = true;
        let columns =
            shape.columns.iter().map(|(name, ty)| ((*name).to_owned(), Ty::Sql(ty.clone()))).collect();
        let mut columns = offered(name, alias, columns);
        let qualifier = columns.first().map(|column| column.qualifier.clone()).unwrap_or_default();
        for (name, ty) in [("tableoid", SqlType::Regclass), ("xmin", SqlType::Int8), ("ctid", SqlType::Text)]
        {
            columns.push(ScopeColumn {
                qualifier: qualifier.clone(),
                name: name.to_owned(),
                ty: Ty::Sql(ty),
                hidden: true,
                merged: false,
                leads: false,
            });
        }
        Ok(Item { source: Source::Relation(shape), columns, lateral: false })
    }

    fn derived(&mut self, lateral: bool, query: &ast::Query, alias: Option<&TableAlias>) -> Bound<Item> {
        // Without LATERAL the items beside it are out of its sight.
        let siblings = if lateral { None } else { self.scopes.pop() };
        let query = self.query(query);
        self.scopes.extend(siblings);
        let query = query?;
        let columns = query.columns.iter().map(|column| (column.name.clone(), column.ty.clone())).collect();
        let columns = offered("", alias, columns);
        Ok(Item { source: Source::Query(Box::new(query)), columns, lateral })
    }

    fn table_function(
        &mut self,
        parts: &[String],
        arguments: &[FunctionArg],
        ordinality: bool,
        alias: Option<&TableAlias>,
    ) -> Bound<Item> {
        let name = parts.last().ok_or(Stop::Decline)?;
        let mut typed = Vec::new();
        for argument in arguments {
            match argument {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => typed.push(self.expr(expr)?),
                _ => return Err(Stop::Decline),
            }
        }
        let (call, ty) = match self.set_function(name, typed)? {
            Ok(bound) => bound,
            Err(typed) => {
                let (value, ty) = self.scalar_function(name, typed)?;
                (SetCall { function: SetFunction::One, arguments: vec![value] }, ty)
            }
        };
        let mut columns: Vec<(String, Ty)> = match ty {
            Ty::Record(fields) => fields.to_vec(),
            // A single column goes by the alias of the function.
            ty => vec![(alias.map_or_else(|| name.clone(), |alias| fold(&alias.name)), ty)],
        };
        if ordinality {
            columns.push(("ordinality".to_owned(), Ty::INT8));
        }
        let columns = offered(name, alias, columns);
        Ok(Item { source: Source::Function { call, ordinality }, columns, lateral: true })
    }

    /// WHERE: each condition goes to the first step after which it can be decided; the rest is returned.
    pub(super) fn conditions(&mut self, from: &mut From, condition: &ast::Expr) -> Bound<Vec<Expr>> {
        // A later RIGHT or FULL JOIN makes rows of its own, which WHERE must see too.
        let movable = !from.steps.iter().any(|step| matches!(step.kind, Join::Right | Join::Full));
        let mut rest = Vec::new();
        for condition in conjuncts(condition) {
            let condition = self.condition_with_reads(condition)?;
            let last = condition.reads.iter().copied().max();
            let step = from.steps.iter_mut().find(|step| match last {
                Some(last) => step.offset + step.width > last,
                None => true,
            });
            match step {
                Some(step) if movable && step.kind == Join::Inner => attach_on(step, condition),
                Some(step) if movable => step.filter.push(condition.expr),
                _ => rest.push(condition.expr),
            }
        }
        Ok(rest)
    }

    /// A condition as a Boolean.
    pub(super) fn condition(&mut self, condition: &ast::Expr) -> Bound<Expr> {
        let typed = self.expr(condition)?;
        self.coerce(typed, &Ty::BOOL)
    }

    fn condition_with_reads(&mut self, condition: &ast::Expr) -> Bound<Condition> {
        let (level, first) = (self.scopes.len() - 1, self.reads.len());
        let expr = self.condition(condition)?;
        let own = |read: &Read| match read {
            Read::Column { level: of, index } if *of == level => Some(*index),
            _ => None,
        };
        Ok(Condition { expr, reads: self.reads[first..].iter().filter_map(own).collect() })
    }
}

/// Puts a condition of ON where it costs least: before the join, as a hash key, or on the joined row.
fn attach_on(step: &mut Step, condition: Condition) {
    let own = step.offset..step.offset + step.width;
    let inner = step.kind == Join::Inner;
    let early = inner || step.kind == Join::Left;
    if early
        && !step.lateral
        && !condition.reads.is_empty()
        && condition.reads.iter().all(|at| own.contains(at))
    {
        step.own.push(condition.expr);
        return;
    }
    match condition.expr {
        Expr::Test(Test::Compare(Comparison::Eq), left, right) => {
            let on_own = |expr: &Expr| {
                expr.own_columns().is_some_and(|columns| {
                    !columns.is_empty() && columns.iter().all(|column| own.contains(column))
                })
            };
            let on_earlier = |expr: &Expr| {
                expr.own_columns().is_some_and(|columns| columns.iter().all(|column| *column < own.start))
            };
            if !step.lateral && on_earlier(&left) && on_own(&right) {
                step.keys.push((*left, *right));
            } else if !step.lateral && on_own(&left) && on_earlier(&right) {
                step.keys.push((*right, *left));
            } else {
                step.on.push(Expr::Test(Test::Compare(Comparison::Eq), left, right));
            }
        }
        other => step.on.push(other),
    }
}

/// The parts of a condition that are joined by AND.
fn conjuncts(condition: &ast::Expr) -> Vec<&ast::Expr> {
    match condition {
        ast::Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            let mut all = conjuncts(left);
            all.extend(conjuncts(right));
            all
        }
        ast::Expr::Nested(inner) => conjuncts(inner),
        other => vec![other],
    }
}

/// Columns under the item's name or alias, renamed by the alias's column list.
fn offered(name: &str, alias: Option<&TableAlias>, columns: Vec<(String, Ty)>) -> Vec<ScopeColumn> {
    let qualifier = alias.map_or_else(|| name.to_owned(), |alias| fold(&alias.name));
    let names: Vec<String> = alias
        .map(|alias| alias.columns.iter().map(|column| fold(&column.name)).collect())
        .unwrap_or_default();
    columns
        .into_iter()
        .enumerate()
        .map(|(place, (name, ty))| ScopeColumn {
            qualifier: qualifier.clone(),
            name: names.get(place).cloned().unwrap_or(name),
            ty,
            hidden: false,
            merged: false,
            leads: false,
        })
        .collect()
}
