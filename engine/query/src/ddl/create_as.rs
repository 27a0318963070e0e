//! CREATE TABLE … AS and SELECT … INTO: a table made of a query's columns, to hold its rows.
//!
//! The session plans the query, makes the definition from its columns when it runs, and inserts its rows.

use datafusion::sql::sqlparser::ast::{ObjectName, Query, SetExpr, Statement};
use sepal_storage::Snapshot;
use sepal_types::{
    ColumnDef, ColumnId, Constraints, Error, Result, SqlState, SqlType, TableDef, TableId,
    limits::MAX_COLUMNS,
};

use super::{
    create_table::{check_storable, no_temporary_tables},
    names::{creation_schema, relation_name},
};
use crate::output::OutputColumn;

/// A recognised statement.
#[derive(Clone, Debug)]
pub struct CreateAs {
    name: ObjectName,
    if_not_exists: bool,
    pub query: Box<Query>,
}

impl CreateAs {
    /// `None` for any other statement. Errors: 0A000 for a temporary table.
    pub fn recognise(statement: &Statement) -> Result<Option<Self>> {
        match statement {
            Statement::CreateTable(create) => {
                let Some(query) = create.query.clone() else { return Ok(None) };
                if create.temporary {
                    return Err(no_temporary_tables());
                }
                if !create.columns.is_empty() || !create.constraints.is_empty() {
                    return Err(Error::new(
                        SqlState::SyntaxError,
                        "CREATE TABLE AS takes its columns from the query",
                    )
                    .with_hint("Name them there: SELECT … AS name."));
                }
                Ok(Some(Self { name: create.name.clone(), if_not_exists: create.if_not_exists, query }))
            }
            Statement::Query(query) => {
                let SetExpr::Select(select) = query.body.as_ref() else { return Ok(None) };
                let Some(into) = &select.into else { return Ok(None) };
                if into.temporary {
                    return Err(no_temporary_tables());
                }
                let name = into.name.clone();
                let mut query = query.clone();
                if let SetExpr::Select(select) = query.body.as_mut() {
                    select.into = None;
                }
                Ok(Some(Self { name, if_not_exists: false, query }))
            }
            _ => Ok(None),
        }
    }

    /// The notice when the table exists and IF NOT EXISTS was said; `None` when it is to be made.
    ///
    /// Errors: 42P07 when it exists, 3F000.
    pub fn exists(&self, snapshot: &Snapshot, environment: &str) -> Result<Option<Error>> {
        let name = relation_name(&self.name)?;
        let schema = creation_schema(snapshot, environment, &name)?;
        if !snapshot.is_taken(environment, &schema, &name.name) {
            return Ok(None);
        }
        let message = format!("relation \"{}\" already exists", name.name);
        if self.if_not_exists {
            return Ok(Some(Error::new(SqlState::DuplicateTable, format!("{message}, skipping"))));
        }
        Err(Error::new(SqlState::DuplicateTable, message))
    }

    /// The table with the columns of the query's result.
    ///
    /// Errors: 3F000, 42701 a name twice, 42P16 and 0A000 a type that no column has.
    pub fn definition(
        &self,
        columns: &[OutputColumn],
        (snapshot, environment): (&Snapshot, &str),
        id: TableId,
    ) -> Result<TableDef> {
        if columns.len() > MAX_COLUMNS {
            let message = format!("tables can have at most {MAX_COLUMNS} columns");
            return Err(Error::new(SqlState::TooManyColumns, message));
        }
        let name = relation_name(&self.name)?;
        let mut def = TableDef {
            id,
            environment: environment.to_owned(),
            schema: creation_schema(snapshot, environment, &name)?,
            name: name.name,
            columns: Vec::with_capacity(columns.len()),
            next_column: ColumnId(1),
            uniques: Vec::new(),
            indexes: Vec::new(),
            captured: false,
            constraints: Constraints::default(),
        };
        for column in columns {
            if def.column(&column.name).is_some() {
                let message = format!("column \"{}\" specified more than once", column.name);
                return Err(Error::new(SqlState::DuplicateColumn, message));
            }
            let ty = match &column.ty {
                SqlType::Void => {
                    let message = format!("column \"{}\" has pseudo-type void", column.name);
                    return Err(Error::new(SqlState::InvalidTableDefinition, message));
                }
                SqlType::Unknown => SqlType::Text,
                other => other.clone(),
            };
            check_storable(&ty)?;
            def.columns.push(ColumnDef::new(def.next_column, column.name.clone(), ty));
            def.next_column = ColumnId(def.next_column.0 + 1);
        }
        Ok(def)
    }
}
