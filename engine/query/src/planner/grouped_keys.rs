//! GROUP BY a primary key: the table's other columns may then stand outside of aggregates, as PostgreSQL lets them
//! (`check_functional_grouping`). Django and Rails send such queries.
//!
//! Those that are used become keys, too: that divides no group. DataFusion could be told of the key and would do it
//! itself, but for all columns of the table, vectors among them, and it takes what a join has repeated for distinct.
//! Called by [`super::Engine::plan`].

use std::{collections::HashSet, ops::ControlFlow, sync::Arc};

use datafusion::sql::sqlparser::ast::{
    Expr, GroupByExpr, Ident, OrderBy, OrderByKind, Query, Select, SelectItem,
    SelectItemQualifiedWildcardKind, SetExpr, TableFactor, TableWithJoins, Value, Visit, VisitMut, Visitor,
    VisitorMut,
};
use sepal_storage::Snapshot;
use sepal_types::TableDef;

use crate::{
    context::StatementContext,
    ddl::{identifier, relation_name},
};

/// Completes the keys of a query and of those within it. `is_aggregate` tells of a function's name.
pub(super) fn complete(query: &mut Query, context: &StatementContext, is_aggregate: &dyn Fn(&str) -> bool) {
    let snapshot = context.snapshot.get();
    let mut completion = Completion {
        snapshot: &snapshot,
        environment: &context.environment,
        is_aggregate,
        ctes: HashSet::new(),
    };
    let _ = VisitMut::visit(query, &mut completion);
}

/// A column as it is named: its table, where that is said, and its name.
type Named = (Option<String>, String);

/// A table in FROM.
struct Table {
    /// How columns name it.
    shown: String,
    /// The same as it is written.
    prefix: Vec<Ident>,
    def: Arc<TableDef>,
}

impl Table {
    fn is_named(&self, column: &str, names: &HashSet<Named>) -> bool {
        let column = column.to_owned();
        names.contains(&(Some(self.shown.clone()), column.clone())) || names.contains(&(None, column))
    }

    fn has_key_among(&self, keys: &HashSet<Named>) -> bool {
        self.def.primary_key().is_some_and(|primary| {
            let is_key =
                |id| self.def.column_by_id(id).is_some_and(|column| self.is_named(&column.name, keys));
            primary.columns.iter().all(|id| is_key(*id))
        })
    }

    fn is_whole_in(&self, item: &SelectItem) -> bool {
        match item {
            SelectItem::Wildcard(_) => true,
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) => {
                let last = name.0.last().and_then(|part| part.as_ident());
                last.is_some_and(|last| identifier(last) == self.shown)
            }
            _ => false,
        }
    }

    fn column(&self, name: &str) -> Expr {
        let mut parts = self.prefix.clone();
        parts.push(Ident::with_quote('"', name));
        Expr::CompoundIdentifier(parts)
    }
}

/// The items of a FROM.
#[derive(Default)]
struct Items {
    tables: Vec<Table>,
    /// There are others, whose columns are not known.
    others: bool,
}

struct Completion<'a> {
    snapshot: &'a Snapshot,
    environment: &'a str,
    is_aggregate: &'a dyn Fn(&str) -> bool,
    /// The names of WITH queries.
    ctes: HashSet<String>,
}

impl VisitorMut for Completion<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        let ctes = query.with.iter().flat_map(|with| &with.cte_tables);
        self.ctes.extend(ctes.map(|cte| identifier(&cte.alias.name)));
        self.body(query.body.as_mut(), query.order_by.as_ref());
        ControlFlow::Continue(())
    }
}

impl Completion<'_> {
    fn body(&self, body: &mut SetExpr, order: Option<&OrderBy>) {
        match body {
            SetExpr::Select(select) => self.select(select, order),
            SetExpr::SetOperation { left, right, .. } => {
                self.body(left, None);
                self.body(right, None);
            }
            _ => {}
        }
    }

    fn select(&self, select: &mut Select, order: Option<&OrderBy>) {
        let GroupByExpr::Expressions(keys, modifiers) = &select.group_by else { return };
        if keys.is_empty() || !modifiers.is_empty() || keys.iter().any(is_set) {
            return;
        }
        let mut items = Items::default();
        select.from.iter().for_each(|from| self.add(from, &mut items));
        // Tables of two schemas: a name without one could be of either.
        let mut shown = HashSet::new();
        if !items.tables.iter().all(|table| shown.insert(table.shown.as_str())) {
            return;
        }
        let keys: HashSet<Named> =
            keys.iter().filter_map(|key| key_column(key, &select.projection, &items)).collect();
        items.tables.retain(|table| table.has_key_among(&keys));
        if items.tables.is_empty() {
            return;
        }
        let used = self.used(select, order);
        let mut added = Vec::new();
        for table in &items.tables {
            let whole = select.projection.iter().any(|item| table.is_whole_in(item));
            for column in &table.def.columns {
                let wanted = whole || table.is_named(&column.name, &used);
                if wanted && !table.is_named(&column.name, &keys) {
                    added.push(table.column(&column.name));
                }
            }
        }
        if let GroupByExpr::Expressions(keys, _) = &mut select.group_by {
            keys.extend(added);
        }
    }

    fn add(&self, from: &TableWithJoins, items: &mut Items) {
        for factor in std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation)) {
            match factor {
                TableFactor::NestedJoin { table_with_joins, alias: None } => {
                    self.add(table_with_joins, items)
                }
                other => match self.table(other) {
                    Some(table) => items.tables.push(table),
                    None => items.others = true,
                },
            }
        }
    }

    /// `None` for what is no table of today, or has other names for its columns.
    fn table(&self, factor: &TableFactor) -> Option<Table> {
        let TableFactor::Table { name, alias, args: None, .. } = factor else { return None };
        let relation = relation_name(name).ok()?;
        if relation.schema.is_none() && self.ctes.contains(&relation.name) {
            return None;
        }
        let def = Arc::clone(&self.snapshot.find(self.environment, &relation)?.def);
        match alias {
            Some(alias) if !alias.columns.is_empty() => None,
            Some(alias) => {
                Some(Table { shown: identifier(&alias.name), prefix: vec![alias.name.clone()], def })
            }
            None => {
                let prefix = name.0.iter().filter_map(|part| part.as_ident().cloned()).collect();
                Some(Table { shown: relation.name, prefix, def })
            }
        }
    }

    /// The columns that stand outside of aggregates.
    fn used(&self, select: &Select, order: Option<&OrderBy>) -> HashSet<Named> {
        let mut uses =
            Uses { is_aggregate: self.is_aggregate, names: HashSet::new(), aggregates: 0, queries: 0 };
        let _ = Visit::visit(&select.projection, &mut uses);
        let _ = Visit::visit(&select.distinct, &mut uses);
        let _ = Visit::visit(&select.having, &mut uses);
        let _ = Visit::visit(&select.named_window, &mut uses);
        if let Some(OrderBy { kind: OrderByKind::Expressions(keys), .. }) = order {
            for key in keys.iter().filter(|key| !names_output(&key.expr, &select.projection)) {
                let _ = Visit::visit(&key.expr, &mut uses);
            }
        }
        uses.names
    }
}

const fn is_set(key: &Expr) -> bool {
    matches!(key, Expr::Cube(_) | Expr::GroupingSets(_) | Expr::Rollup(_) | Expr::Tuple(_))
}

/// The column that a key is: by its name, by the place of an output, or by an output's name that no column has.
fn key_column(key: &Expr, projection: &[SelectItem], items: &Items) -> Option<Named> {
    match key {
        Expr::Nested(inner) => key_column(inner, projection, items),
        Expr::Value(value) => {
            let Value::Number(place, _) = &value.value else { return None };
            match projection.get(place.parse::<usize>().ok()?.checked_sub(1)?)? {
                SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => column_of(expr),
                _ => None,
            }
        }
        Expr::Identifier(ident) => {
            let name = identifier(ident);
            let is_column = |table: &Table| table.def.column(&name).is_some();
            if items.others || items.tables.iter().any(is_column) {
                return Some((None, name));
            }
            projection.iter().find_map(|item| match item {
                SelectItem::ExprWithAlias { expr, alias } if identifier(alias) == name => column_of(expr),
                _ => None,
            })
        }
        other => column_of(other),
    }
}

/// Whether a key of ORDER BY is the lone name that an output was given.
fn names_output(key: &Expr, projection: &[SelectItem]) -> bool {
    let Expr::Identifier(ident) = key else { return false };
    projection.iter().any(|item| match item {
        SelectItem::ExprWithAlias { alias, .. } => identifier(alias) == identifier(ident),
        _ => false,
    })
}

fn column_of(expr: &Expr) -> Option<Named> {
    match expr {
        Expr::Identifier(column) => Some((None, identifier(column))),
        Expr::CompoundIdentifier(parts) => match parts.as_slice() {
            [.., table, column] => Some((Some(identifier(table)), identifier(column))),
            _ => None,
        },
        _ => None,
    }
}

/// Collects names of columns.
struct Uses<'a> {
    is_aggregate: &'a dyn Fn(&str) -> bool,
    names: HashSet<Named>,
    /// How many of each are around this place.
    aggregates: usize,
    queries: usize,
}

impl Uses<'_> {
    /// Of the SELECT itself. What is within one need not be a key.
    fn is_aggregate(&self, expr: &Expr) -> bool {
        let Expr::Function(function) = expr else { return false };
        let name = function.name.0.last().and_then(|part| part.as_ident()).map(identifier);
        self.queries == 0 && function.over.is_none() && name.is_some_and(|name| (self.is_aggregate)(&name))
    }
}

impl Visitor for Uses<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.queries += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.queries -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if self.is_aggregate(expr) {
            self.aggregates += 1;
        }
        // A bare name in a query within is mostly of that query.
        let is_own = self.queries == 0 || matches!(expr, Expr::CompoundIdentifier(_));
        if self.aggregates == 0 && is_own {
            self.names.extend(column_of(expr));
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if self.is_aggregate(expr) {
            self.aggregates -= 1;
        }
        ControlFlow::Continue(())
    }
}
