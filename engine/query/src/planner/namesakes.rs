//! Tables of several schemas, or a table and an alias, under one name in one query.
//!
//! DataFusion finds the column `t.x` in the first of a plan's relations that is called `t`, in whatever schema, and
//! `a.t.x` also in one that has no schema. Asked by [`super::Engine::plan`], so that no query reads another table than it
//! names.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{self, Expr, Query, TableAlias, TableFactor, Visit, Visitor};
use sepal_storage::Snapshot;
use sepal_types::{Error, Result, SqlState, TableId};

use crate::{
    context::StatementContext,
    ddl::{identifier, relation_name},
};

/// Errors: 0A000 where `a.t` stands beside another `t` without a schema, 42P09 where `t.x` could be of `a.t` or of
/// `b.t`.
pub(super) fn check(query: &Query, context: &StatementContext) -> Result<()> {
    let snapshot = context.snapshot.get();
    let mut named = Named { snapshot: &snapshot, environment: &context.environment, items: Vec::new() };
    let _: ControlFlow<()> = Visit::visit(query, &mut named);
    let items = named.items;
    for one in items.iter().filter(|item| item.schema.is_some() && item.table.is_some()) {
        for other in items.iter().filter(|other| other.shown == one.shown && other.table != one.table) {
            let name = &one.shown;
            if other.schema.is_none() {
                let message = format!("a query over two tables called {name} is not supported");
                return Err(Error::unsupported(message)
                    .with_hint("Give one of them another name: FROM schema.table AS name."));
            }
            if refers_to(query, name) {
                let message = format!("table reference \"{name}\" is ambiguous");
                return Err(Error::new(SqlState::AmbiguousAlias, message));
            }
        }
    }
    Ok(())
}

/// Whether a column is asked for by the table's name alone.
fn refers_to(query: &Query, name: &str) -> bool {
    let found: ControlFlow<()> = ast::visit_expressions(query, |expr| match expr {
        Expr::CompoundIdentifier(parts) if parts.len() == 2 && identifier(&parts[0]) == name => {
            ControlFlow::Break(())
        }
        _ => ControlFlow::Continue(()),
    });
    found.is_break()
}

/// An item of some FROM, or a WITH query.
struct Item {
    /// How columns name it.
    shown: String,
    /// Where that may come with a schema.
    schema: Option<String>,
    /// `None` for what is no table.
    table: Option<TableId>,
}

struct Named<'a> {
    snapshot: &'a Snapshot,
    environment: &'a str,
    items: Vec<Item>,
}

impl Visitor for Named<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let ctes = query.with.iter().flat_map(|with| &with.cte_tables);
        self.items.extend(ctes.map(|cte| called(&cte.alias, None)));
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        let item = match factor {
            TableFactor::Table { name, alias, args, .. } => {
                let Ok(name) = relation_name(name) else { return ControlFlow::Continue(()) };
                // With arguments it is a table AS OF a moment, or none.
                let table = self.snapshot.find(self.environment, &name).map(|version| version.def.id);
                match alias {
                    Some(alias) => called(alias, table),
                    None => Item { shown: name.name, schema: name.schema.filter(|_| args.is_none()), table },
                }
            }
            TableFactor::Derived { alias: Some(alias), .. }
            | TableFactor::Function { alias: Some(alias), .. }
            | TableFactor::NestedJoin { alias: Some(alias), .. }
            | TableFactor::UNNEST { alias: Some(alias), .. } => called(alias, None),
            _ => return ControlFlow::Continue(()),
        };
        self.items.push(item);
        ControlFlow::Continue(())
    }
}

fn called(alias: &TableAlias, table: Option<TableId>) -> Item {
    Item { shown: identifier(&alias.name), schema: None, table }
}
