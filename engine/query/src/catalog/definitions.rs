//! Definitions as SQL text: `pg_get_indexdef`, `pg_get_constraintdef`, column defaults.
//!
//! Used by `functions` and `relations`. The text is Postgres' own form, since tools parse it.

use sepal_types::{
    ColumnDef, ColumnId, Generated, IndexMethod, Metric, SqlType, TableDef, UniqueDef, VectorIndexOptions,
    VectorKind,
};

use super::names::{quote_ident, type_name};
use super::objects::{Index, sequence_name};

/// pgvector's defaults: options equal to them are not printed, as if they had not been given.
const DEFAULT_M: u16 = 16;
const DEFAULT_EF_CONSTRUCTION: u16 = 64;
const DEFAULT_LISTS: u32 = 100;

/// `CREATE UNIQUE INDEX items_pkey ON public.items USING btree (id)`.
pub(crate) fn index_definition(table: &TableDef, index: Index<'_>) -> String {
    let unique = if index.unique() { "UNIQUE " } else { "" };
    let columns: Vec<String> =
        (1..=index.columns().len()).filter_map(|place| index_column(table, index, place, true)).collect();
    format!(
        "CREATE {unique}INDEX {} ON {}.{} USING {} ({}){}",
        quote_ident(index.name()),
        quote_ident(&table.schema),
        quote_ident(&table.name),
        index.access_method(),
        columns.join(", "),
        options_clause(index),
    )
}

/// The index's column at a place from 1: its name and, if asked, the operator class that is not the default.
pub(crate) fn index_column(
    table: &TableDef,
    index: Index<'_>,
    place: usize,
    with_opclass: bool,
) -> Option<String> {
    let column = index.columns().get(place.checked_sub(1)?)?;
    let column = table.column_by_id(*column)?;
    let name = quote_ident(&column.name);
    match index {
        Index::Secondary(def) if with_opclass => Some(match &def.method {
            IndexMethod::Vector(options) if !is_default_class(options) => {
                let kind = column.ty.vector_kind().unwrap_or(VectorKind::Single);
                format!("{name} {}", options.metric().opclass_for(kind))
            }
            IndexMethod::Vector(_) | IndexMethod::Scalar { .. } => name,
        }),
        _ => Some(name),
    }
}

/// As in pgvector: L2 is what every method but hnsw takes when no class is named.
const fn is_default_class(options: &VectorIndexOptions) -> bool {
    matches!(
        options,
        VectorIndexOptions::IvfFlat { metric: Metric::L2, .. }
            | VectorIndexOptions::Flat { metric: Metric::L2 }
            | VectorIndexOptions::Graph { metric: Metric::L2, .. }
            | VectorIndexOptions::Faiss { metric: Metric::L2, .. }
    )
}

/// `pg_class.reloptions`: `m=16`, `ef_construction=64`.
pub(crate) fn index_options(index: Index<'_>) -> Vec<(&'static str, String)> {
    let Index::Secondary(def) = index else { return Vec::new() };
    match &def.method {
        IndexMethod::Vector(
            VectorIndexOptions::Hnsw { m, ef_construction, .. }
            | VectorIndexOptions::Graph { m, ef_construction, .. },
        ) => {
            let mut options = Vec::new();
            if *m != DEFAULT_M {
                options.push(("m", m.to_string()));
            }
            if *ef_construction != DEFAULT_EF_CONSTRUCTION {
                options.push(("ef_construction", ef_construction.to_string()));
            }
            options
        }
        IndexMethod::Vector(VectorIndexOptions::IvfFlat { lists, .. }) if *lists != DEFAULT_LISTS => {
            vec![("lists", lists.to_string())]
        }
        IndexMethod::Vector(VectorIndexOptions::Faiss { factory, .. }) => {
            vec![("factory", factory.to_string())]
        }
        IndexMethod::Vector(_) | IndexMethod::Scalar { .. } => Vec::new(),
    }
}

fn options_clause(index: Index<'_>) -> String {
    let options = index_options(index);
    if options.is_empty() {
        return String::new();
    }
    let quoted = |value: &str| value.replace('\'', "''");
    let options: Vec<String> =
        options.iter().map(|(name, value)| format!("{name}='{}'", quoted(value))).collect();
    format!(" WITH ({})", options.join(", "))
}

/// `PRIMARY KEY (id)`, `UNIQUE (a, b)`.
pub(crate) fn constraint_definition(table: &TableDef, unique: &UniqueDef) -> String {
    let kind = if unique.primary { "PRIMARY KEY" } else { "UNIQUE" };
    format!("{kind} ({})", column_list(table, &unique.columns))
}

fn column_list(table: &TableDef, columns: &[ColumnId]) -> String {
    let names: Vec<String> = columns
        .iter()
        .filter_map(|id| table.column_by_id(*id))
        .map(|column| quote_ident(&column.name))
        .collect();
    names.join(", ")
}

/// The DEFAULT of a column as `pg_get_expr` prints it; identity columns have none.
pub(crate) fn column_default(table: &TableDef, column: &ColumnDef) -> Option<String> {
    match column.generated {
        Some(Generated::Serial) => {
            let sequence = quote_ident(&sequence_name(table, column)).replace('\'', "''");
            Some(format!("nextval('{sequence}'::regclass)"))
        }
        Some(Generated::IdentityAlways | Generated::IdentityByDefault) => None,
        None => column.default.as_deref().map(|default| typed_default(default, &column.ty)),
    }
}

/// A string literal is printed with the column's type: `'dd'::text`, `'{}'::integer[]`.
fn typed_default(default: &str, ty: &SqlType) -> String {
    let inner = default.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
    match inner {
        Some(inner) if !inner.replace("''", "").contains('\'') => {
            let name = type_name(i64::from(ty.oid()), -1).unwrap_or_else(|| ty.display_name());
            format!("{default}::{name}")
        }
        _ => default.to_owned(),
    }
}

/// `pg_attribute.attidentity`.
pub(crate) const fn identity(column: &ColumnDef) -> &'static str {
    match column.generated {
        Some(Generated::IdentityAlways) => "a",
        Some(Generated::IdentityByDefault) => "d",
        Some(Generated::Serial) | None => "",
    }
}
