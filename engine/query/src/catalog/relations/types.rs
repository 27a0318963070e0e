//! `pg_type`, `pg_range`, `pg_enum` and `pg_cast`: the types that Sepal has, each with its array type.

use sepal_types::SqlType;
use sepal_types::limits::PUBLIC_NAMESPACE_OID;

use super::super::CatalogContext;
use super::super::objects::OWNER_OID;
use super::super::shape::{Relation, Rows, no_rows};
use super::super::value::Value;
use super::routine::procedure_named;

pub(super) const RELATIONS: &[Relation] = &[
    Relation::catalog(
        "pg_type",
        1247,
        "oid oid, typname name, typnamespace oid, typowner oid, typlen smallint, typbyval boolean, \
         typtype char, typcategory char, typispreferred boolean, typisdefined boolean, typdelim \
         char, typrelid oid, typsubscript regproc, typelem oid, typarray oid, typinput regproc, \
         typoutput regproc, typreceive regproc, typsend regproc, typmodin regproc, typmodout regproc, \
         typanalyze regproc, typalign char, typstorage char, typnotnull boolean, typbasetype oid, \
         typtypmod integer, typndims integer, typcollation oid, typdefaultbin text, typdefault text, \
         typacl text[]",
        types,
    ),
    Relation::catalog(
        "pg_range",
        3541,
        "rngtypid oid, rngsubtype oid, rngmultitypid oid, rngcollation oid, rngsubopc oid, \
         rngcanonical regproc, rngsubdiff regproc",
        no_rows,
    ),
    Relation::catalog("pg_enum", 3501, "oid oid, enumtypid oid, enumsortorder real, enumlabel name", labels),
    Relation::catalog(
        "pg_cast",
        2605,
        "oid oid, castsource oid, casttarget oid, castfunc oid, castcontext char, castmethod char",
        casts,
    ),
];

/// `pg_collation`'s `default`.
const DEFAULT_COLLATION: u32 = 100;
/// `pg_collation`'s `C`, in which names are compared.
const C_COLLATION: u32 = 950;
const CATALOG_NAMESPACE: u32 = 11;

fn types(context: &CatalogContext, rows: &mut Rows) {
    let made = context.snapshot.enums(&context.environment).cloned().map(SqlType::Enum);
    for ty in SqlType::simple_types().chain(made) {
        push(context, rows, &ty);
        let has_array = ty.array_oid() != 0 && ty != SqlType::Unknown;
        if has_array {
            push(context, rows, &SqlType::Array(Box::new(ty)));
        }
    }
}

/// The labels, numbered in their order.
fn labels(context: &CatalogContext, rows: &mut Rows) {
    for ty in context.snapshot.enums(&context.environment) {
        for (label, place) in ty.labels.iter().zip(1_u32..) {
            rows.push([
                ("oid", label.id.0.into()),
                ("enumtypid", ty.id.0.into()),
                ("enumsortorder", f64::from(place).into()),
                ("enumlabel", label.label.as_str().into()),
            ]);
        }
    }
}

fn push(context: &CatalogContext, rows: &mut Rows, ty: &SqlType) {
    let (input, output, receive, send) = in_out_functions(ty);
    let modifier = modifier_functions(ty);
    let kind = match ty {
        SqlType::Unknown | SqlType::Void => "p",
        SqlType::Enum(_) => "e",
        _ => "b",
    };
    let array = match ty {
        SqlType::Array(_) | SqlType::Unknown => 0,
        _ => ty.array_oid(),
    };
    rows.push([
        ("oid", ty.oid().into()),
        ("typname", ty.internal_name().as_ref().into()),
        ("typnamespace", namespace(context, ty).into()),
        ("typowner", OWNER_OID.into()),
        ("typlen", ty.length_bytes().into()),
        ("typbyval", by_value(ty).into()),
        ("typtype", kind.into()),
        ("typcategory", type_category(ty).into()),
        ("typispreferred", is_preferred(ty).into()),
        ("typisdefined", true.into()),
        ("typdelim", ",".into()),
        ("typsubscript", function_oid(subscript(ty))),
        ("typelem", element(ty).into()),
        ("typarray", array.into()),
        ("typinput", function_oid(&input)),
        ("typoutput", function_oid(&output)),
        ("typreceive", function_oid(&receive)),
        ("typsend", function_oid(&send)),
        ("typmodin", function_oid(modifier.0)),
        ("typmodout", function_oid(modifier.1)),
        ("typanalyze", function_oid(if matches!(ty, SqlType::Array(_)) { "array_typanalyze" } else { "-" })),
        ("typalign", alignment(ty).into()),
        ("typstorage", storage(ty).into()),
        ("typtypmod", (-1).into()),
        ("typcollation", collation(ty).into()),
    ]);
}

/// `-` is no function.
fn function_oid(name: &str) -> Value {
    procedure_named(None, name).map_or(0, |procedure| procedure.oid).into()
}

fn namespace(context: &CatalogContext, ty: &SqlType) -> u32 {
    match ty {
        SqlType::Array(element) => namespace(context, element),
        SqlType::Enum(ty) => context.namespace_of(&ty.schema),
        SqlType::HalfVec(_) | SqlType::SparseVec(_) | SqlType::Vector(_) => PUBLIC_NAMESPACE_OID,
        _ => CATALOG_NAMESPACE,
    }
}

/// Input, output, receive and send functions: Postgres names them after the type, old ones without `_`.
fn in_out_functions(ty: &SqlType) -> (String, String, String, String) {
    let underscored = matches!(
        ty,
        SqlType::Array(_)
            | SqlType::Bit(_)
            | SqlType::Date
            | SqlType::Enum(_)
            | SqlType::HalfVec(_)
            | SqlType::Interval
            | SqlType::Json
            | SqlType::Jsonb
            | SqlType::Numeric(_)
            | SqlType::SparseVec(_)
            | SqlType::Time
            | SqlType::Timestamp
            | SqlType::Timestamptz
            | SqlType::Uuid
            | SqlType::Vector(_)
            | SqlType::Void
    );
    let name = match ty {
        SqlType::Array(_) => "array".into(),
        SqlType::Enum(_) => "enum".into(),
        _ => ty.internal_name(),
    };
    let gap = if underscored { "_" } else { "" };
    (
        format!("{name}{gap}in"),
        format!("{name}{gap}out"),
        format!("{name}{gap}recv"),
        format!("{name}{gap}send"),
    )
}

fn modifier_functions(ty: &SqlType) -> (&'static str, &'static str) {
    match ty {
        SqlType::Array(element) => modifier_functions(element),
        SqlType::Bpchar(_) => ("bpchartypmodin", "bpchartypmodout"),
        SqlType::Bit(_) => ("bittypmodin", "bittypmodout"),
        SqlType::Interval => ("intervaltypmodin", "intervaltypmodout"),
        SqlType::Numeric(_) => ("numerictypmodin", "numerictypmodout"),
        SqlType::Time => ("timetypmodin", "timetypmodout"),
        SqlType::Timestamp => ("timestamptypmodin", "timestamptypmodout"),
        SqlType::Timestamptz => ("timestamptztypmodin", "timestamptztypmodout"),
        SqlType::Varchar(_) => ("varchartypmodin", "varchartypmodout"),
        SqlType::HalfVec(_) => ("halfvec_typmod_in", "-"),
        SqlType::Vector(_) => ("vector_typmod_in", "-"),
        SqlType::SparseVec(_) => ("sparsevec_typmod_in", "-"),
        _ => ("-", "-"),
    }
}

fn subscript(ty: &SqlType) -> &'static str {
    match ty {
        SqlType::Array(_) | SqlType::Int2Vector | SqlType::OidVector => "array_subscript_handler",
        SqlType::Jsonb => "jsonb_subscript_handler",
        SqlType::Name => "raw_array_subscript_handler",
        _ => "-",
    }
}

fn element(ty: &SqlType) -> u32 {
    match ty {
        SqlType::Array(element) => element.oid(),
        SqlType::Int2Vector => SqlType::Int2.oid(),
        SqlType::Name => SqlType::Char.oid(),
        SqlType::OidVector => SqlType::Oid.oid(),
        _ => 0,
    }
}

/// PostgreSQL's category of a type. Asked also for the type that several have in common.
pub(crate) const fn type_category(ty: &SqlType) -> &'static str {
    match ty {
        SqlType::Array(_) | SqlType::Int2Vector | SqlType::OidVector => "A",
        SqlType::Bit(_) => "V",
        SqlType::Bool => "B",
        SqlType::Bytea
        | SqlType::HalfVec(_)
        | SqlType::Json
        | SqlType::Jsonb
        | SqlType::SparseVec(_)
        | SqlType::TsQuery
        | SqlType::TsVector
        | SqlType::Uuid
        | SqlType::Vector(_) => "U",
        SqlType::Char => "Z",
        SqlType::Enum(_) => "E",
        SqlType::Date | SqlType::Time | SqlType::Timestamp | SqlType::Timestamptz => "D",
        SqlType::Interval => "T",
        SqlType::Bpchar(_) | SqlType::Name | SqlType::Text | SqlType::Varchar(_) => "S",
        SqlType::Unknown => "X",
        SqlType::Void => "P",
        SqlType::Float4
        | SqlType::Float8
        | SqlType::Int2
        | SqlType::Int4
        | SqlType::Int8
        | SqlType::Numeric(_)
        | SqlType::Oid
        | SqlType::Regclass
        | SqlType::Regproc
        | SqlType::Regtype => "N",
    }
}

/// The type that its category's operators prefer.
pub(crate) const fn is_preferred(ty: &SqlType) -> bool {
    matches!(
        ty,
        SqlType::Bool
            | SqlType::Float8
            | SqlType::Interval
            | SqlType::Oid
            | SqlType::Text
            | SqlType::Timestamptz
    )
}

pub(super) fn by_value(ty: &SqlType) -> bool {
    matches!(ty.length_bytes(), 1 | 2 | 4 | 8)
}

pub(super) fn alignment(ty: &SqlType) -> &'static str {
    match ty {
        SqlType::Array(element) if alignment(element) == "d" => "d",
        SqlType::Array(_) => "i",
        SqlType::Name | SqlType::Unknown | SqlType::Uuid => "c",
        SqlType::Interval => "d",
        _ => match ty.length_bytes() {
            1 => "c",
            2 => "s",
            8 => "d",
            _ => "i",
        },
    }
}

pub(super) fn storage(ty: &SqlType) -> &'static str {
    match ty {
        SqlType::Int2Vector | SqlType::OidVector => "p",
        SqlType::Numeric(_) => "m",
        SqlType::HalfVec(_) | SqlType::SparseVec(_) | SqlType::Vector(_) => "e",
        _ if ty.length_bytes() == -1 => "x",
        _ => "p",
    }
}

pub(super) fn collation(ty: &SqlType) -> u32 {
    match ty {
        SqlType::Array(element) => collation(element),
        SqlType::Name => C_COLLATION,
        SqlType::Bpchar(_) | SqlType::Text | SqlType::Varchar(_) => DEFAULT_COLLATION,
        _ => 0,
    }
}

/// pgvector's casts. No function of `pg_proc` does them here, so none is named.
fn casts(_: &CatalogContext, rows: &mut Rows) {
    let (vector, half) = (SqlType::Vector(None).oid(), SqlType::HalfVec(None).oid());
    let sparse = SqlType::SparseVec(None).oid();
    let array = |element: SqlType| element.array_oid();
    let casts = [
        (vector, vector, "i"),
        (vector, array(SqlType::Float4), "i"),
        (array(SqlType::Int4), vector, "a"),
        (array(SqlType::Float4), vector, "a"),
        (array(SqlType::Float8), vector, "a"),
        (array(SqlType::Numeric(None)), vector, "a"),
        (half, half, "i"),
        (half, vector, "a"),
        (vector, half, "i"),
        (half, array(SqlType::Float4), "a"),
        (array(SqlType::Int4), half, "a"),
        (array(SqlType::Float4), half, "a"),
        (array(SqlType::Float8), half, "a"),
        (array(SqlType::Numeric(None)), half, "a"),
        (sparse, sparse, "i"),
        (sparse, vector, "a"),
        (vector, sparse, "i"),
        (sparse, half, "a"),
        (half, sparse, "i"),
        (array(SqlType::Int4), sparse, "a"),
        (array(SqlType::Float4), sparse, "a"),
        (array(SqlType::Float8), sparse, "a"),
        (array(SqlType::Numeric(None)), sparse, "a"),
    ];
    for (place, (source, target, context)) in (16_480_u32..).zip(casts) {
        rows.push([
            ("oid", place.into()),
            ("castsource", source.into()),
            ("casttarget", target.into()),
            ("castcontext", context.into()),
            ("castmethod", "i".into()),
        ]);
    }
}
