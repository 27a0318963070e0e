//! CHECK and FOREIGN KEY: from the AST into a table's definition.
//!
//! Called by `create_table` and `alter_table`. Whether rows keep to them is asked by `dml` and by `database::Session`;
//! what must not be dropped because of them is for `dependents`.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    self, CheckConstraint, ColumnOption, ConstraintCharacteristics, ConstraintReferenceMatchKind,
    DeferrableInitial, Expr, ForeignKeyConstraint, Ident, ReferentialAction, TableConstraint,
};
use sepal_types::{
    CheckDef, ColumnId, Error, ForeignKeyDef, ReferenceAction, RelationName, Result, SqlState, SqlType,
    TableDef, UniqueDef,
};

use super::{
    Scope, deparse,
    names::{find_table, generated, identifier, relation_name},
};
use crate::{dml::parse_default, planner::has_parameters};

/// The CHECKs of columns and of a table, then the foreign keys, which may refer to the table itself. Its columns and
/// keys are there already.
pub fn add_constraints(
    def: &mut TableDef,
    columns: &[ast::ColumnDef],
    constraints: &[TableConstraint],
    scope: &Scope,
) -> Result<()> {
    let options: Vec<(String, Option<&Ident>, &ColumnOption)> = columns
        .iter()
        .flat_map(|column| {
            let name = identifier(&column.name);
            let of_column = column.options.iter();
            of_column.map(move |option| (name.clone(), option.name.as_ref(), &option.option))
        })
        .collect();
    for (_, name, option) in &options {
        if let ColumnOption::Check(check) = option {
            add_check(def, check, name.or(check.name.as_ref()).map(identifier), false, scope)?;
        }
    }
    for constraint in constraints {
        if let TableConstraint::Check(check) = constraint {
            add_check(def, check, check.name.as_ref().map(identifier), false, scope)?;
        }
    }
    for (column, name, option) in &options {
        if let ColumnOption::ForeignKey(key) = option {
            let name = name.or(key.name.as_ref()).map(identifier);
            add_foreign_key(def, key, std::slice::from_ref(column), (name, false), scope)?;
        }
    }
    for constraint in constraints {
        if let TableConstraint::ForeignKey(key) = constraint {
            let columns: Vec<String> = key.columns.iter().map(identifier).collect();
            add_foreign_key(def, key, &columns, (key.name.as_ref().map(identifier), false), scope)?;
        }
    }
    Ok(())
}

/// ALTER TABLE … ADD CONSTRAINT … [NOT VALID].
///
/// Errors: 0A000 for NOT VALID of a key.
pub fn add_constraint(
    def: &mut TableDef,
    constraint: &TableConstraint,
    not_valid: bool,
    scope: &Scope,
) -> Result<()> {
    match constraint {
        TableConstraint::Check(check) => {
            add_check(def, check, check.name.as_ref().map(identifier), not_valid, scope)
        }
        TableConstraint::ForeignKey(key) => {
            let columns: Vec<String> = key.columns.iter().map(identifier).collect();
            add_foreign_key(def, key, &columns, (key.name.as_ref().map(identifier), not_valid), scope)
        }
        _ if not_valid => {
            let kind =
                if matches!(constraint, TableConstraint::Unique(_)) { "UNIQUE" } else { "PRIMARY KEY" };
            Err(Error::unsupported(format!("{kind} constraints cannot be marked NOT VALID")))
        }
        other => super::create_table::add_constraint(def, other, scope),
    }
}

fn add_check(
    def: &mut TableDef,
    check: &CheckConstraint,
    name: Option<String>,
    not_valid: bool,
    scope: &Scope,
) -> Result<()> {
    if check.enforced == Some(false) {
        return Err(Error::unsupported("constraints that are not enforced are not supported"));
    }
    let mut expression = check.expr.as_ref().clone();
    if has_parameters(&expression) {
        return Err(Error::new(SqlState::UndefinedParameter, "there is no parameter $1"));
    }
    let columns = own_columns(def, &mut expression)?;
    let shown = deparse::print(def, &expression)?.text;
    let middle: Vec<&str> = match columns.as_slice() {
        [one] => def.column_by_id(*one).map(|column| column.name.as_str()).into_iter().collect(),
        _ => Vec::new(),
    };
    let name = constraint_name(def, name, &middle, "check", scope)?;
    let expression = expression.to_string();
    let id = (scope.new_id)();
    def.constraints.checks.push(CheckDef { id, name, expression, shown, columns, not_valid });
    Ok(())
}

/// The columns that a CHECK names. It then names them quoted, and without the table.
///
/// Errors: 42703, 42P01, 0A000 for a query.
fn own_columns(def: &TableDef, expression: &mut Expr) -> Result<Vec<ColumnId>> {
    let mut columns = Vec::new();
    let walked = ast::visit_expressions_mut(expression, |inner| {
        let ident = match inner {
            Expr::Identifier(ident) => identifier(ident),
            Expr::CompoundIdentifier(parts) => match parts.as_slice() {
                [.., table, column] if identifier(table) == def.name => identifier(column),
                [.., table, _] => {
                    let message = format!("missing FROM-clause entry for table \"{}\"", identifier(table));
                    return ControlFlow::Break(Error::new(SqlState::UndefinedTable, message));
                }
                _ => return ControlFlow::Continue(()),
            },
            Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. } => {
                return ControlFlow::Break(Error::unsupported("cannot use subquery in check constraint"));
            }
            _ => return ControlFlow::Continue(()),
        };
        let Some(column) = def.column(&ident) else {
            let message = format!("column \"{ident}\" does not exist");
            return ControlFlow::Break(Error::new(SqlState::UndefinedColumn, message));
        };
        columns.push(column.id);
        *inner = Expr::Identifier(Ident::with_quote('"', ident));
        ControlFlow::Continue(())
    });
    if let ControlFlow::Break(error) = walked {
        return Err(error);
    }
    columns.sort_unstable();
    columns.dedup();
    Ok(columns)
}

/// The expression of a CHECK once a column is called `to`.
pub fn renamed_column(expression: &str, from: &str, to: &str) -> Result<String> {
    let mut parsed = parse_default(expression)?;
    let _ = ast::visit_expressions_mut(&mut parsed, |inner| {
        if let Expr::Identifier(ident) = inner
            && ident.quote_style.is_some()
            && ident.value == from
        {
            *ident = Ident::with_quote('"', to);
        }
        ControlFlow::<()>::Continue(())
    });
    Ok(parsed.to_string())
}

fn add_foreign_key(
    def: &mut TableDef,
    key: &ForeignKeyConstraint,
    columns: &[String],
    (name, not_valid): (Option<String>, bool),
    scope: &Scope,
) -> Result<()> {
    let parent_name = relation_name(&key.foreign_table)?;
    let parent = match is_own_name(def, &parent_name, scope) {
        true => def.clone(),
        false => find_table(scope.snapshot, scope.environment, &key.foreign_table)?,
    };
    let parent_name = parent_name.name;
    let referring = referenced_columns(def, columns.iter().cloned())?;
    let (unique, referred) = match key.referred_columns.as_slice() {
        [] => {
            let missing = || {
                let message = format!("there is no primary key for referenced table \"{parent_name}\"");
                Error::new(SqlState::UndefinedObject, message)
            };
            let unique = parent.primary_key().ok_or_else(missing)?;
            (unique, unique.columns.clone())
        }
        named => {
            let referred = referenced_columns(&parent, named.iter().map(identifier))?;
            (key_over(&parent, &referred)?, referred)
        }
    };
    if referred.len() != referring.len() {
        let message = "number of referencing and referenced columns for foreign key disagree";
        return Err(Error::new(SqlState::InvalidForeignKey, message));
    }
    let middle: Vec<&str> = columns.iter().map(String::as_str).collect();
    let name = constraint_name(def, name, &middle, "fkey", scope)?;
    for (one, other) in referring.iter().zip(&referred) {
        check_types(&name, (&*def, *one), (&parent, *other))?;
    }
    let (on_delete, on_update) = (action(key.on_delete), action(key.on_update));
    if referring.iter().any(|id| def.column_by_id(*id).is_some_and(|column| column.expression().is_some())) {
        refuse_writing(on_delete, on_update)?;
    }
    let (deferrable, initially_deferred) = deferral(key.characteristics.as_ref())?;
    let foreign_key = ForeignKeyDef {
        id: (scope.new_id)(),
        name,
        columns: referring,
        parent: parent.id,
        parent_columns: referred,
        key: unique.id,
        on_delete,
        on_update,
        full: match key.match_kind {
            None | Some(ConstraintReferenceMatchKind::Simple) => false,
            Some(ConstraintReferenceMatchKind::Full) => true,
            Some(ConstraintReferenceMatchKind::Partial) => {
                return Err(Error::unsupported("MATCH PARTIAL not yet implemented"));
            }
        },
        deferrable,
        initially_deferred,
        not_valid,
    };
    def.constraints.foreign_keys.push(foreign_key);
    Ok(())
}

/// Whether a name in a table's definition is the table's own, which may not be there yet.
fn is_own_name(def: &TableDef, name: &RelationName, scope: &Scope) -> bool {
    if name.name != def.name {
        return false;
    }
    if let Some(schema) = &name.schema {
        return *schema == def.schema;
    }
    let found = scope.snapshot.find(scope.environment, name);
    found.is_none_or(|version| version.def.id == def.id)
        || scope.creation_schema(name).is_ok_and(|schema| schema == def.schema)
}

fn referenced_columns(def: &TableDef, names: impl Iterator<Item = String>) -> Result<Vec<ColumnId>> {
    names
        .map(|name| {
            def.column(&name).map(|column| column.id).ok_or_else(|| {
                let message =
                    format!("column \"{name}\" referenced in foreign key constraint does not exist");
                Error::new(SqlState::UndefinedColumn, message)
            })
        })
        .collect()
}

/// The unique constraint or index over just these columns, in any order.
fn key_over<'d>(parent: &'d TableDef, columns: &[ColumnId]) -> Result<&'d UniqueDef> {
    let sorted = |columns: &[ColumnId]| {
        let mut columns = columns.to_vec();
        columns.sort_unstable();
        columns
    };
    let wanted = sorted(columns);
    if wanted.windows(2).any(|pair| pair[0] == pair[1]) {
        let message = "foreign key referenced-columns list must not contain duplicates";
        return Err(Error::new(SqlState::InvalidForeignKey, message));
    }
    parent.uniques.iter().find(|unique| sorted(&unique.columns) == wanted).ok_or_else(|| {
        let message = format!(
            "there is no unique constraint matching given keys for referenced table \"{}\"",
            parent.name
        );
        Error::new(SqlState::InvalidForeignKey, message)
    })
}

/// Errors: 42804 for types that nothing compares; 0A000 for those that PostgreSQL compares and Sepal does not look up
/// in each other's keys.
fn check_types(name: &str, child: (&TableDef, ColumnId), parent: (&TableDef, ColumnId)) -> Result<()> {
    let (Some(one), Some(other)) = (child.0.column_by_id(child.1), parent.0.column_by_id(parent.1)) else {
        return Err(Error::bug("a foreign key over a column that is not there"));
    };
    if are_comparable(&one.ty, &other.ty) {
        return Ok(());
    }
    let moment = |ty: &SqlType| matches!(ty, SqlType::Date | SqlType::Timestamp | SqlType::Timestamptz);
    let string = |ty: &SqlType| matches!(ty, SqlType::Bpchar(_) | SqlType::Text | SqlType::Varchar(_));
    let (a, b) = (&one.ty, &other.ty);
    let kin = (a.is_number() && b.is_number()) || (moment(a) && moment(b)) || (string(a) && string(b));
    let detail = format!(
        "Key columns \"{}\" and \"{}\" are of incompatible types: {} and {}.",
        one.name,
        other.name,
        deparse::bare_name(a),
        deparse::bare_name(b)
    );
    let message = format!("foreign key constraint \"{name}\" cannot be implemented");
    match kin {
        true => Err(Error::unsupported(message)
            .with_detail(detail)
            .with_hint("Give both columns the same type, or two of smallint, integer and bigint.")),
        false => Err(Error::new(SqlState::DatatypeMismatch, message).with_detail(detail)),
    }
}

/// Whether a value of one is exactly a value of the other, or of none.
fn are_comparable(one: &SqlType, other: &SqlType) -> bool {
    let integer = |ty: &SqlType| matches!(ty, SqlType::Int2 | SqlType::Int4 | SqlType::Int8);
    let text = |ty: &SqlType| matches!(ty, SqlType::Text | SqlType::Varchar(_));
    one == other || (integer(one) && integer(other)) || (text(one) && text(other))
}

/// DEFERRABLE, and INITIALLY DEFERRED.
fn deferral(characteristics: Option<&ConstraintCharacteristics>) -> Result<(bool, bool)> {
    let Some(characteristics) = characteristics else { return Ok((false, false)) };
    if characteristics.enforced == Some(false) {
        return Err(Error::unsupported("constraints that are not enforced are not supported"));
    }
    let deferred = characteristics.initially == Some(DeferrableInitial::Deferred);
    if deferred && characteristics.deferrable == Some(false) {
        let message = "constraint declared INITIALLY DEFERRED must be DEFERRABLE";
        return Err(Error::new(SqlState::SyntaxError, message));
    }
    Ok((deferred || characteristics.deferrable == Some(true), deferred))
}

fn action(action: Option<ReferentialAction>) -> ReferenceAction {
    match action {
        None | Some(ReferentialAction::NoAction) => ReferenceAction::NoAction,
        Some(ReferentialAction::Restrict) => ReferenceAction::Restrict,
        Some(ReferentialAction::Cascade) => ReferenceAction::Cascade,
        Some(ReferentialAction::SetNull) => ReferenceAction::SetNull,
        Some(ReferentialAction::SetDefault) => ReferenceAction::SetDefault,
    }
}

/// No action gives a generated column a value.
///
/// Errors: 42601.
fn refuse_writing(on_delete: ReferenceAction, on_update: ReferenceAction) -> Result<()> {
    use ReferenceAction::{Cascade, SetDefault, SetNull};
    let event = match (on_update, on_delete) {
        (Cascade | SetNull | SetDefault, _) => "ON UPDATE",
        (_, SetNull | SetDefault) => "ON DELETE",
        _ => return Ok(()),
    };
    let message = format!("invalid {event} action for foreign key constraint containing generated column");
    Err(Error::new(SqlState::SyntaxError, message))
}

/// The name that was given, or one that no table of the environment has for a constraint (`ChooseConstraintName`,
/// `pg_constraint.c`).
fn constraint_name(
    def: &TableDef,
    name: Option<String>,
    columns: &[&str],
    suffix: &str,
    scope: &Scope,
) -> Result<String> {
    match name {
        Some(name) if def.has_constraint(&name) => Err(already_there(def, &name)),
        Some(name) => Ok(name),
        None => Ok(generated(&def.name, columns, suffix, |name| {
            let mut others = scope.snapshot.tables().map(|version| version.def.as_ref());
            def.has_constraint(name)
                || others.any(|other| {
                    other.id != def.id && other.environment == def.environment && other.has_constraint(name)
                })
        })),
    }
}

fn already_there(def: &TableDef, name: &str) -> Error {
    let message = format!("constraint \"{name}\" for relation \"{}\" already exists", def.name);
    Error::new(SqlState::DuplicateObject, message)
}

/// RENAME CONSTRAINT; that of a key renames its index. Errors: 42704, 42710, 42P07.
pub fn rename_constraint(def: &mut TableDef, from: &str, to: &str, scope: &Scope) -> Result<()> {
    if !def.has_constraint(from) {
        let message = format!("constraint \"{from}\" for table \"{}\" does not exist", def.name);
        return Err(Error::new(SqlState::UndefinedObject, message));
    }
    if def.has_constraint(to) {
        return Err(already_there(def, to));
    }
    let unique = def.uniques.iter_mut().find(|unique| unique.is_constraint() && unique.name == from);
    if let Some(unique) = unique {
        if scope.is_taken(&def.schema, to) {
            return Err(Error::new(SqlState::DuplicateTable, format!("relation \"{to}\" already exists")));
        }
        to.clone_into(&mut unique.name);
    }
    for check in def.constraints.checks.iter_mut().filter(|check| check.name == from) {
        to.clone_into(&mut check.name);
    }
    for key in def.constraints.foreign_keys.iter_mut().filter(|key| key.name == from) {
        to.clone_into(&mut key.name);
    }
    Ok(())
}
