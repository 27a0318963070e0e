//! CREATE TABLE … CLONE: the definition of a table that begins with another one's rows.
//!
//! Columns keep their ids, by which files name them. Constraints and indexes have new ids, and the names that
//! CREATE TABLE … (LIKE … INCLUDING ALL) gives them in Postgres. The rows are storage's.

use sepal_storage::Snapshot;
use sepal_types::{CheckDef, Constraints, Error, IndexDef, Result, SqlState, TableDef};

use super::{
    Scope,
    create_table::add_unique,
    names::{creation_schema, generated, relation_name},
    sequence::name_sequence,
};
use crate::sql::history::CloneTable;

/// The notice when there is such a table and IF NOT EXISTS was said; `None` when it is to be made.
///
/// Errors: 42P07 when the name is taken, 3F000.
pub fn clone_exists(clone: &CloneTable, snapshot: &Snapshot, environment: &str) -> Result<Option<Error>> {
    let name = relation_name(&clone.name)?;
    let schema = creation_schema(snapshot, environment, &name)?;
    if !snapshot.is_taken(environment, &schema, &name.name) {
        return Ok(None);
    }
    let message = format!("relation \"{}\" already exists", name.name);
    if clone.if_not_exists {
        return Ok(Some(Error::new(SqlState::DuplicateTable, format!("{message}, skipping"))));
    }
    Err(Error::new(SqlState::DuplicateTable, message))
}

/// The clone of a table, once its name is known to be free.
pub fn clone_definition(clone: &CloneTable, source: &TableDef, scope: &Scope) -> Result<TableDef> {
    let name = relation_name(&clone.name)?;
    let mut def = TableDef {
        id: (scope.new_id)(),
        schema: scope.creation_schema(&name)?,
        name: name.name,
        uniques: Vec::new(),
        indexes: Vec::new(),
        captured: false,
        constraints: constraints(source, scope),
        ..source.clone()
    };
    name_sequences(&mut def, scope)?;
    for unique in &source.uniques {
        add_unique(&mut def, unique.columns.clone(), unique.primary, None, scope)?;
        let Some(made) = def.uniques.last_mut() else { continue };
        made.index.clone_from(&unique.index);
    }
    // One that is being built is not the source's yet.
    for index in source.indexes.iter().filter(|index| index.valid) {
        add_index(&mut def, index, scope);
    }
    Ok(def)
}

/// Its CHECKs, under their names; foreign keys stay with the source, as with LIKE.
fn constraints(source: &TableDef, scope: &Scope) -> Constraints {
    let own = |check: &CheckDef| CheckDef { id: (scope.new_id)(), ..check.clone() };
    Constraints { checks: source.constraints.checks.iter().map(own).collect(), foreign_keys: Vec::new() }
}

/// The clone's sequences are its own.
fn name_sequences(def: &mut TableDef, scope: &Scope) -> Result<()> {
    for place in 0..def.columns.len() {
        let mut column = def.columns[place].clone();
        if !column.is_counted() {
            continue;
        }
        if let Some(sequence) = &mut column.sequence {
            sequence.name = None;
        }
        // As if it were not there yet: its own name is not in its way.
        let rest = TableDef { columns: def.columns[..place].to_vec(), ..def.clone() };
        name_sequence(&rest, &mut column, scope)?;
        def.columns[place] = column;
    }
    Ok(())
}

fn add_index(def: &mut TableDef, index: &IndexDef, scope: &Scope) {
    let columns: Vec<&str> = index
        .columns
        .iter()
        .filter_map(|id| def.column_by_id(*id))
        .map(|column| column.name.as_str())
        .collect();
    let name = generated(&def.name, &columns, "idx", |name| {
        scope.is_taken(&def.schema, name)
            || def.name == name
            || def.index(name).is_some()
            || def.uniques.iter().any(|unique| unique.name == name)
    });
    def.indexes.push(IndexDef { id: (scope.new_id)(), name, ..index.clone() });
}
