//! The names of tables and indexes: one namespace per environment, as in Postgres' `pg_class`.
//!
//! Kept beside the tables of a snapshot, changed by `apply` only.

use std::collections::HashMap;

use sepal_types::{TableDef, TableId};

use crate::StoreError;

/// Name to table, per environment. An index's name leads to its table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names(HashMap<String, HashMap<String, TableId>>);

impl Names {
    pub(crate) fn get(&self, environment: &str, name: &str) -> Option<TableId> {
        self.0.get(environment)?.get(name).copied()
    }

    /// Takes a table's names, all or none.
    pub(crate) fn insert(&mut self, def: &TableDef) -> Result<(), StoreError> {
        let names = self.0.entry(def.environment.clone()).or_default();
        let mut taken: Vec<&str> = Vec::new();
        for name in of(def) {
            if names.contains_key(name) || taken.contains(&name) {
                return Err(StoreError::DuplicateTable(name.to_owned()));
            }
            taken.push(name);
        }
        names.extend(taken.into_iter().map(|name| (name.to_owned(), def.id)));
        Ok(())
    }

    pub(crate) fn remove(&mut self, def: &TableDef) {
        if let Some(names) = self.0.get_mut(&def.environment) {
            for name in of(def) {
                names.remove(name);
            }
            if names.is_empty() {
                self.0.remove(&def.environment);
            }
        }
    }
}

fn of(def: &TableDef) -> impl Iterator<Item = &str> {
    std::iter::once(def.name.as_str()).chain(def.indexes.iter().map(|index| index.name.as_str()))
}
