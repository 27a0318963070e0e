//! CREATE TYPE … AS ENUM, ALTER TYPE, DROP TYPE, and the types of columns.
//!
//! A type is a definition ([`TableDef::of_enum`]), and every column of it has a copy: what alters a type alters the
//! tables that use it, in the same operations (docs/decisions/0022-enums.md).

use datafusion::sql::sqlparser::ast::{
    AlterType, AlterTypeAddValue, AlterTypeAddValuePosition, AlterTypeOperation, AlterTypeRenameValue,
    ArrayElemTypeDef, CastKind, DataType, Expr, Ident, ObjectName, UserDefinedTypeRepresentation, Value,
};
use sepal_storage::{Op, Snapshot};
use sepal_types::{
    ColumnDef, EnumDef, EnumType, Error, Generated, KeySource, Neighbour, Result, SqlState, SqlType,
    TableDef, duplicate_label,
};

use super::{
    Ddl, Scope,
    create_table::column_type,
    generation::needs,
    names::{check_schema, identifier, relation_name},
};
use crate::{
    catalog::{quote_ident, quote_literal},
    dml::parse_default,
};

/// The enum that a name of a type means; `None` for a type of ours, and for none.
pub fn named_enum(data_type: &DataType, snapshot: &Snapshot, environment: &str) -> Option<EnumType> {
    let DataType::Custom(name, modifiers) = data_type else { return None };
    if !modifiers.is_empty() || column_type(data_type).is_ok() {
        return None;
    }
    let name = relation_name(name).ok()?;
    snapshot.find_enum(environment, &name).cloned()
}

impl Scope<'_> {
    /// The stored type of a declared one, and whether it is a serial.
    ///
    /// Errors: 42704 for a type that is not there, 0A000 for one that no column has.
    pub fn column_type(&self, data_type: &DataType) -> Result<(SqlType, Option<Generated>)> {
        if let DataType::Array(ArrayElemTypeDef::SquareBracket(element, _)) = data_type
            && let Some(ty) = named_enum(element, self.snapshot, self.environment)
        {
            let message = format!("columns of type {}[] are not supported", ty.shown());
            return Err(Error::unsupported(message));
        }
        match named_enum(data_type, self.snapshot, self.environment) {
            Some(ty) => Ok((SqlType::Enum(ty), None)),
            None => column_type(data_type),
        }
    }

    /// Errors: 42710 where a type has the name that a table is to have: a table has a type of its name, too.
    pub fn refuse_name_of_type(&self, schema: &str, name: &str) -> Result<()> {
        let mut types = self.snapshot.enums(self.environment);
        if !types.any(|ty| ty.schema == schema && ty.name == name) {
            return Ok(());
        }
        Err(Error::new(SqlState::DuplicateObject, format!("type \"{name}\" already exists")).with_hint(
            "A relation has an associated type of the same name, so you must use a name that doesn't conflict \
             with any existing type.",
        ))
    }

    /// A DEFAULT of an enum's column, without a cast to that enum around a literal: what is printed has one.
    pub fn without_own_cast<'a>(&self, expr: &'a Expr, ty: &SqlType) -> &'a Expr {
        let Expr::Cast { expr: inner, data_type, kind: CastKind::Cast | CastKind::DoubleColon, .. } = expr
        else {
            return expr;
        };
        let own = named_enum(data_type, self.snapshot, self.environment);
        let is_own = ty.enum_type().is_some_and(|ty| own.is_some_and(|own| own.id == ty.id));
        if is_own && string(inner).is_some() { inner.as_ref() } else { expr }
    }

    fn enum_named(&self, name: &ObjectName) -> Result<&EnumType> {
        let named = relation_name(name)?;
        if let Some(ty) = self.snapshot.find_enum(self.environment, &named) {
            return Ok(ty);
        }
        check_schema(self.snapshot, self.environment, &named)?;
        Err(Error::new(SqlState::UndefinedObject, format!("type \"{named}\" does not exist")))
    }

    /// The tables that have columns of a type.
    fn users<'a>(&'a self, ty: &'a EnumType) -> impl Iterator<Item = &'a TableDef> {
        let defs = self.snapshot.tables().map(|version| version.def.as_ref());
        defs.filter(|def| def.used_enums().any(|used| used.id == ty.id))
    }
}

fn string(expr: &Expr) -> Option<&str> {
    let Expr::Value(value) = expr else { return None };
    match &value.value {
        Value::SingleQuotedString(text) => Some(text),
        _ => None,
    }
}

/// Plans CREATE TYPE. Errors: 42710, 3F000, 42602, 23505; 0A000 for what is no enum.
pub fn create_type(
    name: &ObjectName,
    representation: Option<&UserDefinedTypeRepresentation>,
    scope: &Scope,
) -> Result<Ddl> {
    let Some(UserDefinedTypeRepresentation::Enum { labels }) = representation else {
        return Err(Error::unsupported("user-defined types other than enums are not supported"));
    };
    let labels = labels.iter().map(label).collect::<Result<Vec<String>>>()?;
    let named = relation_name(name)?;
    let schema = scope.creation_schema(&named)?;
    let name = named.name;
    if scope.is_taken(&schema, &name) || SqlType::from_name(&name).is_some() {
        return Err(Error::new(SqlState::DuplicateObject, format!("type \"{name}\" already exists")));
    }
    let (id, array) = ((scope.new_id)(), (scope.new_id)());
    let def = EnumDef { id, array, schema, name, labels: Vec::new() };
    let ty = EnumType::from(def.with_labels(&labels, scope.new_id)?);
    let mut ddl = Ddl::tagged("CREATE TYPE");
    ddl.ops.push(Op::CreateTable(TableDef::of_enum(scope.environment, ty)));
    Ok(ddl)
}

/// A label stands in quotes. Errors: 42601.
fn label(ident: &Ident) -> Result<String> {
    if ident.quote_style == Some('\'') {
        return Ok(ident.value.clone());
    }
    Err(Error::new(SqlState::SyntaxError, format!("syntax error at or near \"{ident}\"")))
}

/// Plans ALTER TYPE. Errors: 42704, 42710, 22023, 2BP01 while a pipeline reads a table that uses it, 0A000.
pub fn alter_type(alter: &AlterType, scope: &Scope) -> Result<Ddl> {
    let mut ddl = Ddl::tagged("ALTER TYPE");
    let ty = scope.enum_named(&alter.name)?;
    let mut def = EnumDef::clone(ty);
    match &alter.operation {
        AlterTypeOperation::Rename(rename) => {
            let name = identifier(&rename.new_name);
            if scope.is_taken(&ty.schema, &name) || SqlType::from_name(&name).is_some() {
                return Err(Error::new(SqlState::DuplicateObject, format!("type \"{name}\" already exists")));
            }
            refuse_mentions(ty, scope, "renamed")?;
            def.name = name;
        }
        AlterTypeOperation::AddValue(add) => {
            let added = label(&add.value)?;
            if def.has(&added) {
                let taken = duplicate_label(&added);
                if !add.if_not_exists {
                    return Err(taken);
                }
                ddl.notices.push(Error::new(taken.state(), format!("{}, skipping", taken.message())));
                return Ok(ddl);
            }
            add_value(&mut def, &added, add, scope)?;
        }
        AlterTypeOperation::RenameValue(AlterTypeRenameValue { from, to }) => {
            let (from, to) = (label(from)?, label(to)?);
            def.rename(&from, &to)?;
            change(ty, EnumType::from(def), Some((from.as_str(), to.as_str())), scope, &mut ddl)?;
            return Ok(ddl);
        }
    }
    change(ty, EnumType::from(def), None, scope, &mut ddl)?;
    Ok(ddl)
}

fn add_value(def: &mut EnumDef, added: &str, add: &AlterTypeAddValue, scope: &Scope) -> Result<()> {
    let beside = match &add.position {
        None => None,
        Some(AlterTypeAddValuePosition::Before(other) | AlterTypeAddValuePosition::After(other)) => {
            Some(label(other)?)
        }
    };
    let neighbour = match (&add.position, &beside) {
        (Some(AlterTypeAddValuePosition::Before(_)), Some(other)) => Some(Neighbour::Before(other)),
        (Some(AlterTypeAddValuePosition::After(_)), Some(other)) => Some(Neighbour::After(other)),
        _ => None,
    };
    def.add(added, neighbour, (scope.new_id)())
}

/// The type and all columns of it with another definition, and with another label in what is the old one.
fn change(
    old: &EnumType,
    new: EnumType,
    renamed: Option<(&str, &str)>,
    scope: &Scope,
    ddl: &mut Ddl,
) -> Result<()> {
    for table in scope.users(old) {
        if table.captured {
            let message = format!("cannot alter type {} because a pipeline reads a table of it", old.shown());
            return Err(Error::new(SqlState::DependentObjectsStillExist, message)
                .with_detail(format!("Table {} has a column of the type.", table.shown_name()))
                .with_hint("DROP PIPELINE first, and create it again afterwards."));
        }
        let Some(mut altered) = table.with_enum(&new) else { continue };
        if let Some((from, to)) = renamed {
            rename_labels(&mut altered, &new, |label| (label == from).then(|| to.to_owned()));
            refuse_label(&altered, from)?;
            refuse_generated(&altered, &new)?;
        }
        ddl.ops.push(Op::AlterTable(altered));
    }
    ddl.ops.push(Op::AlterTable(TableDef::of_enum(scope.environment, new)));
    Ok(())
}

/// In defaults that are a label alone, and in what rows have that are older than their column. `to` gives a label's new
/// name, if it has one.
fn rename_labels(def: &mut TableDef, ty: &EnumType, to: impl Fn(&str) -> Option<String>) {
    let of_type = |of: &SqlType| of.enum_type().is_some_and(|of| of.id == ty.id);
    for column in def.columns.iter_mut().filter(|column| of_type(&column.ty)) {
        let default = column.default.as_deref().and_then(|text| parse_default(text).ok());
        if let Some(renamed) = default.as_ref().and_then(string).and_then(&to) {
            column.default = Some(Expr::value(Value::SingleQuotedString(renamed)).to_string());
        }
        if let Some(renamed) = column.missing.as_deref().and_then(&to) {
            column.missing = Some(renamed);
        }
    }
}

/// A definition of the past with the types as they are today: a label goes by its place.
///
/// Errors: 42704 where one of them is gone.
pub fn with_types_of_today(mut def: TableDef, scope: &Scope) -> Result<TableDef> {
    let used: Vec<EnumType> = def.used_enums().cloned().collect();
    for then in used {
        let Some(now) = scope.snapshot.enums(scope.environment).find(|now| now.id == then.id) else {
            let message = format!("type \"{}\" does not exist", then.name);
            return Err(Error::new(SqlState::UndefinedObject, message)
                .with_detail("A column of the table is of this type, which was dropped since."));
        };
        def = def.with_enum(now).unwrap_or(def);
        let name = |label: &str| now.label(then.place(label).ok()?).ok().map(str::to_owned);
        rename_labels(&mut def, now, name);
    }
    Ok(def)
}

/// Errors: 0A000 where a table has an expression that may name the label.
fn refuse_label(def: &TableDef, label: &str) -> Result<()> {
    let literal = quote_literal(label);
    if !expressions(def).any(|text| text.contains(&literal)) {
        return Ok(());
    }
    let message = format!("an expression of table {} may name the enum label {literal}", def.shown_name());
    Err(Error::unsupported(message)
        .with_hint("Drop the default, constraint, generated column or index, and make it anew afterwards."))
}

/// Errors: 0A000 where a generated column is computed from one of the type: it may hold labels as text.
fn refuse_generated(def: &TableDef, ty: &EnumType) -> Result<()> {
    let of_type = |column: &&ColumnDef| column.ty.enum_type().is_some_and(|of| of.id == ty.id);
    for column in def.columns.iter().filter(of_type) {
        if let Some(computed) = def.columns.iter().find(|other| needs(other, &column.name)) {
            let message = format!(
                "generated column \"{}\" of table {} may hold the enum label",
                computed.name,
                def.shown_name()
            );
            return Err(Error::unsupported(message)
                .with_hint("Drop the generated column, and add it again afterwards."));
        }
    }
    Ok(())
}

/// Errors: 2BP01 where a table has an expression that names the type.
fn refuse_mentions(ty: &EnumType, scope: &Scope, what: &str) -> Result<()> {
    let defs = scope.snapshot.tables().map(|version| version.def.as_ref());
    let mut own = defs.filter(|def| def.environment == scope.environment);
    let words: Vec<String> = [ty.name.clone(), quote_ident(&ty.name)]
        .iter()
        .flat_map(|name| {
            [format!("::{name}"), format!(".{name}"), format!(" AS {name}"), format!("{name} '")]
        })
        .collect();
    let names = |text: &String| words.iter().any(|word| text.contains(word.as_str()));
    let Some(def) = own.find(|def| expressions(def).any(names)) else { return Ok(()) };
    let message = format!("type {} cannot be {what} because other objects depend on it", ty.shown());
    Err(Error::new(SqlState::DependentObjectsStillExist, message)
        .with_detail(format!("An expression of table {} may name the type.", def.shown_name())))
}

/// What a table has been told in SQL: defaults, CHECKs, generated columns, indexes.
fn expressions(def: &TableDef) -> impl Iterator<Item = &String> {
    let clauses = def.indexes.iter().filter_map(|index| index.clauses.as_deref());
    let clauses = clauses.chain(def.uniques.iter().filter_map(|unique| unique.index.as_deref()));
    let of_indexes = clauses.flat_map(|clauses| {
        let keys = clauses.keys.iter().filter_map(|key| match &key.of {
            KeySource::Expression { text, .. } => Some(text),
            KeySource::Column(_) => None,
        });
        keys.chain(&clauses.predicate)
    });
    let defaults = def.columns.iter().filter_map(|column| column.default.as_ref());
    let checks = def.constraints.checks.iter().map(|check| &check.expression);
    defaults.chain(checks).chain(of_indexes)
}

/// Plans DROP TYPE. Errors: 42704; 2BP01 for one that columns have, 0A000 for CASCADE over such.
pub fn drop_types(if_exists: bool, names: &[ObjectName], cascade: bool, scope: &Scope) -> Result<Ddl> {
    let mut ddl = Ddl::tagged("DROP TYPE");
    for name in names {
        let ty = match scope.enum_named(name) {
            Ok(ty) => ty,
            Err(error) if if_exists => {
                ddl.notices.push(Error::new(error.state(), format!("{}, skipping", error.message())));
                continue;
            }
            Err(error) => return Err(error),
        };
        let users: Vec<String> = scope.users(ty).flat_map(|def| dependents(def, ty)).collect();
        if !users.is_empty() && cascade {
            return Err(Error::unsupported("DROP TYPE … CASCADE over columns of the type is not supported")
                .with_detail(users.join("\n"))
                .with_hint("Drop the columns first: ALTER TABLE … DROP COLUMN."));
        }
        if !users.is_empty() {
            let message = format!("cannot drop type {} because other objects depend on it", ty.shown());
            return Err(Error::new(SqlState::DependentObjectsStillExist, message)
                .with_detail(users.join("\n"))
                .with_hint("Use DROP ... CASCADE to drop the dependent objects too."));
        }
        refuse_mentions(ty, scope, "dropped")?;
        if !ddl.ops.iter().any(|op| op.table() == ty.id) {
            ddl.ops.push(Op::DropTable(ty.id));
        }
    }
    Ok(ddl)
}

fn dependents(def: &TableDef, ty: &EnumType) -> Vec<String> {
    let of_type = |column: &&ColumnDef| column.ty.enum_type().is_some_and(|of| of.id == ty.id);
    let columns = def.columns.iter().filter(of_type);
    let line = |column: &ColumnDef| {
        format!("column {} of table {} depends on type {}", column.name, def.shown_name(), ty.shown())
    };
    columns.map(line).collect()
}
