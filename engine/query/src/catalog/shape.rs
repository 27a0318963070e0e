//! The shape of a catalog relation and the making of its rows.
//!
//! A relation is a constant: schema, name, oid, its columns as in `CREATE TABLE`, and a function that makes
//! its rows. Rows name only the columns that differ from the type's resting value (0, false, empty name, else
//! NULL), so that a wide relation such as `pg_class` stays readable. Used by `relations`, read by `evaluator`
//! and by the table providers.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef};
use sepal_types::{Error, Result, SqlType};

use super::value::{Value, column, field};
use super::{CatalogContext, names, relations};

/// The schema of Postgres' own catalogs.
pub(crate) const PG_CATALOG: &str = "pg_catalog";
/// The schema of the SQL standard's views.
pub(crate) const INFORMATION_SCHEMA: &str = "information_schema";

/// What `sepal_sink_errors(…)` shows a part of.
pub(crate) const DEAD_LETTERS: &str = "sepal_dead_letters";

/// A catalog relation as its file declares it.
pub(crate) struct Relation {
    pub schema: &'static str,
    pub name: &'static str,
    /// Postgres' own fixed oid where it has one: clients cast `'pg_class'::regclass`.
    pub oid: u32,
    /// `name type, name type, …`, types as `format_type` prints them.
    pub columns: &'static str,
    pub rows: fn(&CatalogContext, &mut Rows),
}

impl Relation {
    /// A relation of `pg_catalog`.
    pub const fn catalog(
        name: &'static str,
        oid: u32,
        columns: &'static str,
        rows: fn(&CatalogContext, &mut Rows),
    ) -> Self {
        Self { schema: PG_CATALOG, name, oid, columns, rows }
    }

    /// A view of `information_schema`.
    pub const fn information(
        name: &'static str,
        oid: u32,
        columns: &'static str,
        rows: fn(&CatalogContext, &mut Rows),
    ) -> Self {
        Self { schema: INFORMATION_SCHEMA, name, oid, columns, rows }
    }
}

/// For relations of things that Sepal does not have.
pub(crate) fn no_rows(_: &CatalogContext, _: &mut Rows) {}

/// A relation with its columns parsed.
pub(crate) struct Shape {
    pub relation: &'static Relation,
    pub columns: Vec<(&'static str, SqlType)>,
    pub schema: SchemaRef,
}

/// Sorted by schema and name.
static SHAPES: LazyLock<Vec<Shape>> = LazyLock::new(|| {
    let relations = relations::ALL.iter().flat_map(|family| family.iter());
    let mut shapes: Vec<Shape> = relations.map(Shape::parse).collect();
    shapes.sort_by_key(|shape| (shape.relation.schema, shape.relation.name));
    shapes
});

/// Every catalog relation.
pub(crate) fn shapes() -> impl Iterator<Item = &'static Shape> {
    SHAPES.iter()
}

/// The relation with this name; names are lower case.
pub(crate) fn shape(schema: &str, name: &str) -> Option<&'static Shape> {
    let place =
        SHAPES.binary_search_by(|shape| (shape.relation.schema, shape.relation.name).cmp(&(schema, name)));
    place.ok().map(|place| &SHAPES[place])
}

impl Shape {
    fn parse(relation: &'static Relation) -> Shape {
        let columns: Vec<(&'static str, SqlType)> = relation
            .columns
            .split(", ")
            .filter_map(|column| {
                let (name, ty) = column.trim().split_once(' ')?;
                Some((name, SqlType::from_internal_name(ty)?))
            })
            .collect();
        let fields: Vec<_> = columns.iter().map(|(name, ty)| field(name, ty)).collect();
        Shape { relation, columns, schema: Arc::new(Schema::new(fields)) }
    }

    pub fn position(&self, column: &str) -> Option<usize> {
        self.columns.iter().position(|(name, _)| *name == column)
    }

    /// The rows as this environment sees them now.
    pub fn rows(&self, context: &CatalogContext) -> Result<Vec<Vec<Value>>> {
        let mut rows = Rows { shape: self, rows: Vec::new(), stranger: None };
        (self.relation.rows)(context, &mut rows);
        match rows.stranger {
            None => Ok(rows.rows),
            Some(column) => Err(Error::bug(format!("{} has no column {column}", self.relation.name))),
        }
    }

    /// The same as one record batch of `self.schema`.
    pub fn batch(&self, context: &CatalogContext) -> Result<RecordBatch> {
        let rows = self.rows(context)?;
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.columns.len());
        for (index, (_, ty)) in self.columns.iter().enumerate() {
            let values: Vec<Value> =
                rows.iter().map(|row| names::outward(context, ty, row[index].clone())).collect();
            columns.push(column(ty, &values)?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
            .map_err(|error| Error::bug(format!("{}: {error}", self.relation.name)))
    }
}

/// Collects the rows of one relation.
pub(crate) struct Rows<'a> {
    shape: &'a Shape,
    rows: Vec<Vec<Value>>,
    /// The first column that a row named and the relation does not have: a bug of ours.
    stranger: Option<&'static str>,
}

impl Rows<'_> {
    /// Adds a row from its columns that are not at rest.
    pub fn push<const N: usize>(&mut self, values: [(&'static str, Value); N]) {
        let mut row: Vec<Value> = self.shape.columns.iter().map(|(_, ty)| self.resting(ty)).collect();
        for (name, value) in values {
            match self.shape.position(name) {
                Some(index) => row[index] = value,
                None => self.stranger = Some(name),
            }
        }
        self.rows.push(row);
    }

    fn resting(&self, ty: &SqlType) -> Value {
        if self.shape.relation.schema == INFORMATION_SCHEMA {
            return Value::Null;
        }
        match ty {
            SqlType::Bool => Value::Bool(false),
            SqlType::Int2
            | SqlType::Int4
            | SqlType::Int8
            | SqlType::Oid
            | SqlType::Regclass
            | SqlType::Regproc
            | SqlType::Regtype => Value::Int(0),
            SqlType::Float4 | SqlType::Float8 => Value::Float(0.0),
            SqlType::Name | SqlType::Char => Value::text(""),
            SqlType::Int2Vector | SqlType::OidVector => Value::List(Arc::from([])),
            _ => Value::Null,
        }
    }
}
