//! `pg_proc`, `pg_operator`, `pg_aggregate`, `pg_language`: what can be called.
//!
//! The list is `procedures.txt`, one function a line:
//! `oid|name|kind|returns a set|volatility|strict|parallel|result type|argument types|arguments as text`.
//! Oids and signatures of built-in functions are Postgres' own, those above 16,000 are the vector types'.
//! Drivers find a type's input function here, `\df` its listing. Functions that Sepal cannot run are left out,
//! except those that other catalogs point to: input and output, operators' functions, handlers.

use std::sync::LazyLock;

use sepal_types::limits::{HALFVEC_OID, PUBLIC_NAMESPACE_OID, SPARSEVEC_OID, VECTOR_OID};

use super::super::CatalogContext;
use super::super::objects::OWNER_OID;
use super::super::shape::{Relation, Rows};
use super::super::value::Value;

pub(super) const RELATIONS: &[Relation] = &[
    Relation::catalog(
        "pg_proc",
        1255,
        "oid oid, proname name, pronamespace oid, proowner oid, prolang oid, procost real, prorows \
         real, provariadic oid, prosupport regproc, prokind char, prosecdef boolean, proleakproof \
         boolean, proisstrict boolean, proretset boolean, provolatile char, proparallel char, \
         pronargs smallint, pronargdefaults smallint, prorettype oid, proargtypes oidvector, \
         proallargtypes oid[], proargmodes char[], proargnames text[], proargdefaults text, \
         protrftypes oid[], prosrc text, probin text, prosqlbody text, proconfig text[], proacl \
         text[]",
        pg_proc,
    ),
    Relation::catalog(
        "pg_operator",
        2617,
        "oid oid, oprname name, oprnamespace oid, oprowner oid, oprkind char, oprcanmerge boolean, \
         oprcanhash boolean, oprleft oid, oprright oid, oprresult oid, oprcom oid, oprnegate oid, \
         oprcode regproc, oprrest regproc, oprjoin regproc",
        pg_operator,
    ),
    Relation::catalog(
        "pg_aggregate",
        2600,
        "aggfnoid regproc, aggkind char, aggnumdirectargs smallint, aggtransfn regproc, aggfinalfn \
         regproc, aggcombinefn regproc, aggserialfn regproc, aggdeserialfn regproc, aggmtransfn \
         regproc, aggminvtransfn regproc, aggmfinalfn regproc, aggfinalextra boolean, aggmfinalextra \
         boolean, aggfinalmodify char, aggmfinalmodify char, aggsortop oid, aggtranstype oid, \
         aggtransspace integer, aggmtranstype oid, aggmtransspace integer, agginitval text, \
         aggminitval text",
        pg_aggregate,
    ),
    Relation::catalog(
        "pg_language",
        2612,
        "oid oid, lanname name, lanowner oid, lanispl boolean, lanpltrusted boolean, lanplcallfoid \
         oid, laninline oid, lanvalidator oid, lanacl text[]",
        pg_language,
    ),
];

/// A function of `pg_proc`.
pub(crate) struct Procedure {
    pub oid: u32,
    pub name: &'static str,
    /// `f` function, `a` aggregate, `w` window function.
    pub kind: &'static str,
    pub returns_set: bool,
    pub volatility: &'static str,
    pub strict: bool,
    pub parallel: &'static str,
    pub result: u32,
    pub arguments: Vec<u32>,
    /// As `pg_get_function_arguments` prints them.
    pub arguments_text: &'static str,
    pub namespace: u32,
}

/// An operator of `pg_operator`; ours take two vectors.
pub(crate) struct Operator {
    pub oid: u32,
    pub name: &'static str,
    /// The type of both sides.
    pub operand: u32,
    pub result: u32,
    /// The function behind it.
    pub function: &'static str,
}

const FIRST_OWN_OID: u32 = 16_000;
const INTERNAL_LANGUAGE: u32 = 12;
const C_LANGUAGE: u32 = 13;
const BIT: u32 = 1560;
const BOOL: u32 = 16;
const FLOAT8: u32 = 701;
const TEXT: u32 = 25;
const TSQUERY: u32 = 3_615;
const TSVECTOR: u32 = 3_614;

static PROCEDURES: LazyLock<Vec<Procedure>> =
    LazyLock::new(|| include_str!("procedures.txt").lines().filter_map(parse).collect());

/// `(name, result, function)` of what two vectors of a kind give; `None` is a vector of theirs.
const OPERATORS: [(&str, Option<u32>, [&str; 2]); 14] = [
    ("<->", Some(FLOAT8), ["l2_distance", "l2_distance"]),
    ("<#>", Some(FLOAT8), ["vector_negative_inner_product", "halfvec_negative_inner_product"]),
    ("<=>", Some(FLOAT8), ["cosine_distance", "cosine_distance"]),
    ("<+>", Some(FLOAT8), ["l1_distance", "l1_distance"]),
    ("+", None, ["vector_add", "halfvec_add"]),
    ("-", None, ["vector_sub", "halfvec_sub"]),
    ("*", None, ["vector_mul", "halfvec_mul"]),
    ("||", None, ["vector_concat", "halfvec_concat"]),
    ("<", Some(BOOL), ["vector_lt", "halfvec_lt"]),
    ("<=", Some(BOOL), ["vector_le", "halfvec_le"]),
    ("=", Some(BOOL), ["vector_eq", "halfvec_eq"]),
    ("<>", Some(BOOL), ["vector_ne", "halfvec_ne"]),
    (">=", Some(BOOL), ["vector_ge", "halfvec_ge"]),
    (">", Some(BOOL), ["vector_gt", "halfvec_gt"]),
];

/// The oids of the first operators over `vector` and `halfvec`.
const FIRST_OPERATORS: [(u32, u32); 2] = [(16_500, VECTOR_OID), (16_520, HALFVEC_OID)];

/// `(oid, name, function)` of those over bit strings.
const BIT_OPERATORS: [(u32, &str, &str); 2] =
    [(16_540, "<~>", "hamming_distance"), (16_541, "<%>", "jaccard_distance")];

/// The oid of the first operator over `sparsevec`.
const FIRST_SPARSE_OPERATOR: u32 = 16_560;

/// `(name, result, function)` of those.
const SPARSE_OPERATORS: [(&str, u32, &str); 10] = [
    ("<->", FLOAT8, "l2_distance"),
    ("<#>", FLOAT8, "sparsevec_negative_inner_product"),
    ("<=>", FLOAT8, "cosine_distance"),
    ("<+>", FLOAT8, "l1_distance"),
    ("<", BOOL, "sparsevec_lt"),
    ("<=", BOOL, "sparsevec_le"),
    ("=", BOOL, "sparsevec_eq"),
    ("<>", BOOL, "sparsevec_ne"),
    (">=", BOOL, "sparsevec_ge"),
    (">", BOOL, "sparsevec_gt"),
];

/// `(oid, name, left or 0, right, result, function)` of full-text search's, as PostgreSQL has them.
const TEXT_SEARCH_OPERATORS: [(u32, &str, u32, u32, u32, &str); 8] = [
    (3_633, "||", TSVECTOR, TSVECTOR, TSVECTOR, "tsvector_concat"),
    (3_636, "@@", TSVECTOR, TSQUERY, BOOL, "ts_match_vq"),
    (3_637, "@@", TSQUERY, TSVECTOR, BOOL, "ts_match_qv"),
    (3_680, "&&", TSQUERY, TSQUERY, TSQUERY, "tsquery_and"),
    (3_681, "||", TSQUERY, TSQUERY, TSQUERY, "tsquery_or"),
    (3_682, "!!", 0, TSQUERY, TSQUERY, "tsquery_not"),
    (3_763, "@@", TEXT, TSQUERY, BOOL, "ts_match_tq"),
    (5_005, "<->", TSQUERY, TSQUERY, TSQUERY, "tsquery_phrase"),
];

static ALL_OPERATORS: LazyLock<Vec<Operator>> = LazyLock::new(|| {
    let kinds = FIRST_OPERATORS.into_iter().enumerate();
    let of_kind = |(kind, (first, operand)): (usize, (u32, u32))| {
        (first..).zip(OPERATORS).map(move |(oid, (name, result, functions))| Operator {
            oid,
            name,
            operand,
            result: result.unwrap_or(operand),
            function: functions[kind],
        })
    };
    let of_bits = |(oid, name, function)| Operator { oid, name, operand: BIT, result: FLOAT8, function };
    let of_sparse =
        |(oid, (name, result, function))| Operator { oid, name, operand: SPARSEVEC_OID, result, function };
    let sparse = (FIRST_SPARSE_OPERATOR..).zip(SPARSE_OPERATORS).map(of_sparse);
    kinds.flat_map(of_kind).chain(BIT_OPERATORS.map(of_bits)).chain(sparse).collect()
});

fn parse(line: &'static str) -> Option<Procedure> {
    let mut parts = line.splitn(10, '|');
    let oid = parts.next()?.parse().ok()?;
    Some(Procedure {
        oid,
        name: parts.next()?,
        kind: parts.next()?,
        returns_set: parts.next()? == "t",
        volatility: parts.next()?,
        strict: parts.next()? == "t",
        parallel: parts.next()?,
        result: parts.next()?.parse().ok()?,
        arguments: parts.next()?.split_whitespace().filter_map(|oid| oid.parse().ok()).collect(),
        arguments_text: parts.next()?,
        namespace: if oid < FIRST_OWN_OID { 11 } else { PUBLIC_NAMESPACE_OID },
    })
}

/// Every function, by oid.
pub(crate) fn procedures() -> &'static [Procedure] {
    &PROCEDURES
}

/// Every operator.
pub(crate) fn operators() -> &'static [Operator] {
    &ALL_OPERATORS
}

pub(crate) fn procedure(oid: i64) -> Option<&'static Procedure> {
    procedures().iter().find(|procedure| i64::from(procedure.oid) == oid)
}

/// The first function with this name, in the named schema or on the search path.
pub(crate) fn procedure_named(schema: Option<&str>, name: &str) -> Option<&'static Procedure> {
    let namespace = match schema {
        None => None,
        Some("pg_catalog") => Some(11),
        Some("public") => Some(PUBLIC_NAMESPACE_OID),
        Some(_) => return None,
    };
    procedures().iter().find(|procedure| {
        procedure.name == name && namespace.is_none_or(|namespace| namespace == procedure.namespace)
    })
}

/// The name of an operator.
pub(crate) fn operator(oid: i64) -> Option<&'static str> {
    let found = operators().iter().find(|operator| i64::from(operator.oid) == oid);
    found.map(|operator| operator.name).or_else(|| {
        let mut others = TEXT_SEARCH_OPERATORS.into_iter();
        others.find(|operator| i64::from(operator.0) == oid).map(|operator| operator.1)
    })
}

fn pg_proc(_: &CatalogContext, rows: &mut Rows) {
    for procedure in procedures() {
        let builtin = procedure.oid < FIRST_OWN_OID;
        rows.push([
            ("oid", procedure.oid.into()),
            ("proname", procedure.name.into()),
            ("pronamespace", procedure.namespace.into()),
            ("proowner", OWNER_OID.into()),
            ("prolang", if builtin { INTERNAL_LANGUAGE } else { C_LANGUAGE }.into()),
            ("procost", 1.0.into()),
            ("prorows", if procedure.returns_set { 1000.0 } else { 0.0 }.into()),
            ("prokind", procedure.kind.into()),
            ("proisstrict", procedure.strict.into()),
            ("proretset", procedure.returns_set.into()),
            ("provolatile", procedure.volatility.into()),
            ("proparallel", procedure.parallel.into()),
            ("pronargs", procedure.arguments.len().into()),
            ("prorettype", procedure.result.into()),
            ("proargtypes", Value::list(procedure.arguments.iter().copied())),
            ("prosrc", procedure.name.into()),
        ]);
    }
}

fn pg_operator(_: &CatalogContext, rows: &mut Rows) {
    for operator in operators() {
        let takes = [operator.operand; 2];
        let found = procedures().iter().find(|procedure| {
            procedure.name == operator.function
                && procedure.namespace == PUBLIC_NAMESPACE_OID
                && procedure.arguments == takes
        });
        let function = found.map_or(0, |found| found.oid);
        rows.push([
            ("oid", operator.oid.into()),
            ("oprname", operator.name.into()),
            ("oprnamespace", PUBLIC_NAMESPACE_OID.into()),
            ("oprowner", OWNER_OID.into()),
            ("oprkind", "b".into()),
            ("oprleft", operator.operand.into()),
            ("oprright", operator.operand.into()),
            ("oprresult", operator.result.into()),
            ("oprcode", function.into()),
        ]);
    }
    for (oid, name, left, right, result, function) in TEXT_SEARCH_OPERATORS {
        rows.push([
            ("oid", oid.into()),
            ("oprname", name.into()),
            ("oprnamespace", 11.into()),
            ("oprowner", OWNER_OID.into()),
            ("oprkind", if left == 0 { "l" } else { "b" }.into()),
            ("oprleft", left.into()),
            ("oprright", right.into()),
            ("oprresult", result.into()),
            ("oprcode", procedure_named(Some("pg_catalog"), function).map_or(0, |found| found.oid).into()),
        ]);
    }
}

fn pg_aggregate(_: &CatalogContext, rows: &mut Rows) {
    for procedure in procedures().iter().filter(|procedure| procedure.kind == "a") {
        rows.push([
            ("aggfnoid", procedure.oid.into()),
            ("aggkind", "n".into()),
            ("aggfinalmodify", "r".into()),
            ("aggmfinalmodify", "r".into()),
            ("aggtranstype", procedure.result.into()),
        ]);
    }
}

fn pg_language(_: &CatalogContext, rows: &mut Rows) {
    for (oid, name, trusted) in
        [(INTERNAL_LANGUAGE, "internal", false), (C_LANGUAGE, "c", false), (14, "sql", true)]
    {
        rows.push([
            ("oid", oid.into()),
            ("lanname", name.into()),
            ("lanowner", OWNER_OID.into()),
            ("lanpltrusted", trusted.into()),
        ]);
    }
}
