//! DDL: from the AST to catalog operations. Planned on the AST, because DataFusion's planner drops what
//! matters here (operator classes, WITH options, identity).
//!
//! Called by `database::Session`. Nothing is written here: the result is a list of [`Op`]s for the
//! transaction, and which indexes are to be built after its commit.

mod alter_table;
mod clone_table;
mod constraints;
mod create_as;
mod create_index;
mod create_table;
mod deparse;
mod dependents;
mod drop;
mod names;
mod sequence;

use datafusion::sql::sqlparser::ast;
use sepal_storage::{Op, Snapshot};
use sepal_types::{Error, Result, SqlState, TableDef, TableId};

pub use clone_table::{clone_definition, clone_exists};
pub use create_as::CreateAs;
pub use drop::drop_indexes;
pub use names::{identifier, object_name, table_name};
pub(crate) use sequence::call as sequence_call;
pub use sequence::plan_sequence;

/// What a DDL statement does.
#[derive(Debug, Default)]
pub struct Ddl {
    pub ops: Vec<Op>,
    /// Vector indexes to build once the operations are committed.
    pub builds: Vec<(TableId, TableId)>,
    /// UNIQUE added to existing rows: they must be checked before the operations are applied.
    pub verify: Vec<(TableId, sepal_types::UniqueDef)>,
    /// CHECK and FOREIGN KEY constraints, each with its table, that are to be evaluated over its rows once the
    /// operations are applied: new ones, and those of VALIDATE.
    pub hold: Vec<(TableId, TableId)>,
    /// NOTICEs, as Postgres words them.
    pub notices: Vec<Error>,
    pub tag: &'static str,
}

impl Ddl {
    fn tagged(tag: &'static str) -> Self {
        Self { tag, ..Self::default() }
    }

    /// Has those of a table's constraints looked at whose id is `wanted`.
    fn hold(&mut self, def: &TableDef, wanted: impl Fn(TableId) -> bool) {
        let checks = def.constraints.checks.iter().map(|check| check.id);
        let keys = def.constraints.foreign_keys.iter().map(|key| key.id);
        self.hold.extend(checks.chain(keys).filter(|id| wanted(*id)).map(|id| (def.id, id)));
    }
}

/// The session's part: where names are looked up and where new ids come from.
pub struct Scope<'a> {
    pub snapshot: &'a Snapshot,
    pub environment: &'a str,
    pub new_id: &'a dyn Fn() -> TableId,
}

/// Plans a DDL statement; `None` for any other statement.
pub fn plan_ddl(statement: &ast::Statement, scope: &Scope) -> Result<Option<Ddl>> {
    use ast::Statement as S;
    Ok(Some(match statement {
        S::CreateTable(create) => create_table::create_table(create, scope)?,
        S::CreateIndex(create) => create_index::create_index(create, scope)?,
        S::AlterTable(alter) => alter_table::alter_table(alter, scope)?,
        S::AlterIndex { name, operation } => alter_table::alter_index(name, operation, scope)?,
        S::Drop { object_type: ast::ObjectType::Sequence, if_exists, names, cascade, .. } => {
            sequence::drop_sequences(*if_exists, names, *cascade, scope)?
        }
        S::Drop { object_type, if_exists, names, cascade, .. } => {
            drop::drop_objects(*object_type, *if_exists, names, *cascade, scope)?
        }
        S::Truncate(truncate) => drop::truncate(truncate, scope)?,
        S::CreateExtension(create) => extension(&create.name.value)?,
        S::DropExtension(_) => {
            return Err(Error::new(
                SqlState::DependentObjectsStillExist,
                "cannot drop extension vector because the type vector is built in",
            ));
        }
        S::CreateSchema { schema_name, if_not_exists, .. } => {
            schema(&schema_name.to_string(), *if_not_exists)?
        }
        S::Comment { .. } => Ddl::tagged("COMMENT"),
        S::Grant { .. } => Ddl::tagged("GRANT"),
        S::Revoke { .. } => Ddl::tagged("REVOKE"),
        S::CreateView { .. } => {
            return Err(Error::unsupported("views are not supported yet")
                .with_hint("Put the query into a CTE: WITH name AS (SELECT …) SELECT … FROM name."));
        }
        S::CreateType { .. } | S::CreateDomain(_) => {
            return Err(Error::unsupported("user-defined types are not supported"));
        }
        S::CreateFunction { .. } | S::CreateTrigger(_) | S::CreateProcedure { .. } => {
            return Err(Error::unsupported("stored procedures and triggers are not supported"));
        }
        _ => return Ok(None),
    }))
}

fn extension(name: &str) -> Result<Ddl> {
    if matches!(name.to_lowercase().as_str(), "vector" | "plpgsql") {
        return Ok(Ddl::tagged("CREATE EXTENSION"));
    }
    Err(Error::unsupported(format!("extension \"{name}\" is not available"))
        .with_hint("Sepal has the extension vector built in, and no others."))
}

fn schema(name: &str, if_not_exists: bool) -> Result<Ddl> {
    if name.trim_matches('"') != "public" {
        return Err(Error::unsupported("schemas other than public are not supported")
            .with_hint("Use an environment (a database of its own) or a prefix in the table names."));
    }
    if !if_not_exists {
        return Err(Error::new(SqlState::DuplicateObject, "schema \"public\" already exists"));
    }
    Ok(Ddl::tagged("CREATE SCHEMA"))
}
