//! ALTER COLUMN … TYPE: the new definition, and what becomes of the rows that have the old one.
//!
//! Called by ALTER TABLE. A `varchar` that becomes longer, or `text`, is a matter of the definition alone. All else
//! has the rows written anew, in the same commit ([`Rewrite`]; `dml::rewriting` does it); the column keeps its number.
//! Which casts an assignment makes is `pg_cast`'s to say, of PostgreSQL 17 and of pgvector 0.8.

use std::mem::discriminant;

use datafusion::sql::sqlparser::ast::{DataType, Expr, Value};
use sepal_types::{
    ColumnId, Error, Generated, IndexMethod, KeySource, Result, SequenceDef, SqlState, SqlType, TableDef,
    TableId, VectorIndexOptions, VectorKind,
};

use super::{
    Ddl, Scope,
    create_index::checked_factory,
    deparse::{bare_name, print},
    generation::{needs, refuse_subqueries},
    sequence::check_identity_type,
};
use crate::{catalog::quote_ident, dml::parse_default};

/// The rows of a table that are to be written anew: it is emptied by the operations, and filled after them.
#[derive(Debug)]
pub struct Rewrite {
    pub table: TableId,
    /// The columns whose values are cast, each by its own expression where USING gave one.
    pub retyped: Vec<(ColumnId, Option<Expr>)>,
}

impl Rewrite {
    /// That of a statement, which is begun if need be.
    pub fn of(ddl: &mut Ddl, table: TableId) -> &mut Self {
        ddl.rewrite.get_or_insert_with(|| Self { table, retyped: Vec::new() })
    }
}

/// Plans ALTER COLUMN … TYPE.
///
/// Errors: 42703, 42704, 42804 for what no assignment casts, 0A000 for a column that another is computed from.
pub fn retype(
    def: &mut TableDef,
    name: &str,
    (data_type, using): (&DataType, Option<&Expr>),
    scope: &Scope,
    ddl: &mut Ddl,
) -> Result<()> {
    let Some(place) = def.columns.iter().position(|column| column.name == name) else {
        let message = format!("column \"{name}\" of relation \"{}\" does not exist", def.name);
        return Err(Error::new(SqlState::UndefinedColumn, message));
    };
    let (new, serial) = scope.column_type(data_type)?;
    if serial.is_some() {
        let message = format!("type \"{}\" does not exist", data_type.to_string().to_lowercase());
        return Err(Error::new(SqlState::UndefinedObject, message));
    }
    let (id, old) = (def.columns[place].id, def.columns[place].ty.clone());
    let twice = ddl.rewrite.iter().flat_map(|rewrite| &rewrite.retyped).any(|(column, _)| *column == id);
    if twice {
        return Err(Error::unsupported(format!("cannot alter type of column \"{name}\" twice")));
    }
    check_dependents(def, name)?;
    check_using(def, place, using)?;
    if using.is_none() && !assignable(&old, &new) {
        let message =
            format!("column \"{name}\" cannot be cast automatically to type {}", new.display_name());
        let hint =
            format!("You might need to specify \"USING {}::{}\".", quote_ident(name), new.display_name());
        return Err(Error::new(SqlState::DatatypeMismatch, message).with_hint(hint));
    }
    retype_default(def, place, &new)?;
    check_indexes(def, id, &old, &new)?;
    def.columns[place].ty = new;
    recheck(def, id, ddl)?;
    let column = &mut def.columns[place];
    // Also of a table without rows: somebody may insert some until it is locked.
    if using.is_some() || !only_renamed(&old, &column.ty) {
        column.missing = None;
        Rewrite::of(ddl, def.id).retyped.push((id, using.cloned()));
    }
    Ok(())
}

/// The CHECKs of a column are asked again, of its new values, and printed with its new type.
fn recheck(def: &mut TableDef, id: ColumnId, ddl: &mut Ddl) -> Result<()> {
    for place in 0..def.constraints.checks.len() {
        let check = &def.constraints.checks[place];
        if !check.columns.contains(&id) {
            continue;
        }
        let (check_id, shown) = (check.id, print(def, &parse_default(&check.expression)?)?.text);
        def.constraints.checks[place].shown = shown;
        ddl.hold(def, |other| other == check_id);
    }
    Ok(())
}

/// Errors: 0A000 for a column that a foreign key is over, of this table or of one that refers to it.
pub fn check_keys(def: &TableDef, name: &str, scope: &Scope) -> Result<()> {
    let Some(id) = def.column(name).map(|column| column.id) else { return Ok(()) };
    let own = def.constraints.foreign_keys.iter().find(|key| key.columns.contains(&id));
    let tables = scope.snapshot.tables().flat_map(|version| &version.def.constraints.foreign_keys);
    let referring = tables.filter(|key| key.parent == def.id).find(|key| key.parent_columns.contains(&id));
    let Some(key) = own.or(referring) else { return Ok(()) };
    Err(Error::unsupported("cannot alter type of a column used by a foreign key")
        .with_hint(format!("Drop constraint \"{}\" first, and add it again.", key.name)))
}

fn check_dependents(def: &TableDef, name: &str) -> Result<()> {
    let Some(dependent) = def.columns.iter().find(|column| needs(column, name)) else { return Ok(()) };
    let detail = format!("Column \"{name}\" is used by generated column \"{}\".", dependent.name);
    Err(Error::unsupported("cannot alter type of a column used by a generated column").with_detail(detail))
}

fn check_using(def: &TableDef, place: usize, using: Option<&Expr>) -> Result<()> {
    let Some(using) = using else { return Ok(()) };
    let column = &def.columns[place];
    if column.expression().is_some() {
        return Err(Error::unsupported("cannot specify USING when altering type of generated column")
            .with_detail(format!("Column \"{}\" is a generated column.", column.name)));
    }
    refuse_subqueries(using, "transform expression")
}

/// A default is cast as a value would be that is assigned.
fn retype_default(def: &mut TableDef, place: usize, new: &SqlType) -> Result<()> {
    let column = &mut def.columns[place];
    let old = column.ty.clone();
    match column.generated {
        Some(Generated::Stored) => return Ok(()),
        Some(Generated::IdentityAlways | Generated::IdentityByDefault) => check_identity_type(new)?,
        Some(Generated::Serial | Generated::Sequence | Generated::Schema | Generated::Type) | None => {}
    }
    if column.is_counted() {
        // A sequence counts in integers, whatever becomes of its numbers.
        let whole = check_identity_type(new).is_ok();
        if !whole && column.sequence.is_none() {
            column.sequence = column.sequence().map(Box::new);
        }
        if let Some(own) = &mut column.sequence
            && whole
            && own.max == SequenceDef::greatest(&own.ty)
        {
            (own.ty, own.max) = (new.clone(), SequenceDef::greatest(new));
        }
        return Ok(());
    }
    let Some(text) = &column.default else { return Ok(()) };
    if !assignable(&old, new) {
        let message = format!(
            "default for column \"{}\" cannot be cast automatically to type {}",
            column.name,
            new.display_name()
        );
        return Err(Error::new(SqlState::DatatypeMismatch, message));
    }
    // A literal was read as the old type: its text may not read as the new one.
    let literal = match parse_default(text)? {
        Expr::Value(value) => matches!(value.value, Value::SingleQuotedString(_)),
        _ => false,
    };
    // A label is its own text.
    if literal && !(old.is_text() && new.is_text()) && old.enum_type().is_none() {
        column.default = Some(format!("{text}::{}", old.display_name()));
    }
    Ok(())
}

/// Vector indexes over the column are kept, with the operator class of its new type.
fn check_indexes(def: &TableDef, column: ColumnId, old: &SqlType, new: &SqlType) -> Result<()> {
    for index in def.indexes.iter().filter(|index| index.columns.contains(&column)) {
        let IndexMethod::Vector(options) = &index.method else { continue };
        let keys = index.clauses.iter().flat_map(|clauses| &clauses.keys);
        let mut expressions = keys.filter(|key| matches!(key.of, KeySource::Expression { .. }));
        if expressions.next().is_some() {
            let message = "cannot alter type of a column used by a vector index over an expression";
            return Err(Error::unsupported(message)
                .with_hint(format!("Drop index \"{}\" first, and create it anew.", index.name)));
        }
        let metric = options.metric();
        if new.vector_kind().is_none() {
            let class = metric.opclass_for(old.vector_kind().unwrap_or(VectorKind::Single));
            let message = format!("operator class \"{class}\" does not accept data type {}", bare_name(new));
            return Err(Error::new(SqlState::DatatypeMismatch, message));
        }
        // As in CREATE INDEX: what is searched has dimensions.
        let Some(dim) = new.dimensions() else {
            return Err(Error::new(SqlState::InvalidParameterValue, "column does not have dimensions"));
        };
        if let VectorIndexOptions::Faiss { factory, .. } = options {
            checked_factory(Some(factory.to_string()), metric, usize::from(dim))?;
        }
    }
    Ok(())
}

/// Whether each value of the one type is one of the other, as it is stored.
fn only_renamed(old: &SqlType, new: &SqlType) -> bool {
    match (old, new) {
        (SqlType::Text | SqlType::Varchar(_), SqlType::Text | SqlType::Varchar(None)) => true,
        (SqlType::Varchar(Some(old)), SqlType::Varchar(Some(new))) => old <= new,
        _ => old == new,
    }
}

/// Whether an assignment casts the one type to the other by itself.
pub fn assignable(source: &SqlType, target: &SqlType) -> bool {
    use SqlType as T;
    match (source, target) {
        (T::Array(source), T::Array(target)) => assignable(source, target),
        // Everything has a text form.
        (_, target) if target.is_text() => true,
        (T::Enum(source), T::Enum(target)) => source.id == target.id,
        (source, target) if discriminant(source) == discriminant(target) => true,
        (source, target) if source.is_number() && target.is_number() => true,
        (T::Int2 | T::Int4 | T::Int8, T::Oid) | (T::Oid, T::Int4 | T::Int8) => true,
        (T::Date, T::Timestamp | T::Timestamptz) => true,
        (T::Timestamp, T::Date | T::Time | T::Timestamptz) => true,
        (T::Timestamptz, T::Date | T::Time | T::Timestamp) => true,
        (T::Json, T::Jsonb) | (T::Jsonb, T::Json) => true,
        (T::Vector(_) | T::HalfVec(_) | T::SparseVec(_), T::Vector(_) | T::HalfVec(_) | T::SparseVec(_)) => {
            true
        }
        (T::Vector(_) | T::HalfVec(_), T::Array(element)) => **element == T::Float4,
        (T::Array(element), T::Vector(_) | T::HalfVec(_) | T::SparseVec(_)) => {
            matches!(**element, T::Int4 | T::Float4 | T::Float8 | T::Numeric(_))
        }
        _ => false,
    }
}

/// The same of an expression. Some of them are taken for text though they are not: only what can be no text is asked to
/// be cast.
pub fn expression_assignable(source: &SqlType, target: &SqlType) -> bool {
    let perhaps = matches!(target, SqlType::Json | SqlType::Jsonb | SqlType::Interval);
    assignable(source, target) || (source.is_text() && perhaps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn casts_of_assignments() {
        let ints = SqlType::Array(Box::new(SqlType::Int4));
        for (from, to) in [
            (SqlType::Int8, SqlType::Int2),
            (SqlType::Float8, SqlType::Numeric(Some((4, 1)))),
            (SqlType::Bool, SqlType::Text),
            (SqlType::Vector(Some(3)), SqlType::HalfVec(Some(3))),
            (SqlType::Vector(Some(3)), SqlType::Vector(Some(4))),
            (ints.clone(), SqlType::Array(Box::new(SqlType::Int8))),
            (ints.clone(), SqlType::Vector(None)),
            (ints.clone(), SqlType::Varchar(Some(3))),
        ] {
            assert!(assignable(&from, &to), "{from:?} {to:?}");
        }
        for (from, to) in [
            (SqlType::Text, SqlType::Int4),
            (SqlType::Int4, SqlType::Bool),
            (SqlType::Bool, SqlType::Int4),
            (SqlType::Text, ints.clone()),
            (SqlType::Jsonb, SqlType::Int4),
            (SqlType::Text, SqlType::Vector(None)),
        ] {
            assert!(!assignable(&from, &to), "{from:?} {to:?}");
        }
        assert!(expression_assignable(&SqlType::Text, &SqlType::Jsonb));
        assert!(!expression_assignable(&SqlType::Text, &SqlType::Int4));
    }

    #[test]
    fn only_longer_strings_stay_where_they_are() {
        let varchar = |length| SqlType::Varchar(Some(length));
        assert!(only_renamed(&varchar(3), &SqlType::Text));
        assert!(only_renamed(&varchar(3), &varchar(3)));
        assert!(only_renamed(&SqlType::Text, &SqlType::Varchar(None)));
        assert!(!only_renamed(&varchar(4), &varchar(3)));
        assert!(!only_renamed(&SqlType::Text, &varchar(3)));
        assert!(!only_renamed(&SqlType::Bpchar(Some(3)), &SqlType::Text));
    }
}
