//! Names in DDL: folding, qualification, truncation, and Postgres' generated names.

use datafusion::sql::sqlparser::ast::{Ident, ObjectName};
use sepal_storage::Snapshot;
use sepal_types::{
    Error, PUBLIC_SCHEMA, RelationName, Result, SqlState, TableDef, limits::MAX_IDENTIFIER_BYTES,
};

use super::Scope;

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

/// The name of a table, index or sequence, with its schema where that is written.
///
/// Errors: 0A000 for more parts than schema and name.
pub fn relation_name(name: &ObjectName) -> Result<RelationName> {
    let mut parts: Vec<String> = name.0.iter().filter_map(|part| part.as_ident()).map(identifier).collect();
    match (parts.pop(), parts.pop(), parts.is_empty()) {
        (Some(name), schema, true) => Ok(RelationName { schema, name }),
        _ => Err(Error::unsupported(format!("cross-database references are not implemented: {name}"))),
    }
}

/// A name that has no schema of its own: of a column, of an index or constraint of a table that is named beside it.
///
/// Errors: 42601 for a schema other than `public`.
pub fn object_name(name: &ObjectName) -> Result<String> {
    let found = relation_name(name)?;
    match found.schema.as_deref() {
        None | Some(PUBLIC_SCHEMA) => Ok(found.name),
        Some(_) => Err(Error::new(SqlState::SyntaxError, "syntax error at or near \".\"")
            .with_detail(format!("{name} is a name that takes no schema."))),
    }
}

/// The last part of a name, for messages, and for what is known whatever schema it is said to be in.
pub fn table_name(name: &ObjectName) -> String {
    relation_name(name).map_or_else(|_| name.to_string(), |name| name.name)
}

/// Looks a table up. Errors: 42P01, 3F000 for a schema that is not there.
pub fn find_table(snapshot: &Snapshot, environment: &str, name: &ObjectName) -> Result<TableDef> {
    let name = relation_name(name)?;
    if let Some(version) = snapshot.find(environment, &name) {
        return Ok(version.def.as_ref().clone());
    }
    check_schema(snapshot, environment, &name)?;
    Err(Error::new(SqlState::UndefinedTable, format!("relation \"{name}\" does not exist")))
}

/// Errors: 3F000 where a name says a schema that is not there.
pub fn check_schema(snapshot: &Snapshot, environment: &str, name: &RelationName) -> Result<()> {
    match &name.schema {
        Some(schema) if !is_system(schema) && !snapshot.has_schema(environment, schema) => {
            Err(no_schema(schema))
        }
        _ => Ok(()),
    }
}

/// 3F000.
pub fn no_schema(schema: &str) -> Error {
    Error::new(SqlState::InvalidSchemaName, format!("schema \"{schema}\" does not exist"))
}

/// Whether a schema is one of the catalogs.
pub fn is_system(schema: &str) -> bool {
    matches!(schema, "pg_catalog" | "information_schema")
}

/// The schema in which something of this name is made.
///
/// Errors: 3F000 where there is none, 42501 for the catalogs.
pub fn creation_schema(snapshot: &Snapshot, environment: &str, name: &RelationName) -> Result<String> {
    let Some(schema) = &name.schema else {
        let first = snapshot.searched_schemas(environment).next();
        return first.map(str::to_owned).ok_or_else(|| {
            Error::new(SqlState::InvalidSchemaName, "no schema has been selected to create in")
        });
    };
    if is_system(schema) {
        let message = format!("permission denied for schema {schema}");
        return Err(Error::new(SqlState::InsufficientPrivilege, message));
    }
    check_schema(snapshot, environment, name)?;
    Ok(schema.clone())
}

impl Scope<'_> {
    /// Whether a table, index, constraint or sequence of the schema has this name already.
    pub fn is_taken(&self, schema: &str, name: &str) -> bool {
        self.snapshot.is_taken(self.environment, schema, name)
    }

    pub fn creation_schema(&self, name: &RelationName) -> Result<String> {
        creation_schema(self.snapshot, self.environment, name)
    }
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
