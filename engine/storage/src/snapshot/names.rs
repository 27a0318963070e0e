//! The names of tables and indexes: one namespace per schema of an environment, as in Postgres' `pg_class`; and the
//! names of the schemas, which stand in none ([`TableDef::OF_SCHEMAS`]).
//!
//! Kept beside the tables of a snapshot, changed by `apply` only.

use std::collections::HashMap;

use sepal_types::{PUBLIC_SCHEMA, TableDef, TableId};

use crate::StoreError;

/// Name to table, in the schemas of one environment.
type Schemas = HashMap<String, HashMap<String, TableId>>;

/// The schemas' names, per environment. An index's name leads to its table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names(HashMap<String, Schemas>);

impl Names {
    pub(crate) fn get(&self, environment: &str, schema: &str, name: &str) -> Option<TableId> {
        self.0.get(environment)?.get(schema)?.get(name).copied()
    }

    /// Whether a definition's schema is there. What is a schema itself needs none.
    pub(crate) fn has_schema_of(&self, def: &TableDef) -> bool {
        let schema = def.schema.as_str();
        matches!(schema, PUBLIC_SCHEMA | TableDef::OF_SCHEMAS)
            || self.get(&def.environment, TableDef::OF_SCHEMAS, schema).is_some()
    }

    /// Takes a table's names, all or none.
    pub(crate) fn insert(&mut self, def: &TableDef) -> Result<(), StoreError> {
        let names = self.0.entry(def.environment.clone()).or_default().entry(def.schema.clone()).or_default();
        let mut taken: Vec<&str> = Vec::new();
        for name in of(def) {
            if names.contains_key(name) || taken.contains(&name) {
                return Err(match def.is_schema() {
                    true => StoreError::DuplicateSchema(name.to_owned()),
                    false => StoreError::DuplicateTable(name.to_owned()),
                });
            }
            taken.push(name);
        }
        names.extend(taken.into_iter().map(|name| (name.to_owned(), def.id)));
        Ok(())
    }

    pub(crate) fn remove(&mut self, def: &TableDef) {
        let Some(schemas) = self.0.get_mut(&def.environment) else { return };
        if let Some(names) = schemas.get_mut(&def.schema) {
            for name in of(def) {
                names.remove(name);
            }
            if names.is_empty() {
                schemas.remove(&def.schema);
            }
        }
        if schemas.is_empty() {
            self.0.remove(&def.environment);
        }
    }
}

fn of(def: &TableDef) -> impl Iterator<Item = &str> {
    std::iter::once(def.name.as_str()).chain(def.indexes.iter().map(|index| index.name.as_str()))
}
