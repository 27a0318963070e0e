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
mod enum_type;
mod generation;
mod names;
mod retype;
mod schema;
mod sequence;
mod vector_index;

use datafusion::sql::sqlparser::ast;
use sepal_storage::{Op, Snapshot};
use sepal_types::{Error, Result, SqlState, TableDef, TableId};

pub use clone_table::{clone_definition, clone_exists};
pub use create_as::CreateAs;
pub use drop::drop_indexes;
pub(crate) use enum_type::named_enum;
pub(crate) use generation::{generation_expression, not_immutable};
pub(crate) use names::truncate;
pub use names::{identifier, object_name, relation_name, table_name};
pub use retype::Rewrite;
pub(crate) use retype::expression_assignable;
pub use schema::plan_schema;
pub use sequence::plan_sequence;
pub(crate) use sequence::{call as sequence_call, in_public};

/// What a DDL statement does.
#[derive(Debug, Default)]
pub struct Ddl {
    pub ops: Vec<Op>,
    /// Vector indexes to build once the operations are committed.
    pub builds: Vec<(TableId, TableId)>,
    /// UNIQUE added to existing rows: they must be checked before the operations are applied.
    pub verify: Vec<(TableId, sepal_types::UniqueDef)>,
    /// Rows that are to be written anew, once the operations are applied.
    pub rewrite: Option<Rewrite>,
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
        S::Drop { object_type: ast::ObjectType::Type, if_exists, names, cascade, .. } => {
            enum_type::drop_types(*if_exists, names, *cascade, scope)?
        }
        S::Drop { object_type, if_exists, names, cascade, .. } => {
            drop::drop_objects(*object_type, *if_exists, names, *cascade, scope)?
        }
        S::Truncate(truncate) => drop::truncate(truncate, scope)?,
        S::DropExtension(_) => {
            return Err(Error::new(
                SqlState::DependentObjectsStillExist,
                "cannot drop extension vector because the type vector is built in",
            ));
        }
        S::Comment { .. } => Ddl::tagged("COMMENT"),
        S::Grant { .. } => Ddl::tagged("GRANT"),
        S::Revoke { .. } => Ddl::tagged("REVOKE"),
        S::CreateView { .. } => {
            return Err(Error::unsupported("views are not supported yet")
                .with_hint("Put the query into a CTE: WITH name AS (SELECT …) SELECT … FROM name."));
        }
        S::CreateType { name, representation } => {
            enum_type::create_type(name, representation.as_ref(), scope)?
        }
        S::AlterType(alter) => enum_type::alter_type(alter, scope)?,
        S::CreateDomain(_) => return Err(Error::unsupported("domains are not supported")),
        S::CreateFunction { .. } | S::CreateTrigger(_) | S::CreateProcedure { .. } => {
            return Err(Error::unsupported("stored procedures and triggers are not supported"));
        }
        _ => return Ok(None),
    }))
}
