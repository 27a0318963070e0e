//! Tables, indexes and sequences of the session's environment as Postgres counts them: each a `pg_class` row.
//!
//! Used by `relations`, `names` and `functions`. Oids of tables and indexes are their stored ids. What Postgres
//! would number but Sepal does not store (sequences, defaults, databases) gets an oid computed from ids, so
//! that it is the same on every node and after every restart.

use std::{borrow::Cow, sync::Arc};

use sepal_storage::TableVersion;
use sepal_types::limits::{FIRST_OBJECT_ID, MAX_COLUMNS};
use sepal_types::{
    ColumnDef, ColumnId, IndexClauses, IndexDef, IndexKey, IndexMethod, SequenceDef, SqlType, TableDef,
    UniqueDef,
};

use super::CatalogContext;

/// The one role that owns everything a session can see.
pub(crate) const OWNER_OID: u32 = 10;
/// `pg_default`, where every object lies.
pub(crate) const DEFAULT_TABLESPACE_OID: u32 = 1663;

/// A row of `pg_class`.
#[derive(Clone, Copy)]
pub(crate) enum Object<'a> {
    Table(&'a TableVersion),
    Index(&'a TableVersion, Index<'a>),
    Sequence(&'a TableVersion, &'a ColumnDef),
}

/// An index as Postgres shows it: also a constraint has one.
#[derive(Clone, Copy)]
pub(crate) enum Index<'a> {
    Unique(&'a UniqueDef),
    Secondary(&'a IndexDef),
}

impl CatalogContext {
    /// The environment's tables, by name.
    pub(crate) fn tables(&self) -> Vec<&Arc<TableVersion>> {
        let mut tables: Vec<_> =
            self.snapshot.tables().filter(|table| table.def.environment == self.environment).collect();
        tables.sort_by(|left, right| {
            (&left.def.name, &left.def.schema).cmp(&(&right.def.name, &right.def.schema))
        });
        tables
    }

    /// The environment's sequences that are nobody's column, each with the column that it is kept by.
    fn own_sequences(&self) -> impl Iterator<Item = (&Arc<TableVersion>, &ColumnDef)> {
        let own = self.snapshot.sequences().filter(|version| version.def.environment == self.environment);
        own.filter_map(|version| Some((version, version.def.columns.first()?)))
    }

    /// All sequences of the environment: those of columns, then the others.
    pub(crate) fn sequences(&self) -> Vec<(&TableDef, &ColumnDef, SequenceDef)> {
        let of_columns = self
            .tables()
            .into_iter()
            .flat_map(|table| sequence_columns(&table.def).map(move |column| (table, column)));
        of_columns
            .chain(self.own_sequences())
            .filter_map(|(table, column)| Some((table.def.as_ref(), column, column.sequence()?)))
            .collect()
    }

    /// The environment's tables, each followed by its indexes and sequences.
    pub(crate) fn objects(&self) -> Vec<Object<'_>> {
        let mut objects = Vec::new();
        for table in self.tables() {
            objects.push(Object::Table(table));
            objects.extend(indexes(&table.def).map(|index| Object::Index(table, index)));
            objects.extend(sequence_columns(&table.def).map(|column| Object::Sequence(table, column)));
        }
        objects.extend(self.own_sequences().map(|(version, column)| Object::Sequence(version, column)));
        objects
    }

    /// Looks through ids only: catalog queries call this once a row.
    pub(crate) fn object(&self, oid: i64) -> Option<Object<'_>> {
        let oid = u32::try_from(oid).ok()?;
        self.any_object(|object| object.oid() == oid)
    }

    /// In that schema, else along the search path.
    pub(crate) fn object_named(&self, schema: Option<&str>, name: &str) -> Option<Object<'_>> {
        let Some(schema) = schema else {
            let mut searched = self.snapshot.searched_schemas(&self.environment);
            return searched.find_map(|schema| self.object_named(Some(schema), name));
        };
        self.any_object(|object| {
            object.table().def.schema == schema
                && match object {
                    Object::Table(table) => table.def.name == name,
                    Object::Index(_, index) => index.name() == name,
                    Object::Sequence(table, column) => table.def.sequence_name(column) == name,
                }
        })
    }

    fn any_object(&self, wanted: impl Fn(Object<'_>) -> bool) -> Option<Object<'_>> {
        for table in self.snapshot.tables().filter(|table| table.def.environment == self.environment) {
            let own = indexes(&table.def).map(|index| Object::Index(table, index));
            let sequences = sequence_columns(&table.def).map(|column| Object::Sequence(table, column));
            let found = std::iter::once(Object::Table(table))
                .chain(own)
                .chain(sequences)
                .find(|object| wanted(*object));
            if found.is_some() {
                return found;
            }
        }
        let mut own = self.own_sequences().map(|(version, column)| Object::Sequence(version, column));
        own.find(|object| wanted(*object))
    }

    pub(crate) fn table(&self, oid: i64) -> Option<&TableVersion> {
        self.snapshot
            .tables()
            .find(|table| i64::from(table.def.id.0) == oid && table.def.environment == self.environment)
            .map(AsRef::as_ref)
    }
}

impl<'a> Object<'a> {
    pub fn oid(self) -> u32 {
        match self {
            Object::Table(table) => table.def.id.0,
            Object::Index(_, index) => index.oid(),
            Object::Sequence(table, column) => sequence_oid(&table.def, column),
        }
    }

    pub fn name(self) -> String {
        match self {
            Object::Table(table) => table.def.name.clone(),
            Object::Index(_, index) => index.name().to_owned(),
            Object::Sequence(table, column) => table.def.sequence_name(column),
        }
    }

    pub fn table(self) -> &'a TableVersion {
        match self {
            Object::Table(table) | Object::Index(table, _) | Object::Sequence(table, _) => table,
        }
    }

    /// `pg_class.relkind`.
    pub const fn kind(self) -> &'static str {
        match self {
            Object::Table(_) => "r",
            Object::Index(..) => "i",
            Object::Sequence(..) => "S",
        }
    }
}

impl<'a> Index<'a> {
    pub const fn oid(self) -> u32 {
        match self {
            Index::Unique(unique) => unique.id.0,
            Index::Secondary(index) => index.id.0,
        }
    }

    pub fn name(self) -> &'a str {
        match self {
            Index::Unique(unique) => &unique.name,
            Index::Secondary(index) => &index.name,
        }
    }

    pub fn columns(self) -> &'a [ColumnId] {
        match self {
            Index::Unique(unique) => &unique.columns,
            Index::Secondary(index) => &index.columns,
        }
    }

    /// Its keys in order.
    pub fn keys(self) -> Cow<'a, [IndexKey]> {
        match self.clauses() {
            Some(clauses) if !clauses.keys.is_empty() => Cow::Borrowed(&clauses.keys),
            _ => self.columns().iter().map(|column| IndexKey::column(*column)).collect(),
        }
    }

    pub fn clauses(self) -> Option<&'a IndexClauses> {
        match self {
            Index::Unique(unique) => unique.index.as_deref(),
            Index::Secondary(index) => index.clauses.as_deref(),
        }
    }

    /// The columns of INCLUDE, which come after the keys.
    pub fn included(self) -> &'a [ColumnId] {
        self.clauses().map(|clauses| clauses.include.as_slice()).unwrap_or_default()
    }

    pub const fn unique(self) -> bool {
        matches!(self, Index::Unique(_))
    }

    /// Whether there is a row in `pg_constraint` for it.
    pub const fn is_constraint(self) -> bool {
        matches!(self, Index::Unique(unique) if unique.is_constraint())
    }

    pub fn primary(self) -> bool {
        matches!(self, Index::Unique(unique) if unique.primary)
    }

    pub fn valid(self) -> bool {
        match self {
            Index::Unique(_) => true,
            Index::Secondary(index) => index.valid,
        }
    }

    pub fn access_method(self) -> &'a str {
        match self {
            Index::Unique(_) => "btree",
            Index::Secondary(index) => match &index.method {
                IndexMethod::Scalar { access_method } => access_method,
                IndexMethod::Vector(options) => options.access_method(),
            },
        }
    }
}

/// Constraints' indexes first, then the others.
pub(crate) fn indexes(table: &TableDef) -> impl Iterator<Item = Index<'_>> {
    table.uniques.iter().map(Index::Unique).chain(table.indexes.iter().map(Index::Secondary))
}

/// The columns that draw from a sequence: serial and identity ones.
pub(crate) fn sequence_columns(table: &TableDef) -> impl Iterator<Item = &ColumnDef> {
    table.columns.iter().filter(|column| column.is_counted())
}

/// The oid of a sequence in `pg_class`.
pub(crate) fn sequence_oid(table: &TableDef, column: &ColumnDef) -> u32 {
    if table.is_sequence() { table.id.0 } else { generated_oid(table, column.id) }
}

/// The oid of what a column generates: its sequence and its `pg_attrdef` row.
pub(crate) fn generated_oid(table: &TableDef, column: ColumnId) -> u32 {
    let columns = u32::try_from(MAX_COLUMNS).unwrap_or(u32::MAX);
    let place = table.id.0.wrapping_sub(FIRST_OBJECT_ID).wrapping_mul(columns).wrapping_add(column.0);
    0x8000_0000 | place
}

/// The oid of an environment in `pg_database`: from its name (32-bit FNV-1a), above all stored ids.
pub(crate) fn environment_oid(environment: &str) -> u32 {
    let hash = environment
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    0x4000_0000 | (hash & 0x3fff_ffff)
}

/// `attnum`: the place in `SELECT *`, from 1. Dropped columns leave no gap.
pub(crate) fn attribute_number(table: &TableDef, column: ColumnId) -> i16 {
    let place =
        table.columns.iter().position(|candidate| candidate.id == column).map_or(0, |place| place + 1);
    i16::try_from(place).unwrap_or(i16::MAX)
}

/// `atttypid` and `atttypmod` of a column's type.
pub(crate) fn type_and_modifier(ty: &SqlType) -> (u32, i32) {
    (ty.oid(), ty.typmod())
}
