//! CREATE SCHEMA, ALTER SCHEMA, DROP SCHEMA, SET SCHEMA, and the schema that CREATE EXTENSION names.
//!
//! A schema is a definition ([`TableDef::of_schema`]); what is in it names it, so that a schema's new name is a change
//! of all its tables. `public` is always there: dropping it empties it.

use datafusion::sql::sqlparser::ast::ObjectName;
use sepal_storage::Op;
use sepal_types::{EnumDef, EnumType, Error, PUBLIC_SCHEMA, Result, SqlState, TableDef, TableId};

use super::{
    Ddl, Scope,
    dependents::{Dropped, release},
    names::{find_table, is_system, no_schema, relation_name},
    sequence::{call, owned},
};
use crate::sql::SchemaStatement;

/// Plans a statement about schemas.
///
/// Errors: 3F000, 42P06, 42939, 2BP01.
pub fn plan_schema(statement: &SchemaStatement, scope: &Scope) -> Result<Ddl> {
    let mut ddl = Ddl::tagged(statement.tag());
    match statement {
        SchemaStatement::Create { name, if_not_exists } => create(name, *if_not_exists, scope, &mut ddl)?,
        SchemaStatement::Drop { names, if_exists, cascade } => {
            drop_schemas(names, *if_exists, *cascade, scope, &mut ddl)?;
        }
        SchemaStatement::Rename { name, to } => rename(name, to, scope, &mut ddl)?,
        SchemaStatement::Owner { name } => {
            if !is_system(name) && !scope.snapshot.has_schema(scope.environment, name) {
                return Err(no_schema(name));
            }
        }
        SchemaStatement::Move { table, if_exists, schema } => match set_schema(table, schema, scope) {
            Ok(ops) => ddl.ops = ops,
            Err(error) if *if_exists && error.state() == SqlState::UndefinedTable => {
                let message = format!("{}, skipping", error.message());
                ddl.notices.push(Error::new(error.state(), message));
            }
            Err(error) => return Err(error),
        },
        SchemaStatement::Extension { name, schema } => extension(name, schema.as_deref(), scope)?,
    }
    Ok(ddl)
}

fn extension(name: &str, schema: Option<&str>, scope: &Scope) -> Result<()> {
    if !matches!(name.to_lowercase().as_str(), "vector" | "plpgsql") {
        return Err(Error::unsupported(format!("extension \"{name}\" is not available"))
            .with_hint("Sepal has the extension vector built in, and no others."));
    }
    match schema.filter(|schema| !is_system(schema) && !scope.snapshot.has_schema(scope.environment, schema))
    {
        Some(schema) => Err(no_schema(schema)),
        None => Ok(()),
    }
}

fn check_name(name: &str) -> Result<()> {
    if !name.starts_with("pg_") {
        return Ok(());
    }
    Err(Error::new(SqlState::ReservedName, format!("unacceptable schema name \"{name}\""))
        .with_detail("The prefix \"pg_\" is reserved for system schemas."))
}

fn create(name: &str, if_not_exists: bool, scope: &Scope, ddl: &mut Ddl) -> Result<()> {
    check_name(name)?;
    if is_system(name) || scope.snapshot.has_schema(scope.environment, name) {
        let message = format!("schema \"{name}\" already exists");
        if if_not_exists {
            ddl.notices.push(Error::new(SqlState::DuplicateSchema, format!("{message}, skipping")));
            return Ok(());
        }
        // DROP SCHEMA public has left it empty, and who sent that makes it again.
        if name == PUBLIC_SCHEMA && scope.snapshot.members(scope.environment, name).next().is_none() {
            return Ok(());
        }
        return Err(Error::new(SqlState::DuplicateSchema, message));
    }
    let def = TableDef::of_schema((scope.new_id)(), scope.environment, name.to_owned());
    ddl.ops.push(Op::CreateTable(def));
    Ok(())
}

fn drop_schemas(
    names: &[String],
    if_exists: bool,
    cascade: bool,
    scope: &Scope,
    ddl: &mut Ddl,
) -> Result<()> {
    let mut schemas: Vec<&str> = Vec::new();
    for name in names {
        if is_system(name) {
            let message = format!("cannot drop schema {name} because it is required by the database system");
            return Err(Error::new(SqlState::DependentObjectsStillExist, message));
        }
        if scope.snapshot.has_schema(scope.environment, name) {
            if !schemas.contains(&name.as_str()) {
                schemas.push(name);
            }
        } else if if_exists {
            let message = format!("schema \"{name}\" does not exist, skipping");
            ddl.notices.push(Error::new(SqlState::InvalidSchemaName, message));
        } else {
            return Err(no_schema(name));
        }
    }
    let mut inside: Vec<&TableDef> = Vec::new();
    for schema in &schemas {
        inside.extend(scope.snapshot.members(scope.environment, schema));
    }
    if !cascade && !inside.is_empty() {
        return Err(still_used(&schemas, &inside));
    }
    let dropped: Vec<TableId> = inside.iter().map(|def| def.id).collect();
    refuse_used_types(&inside, &dropped, scope)?;
    let is_left = |def: &TableDef| !dropped.contains(&def.id);
    let without = without_calls(&inside, &is_left, scope);
    let defaults = without.iter().flat_map(|(_, defaults)| defaults).cloned();
    for object in inside.iter().map(|def| described(def)).chain(defaults) {
        let message = format!("drop cascades to {object}");
        ddl.notices.push(Error::new(SqlState::DependentObjectsStillExist, message));
    }
    ddl.ops.extend(without.into_iter().map(|(def, _)| Op::AlterTable(def)));
    ddl.ops.extend(dropped.iter().copied().map(Op::DropTable));
    let outside = inside.iter().flat_map(|def| owned(scope, def.id, None));
    ddl.ops.extend(outside.filter(|id| !dropped.contains(id)).map(Op::DropTable));
    for def in &inside {
        let what = described(def);
        let gone = Dropped { what: &what, needed: &what, cascade };
        release(ddl, (def.id, None), &gone, |key| key.parent == def.id, scope)?;
    }
    for schema in schemas {
        match scope.snapshot.schema(scope.environment, schema) {
            Some(def) => ddl.ops.push(Op::DropTable(def.id)),
            None => ddl.notices.push(Error::new(
                SqlState::SuccessfulCompletion,
                "schema \"public\" is empty now; it cannot be dropped",
            )),
        }
    }
    Ok(())
}

/// Tables that are left, without the defaults that call a sequence of those that go, and how these are described.
fn without_calls(
    gone: &[&TableDef],
    is_left: &dyn Fn(&TableDef) -> bool,
    scope: &Scope,
) -> Vec<(TableDef, Vec<String>)> {
    let calls: Vec<String> = gone.iter().flat_map(|def| calls(def, &def.schema)).collect();
    let tables = scope.snapshot.tables().map(|version| version.def.as_ref());
    let left = tables.filter(|def| def.environment == scope.environment && is_left(def));
    left.filter_map(|def| {
        let (mut def, mut described) = (def.clone(), Vec::new());
        for column in &mut def.columns {
            let called = |text: &String| calls.iter().any(|call| text.contains(call.as_str()));
            if column.default.as_ref().is_some_and(called) {
                column.default = None;
                described.push(format!("default value for column {} of table {}", column.name, def.name));
            }
        }
        (!described.is_empty()).then_some((def, described))
    })
    .collect()
}

/// Errors: 0A000 for a type that goes with its schema while a table of another one has columns of it.
fn refuse_used_types(inside: &[&TableDef], dropped: &[TableId], scope: &Scope) -> Result<()> {
    for ty in inside.iter().filter_map(|def| def.enum_type()) {
        let mut left = scope.snapshot.tables().filter(|version| !dropped.contains(&version.def.id));
        if let Some(user) = left.find(|version| version.def.used_enums().any(|used| used.id == ty.id)) {
            let message = "dropping a schema whose types a table of another schema uses is not supported";
            let detail = format!("Table {} has a column of type {}.", user.def.shown_name(), ty.shown());
            return Err(Error::unsupported(message).with_detail(detail));
        }
    }
    Ok(())
}

fn described(def: &TableDef) -> String {
    let kind = match def.enum_type() {
        Some(_) => "type",
        None if def.is_sequence() => "sequence",
        None => "table",
    };
    match def.schema.as_str() {
        PUBLIC_SCHEMA => format!("{kind} {}", def.name),
        schema => format!("{kind} {schema}.{}", def.name),
    }
}

fn still_used(schemas: &[&str], inside: &[&TableDef]) -> Error {
    let message = match schemas {
        [schema] => format!("cannot drop schema {schema} because other objects depend on it"),
        _ => "cannot drop desired object(s) because other objects depend on them".to_owned(),
    };
    let line = |def: &&TableDef| format!("{} depends on schema {}", described(def), def.schema);
    let detail: Vec<String> = inside.iter().map(line).collect();
    Error::new(SqlState::DependentObjectsStillExist, message)
        .with_detail(detail.join("\n"))
        .with_hint("Use DROP ... CASCADE to drop the dependent objects too.")
}

fn rename(name: &str, to: &str, scope: &Scope, ddl: &mut Ddl) -> Result<()> {
    if name == PUBLIC_SCHEMA || is_system(name) {
        return Err(Error::unsupported(format!("the schema {name} cannot have another name")));
    }
    let schema = scope.snapshot.schema(scope.environment, name).ok_or_else(|| no_schema(name))?;
    if is_system(to) || scope.snapshot.has_schema(scope.environment, to) {
        return Err(Error::new(SqlState::DuplicateSchema, format!("schema \"{to}\" already exists")));
    }
    check_name(to)?;
    ddl.ops.push(Op::AlterTable(TableDef { name: to.to_owned(), ..schema.clone() }));
    let members: Vec<TableId> = scope.snapshot.members(scope.environment, name).map(|def| def.id).collect();
    ddl.ops.extend(relocated(&members, to, scope));
    Ok(())
}

/// ALTER TABLE … SET SCHEMA; the table's sequences go with it.
fn set_schema(name: &ObjectName, schema: &str, scope: &Scope) -> Result<Vec<Op>> {
    let found = find_table(scope.snapshot, scope.environment, name);
    let named = relation_name(name)?;
    if found.is_err() && scope.snapshot.find_indexed(scope.environment, &named).is_some() {
        let message = format!("cannot change schema of index \"{}\"", named.name);
        return Err(Error::new(SqlState::WrongObjectType, message)
            .with_hint("Change the schema of the table instead."));
    }
    let def = found?;
    let mut going = vec![def.id];
    going.extend(owned(scope, def.id, None));
    moved(&going, &def.schema, schema, scope)
}

/// Tables and sequences of one schema, in another.
///
/// Errors: 3F000, 42P07 where one of their names is taken there.
pub fn moved(going: &[TableId], from: &str, to: &str, scope: &Scope) -> Result<Vec<Op>> {
    if is_system(to) {
        return Err(Error::new(
            SqlState::InsufficientPrivilege,
            format!("permission denied for schema {to}"),
        ));
    }
    if !scope.snapshot.has_schema(scope.environment, to) {
        return Err(no_schema(to));
    }
    if from == to {
        return Ok(Vec::new());
    }
    for def in going.iter().filter_map(|id| scope.snapshot.table(*id)).map(|version| &version.def) {
        let indexes = def.indexes.iter().map(|index| index.name.clone());
        let uniques = def.uniques.iter().map(|unique| unique.name.clone());
        let sequences = def.columns.iter().filter(|column| column.generated.is_some());
        let mut names = std::iter::once(def.name.clone())
            .chain(indexes)
            .chain(uniques)
            .chain(sequences.map(|column| def.sequence_name(column)));
        if let Some(name) = names.find(|name| scope.is_taken(to, name)) {
            let message = format!("relation \"{name}\" already exists in schema \"{to}\"");
            return Err(Error::new(SqlState::DuplicateTable, message));
        }
    }
    Ok(relocated(going, to, scope))
}

/// Every definition of the environment that is another one once these are in the schema `to`: they themselves, and
/// tables whose defaults call their sequences.
fn relocated(going: &[TableId], to: &str, scope: &Scope) -> Vec<Op> {
    let defs = going.iter().filter_map(|id| scope.snapshot.table(*id)).map(|version| version.def.as_ref());
    let called = |def: &TableDef| calls(def, &def.schema).into_iter().zip(calls(def, to)).collect::<Vec<_>>();
    let replaced: Vec<(String, String)> = defs.flat_map(called).collect();
    let types: Vec<EnumType> = going
        .iter()
        .filter_map(|id| scope.snapshot.table(*id)?.def.enum_type())
        .map(|ty| EnumType::from(EnumDef { schema: to.to_owned(), ..EnumDef::clone(ty) }))
        .collect();
    let of_types = types.iter().map(|ty| Op::AlterTable(TableDef::of_enum(scope.environment, ty.clone())));
    let all = scope.snapshot.tables().chain(scope.snapshot.sequences());
    let own = all.map(|version| version.def.as_ref()).filter(|def| def.environment == scope.environment);
    let altered = own.filter_map(|old| {
        let mut def = old.clone();
        for ty in &types {
            def = def.with_enum(ty).unwrap_or(def);
        }
        if going.contains(&def.id) {
            to.clone_into(&mut def.schema);
        }
        for text in def.columns.iter_mut().filter_map(|column| column.default.as_mut()) {
            for (before, after) in &replaced {
                *text = text.replace(before, after);
            }
        }
        (def != *old).then_some(Op::AlterTable(def))
    });
    of_types.chain(altered).collect()
}

/// How defaults call a definition's sequences, if it is in that schema.
fn calls(def: &TableDef, schema: &str) -> Vec<String> {
    let columns = def.columns.iter().filter(|column| column.generated.is_some());
    columns.map(|column| call(schema, &def.sequence_name(column))).collect()
}
