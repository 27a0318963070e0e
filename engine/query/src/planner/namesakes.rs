//! Tables of several schemas, or a table and an alias, under one name in one FROM.
//!
//! DataFusion finds the column `t.x` in the first relation in sight that is called `t`, in whatever schema, and `a.t.x`
//! also in one that has no schema. Asked by [`super::Engine::plan`], so that no query reads another table than it names.

use std::{collections::HashSet, ops::ControlFlow};

use datafusion::sql::sqlparser::ast::{
    Expr, Ident, Query, Select, SetExpr, TableAlias, TableFactor, TableFunctionArgs, TableWithJoins, Visit,
    Visitor,
};
use sepal_storage::Snapshot;
use sepal_types::{Error, Result, SqlState, TableId};

use crate::{
    context::StatementContext,
    ddl::{identifier, relation_name},
    sql::reference,
};

/// Errors: 0A000 where `a.t` stands beside another `t` without a schema, or a column of it is asked for where that one is
/// nearer; 42P09 where `t.x` could be of `a.t` or of `b.t`.
pub(super) fn check(query: &Query, context: &StatementContext) -> Result<()> {
    let snapshot = context.snapshot.get();
    let mut sight = Sight {
        snapshot: &snapshot,
        past: &context.past,
        environment: &context.environment,
        ctes: HashSet::new(),
        scopes: Vec::new(),
    };
    match Visit::visit(query, &mut sight) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

/// An item of a FROM.
struct Item {
    /// How columns name it.
    shown: String,
    /// Where that may come with a schema: the one that is written.
    schema: Option<String>,
    /// Its table and that one's schema, unless it has another name.
    table: Option<(TableId, String)>,
    /// It stands in a table's place, made by us, and goes by any schema.
    stands_in: bool,
}

impl Item {
    fn called(alias: &TableAlias) -> Self {
        Self { shown: identifier(&alias.name), schema: None, table: None, stands_in: false }
    }

    fn id(&self) -> Option<TableId> {
        self.table.as_ref().map(|(table, _)| *table)
    }

    fn is_of(&self, schema: &str) -> bool {
        match &self.schema {
            Some(written) => written == schema,
            None => self.stands_in || self.table.as_ref().is_some_and(|(_, own)| own == schema),
        }
    }
}

/// What a query's columns may be of, walking through it.
struct Sight<'a> {
    snapshot: &'a Snapshot,
    /// Of the clauses AS OF, by number.
    past: &'a [Option<Snapshot>],
    environment: &'a str,
    /// The names of WITH queries.
    ctes: HashSet<String>,
    /// The items of each FROM around this place, the nearest last.
    scopes: Vec<Vec<Item>>,
}

impl Sight<'_> {
    fn items(&self, select: &Select) -> Result<Vec<Item>> {
        let mut items = Vec::new();
        select.from.iter().for_each(|from| self.add(from, &mut items));
        for one in items.iter().filter(|item| item.schema.is_some() && item.table.is_some()) {
            let mut namesakes = items.iter().filter(|other| other.shown == one.shown);
            if namesakes.any(|other| other.schema.is_none() && other.id() != one.id()) {
                return Err(two_tables(&one.shown));
            }
        }
        Ok(items)
    }

    fn add(&self, from: &TableWithJoins, items: &mut Vec<Item>) {
        for factor in std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation)) {
            match factor {
                TableFactor::NestedJoin { table_with_joins, alias: None } => {
                    self.add(table_with_joins, items);
                }
                other => items.extend(self.item(other)),
            }
        }
    }

    fn item(&self, factor: &TableFactor) -> Option<Item> {
        match factor {
            TableFactor::Derived { alias: Some(alias), .. }
            | TableFactor::Function { alias: Some(alias), .. }
            | TableFactor::NestedJoin { alias: Some(alias), .. }
            | TableFactor::UNNEST { alias: Some(alias), .. } => Some(Item::called(alias)),
            TableFactor::Table { name, alias, args, .. } => {
                let name = relation_name(name).ok()?;
                let of_with = name.schema.is_none() && self.ctes.contains(&name.name);
                let snapshot = self.seen_by(args.as_ref());
                let found = if of_with { None } else { snapshot.find(self.environment, &name) };
                let table = found.map(|version| (version.def.id, version.def.schema.clone()));
                let Some(alias) = alias else {
                    // With arguments it is a table AS OF a moment, planned without a schema, or none.
                    let schema = name.schema.filter(|_| args.is_none());
                    return Some(Item { shown: name.name, schema, table, stands_in: false });
                };
                let stands_in = table.is_none() && !of_with;
                let table = table.filter(|_| identifier(&alias.name) == name.name);
                Some(Item { table, stands_in, ..Item::called(alias) })
            }
            _ => None,
        }
    }

    /// What a table is looked up in: where it is one AS OF a moment, what there was then.
    fn seen_by(&self, args: Option<&TableFunctionArgs>) -> &Snapshot {
        let clause = args.and_then(|args| reference(&args.args));
        let then = clause.and_then(|(number, _)| self.past.get(number)?.as_ref());
        then.unwrap_or(self.snapshot)
    }

    /// A column with the schema of its table: the nearest item that DataFusion would take is to be that table.
    fn check_qualified(&self, schema: &Ident, table: &Ident) -> Result<()> {
        let (schema, table) = (identifier(schema), identifier(table));
        for scope in self.scopes.iter().rev() {
            let mut taken = scope.iter().filter(|item| {
                item.shown == table && item.schema.as_ref().is_none_or(|written| *written == schema)
            });
            match taken.next() {
                Some(item) if item.is_of(&schema) => return Ok(()),
                Some(_) => return Err(two_tables(&table)),
                None => {}
            }
        }
        Ok(())
    }

    fn check_bare(&self, table: &Ident) -> Result<()> {
        let table = identifier(table);
        for scope in self.scopes.iter().rev() {
            let mut namesakes = scope.iter().filter(|item| item.shown == table);
            let Some(first) = namesakes.next() else { continue };
            if namesakes.any(|other| other.id() != first.id()) {
                let message = format!("table reference \"{table}\" is ambiguous");
                return Err(Error::new(SqlState::AmbiguousAlias, message));
            }
            return Ok(());
        }
        Ok(())
    }

    fn enter(&mut self, select: Option<&Select>) -> ControlFlow<Error> {
        match select.map(|select| self.items(select)) {
            Some(Err(error)) => return ControlFlow::Break(error),
            Some(Ok(items)) => self.scopes.push(items),
            None => self.scopes.push(Vec::new()),
        }
        ControlFlow::Continue(())
    }
}

impl Visitor for Sight<'_> {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Error> {
        let ctes = query.with.iter().flat_map(|with| &with.cte_tables);
        self.ctes.extend(ctes.map(|cte| identifier(&cte.alias.name)));
        // For its ORDER BY.
        match query.body.as_ref() {
            SetExpr::Select(select) => self.enter(Some(select)),
            _ => self.enter(None),
        }
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<Error> {
        self.scopes.pop();
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<Error> {
        self.enter(Some(select))
    }

    fn post_visit_select(&mut self, _: &Select) -> ControlFlow<Error> {
        self.scopes.pop();
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Error> {
        let checked = match expr {
            Expr::CompoundIdentifier(parts) => match parts.as_slice() {
                [schema, table, _] => self.check_qualified(schema, table),
                [table, _] => self.check_bare(table),
                _ => Ok(()),
            },
            _ => Ok(()),
        };
        match checked {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

fn two_tables(name: &str) -> Error {
    Error::unsupported(format!("a query over two tables called {name} is not supported"))
        .with_hint("Give one of them another name: FROM schema.table AS name.")
}
