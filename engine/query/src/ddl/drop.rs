//! DROP TABLE, DROP INDEX and TRUNCATE.

use datafusion::sql::sqlparser::ast::{
    CascadeOption, ObjectName, ObjectType, Truncate, TruncateIdentityOption,
};
use sepal_storage::Op;
use sepal_types::{ColumnDef, Error, ForeignKeyDef, RelationName, Result, SqlState, TableDef, TableId};

use super::{
    Ddl, Scope,
    dependents::{Dropped, release, truncated},
    names::{check_schema, find_table, relation_name},
    sequence::owned,
};

/// Plans DROP.
pub fn drop_objects(
    kind: ObjectType,
    if_exists: bool,
    names: &[ObjectName],
    cascade: bool,
    scope: &Scope,
) -> Result<Ddl> {
    match kind {
        ObjectType::Table => drop_tables(if_exists, names, cascade, scope),
        ObjectType::Index => {
            let names = names.iter().map(relation_name).collect::<Result<Vec<_>>>()?;
            drop_indexes(&names, if_exists, scope)
        }
        ObjectType::View | ObjectType::MaterializedView if if_exists => {
            let mut ddl = Ddl::tagged("DROP VIEW");
            for name in names {
                let message =
                    format!("{} \"{name}\" does not exist, skipping", kind.to_string().to_lowercase());
                ddl.notices.push(Error::new(SqlState::UndefinedObject, message));
            }
            Ok(ddl)
        }
        other => Err(Error::unsupported(format!("DROP {other} is not supported"))),
    }
}

fn drop_tables(if_exists: bool, names: &[ObjectName], cascade: bool, scope: &Scope) -> Result<Ddl> {
    let mut ddl = Ddl::tagged("DROP TABLE");
    let mut dropped: Vec<(TableId, String)> = Vec::new();
    for name in names {
        let name = relation_name(name)?;
        if let Err(error) = check_schema(scope.snapshot, scope.environment, &name) {
            if !if_exists {
                return Err(error);
            }
            ddl.notices.push(Error::new(error.state(), format!("{}, skipping", error.message())));
            continue;
        }
        match scope.snapshot.find(scope.environment, &name) {
            Some(version) => {
                dropped.push((version.def.id, version.def.name.clone()));
                ddl.ops.push(Op::DropTable(version.def.id));
                ddl.ops.extend(owned(scope, version.def.id, None).into_iter().map(Op::DropTable));
            }
            None if scope.snapshot.find_sequence(scope.environment, &name).is_some() => {
                let message = format!("\"{}\" is not a table", name.name);
                return Err(Error::new(SqlState::WrongObjectType, message)
                    .with_hint("Use DROP SEQUENCE to remove a sequence."));
            }
            None if if_exists => {
                ddl.notices.push(Error::new(
                    SqlState::UndefinedTable,
                    format!("table \"{}\" does not exist, skipping", name.name),
                ));
            }
            None => {
                let message = format!("table \"{}\" does not exist", name.name);
                return Err(Error::new(SqlState::UndefinedTable, message));
            }
        }
    }
    // When all of them are known: those that refer to each other go together.
    for (id, name) in dropped {
        let what = format!("table {name}");
        let dropped = Dropped { what: &what, needed: &what, cascade };
        release(&mut ddl, (id, None), &dropped, |key| key.parent == id, scope)?;
    }
    Ok(ddl)
}

/// Plans DROP INDEX, also CONCURRENTLY.
pub fn drop_indexes(names: &[RelationName], if_exists: bool, scope: &Scope) -> Result<Ddl> {
    let mut ddl = Ddl::tagged("DROP INDEX");
    // As they are without the indexes named before: one table may have several of them.
    let mut altered: Vec<TableDef> = Vec::new();
    for named in names {
        let name = &named.name;
        let has = |def: &TableDef| {
            def.indexes.iter().any(|index| index.name == *name)
                || def.uniques.iter().any(|unique| unique.name == *name)
        };
        let owner = scope
            .snapshot
            .find_indexed(scope.environment, named)
            .map(|version| version.def.as_ref())
            .map(|def| altered.iter().find(|other| other.id == def.id).unwrap_or(def))
            .filter(|def| has(def));
        let Some(owner) = owner else {
            let missing = check_schema(scope.snapshot, scope.environment, named).err().unwrap_or_else(|| {
                Error::new(SqlState::UndefinedObject, format!("index \"{name}\" does not exist"))
            });
            if if_exists {
                let message = format!("{}, skipping", missing.message());
                ddl.notices.push(Error::new(missing.state(), message));
                continue;
            }
            return Err(missing);
        };
        let mut def = owner.clone();
        if def.uniques.iter().any(|unique| unique.name == *name && unique.is_constraint()) {
            let message = format!(
                "cannot drop index {name} because constraint {name} on table {} requires it",
                def.name
            );
            return Err(Error::new(SqlState::DependentObjectsStillExist, message)
                .with_hint(format!("You can drop constraint {name} on table {} instead.", def.name)));
        }
        if let Some(unique) = def.uniques.iter().find(|unique| unique.name == *name) {
            let (id, key, what) = (def.id, unique.id, format!("index {name}"));
            let dropped = Dropped { what: &what, needed: &what, cascade: false };
            let needs = |of: &ForeignKeyDef| of.parent == id && of.key == key;
            release(&mut ddl, (id, Some(&mut def)), &dropped, needs, scope)?;
        }
        def.indexes.retain(|index| index.name != *name);
        def.uniques.retain(|unique| unique.name != *name);
        altered.retain(|other| other.id != def.id);
        altered.push(def);
    }
    ddl.ops.extend(altered.into_iter().map(Op::AlterTable));
    Ok(ddl)
}

/// Plans TRUNCATE [RESTART IDENTITY] [CASCADE].
pub fn truncate(truncate: &Truncate, scope: &Scope) -> Result<Ddl> {
    let mut ddl = Ddl::tagged("TRUNCATE TABLE");
    let named = truncate.table_names.iter();
    let named = named.map(|target| find_table(scope.snapshot, scope.environment, &target.name));
    let cascade = matches!(truncate.cascade, Some(CascadeOption::Cascade));
    for def in truncated(named.collect::<Result<_>>()?, cascade, &mut ddl, scope)? {
        ddl.ops.push(Op::Truncate(def.id));
        if matches!(truncate.identity, Some(TruncateIdentityOption::Restart)) {
            let own = |def: &TableDef| {
                let start = |column: &ColumnDef| Some((def.id, column.id, column.sequence()?.start));
                def.columns.iter().filter_map(start).collect::<Vec<_>>()
            };
            let mut restarted = own(&def);
            let owned = owned(scope, def.id, None).into_iter();
            restarted.extend(
                owned.filter_map(|id| scope.snapshot.table(id)).flat_map(|version| own(version.def.as_ref())),
            );
            ddl.ops.extend(restarted.into_iter().map(|(table, column, next)| Op::SetSequence {
                table,
                column,
                next,
            }));
        }
    }
    Ok(ddl)
}
