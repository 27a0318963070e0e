//! Names of types and objects: `format_type`, `to_reg*`, visibility, `quote_*`.

use sepal_types::{Error, Result, SqlState};

use super::super::CatalogContext;
use super::super::names::{Reg, quote_ident, quote_literal, reg_name, reg_oid, require_oid, shown_type};
use super::super::relations::{operator, procedure};
use super::super::shape::shapes;
use super::super::value::Value;
use super::{Function, int_argument, optional, text_argument};

pub(super) const FUNCTIONS: &[Function] = &[
    Function::lax("format_type", "oid, integer?", "text", format_type),
    Function::new("to_regclass", "text", "regclass", |context, arguments| {
        to_reg(context, Reg::Class, arguments)
    }),
    Function::new("to_regtype", "text", "regtype", |context, arguments| {
        to_reg(context, Reg::Type, arguments)
    }),
    Function::new("to_regproc", "text", "regproc", |context, arguments| {
        to_reg(context, Reg::Procedure, arguments)
    }),
    Function::new("to_regprocedure", "text", "regproc", |context, arguments| {
        to_reg(context, Reg::Procedure, arguments)
    }),
    Function::new("to_regnamespace", "text", "oid", |context, arguments| {
        to_reg(context, Reg::Namespace, arguments)
    }),
    Function::new("to_regrole", "text", "oid", |context, arguments| to_reg(context, Reg::Role, arguments)),
    Function::new("quote_ident", "text", "text", |_, arguments| {
        Ok(quote_ident(&text_argument(arguments, 0)).into())
    }),
    Function::new("quote_literal", "text", "text", |_, arguments| {
        Ok(quote_literal(&text_argument(arguments, 0)).into())
    }),
    Function::lax("quote_nullable", "text", "text", |_, arguments| {
        Ok(optional(arguments, 0).map_or("NULL".to_owned(), |value| quote_literal(&value.to_text())).into())
    }),
    Function::new("pg_table_is_visible", "oid", "boolean", table_is_visible),
    Function::new("pg_type_is_visible", "oid", "boolean", |context, arguments| {
        Ok(shown_type(context, int_argument(arguments, 0)?, -1).map(|_| true).into())
    }),
    Function::new("pg_function_is_visible", "oid", "boolean", |_, arguments| {
        Ok(procedure(int_argument(arguments, 0)?).map(|_| true).into())
    }),
    Function::new("pg_operator_is_visible", "oid", "boolean", |_, arguments| {
        Ok(operator(int_argument(arguments, 0)?).map(|_| true).into())
    }),
    Function::new("pg_collation_is_visible", "oid", "boolean", visible),
    Function::new("pg_conversion_is_visible", "oid", "boolean", visible),
    Function::new("pg_opclass_is_visible", "oid", "boolean", visible),
    Function::new("pg_opfamily_is_visible", "oid", "boolean", visible),
    Function::new("pg_statistics_obj_is_visible", "oid", "boolean", visible),
    Function::new("pg_ts_config_is_visible", "oid", "boolean", visible),
    Function::new("pg_ts_dict_is_visible", "oid", "boolean", visible),
    Function::new("pg_ts_parser_is_visible", "oid", "boolean", visible),
    Function::new("pg_ts_template_is_visible", "oid", "boolean", visible),
    Function::new("sepal_reg_oid", "text, text", "oid", |context, arguments| {
        let reg = reg_kind(&text_argument(arguments, 0))?;
        Ok(Value::Int(require_oid(context, reg, &text_argument(arguments, 1))?))
    }),
    Function::new("sepal_reg_name", "text, text", "text", sepal_reg_name),
];

fn format_type(context: &CatalogContext, arguments: &[Value]) -> Result<Value> {
    let Some(oid) = optional(arguments, 0) else { return Ok(Value::Null) };
    let oid = oid.as_int().unwrap_or(0);
    if oid == 0 {
        return Ok("-".into());
    }
    let modifier = optional(arguments, 1).and_then(Value::as_int).and_then(|value| i32::try_from(value).ok());
    Ok(shown_type(context, oid, modifier.unwrap_or(-1)).unwrap_or_else(|| "???".to_owned()).into())
}

fn to_reg(context: &CatalogContext, reg: Reg, arguments: &[Value]) -> Result<Value> {
    Ok(reg_oid(context, reg, &text_argument(arguments, 0)).into())
}

fn visible(_: &CatalogContext, _: &[Value]) -> Result<Value> {
    Ok(true.into())
}

fn table_is_visible(context: &CatalogContext, arguments: &[Value]) -> Result<Value> {
    let oid = int_argument(arguments, 0)?;
    if let Some(object) = context.object(oid) {
        return Ok(context.is_visible(&object.table().def.schema, &object.name()).into());
    }
    let of_catalog = shapes().find(|shape| i64::from(shape.relation.oid) == oid);
    Ok(of_catalog.map(|shape| shape.relation.schema == super::super::shape::PG_CATALOG).into())
}

/// `sepal_reg_name('class', 20001)`: the name, also when the object came as a name already.
fn sepal_reg_name(context: &CatalogContext, arguments: &[Value]) -> Result<Value> {
    let reg = reg_kind(&text_argument(arguments, 0))?;
    let oid = match &arguments[1] {
        Value::Int(oid) => *oid,
        other => require_oid(context, reg, &other.to_text())?,
    };
    Ok(reg_name(context, reg, oid).into())
}

fn reg_kind(name: &str) -> Result<Reg> {
    Ok(match name {
        "class" => Reg::Class,
        "namespace" => Reg::Namespace,
        "operator" => Reg::Operator,
        "procedure" => Reg::Procedure,
        "role" => Reg::Role,
        "type" => Reg::Type,
        other => {
            return Err(Error::new(
                SqlState::InvalidParameterValue,
                format!(
                    "\"{other}\" is not a kind of object. Use class, namespace, operator, procedure, role or type"
                ),
            ));
        }
    })
}
