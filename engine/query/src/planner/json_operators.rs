//! Binary operators that mean something else when an operand is `json` or `jsonb`.
//!
//! Asked first by `operators` for every operator. An untyped literal or parameter beside a JSON value gets the type
//! that PostgreSQL would resolve it to.

use std::mem;

use datafusion::{
    arrow::datatypes::DataType,
    common::{DFSchema, ScalarValue, metadata::FieldMetadata},
    error::Result,
    logical_expr::{
        Expr, ExprSchemable,
        expr::Placeholder,
        planner::{PlannerResult, RawBinaryExpr},
    },
};
use sepal_storage::arrow_type;
use sepal_types::{Error, SqlState, SqlType};

use super::operators::placeholder;
use crate::{
    error::carry,
    functions::{enum_call, json_call, text_search_call},
    output::{sql_type, typed_field},
    values,
};

/// What is known about an operand's type.
#[derive(Clone, Debug, PartialEq)]
enum Operand {
    Integer,
    Json,
    Jsonb,
    Other,
    Text,
    Texts,
    /// A literal or a parameter that nothing has typed.
    Unknown,
}

pub(super) fn plan(expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
    use Operand::{Integer, Json, Jsonb, Text, Texts, Unknown};
    let symbol = expr.op.to_string();
    if !is_json_symbol(&symbol) {
        return Ok(PlannerResult::Original(expr));
    }
    let operands = (operand(&expr.left, schema), operand(&expr.right, schema));
    let texts = SqlType::Array(Box::new(SqlType::Text));
    let (name, right_type) = match (symbol.as_str(), &operands.0, &operands.1) {
        ("->", Json, Integer) => ("json_array_element", SqlType::Int8),
        ("->>", Json, Integer) => ("json_array_element_text", SqlType::Int8),
        ("->", Json, Text | Unknown) => ("json_object_field", SqlType::Text),
        ("->>", Json, Text | Unknown) => ("json_object_field_text", SqlType::Text),
        ("#>", Json, Texts | Unknown) => ("sepal_json_path", texts),
        ("#>>", Json, Texts | Unknown) => ("sepal_json_path_text", texts),
        ("->", Jsonb, Integer) => ("jsonb_array_element", SqlType::Int8),
        ("->>", Jsonb, Integer) => ("jsonb_array_element_text", SqlType::Int8),
        ("->", Jsonb, Text | Unknown) => ("jsonb_object_field", SqlType::Text),
        ("->>", Jsonb, Text | Unknown) => ("jsonb_object_field_text", SqlType::Text),
        ("#>", Jsonb, Texts | Unknown) => ("sepal_jsonb_path", texts),
        ("#>>", Jsonb, Texts | Unknown) => ("sepal_jsonb_path_text", texts),
        ("?", Jsonb, Text | Unknown) => ("jsonb_exists", SqlType::Text),
        ("?|", Jsonb, Texts | Unknown) => ("jsonb_exists_any", texts),
        ("?&", Jsonb, Texts | Unknown) => ("jsonb_exists_all", texts),
        ("@?", Jsonb, Text | Unknown) => ("jsonb_path_exists_opr", SqlType::Text),
        ("@@", Jsonb, Text | Unknown) => ("jsonb_path_match_opr", SqlType::Text),
        ("-", Jsonb, Text | Unknown) => ("jsonb_delete", SqlType::Text),
        ("-", Jsonb, Integer) => ("sepal_jsonb_delete_index", SqlType::Int8),
        ("-", Jsonb, Texts) => ("sepal_jsonb_delete_keys", texts),
        ("@>" | "<@" | "=" | "<>" | "||", Jsonb, Jsonb | Unknown)
        | ("@>" | "<@" | "=" | "<>" | "||", Unknown, Jsonb) => {
            let left = typed(expr.left, &SqlType::Jsonb)?;
            let right = typed(expr.right, &SqlType::Jsonb)?;
            return symmetric(&symbol, left, right).map(PlannerResult::Planned);
        }
        // `jsonb || text` joins texts, `text = text` is no affair of ours.
        ("||" | "-" | "@?" | "@@", _, _) => return Ok(PlannerResult::Original(expr)),
        ("@>" | "<@" | "=" | "<>", left, right) if !is_json(left) && !is_json(right) => {
            return Ok(PlannerResult::Original(expr));
        }
        _ => return Err(carry(undefined(&symbol, &expr, &operands, schema))),
    };
    let right = typed(expr.right, &right_type)?;
    json_call(name, vec![expr.left, right]).map(PlannerResult::Planned)
}

fn is_json_symbol(symbol: &str) -> bool {
    matches!(
        symbol,
        "->" | "->>" | "#>" | "#>>" | "@>" | "<@" | "@?" | "@@" | "?" | "?|" | "?&" | "-" | "||" | "=" | "<>"
    )
}

fn is_json(operand: &Operand) -> bool {
    matches!(operand, Operand::Json | Operand::Jsonb)
}

/// The operators whose operands are both `jsonb`.
fn symmetric(symbol: &str, left: Expr, right: Expr) -> Result<Expr> {
    let comparable = |expr: Expr| json_call("sepal_jsonb_comparable", vec![expr]);
    match symbol {
        "=" => Ok(comparable(left)?.eq(comparable(right)?)),
        "<>" => Ok(comparable(left)?.not_eq(comparable(right)?)),
        "@>" => json_call("jsonb_contains", vec![left, right]),
        "<@" => json_call("jsonb_contains", vec![right, left]),
        _ => json_call("jsonb_concat", vec![left, right]),
    }
}

fn operand(expr: &Expr, schema: &DFSchema) -> Operand {
    match expr {
        Expr::Literal(ScalarValue::Null, _) | Expr::Placeholder(Placeholder { field: None, .. }) => {
            return Operand::Unknown;
        }
        // A parameter that had to be given some type before planning was given `text`.
        Expr::Placeholder(Placeholder { field: Some(field), .. }) if sql_type(field) == SqlType::Text => {
            return Operand::Unknown;
        }
        _ => {}
    }
    match marked_type(expr, schema) {
        Some(SqlType::Json) => return Operand::Json,
        Some(SqlType::Jsonb) => return Operand::Jsonb,
        None if matches!(expr, Expr::Literal(ScalarValue::Utf8(_) | ScalarValue::Utf8View(_), _)) => {
            return Operand::Unknown;
        }
        _ => {}
    }
    match expr.get_type(schema) {
        Ok(DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View) => Operand::Text,
        Ok(DataType::List(item)) if matches!(item.data_type(), DataType::Utf8 | DataType::Null) => {
            Operand::Texts
        }
        Ok(data_type) if data_type.is_integer() => Operand::Integer,
        _ => Operand::Other,
    }
}

/// `json`, `jsonb`, `tsvector`, `tsquery` or an enum if the expression is that. DataFusion forgets it of a function
/// that returns one of its arguments, so that these are looked through.
pub(super) fn marked_type(expr: &Expr, schema: &DFSchema) -> Option<SqlType> {
    let declared = expr.to_field(schema).ok().map(|(_, field)| sql_type(&field));
    let is_marked = |ty: &SqlType| match ty {
        SqlType::Json | SqlType::Jsonb | SqlType::TsQuery | SqlType::TsVector => true,
        SqlType::Enum(of) => of.is_known(),
        _ => false,
    };
    if let Some(ty) = declared.filter(is_marked) {
        return Some(ty);
    }
    match expr {
        Expr::Alias(alias) => marked_type(&alias.expr, schema),
        Expr::ScalarFunction(call) if matches!(call.name(), "coalesce" | "nullif") => {
            call.args.iter().find_map(|argument| marked_type(argument, schema))
        }
        Expr::ScalarFunction(call) if matches!(call.name(), "greatest" | "least") => {
            let mut types = call.args.iter().filter_map(|argument| marked_type(argument, schema));
            types.find(|ty| ty.enum_type().is_some())
        }
        Expr::Case(case) => {
            let mut branches = case.when_then_expr.iter().map(|(_, then)| then).chain(&case.else_expr);
            branches.find_map(|branch| marked_type(branch, schema))
        }
        _ => None,
    }
}

/// Says again that coalesce, nullif and CASE give `json`, `jsonb`, `tsvector`, `tsquery` or an enum, of which greatest
/// and least are one too; untyped literals that they choose from are read as that. That all of an enum's are of one
/// type was asked before (`chosen`). Tells whether it did.
pub(super) fn keep_type(expr: &mut Expr, schema: &DFSchema) -> Result<bool> {
    let extreme = matches!(expr, Expr::ScalarFunction(call) if matches!(call.name(), "greatest" | "least"));
    let chosen: Vec<&mut Expr> = match expr {
        Expr::ScalarFunction(call) if extreme || matches!(call.name(), "coalesce" | "nullif") => {
            call.args.iter_mut().collect()
        }
        Expr::Case(case) => {
            let branches = case.when_then_expr.iter_mut().map(|(_, then)| then.as_mut());
            branches.chain(case.else_expr.as_deref_mut()).collect()
        }
        _ => return Ok(false),
    };
    let Some(ty) = chosen.iter().find_map(|expr| marked_type(expr, schema)) else {
        return Ok(false);
    };
    if extreme && ty.enum_type().is_none() {
        return Ok(false);
    }
    let untyped = |expr: &Expr| match expr {
        Expr::Literal(value, None) => value.is_null() || value.data_type().is_string(),
        Expr::Placeholder(Placeholder { field, .. }) => field.is_none(),
        _ => false,
    };
    if !chosen.iter().all(|expr| untyped(expr) || marked_type(expr, schema).is_some()) {
        return Ok(false);
    }
    for expr in chosen {
        *expr = typed(mem::take(expr), &ty)?;
    }
    if ty.enum_type().is_some() {
        *expr = enum_call(mem::take(expr), &ty);
        return Ok(true);
    }
    let chosen = vec![mem::take(expr)];
    *expr = match ty {
        SqlType::Json => json_call("sepal_json_known", chosen)?,
        SqlType::TsQuery => text_search_call("sepal_tsquery_known", chosen)?,
        SqlType::TsVector => text_search_call("sepal_tsvector_known", chosen)?,
        _ => json_call("sepal_jsonb_known", chosen)?,
    };
    Ok(true)
}

/// An untyped literal or parameter with the type that its operator wants.
fn typed(expr: Expr, ty: &SqlType) -> Result<Expr> {
    match expr {
        Expr::Placeholder(Placeholder { id, field: None }) => Ok(placeholder(id, ty)),
        Expr::Literal(ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)), None) => {
            let array = values::decode_text(ty, Some(text.as_bytes())).map_err(carry)?;
            let field = typed_field("literal", arrow_type(ty), ty);
            let metadata = (!field.metadata().is_empty()).then(|| FieldMetadata::from(&field));
            Ok(Expr::Literal(ScalarValue::try_from_array(&array, 0)?, metadata))
        }
        other => Ok(other),
    }
}

fn undefined(symbol: &str, expr: &RawBinaryExpr, operands: &(Operand, Operand), schema: &DFSchema) -> Error {
    let name = |operand: &Operand, expr: &Expr| match operand {
        Operand::Unknown => "unknown".to_owned(),
        Operand::Json => "json".to_owned(),
        Operand::Jsonb => "jsonb".to_owned(),
        _ => expr
            .to_field(schema)
            .map_or_else(|_| "unknown".to_owned(), |(_, field)| sql_type(&field).display_name()),
    };
    let (left, right) = (name(&operands.0, &expr.left), name(&operands.1, &expr.right));
    Error::new(SqlState::UndefinedFunction, format!("operator does not exist: {left} {symbol} {right}"))
        .with_hint(
            "No operator matches the given name and argument types. \
             You might need to add explicit type casts.",
        )
}
