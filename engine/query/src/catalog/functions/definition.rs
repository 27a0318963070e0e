//! Definitions, descriptions and sizes: `pg_get_*`, `obj_description`, `pg_relation_size`, …

use sepal_types::limits::PUBLIC_NAMESPACE_OID;
use sepal_types::{ColumnDef, Error, Result, SequenceDef, SqlState, TableDef, TableId};

use super::super::CatalogContext;
use super::super::definitions::{
    IndexText, constraint_definition, index_column, index_definition, unwrapped,
};
use super::super::names::{Reg, quote_ident, require_oid, shown_type, type_name};
use super::super::objects::{Index, OWNER_OID, Object, indexes};
use super::super::relations::{access_method_name, operator, procedure};
use super::super::shape::shapes;
use super::super::value::Value;
use super::{Function, int_argument, optional, text_argument};

pub(super) const FUNCTIONS: &[Function] = &[
    // Expressions are stored as their text, so there is nothing to turn back.
    Function::new("pg_get_expr", "text, oid, boolean?", "text", |_, arguments| {
        Ok(match &arguments[0] {
            Value::Text(text) if is_pretty(arguments, 2) => unwrapped(text).into(),
            text => text.clone(),
        })
    }),
    Function::new("pg_get_indexdef", "oid, integer?, boolean?", "text", indexdef),
    Function::new("pg_get_constraintdef", "oid, boolean?", "text", constraintdef),
    Function::new("pg_get_viewdef", "oid, boolean?", "text", null),
    Function::new("pg_get_ruledef", "oid, boolean?", "text", null),
    Function::new("pg_get_triggerdef", "oid, boolean?", "text", null),
    Function::new("pg_get_partkeydef", "oid", "text", null),
    Function::new("pg_get_partition_constraintdef", "oid", "text", null),
    // No table is a partition.
    Function::new("pg_partition_ancestors", "regclass", "regclass", null),
    Function::new("pg_get_statisticsobjdef", "oid", "text", null),
    Function::new("pg_get_statisticsobjdef_columns", "oid", "text", null),
    Function::new("pg_get_functiondef", "oid", "text", functiondef),
    Function::new("pg_get_function_result", "oid", "text", function_result),
    Function::new("pg_get_function_arguments", "oid", "text", function_arguments),
    Function::new("pg_get_function_identity_arguments", "oid", "text", function_arguments),
    Function::new("pg_get_function_sqlbody", "oid", "text", null),
    Function::new("pg_get_serial_sequence", "text, text", "text", serial_sequence),
    Function::new("pg_get_userbyid", "oid", "name", userbyid),
    Function::new("pg_get_replica_identity_index", "regclass", "regclass", null),
    Function::new("pg_describe_object", "oid, oid, integer", "text", describe_object),
    Function::new("obj_description", "oid, name?", "text", null),
    Function::new("col_description", "oid, integer", "text", null),
    Function::new("shobj_description", "oid, name", "text", null),
    Function::new("pg_relation_is_publishable", "regclass", "boolean", |context, arguments| {
        Ok(matches!(relation_argument(context, arguments)?, Some(Object::Table(_))).into())
    }),
    Function::new("pg_relation_filenode", "regclass", "oid", |context, arguments| {
        Ok(relation_argument(context, arguments)?.map(Object::oid).into())
    }),
    Function::new("pg_relation_size", "regclass, text?", "bigint", relation_size),
    Function::new("pg_table_size", "regclass", "bigint", relation_size),
    Function::new("pg_indexes_size", "regclass", "bigint", indexes_size),
    Function::new("pg_total_relation_size", "regclass", "bigint", total_size),
    Function::new("pg_database_size", "name", "bigint", database_size),
    Function::new("pg_tablespace_size", "name", "bigint", database_size),
    Function::new("pg_tablespace_location", "oid", "text", |_, _| Ok("".into())),
    Function::new("pg_size_pretty", "bigint", "text", |_, arguments| {
        Ok(size_pretty(int_argument(arguments, 0)?).into())
    }),
];

fn null(_: &CatalogContext, _: &[Value]) -> Result<Value> {
    Ok(Value::Null)
}

fn indexdef(context: &CatalogContext, arguments: &[Value]) -> Result<Value> {
    let oid = int_argument(arguments, 0)?;
    let Some(Object::Index(table, index)) = context.object(oid) else { return Ok(Value::Null) };
    let place = optional(arguments, 1).and_then(Value::as_int).unwrap_or(0);
    let pretty = is_pretty(arguments, 2);
    if place == 0 {
        return Ok(index_definition(context, &table.def, index, pretty).into());
    }
    let place = usize::try_from(place).unwrap_or(usize::MAX);
    let print = if pretty { IndexText::KeyPretty } else { IndexText::Key };
    Ok(index_column(&table.def, index, place, print).unwrap_or_default().into())
}

fn is_pretty(arguments: &[Value], place: usize) -> bool {
    optional(arguments, place).and_then(Value::as_bool).unwrap_or(false)
}

fn constraintdef(context: &CatalogContext, arguments: &[Value]) -> Result<Value> {
    let oid = int_argument(arguments, 0)?;
    match context.object(oid) {
        Some(Object::Index(table, Index::Unique(unique))) if unique.is_constraint() => {
            Ok(constraint_definition(&table.def, unique).into())
        }
        _ => Ok(context
            .constraint(oid)
            .map(|(table, found)| context.constraint_text(&table.def, found, is_pretty(arguments, 1)))
            .into()),
    }
}

fn functiondef(_: &CatalogContext, arguments: &[Value]) -> Result<Value> {
    let oid = int_argument(arguments, 0)?;
    let function = procedure(oid).ok_or_else(|| {
        Error::new(SqlState::UndefinedFunction, format!("function with OID {oid} does not exist"))
    })?;
    let schema = if function.namespace == PUBLIC_NAMESPACE_OID { "public" } else { "pg_catalog" };
    let volatility = match function.volatility {
        "i" => " IMMUTABLE",
        "s" => " STABLE",
        _ => "",
    };
    Ok(format!(
        "CREATE OR REPLACE FUNCTION {schema}.{}({})\n RETURNS {}\n LANGUAGE internal\n{volatility} PARALLEL SAFE{}\n\
         AS $function${}$function$\n",
        quote_ident(function.name),
        function.arguments_text,
        type_name(i64::from(function.result), -1).unwrap_or_default(),
        if function.strict { " STRICT" } else { "" },
        function.name,
    )
    .into())
}

fn function_result(_: &CatalogContext, arguments: &[Value]) -> Result<Value> {
    let Some(function) = procedure(int_argument(arguments, 0)?) else { return Ok(Value::Null) };
    let set = if function.returns_set { "SETOF " } else { "" };
    Ok(format!("{set}{}", type_name(i64::from(function.result), -1).unwrap_or_default()).into())
}

fn function_arguments(_: &CatalogContext, arguments: &[Value]) -> Result<Value> {
    Ok(procedure(int_argument(arguments, 0)?).map(|function| function.arguments_text).into())
}

fn serial_sequence(context: &CatalogContext, arguments: &[Value]) -> Result<Value> {
    let oid = require_oid(context, Reg::Class, &text_argument(arguments, 0))?;
    let Some(table) = context.table(oid) else { return Ok(Value::Null) };
    let name = text_argument(arguments, 1);
    if table.def.column(&name).is_none() {
        let message = format!("column \"{name}\" of relation \"{}\" does not exist", table.def.name);
        return Err(Error::new(SqlState::UndefinedColumn, message));
    }
    let place = table.def.column(&name).map(|column| (table.def.id, column.id));
    let serves = |of: &TableDef, column: &ColumnDef, sequence: &SequenceDef| {
        Some((of.id, column.id)) == place || (place.is_some() && sequence.owner == place)
    };
    let all = context.sequences();
    let found = all.iter().find(|(of, column, sequence)| serves(of, column, sequence));
    let qualified =
        |of: &TableDef, sequence: String| format!("{}.{}", quote_ident(&of.schema), quote_ident(&sequence));
    Ok(found.map(|(of, column, _)| qualified(of, of.sequence_name(column))).into())
}

fn userbyid(context: &CatalogContext, arguments: &[Value]) -> Result<Value> {
    let oid = int_argument(arguments, 0)?;
    let known = oid == i64::from(OWNER_OID);
    Ok(if known { Value::text(&context.user) } else { format!("unknown (OID={oid})").into() })
}

/// `table items`, `index items_pkey`, `column id of table items`, …
fn describe_object(context: &CatalogContext, arguments: &[Value]) -> Result<Value> {
    let (class, oid, part) =
        (int_argument(arguments, 0)?, int_argument(arguments, 1)?, int_argument(arguments, 2)?);
    let class =
        shapes().find(|shape| i64::from(shape.relation.oid) == class).map(|shape| shape.relation.name);
    let description = match class {
        Some("pg_class") => context.object(oid).map(|object| describe_class(object, part)),
        Some("pg_type") => shown_type(context, oid, -1).map(|name| format!("type {name}")),
        Some("pg_proc") => {
            procedure(oid).map(|function| format!("function {}({})", function.name, function.arguments_text))
        }
        Some("pg_operator") => operator(oid).map(|name| format!("operator {name}(vector,vector)")),
        Some("pg_namespace") => context.namespace_name(oid).map(|name| format!("schema {name}")),
        Some("pg_extension") => Some("extension vector".to_owned()),
        Some("pg_am") => access_method_name(oid).map(|name| format!("access method {name}")),
        Some("pg_constraint") => match context.object(oid) {
            Some(Object::Index(table, Index::Unique(unique))) if unique.is_constraint() => {
                Some(format!("constraint {} on table {}", unique.name, table.def.name))
            }
            _ => context
                .constraint(oid)
                .map(|(table, found)| format!("constraint {} on table {}", found.name(), table.def.name)),
        },
        _ => None,
    };
    Ok(description.into())
}

fn describe_class(object: Object<'_>, part: i64) -> String {
    let name = quote_ident(&object.name());
    let of_table = |table: &TableDef| {
        let place = usize::try_from(part).ok()?.checked_sub(1)?;
        Some(format!("column {} of table {name}", quote_ident(&table.columns.get(place)?.name)))
    };
    match object {
        Object::Table(table) => of_table(&table.def).unwrap_or_else(|| format!("table {name}")),
        Object::Index(..) => format!("index {name}"),
        Object::Sequence(..) => format!("sequence {name}"),
    }
}

/// The object that a `regclass` argument means: an oid, or a name.
fn relation_argument<'a>(context: &'a CatalogContext, arguments: &[Value]) -> Result<Option<Object<'a>>> {
    let oid = match &arguments[0] {
        Value::Int(oid) => *oid,
        other => require_oid(context, Reg::Class, &other.to_text())?,
    };
    Ok(context.object(oid))
}

fn bytes_of(context: &CatalogContext, object: Object<'_>) -> u64 {
    match object {
        Object::Sequence(..) => 0,
        Object::Table(_) | Object::Index(..) => (context.table_bytes)(TableId(object.oid())),
    }
}

fn indexes_bytes(context: &CatalogContext, object: Object<'_>) -> u64 {
    match object {
        Object::Table(table) => {
            indexes(&table.def).map(|index| (context.table_bytes)(TableId(index.oid()))).sum()
        }
        Object::Index(..) | Object::Sequence(..) => 0,
    }
}

fn relation_size(context: &CatalogContext, arguments: &[Value]) -> Result<Value> {
    Ok(relation_argument(context, arguments)?.map(|object| bytes_of(context, object)).into())
}

fn indexes_size(context: &CatalogContext, arguments: &[Value]) -> Result<Value> {
    Ok(relation_argument(context, arguments)?.map(|object| indexes_bytes(context, object)).into())
}

fn total_size(context: &CatalogContext, arguments: &[Value]) -> Result<Value> {
    let size = |object| bytes_of(context, object).saturating_add(indexes_bytes(context, object));
    Ok(relation_argument(context, arguments)?.map(size).into())
}

/// The session's own environment; other ones cannot be looked into from here, so their size is unknown.
fn database_size(context: &CatalogContext, arguments: &[Value]) -> Result<Value> {
    let own = match &arguments[0] {
        Value::Int(oid) => *oid == i64::from(super::super::objects::environment_oid(&context.environment)),
        name => name.to_text() == context.environment || name.to_text() == "pg_default",
    };
    if !own {
        return Ok(Value::Null);
    }
    let objects = context.objects();
    Ok(objects.into_iter().map(|object| bytes_of(context, object)).sum::<u64>().into())
}

/// As Postgres: bytes below 10 kB whole, each further unit from 10 of the last, rounded half up.
fn size_pretty(bytes: i64) -> String {
    const UNITS: [&str; 6] = ["bytes", "kB", "MB", "GB", "TB", "PB"];
    let sign = if bytes < 0 { "-" } else { "" };
    let mut size = bytes.unsigned_abs();
    if size < 10 * 1024 {
        return format!("{sign}{size} {}", UNITS[0]);
    }
    // One more bit than shown is kept, for the rounding.
    size >>= 9;
    for unit in &UNITS[1..5] {
        if size < 2 * 10 * 1024 - 1 {
            return format!("{sign}{} {unit}", size.div_ceil(2));
        }
        size >>= 10;
    }
    format!("{sign}{} {}", size.div_ceil(2), UNITS[5])
}
