//! Names in DDL: folding, qualification, truncation, and Postgres' generated names.

use datafusion::sql::sqlparser::ast::{Ident, ObjectName};
use sepal_storage::Snapshot;
use sepal_types::{Error, Result, SqlState, TableDef, limits::MAX_IDENTIFIER_BYTES};

/// An identifier as Postgres folds it: unquoted to lower case, cut to 63 bytes.
pub fn identifier(ident: &Ident) -> String {
    let folded = if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() };
    truncate(&folded)
}

/// Cut to 63 bytes at a character boundary.
pub fn truncate(name: &str) -> String {
    let end =
        (0..=MAX_IDENTIFIER_BYTES.min(name.len())).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
    name[..end].to_owned()
}

/// The last part of a possibly qualified name.
///
/// Errors: 3F000 for a schema other than `public`, 0A000 for more parts than schema and name.
pub fn object_name(name: &ObjectName) -> Result<String> {
    let parts: Vec<String> = name.0.iter().filter_map(|part| part.as_ident()).map(identifier).collect();
    match parts.as_slice() {
        [name] => Ok(name.clone()),
        [schema, name] if schema == "public" => Ok(name.clone()),
        [schema, _] => {
            Err(Error::new(SqlState::InvalidSchemaName, format!("schema \"{schema}\" does not exist"))
                .with_hint("Sepal has the schema public only."))
        }
        _ => Err(Error::unsupported(format!("cross-database references are not implemented: {name}"))),
    }
}

/// The same, for messages.
pub fn table_name(name: &ObjectName) -> String {
    object_name(name).unwrap_or_else(|_| name.to_string())
}

/// Looks a table up. Errors: 42P01.
pub fn find_table(snapshot: &Snapshot, environment: &str, name: &ObjectName) -> Result<TableDef> {
    let name = object_name(name)?;
    match snapshot.find(environment, &name) {
        Some(version) => Ok(version.def.as_ref().clone()),
        None => Err(Error::new(SqlState::UndefinedTable, format!("relation \"{name}\" does not exist"))),
    }
}

/// Whether a table, index, constraint or sequence has this name already.
pub fn taken(snapshot: &Snapshot, environment: &str, name: &str) -> bool {
    if snapshot.find_sequence(environment, name).is_some() {
        return true;
    }
    snapshot.tables().filter(|version| version.def.environment == environment).any(|version| {
        version.def.name == name
            || version.def.indexes.iter().any(|index| index.name == name)
            || version.def.uniques.iter().any(|unique| unique.name == name)
            || version.def.sequence_named(name).is_some()
    })
}

/// `items_embedding_idx`, then `items_embedding_idx1`, … (`ChooseRelationName`, `indexcmds.c`).
pub fn generated(table: &str, columns: &[&str], suffix: &str, is_taken: impl Fn(&str) -> bool) -> String {
    let middle = if columns.is_empty() { String::new() } else { format!("_{}", columns.join("_")) };
    let mut attempt = 0u32;
    loop {
        let number = if attempt == 0 { String::new() } else { attempt.to_string() };
        let tail = format!("_{suffix}{number}");
        let room = MAX_IDENTIFIER_BYTES.saturating_sub(tail.len());
        let stem = format!("{table}{middle}");
        let end = (0..=room.min(stem.len())).rev().find(|end| stem.is_char_boundary(*end)).unwrap_or(0);
        let name = format!("{}{tail}", &stem[..end]);
        if !is_taken(&name) {
            return name;
        }
        attempt += 1;
    }
}
