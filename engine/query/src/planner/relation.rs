//! `knn(table, column, query, k [, filter => '…'] [, ef_search => n])` as a relation. `generate_series` and
//! `sepal_sink_errors` in FROM come by here too, on their way to `series` and `sink_errors`, and `unnest` with numbers
//! on its to `unnested`; both over columns, to `lateral_lists`.
//!
//! Returns the table's columns and `distance`, nearest first, by the metric of the column's first vector index (L2
//! without one). The filter is applied before the search: only qualifying rows compete. It is planned here rather
//! than as a DataFusion table function, because its first two arguments are names and its query may be a parameter.
//! Tables with a clause AS OF come by here as well: they look like calls (`sql::past`), and `past` plans them.

use datafusion::{
    arrow::datatypes::DataType,
    common::{DFSchema, ScalarValue, TableReference},
    error::Result,
    logical_expr::{
        Expr, ExprSchemable, Extension, LogicalPlan, LogicalPlanBuilder, SortExpr,
        expr::Placeholder,
        planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning},
    },
    prelude::ident,
    sql::sqlparser::{
        ast::{self, FunctionArg, FunctionArgExpr, TableFactor, Value},
        parser::Parser,
    },
};
use sepal_storage::arrow_type;
use sepal_types::{ColumnDef, Error, Metric, RelationName, SqlState, SqlType, TableDef, VectorKind};

use super::{
    json_rows, lateral_lists, past, provider::no_table, series, sink_errors, unnested, untyped, zoned,
};
use crate::{
    context::StatementContext,
    error::carry,
    functions::sequence_reference,
    output::{natural_type, typed_field},
    sql::{ParameterTypes, Postgres, prepare_expression, reference},
    table::UserTable,
    vector::{TopK, vector_scalar},
    zone::Zone,
};

/// Plans `knn(…)`, `generate_series(…)` and `sepal_sink_errors(…)` in FROM.
#[derive(Debug)]
pub(super) struct Relations {
    pub context: StatementContext,
}

impl RelationPlanner for Relations {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        if let TableFactor::UNNEST { alias, array_exprs, with_ordinality: true, .. } = relation {
            let plan = unnested::plan(array_exprs, context)?;
            return Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))));
        }
        if let Some(rows) = lateral_lists::plan(&relation, context)? {
            return Ok(RelationPlanning::Planned(Box::new(rows)));
        }
        if let Some(rows) = json_rows::plan(&relation, context)? {
            return Ok(RelationPlanning::Planned(Box::new(rows)));
        }
        let TableFactor::Table { name, args: Some(args), alias, with_ordinality, .. } = &relation else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        if let Some((number, before)) = reference(&args.args) {
            let then = Relations { context: self.context.at_moment(number) };
            if !before.is_empty() {
                let plan = then.plan(Call::read(before, context)?, context)?;
                return Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias.clone()))));
            }
            let known = self.context.past.get(number).is_some_and(Option::is_some);
            let planned = past::plan(name, alias.clone(), (number, known), &then.context)?;
            return Ok(RelationPlanning::Planned(Box::new(planned)));
        }
        let name = name.to_string();
        if name.eq_ignore_ascii_case("generate_series")
            && let Some(plan) = series::plan(&args.args, *with_ordinality, context)?
        {
            return Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias.clone()))));
        }
        if *with_ordinality {
            return Err(carry(Error::unsupported(format!("{name} WITH ORDINALITY is not supported"))));
        }
        if name.eq_ignore_ascii_case(sink_errors::NAME) {
            let plan = sink_errors::plan(&args.args, &self.context.catalog, context)?;
            return Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias.clone()))));
        }
        if !name.eq_ignore_ascii_case("knn") {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        }
        let call = Call::read(&args.args, context)?;
        let plan = self.plan(call, context)?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias.clone()))))
    }
}

/// The arguments of one call.
struct Call {
    table: RelationName,
    column: String,
    query: Expr,
    k: Expr,
    filter: Option<String>,
    ef_search: Option<usize>,
}

const USAGE: &str = "Write knn(table, column, query, k [, filter => 'predicate'] [, ef_search => n]).";

fn usage(message: impl Into<String>) -> datafusion::error::DataFusionError {
    carry(Error::new(SqlState::UndefinedFunction, message).with_hint(USAGE))
}

impl Call {
    fn read(args: &[FunctionArg], context: &mut dyn RelationPlannerContext) -> Result<Call> {
        let mut positional = Vec::new();
        let (mut filter, mut ef_search) = (None, None);
        for arg in args {
            match arg {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => positional.push(expr.clone()),
                FunctionArg::Named { name, arg: FunctionArgExpr::Expr(expr), .. } => {
                    named(&name.value, expr, &mut filter, &mut ef_search)?;
                }
                FunctionArg::ExprNamed {
                    name: ast::Expr::Identifier(name),
                    arg: FunctionArgExpr::Expr(expr),
                    ..
                } => {
                    named(&name.value, expr, &mut filter, &mut ef_search)?;
                }
                other => return Err(usage(format!("knn() does not take the argument {other}"))),
            }
        }
        let Ok([table, column, query, k]) = <[ast::Expr; 4]>::try_from(positional) else {
            return Err(usage("knn() takes a table, a column, a query vector and a count"));
        };
        let empty = DFSchema::empty();
        Ok(Call {
            table: relation_name(&table, context)?
                .ok_or_else(|| usage("the first argument of knn() names a table"))?,
            column: object_name(&column, context)
                .ok_or_else(|| usage("the second argument of knn() names a column"))?,
            query: context.sql_to_expr(query, &empty)?,
            k: context.sql_to_expr(k, &empty)?,
            filter,
            ef_search,
        })
    }
}

/// `filter => '…'` and `ef_search => n`.
fn named(
    name: &str,
    expr: &ast::Expr,
    filter: &mut Option<String>,
    ef_search: &mut Option<usize>,
) -> Result<()> {
    match name.to_lowercase().as_str() {
        "filter" => {
            *filter = Some(text(expr).ok_or_else(|| usage("the filter of knn() must be a string literal"))?)
        }
        "ef_search" => {
            let number = number(expr);
            *ef_search = Some(
                number.ok_or_else(|| usage("ef_search of knn() must be an integer between 1 and 1000"))?,
            );
        }
        other => return Err(usage(format!("knn() has no argument named \"{other}\""))),
    }
    Ok(())
}

impl Relations {
    fn plan(&self, call: Call, context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
        let snapshot = self.context.snapshot.get();
        let (environment, named) = (&self.context.environment, &call.table);
        let missing = || carry(no_table(&snapshot, environment, named, &named.to_string()));
        let version = snapshot.find(environment, named).ok_or_else(missing)?;
        let table_name = named.name.clone();
        let def = &version.def;
        self.context.reads.note(def.id);
        let column = vector_column(def, &call.column)?;
        let table = UserTable::new(std::sync::Arc::clone(def), &self.context);
        let filter = match &call.filter {
            Some(text) => Some(plan_filter(text, &table, &table_name, context)?),
            None => None,
        };
        let metric = def.indexed_metric(column.id).unwrap_or(Metric::L2);
        let node = TopK::for_knn(
            TableReference::bare(table_name),
            table,
            column.id,
            metric,
            query_operand(call.query, column.ty.vector_kind().unwrap_or(VectorKind::Single))?,
            count_operand(call.k),
            filter,
            call.ef_search,
            &self.context,
        )?;
        let plan = LogicalPlan::Extension(Extension { node: std::sync::Arc::new(node) });
        LogicalPlanBuilder::from(plan).sort(vec![SortExpr::new(ident("distance"), true, false)])?.build()
    }
}

fn vector_column<'a>(def: &'a TableDef, name: &str) -> Result<&'a ColumnDef> {
    let column = def.column(name).ok_or_else(|| {
        let message = format!("column \"{name}\" of relation \"{}\" does not exist", def.name);
        carry(Error::new(SqlState::UndefinedColumn, message))
    })?;
    match (column.ty.vector_kind(), column.ty.dimensions()) {
        (Some(_), Some(_)) => Ok(column),
        (Some(kind), None) => Err(carry(
            Error::new(SqlState::InvalidParameterValue, "column does not have dimensions").with_hint(
                format!(
                    "Declare it as {}(n): ALTER the column \"{name}\" or create the table anew.",
                    kind.name()
                ),
            ),
        )),
        (None, _) => Err(carry(Error::new(
            SqlState::DatatypeMismatch,
            format!("column \"{name}\" is of type {} but knn() searches a vector", column.ty.display_name()),
        ))),
    }
}

/// Plans the filter's text over the table's columns, bare or qualified with the table's name.
fn plan_filter(
    text: &str,
    table: &UserTable,
    table_name: &str,
    context: &mut dyn RelationPlannerContext,
) -> Result<Expr> {
    let wrong = |error: &dyn std::fmt::Display| {
        carry(
            Error::new(SqlState::SyntaxError, format!("the filter of knn() is not a predicate: {error}"))
                .with_detail(text.to_owned()),
        )
    };
    let tokens = crate::sql::tokenize(text).map_err(|error| wrong(&error))?;
    let mut parser = Parser::new(&Postgres).with_tokens_with_locations(tokens);
    let mut expr = parser.parse_expr().map_err(|error| wrong(&error))?;
    if parser.peek_token().token != datafusion::sql::sqlparser::tokenizer::Token::EOF {
        return Err(wrong(&format!("unexpected \"{}\"", parser.peek_token())));
    }
    prepare_expression(&mut expr, &mut ParameterTypes::default(), None);
    let schema =
        DFSchema::try_from_qualified_schema(TableReference::bare(table_name), &table.arrow_schema())?;
    let filter = untyped::type_expression(context.sql_to_expr(expr, &schema)?, &schema)?.data;
    let functions = |name: &str| context.context_provider().get_function_meta(name);
    let filter = zoned::expression(filter, &schema, Zone::current(), &functions)?.data;
    match filter.get_type(&schema) {
        Ok(DataType::Null) => filter.cast_to(&DataType::Boolean, &schema),
        Ok(ty) if ty != DataType::Boolean => {
            let name = natural_type(&ty).display_name();
            let message = format!("argument of filter must be type boolean, not type {name}");
            Err(carry(Error::new(SqlState::DatatypeMismatch, message)))
        }
        // What has no type yet is judged where it gets one.
        Ok(_) | Err(_) => Ok(filter),
    }
}

fn query_operand(expr: Expr, kind: VectorKind) -> Result<Expr> {
    Ok(match expr {
        Expr::Placeholder(Placeholder { id, field: None }) => {
            let ty = kind.sql_type(None);
            let field = typed_field(&id, arrow_type(&ty), &ty);
            Expr::Placeholder(Placeholder::new_with_field(id, Some(field.into())))
        }
        Expr::Literal(ScalarValue::Utf8(Some(text)), _) => {
            Expr::Literal(vector_scalar(&text, kind).map_err(carry)?, None)
        }
        other => other,
    })
}

fn count_operand(expr: Expr) -> Expr {
    match expr {
        Expr::Placeholder(Placeholder { id, field: None }) => {
            let ty = SqlType::Int8;
            let field = typed_field(&id, arrow_type(&ty), &ty);
            Expr::Placeholder(Placeholder::new_with_field(id, Some(field.into())))
        }
        other => other,
    }
}

/// `items`, `public.items`, `'items'`, `'public.items'`.
///
/// Errors: 42602 for a text that is no name.
fn relation_name(expr: &ast::Expr, context: &dyn RelationPlannerContext) -> Result<Option<RelationName>> {
    Ok(match expr {
        ast::Expr::CompoundIdentifier(parts) => match parts.as_slice() {
            [.., schema, name] => {
                let fold = |ident: &ast::Ident| context.normalize_ident(ident.clone());
                Some(RelationName::qualified(fold(schema), fold(name)))
            }
            _ => None,
        },
        other => match (text(other), object_name(other, context)) {
            // Such a text was always taken as it is, and is one still where it has no schema.
            (Some(text), _) if !text.contains('.') => Some(RelationName::bare(text)),
            (Some(text), _) => Some(sequence_reference(&text).map_err(carry)?),
            (None, name) => name.map(RelationName::bare),
        },
    })
}

/// `items`, `'items'`.
fn object_name(expr: &ast::Expr, context: &dyn RelationPlannerContext) -> Option<String> {
    match expr {
        ast::Expr::Identifier(ident) => Some(context.normalize_ident(ident.clone())),
        ast::Expr::CompoundIdentifier(parts) => {
            parts.last().map(|ident| context.normalize_ident(ident.clone()))
        }
        other => text(other),
    }
}

fn text(expr: &ast::Expr) -> Option<String> {
    match expr {
        ast::Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) => Some(text.clone()),
            Value::DollarQuotedString(text) => Some(text.value.clone()),
            _ => None,
        },
        _ => None,
    }
}

fn number(expr: &ast::Expr) -> Option<usize> {
    match expr {
        ast::Expr::Value(value) => match &value.value {
            Value::Number(digits, _) => digits.parse().ok().filter(|count| (1..=1000).contains(count)),
            _ => None,
        },
        _ => None,
    }
}

/// A table function's argument with constants folded.
pub fn constant(expr: Expr) -> Result<Expr> {
    use datafusion::{
        logical_expr::simplify::SimplifyContext, optimizer::simplify_expressions::ExprSimplifier,
    };
    let schema = DFSchema::empty();
    let simplifier = ExprSimplifier::new(SimplifyContext::builder().build());
    simplifier.simplify(simplifier.coerce(expr, &schema)?)
}
