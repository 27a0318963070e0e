//! `SELECT t.*, t.id`: a wildcard beside a column that it holds already.
//!
//! DataFusion refuses two output columns of one name. Where a wildcard brings a repeated one it is written out, so
//! that `names` can mark the repeated column. Called before `prepare_query`. A wildcard over something whose
//! columns are not known here (some functions) stays as it is; those over joins that merge columns are written out by
//! `merged_columns`.

use std::collections::HashSet;

use datafusion::sql::sqlparser::ast::{
    self, Expr, FunctionArg, FunctionArgExpr, Ident, JoinOperator, ObjectName, OrderBy, OrderByExpr,
    OrderByKind, Query, Select, SelectItem, SelectItemQualifiedWildcardKind, SetExpr, TableFactor,
    TableWithJoins, Value, WildcardAdditionalOptions,
};

use super::{
    json_rows, lateral_lists,
    merged_columns::{self, Item},
    names::{figure_name, normalized, output_names},
    past::reference,
    whole_rows::{Row, spell_rows, used},
};

/// The names of a table's columns, today's or those at the moment of a clause; `None` for what is no table of the
/// environment.
pub type TableColumns<'a> = dyn Fn(&ObjectName, Option<usize>) -> Option<Vec<String>> + 'a;

/// Writes out the wildcards of a query that repeat a column.
pub fn expand_wildcards(query: &mut Query, tables: &TableColumns) {
    Expansion { tables, ctes: Vec::new() }.query(query);
}

/// `t.*` over `a.t` becomes `a.t.*`: DataFusion looks for a table that has no schema.
pub(super) fn qualify_wildcards(select: &mut Select) {
    let mut items = Vec::new();
    select.from.iter().for_each(|from| named(from, &mut items));
    for item in &mut select.projection {
        let SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) = item else {
            continue;
        };
        let Some(wanted) = name.0.first().filter(|_| name.0.len() == 1).and_then(|part| part.as_ident())
        else {
            continue;
        };
        let wanted = normalized(wanted);
        let mut called = items.iter().filter(|(shown, _)| *shown == wanted);
        if let (Some((_, Some(whole))), None) = (called.next(), called.next()) {
            *name = whole.clone();
        }
    }
}

/// What the items of FROM are called, and the whole names of those that are called like tables of a schema.
fn named(from: &TableWithJoins, items: &mut Vec<(String, Option<ObjectName>)>) {
    for factor in std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation)) {
        match factor {
            TableFactor::NestedJoin { table_with_joins, alias: None } => named(table_with_joins, items),
            TableFactor::Table { name, alias: None, args, .. } => {
                let Some(shown) = name.0.last().and_then(|part| part.as_ident()).map(normalized) else {
                    continue;
                };
                let whole = (name.0.len() == 2 && args.is_none()).then(|| name.clone());
                items.push((shown, whole));
            }
            TableFactor::Table { alias: Some(alias), .. }
            | TableFactor::Derived { alias: Some(alias), .. }
            | TableFactor::Function { alias: Some(alias), .. }
            | TableFactor::UNNEST { alias: Some(alias), .. }
            | TableFactor::NestedJoin { alias: Some(alias), .. } => {
                items.push((normalized(&alias.name), None));
            }
            _ => {}
        }
    }
}

/// Names in order, where they are known.
type Names = Option<Vec<String>>;

struct Expansion<'a> {
    tables: &'a TableColumns<'a>,
    /// The CTEs in sight, latest last.
    ctes: Vec<(String, Names)>,
}

/// An item of FROM.
struct Source {
    name: Option<String>,
    columns: Names,
    /// A row of it is no value: an outer join may leave it out, or a function gives it.
    optional: bool,
}

impl Source {
    fn row(&self) -> Option<Row> {
        let known = (self.name.clone()?, self.columns.clone()?);
        (!self.optional).then_some(Row { name: known.0, columns: known.1 })
    }
}

impl Expansion<'_> {
    /// Returns the names of the query's columns as DataFusion will see them.
    fn query(&mut self, query: &mut Query) -> Names {
        let visible = self.ctes.len();
        if let Some(with) = &mut query.with {
            for cte in &mut with.cte_tables {
                let name = normalized(&cte.alias.name);
                if with.recursive {
                    self.ctes.push((name.clone(), None));
                }
                let columns = self.query(&mut cte.query);
                self.ctes.push((name, renamed(columns, &cte.alias)));
            }
        }
        let names = match query.body.as_mut() {
            SetExpr::Select(select) => self.select(select, keys_of(&mut query.order_by)),
            body => self.body(body),
        };
        self.ctes.truncate(visible);
        names
    }

    fn body(&mut self, body: &mut SetExpr) -> Names {
        match body {
            SetExpr::Select(select) => self.select(select, &mut []),
            SetExpr::Query(query) => self.query(query),
            SetExpr::SetOperation { left, right, .. } => {
                let names = self.body(left);
                self.body(right);
                names
            }
            SetExpr::Values(values) => {
                let width = values.rows.first()?.len();
                Some((1..=width).map(|number| format!("column{number}")).collect())
            }
            _ => None,
        }
    }

    /// `keys`: what its rows are sorted by.
    fn select(&mut self, select: &mut Select, keys: &mut [OrderByExpr]) -> Names {
        let mut sources = Vec::new();
        let mut merges = false;
        for table in &mut select.from {
            merges |= self.joined(table, &mut sources);
        }
        output_names(select);
        if used(select) {
            let rows: Vec<Row> = sources.iter().filter_map(Source::row).collect();
            spell_rows(select, &rows, &mut |query| {
                self.query(query);
            });
        } else {
            merged_columns::visit_nested(select, &mut |query| {
                self.query(query);
            });
        }
        if merges && let Some(items) = all_known(&sources) {
            merged_columns::spell(select, keys, &items);
            output_names(select);
        }
        let written = written_out(&select.projection, &sources, merges)?;
        if repeats(&select.projection, &sources, merges) {
            select.projection = written;
            output_names(select);
            return Some(select.projection.iter().map(item_name).collect());
        }
        Some(written.iter().map(item_name).collect())
    }

    /// Whether a join merges columns.
    fn joined(&mut self, table: &mut TableWithJoins, sources: &mut Vec<Source>) -> bool {
        let first = sources.len();
        let mut merges = self.source(&mut table.relation, sources);
        for join in &mut table.joins {
            let joined = sources.len();
            merges |= self.source(&mut join.relation, sources);
            let optional = match &join.join_operator {
                JoinOperator::Left(_) | JoinOperator::LeftOuter(_) => joined..sources.len(),
                JoinOperator::Right(_) | JoinOperator::RightOuter(_) => first..joined,
                JoinOperator::FullOuter(_) => first..sources.len(),
                _ => 0..0,
            };
            sources[optional].iter_mut().for_each(|source| source.optional = true);
            merges |= merged_columns::merges(&join.join_operator);
        }
        merges
    }

    fn source(&mut self, factor: &mut TableFactor, sources: &mut Vec<Source>) -> bool {
        if let Some((name, columns)) =
            lateral_lists::named_columns(factor).or_else(|| json_rows::named_columns(factor))
        {
            sources.push(Source { name: Some(name), columns: Some(columns), optional: true });
            return false;
        }
        let (name, columns, alias) = match factor {
            TableFactor::Table { name, alias, args: None, .. } => {
                let own = name.0.last().and_then(|part| part.as_ident()).map(normalized);
                let cte =
                    self.ctes.iter().rev().find(|(cte, _)| name.0.len() == 1 && Some(cte) == own.as_ref());
                let columns = match cte {
                    Some((_, columns)) => columns.clone(),
                    None => (self.tables)(name, None),
                };
                (own, columns, alias.as_ref())
            }
            TableFactor::Table { name, alias, args: Some(args), .. } => match reference(&args.args) {
                Some((number, [])) => {
                    let own = name.0.last().and_then(|part| part.as_ident()).map(normalized);
                    (own, (self.tables)(name, Some(number)), alias.as_ref())
                }
                Some((number, before)) if is_knn(name) => {
                    let (own, columns) = self.searched(before, Some(number));
                    (own, columns, alias.as_ref())
                }
                None if is_knn(name) => {
                    let (own, columns) = self.searched(&args.args, None);
                    (own, columns, alias.as_ref())
                }
                _ => (None, None, None),
            },
            TableFactor::Derived { subquery, alias, .. } => (None, self.query(subquery), alias.as_ref()),
            TableFactor::NestedJoin { table_with_joins, alias: None } => {
                return self.joined(table_with_joins, sources);
            }
            _ => (None, None, None),
        };
        let source = match alias {
            Some(alias) => Source {
                name: Some(normalized(&alias.name)),
                columns: renamed(columns, alias),
                optional: false,
            },
            None => Source { name, columns, optional: false },
        };
        sources.push(source);
        false
    }

    /// What `knn(table, …)` is called, and its columns.
    fn searched(&self, args: &[FunctionArg], moment: Option<usize>) -> (Option<String>, Names) {
        let table = match args.first() {
            Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))) => match expr {
                Expr::Identifier(ident) => ObjectName::from(vec![ident.clone()]),
                Expr::CompoundIdentifier(parts) => ObjectName::from(parts.clone()),
                Expr::Value(value) => match &value.value {
                    Value::SingleQuotedString(text) if !text.contains('.') => {
                        ObjectName::from(vec![Ident::with_quote('"', text)])
                    }
                    _ => return (None, None),
                },
                _ => return (None, None),
            },
            _ => return (None, None),
        };
        let own = table.0.last().and_then(|part| part.as_ident()).map(normalized);
        let mut columns = (self.tables)(&table, moment);
        columns.iter_mut().for_each(|columns| columns.push("distance".to_owned()));
        (own, columns)
    }
}

fn is_knn(name: &ObjectName) -> bool {
    name.to_string().eq_ignore_ascii_case("knn")
}

fn keys_of(order: &mut Option<OrderBy>) -> &mut [OrderByExpr] {
    match order {
        Some(OrderBy { kind: OrderByKind::Expressions(keys), .. }) => keys,
        _ => &mut [],
    }
}

/// The sources as items, if the columns of all are known, and no two go by one name.
fn all_known(sources: &[Source]) -> Option<Vec<Item<'_>>> {
    let mut names = HashSet::new();
    let mut items = Vec::with_capacity(sources.len());
    for source in sources {
        let (name, columns) = (source.name.as_deref()?, source.columns.as_deref()?);
        if !names.insert(name) {
            return None;
        }
        items.push(Item { name, columns });
    }
    Some(items)
}

/// An alias may rename columns, from the first one on.
fn renamed(names: Names, alias: &ast::TableAlias) -> Names {
    let mut names = names?;
    for (name, column) in names.iter_mut().zip(&alias.columns) {
        *name = normalized(&column.name);
    }
    Some(names)
}

/// The sources that a wildcard stands for; `None` for any other item, and for one that cannot be written out: also
/// where two sources have one name, as tables of two schemas may.
fn expanded<'s>(item: &SelectItem, sources: &'s [Source], merges: bool) -> Option<Vec<&'s Source>> {
    let mut names = HashSet::new();
    if !sources.iter().filter_map(|source| source.name.as_ref()).all(|name| names.insert(name)) {
        return None;
    }
    let plain = |options: &WildcardAdditionalOptions| *options == WildcardAdditionalOptions::default();
    match item {
        SelectItem::Wildcard(options) if plain(options) && !merges && !sources.is_empty() => {
            Some(sources.iter().collect())
        }
        SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options)
            if plain(options) =>
        {
            let name = name.0.last().and_then(|part| part.as_ident()).map(normalized)?;
            let source = sources.iter().find(|source| source.name.as_ref() == Some(&name))?;
            Some(vec![source])
        }
        _ => None,
    }
}

/// The list with every wildcard as its columns; `None` when one of them cannot be written out.
fn written_out(items: &[SelectItem], sources: &[Source], merges: bool) -> Option<Vec<SelectItem>> {
    let mut written = Vec::with_capacity(items.len());
    for item in items {
        if !is_wildcard(item) {
            written.push(item.clone());
            continue;
        }
        for source in expanded(item, sources, merges)? {
            let (name, columns) = (source.name.as_ref()?, source.columns.as_ref()?);
            written.extend(columns.iter().map(|column| {
                let parts = vec![Ident::with_quote('"', name), Ident::with_quote('"', column)];
                SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts))
            }));
        }
    }
    Some(written)
}

/// Whether a wildcard brings a column that another item has too. Two tables with a column of one name are no
/// trouble: their columns differ by the table.
fn repeats(items: &[SelectItem], sources: &[Source], merges: bool) -> bool {
    let mut seen = HashSet::new();
    let mut named = HashSet::new();
    let mut twice = false;
    for item in items.iter().filter(|item| is_wildcard(item)) {
        for source in expanded(item, sources, merges).unwrap_or_default() {
            twice |= !seen.insert(source.name.clone());
            named.extend(source.columns.iter().flatten().cloned());
        }
    }
    twice || items.iter().filter(|item| !is_wildcard(item)).any(|item| named.contains(&item_name(item)))
}

fn is_wildcard(item: &SelectItem) -> bool {
    matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..))
}

fn item_name(item: &SelectItem) -> String {
    match item {
        SelectItem::UnnamedExpr(expr) => figure_name(expr).unwrap_or_else(|| "?column?".to_owned()),
        SelectItem::ExprWithAlias { alias, .. } => normalized(alias),
        _ => String::new(),
    }
}
