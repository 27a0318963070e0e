//! Names and oids: what `regclass`, `regtype`, `regproc`, `regnamespace` and `regrole` turn into each other.
//!
//! Used by `shape`, `functions` and `evaluator`. Names follow the search path, `pg_catalog` first: what a bare name
//! leads to prints bare, the rest with its schema.

use std::sync::Arc;

use sepal_types::limits::PUBLIC_NAMESPACE_OID;
use sepal_types::{Error, PUBLIC_SCHEMA, RelationRef, Result, SqlState, SqlType};

use super::CatalogContext;
use super::objects::OWNER_OID;
use super::relations::{operator, procedure, procedure_named};
use super::shape::{INFORMATION_SCHEMA, PG_CATALOG, shape, shapes};
use super::value::Value;

/// The schemas that are always there, with Postgres' oids (the last is whatever initdb gave it; this one is ours for
/// ever).
const NAMESPACES: [(u32, &str); 3] =
    [(11, PG_CATALOG), (PUBLIC_NAMESPACE_OID, "public"), (13_209, INFORMATION_SCHEMA)];

impl CatalogContext {
    /// All schemas of the environment.
    pub(crate) fn namespaces(&self) -> impl Iterator<Item = (u32, &str)> {
        let own = self.snapshot.schemas(&self.environment).map(|def| (def.id.0, def.name.as_str()));
        NAMESPACES.into_iter().chain(own)
    }

    pub(crate) fn namespace_name(&self, oid: i64) -> Option<&str> {
        self.namespaces().find(|(candidate, _)| i64::from(*candidate) == oid).map(|(_, name)| name)
    }

    pub(crate) fn namespace_oid(&self, name: &str) -> Option<u32> {
        self.namespaces().find(|(_, candidate)| *candidate == name).map(|(oid, _)| oid)
    }

    /// `pg_class.relnamespace` and its kin.
    pub(crate) fn namespace_of(&self, schema: &str) -> u32 {
        match schema {
            PUBLIC_SCHEMA => PUBLIC_NAMESPACE_OID,
            other => self.namespace_oid(other).unwrap_or(0),
        }
    }

    /// Whether a bare name leads to what has it in the schema.
    pub(crate) fn is_visible(&self, schema: &str, name: &str) -> bool {
        shape(PG_CATALOG, name).is_none() && self.snapshot.is_visible(&self.environment, schema, name)
    }

    /// A name as SQL text: with its schema where it leads elsewhere without.
    pub(crate) fn shown(&self, schema: &str, name: &str) -> String {
        match self.is_visible(schema, name) {
            true => quote_ident(name),
            false => format!("{}.{}", quote_ident(schema), quote_ident(name)),
        }
    }
}

/// A kind of object that a `reg*` type names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reg {
    Class,
    Namespace,
    Operator,
    Procedure,
    Role,
    Type,
}

/// Types that appear in signatures and in `format_type` but that no column can have.
const FOREIGN_TYPES: [(u32, &str); 34] = [
    (27, "tid"),
    (28, "xid"),
    (29, "cid"),
    (142, "xml"),
    (194, "pg_node_tree"),
    (269, "table_am_handler"),
    (325, "index_am_handler"),
    (650, "cidr"),
    (869, "inet"),
    (1033, "aclitem"),
    (1034, "aclitem[]"),
    (1263, "cstring[]"),
    (1266, "time with time zone"),
    (1560, "bit"),
    (1562, "bit varying"),
    (1790, "refcursor"),
    (2202, "regprocedure"),
    (2203, "regoper"),
    (2204, "regoperator"),
    (2249, "record"),
    (2275, "cstring"),
    (2276, "\"any\""),
    (2277, "anyarray"),
    (2279, "trigger"),
    (2280, "language_handler"),
    (2281, "internal"),
    (2283, "anyelement"),
    (2776, "anynonarray"),
    (3220, "pg_lsn"),
    (3734, "regconfig"),
    (4089, "regnamespace"),
    (4096, "regrole"),
    (5077, "anycompatible"),
    (5078, "anycompatiblearray"),
];

/// Turns an oid that the type prints as a name into that name; everything else stays.
pub(crate) fn outward(context: &CatalogContext, ty: &SqlType, value: Value) -> Value {
    let reg = match ty {
        SqlType::Regclass => Reg::Class,
        SqlType::Regproc => Reg::Procedure,
        SqlType::Regtype => Reg::Type,
        _ => return value,
    };
    match value {
        Value::Int(oid) => Value::text(reg_name(context, reg, oid)),
        other => other,
    }
}

/// The name of an object, `-` for 0, the number itself when there is no such object.
pub(crate) fn reg_name(context: &CatalogContext, reg: Reg, oid: i64) -> String {
    if oid == 0 {
        return "-".to_owned();
    }
    let name = match reg {
        Reg::Class => class_name(context, oid),
        Reg::Namespace => context.namespace_name(oid).map(quote_ident),
        Reg::Operator => operator(oid).map(|operator| operator.to_owned()),
        Reg::Procedure => procedure(oid).map(|procedure| quote_ident(procedure.name)),
        Reg::Role => (oid == i64::from(OWNER_OID)).then(|| quote_ident(&context.user)),
        Reg::Type => shown_type(context, oid, -1),
    };
    name.unwrap_or_else(|| oid.to_string())
}

/// The oid of an object written as `reg*` input: a number, `-`, or a name, maybe quoted and with a schema.
/// `None` when nothing has that name.
pub(crate) fn reg_oid(context: &CatalogContext, reg: Reg, text: &str) -> Option<i64> {
    let text = text.trim();
    if text == "-" {
        return Some(0);
    }
    if let Ok(oid) = text.parse::<u32>() {
        return Some(i64::from(oid));
    }
    if reg == Reg::Type {
        return type_oid(text).or_else(|| enum_oid(context, text));
    }
    // regprocedure carries its argument types: `f(integer)`.
    let bare = if reg == Reg::Procedure { text.split('(').next().unwrap_or(text) } else { text };
    let parts = split_name(bare)?;
    let (schema, name) = match parts.as_slice() {
        [name] => (None, name.as_str()),
        [schema, name] => (Some(schema.as_str()), name.as_str()),
        [catalog, schema, name] if *catalog == context.environment => (Some(schema.as_str()), name.as_str()),
        _ => return None,
    };
    match reg {
        Reg::Class => class_oid(context, schema, name),
        Reg::Namespace => context.namespace_oid(name).map(i64::from),
        Reg::Procedure => procedure_named(schema, name).map(|procedure| i64::from(procedure.oid)),
        Reg::Role => (name == context.user).then_some(i64::from(OWNER_OID)),
        Reg::Operator | Reg::Type => None,
    }
}

/// As [`reg_oid`], with the error that a failing cast gives.
pub(crate) fn require_oid(context: &CatalogContext, reg: Reg, text: &str) -> Result<i64> {
    reg_oid(context, reg, text).ok_or_else(|| match reg {
        Reg::Class => Error::new(SqlState::UndefinedTable, format!("relation \"{text}\" does not exist")),
        Reg::Namespace => {
            Error::new(SqlState::InvalidSchemaName, format!("schema \"{text}\" does not exist"))
        }
        Reg::Operator => Error::new(SqlState::UndefinedFunction, format!("operator does not exist: {text}")),
        Reg::Procedure => {
            Error::new(SqlState::UndefinedFunction, format!("function \"{text}\" does not exist"))
        }
        Reg::Role => Error::new(SqlState::UndefinedObject, format!("role \"{text}\" does not exist")),
        Reg::Type => Error::new(SqlState::UndefinedObject, format!("type \"{text}\" does not exist")),
    })
}

fn class_name(context: &CatalogContext, oid: i64) -> Option<String> {
    if let Some(object) = context.object(oid) {
        return Some(context.shown(&object.table().def.schema, &object.name()));
    }
    let shape = shapes().find(|shape| i64::from(shape.relation.oid) == oid)?;
    Some(match shape.relation.schema {
        PG_CATALOG => shape.relation.name.to_owned(),
        schema => format!("{schema}.{}", shape.relation.name),
    })
}

fn class_oid(context: &CatalogContext, schema: Option<&str>, name: &str) -> Option<i64> {
    let of_catalog = |schema: &str| shape(schema, name).map(|shape| i64::from(shape.relation.oid));
    let of_user = || context.object_named(schema, name).map(|object| i64::from(object.oid()));
    match schema {
        None => of_catalog(PG_CATALOG).or_else(of_user),
        Some(schema @ (PG_CATALOG | INFORMATION_SCHEMA)) => of_catalog(schema),
        Some(_) => of_user(),
    }
}

/// What `format_type` prints; `None` for an oid that is no type.
pub(crate) fn type_name(oid: i64, modifier: i32) -> Option<String> {
    let oid = u32::try_from(oid).ok()?;
    match SqlType::from_oid(oid) {
        Some(SqlType::Array(element)) => {
            Some(format!("{}[]", element.as_ref().clone().with_typmod(modifier).display_name()))
        }
        Some(ty) => Some(ty.with_typmod(modifier).display_name()),
        None => FOREIGN_TYPES.iter().find(|(foreign, _)| *foreign == oid).map(|(_, name)| (*name).to_owned()),
    }
}

/// The same, also of a type that somebody made.
pub(crate) fn shown_type(context: &CatalogContext, oid: i64, modifier: i32) -> Option<String> {
    type_name(oid, modifier).or_else(|| {
        let oid = u32::try_from(oid).ok()?;
        let mut types = context.snapshot.enums(&context.environment);
        types.find_map(|ty| {
            let brackets = if oid == ty.array.0 { "[]" } else { "" };
            let is_it = oid == ty.id.0 || oid == ty.array.0;
            is_it.then(|| format!("{}{brackets}", context.shown(&ty.schema, &ty.name)))
        })
    })
}

fn enum_oid(context: &CatalogContext, name: &str) -> Option<i64> {
    let (element, is_array) = match name.trim().strip_suffix("[]") {
        Some(element) => (element, true),
        None => (name, false),
    };
    let parts = split_name(element)?;
    let (schema, name) = match parts.as_slice() {
        [name] => (None, name.as_str()),
        [schema, name] => (Some(schema.as_str()), name.as_str()),
        _ => return None,
    };
    let ty = context.snapshot.find_enum(&context.environment, RelationRef { schema, name })?;
    Some(i64::from(if is_array { ty.array.0 } else { ty.id.0 }))
}

/// The oid of the type with this name, as `to_regtype` reads names.
pub(crate) fn type_oid(name: &str) -> Option<i64> {
    let bare = name.trim().replace('"', "");
    let ty = SqlType::from_name(name).or_else(|| SqlType::from_name(&bare));
    match ty {
        Some(ty) if ty.oid() != 0 => Some(i64::from(ty.oid())),
        _ => {
            let bare = bare.strip_prefix("pg_catalog.").unwrap_or(&bare);
            let foreign = FOREIGN_TYPES.iter().find(|(_, name)| name.trim_matches('"') == bare);
            foreign.map(|(oid, _)| i64::from(*oid))
        }
    }
}

/// The parts of a possibly quoted, possibly qualified name, folded to lower case where not quoted.
pub(crate) fn split_name(text: &str) -> Option<Vec<String>> {
    let mut parts = vec![String::new()];
    let mut chars = text.trim().chars().peekable();
    while let Some(c) = chars.next() {
        let part = parts.last_mut()?;
        match c {
            '.' => parts.push(String::new()),
            '"' => loop {
                match chars.next()? {
                    '"' if chars.next_if_eq(&'"').is_some() => part.push('"'),
                    '"' => break,
                    inside => part.push(inside),
                }
            },
            c => part.extend(c.to_lowercase()),
        }
    }
    parts.iter().all(|part| !part.is_empty()).then_some(parts)
}

/// The identifier as SQL text: quoted only if it must be.
pub fn quote_ident(name: &str) -> String {
    let mut chars = name.chars();
    let plain = chars.next().is_some_and(|c| c.is_ascii_lowercase() || c == '_')
        && chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && RESERVED.binary_search(&name).is_err();
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// The text as an SQL string literal.
pub(crate) fn quote_literal(text: &str) -> String {
    let escaped = text.replace('\'', "''");
    if escaped.contains('\\') {
        format!("E'{}'", escaped.replace('\\', "\\\\"))
    } else {
        format!("'{escaped}'")
    }
}

/// The values of a `name[]`.
pub(crate) fn name_list<'a>(names: impl IntoIterator<Item = &'a str>) -> Value {
    Value::List(names.into_iter().map(Value::text).collect::<Arc<[Value]>>())
}

/// Key words that cannot be a column's name without quotes (PostgreSQL 17 appendix C, reserved and
/// reserved-except-function-or-type), sorted.
pub(crate) const RESERVED: [&str; 101] = [
    "all",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "asymmetric",
    "authorization",
    "binary",
    "both",
    "case",
    "cast",
    "check",
    "collate",
    "collation",
    "column",
    "concurrently",
    "constraint",
    "create",
    "cross",
    "current_catalog",
    "current_date",
    "current_role",
    "current_schema",
    "current_time",
    "current_timestamp",
    "current_user",
    "default",
    "deferrable",
    "desc",
    "distinct",
    "do",
    "else",
    "end",
    "except",
    "false",
    "fetch",
    "for",
    "foreign",
    "freeze",
    "from",
    "full",
    "grant",
    "group",
    "having",
    "ilike",
    "in",
    "initially",
    "inner",
    "intersect",
    "into",
    "is",
    "isnull",
    "join",
    "lateral",
    "leading",
    "left",
    "like",
    "limit",
    "localtime",
    "localtimestamp",
    "natural",
    "not",
    "notnull",
    "null",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "outer",
    "overlaps",
    "placing",
    "primary",
    "references",
    "returning",
    "right",
    "select",
    "session_user",
    "similar",
    "some",
    "symmetric",
    "system_user",
    "table",
    "tablesample",
    "then",
    "to",
    "trailing",
    "true",
    "union",
    "unique",
    "user",
    "using",
    "variadic",
    "verbose",
    "when",
    "where",
    "window",
    "with",
];
