//! Names to tables, indexes, sequences, types and schemas.
//!
//! Called by `query` and `database`. A name with a schema is looked up there, a bare one in the schemas of the path
//! that the snapshot was given, first to last; without one that is `public` ([`Snapshot::searching`]).

use std::sync::Arc;

use sepal_types::{ColumnDef, EnumType, PUBLIC_SCHEMA, RelationRef, SearchPath, TableDef, TableId};

use super::{Snapshot, TableVersion};
use crate::StoreError;

impl Snapshot {
    /// The same tables, with bare names looked up along another path. What is made of this snapshot keeps the path.
    #[must_use]
    pub fn searching(mut self, path: SearchPath) -> Self {
        self.path = path;
        self
    }

    /// The table of this name in the environment.
    pub fn find<'a>(
        &self,
        environment: &str,
        name: impl Into<RelationRef<'a>>,
    ) -> Option<&Arc<TableVersion>> {
        self.named(environment, name.into()).filter(|version| version.def.is_table())
    }

    /// The sequence of this name in the environment, if it is not a column's.
    pub fn find_sequence<'a>(
        &self,
        environment: &str,
        name: impl Into<RelationRef<'a>>,
    ) -> Option<&Arc<TableVersion>> {
        self.named(environment, name.into()).filter(|version| version.def.is_sequence())
    }

    /// The type of this name in the environment.
    pub fn find_enum<'a>(&self, environment: &str, name: impl Into<RelationRef<'a>>) -> Option<&EnumType> {
        // A table that comes earlier on the path has a type of its name as well, but not one that is asked for here.
        let name: RelationRef<'_> = name.into();
        self.searched(name).find_map(|schema| {
            let id = self.state.names.get(environment, schema, name.name)?;
            self.table(id)?.def.enum_type().filter(|ty| ty.name == name.name)
        })
    }

    /// The types of an environment that somebody made, in no order.
    pub fn enums(&self, environment: &str) -> impl Iterator<Item = &EnumType> {
        let defs = self.state.tables.values().map(|version| version.def.as_ref());
        defs.filter(move |def| def.environment == environment).filter_map(TableDef::enum_type)
    }

    /// What has this name for its own: an index's name leads to its table, but is not the table's.
    fn named(&self, environment: &str, name: RelationRef<'_>) -> Option<&Arc<TableVersion>> {
        let found = |schema: &str| self.state.names.get(environment, schema, name.name);
        let version = self.table(self.searched(name).find_map(found)?)?;
        (version.def.name == name.name && !version.def.is_schema()).then_some(version)
    }

    /// The sequence of this name, and the column that it is kept by: one of its own, or a column's.
    pub fn sequence_named<'a>(
        &self,
        environment: &str,
        name: impl Into<RelationRef<'a>>,
    ) -> Option<(&Arc<TableVersion>, &ColumnDef)> {
        let name: RelationRef<'_> = name.into();
        self.searched(name).find_map(|schema| {
            let own = self.find_sequence(environment, RelationRef { schema: Some(schema), name: name.name });
            own.into_iter()
                .chain(self.tables_of(environment, schema))
                .find_map(|version| Some((version, version.def.sequence_named(name.name)?)))
        })
    }

    /// The table whose index or constraint has this name.
    pub fn find_indexed<'a>(
        &self,
        environment: &str,
        name: impl Into<RelationRef<'a>>,
    ) -> Option<&Arc<TableVersion>> {
        let name: RelationRef<'_> = name.into();
        let indexed = |version: &&Arc<TableVersion>| has_index(&version.def, name.name);
        self.searched(name).find_map(|schema| self.tables_of(environment, schema).find(indexed))
    }

    /// Whether a table, index, constraint or sequence of the schema has this name.
    pub fn is_taken(&self, environment: &str, schema: &str, name: &str) -> bool {
        self.state.names.get(environment, schema, name).is_some()
            || self
                .tables_of(environment, schema)
                .any(|version| has_index(&version.def, name) || version.def.sequence_named(name).is_some())
    }

    /// Whether a bare name leads to what has it in this schema.
    pub fn is_visible(&self, environment: &str, schema: &str, name: &str) -> bool {
        let mut searched = self.searched_schemas(environment);
        searched.find(|searched| *searched == schema || self.is_taken(environment, searched, name))
            == Some(schema)
    }

    /// The environment's schemas but for `public`, which is always there.
    pub fn schemas(&self, environment: &str) -> impl Iterator<Item = &TableDef> {
        let defs = self.state.tables.values().map(|version| version.def.as_ref());
        defs.filter(move |def| def.is_schema() && def.environment == environment)
    }

    /// The schema of this name, unless it is `public`.
    pub fn schema(&self, environment: &str, name: &str) -> Option<&TableDef> {
        let id = self.state.names.get(environment, TableDef::OF_SCHEMAS, name)?;
        self.table(id).map(|version| version.def.as_ref())
    }

    pub fn has_schema(&self, environment: &str, name: &str) -> bool {
        name == PUBLIC_SCHEMA || self.schema(environment, name).is_some()
    }

    /// The schemas of the path that are there. What is created without a schema goes into the first.
    pub fn searched_schemas(&self, environment: &str) -> impl Iterator<Item = &str> {
        self.path.schemas().filter(move |schema| self.has_schema(environment, schema))
    }

    /// Tables, sequences and types of a schema.
    pub fn members(&self, environment: &str, schema: &str) -> impl Iterator<Item = &TableDef> {
        let defs = self.state.tables.values().map(|version| version.def.as_ref());
        defs.filter(move |def| def.environment == environment && def.schema == schema)
    }

    /// Why the table of this name is not among those of a past snapshot, if it was there and is damaged.
    pub fn unreadable<'a>(&self, environment: &str, name: impl Into<RelationRef<'a>>) -> Option<&StoreError> {
        let name: RelationRef<'_> = name.into();
        self.searched(name).find_map(|schema| {
            let mut damaged = self.state.unreadable.iter();
            let is_it = |table: &&super::Unreadable| {
                table.environment == environment && table.schema == schema && table.name == name.name
            };
            damaged.find(is_it).map(|table| &table.error)
        })
    }

    /// Why some table is not among those of a past snapshot, of the first one that is damaged.
    pub(crate) fn damage(&self) -> Option<&StoreError> {
        self.state.unreadable.first().map(|table| &table.error)
    }

    /// Whether a schema has the tables and sequences here that it has in `base`.
    pub(super) fn has_members_of(&self, base: &Snapshot, schema: &TableDef) -> bool {
        let members = |snapshot: &Snapshot| -> Vec<TableId> {
            snapshot.members(&schema.environment, &schema.name).map(|def| def.id).collect()
        };
        members(self) == members(base)
    }

    /// Where a name is looked for.
    fn searched<'a>(&'a self, name: RelationRef<'a>) -> impl Iterator<Item = &'a str> {
        let along_path = name.schema.is_none().then(|| self.path.schemas());
        name.schema.into_iter().chain(along_path.into_iter().flatten())
    }

    fn tables_of(&self, environment: &str, schema: &str) -> impl Iterator<Item = &Arc<TableVersion>> {
        self.tables()
            .filter(move |version| version.def.environment == environment && version.def.schema == schema)
    }
}

fn has_index(def: &TableDef, name: &str) -> bool {
    def.indexes.iter().any(|index| index.name == name) || def.uniques.iter().any(|unique| unique.name == name)
}
