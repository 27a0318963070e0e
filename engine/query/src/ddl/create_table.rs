//! CREATE TABLE: columns, types, defaults, PRIMARY KEY and UNIQUE. Also what ALTER TABLE adds. Other constraints are
//! for `constraints`.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    self, ColumnOption, ConstraintUsingIndex, CreateTable, DataType, GeneratedAs, IndexColumn,
    TableConstraint,
};
use sepal_storage::Op;
use sepal_types::{
    BitString, ColumnDef, ColumnId, Constraints, EnumType, Error, Generated, Result, SparseVector, SqlState,
    SqlType, TableDef, UniqueDef, VectorKind,
    limits::{MAX_CHARACTERS, MAX_COLUMN_BITS, MAX_COLUMNS},
};

use super::{
    Ddl, Scope,
    constraints::add_constraints,
    generation,
    names::{generated, identifier, relation_name},
    sequence::{check_identity_type, identity_options, name_sequence, starts, with_sequences},
};

/// Plans CREATE TABLE.
///
/// Errors: 42P07 the name is taken, 42701 a column twice, 42704 an unknown type, 0A000 what Sepal has not.
pub fn create_table(create: &CreateTable, scope: &Scope) -> Result<Ddl> {
    refuse_unsupported(create)?;
    let name = relation_name(&create.name)?;
    let mut ddl = Ddl::tagged("CREATE TABLE");
    check_columns(create, scope)?;
    let schema = scope.creation_schema(&name)?;
    let name = name.name;
    scope.refuse_name_of_type(&schema, &name)?;
    if scope.is_taken(&schema, &name) {
        let error = Error::new(SqlState::DuplicateTable, format!("relation \"{name}\" already exists"));
        if create.if_not_exists {
            ddl.notices.push(Error::new(
                SqlState::DuplicateTable,
                format!("relation \"{name}\" already exists, skipping"),
            ));
            return Ok(ddl);
        }
        return Err(error);
    }
    let mut def = TableDef {
        id: (scope.new_id)(),
        environment: scope.environment.to_owned(),
        schema,
        name,
        columns: Vec::new(),
        next_column: ColumnId(1),
        uniques: Vec::new(),
        indexes: Vec::new(),
        captured: false,
        constraints: Constraints::default(),
    };
    for column in &create.columns {
        add_column(&mut def, column, scope)?;
    }
    let ids: Vec<ColumnId> = def.columns.iter().map(|column| column.id).collect();
    ids.into_iter().try_for_each(|id| generation::settle(&mut def, id))?;
    for constraint in &create.constraints {
        add_constraint(&mut def, constraint, scope)?;
    }
    def.uniques.sort_by_key(|unique| !unique.primary);
    add_constraints(&mut def, &create.columns, &create.constraints, scope)?;
    if def.columns.len() > MAX_COLUMNS {
        return Err(Error::new(
            SqlState::TooManyColumns,
            format!("tables can have at most {MAX_COLUMNS} columns"),
        ));
    }
    let starts: Vec<Op> = starts(&def).collect();
    ddl.hold(&def, |_| true);
    ddl.ops.push(Op::CreateTable(def));
    ddl.ops.extend(starts);
    Ok(ddl)
}

/// Postgres analyses the columns before it looks whether the name is free.
fn check_columns(create: &CreateTable, scope: &Scope) -> Result<()> {
    for (position, column) in create.columns.iter().enumerate() {
        let name = identifier(&column.name);
        if create.columns[..position].iter().any(|earlier| identifier(&earlier.name) == name) {
            return Err(Error::new(
                SqlState::DuplicateColumn,
                format!("column \"{name}\" specified more than once"),
            ));
        }
        scope.column_type(&column.data_type)?;
    }
    Ok(())
}

fn refuse_unsupported(create: &CreateTable) -> Result<()> {
    let refuse = |what: &str, hint: &str| {
        Err(Error::unsupported(format!("{what} are not supported")).with_hint(hint.to_owned()))
    };
    if create.temporary {
        return Err(no_temporary_tables());
    }
    if create.query.is_some() {
        return Err(Error::bug("CREATE TABLE AS came without its query's plan"));
    }
    if create.like.is_some()
        || create.inherits.is_some()
        || create.partition_by.is_some()
        || create.partition_of.is_some()
    {
        return refuse("LIKE, INHERITS and PARTITION BY", "Write the columns out.");
    }
    Ok(())
}

/// Adds one column with its constraints. Also ALTER TABLE … ADD COLUMN.
pub fn add_column(def: &mut TableDef, column: &ast::ColumnDef, scope: &Scope) -> Result<()> {
    let name = identifier(&column.name);
    if def.column(&name).is_some() {
        return Err(Error::new(
            SqlState::DuplicateColumn,
            format!("column \"{name}\" specified more than once"),
        ));
    }
    let (ty, serial) = scope.column_type(&column.data_type)?;
    let id = def.next_column;
    def.next_column = ColumnId(id.0 + 1);
    let mut built =
        ColumnDef { not_null: serial.is_some(), generated: serial, ..ColumnDef::new(id, name, ty) };
    let mut unique = None;
    for option in &column.options {
        match &option.option {
            ColumnOption::Null => built.not_null = false,
            ColumnOption::NotNull => built.not_null = true,
            ColumnOption::Default(expr) => {
                generation::refuse_beside("default", &built, &def.name)?;
                let expr = scope.without_own_cast(expr, &built.ty);
                check_default(expr, &built.ty)?;
                built.default = default_text(&with_sequences(expr, def, scope)?);
            }
            ColumnOption::PrimaryKey(_) => {
                built.not_null = true;
                unique = Some((true, option.name.as_ref()));
            }
            ColumnOption::Unique(_) => unique = unique.or(Some((false, option.name.as_ref()))),
            ColumnOption::Generated {
                generated_as: generated @ (GeneratedAs::Always | GeneratedAs::ByDefault),
                generation_expr: None,
                sequence_options,
                ..
            } => {
                generation::refuse_beside("identity", &built, &def.name)?;
                let always = matches!(generated, GeneratedAs::Always);
                built.generated =
                    Some(if always { Generated::IdentityAlways } else { Generated::IdentityByDefault });
                built.not_null = true;
                check_identity_type(&built.ty)?;
                identity_options(&mut built, sequence_options.as_deref().unwrap_or_default())?;
            }
            ColumnOption::Generated { generation_expr: Some(expr), generated_as, .. } => {
                generation::declare(&mut built, expr, generated_as, &def.name)?;
            }
            // `add_constraints` takes the constraints, when all columns are there.
            ColumnOption::ForeignKey(_)
            | ColumnOption::Check(_)
            | ColumnOption::Collation(_)
            | ColumnOption::Comment(_) => {}
            other => return Err(Error::unsupported(format!("column option {other} is not supported"))),
        }
    }
    if built.is_counted() {
        name_sequence(def, &mut built, scope)?;
    }
    def.columns.push(built);
    if let Some((primary, name)) = unique {
        add_unique(def, vec![id], primary, name.map(identifier), scope)?;
    }
    Ok(())
}

/// A quoted default must read as the column's type. Errors: that type's own, and 0A000 for a name, which could only be
/// a column's.
pub fn check_default(expr: &ast::Expr, ty: &SqlType) -> Result<()> {
    let column = ast::visit_expressions(expr, |inner| match inner {
        ast::Expr::Identifier(_)
        | ast::Expr::CompoundIdentifier(_)
        | ast::Expr::CompoundFieldAccess { .. } => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    if column.is_break() {
        return Err(Error::unsupported("cannot use column reference in DEFAULT expression"));
    }
    match expr {
        ast::Expr::Value(value) => match &value.value {
            ast::Value::SingleQuotedString(text) => {
                crate::values::decode_text(ty, Some(text.as_bytes())).map(|_| ())
            }
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

/// A DEFAULT as it is stored; `DEFAULT NULL` is none.
pub fn default_text(expr: &ast::Expr) -> Option<String> {
    match expr {
        ast::Expr::Value(value) if value.value == ast::Value::Null => None,
        other => Some(other.to_string()),
    }
}

/// The stored type of a declared one, and whether it is a serial.
pub fn column_type(data_type: &DataType) -> Result<(SqlType, Option<Generated>)> {
    let text = data_type.to_string();
    let serial = match text.to_ascii_lowercase().as_str() {
        "serial" | "serial4" => Some(SqlType::Int4),
        "bigserial" | "serial8" => Some(SqlType::Int8),
        "smallserial" | "serial2" => Some(SqlType::Int2),
        _ => None,
    };
    if let Some(ty) = serial {
        return Ok((ty, Some(Generated::Serial)));
    }
    if let Some((kind, dimensions)) = vector_dimensions(&text) {
        return vector_type(kind, &dimensions).map(|ty| (ty, None));
    }
    if let Some(dimensions) = written_dimensions(&text, SparseVector::NAME) {
        return sparse_type(&dimensions).map(|ty| (ty, None));
    }
    if let DataType::Bit(length) = data_type {
        let length = BitString::declared(i64::try_from(length.unwrap_or(1)).unwrap_or(i64::MAX))?;
        let ty = SqlType::Bit(Some(length));
        return check_storable(&ty).map(|()| (ty, None));
    }
    let ty = SqlType::from_name(&text).ok_or_else(|| {
        Error::new(SqlState::UndefinedObject, format!("type \"{}\" does not exist", text.to_lowercase()))
    })?;
    if let SqlType::Numeric(Some((precision, scale))) = &ty {
        check_numeric(*precision, *scale)?;
    }
    check_storable(&ty)?;
    Ok((ty, None))
}

/// Errors: 0A000 for a type that only a result or a catalog has.
pub fn check_storable(ty: &SqlType) -> Result<()> {
    let storable = match ty {
        SqlType::Array(element) => {
            let stored =
                !matches!(**element, SqlType::Array(_) | SqlType::Enum(_) | SqlType::Unknown | SqlType::Void);
            stored
                && element.vector_kind().is_none()
                && !matches!(**element, SqlType::Bit(_) | SqlType::Bpchar(None) | SqlType::SparseVec(_))
        }
        SqlType::Bit(Some(length)) if *length > MAX_COLUMN_BITS => {
            let message = format!("columns of more than {MAX_COLUMN_BITS} bits are not supported");
            return Err(Error::unsupported(message).with_hint("Use bytea for long strings of bits."));
        }
        SqlType::Bpchar(Some(length)) => return check_characters("char", *length),
        SqlType::Varchar(Some(length)) => return check_characters("varchar", *length),
        // Without a length the blanks at a value's end are kept, though no comparison sees them.
        SqlType::Bpchar(None) => {
            let message = "columns of type bpchar without a length are not supported";
            return Err(Error::unsupported(message).with_hint("Use text, or character(n)."));
        }
        // Which one it is got lost in the query that it comes from.
        SqlType::Enum(ty) if !ty.is_known() => return Err(EnumType::not_known()),
        SqlType::Bit(None)
        | SqlType::Unknown
        | SqlType::Void
        | SqlType::Int2Vector
        | SqlType::OidVector
        | SqlType::Regclass
        | SqlType::Regproc
        | SqlType::Regtype => false,
        _ => true,
    };
    if storable {
        return Ok(());
    }
    Err(Error::unsupported(format!("columns of type {} are not supported", ty.display_name())))
}

/// Errors: 22023 for a length that no string type has.
fn check_characters(type_name: &str, length: u32) -> Result<()> {
    let message = match length {
        0 => format!("length for type {type_name} must be at least 1"),
        1..=MAX_CHARACTERS => return Ok(()),
        _ => format!("length for type {type_name} cannot exceed {MAX_CHARACTERS}"),
    };
    Err(Error::new(SqlState::InvalidParameterValue, message))
}

fn check_numeric(precision: u8, scale: i8) -> Result<()> {
    if !(1..=38).contains(&precision) {
        return Err(Error::new(
            SqlState::InvalidParameterValue,
            format!("NUMERIC precision {precision} must be between 1 and 38"),
        )
        .with_hint("Sepal keeps numeric in 128 bits: 38 digits at most."));
    }
    if scale < 0 || i16::from(scale) > i16::from(precision) {
        return Err(Error::new(
            SqlState::InvalidParameterValue,
            format!("NUMERIC scale {scale} must be between 0 and precision {precision}"),
        ));
    }
    Ok(())
}

/// What stands in `vector(…)` or `halfvec(…)`, empty for a bare name.
fn vector_dimensions(text: &str) -> Option<(VectorKind, String)> {
    VectorKind::ALL.into_iter().find_map(|kind| Some((kind, written_dimensions(text, kind.name())?)))
}

/// What stands in the parentheses behind a type's name; `None` for another type.
fn written_dimensions(text: &str, name: &str) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    let bare = VectorKind::without_schema(&lower).unwrap_or(&lower);
    let rest = bare.strip_prefix(name)?.trim();
    if rest.is_empty() {
        return Some(String::new());
    }
    Some(rest.strip_prefix('(')?.strip_suffix(')')?.trim().to_owned())
}

fn sparse_type(dimensions: &str) -> Result<SqlType> {
    if dimensions.is_empty() {
        return Ok(SqlType::SparseVec(None));
    }
    match dimensions.parse::<i64>() {
        Err(_) => Err(Error::new(SqlState::InvalidParameterValue, "invalid type modifier")),
        Ok(number) => Ok(SqlType::SparseVec(Some(SparseVector::declared(number)?))),
    }
}

fn vector_type(kind: VectorKind, dimensions: &str) -> Result<SqlType> {
    if dimensions.is_empty() {
        return Ok(kind.sql_type(None));
    }
    match dimensions.parse::<i64>() {
        Err(_) => Err(Error::new(SqlState::InvalidParameterValue, "invalid type modifier")),
        Ok(number) => Ok(kind.sql_type(Some(kind.declared(number)?))),
    }
}

/// A key of the table; its other constraints come after all keys. Also ALTER TABLE … ADD CONSTRAINT.
pub fn add_constraint(def: &mut TableDef, constraint: &TableConstraint, scope: &Scope) -> Result<()> {
    match constraint {
        TableConstraint::PrimaryKey(key) => {
            let columns = constraint_columns(def, &key.columns)?;
            for column in def.columns.iter_mut().filter(|column| columns.contains(&column.id)) {
                column.not_null = true;
            }
            add_unique(def, columns, true, key.name.as_ref().map(identifier), scope)
        }
        TableConstraint::Unique(unique) => {
            let columns = constraint_columns(def, &unique.columns)?;
            add_unique(def, columns, false, unique.name.as_ref().map(identifier), scope)
        }
        TableConstraint::PrimaryKeyUsingIndex(using) => constraint_of_index(def, using, true),
        TableConstraint::UniqueUsingIndex(using) => constraint_of_index(def, using, false),
        TableConstraint::ForeignKey(_) | TableConstraint::Check(_) => Ok(()),
        other => Err(Error::unsupported(format!("constraint {other} is not supported"))),
    }
}

/// ADD CONSTRAINT … USING INDEX: the unique index becomes a constraint, and has its name.
fn constraint_of_index(def: &mut TableDef, using: &ConstraintUsingIndex, primary: bool) -> Result<()> {
    let name = identifier(&using.index_name);
    if primary && def.primary_key().is_some() {
        return Err(second_primary_key(def));
    }
    let Some(place) = def.uniques.iter().position(|unique| unique.name == name) else {
        return Err(Error::new(SqlState::UndefinedObject, format!("index \"{name}\" does not exist")));
    };
    let mut unique = def.uniques.remove(place);
    let Some(clauses) = unique.index.take() else {
        def.uniques.insert(place, unique);
        let message = format!("index \"{name}\" is already associated with a constraint");
        return Err(Error::new(SqlState::ObjectNotInPrerequisiteState, message));
    };
    if !clauses.keys.is_empty() {
        let message = format!("index \"{name}\" column number 1 does not have default sorting behavior");
        return Err(Error::new(SqlState::WrongObjectType, message)
            .with_detail("Cannot create a primary key or unique constraint using such an index."));
    }
    unique.primary = primary;
    unique.name = using.name.as_ref().map_or(name, identifier);
    for column in def.columns.iter_mut().filter(|column| primary && unique.columns.contains(&column.id)) {
        column.not_null = true;
    }
    def.uniques.push(unique);
    Ok(())
}

fn second_primary_key(def: &TableDef) -> Error {
    let message = format!("multiple primary keys for table \"{}\" are not allowed", def.name);
    Error::new(SqlState::InvalidTableDefinition, message)
}

fn constraint_columns(def: &TableDef, columns: &[IndexColumn]) -> Result<Vec<ColumnId>> {
    columns
        .iter()
        .map(|column| {
            let ast::Expr::Identifier(ident) = &column.column.expr else {
                return Err(Error::unsupported("constraints over expressions are not supported"));
            };
            let name = identifier(ident);
            def.column(&name).map(|column| column.id).ok_or_else(|| {
                Error::new(
                    SqlState::UndefinedColumn,
                    format!("column \"{name}\" named in key does not exist"),
                )
            })
        })
        .collect()
}

/// Adds PRIMARY KEY or UNIQUE with Postgres' generated name.
pub fn add_unique(
    def: &mut TableDef,
    columns: Vec<ColumnId>,
    primary: bool,
    name: Option<String>,
    scope: &Scope,
) -> Result<()> {
    if primary && def.primary_key().is_some() {
        return Err(second_primary_key(def));
    }
    let names: Vec<&str> =
        columns.iter().filter_map(|id| def.column_by_id(*id)).map(|column| column.name.as_str()).collect();
    let is_taken = |name: &str| {
        scope.is_taken(&def.schema, name)
            || def.uniques.iter().any(|unique| unique.name == name)
            || def.name == name
    };
    let name = match name {
        Some(name) if is_taken(&name) => {
            return Err(Error::new(SqlState::DuplicateTable, format!("relation \"{name}\" already exists")));
        }
        Some(name) => name,
        None if primary => generated(&def.name, &[], "pkey", is_taken),
        None => generated(&def.name, &names, "key", is_taken),
    };
    def.uniques.push(UniqueDef { id: (scope.new_id)(), name, columns, primary, index: None });
    Ok(())
}

/// CREATE TEMPORARY TABLE, however it is said.
pub fn no_temporary_tables() -> Error {
    Error::unsupported("temporary tables are not supported")
        .with_hint("Create an ordinary table and drop it afterwards.")
}
