//! `pg_index`, `pg_am`, `pg_opclass`, `pg_opfamily`: indexes and what they are made with.

use sepal_types::limits::{HALFVEC_OID, PUBLIC_NAMESPACE_OID, SPARSEVEC_OID, VECTOR_OID};
use sepal_types::{BitMetric, IndexKey, KeySource, Measure, Metric, SqlType, TableDef, VectorKind};

use super::super::CatalogContext;
use super::super::objects::{Index, OWNER_OID, attribute_number, indexes};
use super::super::shape::{Relation, Rows};
use super::super::value::Value;
use super::types::collation;

pub(super) const RELATIONS: &[Relation] = &[
    Relation::catalog(
        "pg_index",
        2610,
        "indexrelid oid, indrelid oid, indnatts smallint, indnkeyatts smallint, indisunique boolean, \
         indnullsnotdistinct boolean, indisprimary boolean, indisexclusion boolean, indimmediate \
         boolean, indisclustered boolean, indisvalid boolean, indcheckxmin boolean, indisready \
         boolean, indislive boolean, indisreplident boolean, indkey int2vector, indcollation \
         oidvector, indclass oidvector, indoption int2vector, indexprs text, indpred text",
        pg_index,
    ),
    Relation::catalog("pg_am", 2601, "oid oid, amname name, amhandler regproc, amtype char", access_methods),
    Relation::catalog(
        "pg_opclass",
        2616,
        "oid oid, opcmethod oid, opcname name, opcnamespace oid, opcowner oid, opcfamily oid, \
         opcintype oid, opcdefault boolean, opckeytype oid",
        operator_classes,
    ),
    Relation::catalog(
        "pg_opfamily",
        2753,
        "oid oid, opfmethod oid, opfname name, opfnamespace oid, opfowner oid",
        operator_families,
    ),
];

/// `(oid, name, handler's oid, type)`; ours have fixed oids beside the vector type's.
const ACCESS_METHODS: [(u32, &str, u32, &str); 9] = [
    (2, "heap", 3, "t"),
    (403, "btree", 330, "i"),
    (405, "hash", 331, "i"),
    (2742, "gin", 333, "i"),
    (16_390, "hnsw", 16_435, "i"),
    (16_391, "ivfflat", 16_436, "i"),
    (16_392, "flat", 16_437, "i"),
    (16_393, "graph", 16_438, "i"),
    (16_394, "faiss", 16_439, "i"),
];

/// `(oid, access method, name, input type, default)` of the built-in operator classes for our types.
const OPERATOR_CLASSES: [(u32, u32, &str, u32, bool); 49] = [
    (4_217, 403, "text_pattern_ops", 25, false),
    (4_218, 403, "varchar_pattern_ops", 25, false),
    (4_219, 403, "bpchar_pattern_ops", 1042, false),
    (10_003, 403, "bool_ops", 16, true),
    (10_006, 403, "bytea_ops", 17, true),
    (10_007, 403, "char_ops", 18, true),
    (10_028, 403, "name_ops", 19, true),
    (3_124, 403, "int8_ops", 20, true),
    (1_979, 403, "int2_ops", 21, true),
    (1_978, 403, "int4_ops", 23, true),
    (3_126, 403, "text_ops", 25, true),
    (10_044, 403, "varchar_ops", 25, false),
    (1_981, 403, "oid_ops", 26, true),
    (10_012, 403, "float4_ops", 700, true),
    (3_123, 403, "float8_ops", 701, true),
    (3_122, 403, "date_ops", 1082, true),
    (10_038, 403, "time_ops", 1083, true),
    (3_128, 403, "timestamp_ops", 1114, true),
    (3_127, 403, "timestamptz_ops", 1184, true),
    (10_022, 403, "interval_ops", 1186, true),
    (3_125, 403, "numeric_ops", 1700, true),
    (10_000, 403, "array_ops", 2277, true),
    (10_065, 403, "uuid_ops", 2950, true),
    (10_088, 403, "jsonb_ops", 3802, true),
    (10_048, 405, "bool_ops", 16, true),
    (10_049, 405, "bytea_ops", 17, true),
    (10_008, 405, "char_ops", 18, true),
    (10_029, 405, "name_ops", 19, true),
    (10_021, 405, "int8_ops", 20, true),
    (10_019, 405, "int2_ops", 21, true),
    (10_020, 405, "int4_ops", 23, true),
    (10_037, 405, "text_ops", 25, true),
    (10_031, 405, "oid_ops", 26, true),
    (10_013, 405, "float4_ops", 700, true),
    (10_014, 405, "float8_ops", 701, true),
    (10_011, 405, "date_ops", 1082, true),
    (10_039, 405, "time_ops", 1083, true),
    (10_046, 405, "timestamp_ops", 1114, true),
    (10_040, 405, "timestamptz_ops", 1184, true),
    (10_023, 405, "interval_ops", 1186, true),
    (10_030, 405, "numeric_ops", 1700, true),
    (10_001, 405, "array_ops", 2277, true),
    (10_066, 405, "uuid_ops", 2950, true),
    (10_064, 2742, "array_ops", 2277, true),
    (10_090, 2742, "jsonb_ops", 3802, true),
    (10_091, 2742, "jsonb_path_ops", 3802, false),
    (10_071, 403, "tsvector_ops", 3614, true),
    (10_073, 2742, "tsvector_ops", 3614, true),
    (10_074, 403, "tsquery_ops", 3615, true),
];

/// The class of every array type.
const ANY_ARRAY: u32 = 2277;
/// First of the fixed oids of vector operator classes, four for each vector access method.
const FIRST_VECTOR_CLASS: u32 = 16_600;
/// `vector_ops`, with which a vector column can have a btree.
const VECTOR_BTREE_CLASS: u32 = 16_620;
/// The same of `halfvec`. Far enough above that no class meets another's family.
const FIRST_HALFVEC_CLASS: u32 = 16_700;
const HALFVEC_BTREE_CLASS: u32 = 16_720;
/// Those of `bit`, two for each vector access method, above the families of the others.
const FIRST_BIT_CLASS: u32 = 16_800;
/// The first of those of `sparsevec`, one a metric, which only hnsw has.
const FIRST_SPARSEVEC_CLASS: u32 = 16_900;
const SPARSEVEC_BTREE_CLASS: u32 = 16_920;
/// Each class has a family of its own, this far above it.
const FAMILY_DISTANCE: u32 = 40;
pub(super) const VECTOR_METHODS: [u32; 5] = [16_390, 16_391, 16_392, 16_393, 16_394];

/// Of these, ivfflat and faiss, which have no taxicab distance.
const CELLS: [u32; 2] = [16_391, 16_394];

const _: () = assert!(FIRST_VECTOR_CLASS + 4 * VECTOR_METHODS.len() as u32 <= VECTOR_BTREE_CLASS);

/// The oid in `pg_am`; 0 for an unknown name.
pub(super) fn access_method_oid(name: &str) -> u32 {
    ACCESS_METHODS.iter().find(|(_, candidate, ..)| *candidate == name).map_or(0, |(oid, ..)| *oid)
}

/// The name in `pg_am`.
pub(crate) fn access_method_name(oid: i64) -> Option<&'static str> {
    ACCESS_METHODS.iter().find(|(candidate, ..)| i64::from(*candidate) == oid).map(|(_, name, ..)| *name)
}

fn pg_index(context: &CatalogContext, rows: &mut Rows) {
    for table in context.tables() {
        for index in indexes(&table.def) {
            let keys = index.keys();
            let typed: Vec<(&IndexKey, &SqlType)> =
                keys.iter().filter_map(|key| Some((key, key_type(&table.def, key)?))).collect();
            let numbers = keys.iter().map(|key| match key.of {
                KeySource::Column(column) => attribute_number(&table.def, column),
                KeySource::Expression { .. } => 0,
            });
            let included = index.included().iter().map(|column| attribute_number(&table.def, *column));
            let expressions: Vec<&str> = keys.iter().filter_map(expression).collect();
            rows.push([
                ("indexrelid", index.oid().into()),
                ("indrelid", table.def.id.0.into()),
                ("indnatts", (keys.len() + index.included().len()).into()),
                ("indnkeyatts", keys.len().into()),
                ("indisunique", index.unique().into()),
                ("indisprimary", index.primary().into()),
                ("indimmediate", true.into()),
                ("indisvalid", index.valid().into()),
                ("indisready", true.into()),
                ("indislive", true.into()),
                ("indkey", Value::list(numbers.chain(included))),
                ("indcollation", Value::list(typed.iter().map(|(_, ty)| collation(ty)))),
                ("indclass", Value::list(typed.iter().map(|(key, ty)| operator_class(index, key, ty)))),
                ("indoption", Value::list(keys.iter().map(order))),
                ("indexprs", (!expressions.is_empty()).then(|| expressions.join(", ")).into()),
                ("indpred", index.clauses().and_then(|clauses| clauses.predicate.clone()).into()),
            ]);
        }
    }
}

fn key_type<'a>(table: &'a TableDef, key: &'a IndexKey) -> Option<&'a SqlType> {
    match &key.of {
        KeySource::Column(column) => table.column_by_id(*column).map(|column| &column.ty),
        KeySource::Expression { ty, .. } => Some(ty),
    }
}

fn expression(key: &IndexKey) -> Option<&str> {
    match &key.of {
        KeySource::Expression { text, .. } => Some(text),
        KeySource::Column(_) => None,
    }
}

/// `INDOPTION_DESC` and `INDOPTION_NULLS_FIRST`.
fn order(key: &IndexKey) -> i16 {
    i16::from(key.descending) | (i16::from(key.nulls_first) << 1)
}

fn operator_class(index: Index<'_>, key: &IndexKey, ty: &SqlType) -> u32 {
    let method = access_method_oid(index.access_method());
    if let Index::Secondary(def) = index
        && let Some(measure) = def.measure()
    {
        return match measure {
            Measure::Vectors(metric) | Measure::Halves(metric) => {
                vector_class(method, metric, ty.vector_kind().unwrap_or(VectorKind::Single))
            }
            Measure::Bits(metric) | Measure::Signs(metric) => bit_class(method, metric),
        };
    }
    if let Some(metric) = key.class.as_deref().and_then(Metric::from_sparse_opclass) {
        return sparse_class(metric);
    }
    let named = key
        .class
        .as_deref()
        .and_then(|class| OPERATOR_CLASSES.iter().find(|(_, am, name, ..)| *am == method && *name == class));
    if let Some((oid, ..)) = named {
        return *oid;
    }
    let input = match ty {
        SqlType::Array(_) => ANY_ARRAY,
        SqlType::Bpchar(_) | SqlType::Varchar(_) => SqlType::Text.oid(),
        SqlType::HalfVec(_) => return HALFVEC_BTREE_CLASS,
        SqlType::Vector(_) => return VECTOR_BTREE_CLASS,
        SqlType::SparseVec(_) => return SPARSEVEC_BTREE_CLASS,
        other => other.oid(),
    };
    let class =
        OPERATOR_CLASSES.iter().find(|(_, am, _, of, default)| *am == method && *of == input && *default);
    class.map_or(0, |(oid, ..)| *oid)
}

fn vector_class(method: u32, metric: Metric, kind: VectorKind) -> u32 {
    let method = place(VECTOR_METHODS.iter().position(|candidate| *candidate == method));
    let first = match kind {
        VectorKind::Half => FIRST_HALFVEC_CLASS,
        VectorKind::Single => FIRST_VECTOR_CLASS,
    };
    first + method * 4 + place(Metric::ALL.iter().position(|candidate| *candidate == metric))
}

fn bit_class(method: u32, metric: BitMetric) -> u32 {
    let method = place(VECTOR_METHODS.iter().position(|candidate| *candidate == method));
    FIRST_BIT_CLASS + method * 2 + place(BitMetric::ALL.iter().position(|candidate| *candidate == metric))
}

fn place(found: Option<usize>) -> u32 {
    found.and_then(|place| u32::try_from(place).ok()).unwrap_or(0)
}

fn sparse_class(metric: Metric) -> u32 {
    let place = Metric::ALL.iter().position(|candidate| *candidate == metric);
    FIRST_SPARSEVEC_CLASS + place.and_then(|place| u32::try_from(place).ok()).unwrap_or(0)
}

fn access_methods(_: &CatalogContext, rows: &mut Rows) {
    for (oid, name, handler, kind) in ACCESS_METHODS {
        rows.push([
            ("oid", oid.into()),
            ("amname", name.into()),
            ("amhandler", handler.into()),
            ("amtype", kind.into()),
        ]);
    }
}

/// `(oid, access method, name, namespace, input type, default)` of every operator class.
fn all_classes() -> impl Iterator<Item = (u32, u32, &'static str, u32, u32, bool)> {
    let ours = VectorKind::ALL.into_iter().flat_map(|kind| VECTOR_METHODS.map(|method| (kind, method)));
    let ours = ours.flat_map(|(kind, method)| {
        let takes = move |metric: &Metric| !CELLS.contains(&method) || *metric != Metric::L1;
        Metric::ALL.into_iter().filter(takes).map(move |metric| {
            // As in pgvector: L2 is what every method but hnsw takes when no class is named.
            let default = method != VECTOR_METHODS[0] && metric == Metric::L2;
            (
                vector_class(method, metric, kind),
                method,
                metric.opclass_for(kind),
                PUBLIC_NAMESPACE_OID,
                kind.sql_type(None).oid(),
                default,
            )
        })
    });
    // As in pgvector, which has none of them as the default, and no cells by Jaccard. Ours has none for FAISS.
    let bits = VECTOR_METHODS.into_iter().filter(|method| *method != CELLS[1]).flat_map(|method| {
        let takes = move |metric: &BitMetric| method != CELLS[0] || *metric == BitMetric::Hamming;
        BitMetric::ALL.into_iter().filter(takes).map(move |metric| {
            let oid = bit_class(method, metric);
            (oid, method, metric.opclass(), PUBLIC_NAMESPACE_OID, SqlType::Bit(None).oid(), false)
        })
    });
    let btree = [
        (VECTOR_BTREE_CLASS, 403, "vector_ops", PUBLIC_NAMESPACE_OID, VECTOR_OID, true),
        (HALFVEC_BTREE_CLASS, 403, "halfvec_ops", PUBLIC_NAMESPACE_OID, HALFVEC_OID, true),
        (SPARSEVEC_BTREE_CLASS, 403, "sparsevec_ops", PUBLIC_NAMESPACE_OID, SPARSEVEC_OID, true),
    ];
    let sparse = Metric::ALL.map(|metric| {
        let (class, name) = (sparse_class(metric), metric.sparse_opclass());
        (class, VECTOR_METHODS[0], name, PUBLIC_NAMESPACE_OID, SPARSEVEC_OID, false)
    });
    OPERATOR_CLASSES
        .into_iter()
        .map(|(oid, method, name, input, default)| (oid, method, name, 11, input, default))
        .chain(ours)
        .chain(bits)
        .chain(btree)
        .chain(sparse)
}

fn operator_classes(_: &CatalogContext, rows: &mut Rows) {
    for (oid, method, name, namespace, input, default) in all_classes() {
        rows.push([
            ("oid", oid.into()),
            ("opcmethod", method.into()),
            ("opcname", name.into()),
            ("opcnamespace", namespace.into()),
            ("opcowner", OWNER_OID.into()),
            ("opcfamily", (oid + FAMILY_DISTANCE).into()),
            ("opcintype", input.into()),
            ("opcdefault", default.into()),
        ]);
    }
}

fn operator_families(_: &CatalogContext, rows: &mut Rows) {
    for (oid, method, name, namespace, _, _) in all_classes() {
        rows.push([
            ("oid", (oid + FAMILY_DISTANCE).into()),
            ("opfmethod", method.into()),
            ("opfname", name.into()),
            ("opfnamespace", namespace.into()),
            ("opfowner", OWNER_OID.into()),
        ]);
    }
}
