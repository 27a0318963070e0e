//! Schemas: each is a definition beside the tables, so that it is logged, committed and kept as they are.
//!
//! `public` has none: it is always there.

use crate::{ColumnDef, ColumnId, Generated, PUBLIC_SCHEMA, SqlType, TableDef, TableId};

impl TableDef {
    /// Where the names of schemas stand: in no schema.
    pub const OF_SCHEMAS: &str = "";

    /// A schema, made by CREATE SCHEMA. A program that knows no such refuses the definition for its column's
    /// [`Generated::Schema`], and with it the tables of another schema than `public`, which it would take for that
    /// one's.
    pub fn of_schema(id: TableId, environment: &str, name: String) -> Self {
        let column = ColumnDef {
            generated: Some(Generated::Schema),
            ..ColumnDef::new(ColumnId(1), "schema", SqlType::Bool)
        };
        Self::of_one_column(id, environment, (Self::OF_SCHEMAS.to_owned(), name), column)
    }

    pub fn is_schema(&self) -> bool {
        self.columns.first().is_some_and(|column| column.generated == Some(Generated::Schema))
    }

    /// Its name where no search path is in sight: with the schema, unless that is `public`.
    pub fn shown_name(&self) -> String {
        match self.schema.as_str() {
            PUBLIC_SCHEMA => self.name.clone(),
            schema => format!("{schema}.{}", self.name),
        }
    }

    /// Neither a sequence nor a schema nor a type.
    pub fn is_table(&self) -> bool {
        !self.is_sequence() && !self.is_schema() && self.enum_type().is_none()
    }
}
