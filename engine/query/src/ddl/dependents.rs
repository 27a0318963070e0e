//! Foreign keys as what stands in the way of DROP and TRUNCATE: they go with CASCADE, else nothing goes.
//!
//! Called by `alter_table` and `drop`. Tables are changed in the operations of the statement at hand, so that two of
//! its parts may change the same one.

use sepal_storage::Op;
use sepal_types::{Error, ForeignKeyDef, Result, SqlState, TableDef, TableId};

use super::{Ddl, Scope};

/// What is to be dropped.
pub struct Dropped<'a> {
    /// As the statement calls it: `table p`, `constraint p_pkey on table p`.
    pub what: &'a str,
    /// What of it the foreign keys need: `table p`, `index p_pkey`.
    pub needed: &'a str,
    /// CASCADE.
    pub cascade: bool,
}

/// The tables of the environment as they are after what the statement has changed already, but for those that it drops.
pub fn tables_now(ddl: &Ddl, scope: &Scope) -> Vec<TableDef> {
    let altered = |id: TableId| {
        ddl.ops.iter().rev().find_map(|op| match op {
            Op::AlterTable(def) if def.id == id => Some(def.clone()),
            _ => None,
        })
    };
    let dropped = |id: TableId| ddl.ops.iter().any(|op| matches!(op, Op::DropTable(table) if *table == id));
    let versions = scope.snapshot.tables().filter(|version| version.def.environment == scope.environment);
    versions
        .filter(|version| !dropped(version.def.id))
        .map(|version| altered(version.def.id).unwrap_or_else(|| version.def.as_ref().clone()))
        .collect()
}

/// Drops the foreign keys of other tables than `own` for which `needs` holds, or refuses to.
///
/// `own`: a table whose definition the caller holds, or drops; its own foreign keys are among those that are asked
/// about, and taken out of it, where it is given.
///
/// Errors: 2BP01 without CASCADE.
pub fn release(
    ddl: &mut Ddl,
    own: (TableId, Option<&mut TableDef>),
    dropped: &Dropped,
    needs: impl Fn(&ForeignKeyDef) -> bool,
    scope: &Scope,
) -> Result<()> {
    let (id, mut own) = own;
    let mut names: Vec<(String, String)> = Vec::new();
    let mut changed = Vec::new();
    if let Some(def) = own.as_deref_mut() {
        let table = def.name.clone();
        let found = def.constraints.foreign_keys.iter().filter(|key| needs(key));
        names.extend(found.map(|key| (key.name.clone(), table.clone())));
    }
    for mut def in tables_now(ddl, scope).into_iter().filter(|def| def.id != id) {
        let before = names.len();
        let table = def.name.clone();
        let found = def.constraints.foreign_keys.iter().filter(|key| needs(key));
        names.extend(found.map(|key| (key.name.clone(), table.clone())));
        if names.len() > before {
            def.constraints.foreign_keys.retain(|key| !needs(key));
            changed.push(def);
        }
    }
    if names.is_empty() {
        return Ok(());
    }
    if !dropped.cascade {
        return Err(refused(dropped, &names));
    }
    if let Some(def) = own {
        def.constraints.foreign_keys.retain(|key| !needs(key));
    }
    ddl.ops.extend(changed.into_iter().map(Op::AlterTable));
    ddl.notices.push(cascades(&names));
    Ok(())
}

fn refused(dropped: &Dropped, names: &[(String, String)]) -> Error {
    let line = |(name, table): &(String, String)| {
        format!("constraint {name} on table {table} depends on {}", dropped.needed)
    };
    let message = format!("cannot drop {} because other objects depend on it", dropped.what);
    Error::new(SqlState::DependentObjectsStillExist, message)
        .with_detail(names.iter().map(line).collect::<Vec<_>>().join("\n"))
        .with_hint("Use DROP ... CASCADE to drop the dependent objects too.")
}

fn cascades(names: &[(String, String)]) -> Error {
    let line =
        |(name, table): &(String, String)| format!("drop cascades to constraint {name} on table {table}");
    match names {
        [one] => Error::new(SqlState::SuccessfulCompletion, line(one)),
        many => {
            let message = format!("drop cascades to {} other objects", many.len());
            Error::new(SqlState::SuccessfulCompletion, message)
                .with_detail(many.iter().map(line).collect::<Vec<_>>().join("\n"))
        }
    }
}

/// The tables to be emptied: those that are named and, with CASCADE, those that refer to them, of which notices tell.
///
/// Errors: 0A000 where a table that refers to one of them is not among them.
pub fn truncated(named: Vec<TableDef>, cascade: bool, ddl: &mut Ddl, scope: &Scope) -> Result<Vec<TableDef>> {
    let mut all = named;
    let others = tables_now(ddl, scope);
    let mut place = 0;
    while let Some(parent) = all.get(place).cloned() {
        place += 1;
        let refers = |def: &&TableDef| def.constraints.foreign_keys.iter().any(|key| key.parent == parent.id);
        for child in others.iter().filter(refers) {
            if all.iter().any(|def| def.id == child.id) {
                continue;
            }
            if !cascade {
                let message = "cannot truncate a table referenced in a foreign key constraint";
                return Err(Error::unsupported(message)
                    .with_detail(format!("Table \"{}\" references \"{}\".", child.name, parent.name))
                    .with_hint(format!(
                        "Truncate table \"{}\" at the same time, or use TRUNCATE ... CASCADE.",
                        child.name
                    )));
            }
            let message = format!("truncate cascades to table \"{}\"", child.name);
            ddl.notices.push(Error::new(SqlState::SuccessfulCompletion, message));
            all.push(child.clone());
        }
    }
    Ok(all)
}
