//! From a query with locking clauses to a plan that also gives row ids.
//!
//! Each locked item of FROM is planned under a name of its own, as a table with one column more; the ids stand after
//! the client's columns. Postgres' limits hold: what does not give rows of tables (groups, DISTINCT, sets) is refused.

use std::sync::Arc;

use datafusion::{
    arrow::datatypes::FieldRef,
    common::{
        TableReference,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    logical_expr::LogicalPlan,
    sql::sqlparser::ast::{
        Distinct, ExcludeSelectItem, Expr, GroupByExpr, Ident, Join, JoinOperator, LockClause, ObjectName,
        Query, Select, SelectItem, SelectItemQualifiedWildcardKind, SetExpr, TableAlias, TableFactor,
        WildcardAdditionalOptions,
    },
};
use sepal_types::{Error, RelationName, Result, SqlState, TableDef};

use super::{LockedRelation, LockingQuery, clause::Clause};
use crate::{
    context::StatementContext,
    ddl::{identifier, relation_name},
    output::OutputColumn,
    planner::{Engine, TemporaryTables},
    point::PointRead,
    sql::{ParameterTypes, expand_wildcards, prepare_query},
    table::{RowFilter, UserTable},
};

/// An item of FROM.
struct Item {
    alias: String,
    /// Its table; `None` for functions, catalogs and WITH queries, which have no rows to lock.
    def: Option<Arc<TableDef>>,
    /// A query in FROM.
    derived: bool,
    /// The outer side of an outer join.
    nullable: bool,
}

impl LockingQuery {
    /// Compiles a query, whose locking clauses are `clauses`.
    ///
    /// Errors: 0A000 for a query that does not give rows of tables, 42P01 for a name in OF that FROM has not.
    pub fn compile(
        query: &Query,
        clauses: &[LockClause],
        parameters: &mut ParameterTypes,
        engine: &Engine,
        context: &StatementContext,
    ) -> Result<Self> {
        let clauses: Vec<Clause> = clauses.iter().map(Clause::read).collect();
        let mut query = query.clone();
        query.locks.clear();
        let first = clauses.first().map_or("FOR UPDATE", Clause::name);
        let items = items(plain(&query, first)?, &query, context);
        refuse_namesakes(&items, first)?;
        let relations = locked(&items, &clauses)?;
        let columns = context.column_types(&query);
        expand_wildcards(&mut query, &context.table_columns());
        let mut bare = query.clone();
        let mut temporary = TemporaryTables::default();
        if let SetExpr::Select(select) = query.body.as_mut() {
            for (number, (place, relation)) in relations.iter().enumerate() {
                let Some(def) = &items[*place].def else { continue };
                let id = id_column(number);
                rename(select, *place, &table_name(number), &relation.alias);
                let filter = relation.filter.clone();
                let table = UserTable::filtered(&id, Arc::clone(def), filter, context);
                temporary = temporary.with(&table_name(number), Arc::new(table));
            }
            add_ids(select, &relations);
        }
        prepare_query(&mut query, parameters, &[], &columns);
        let plan = match engine.plan(context, &temporary, &query, parameters) {
            Ok(plan) => plan,
            Err(error) => {
                // Beside an aggregate the ids do not plan: that is the better thing to say.
                prepare_query(&mut bare, parameters, &[], &columns);
                if let Ok(plan) = engine.plan(context, &TemporaryTables::default(), &bare, parameters) {
                    refuse_groups(&plan, first)?;
                }
                return Err(error);
            }
        };
        refuse_groups(&plan, first)?;
        let relations: Vec<LockedRelation> = relations.into_iter().map(|(_, relation)| relation).collect();
        let visible = plan.schema().fields().len() - relations.len();
        let columns = described(&plan, visible, &items);
        let limited = query.limit_clause.is_some() || query.fetch.is_some();
        let point = PointRead::compile(engine, &plan).map(Arc::new);
        Ok(Self { plan, point, columns, relations, limited })
    }
}

/// The rows' ids are asked for by the names of their tables. Errors: 0A000 for `a.t` beside `b.t`.
fn refuse_namesakes(items: &[Item], clause: &str) -> Result<()> {
    let tables: Vec<&str> =
        items.iter().filter(|item| item.def.is_some()).map(|item| item.alias.as_str()).collect();
    match tables.iter().enumerate().find(|(place, name)| tables[..*place].contains(*name)) {
        None => Ok(()),
        Some((_, name)) => {
            Err(Error::unsupported(format!("{clause} over two tables called {name} is not supported"))
                .with_hint("Give one of them another name: FROM schema.table AS name."))
        }
    }
}

/// The SELECT of a query that gives rows as its tables have them.
fn plain<'q>(query: &'q Query, clause: &str) -> Result<&'q Select> {
    let refused = |with: &str| Error::unsupported(format!("{clause} is not allowed with {with}"));
    match query.body.as_ref() {
        SetExpr::Select(select) => {
            if matches!(select.distinct, Some(Distinct::Distinct | Distinct::On(_))) {
                return Err(refused("DISTINCT clause"));
            }
            if !matches!(&select.group_by, GroupByExpr::Expressions(by, _) if by.is_empty()) {
                return Err(refused("GROUP BY clause"));
            }
            if select.having.is_some() {
                return Err(refused("HAVING clause"));
            }
            Ok(select)
        }
        SetExpr::SetOperation { .. } => Err(refused("UNION/INTERSECT/EXCEPT")),
        SetExpr::Values(_) => Err(Error::unsupported(format!("{clause} cannot be applied to VALUES"))),
        _ => Err(Error::unsupported(format!("{clause} is not supported for a query in parentheses"))
            .with_hint("Put the clause inside the parentheses.")),
    }
}

fn items(select: &Select, query: &Query, context: &StatementContext) -> Vec<Item> {
    let snapshot = context.snapshot.get();
    let ctes: Vec<String> =
        query.with.iter().flat_map(|with| &with.cte_tables).map(|cte| identifier(&cte.alias.name)).collect();
    let item = |factor: &TableFactor| {
        let alias = |alias: &Option<TableAlias>| alias.as_ref().map(|alias| identifier(&alias.name));
        match factor {
            TableFactor::Table { name, alias: called, args: None, .. } => {
                let table = relation_name(name).unwrap_or_else(|_| RelationName::bare(""));
                let of_with = table.schema.is_none() && ctes.contains(&table.name);
                let def = (!of_with).then(|| snapshot.find(&context.environment, &table)).flatten();
                let def = def.map(|version| Arc::clone(&version.def));
                Item { alias: alias(called).unwrap_or(table.name), def, derived: false, nullable: false }
            }
            TableFactor::Derived { alias: called, .. } => {
                let alias = alias(called).unwrap_or_default();
                Item { alias, def: None, derived: true, nullable: false }
            }
            TableFactor::NestedJoin { alias: called, .. } => {
                let alias = alias(called).unwrap_or_default();
                Item { alias, def: None, derived: true, nullable: false }
            }
            TableFactor::Table { alias: called, .. } | TableFactor::Function { alias: called, .. } => {
                let alias = alias(called).unwrap_or_default();
                Item { alias, def: None, derived: false, nullable: false }
            }
            _ => Item { alias: String::new(), def: None, derived: false, nullable: false },
        }
    };
    let mut items: Vec<Item> = Vec::new();
    for from in &select.from {
        let begins = items.len();
        items.push(item(&from.relation));
        for Join { relation, join_operator, .. } in &from.joins {
            let (left, right) = outer(join_operator);
            items.iter_mut().skip(begins).for_each(|before| before.nullable |= left);
            items.push(Item { nullable: right, ..item(relation) });
        }
    }
    items
}

/// Which sides of a join may be missing from a row.
fn outer(join: &JoinOperator) -> (bool, bool) {
    match join {
        JoinOperator::Left(_) | JoinOperator::LeftOuter(_) => (false, true),
        JoinOperator::Right(_) | JoinOperator::RightOuter(_) => (true, false),
        JoinOperator::FullOuter(_) => (true, true),
        _ => (false, false),
    }
}

/// What the clauses lock: places in FROM, each once and as strongly as any clause says.
fn locked(items: &[Item], clauses: &[Clause]) -> Result<Vec<(usize, LockedRelation)>> {
    let mut relations: Vec<(usize, LockedRelation)> = Vec::new();
    for clause in clauses {
        let places: Vec<usize> = match &clause.of {
            None => (0..items.len())
                .filter(|place| items[*place].def.is_some() || items[*place].derived)
                .collect(),
            Some(name) => {
                let place = items.iter().position(|item| item.alias == *name).ok_or_else(|| {
                    let message =
                        format!("relation \"{name}\" in {} clause not found in FROM clause", clause.name());
                    Error::new(SqlState::UndefinedTable, message)
                })?;
                vec![place]
            }
        };
        for place in places {
            let item = &items[place];
            let Some(def) = &item.def else {
                return Err(no_table(item, clause));
            };
            if item.nullable {
                let message =
                    format!("{} cannot be applied to the nullable side of an outer join", clause.name());
                return Err(Error::unsupported(message).with_hint("Name the other tables with OF."));
            }
            match relations.iter_mut().find(|(known, _)| *known == place) {
                Some((_, relation)) => {
                    relation.mode = relation.mode.max(clause.mode);
                    relation.wait = relation.wait.max(clause.wait);
                }
                None => relations.push((
                    place,
                    LockedRelation {
                        table: def.id,
                        name: def.name.clone(),
                        mode: clause.mode,
                        wait: clause.wait,
                        filter: RowFilter::default(),
                        alias: item.alias.clone(),
                    },
                )),
            }
        }
    }
    Ok(relations)
}

fn no_table(item: &Item, clause: &Clause) -> Error {
    if item.derived {
        return Error::unsupported(format!(
            "{} over a query or a join in FROM is not supported",
            clause.name()
        ))
        .with_hint("Put the clause into that query, or name tables with OF.");
    }
    Error::unsupported(format!("{} cannot be applied to a function or a WITH query", clause.name()))
}

fn table_name(number: usize) -> String {
    format!("__locked_{number}")
}

fn id_column(number: usize) -> String {
    format!("__row_id_{number}")
}

/// Gives the item at a place in FROM another table, under the name that the query knows.
fn rename(select: &mut Select, place: usize, table: &str, called: &str) {
    let mut factors = select.from.iter_mut().flat_map(|from| {
        let joined = from.joins.iter_mut().map(|join| &mut join.relation);
        std::iter::once(&mut from.relation).chain(joined)
    });
    if let Some(TableFactor::Table { name, alias, .. }) = factors.nth(place) {
        *name = ObjectName::from(vec![Ident::with_quote('"', table)]);
        let called = Ident::with_quote('"', called);
        match alias {
            Some(alias) => alias.name = called,
            None => *alias = Some(TableAlias { explicit: true, name: called, columns: Vec::new(), at: None }),
        }
    }
}

/// Adds the ids to the list, and keeps them out of its wildcards.
fn add_ids(select: &mut Select, relations: &[(usize, LockedRelation)]) {
    let quoted = |name: String| Ident::with_quote('"', name);
    let without = |options: &mut WildcardAdditionalOptions, of: Option<&str>| {
        let ids = relations
            .iter()
            .enumerate()
            .filter(|(_, (_, relation))| of.is_none_or(|of| relation.alias == of));
        let ids: Vec<ObjectName> =
            ids.map(|(number, _)| ObjectName::from(vec![quoted(id_column(number))])).collect();
        if !ids.is_empty() {
            options.opt_exclude = Some(ExcludeSelectItem::Multiple(ids));
        }
    };
    for item in &mut select.projection {
        match item {
            SelectItem::Wildcard(options) => without(options, None),
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options) => {
                let of = relation_name(name).map(|name| name.name).unwrap_or_default();
                without(options, Some(&of));
            }
            _ => {}
        }
    }
    for (number, (_, relation)) in relations.iter().enumerate() {
        let parts = vec![quoted(relation.alias.clone()), quoted(id_column(number))];
        let (expr, alias) = (Expr::CompoundIdentifier(parts), quoted(id_column(number)));
        select.projection.push(SelectItem::ExprWithAlias { expr, alias });
    }
}

/// Aggregates and windows show in the plan only; those of subqueries are no concern.
fn refuse_groups(plan: &LogicalPlan, clause: &str) -> Result<()> {
    let mut found = None;
    let walked = plan.apply(|node| {
        found = match node {
            LogicalPlan::Aggregate(_) => Some("aggregate functions"),
            LogicalPlan::Window(_) => Some("window functions"),
            LogicalPlan::Unnest(_) => Some("set-returning functions in the target list"),
            // What a WITH query or a query in FROM does with its rows is its own affair.
            LogicalPlan::SubqueryAlias(_) => return Ok(TreeNodeRecursion::Jump),
            _ => return Ok(TreeNodeRecursion::Continue),
        };
        Ok(TreeNodeRecursion::Stop)
    });
    walked.map_err(crate::error::translate)?;
    match found {
        None => Ok(()),
        Some(with) => Err(Error::unsupported(format!("{clause} is not allowed with {with}"))),
    }
}

/// The client's columns, with the table and number of plain ones.
fn described(plan: &LogicalPlan, visible: usize, items: &[Item]) -> Vec<OutputColumn> {
    let column = |(relation, field): (Option<&TableReference>, &FieldRef)| {
        let mut column = OutputColumn::from_field(field);
        let item = relation.and_then(|relation| items.iter().find(|item| item.alias == relation.table()));
        if let Some(def) = item.and_then(|item| item.def.as_ref())
            && let Some(definition) = def.column(&column.name)
        {
            column.table = def.id.0;
            column.column = i16::try_from(definition.id.0).unwrap_or(0);
        }
        column
    };
    plan.schema().iter().take(visible).map(column).collect()
}
