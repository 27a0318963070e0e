//! DEFAULT values: constants, functions, and the numbers of serial and identity columns.

use std::{ops::ControlFlow, sync::Arc};

use bytes::BytesMut;
use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, RecordBatchOptions, new_null_array},
        datatypes::{IntervalMonthDayNanoType, Schema},
    },
    common::DFSchema,
    logical_expr::Expr,
    optimizer::simplify_expressions::ExprSimplifier,
    physical_expr::create_physical_expr,
    sql::sqlparser::{ast, parser::Parser},
};
use sepal_storage::arrow_type;
use sepal_types::{ColumnDef, Error, Result, SqlType, TableDef};

use super::{
    DmlContext,
    assign::{assign, assign_default},
};
use crate::{
    error::translate,
    output::{sql_type, typed_field},
    sql::{ParameterTypes, Postgres, prepare_expression, tokenize},
    values::{decode_text, encode_text},
    zone::Zone,
};

/// `rows` default values of a column.
pub fn default_values(
    def: &TableDef,
    column: &ColumnDef,
    rows: usize,
    context: &DmlContext,
) -> Result<ArrayRef> {
    if column.is_counted() {
        return serial_values(def, column, rows, context);
    }
    if column.expression().is_some() {
        // Computed when the other columns are there.
        return Ok(new_null_array(&arrow_type(&column.ty), rows));
    }
    let Some(text) = &column.default else {
        return Ok(new_null_array(&arrow_type(&column.ty), rows));
    };
    let empty = DFSchema::empty();
    let planned = planned(text, column, context)?;
    let props = context.engine.started_props();
    let simplify = context.engine.simplify_context();
    let simplify = simplify.with_query_execution_start_time(props.query_execution_start_time).build();
    let simplifier = ExprSimplifier::new(simplify);
    let planned = simplifier
        .coerce(planned, &empty)
        .and_then(|planned| simplifier.simplify(planned))
        .map_err(translate)?;
    let physical = create_physical_expr(&planned, &empty, &props, &Default::default()).map_err(translate)?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let batch = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &options)
        .map_err(crate::error::arrow)?;
    let array = physical.evaluate(&batch).and_then(|value| value.into_array(rows)).map_err(translate)?;
    let field = physical
        .return_field(batch.schema().as_ref())
        .map_err(translate)
        .map(|field| typed_field("default", array.data_type().clone(), &sql_type(&field)))?;
    context.engine.zone().within(|| assign_default(&array, &field, column))
}

/// What all rows that are there have in a column that comes with `default`, which is SQL: its value now, in the form in
/// which storage reads it. `None`: NULL.
///
/// Errors: 0A000 for a default that is another one for each row; its own.
pub fn missing_value(
    def: &TableDef,
    column: &ColumnDef,
    default: &str,
    context: &DmlContext,
) -> Result<Option<String>> {
    let column = ColumnDef { default: Some(default.to_owned()), ..column.clone() };
    if planned(default, &column, context)?.is_volatile() {
        let message = "ADD COLUMN with a volatile DEFAULT on a table with rows is not supported";
        return Err(Error::unsupported(message)
            .with_hint("Add the column without a default, UPDATE it, then ALTER COLUMN … SET DEFAULT."));
    }
    let array = default_values(def, &column, 1, context)?;
    if array.is_null(0) {
        return Ok(None);
    }
    // Storage reads no times of day in an interval.
    if let Some(intervals) = array.as_primitive_opt::<IntervalMonthDayNanoType>() {
        let interval = intervals.value(0);
        let (months, days, nanoseconds) = (interval.months, interval.days, interval.nanoseconds);
        return Ok(Some(format!("{months} months {days} days {nanoseconds} nanoseconds")));
    }
    // As it is kept: without the spaces that `char(n)` is shown with.
    let kept = match &column.ty {
        SqlType::Array(element) if matches!(element.as_ref(), SqlType::Bpchar(_)) => {
            SqlType::Array(Box::new(SqlType::Text))
        }
        SqlType::Bpchar(_) => SqlType::Text,
        other => other.clone(),
    };
    let mut out = BytesMut::new();
    encode_text(array.as_ref(), 0, &kept, &mut out)?;
    match String::from_utf8(out.to_vec()) {
        Ok(text) => Ok(Some(text)),
        Err(_) => Err(Error::bug("a printed value is no UTF-8")),
    }
}

fn planned(text: &str, column: &ColumnDef, context: &DmlContext) -> Result<Expr> {
    let mut expression = parse_default(text)?;
    settle(&mut expression, &column.ty);
    prepare_expression(&mut expression, &mut ParameterTypes::default(), Some(&column.ty));
    context.engine.plan_expression(context.statement, expression, &DFSchema::empty())
}

fn serial_values(def: &TableDef, column: &ColumnDef, rows: usize, context: &DmlContext) -> Result<ArrayRef> {
    let count = u64::try_from(rows).unwrap_or(u64::MAX);
    let first = context.statement.sequences.reserve_for(def, column, count)?;
    let increment = column.sequence().map_or(1, |sequence| sequence.increment);
    let number = |step: i64| first.saturating_add(increment.saturating_mul(step));
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values((0i64..).take(rows).map(number)));
    let field = typed_field("default", numbers.data_type().clone(), &SqlType::Int8);
    assign(&numbers, &field, column)
}

/// The expression that the text of a DEFAULT or a CHECK says.
pub fn parse_default(text: &str) -> Result<ast::Expr> {
    let mut expr = Parser::new(&Postgres)
        .with_tokens_with_locations(tokenize(text)?)
        .parse_expr()
        .map_err(|problem| Error::bug(format!("the stored expression {text} does not parse: {problem}")))?;
    crate::ddl::in_public(&mut expr);
    Ok(expr)
}

/// What the word DEFAULT stands for in a row of VALUES or in SET.
pub fn default_expression(def: &TableDef, column: &ColumnDef) -> Result<ast::Expr> {
    if column.expression().is_some() {
        return parse_default("NULL");
    }
    if column.is_counted() {
        return parse_default(&crate::ddl::sequence_call(&def.schema, &def.sequence_name(column)));
    }
    let mut expression = parse_default(column.default.as_deref().unwrap_or("NULL"))?;
    settle(&mut expression, &column.ty);
    Ok(expression)
}

/// Whether a DEFAULT means the same to those who insert as to the session that defines it: its texts are read in UTC.
///
/// Errors: 0A000 for one whose text names no offset, in a session that is in another zone.
pub fn check_default_settled(column: &ColumnDef, zone: Zone) -> Result<()> {
    let asked = !zone.is_utc() && column.expression().is_none();
    let Some(text) = column.default.as_deref().filter(|_| asked) else { return Ok(()) };
    let mut settled = true;
    each_instant(&mut parse_default(text)?, &column.ty, &mut |text| {
        settled &= printed(text, zone) == printed(text, Zone::UTC);
    });
    if settled { Ok(()) } else { Err(unsettled("a DEFAULT")) }
}

/// 0A000
pub(super) fn unsettled(what: &str) -> Error {
    Error::unsupported(format!("{what} that depends on a TimeZone other than UTC is not supported"))
        .with_hint(
            "Write times with their offset, as in '2024-07-01 12:00+02': what is stored is read in UTC.",
        )
}

/// Gives the texts of instants in a stored expression their offset, which is that of UTC.
fn settle(expression: &mut ast::Expr, ty: &SqlType) {
    each_instant(expression, ty, &mut |text| {
        if let Some(settled) = printed(text, Zone::UTC) {
            *text = settled;
        }
    });
}

/// Does something with every text in an expression of a type that is read as a `timestamptz`.
fn each_instant(expression: &mut ast::Expr, ty: &SqlType, with: &mut dyn FnMut(&mut String)) {
    if let (ast::Expr::Value(value), SqlType::Timestamptz) = (&mut *expression, ty) {
        if let ast::Value::SingleQuotedString(text) = &mut value.value {
            with(text);
        }
        return;
    }
    let is_one =
        |data_type: &ast::DataType| SqlType::from_name(&data_type.to_string()) == Some(SqlType::Timestamptz);
    let _ = ast::visit_expressions_mut(expression, |inner| {
        let value = match inner {
            ast::Expr::Cast { expr, data_type, .. } => match expr.as_mut() {
                ast::Expr::Value(value) if is_one(data_type) => Some(value),
                _ => None,
            },
            ast::Expr::TypedString(typed) if is_one(&typed.data_type) => Some(&mut typed.value),
            _ => None,
        };
        if let Some(ast::Value::SingleQuotedString(text)) = value.map(|value| &mut value.value) {
            with(text);
        }
        ControlFlow::<()>::Continue(())
    });
}

/// The instant that a text means in a zone, with the offset of UTC; `None` for what is none.
fn printed(text: &str, zone: Zone) -> Option<String> {
    let instant = zone.within(|| decode_text(&SqlType::Timestamptz, Some(text.as_bytes()))).ok()?;
    let mut out = BytesMut::new();
    Zone::UTC.within(|| encode_text(instant.as_ref(), 0, &SqlType::Timestamptz, &mut out)).ok()?;
    String::from_utf8(out.to_vec()).ok()
}

/// Whether an expression is the bare word DEFAULT.
pub fn is_default(expr: &ast::Expr) -> bool {
    matches!(expr, ast::Expr::Identifier(ident) if ident.quote_style.is_none() && ident.value.eq_ignore_ascii_case("default"))
}
