//! Makes catalog SQL inside a larger query plannable by DataFusion.
//!
//! Called for statements that the evaluator declined: those that read user tables too, or catalogs in ways only
//! DataFusion does. It changes spellings, never meaning: `pg_class` becomes `pg_catalog.pg_class`,
//! `pg_catalog.format_type(…)` loses its schema, `OPERATOR(pg_catalog.~)` becomes `~`, COLLATE goes, reg* casts
//! become calls of `sepal_reg_oid` and `sepal_reg_name`, `oid = '123'` compares numbers. A statement that names
//! no catalog and casts to no reg* type is not touched, and found so in one walk.

use std::collections::HashSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    self, ArrayElemTypeDef, BinaryOperator, CastKind, DataType, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArgumentList, FunctionArguments, Ident, ObjectName, ObjectNamePart, Query, Select, SelectItem,
    Statement, Value, ValueWithSpan, Visit, VisitMut, Visitor, VisitorMut,
};
use sepal_types::{Result, SqlType};

use super::CatalogContext;
use super::functions::{function, in_order};
use super::shape::{INFORMATION_SCHEMA, PG_CATALOG, shape, shapes};

/// Rewrites the statement in place. See the head of this file.
pub fn rewrite(statement: &mut Statement, context: &CatalogContext) -> Result<()> {
    let mut search = Search { context, ctes: HashSet::new(), found: false };
    let _: ControlFlow<()> = Visit::visit(statement, &mut search);
    if !search.found {
        return Ok(());
    }
    let mut rewriter = Rewriter { context, ctes: search.ctes, oid_columns: oid_columns() };
    let _: ControlFlow<()> = VisitMut::visit(statement, &mut rewriter);
    Ok(())
}

/// Looks for a reason to rewrite, and collects the names of CTEs, which hide catalogs of the same name.
struct Search<'a> {
    context: &'a CatalogContext,
    ctes: HashSet<String>,
    found: bool,
}

impl Visitor for Search<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        if let Some(with) = &query.with {
            self.ctes.extend(with.cte_tables.iter().map(|cte| fold(&cte.alias.name)));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        self.found |= catalog_relation(relation, self.context, &self.ctes).is_some();
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        self.found |= match expr {
            Expr::Cast { data_type, .. } => reg_kind(data_type).is_some() || in_pg_catalog(data_type),
            Expr::Function(call) => {
                let parts = parts(&call.name);
                let known =
                    parts.last().is_some_and(|name| function(name).is_some_and(|(_, catalog)| catalog));
                known || parts.first().is_some_and(|schema| schema == PG_CATALOG)
            }
            Expr::BinaryOp { op: BinaryOperator::PGCustomBinaryOperator(names), .. } => {
                names.first().is_some_and(|schema| schema == PG_CATALOG)
            }
            _ => false,
        };
        ControlFlow::Continue(())
    }
}

struct Rewriter<'a> {
    context: &'a CatalogContext,
    ctes: HashSet<String>,
    oid_columns: HashSet<&'static str>,
}

impl VisitorMut for Rewriter<'_> {
    type Break = ();

    fn pre_visit_relation(&mut self, relation: &mut ObjectName) -> ControlFlow<()> {
        if let Some((schema, name)) = catalog_relation(relation, self.context, &self.ctes) {
            *relation = ObjectName::from(vec![Ident::new(schema), Ident::new(name)]);
        } else if let [schema, function] = parts(relation).as_slice()
            && schema == PG_CATALOG
        {
            // A table function: `pg_catalog.generate_series(…)`.
            *relation = ObjectName::from(vec![Ident::new(function)]);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        for item in &mut select.projection {
            present(item);
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        self.expr(expr);
        ControlFlow::Continue(())
    }
}

impl Rewriter<'_> {
    fn expr(&self, expr: &mut Expr) {
        match expr {
            Expr::Collate { expr: inner, .. } => {
                let inner = std::mem::replace(inner.as_mut(), null());
                *expr = inner;
            }
            // `pg_catalog.pg_class.relname`: the relation is known by its name alone.
            Expr::CompoundIdentifier(parts) if parts.len() > 2 && fold(&parts[0]) == PG_CATALOG => {
                parts.remove(0);
            }
            Expr::Function(call) => strip_function(call),
            Expr::Cast { .. } => rewrite_cast(expr),
            Expr::BinaryOp { left, op, right } => {
                plain_operator(op);
                if comparison(op) {
                    self.number_beside_oid(left, right);
                    self.number_beside_oid(right, left);
                }
            }
            Expr::InList { expr: value, list, .. } => {
                for item in list {
                    self.number_beside_oid(value, item);
                }
            }
            Expr::AnyOp { right, .. } | Expr::AllOp { right, .. } => array_literal(right),
            _ => {}
        }
    }

    /// `oid = '16385'`: Postgres reads the literal as an oid, so it becomes a number.
    fn number_beside_oid(&self, column: &Expr, literal: &mut Expr) {
        let name = match column {
            Expr::Identifier(name) => name,
            Expr::CompoundIdentifier(parts) => match parts.last() {
                Some(name) => name,
                None => return,
            },
            _ => return,
        };
        if !self.oid_columns.contains(fold(name).as_str()) {
            return;
        }
        if let Expr::Value(value) = literal
            && let Value::SingleQuotedString(text) = &value.value
            && text.parse::<u32>().is_ok()
        {
            value.value = Value::Number(text.clone(), false);
        }
    }
}

/// The names that are oid columns in every catalog that has them.
fn oid_columns() -> HashSet<&'static str> {
    let mut oids = HashSet::new();
    let mut others = HashSet::new();
    for (name, ty) in shapes().flat_map(|shape| &shape.columns) {
        if *ty == SqlType::Oid {
            oids.insert(*name)
        } else {
            others.insert(*name)
        };
    }
    oids.retain(|name| !others.contains(name));
    oids
}

/// Schema and name when the relation is a catalog's. An unqualified name is, unless a CTE or a user's table
/// has it.
fn catalog_relation(
    relation: &ObjectName,
    context: &CatalogContext,
    ctes: &HashSet<String>,
) -> Option<(&'static str, &'static str)> {
    let found = match parts(relation).as_slice() {
        [name] if !ctes.contains(name) => {
            let found = shape(PG_CATALOG, name)?;
            if context.snapshot.find(&context.environment, name).is_some() {
                return None;
            }
            found
        }
        [schema, name] | [_, schema, name] => shape(schema, name)?,
        _ => return None,
    };
    Some((found.relation.schema, found.relation.name))
}

fn fold(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

fn parts(name: &ObjectName) -> Vec<String> {
    name.0.iter().filter_map(ObjectNamePart::as_ident).map(fold).collect()
}

fn null() -> Expr {
    Expr::Value(ValueWithSpan::from(Value::Null))
}

fn text(text: &str) -> Expr {
    Expr::Value(ValueWithSpan::from(Value::SingleQuotedString(text.to_owned())))
}

/// `pg_catalog.lower(x)` is `lower(x)`; `current_user` and its kin get parentheses; named arguments go by place.
fn strip_function(call: &mut Function) {
    let names = parts(&call.name);
    if let [schema, name] = names.as_slice()
        && (schema == PG_CATALOG || schema == INFORMATION_SCHEMA)
    {
        call.name = ObjectName::from(vec![Ident::new(name)]);
    }
    if let FunctionArguments::List(list) = &mut call.args
        && let Some(ordered) = names.last().and_then(|name| in_order(name, &list.args))
    {
        list.args = ordered;
    }
    if names.last().is_some_and(|name| matches!(name.as_str(), "nextval" | "currval" | "setval"))
        && let FunctionArguments::List(list) = &mut call.args
        && let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Function(lookup)))) =
            list.args.first_mut()
        && parts(&lookup.name) == ["sepal_reg_oid"]
    {
        // They go by names.
        lookup.name = ObjectName::from(vec![Ident::new("sepal_reg_name")]);
    }
    let keyword = matches!(call.args, FunctionArguments::None);
    if keyword && names.last().is_some_and(|name| function(name).is_some()) {
        call.args = FunctionArguments::List(arguments(Vec::new()));
    }
}

fn arguments(values: Vec<Expr>) -> FunctionArgumentList {
    FunctionArgumentList {
        duplicate_treatment: None,
        args: values.into_iter().map(|value| FunctionArg::Unnamed(FunctionArgExpr::Expr(value))).collect(),
        clauses: Vec::new(),
    }
}

fn call(name: &str, values: Vec<Expr>) -> Expr {
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(arguments(values)),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

/// `OPERATOR(pg_catalog.~)` is `~`.
fn plain_operator(operator: &mut BinaryOperator) {
    let BinaryOperator::PGCustomBinaryOperator(names) = operator else { return };
    let [schema, name] = names.as_slice() else { return };
    if schema != PG_CATALOG {
        return;
    }
    *operator = match name.as_str() {
        "=" => BinaryOperator::Eq,
        "<>" | "!=" => BinaryOperator::NotEq,
        "<" => BinaryOperator::Lt,
        "<=" => BinaryOperator::LtEq,
        ">" => BinaryOperator::Gt,
        ">=" => BinaryOperator::GtEq,
        "~" => BinaryOperator::PGRegexMatch,
        "~*" => BinaryOperator::PGRegexIMatch,
        "!~" => BinaryOperator::PGRegexNotMatch,
        "!~*" => BinaryOperator::PGRegexNotIMatch,
        "~~" => BinaryOperator::PGLikeMatch,
        "!~~" => BinaryOperator::PGNotLikeMatch,
        "||" => BinaryOperator::StringConcat,
        "+" => BinaryOperator::Plus,
        "-" => BinaryOperator::Minus,
        _ => return,
    };
}

fn comparison(operator: &BinaryOperator) -> bool {
    matches!(
        operator,
        BinaryOperator::Eq
            | BinaryOperator::NotEq
            | BinaryOperator::Lt
            | BinaryOperator::LtEq
            | BinaryOperator::Gt
            | BinaryOperator::GtEq
    )
}

/// `= ANY ('{a,b}')` as an array that DataFusion reads.
fn array_literal(list: &mut Expr) {
    let bare = match &*list {
        Expr::Nested(inner) => inner.as_ref(),
        other => other,
    };
    if let Expr::Value(value) = bare
        && let Value::SingleQuotedString(written) = &value.value
        && let Some(items) = super::value::parse_list(written)
    {
        let elem = items.into_iter().map(|item| item.map_or_else(null, |item| text(&item))).collect();
        *list = Expr::Array(ast::Array { elem, named: true });
    }
}

/// What a `reg*` type names, as `sepal_reg_oid` calls it.
fn reg_kind(data_type: &DataType) -> Option<&'static str> {
    match data_type {
        DataType::Regclass => Some("class"),
        DataType::Custom(name, _) => match parts(name).last()?.as_str() {
            "regclass" => Some("class"),
            "regnamespace" => Some("namespace"),
            "regproc" | "regprocedure" => Some("procedure"),
            "regrole" => Some("role"),
            "regtype" => Some("type"),
            _ => None,
        },
        _ => None,
    }
}

fn in_pg_catalog(data_type: &DataType) -> bool {
    match data_type {
        DataType::Custom(name, _) => parts(name).first().is_some_and(|schema| schema == PG_CATALOG),
        DataType::Array(ArrayElemTypeDef::SquareBracket(element, _)) => in_pg_catalog(element),
        _ => false,
    }
}

/// Visited inner casts first: `x::regclass` is already a call when `::text` or `::oid` around it is reached.
fn rewrite_cast(expr: &mut Expr) {
    let Expr::Cast { expr: inner, data_type, kind, .. } = expr else { return };
    if let Some(reg) = reg_kind(data_type) {
        let inner = std::mem::replace(inner.as_mut(), null());
        *expr = call("sepal_reg_oid", vec![text(reg), as_text(inner)]);
        return;
    }
    let name = type_name(data_type);
    if let Expr::Function(lookup) = inner.as_mut()
        && parts(&lookup.name) == ["sepal_reg_oid"]
    {
        match name.as_str() {
            "text" | "varchar" | "name" => lookup.name = ObjectName::from(vec![Ident::new("sepal_reg_name")]),
            _ => {}
        }
        if matches!(name.as_str(), "text" | "varchar" | "name" | "oid") {
            let inner = std::mem::replace(inner.as_mut(), null());
            *expr = inner;
            return;
        }
    }
    *kind = CastKind::DoubleColon;
    if in_pg_catalog(data_type) {
        *data_type = DataType::Custom(ObjectName::from(vec![Ident::new(name)]), Vec::new());
    }
}

fn as_text(expr: Expr) -> Expr {
    Expr::Cast {
        kind: CastKind::DoubleColon,
        expr: Box::new(expr),
        data_type: DataType::Text,
        array: false,
        format: None,
    }
}

/// The bare name of a type; arrays with their brackets.
fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Custom(name, _) => parts(name).pop().unwrap_or_default(),
        DataType::Array(ArrayElemTypeDef::SquareBracket(element, _)) => format!("{}[]", type_name(element)),
        other => other.to_string().to_lowercase(),
    }
}

/// `oid::regclass` as an output is a name and keeps Postgres' column name.
fn present(item: &mut SelectItem) {
    let (expr, alias) = match item {
        SelectItem::UnnamedExpr(expr) => (expr, None),
        SelectItem::ExprWithAlias { expr, alias } => (expr, Some(alias.clone())),
        _ => return,
    };
    let Expr::Cast { expr: inner, data_type, .. } = &*expr else { return };
    let Some(kind) = reg_kind(data_type) else { return };
    let name = match inner.as_ref() {
        Expr::Identifier(name) => fold(name),
        Expr::CompoundIdentifier(parts) => parts.last().map(fold).unwrap_or_default(),
        _ => type_name(data_type),
    };
    let oid = inner.as_ref().clone();
    *item = SelectItem::ExprWithAlias {
        expr: call("sepal_reg_name", vec![text(kind), oid]),
        alias: alias.unwrap_or_else(|| Ident::new(name)),
    };
}
