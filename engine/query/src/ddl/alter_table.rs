//! ALTER TABLE and ALTER INDEX. Renames and drops touch the catalog only: files name columns by id. Another type, or a
//! column that is computed, has the rows written anew (`retype`).

use datafusion::sql::sqlparser::ast::{
    AlterColumnOperation, AlterIndexOperation, AlterTable, AlterTableOperation, DropBehavior, Expr,
    ObjectName, RenameTableNameKind, TableConstraint,
};
use sepal_storage::Op;
use sepal_types::{
    ColumnDef, ColumnId, Constraints, Error, ForeignKeyDef, Generated, IndexClauses, KeySource, Result,
    SqlState, TableDef, TableId,
};

use super::{
    Ddl, Scope,
    constraints::{add_constraint, add_constraints, rename_constraint, renamed_column},
    create_table::{add_column, check_default, default_text},
    deparse,
    dependents::{Dropped, release},
    generation,
    names::{check_schema, find_table, identifier, object_name, relation_name},
    retype::{Rewrite, check_keys, retype},
    sequence::{call as sequence_call, owned, pin_names, starts, with_sequences},
};

/// Plans ALTER TABLE.
pub fn alter_table(alter: &AlterTable, scope: &Scope) -> Result<Ddl> {
    let mut ddl = Ddl::tagged("ALTER TABLE");
    let mut def = match find_table(scope.snapshot, scope.environment, &alter.name) {
        Ok(def) => def,
        Err(error)
            if alter.if_exists
                && matches!(error.state(), SqlState::UndefinedTable | SqlState::InvalidSchemaName) =>
        {
            ddl.notices.push(Error::new(SqlState::UndefinedTable, format!("{}, skipping", error.message())));
            return Ok(ddl);
        }
        Err(error) => return Err(error),
    };
    let before = def.clone();
    for operation in &alter.operations {
        apply(&mut def, operation, scope, &mut ddl)?;
    }
    if ddl.rewrite.is_some() {
        ddl.ops.push(Op::Truncate(def.id));
    }
    if ddl.rewrite.is_some() || def != before {
        ddl.ops.push(Op::AlterTable(def));
    }
    Ok(ddl)
}

fn apply(def: &mut TableDef, operation: &AlterTableOperation, scope: &Scope, ddl: &mut Ddl) -> Result<()> {
    use AlterTableOperation as A;
    match operation {
        A::AddColumn { if_not_exists, column_def, .. } => add(def, *if_not_exists, column_def, scope, ddl),
        A::DropColumn { column_names, if_exists, drop_behavior, .. } => {
            let cascade = is_cascade(drop_behavior);
            column_names.iter().try_for_each(|name| {
                let name = identifier(name);
                for dependent in generation::dropped_with(def, &name, cascade, ddl)? {
                    drop_column(def, &dependent, (false, cascade), scope, ddl)?;
                }
                let owned = def.column(&name).map(|column| owned(scope, def.id, Some(column.id)));
                ddl.ops.extend(owned.unwrap_or_default().into_iter().map(Op::DropTable));
                drop_column(def, &name, (*if_exists, cascade), scope, ddl)
            })
        }
        A::RenameColumn { old_column_name, new_column_name } => {
            rename_column(def, &identifier(old_column_name), identifier(new_column_name))
        }
        A::RenameTable { table_name: RenameTableNameKind::To(name) | RenameTableNameKind::As(name) } => {
            let name = object_name(name)?;
            scope.refuse_name_of_type(&def.schema, &name)?;
            if scope.is_taken(&def.schema, &name) {
                return Err(Error::new(
                    SqlState::DuplicateTable,
                    format!("relation \"{name}\" already exists"),
                ));
            }
            pin_names(def);
            def.name = name;
            Ok(())
        }
        A::AddConstraint { constraint, not_valid } => {
            let before = def.constraints.clone();
            add_constraint(def, constraint, *not_valid, scope)?;
            if matches!(constraint, TableConstraint::Check(_) | TableConstraint::ForeignKey(_)) {
                hold_added(&before, def, ddl);
            } else {
                ddl.verify.extend(def.uniques.last().map(|unique| (def.id, unique.clone())));
            }
            Ok(())
        }
        A::DropConstraint { if_exists, name, drop_behavior } => {
            let behavior = (*if_exists, is_cascade(drop_behavior));
            drop_constraint(def, &identifier(name), behavior, scope, ddl)
        }
        A::RenameConstraint { old_name, new_name } => {
            rename_constraint(def, &identifier(old_name), &identifier(new_name), scope)
        }
        A::ValidateConstraint { name } => validate_constraint(def, &identifier(name), ddl),
        A::AlterColumn { column_name, op: AlterColumnOperation::SetDefault { value } } => {
            set_default(def, &identifier(column_name), value, scope)
        }
        A::AlterColumn { column_name, op: AlterColumnOperation::SetDataType { data_type, using, .. } } => {
            let name = identifier(column_name);
            check_keys(def, &name, scope)?;
            retype(def, &name, (data_type, using.as_ref()), scope, ddl)
        }
        A::AlterColumn { column_name, op } => alter_column(def, &identifier(column_name), op),
        // Storage parameters tune Postgres' heap; there is none here.
        A::SetOptionsParens { .. } | A::SetTblProperties { .. } | A::OwnerTo { .. } => Ok(()),
        other => Err(Error::unsupported(format!("ALTER TABLE … {other} is not supported"))),
    }
}

fn add(
    def: &mut TableDef,
    if_not_exists: bool,
    column: &datafusion::sql::sqlparser::ast::ColumnDef,
    scope: &Scope,
    ddl: &mut Ddl,
) -> Result<()> {
    let name = identifier(&column.name);
    if def.column(&name).is_some() {
        let message = format!("column \"{name}\" of relation \"{}\" already exists", def.name);
        if if_not_exists {
            ddl.notices.push(Error::new(SqlState::DuplicateColumn, format!("{message}, skipping")));
            return Ok(());
        }
        return Err(Error::new(SqlState::DuplicateColumn, message));
    }
    add_column(def, column, scope)?;
    if let Some(added) = def.columns.last().map(|added| added.id) {
        generation::settle(def, added)?;
    }
    let before = def.constraints.clone();
    add_constraints(def, std::slice::from_ref(column), &[], scope)?;
    hold_added(&before, def, ddl);
    let has_rows = scope.snapshot.table(def.id).is_some_and(|version| version.live_rows() > 0);
    let table = def.name.clone();
    if let Some(added) = def.columns.last() {
        let id = added.id;
        let of_added = |op: &Op| matches!(op, Op::SetSequence { column, .. } if *column == id);
        ddl.ops.extend(starts(def).filter(of_added));
    }
    if let Some(added) = def.columns.last_mut() {
        if added.expression().is_some() {
            // Its values come with the rows, and whether one of them is NULL: those that somebody inserts until the table
            // is locked, too.
            Rewrite::of(ddl, def.id);
            return Ok(());
        }
        if added.is_counted() && has_rows {
            return Err(Error::unsupported(
                "adding a serial or identity column to a table with rows is not supported",
            )
            .with_hint("Create the table anew with the column and copy the rows."));
        }
        // As SQL, which the session evaluates: another operation of the statement may change the default.
        added.missing = added.default.clone().filter(|_| has_rows);
        if added.not_null && added.missing.is_none() && has_rows {
            let message = format!("column \"{}\" of relation \"{table}\" contains null values", added.name);
            return Err(Error::new(SqlState::NotNullViolation, message)
                .with_hint("Give the column a DEFAULT, or add it without NOT NULL."));
        }
    }
    Ok(())
}

fn is_cascade(behavior: &Option<DropBehavior>) -> bool {
    matches!(behavior, Some(DropBehavior::Cascade))
}

/// What was added since `before` is asked of the rows that are there.
fn hold_added(before: &Constraints, def: &TableDef, ddl: &mut Ddl) {
    let known = before.checks.iter().map(|check| check.id);
    let known: Vec<TableId> = known.chain(before.foreign_keys.iter().map(|key| key.id)).collect();
    ddl.hold(def, |id| !known.contains(&id));
}

/// VALIDATE CONSTRAINT. Errors: 42704, 42809.
fn validate_constraint(def: &mut TableDef, name: &str, ddl: &mut Ddl) -> Result<()> {
    let check = def.constraints.checks.iter_mut().find(|check| check.name == name);
    let key = def.constraints.foreign_keys.iter_mut().find(|key| key.name == name);
    let found =
        check.map(|check| (check.id, &mut check.not_valid)).or(key.map(|key| (key.id, &mut key.not_valid)));
    let Some((id, not_valid)) = found else {
        let relation = &def.name;
        return Err(match def.has_constraint(name) {
            true => {
                let message = format!(
                    "constraint \"{name}\" of relation \"{relation}\" is not a foreign key or check constraint"
                );
                Error::new(SqlState::WrongObjectType, message)
            }
            false => missing_constraint(def, name),
        });
    };
    if std::mem::take(not_valid) {
        ddl.hold(def, |other| other == id);
    }
    Ok(())
}

fn missing_constraint(def: &TableDef, name: &str) -> Error {
    let message = format!("constraint \"{name}\" of relation \"{}\" does not exist", def.name);
    Error::new(SqlState::UndefinedObject, message)
}

fn missing_column(def: &TableDef, name: &str) -> Error {
    Error::new(
        SqlState::UndefinedColumn,
        format!("column \"{name}\" of relation \"{}\" does not exist", def.name),
    )
}

/// Indexes and constraints over the column go with it, as in Postgres.
fn drop_column(
    def: &mut TableDef,
    name: &str,
    (if_exists, cascade): (bool, bool),
    scope: &Scope,
    ddl: &mut Ddl,
) -> Result<()> {
    let Some(id) = def.column(name).map(|column| column.id) else {
        let error = missing_column(def, name);
        if if_exists {
            ddl.notices.push(Error::new(SqlState::UndefinedColumn, format!("{}, skipping", error.message())));
            return Ok(());
        }
        return Err(error);
    };
    let uses = |columns: &[ColumnId], clauses: Option<&IndexClauses>| {
        columns.contains(&id) || clauses.is_some_and(|clauses| needs(clauses, id, name))
    };
    def.constraints.checks.retain(|check| !check.columns.contains(&id));
    def.constraints.foreign_keys.retain(|key| !key.columns.contains(&id));
    let (table, what) = (def.id, format!("column {name} of table {}", def.name));
    let dropped = Dropped { what: &what, needed: &what, cascade };
    let refers = |key: &ForeignKeyDef| key.parent == table && key.parent_columns.contains(&id);
    release(ddl, (table, Some(&mut *def)), &dropped, refers, scope)?;
    // A unique index may go for the sake of a column that it INCLUDEs.
    let going = def.uniques.iter().filter(|unique| uses(&unique.columns, unique.index.as_deref()));
    let going: Vec<(TableId, String)> =
        going.map(|unique| (unique.id, format!("index {}", unique.name))).collect();
    for (unique, needed) in going {
        let dropped = Dropped { what: &what, needed: &needed, cascade };
        let refers = |key: &ForeignKeyDef| key.parent == table && key.key == unique;
        release(ddl, (table, Some(&mut *def)), &dropped, refers, scope)?;
    }
    def.columns.retain(|column| column.id != id);
    def.indexes.retain(|index| !uses(&index.columns, index.clauses.as_deref()));
    def.uniques.retain(|unique| !uses(&unique.columns, unique.index.as_deref()));
    Ok(())
}

/// Whether an index's expressions, condition or INCLUDE want the column.
fn needs(clauses: &IndexClauses, column: ColumnId, name: &str) -> bool {
    let texts = clauses.keys.iter().filter_map(|key| match &key.of {
        KeySource::Expression { text, .. } => Some(text),
        KeySource::Column(_) => None,
    });
    clauses.include.contains(&column)
        || texts.chain(&clauses.predicate).any(|text| deparse::mentions(text, name))
}

fn rename_column(def: &mut TableDef, from: &str, to: String) -> Result<()> {
    if def.column(&to).is_some() {
        let message = format!("column \"{to}\" of relation \"{}\" already exists", def.name);
        return Err(Error::new(SqlState::DuplicateColumn, message));
    }
    let missing = Error::new(SqlState::UndefinedColumn, format!("column \"{from}\" does not exist"));
    pin_names(def);
    generation::rename(def, from, &to);
    let column = def.columns.iter_mut().find(|column| column.name == from).ok_or(missing)?;
    column.name.clone_from(&to);
    let id = column.id;
    for check in def.constraints.checks.iter_mut().filter(|check| check.columns.contains(&id)) {
        check.expression = renamed_column(&check.expression, from, &to)?;
        check.shown = deparse::renamed(&check.shown, from, &to);
    }
    let indexes = def.indexes.iter_mut().filter_map(|index| index.clauses.as_mut());
    let uniques = def.uniques.iter_mut().filter_map(|unique| unique.index.as_mut());
    for clauses in indexes.chain(uniques) {
        let texts = clauses.keys.iter_mut().filter_map(|key| match &mut key.of {
            KeySource::Expression { text, .. } => Some(text),
            KeySource::Column(_) => None,
        });
        for text in texts.chain(&mut clauses.predicate) {
            *text = deparse::renamed(text, from, &to);
        }
    }
    Ok(())
}

fn drop_constraint(
    def: &mut TableDef,
    name: &str,
    (if_exists, cascade): (bool, bool),
    scope: &Scope,
    ddl: &mut Ddl,
) -> Result<()> {
    if !def.has_constraint(name) {
        let error = missing_constraint(def, name);
        if if_exists {
            ddl.notices.push(Error::new(SqlState::UndefinedObject, format!("{}, skipping", error.message())));
            return Ok(());
        }
        return Err(error);
    }
    def.constraints.checks.retain(|check| check.name != name);
    def.constraints.foreign_keys.retain(|key| key.name != name);
    let unique = def.uniques.iter().find(|unique| unique.is_constraint() && unique.name == name);
    if let Some(id) = unique.map(|unique| unique.id) {
        let (table, what) = (def.id, format!("constraint {name} on table {}", def.name));
        let dropped = Dropped { what: &what, needed: &format!("index {name}"), cascade };
        let refers = |key: &ForeignKeyDef| key.parent == table && key.key == id;
        release(ddl, (table, Some(&mut *def)), &dropped, refers, scope)?;
        def.uniques.retain(|unique| unique.id != id);
    }
    Ok(())
}

/// SET DEFAULT. Of a serial column, whose default is its sequence's `nextval`, this takes its place.
fn set_default(def: &mut TableDef, name: &str, value: &Expr, scope: &Scope) -> Result<()> {
    let column = def.column(name).ok_or_else(|| missing_column(def, name))?;
    if is_identity(column) {
        return Err(identity_error(&def.name, name));
    }
    generation::refuse_default(column, &def.name, false)?;
    let value = scope.without_own_cast(value, &column.ty);
    check_default(value, &column.ty)?;
    let default = default_text(&with_sequences(value, def, scope)?);
    let own = || sequence_call(&def.schema, &def.sequence_name(column));
    if column.generated.is_some() && default == Some(own()) {
        return Ok(());
    }
    for column in def.columns.iter_mut().filter(|column| column.name == name) {
        column.default.clone_from(&default);
        (column.generated, column.sequence) = (None, None);
    }
    Ok(())
}

fn identity_error(table: &str, column: &str) -> Error {
    let message = format!("column \"{column}\" of relation \"{table}\" is an identity column");
    Error::new(SqlState::SyntaxError, message)
}

/// SET NOT NULL is judged against the rows where the operation is applied: in the transaction's view, and again
/// at the commit.
fn alter_column(def: &mut TableDef, name: &str, operation: &AlterColumnOperation) -> Result<()> {
    use AlterColumnOperation as A;
    let missing = missing_column(def, name);
    let table = def.name.clone();
    let in_key = def.primary_key().map(|key| key.columns.clone()).unwrap_or_default();
    let column = def.columns.iter_mut().find(|column| column.name == name).ok_or(missing)?;
    let identity = is_identity(column).then(|| identity_error(&table, name));
    match (operation, identity) {
        (A::DropNotNull, Some(error)) => return Err(error),
        (A::DropDefault, Some(error)) => {
            return Err(error.with_hint("Use ALTER TABLE ... ALTER COLUMN ... DROP IDENTITY instead."));
        }
        (A::DropDefault, None) => {
            generation::refuse_default(column, &table, true)?;
            column.default = None;
            (column.generated, column.sequence) = (None, None);
        }
        (A::DropNotNull, None) if in_key.contains(&column.id) => {
            let message = format!("column \"{name}\" is in a primary key");
            return Err(Error::new(SqlState::InvalidTableDefinition, message));
        }
        (A::DropNotNull, None) => column.not_null = false,
        (A::SetNotNull, _) => column.not_null = true,
        (other, _) => return Err(Error::unsupported(format!("ALTER COLUMN … {other} is not supported"))),
    }
    Ok(())
}

fn is_identity(column: &ColumnDef) -> bool {
    matches!(column.generated, Some(Generated::IdentityAlways | Generated::IdentityByDefault))
}

/// ALTER INDEX … RENAME TO.
pub fn alter_index(name: &ObjectName, operation: &AlterIndexOperation, scope: &Scope) -> Result<Ddl> {
    let AlterIndexOperation::RenameIndex { index_name } = operation;
    let (named, new) = (relation_name(name)?, object_name(index_name)?);
    let Some(owner) = scope.snapshot.find_indexed(scope.environment, &named) else {
        check_schema(scope.snapshot, scope.environment, &named)?;
        return Err(Error::new(SqlState::UndefinedTable, format!("relation \"{named}\" does not exist")));
    };
    let old = named.name;
    if scope.is_taken(&owner.def.schema, &new) {
        return Err(Error::new(SqlState::DuplicateTable, format!("relation \"{new}\" already exists")));
    }
    let mut def = owner.def.as_ref().clone();
    for index in def.indexes.iter_mut().filter(|index| index.name == old) {
        index.name.clone_from(&new);
    }
    // A constraint has its index's name.
    for unique in def.uniques.iter_mut().filter(|unique| unique.name == old) {
        unique.name.clone_from(&new);
    }
    let mut ddl = Ddl::tagged("ALTER INDEX");
    ddl.ops.push(Op::AlterTable(def));
    Ok(ddl)
}
