//! Definitions as SQL text: `pg_get_indexdef`, `pg_get_constraintdef`, column defaults.
//!
//! Used by `functions` and `relations`. The text is Postgres' own form, since tools parse it.

use std::borrow::Cow;

use sepal_types::{
    ColumnDef, ColumnId, Generated, IndexMethod, KeySource, Measure, Metric, PUBLIC_SCHEMA, SqlType,
    TableDef, UniqueDef, VectorIndexOptions, VectorKind,
};

use super::CatalogContext;
use super::names::{quote_ident, shown_type};
use super::objects::Index;
use crate::functions::sequence_reference;

/// pgvector's defaults: options equal to them are not printed, as if they had not been given.
const DEFAULT_M: u16 = 16;
const DEFAULT_EF_CONSTRUCTION: u16 = 64;
const DEFAULT_LISTS: u32 = 100;

/// `CREATE UNIQUE INDEX items_pkey ON public.items USING btree (id)`; to be read, with the schema only where that is
/// needed, and without the outermost parentheses of expressions.
pub(crate) fn index_definition(
    context: &CatalogContext,
    table: &TableDef,
    index: Index<'_>,
    pretty: bool,
) -> String {
    let name = match pretty {
        true => context.shown(&table.schema, &table.name),
        false => format!("{}.{}", quote_ident(&table.schema), quote_ident(&table.name)),
    };
    let print = if pretty { IndexText::WholePretty } else { IndexText::Whole };
    let unique = if index.unique() { "UNIQUE " } else { "" };
    let columns: Vec<String> =
        (1..=index.keys().len()).filter_map(|place| index_column(table, index, place, print)).collect();
    let include = match index.included() {
        [] => String::new(),
        columns => format!(" INCLUDE ({})", column_list(table, columns)),
    };
    let predicate = index.clauses().and_then(|clauses| clauses.predicate.as_ref());
    let predicate = predicate.map(|text| if pretty { unwrapped(text) } else { text.as_str() });
    let predicate = predicate.map(|text| format!(" WHERE {text}")).unwrap_or_default();
    format!(
        "CREATE {unique}INDEX {} ON {name} USING {} ({}){include}{}{predicate}",
        quote_ident(index.name()),
        index.access_method(),
        columns.join(", "),
        options_clause(index),
    )
}

/// How much of an index's key is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IndexText {
    Key,
    KeyPretty,
    /// With the operator class that is not the default, and the order.
    Whole,
    WholePretty,
}

/// Without parentheses around the whole.
pub(crate) fn unwrapped(text: &str) -> &str {
    let Some(inner) = text.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')) else { return text };
    let (mut depth, mut quoted) = (0_u32, None);
    for c in inner.chars() {
        match (quoted, c) {
            (None, '\'' | '"') => quoted = Some(c),
            (Some(quote), _) if quote == c => quoted = None,
            (None, '(') => depth += 1,
            (None, ')') if depth == 0 => return text,
            (None, ')') => depth -= 1,
            _ => {}
        }
    }
    inner
}

/// `(embedding)::halfvec(3)` without parentheses around what is cast, where that is a name or a call.
fn plain_cast(text: &str) -> Cow<'_, str> {
    let simple = |operand: &str| {
        let name = operand.split_once('(').map_or(operand, |(name, _)| name);
        let call = operand.len() == name.len() || operand.find(')') == Some(operand.len() - 1);
        call && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    match text.strip_prefix('(').and_then(|rest| rest.rsplit_once(")::")) {
        Some((operand, ty)) if simple(operand) => Cow::Owned(format!("{operand}::{ty}")),
        _ => Cow::Borrowed(text),
    }
}

/// The index's key or included column at a place from 1.
pub(crate) fn index_column(
    table: &TableDef,
    index: Index<'_>,
    place: usize,
    print: IndexText,
) -> Option<String> {
    let keys = index.keys();
    let place = place.checked_sub(1)?;
    let Some(key) = keys.get(place) else {
        let included = index.included().get(place - keys.len())?;
        return table.column_by_id(*included).map(|column| quote_ident(&column.name));
    };
    let mut text = match &key.of {
        KeySource::Column(column) => quote_ident(&table.column_by_id(*column)?.name),
        // All but a call is in parentheses.
        KeySource::Expression { text, .. } if text.starts_with('(') => match print {
            IndexText::KeyPretty | IndexText::WholePretty => format!("({})", plain_cast(unwrapped(text))),
            IndexText::Key | IndexText::Whole => format!("({text})"),
        },
        KeySource::Expression { text, .. } => text.clone(),
    };
    if matches!(print, IndexText::Key | IndexText::KeyPretty) {
        return Some(text);
    }
    let of_vector = vector_class(table, index);
    if let Some(class) = key.class.as_deref().or(of_vector) {
        text = format!("{text} {class}");
    }
    match (key.descending, key.nulls_first) {
        (false, false) => {}
        (false, true) => text.push_str(" NULLS FIRST"),
        (true, true) => text.push_str(" DESC"),
        (true, false) => text.push_str(" DESC NULLS LAST"),
    }
    Some(text)
}

/// The operator class of a vector index, where it is not the default.
fn vector_class(table: &TableDef, index: Index<'_>) -> Option<&'static str> {
    let Index::Secondary(def) = index else { return None };
    let IndexMethod::Vector(options) = &def.method else { return None };
    let column = table.column_by_id(*def.columns.first()?)?;
    let class = match def.measure()? {
        Measure::Vectors(metric) => metric.opclass_for(column.ty.vector_kind().unwrap_or(VectorKind::Single)),
        of_expression => of_expression.opclass(),
    };
    (!is_default_class(options)).then_some(class)
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

/// `pg_class.reloptions`: `m=16`, `ef_construction=64`, as they were written. Of an index that was made before that was
/// kept: those that are not the defaults.
pub(crate) fn index_options(index: Index<'_>) -> Vec<(&str, String)> {
    if let Some(clauses) = index.clauses().filter(|clauses| !clauses.options.is_empty()) {
        return clauses.options.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    }
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

/// The DEFAULT of a column, or a generated one's expression, as `pg_get_expr` prints it; identity columns have none.
pub(crate) fn column_default(
    context: &CatalogContext,
    table: &TableDef,
    column: &ColumnDef,
) -> Option<String> {
    match column.generated {
        Some(Generated::Serial) => {
            let sequence = context.shown(&table.schema, &table.sequence_name(column)).replace('\'', "''");
            Some(format!("nextval('{sequence}'::regclass)"))
        }
        Some(
            Generated::IdentityAlways
            | Generated::IdentityByDefault
            | Generated::Sequence
            | Generated::Schema
            | Generated::Type,
        ) => None,
        Some(Generated::Stored) => crate::ddl::generation_expression(table, column),
        None => column.default.as_deref().map(|default| typed_default(context, default, &column.ty)),
    }
}

/// A string literal is printed with the column's type: `'dd'::text`, `'{}'::integer[]`.
fn typed_default(context: &CatalogContext, default: &str, ty: &SqlType) -> String {
    let inner = default.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
    match inner {
        Some(inner) if !inner.replace("''", "").contains('\'') => {
            let name = shown_type(context, i64::from(ty.oid()), -1).unwrap_or_else(|| ty.display_name());
            format!("{default}::{name}")
        }
        _ => with_regclass(context, default),
    }
}

/// Sequences are stored by their names ([`crate::ddl::sequence_call`]); Postgres shows `nextval('s'::regclass)`.
fn with_regclass(context: &CatalogContext, default: &str) -> String {
    const CALL: &str = "nextval('";
    let mut shown = String::new();
    let mut rest = default;
    while let Some(at) = rest.find(CALL) {
        let (before, name) = rest.split_at(at + CALL.len());
        // A quote within the name is doubled.
        let end = name.replace("''", "xx").find('\'').map_or(name.len(), |end| end + 1);
        let (name, after) = name.split_at(end);
        let name = shown_sequence(context, name).unwrap_or_else(|| name.to_owned());
        shown = format!("{shown}{before}{name}::regclass");
        rest = after;
    }
    format!("{shown}{rest}")
}

/// A stored name with the quote after it, as the search path has it shown.
fn shown_sequence(context: &CatalogContext, stored: &str) -> Option<String> {
    let name = sequence_reference(&stored.strip_suffix('\'')?.replace("''", "'")).ok()?;
    let schema = name.schema.as_deref().unwrap_or(PUBLIC_SCHEMA);
    Some(format!("{}'", context.shown(schema, &name.name).replace('\'', "''")))
}

/// `pg_attribute.attidentity`.
pub(crate) const fn identity(column: &ColumnDef) -> &'static str {
    match column.generated {
        Some(Generated::IdentityAlways) => "a",
        Some(Generated::IdentityByDefault) => "d",
        Some(
            Generated::Serial | Generated::Sequence | Generated::Stored | Generated::Schema | Generated::Type,
        )
        | None => "",
    }
}

/// `pg_attribute.attgenerated`.
pub(crate) const fn generation(column: &ColumnDef) -> &'static str {
    if matches!(column.generated, Some(Generated::Stored)) { "s" } else { "" }
}
