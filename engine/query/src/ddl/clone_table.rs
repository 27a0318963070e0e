//! CREATE TABLE … CLONE: the definition of a table that begins with another one's rows.
//!
//! Columns keep their ids, by which files name them. Constraints and indexes have new ids, and the names that
//! CREATE TABLE … (LIKE … INCLUDING ALL) gives them in Postgres. The rows are storage's.

use sepal_storage::Snapshot;
use sepal_types::{
    CheckDef, ColumnId, Constraints, Error, IndexClauses, IndexDef, KeySource, Result, SqlState, TableDef,
    TableId, UniqueDef,
};

use super::{
    Scope,
    create_table::add_unique,
    enum_type::with_types_of_today,
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
    let def = TableDef {
        id: (scope.new_id)(),
        schema: scope.creation_schema(&name)?,
        name: name.name,
        uniques: Vec::new(),
        indexes: Vec::new(),
        captured: false,
        constraints: constraints(source, scope),
        ..source.clone()
    };
    let mut def = with_types_of_today(def, scope)?;
    name_sequences(&mut def, scope)?;
    // One that is being built is not the source's yet.
    let indexes: Vec<&IndexDef> = source.indexes.iter().filter(|index| index.valid).collect();
    let uniques = source.uniques.iter().map(|unique| unique.id);
    let mut made: Vec<TableId> = uniques.chain(indexes.iter().map(|index| index.id)).collect();
    // Names come free in the order in which they were made.
    made.sort_unstable();
    for id in made {
        if let Some(unique) = source.uniques.iter().find(|unique| unique.id == id) {
            add_own_unique(&mut def, unique, scope)?;
        }
        if let Some(index) = indexes.iter().find(|index| index.id == id) {
            add_index(&mut def, index, scope);
        }
    }
    def.uniques.sort_by_key(|unique| !unique.primary);
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

fn add_own_unique(def: &mut TableDef, unique: &UniqueDef, scope: &Scope) -> Result<()> {
    let names = key_names(def, &unique.columns, unique.index.as_deref());
    let name = match (unique.primary, unique.is_constraint()) {
        (true, _) => free_name(def, &[], "pkey", scope),
        (false, true) => free_name(def, &names, "key", scope),
        (false, false) => free_name(def, &names, "idx", scope),
    };
    add_unique(def, unique.columns.clone(), unique.primary, Some(name), scope)?;
    if let Some(made) = def.uniques.last_mut() {
        made.index.clone_from(&unique.index);
    }
    Ok(())
}

fn add_index(def: &mut TableDef, index: &IndexDef, scope: &Scope) {
    let names = key_names(def, &index.columns, index.clauses.as_deref());
    let name = free_name(def, &names, "idx", scope);
    def.indexes.push(IndexDef { id: (scope.new_id)(), name, ..index.clone() });
}

/// What an index's generated name is made of: its keys, then the columns of INCLUDE (`ChooseIndexColumnNames`).
fn key_names(def: &TableDef, columns: &[ColumnId], clauses: Option<&IndexClauses>) -> Vec<String> {
    let column = |id: &ColumnId| def.column_by_id(*id).map(|column| column.name.clone());
    let keys = clauses.map(|clauses| clauses.keys.as_slice()).unwrap_or_default();
    let include = clauses.map(|clauses| clauses.include.as_slice()).unwrap_or_default();
    let key = |of: &KeySource| match of {
        KeySource::Column(id) => column(id),
        KeySource::Expression { name, .. } => Some(name.clone()),
    };
    let mut names: Vec<String> = match keys {
        [] => columns.iter().filter_map(column).collect(),
        keys => keys.iter().filter_map(|one| key(&one.of)).collect(),
    };
    names.extend(include.iter().filter_map(column));
    names
}

fn free_name(def: &TableDef, names: &[String], suffix: &str, scope: &Scope) -> String {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    generated(&def.name, &names, suffix, |name| {
        scope.is_taken(&def.schema, name)
            || def.name == name
            || def.index(name).is_some()
            || def.uniques.iter().any(|unique| unique.name == name)
            || def.sequence_named(name).is_some()
    })
}
