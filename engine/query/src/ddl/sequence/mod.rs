//! Sequences: CREATE, ALTER and DROP SEQUENCE, identity columns, and which defaults and columns need one.
//!
//! A sequence of its own is a definition beside the tables ([`TableDef::of_sequence`]); one of a serial or identity
//! column is a part of its column. Both answer to the same names and the same statements.

mod defaults;
mod options;

use datafusion::sql::sqlparser::ast::ObjectName;
use sepal_storage::Op;
use sepal_types::{
    ColumnDef, ColumnId, Error, Generated, RelationName, Result, SequenceDef, SqlState, SqlType, TableDef,
    TableId,
};

use super::{
    Ddl, Scope,
    generation::drop_expression,
    names::{check_schema, find_table, generated, relation_name},
    schema::moved,
};
use crate::sql::{IdentityChange, SequenceChange, SequenceOption, SequenceStatement, object_of};

use defaults::dependents;
pub use defaults::{call, in_public, with_sequences};
pub use options::{check_identity_type, identity_options};
use options::{set_sequence, with_options};

/// Plans a statement about sequences.
pub fn plan_sequence(statement: &SequenceStatement, scope: &Scope) -> Result<Ddl> {
    let mut ddl = Ddl::tagged(statement.tag());
    match statement {
        SequenceStatement::Create { name, if_not_exists, temporary, options } => {
            if *temporary {
                return Err(Error::unsupported("temporary sequences are not supported")
                    .with_hint("Create an ordinary sequence and drop it afterwards."));
            }
            create(&relation_name(name)?, *if_not_exists, options, scope, &mut ddl)?;
        }
        SequenceStatement::Alter { name, if_exists, change } => {
            let name = relation_name(name)?;
            match find(&name, scope) {
                Ok(found) => alter(&name, found, change, scope, &mut ddl)?,
                Err(error) if *if_exists && error.state() == SqlState::UndefinedTable => {
                    ddl.notices.push(skipping(&error));
                }
                Err(error) => return Err(error),
            }
        }
        SequenceStatement::AlterColumn { table, if_exists, column, change } => {
            match find_table(scope.snapshot, scope.environment, table) {
                Ok(def) => alter_identity(def, column, change, scope, &mut ddl)?,
                Err(error) if *if_exists && error.state() == SqlState::UndefinedTable => {
                    ddl.notices.push(skipping(&error));
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(ddl)
}

fn skipping(error: &Error) -> Error {
    Error::new(error.state(), format!("{}, skipping", error.message()))
}

fn create(
    name: &RelationName,
    if_not_exists: bool,
    options: &[SequenceOption],
    scope: &Scope,
    ddl: &mut Ddl,
) -> Result<()> {
    let schema = scope.creation_schema(name)?;
    let name = &name.name;
    if scope.is_taken(&schema, name) {
        let error = Error::new(SqlState::DuplicateTable, format!("relation \"{name}\" already exists"));
        if !if_not_exists {
            return Err(error);
        }
        ddl.notices.push(skipping(&error));
        return Ok(());
    }
    let (mut sequence, _) = with_options(None, &SqlType::Int8, options)?;
    sequence.owner = owner(options, &schema, scope)?.flatten();
    let next = sequence.start;
    let name = (schema, name.clone());
    let def = TableDef::of_sequence((scope.new_id)(), scope.environment, name, sequence);
    let (table, column) = (def.id, TableDef::SEQUENCE_COLUMN);
    ddl.ops.extend([Op::CreateTable(def), Op::SetSequence { table, column, next }]);
    Ok(())
}

/// The definition and the column of the sequence of this name.
///
/// Errors: 42P01, 42809 for a table, 3F000.
fn find(name: &RelationName, scope: &Scope) -> Result<(TableDef, ColumnDef)> {
    if let Some((def, column)) = sequence_of(name, scope) {
        return Ok((def.clone(), column.clone()));
    }
    if scope.snapshot.find(scope.environment, name).is_some() {
        return Err(not_a_sequence(&name.name));
    }
    check_schema(scope.snapshot, scope.environment, name)?;
    Err(Error::new(SqlState::UndefinedTable, format!("relation \"{name}\" does not exist")))
}

fn not_a_sequence(name: &str) -> Error {
    Error::new(SqlState::WrongObjectType, format!("\"{name}\" is not a sequence"))
}

fn sequence_of<'a>(name: &RelationName, scope: &'a Scope) -> Option<(&'a TableDef, &'a ColumnDef)> {
    let found = scope.snapshot.sequence_named(scope.environment, name);
    found.map(|(version, column)| (version.def.as_ref(), column))
}

fn alter(
    name: &RelationName,
    (mut def, column): (TableDef, ColumnDef),
    change: &SequenceChange,
    scope: &Scope,
    ddl: &mut Ddl,
) -> Result<()> {
    let before = def.clone();
    match change {
        SequenceChange::Nothing => {}
        SequenceChange::SetSchema(schema) => return move_sequence(&def, &column, schema, scope, ddl),
        SequenceChange::Rename(new) => {
            let schema = def.schema.clone();
            if scope.is_taken(&schema, new) {
                let message = format!("relation \"{new}\" already exists");
                return Err(Error::new(SqlState::DuplicateTable, message));
            }
            let name = &name.name;
            rename(&mut def, column.id, new);
            for (mut table, columns) in dependents(&schema, name, scope) {
                for column in table.columns.iter_mut().filter(|column| columns.contains(&column.name)) {
                    let renamed = |text: String| text.replace(&call(&schema, name), &call(&schema, new));
                    column.default = column.default.take().map(renamed);
                }
                ddl.ops.push(Op::AlterTable(table));
            }
        }
        SequenceChange::Options(options) => {
            let owner = owner(options, &def.schema, scope)?;
            let current = column.sequence();
            let (mut sequence, restart) = with_options(current, &column.ty, options)?;
            if let Some(owner) = owner {
                own(&name.name, &mut sequence, &def, &column, owner)?;
            }
            let apart = def.is_sequence();
            for column in def.columns.iter_mut().filter(|known| known.id == column.id) {
                match apart {
                    true => column.sequence = Some(Box::new(sequence.clone())),
                    false => set_sequence(column, sequence.clone()),
                }
            }
            restarted(ddl, def.id, column.id, restart);
        }
    }
    if def != before {
        ddl.ops.push(Op::AlterTable(def));
    }
    Ok(())
}

/// ALTER SEQUENCE … SET SCHEMA. One of a column's goes where its table is.
fn move_sequence(
    def: &TableDef,
    column: &ColumnDef,
    schema: &str,
    scope: &Scope,
    ddl: &mut Ddl,
) -> Result<()> {
    let owner = column.sequence().and_then(|sequence| sequence.owner);
    if !def.is_sequence() || owner.is_some() {
        return Err(Error::unsupported("cannot move an owned sequence into another schema"));
    }
    ddl.ops.extend(moved(&[def.id], &def.schema, schema, scope)?);
    Ok(())
}

fn restarted(ddl: &mut Ddl, table: TableId, column: ColumnId, restart: Option<i64>) {
    ddl.ops.extend(restart.map(|next| Op::SetSequence { table, column, next }));
}

fn rename(def: &mut TableDef, column: ColumnId, name: &str) {
    if def.is_sequence() {
        name.clone_into(&mut def.name);
    }
    for column in def.columns.iter_mut().filter(|known| known.id == column) {
        pin(column, name);
    }
}

/// The column's sequence has this name, whatever becomes of table and column.
pub fn pin(column: &mut ColumnDef, name: &str) {
    if column.generated == Some(Generated::Sequence) {
        return;
    }
    let sequence = column.sequence();
    column.sequence =
        sequence.map(|sequence| Box::new(SequenceDef { name: Some(name.to_owned()), ..sequence }));
}

/// The same of all columns, before the table or one of them gets another name.
pub fn pin_names(def: &mut TableDef) {
    let names: Vec<String> = def.columns.iter().map(|column| def.sequence_name(column)).collect();
    for (column, name) in def.columns.iter_mut().zip(names).filter(|(column, _)| column.is_counted()) {
        pin(column, &name);
    }
}

/// OWNED BY of a sequence that is there.
fn own(
    name: &str,
    sequence: &mut SequenceDef,
    def: &TableDef,
    column: &ColumnDef,
    owner: Option<(TableId, ColumnId)>,
) -> Result<()> {
    match column.generated {
        Some(Generated::Sequence) => {
            sequence.owner = owner;
            Ok(())
        }
        Some(Generated::Serial) if owner == Some((def.id, column.id)) => Ok(()),
        Some(Generated::Serial | Generated::Stored | Generated::Schema | Generated::Type) | None => {
            Err(Error::unsupported("the sequence of a serial column cannot have another owner")
                .with_hint("Give the column a DEFAULT nextval(…) of a sequence that you create."))
        }
        Some(Generated::IdentityAlways | Generated::IdentityByDefault) => {
            Err(Error::unsupported("cannot change ownership of identity sequence")
                .with_detail(format!("Sequence \"{name}\" is linked to table \"{}\".", def.name)))
        }
    }
}

/// What OWNED BY says, if it is there, of a sequence in a schema.
///
/// Errors: 55000 for a table of another schema.
fn owner(
    options: &[SequenceOption],
    schema: &str,
    scope: &Scope,
) -> Result<Option<Option<(TableId, ColumnId)>>> {
    let said = options.iter().find_map(|option| match option {
        SequenceOption::OwnedBy(parts) => Some(parts.as_deref()),
        _ => None,
    });
    let Some(said) = said else { return Ok(None) };
    let Some(parts) = said else { return Ok(Some(None)) };
    let Some((column, table)) = parts.split_last().filter(|(_, table)| !table.is_empty()) else {
        return Err(Error::new(SqlState::SyntaxError, "invalid OWNED BY option")
            .with_hint("Specify OWNED BY table.column or OWNED BY NONE."));
    };
    let def = find_table(scope.snapshot, scope.environment, &object_of(table.to_vec()))?;
    if def.schema != schema {
        let message = "sequence must be in same schema as table it is linked to";
        return Err(Error::new(SqlState::ObjectNotInPrerequisiteState, message));
    }
    let found = def.column(column).ok_or_else(|| missing_column(&def, column))?;
    Ok(Some(Some((def.id, found.id))))
}

fn missing_column(def: &TableDef, column: &str) -> Error {
    let message = format!("column \"{column}\" of relation \"{}\" does not exist", def.name);
    Error::new(SqlState::UndefinedColumn, message)
}

fn alter_identity(
    mut def: TableDef,
    column: &str,
    change: &IdentityChange,
    scope: &Scope,
    ddl: &mut Ddl,
) -> Result<()> {
    let old = def.column(column).cloned().ok_or_else(|| missing_column(&def, column))?;
    let of = format!("column \"{column}\" of relation \"{}\"", def.name);
    let state = |message: String| Error::new(SqlState::ObjectNotInPrerequisiteState, message);
    let is_identity = matches!(old.generated, Some(Generated::IdentityAlways | Generated::IdentityByDefault));
    let mut new = old.clone();
    let mut restart = None;
    match change {
        IdentityChange::DropExpression { if_exists } => {
            drop_expression(&mut new, &def.name, *if_exists, &mut ddl.notices)?;
        }
        IdentityChange::Add { .. } if is_identity => {
            return Err(state(format!("{of} is already an identity column")));
        }
        IdentityChange::Add { .. } if old.generated.is_some() || old.default.is_some() => {
            return Err(state(format!("{of} already has a default value")));
        }
        IdentityChange::Add { .. } if !old.not_null => {
            return Err(state(format!("{of} must be declared NOT NULL before identity can be added")));
        }
        IdentityChange::Add { always, options } => {
            check_identity_type(&old.ty)?;
            let (sequence, _) = with_options(None, &old.ty, options)?;
            restart = Some(sequence.start);
            new.generated = Some(generated_as(*always));
            set_sequence(&mut new, sequence);
            name_sequence(&def, &mut new, scope)?;
        }
        IdentityChange::Drop { if_exists: true } if !is_identity => {
            let message = format!("{of} is not an identity column, skipping");
            ddl.notices.push(state(message));
        }
        _ if !is_identity => return Err(state(format!("{of} is not an identity column"))),
        IdentityChange::Drop { .. } => (new.generated, new.sequence) = (None, None),
        IdentityChange::Set { always, options } => {
            let (sequence, next) = with_options(old.sequence(), &old.ty, options)?;
            restart = next;
            new.generated = always.map(generated_as).or(old.generated);
            set_sequence(&mut new, sequence);
        }
    }
    if new != old {
        for known in def.columns.iter_mut().filter(|known| known.id == new.id) {
            known.clone_from(&new);
        }
        ddl.ops.push(Op::AlterTable(def.clone()));
    }
    restarted(ddl, def.id, new.id, restart);
    Ok(())
}

const fn generated_as(always: bool) -> Generated {
    if always { Generated::IdentityAlways } else { Generated::IdentityByDefault }
}

/// Gives a new column's sequence a name that is free, and refuses one that was asked for and is not.
pub fn name_sequence(def: &TableDef, column: &mut ColumnDef, scope: &Scope) -> Result<()> {
    let name = def.sequence_name(column);
    let is_taken = |name: &str| {
        scope.is_taken(&def.schema, name) || def.name == name || def.sequence_named(name).is_some()
    };
    if !is_taken(&name) {
        return Ok(());
    }
    if column.sequence.as_ref().is_some_and(|sequence| sequence.name.is_some()) {
        return Err(Error::new(SqlState::DuplicateTable, format!("relation \"{name}\" already exists")));
    }
    let free = generated(&def.name, &[&column.name], "seq", is_taken);
    pin(column, &free);
    Ok(())
}

/// Where the sequences of a new table's columns begin, if not at 1.
pub fn starts(def: &TableDef) -> impl Iterator<Item = Op> {
    let started = def.columns.iter().filter_map(|column| Some((column.id, column.sequence()?.start)));
    started.filter(|(_, start)| *start != 1).map(move |(column, next)| Op::SetSequence {
        table: def.id,
        column,
        next,
    })
}

/// Sequences that belong to a column of the table, or to that one of them.
pub fn owned(scope: &Scope, table: TableId, column: Option<ColumnId>) -> Vec<TableId> {
    let is_owned = |def: &TableDef| {
        let owner = def.columns.first().and_then(ColumnDef::sequence).and_then(|sequence| sequence.owner);
        owner.is_some_and(|(of, at)| of == table && column.is_none_or(|column| column == at))
    };
    scope
        .snapshot
        .sequences()
        .filter(|version| is_owned(&version.def))
        .map(|version| version.def.id)
        .collect()
}

/// Plans DROP SEQUENCE.
///
/// Errors: 42P01, 3F000, 42809, 2BP01 for one that a default or an identity column needs.
pub fn drop_sequences(if_exists: bool, names: &[ObjectName], cascade: bool, scope: &Scope) -> Result<Ddl> {
    let mut ddl = Ddl::tagged("DROP SEQUENCE");
    for name in names {
        let name = relation_name(name)?;
        let Some((def, column)) = sequence_of(&name, scope) else {
            if scope.snapshot.find(scope.environment, &name).is_some() {
                return Err(not_a_sequence(&name.name).with_hint("Use DROP TABLE to remove a table."));
            }
            let missing = check_schema(scope.snapshot, scope.environment, &name).err().unwrap_or_else(|| {
                Error::new(SqlState::UndefinedTable, format!("sequence \"{}\" does not exist", name.name))
            });
            if !if_exists {
                return Err(missing);
            }
            ddl.notices.push(skipping(&missing));
            continue;
        };
        drop_sequence(&name.name, def, column, cascade, scope, &mut ddl)?;
    }
    Ok(ddl)
}

fn drop_sequence(
    name: &str,
    def: &TableDef,
    column: &ColumnDef,
    cascade: bool,
    scope: &Scope,
    ddl: &mut Ddl,
) -> Result<()> {
    let mut needing = dependents(&def.schema, name, scope);
    match column.generated {
        Some(Generated::Sequence) => ddl.ops.push(Op::DropTable(def.id)),
        Some(Generated::Serial) => needing.push((def.clone(), vec![column.name.clone()])),
        _ => {
            let of = format!("column {} of table {}", column.name, def.name);
            let message = format!("cannot drop sequence {name} because {of} requires it");
            return Err(Error::new(SqlState::DependentObjectsStillExist, message)
                .with_hint(format!("You can drop {of} instead.")));
        }
    }
    let described = |(table, columns): &(TableDef, Vec<String>)| {
        let of = |column: &String| format!("default value for column {column} of table {}", table.name);
        columns.iter().map(of).collect::<Vec<_>>()
    };
    let all: Vec<String> = needing.iter().flat_map(described).collect();
    if !cascade && !all.is_empty() {
        let message = format!("cannot drop sequence {name} because other objects depend on it");
        let detail: Vec<String> =
            all.iter().map(|object| format!("{object} depends on sequence {name}")).collect();
        return Err(Error::new(SqlState::DependentObjectsStillExist, message)
            .with_detail(detail.join("\n"))
            .with_hint("Use DROP ... CASCADE to drop the dependent objects too."));
    }
    for object in all {
        let message = format!("drop cascades to {object}");
        ddl.notices.push(Error::new(SqlState::DependentObjectsStillExist, message));
    }
    for (mut table, columns) in needing {
        for column in table.columns.iter_mut().filter(|column| columns.contains(&column.name)) {
            (column.default, column.generated, column.sequence) = (None, None, None);
        }
        ddl.ops.push(Op::AlterTable(table));
    }
    Ok(())
}
