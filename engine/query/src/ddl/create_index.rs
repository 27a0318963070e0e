//! CREATE INDEX: vector indexes with pgvector's options, scalar ones for the catalog, unique ones as
//! constraints.

use datafusion::sql::sqlparser::ast::{self, BinaryOperator, CreateIndex, Expr, IndexType};
use sepal_storage::Op;
use sepal_types::{
    BitMetric, ColumnDef, ColumnId, Error, IndexClauses, IndexDef, IndexKey, IndexMethod, KeySource, Metric,
    Result, SqlState, SqlType, TableDef, VectorIndexOptions, VectorKind,
};

use super::{
    Ddl, Scope,
    create_table::add_unique,
    deparse::{bare_name, print},
    names::{find_table, generated, identifier, object_name},
    vector_index::{Indexed, bare, indexed},
};

/// The access methods for vectors.
const VECTOR_METHODS: [&str; 5] = ["hnsw", "graph", "ivfflat", "flat", "faiss"];
const FACTORY_HINT: &str = "Say, for example, WITH (factory = 'IVF4096,PQ64x4fs,RFlat'), 'HNSW32,SQ8', \
    or 'OPQ32,IVF1024,PQ32'.";

/// Plans CREATE INDEX. A vector index is added as not valid; the session builds it after the commit. Of bit strings
/// nothing is built.
///
/// Errors: pgvector's and Postgres' own.
pub fn create_index(create: &CreateIndex, scope: &Scope) -> Result<Ddl> {
    let mut def = find_table(scope.snapshot, scope.environment, &create.table_name)?;
    let method = method_name(create.using.as_ref());
    if create.unique && VECTOR_METHODS.contains(&method.as_str()) {
        let message = format!("access method \"{method}\" does not support unique indexes");
        return Err(Error::unsupported(message));
    }
    check_order(create, &method)?;
    let (keys, mut names) = index_keys(&def, create)?;
    names.extend(create.include.iter().map(identifier));
    let columns: Vec<ColumnId> = keys.iter().filter_map(column_of).collect();
    let clauses = clauses(&def, keys, create)?;
    let mut ddl = Ddl::tagged("CREATE INDEX");
    let name = match &create.name {
        Some(name) => object_name(name)?,
        None => {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            generated(&def.name, &names, "idx", |name| scope.is_taken(&def.schema, name))
        }
    };
    if scope.is_taken(&def.schema, &name) {
        if create.if_not_exists {
            ddl.notices.push(Error::new(
                SqlState::DuplicateTable,
                format!("relation \"{name}\" already exists, skipping"),
            ));
            return Ok(ddl);
        }
        return Err(Error::new(SqlState::DuplicateTable, format!("relation \"{name}\" already exists")));
    }
    if create.unique {
        return unique_index(def, columns, name, clauses, scope);
    }
    let id = (scope.new_id)();
    let (method, columns) = match method.as_str() {
        vector if VECTOR_METHODS.contains(&vector) => {
            let (method, column) = vector_method(vector, &def, create)?;
            (method, vec![column])
        }
        "btree" | "hash" | "gin" | "gist" | "brin" => {
            (IndexMethod::Scalar { access_method: method }, columns)
        }
        other => {
            return Err(Error::new(
                SqlState::UndefinedObject,
                format!("access method \"{other}\" does not exist"),
            )
            .with_hint("Use hnsw, graph, ivfflat, flat or faiss for vectors, btree for other columns."));
        }
    };
    let valid = matches!(method, IndexMethod::Scalar { .. });
    if !valid {
        ddl.builds.push((def.id, id));
    }
    let clauses = (clauses != IndexClauses::default()).then(|| Box::new(clauses));
    def.indexes.push(IndexDef { id, name, columns, method, valid, clauses });
    ddl.ops.push(Op::AlterTable(def));
    Ok(ddl)
}

fn method_name(using: Option<&IndexType>) -> String {
    match using {
        None => "btree".to_owned(),
        Some(IndexType::Custom(ident)) => identifier(ident),
        Some(other) => other.to_string().to_lowercase(),
    }
}

/// Errors: 0A000 for an order of keys where the method has none.
fn check_order(create: &CreateIndex, method: &str) -> Result<()> {
    if method == "btree" {
        return Ok(());
    }
    let refuse =
        |what: &str| Err(Error::unsupported(format!("access method \"{method}\" does not support {what}")));
    let mut options = create.columns.iter().map(|column| &column.column.options);
    match options.find(|options| options.asc.is_some() || options.nulls_first.is_some()) {
        Some(options) if options.asc.is_some() => refuse("ASC/DESC options"),
        Some(_) => refuse("NULLS FIRST/LAST options"),
        None if !create.include.is_empty() && method != "gist" => refuse("included columns"),
        None => Ok(()),
    }
}

/// The keys, and the names that a generated index name is made of: those of the index's own columns.
fn index_keys(def: &TableDef, create: &CreateIndex) -> Result<(Vec<IndexKey>, Vec<String>)> {
    let (mut keys, mut names) = (Vec::new(), Vec::new());
    for column in &create.columns {
        let (of, name) = match bare(&column.column.expr) {
            Expr::Identifier(ident) => {
                let name = identifier(ident);
                (KeySource::Column(known_column(def, &name)?), name)
            }
            expr => {
                let name = free_name(expression_name(expr), &names);
                let printed = print(def, expr)?;
                let ty = printed.ty.filter(|ty| *ty != SqlType::Unknown).unwrap_or(SqlType::Text);
                (KeySource::Expression { name: name.clone(), text: printed.text, ty }, name)
            }
        };
        let descending = column.column.options.asc == Some(false);
        keys.push(IndexKey {
            of,
            class: column.operator_class.as_ref().map(super::table_name),
            descending,
            nulls_first: column.column.options.nulls_first.unwrap_or(descending),
        });
        names.push(name);
    }
    Ok((keys, names))
}

fn known_column(def: &TableDef, name: &str) -> Result<ColumnId> {
    let missing = || Error::new(SqlState::UndefinedColumn, format!("column \"{name}\" does not exist"));
    def.column(name).map(|column| column.id).ok_or_else(missing)
}

const fn column_of(key: &IndexKey) -> Option<ColumnId> {
    match key.of {
        KeySource::Column(column) => Some(column),
        KeySource::Expression { .. } => None,
    }
}

/// A call's function, a cast's column, else `expr` (`FigureIndexColname`).
fn expression_name(expr: &Expr) -> String {
    match expr {
        Expr::Nested(inner) => expression_name(inner),
        Expr::Function(function) => super::table_name(&function.name),
        Expr::Cast { expr, .. } => expression_name(expr),
        Expr::Identifier(ident) => identifier(ident),
        Expr::CompoundIdentifier(parts) => parts.last().map(identifier).unwrap_or_default(),
        _ => "expr".to_owned(),
    }
}

/// `expr`, then `expr1`, … (`ChooseIndexColumnNames`).
fn free_name(name: String, taken: &[String]) -> String {
    let numbered = (1..).map(|number| format!("{name}{number}"));
    std::iter::once(name.clone()).chain(numbered).find(|name| !taken.contains(name)).unwrap_or(name)
}

/// What the catalogs show beside columns and method.
fn clauses(def: &TableDef, keys: Vec<IndexKey>, create: &CreateIndex) -> Result<IndexClauses> {
    if create.nulls_distinct == Some(false) && create.unique {
        return Err(Error::unsupported("NULLS NOT DISTINCT is not supported"));
    }
    let plain = |key: &IndexKey| column_of(key).is_some_and(|column| *key == IndexKey::column(column));
    let vector = VECTOR_METHODS.contains(&method_name(create.using.as_ref()).as_str());
    // The operator class of an index over a vector column is part of its method.
    let known = |key: &IndexKey| {
        let column = column_of(key).and_then(|column| def.column_by_id(column));
        column.is_some_and(|column| !matches!(column.ty, SqlType::Bit(_) | SqlType::SparseVec(_)))
    };
    let keys = if keys.iter().all(plain) || (vector && keys.iter().all(known)) { Vec::new() } else { keys };
    let include = create.include.iter().map(|ident| known_column(def, &identifier(ident)));
    let predicate = create.predicate.as_ref().map(|predicate| print(def, predicate)).transpose()?;
    Ok(IndexClauses {
        keys: keys.into_iter().map(|key| without_default_class(def, key)).collect(),
        include: include.collect::<Result<_>>()?,
        predicate: predicate.map(|predicate| predicate.text),
        options: create.with.iter().map(option_value).collect::<Result<_>>()?,
    })
}

/// `text_ops` of a text is what is taken without a word.
fn without_default_class(def: &TableDef, mut key: IndexKey) -> IndexKey {
    let ty = match &key.of {
        KeySource::Column(column) => def.column_by_id(*column).map(|column| column.ty.clone()),
        KeySource::Expression { ty, .. } => Some(ty.clone()),
    };
    let default = ty.map(|ty| match ty {
        SqlType::Array(_) => "array_ops".to_owned(),
        SqlType::Int2 => "int2_ops".to_owned(),
        SqlType::Int4 => "int4_ops".to_owned(),
        SqlType::Int8 => "int8_ops".to_owned(),
        SqlType::Varchar(_) => "varchar_ops".to_owned(),
        other => format!("{}_ops", bare_name(&other)),
    });
    key.class = key.class.filter(|class| default.as_ref() != Some(class));
    key
}

fn unique_index(
    mut def: TableDef,
    columns: Vec<ColumnId>,
    name: String,
    clauses: IndexClauses,
    scope: &Scope,
) -> Result<Ddl> {
    let expressions = clauses.keys.iter().any(|key| column_of(key).is_none());
    if clauses.predicate.is_some() || expressions {
        return Err(Error::unsupported("partial and expression unique indexes are not supported"));
    }
    let mut ddl = Ddl::tagged("CREATE INDEX");
    add_unique(&mut def, columns, false, Some(name), scope)?;
    if let Some(unique) = def.uniques.last_mut() {
        unique.index = Some(Box::new(clauses));
        ddl.verify.push((def.id, unique.clone()));
    }
    ddl.ops.push(Op::AlterTable(def));
    Ok(ddl)
}

/// The method of an index of a `sparsevec` column, which the catalogs show: every search of one is exact, and needs none.
///
/// Errors: as pgvector, whose only method for them is hnsw.
fn sparse_method(
    method: &str,
    column: &ColumnDef,
    class: Option<&ast::ObjectName>,
    with: &[Expr],
) -> Result<IndexMethod> {
    let name = class.map(super::table_name);
    if method != "hnsw" || name.as_deref().is_none_or(|name| Metric::from_sparse_opclass(name).is_none()) {
        return Err(match name {
            Some(name) if method != "hnsw" && Metric::from_sparse_opclass(&name).is_some() => {
                unknown_class(&name, method)
            }
            _ => wrong_type(&column.ty, class, method),
        });
    }
    if matches!(column.ty, SqlType::SparseVec(None)) {
        return Err(Error::new(SqlState::InvalidParameterValue, "column does not have dimensions"));
    }
    Options::read(method, with)?;
    Ok(IndexMethod::Scalar { access_method: method.to_owned() })
}

/// The method of an index for vectors or bit strings, and the column that it is over.
fn vector_method(method: &str, def: &TableDef, create: &CreateIndex) -> Result<(IndexMethod, ColumnId)> {
    let [index_column] = create.columns.as_slice() else {
        return Err(Error::unsupported(format!(
            "access method \"{method}\" does not support multicolumn indexes"
        )));
    };
    let (class, with) = (index_column.operator_class.as_ref(), create.with.as_slice());
    Ok(match indexed(method, def, &index_column.column.expr)? {
        Indexed::Column(column) if matches!(column.ty, SqlType::Bit(_)) => {
            bit_metric(method, &column.ty, class)?;
            Options::read(method, with)?;
            (IndexMethod::Scalar { access_method: method.to_owned() }, column.id)
        }
        Indexed::Column(column) if matches!(column.ty, SqlType::SparseVec(_)) => {
            (sparse_method(method, column, class, with)?, column.id)
        }
        Indexed::Column(column) => {
            (IndexMethod::Vector(vector_options(method, &column.ty, class, with)?), column.id)
        }
        Indexed::Halves(column, ty) => {
            (IndexMethod::Vector(vector_options(method, &ty, class, with)?), column.id)
        }
        Indexed::Signs(column, ty) => {
            let metric = bit_metric(method, &ty, class)?;
            Options::read(method, with)?;
            let options = VectorIndexOptions::Signs { metric, access_method: method.into() };
            (IndexMethod::Vector(options), column.id)
        }
    })
}

/// The metric of an operator class of bit strings. As in pgvector none is the default, and cells have no Jaccard
/// distance; FAISS has none of the two here.
fn bit_metric(method: &str, ty: &SqlType, class: Option<&ast::ObjectName>) -> Result<BitMetric> {
    let Some(name) = class.map(super::table_name) else {
        return Err(no_opclass(ty, method));
    };
    match (BitMetric::from_opclass(&name), method) {
        (Some(_), "faiss") | (Some(BitMetric::Jaccard), "ivfflat") => Err(unknown_class(&name, method)),
        (Some(metric), _) => Ok(metric),
        (None, _) => Err(wrong_type(ty, class, method)),
    }
}

fn vector_options(
    method: &str,
    ty: &SqlType,
    class: Option<&ast::ObjectName>,
    with: &[Expr],
) -> Result<VectorIndexOptions> {
    let (kind, dim) = match (ty.vector_kind(), ty.dimensions()) {
        (Some(kind), Some(dim)) => (kind, usize::from(dim)),
        (Some(_), None) => {
            return Err(Error::new(SqlState::InvalidParameterValue, "column does not have dimensions"));
        }
        (None, _) => return Err(wrong_type(ty, class, method)),
    };
    let has_taxicab = !matches!(method, "ivfflat" | "faiss");
    let metric = match class.map(super::table_name) {
        Some(name) => match Metric::from_opclass(&name) {
            Some((found, metric)) if found == kind && (has_taxicab || metric != Metric::L1) => metric,
            Some((found, _)) if found != kind => return Err(wrong_type(ty, class, method)),
            None if is_class(&name, method) => return Err(wrong_type(ty, class, method)),
            _ => return Err(unknown_class(&name, method)),
        },
        None if method == "hnsw" => return Err(no_opclass(ty, method)),
        None => Metric::L2,
    };
    let Options { m, ef_construction, lists, factory } = Options::read(method, with)?;
    Ok(match method {
        "hnsw" => VectorIndexOptions::Hnsw { metric, m, ef_construction },
        "graph" => VectorIndexOptions::Graph { metric, m, ef_construction },
        "ivfflat" => VectorIndexOptions::IvfFlat { metric, lists },
        "faiss" => VectorIndexOptions::Faiss { metric, factory: checked_factory(factory, metric, dim)? },
        _ => VectorIndexOptions::Flat { metric },
    })
}

/// A factory string that FAISS has made an empty index of.
pub fn checked_factory(factory: Option<String>, metric: Metric, dim: usize) -> Result<Box<str>> {
    let refused =
        |message: String| Error::new(SqlState::InvalidParameterValue, message).with_hint(FACTORY_HINT);
    let Some(factory) = factory else {
        return Err(refused("access method \"faiss\" needs the parameter \"factory\"".to_owned()));
    };
    sepal_index::check_factory(&factory, metric, dim).map_err(|problem| refused(problem.to_string()))?;
    Ok(factory.into_boxed_str())
}

/// A column that no vector index takes, with a named operator class or without one.
fn wrong_type(ty: &SqlType, class: Option<&ast::ObjectName>, method: &str) -> Error {
    match class.map(super::table_name) {
        Some(class) if is_class(&class, method) => Error::new(
            SqlState::DatatypeMismatch,
            format!("operator class \"{class}\" does not accept data type {}", bare_name(ty)),
        ),
        Some(class) => unknown_class(&class, method),
        None => no_opclass(ty, method),
    }
}

/// Whether there is an operator class for vectors of this name.
fn is_class(class: &str, method: &str) -> bool {
    Metric::from_opclass(class).is_some()
        || BitMetric::from_opclass(class).is_some()
        || (method == "hnsw" && Metric::from_sparse_opclass(class).is_some())
}

fn unknown_class(class: &str, method: &str) -> Error {
    let message = format!("operator class \"{class}\" does not exist for access method \"{method}\"");
    Error::new(SqlState::UndefinedObject, message)
}

fn no_opclass(ty: &SqlType, method: &str) -> Error {
    let name = bare_name(ty);
    let message = format!("data type {name} has no default operator class for access method \"{method}\"");
    if matches!(ty, SqlType::Bit(_)) {
        return Error::new(SqlState::UndefinedObject, message).with_hint(
            "You must specify an operator class for the index: bit_hamming_ops or bit_jaccard_ops.",
        );
    }
    let kind = ty.vector_kind().unwrap_or(VectorKind::Single);
    let [l2, cosine, ip, l1] =
        [Metric::L2, Metric::Cosine, Metric::InnerProduct, Metric::L1].map(|metric| match ty {
            SqlType::SparseVec(_) => metric.sparse_opclass(),
            _ => metric.opclass_for(kind),
        });
    Error::new(SqlState::UndefinedObject, message).with_hint(format!(
        "You must specify an operator class for the index: {l2}, {cosine}, {ip} or {l1}.",
    ))
}

/// WITH (…), with pgvector's defaults and bounds.
struct Options {
    m: u16,
    ef_construction: u16,
    lists: u32,
    /// FAISS' own language.
    factory: Option<String>,
}

impl Options {
    fn read(method: &str, with: &[Expr]) -> Result<Self> {
        let mut options = Self { m: 16, ef_construction: 64, lists: 100, factory: None };
        for option in with {
            let (name, value) = option_value(option)?;
            match (method, name.as_str()) {
                ("hnsw" | "graph", "m") => options.m = narrow(bounded(&name, &value, 2, 100)?),
                ("hnsw" | "graph", "ef_construction") => {
                    options.ef_construction = narrow(bounded(&name, &value, 4, 1000)?)
                }
                ("ivfflat", "lists") => options.lists = bounded(&name, &value, 1, 32_768)?,
                ("faiss", "factory") => options.factory = Some(value),
                _ => {
                    return Err(Error::new(
                        SqlState::InvalidParameterValue,
                        format!("unrecognized parameter \"{name}\""),
                    ));
                }
            }
        }
        if matches!(method, "hnsw" | "graph") && options.ef_construction < 2 * options.m {
            let message = "ef_construction must be greater than or equal to 2 * m";
            return Err(Error::new(SqlState::InvalidParameterValue, message));
        }
        Ok(options)
    }
}

fn narrow(value: u32) -> u16 {
    u16::try_from(value).unwrap_or(u16::MAX)
}

fn option_value(option: &Expr) -> Result<(String, String)> {
    if let Expr::BinaryOp { left, op: BinaryOperator::Eq, right } = option
        && let Expr::Identifier(name) = left.as_ref()
    {
        let value = match right.as_ref() {
            Expr::Value(value) => match &value.value {
                ast::Value::Number(text, _) | ast::Value::SingleQuotedString(text) => text.clone(),
                other => other.to_string(),
            },
            // VectorDBBench double-quotes the value: WITH ("m" = "16").
            Expr::Identifier(ident) => ident.value.clone(),
            other => other.to_string(),
        };
        return Ok((identifier(name), value));
    }
    Err(Error::new(SqlState::SyntaxError, format!("an index option is written name = value, not {option}")))
}

fn bounded(name: &str, value: &str, least: u32, most: u32) -> Result<u32> {
    let number: i64 = value.parse().map_err(|_| {
        Error::new(
            SqlState::InvalidParameterValue,
            format!("invalid value for integer option \"{name}\": {value}"),
        )
    })?;
    u32::try_from(number).ok().filter(|number| (least..=most).contains(number)).ok_or_else(|| {
        Error::new(
            SqlState::InvalidParameterValue,
            format!("value {value} out of bounds for option \"{name}\""),
        )
        .with_detail(format!("Valid values are between \"{least}\" and \"{most}\"."))
    })
}
