//! Enumerated types: what CREATE TYPE … AS ENUM makes.
//!
//! A value is kept as its label's place, which orders the labels and never changes (docs/decisions/0022-enums.md). The
//! definition goes wherever the type does: into columns, and as text into the fields of plans. The type itself is a
//! definition beside the tables, as schemas are.

use std::{
    fmt::Write,
    ops::Deref,
    sync::{Arc, LazyLock},
};

use serde::{Deserialize, Serialize};

use crate::{
    ColumnDef, ColumnId, Error, Generated, PUBLIC_SCHEMA, Result, SqlState, SqlType, TableDef, TableId,
    limits::MAX_IDENTIFIER_BYTES,
};

/// Between the places of neighbours, as CREATE TYPE and ADD VALUE at the end give them.
const STEP: u64 = 1 << 32;
/// What the text form of a definition begins with; of the type's array, with `[]` behind it.
const MARKER: &str = "enum";

/// A definition. Two are the same type if their ids are the same; one may be older.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "EnumDef", into = "EnumDef")]
pub struct EnumType(Arc<EnumDef>);

/// What is stored of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EnumDef {
    /// `pg_type.oid`
    pub id: TableId,
    /// The oid of its array type.
    pub array: TableId,
    pub schema: String,
    pub name: String,
    /// In order: by places, ascending.
    pub labels: Vec<EnumLabel>,
}

/// One of the values.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EnumLabel {
    /// `pg_enum.oid`
    pub id: TableId,
    /// What rows have; never given to another label.
    pub place: u64,
    pub label: String,
}

/// Where ADD VALUE puts a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Neighbour<'a> {
    Before(&'a str),
    After(&'a str),
}

impl From<EnumDef> for EnumType {
    fn from(def: EnumDef) -> Self {
        Self(Arc::new(def))
    }
}

impl From<EnumType> for EnumDef {
    fn from(ty: EnumType) -> Self {
        Arc::unwrap_or_clone(ty.0)
    }
}

impl Deref for EnumType {
    type Target = EnumDef;

    fn deref(&self) -> &EnumDef {
        &self.0
    }
}

impl EnumType {
    /// The type of a value of which is known only that it is an enum's.
    pub fn unknown() -> Self {
        static UNKNOWN: LazyLock<EnumType> = LazyLock::new(|| {
            let (schema, name) = (PUBLIC_SCHEMA.to_owned(), "anyenum".to_owned());
            EnumType::from(EnumDef { id: TableId(0), array: TableId(0), schema, name, labels: Vec::new() })
        });
        UNKNOWN.clone()
    }

    /// Whether it is one that was made, and not [`EnumType::unknown`].
    pub fn is_known(&self) -> bool {
        self.id.0 != 0
    }

    /// As messages and `format_type` show it: in quotes where it must be, with the schema unless that is `public`.
    pub fn shown(&self) -> String {
        if self.schema == PUBLIC_SCHEMA {
            quoted(&self.name)
        } else {
            format!("{}.{}", quoted(&self.schema), quoted(&self.name))
        }
    }

    /// The place of a label. Errors: 22P02 as PostgreSQL's `enum_in`, 0A000 for a type that is not known.
    pub fn place(&self, label: &str) -> Result<u64> {
        if !self.is_known() {
            return Err(Self::not_known());
        }
        let found = self.labels.iter().find(|known| known.label == label);
        found.map(|known| known.place).ok_or_else(|| {
            let message = format!("invalid input value for enum {}: \"{label}\"", self.shown());
            Error::new(SqlState::InvalidTextRepresentation, message)
        })
    }

    /// The label of a place. Errors: 0A000 for a type that is not known; a bug for a place that it does not have.
    pub fn label(&self, place: u64) -> Result<&str> {
        if !self.is_known() {
            return Err(Self::not_known());
        }
        match self.labels.binary_search_by_key(&place, |known| known.place) {
            Ok(found) => Ok(&self.labels[found].label),
            Err(_) => Err(Error::bug(format!("enum {} has no label at place {place}", self.shown()))),
        }
    }

    /// Which enum it is gets lost on the way through some expressions.
    pub fn not_known() -> Error {
        Error::unsupported("this expression over an enum is not supported")
            .with_hint("Cast the enum to text in it: column::text.")
    }

    /// The definition as text, without line breaks: what [`EnumType::from_marker`] reads.
    pub fn marker(&self, array: bool) -> String {
        let brackets = if array { "[]" } else { "" };
        let (id, of_array) = (self.id, self.array);
        let (schema, name) = (literal(&self.schema), literal(&self.name));
        let mut text = format!("{MARKER}{brackets} {id} {of_array} {schema} {name}");
        for known in &self.labels {
            // Writing into a string does not fail.
            let _ = write!(text, " {} {} {}", known.id, known.place, literal(&known.label));
        }
        text
    }

    /// The type that a marker says, or its array; `None` for another text.
    pub fn from_marker(text: &str) -> Option<SqlType> {
        let rest = text.strip_prefix(MARKER)?;
        let (array, rest) = match rest.strip_prefix("[]") {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let mut words = Words(rest);
        let (id, of_array) = (words.number()?, words.number()?);
        let (schema, name) = (words.literal()?, words.literal()?);
        let mut labels = Vec::new();
        while !words.0.is_empty() {
            let (id, place, label) = (words.number()?, words.number()?, words.literal()?);
            labels.push(EnumLabel { id: TableId(u32::try_from(id).ok()?), place, label });
        }
        let (id, of_array) = (u32::try_from(id).ok()?, u32::try_from(of_array).ok()?);
        let def = EnumDef { id: TableId(id), array: TableId(of_array), schema, name, labels };
        let ty = SqlType::Enum(EnumType::from(def));
        Some(if array { SqlType::Array(Box::new(ty)) } else { ty })
    }
}

impl EnumDef {
    /// What CREATE TYPE makes of labels in their order.
    ///
    /// Errors: 42602 for a label that is too long, 23505 for one that is there twice, as `EnumValuesCreate` has them.
    pub fn with_labels(mut self, labels: &[String], new_id: &dyn Fn() -> TableId) -> Result<Self> {
        for (count, label) in labels.iter().enumerate() {
            check_label(label)?;
            if labels[..count].contains(label) {
                return Err(Error::new(
                    SqlState::UniqueViolation,
                    "duplicate key value violates unique constraint \"pg_enum_typid_label_index\"",
                )
                .with_detail(format!("Key (enumtypid, enumlabel)=({}, {label}) already exists.", self.id)));
            }
            let place = self.labels.last().map_or(Some(STEP), |last| last.place.checked_add(STEP));
            let place = place.ok_or_else(|| self.no_room())?;
            self.labels.push(EnumLabel { id: new_id(), place, label: label.clone() });
        }
        Ok(self)
    }

    /// ADD VALUE of a label that is not there yet: at the end, or beside another.
    ///
    /// Errors: 42602 too long; 22023 no such neighbour; 54000 where nothing fits between two.
    pub fn add(&mut self, label: &str, neighbour: Option<Neighbour<'_>>, id: TableId) -> Result<()> {
        check_label(label)?;
        let at = match neighbour {
            None => self.labels.len(),
            Some(Neighbour::Before(other)) => self.position(other)?,
            Some(Neighbour::After(other)) => self.position(other)? + 1,
        };
        let before = at.checked_sub(1).map_or(0, |before| self.labels[before].place);
        let place = match self.labels.get(at) {
            Some(after) => Some(before + (after.place - before) / 2).filter(|place| *place > before),
            None => before.checked_add(STEP),
        };
        let place = place.ok_or_else(|| self.no_room())?;
        self.labels.insert(at, EnumLabel { id, place, label: label.to_owned() });
        Ok(())
    }

    /// RENAME VALUE. Errors: 42602 too long; 22023 for a label that is not there; 42710 for one that is.
    pub fn rename(&mut self, from: &str, to: &str) -> Result<()> {
        check_label(to)?;
        let at = self.position(from)?;
        if self.has(to) {
            return Err(duplicate_label(to));
        }
        to.clone_into(&mut self.labels[at].label);
        Ok(())
    }

    pub fn has(&self, label: &str) -> bool {
        self.labels.iter().any(|known| known.label == label)
    }

    fn position(&self, label: &str) -> Result<usize> {
        self.labels.iter().position(|known| known.label == label).ok_or_else(|| {
            let message = format!("\"{label}\" is not an existing enum label");
            Error::new(SqlState::InvalidParameterValue, message)
        })
    }

    fn no_room(&self) -> Error {
        let message = format!("enum {} has no room for another label there", quoted(&self.name));
        Error::new(SqlState::ProgramLimitExceeded, message)
            .with_hint("Add the label at the end, or make a new type and cast the columns to it.")
    }
}

/// 42710
pub fn duplicate_label(label: &str) -> Error {
    Error::new(SqlState::DuplicateObject, format!("enum label \"{label}\" already exists"))
}

/// PostgreSQL keeps labels as names.
fn check_label(label: &str) -> Result<()> {
    if label.len() <= MAX_IDENTIFIER_BYTES {
        return Ok(());
    }
    Err(Error::new(SqlState::InvalidName, format!("invalid enum label \"{label}\""))
        .with_detail(format!("Labels must be {MAX_IDENTIFIER_BYTES} bytes or less.")))
}

fn quoted(name: &str) -> String {
    let mut chars = name.chars();
    let plain = chars.next().is_some_and(|c| c.is_ascii_lowercase() || c == '_')
        && chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// What is left of a marker to be read; each word has a blank before it.
struct Words<'a>(&'a str);

impl Words<'_> {
    fn number(&mut self) -> Option<u64> {
        let rest = self.0.strip_prefix(' ')?;
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (digits, after) = rest.split_at(end);
        self.0 = after;
        digits.parse().ok()
    }

    fn literal(&mut self) -> Option<String> {
        let mut rest = self.0.strip_prefix(" '")?;
        let mut text = String::new();
        loop {
            let (part, after) = rest.split_once('\'')?;
            text.push_str(part);
            match after.strip_prefix('\'') {
                Some(after) => {
                    text.push('\'');
                    rest = after;
                }
                None => {
                    self.0 = after;
                    return Some(text);
                }
            }
        }
    }
}

impl TableDef {
    /// A type, made by CREATE TYPE. A program that knows no such refuses the definition for its column's type.
    pub fn of_enum(environment: &str, ty: EnumType) -> Self {
        let (id, schema, name) = (ty.id, ty.schema.clone(), ty.name.clone());
        let column = ColumnDef {
            generated: Some(Generated::Type),
            ..ColumnDef::new(ColumnId(1), "type", SqlType::Enum(ty))
        };
        Self::of_one_column(id, environment, (schema, name), column)
    }

    /// The type that this definition is; `None` for a table, a sequence, a schema.
    pub fn enum_type(&self) -> Option<&EnumType> {
        match self.columns.first() {
            Some(ColumnDef { generated: Some(Generated::Type), ty: SqlType::Enum(ty), .. }) => Some(ty),
            _ => None,
        }
    }

    /// The types of its columns that somebody made, each once.
    pub fn used_enums(&self) -> impl Iterator<Item = &EnumType> {
        let columns: &[ColumnDef] = if self.enum_type().is_some() { &[] } else { &self.columns };
        columns.iter().enumerate().filter_map(move |(place, column)| {
            let ty = column.ty.enum_type()?;
            let earlier = &columns[..place];
            let known = |other: &ColumnDef| other.ty.enum_type().is_some_and(|other| other.id == ty.id);
            (!earlier.iter().any(known)).then_some(ty)
        })
    }

    /// The same with another definition of one of these types in its columns; `None` if none of them is of that type.
    #[must_use]
    pub fn with_enum(&self, ty: &EnumType) -> Option<Self> {
        self.used_enums().any(|used| used.id == ty.id).then(|| {
            let mut def = self.clone();
            for column in &mut def.columns {
                match &mut column.ty {
                    SqlType::Enum(of) if of.id == ty.id => *of = ty.clone(),
                    _ => {}
                }
            }
            def
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mood(labels: &[&str]) -> EnumDef {
        let (schema, name) = (PUBLIC_SCHEMA.to_owned(), "mood".to_owned());
        let def = EnumDef { id: TableId(20_000), array: TableId(20_001), schema, name, labels: vec![] };
        let labels: Vec<String> = labels.iter().map(|label| (*label).to_owned()).collect();
        def.with_labels(&labels, &|| TableId(20_002)).unwrap()
    }

    fn labels(def: &EnumDef) -> Vec<&str> {
        def.labels.iter().map(|known| known.label.as_str()).collect()
    }

    #[test]
    fn places_are_in_the_order_of_the_labels_and_stay() {
        let mut def = mood(&["sad", "happy"]);
        let sad = def.labels[0].place;
        def.add("ok", Some(Neighbour::Before("happy")), TableId(1)).unwrap();
        def.add("worst", Some(Neighbour::Before("sad")), TableId(2)).unwrap();
        def.add("fine", Some(Neighbour::After("ok")), TableId(3)).unwrap();
        def.add("best", None, TableId(4)).unwrap();
        assert_eq!(labels(&def), ["worst", "sad", "ok", "fine", "happy", "best"]);
        assert!(def.labels.is_sorted_by(|one, next| one.place < next.place));
        let ty = EnumType::from(def);
        assert_eq!((ty.place("sad").unwrap(), ty.label(sad).unwrap()), (sad, "sad"));
        let error = ty.place("Sad").unwrap_err();
        assert_eq!(
            (error.state().code(), error.message()),
            ("22P02", "invalid input value for enum mood: \"Sad\"")
        );
    }

    #[test]
    fn room_between_two_labels_ends_and_nothing_is_overwritten() {
        let mut def = mood(&["a", "z"]);
        let added = (0..100).take_while(|count| {
            def.add(&format!("m{count}"), Some(Neighbour::Before("z")), TableId(*count)).is_ok()
        });
        assert_eq!(added.count(), 32);
        assert!(def.labels.is_sorted_by(|one, next| one.place < next.place));
        let error = def.add("more", Some(Neighbour::Before("z")), TableId(0)).unwrap_err();
        assert_eq!(error.state(), SqlState::ProgramLimitExceeded);
        def.add("end", None, TableId(0)).unwrap();
    }

    #[test]
    fn markers_read_back() {
        let mut def = mood(&["it's", "", "a b 'c'", "naïve"]);
        def.schema = "my \"schema\"".into();
        let ty = EnumType::from(def);
        let array = SqlType::Array(Box::new(SqlType::Enum(ty.clone())));
        assert_eq!(EnumType::from_marker(&ty.marker(true)), Some(array));
        assert_eq!(EnumType::from_marker(&ty.marker(false)), Some(SqlType::Enum(ty)));
        assert_eq!(EnumType::from_marker(&mood(&[]).name), None);
        let marker = EnumType::from(mood(&["a"])).marker(false);
        assert_eq!(marker, "enum 20000 20001 'public' 'mood' 20002 4294967296 'a'");
        for end in 1..marker.len() {
            // Nothing panics; the shortest that reads has no labels.
            let _ = EnumType::from_marker(&marker[..end]);
        }
    }

    #[test]
    fn labels_are_refused_as_postgres_refuses_them() {
        let mut def = mood(&["a", "b"]);
        assert_eq!(def.rename("c", "d").unwrap_err().message(), "\"c\" is not an existing enum label");
        let taken = def.rename("a", "b").unwrap_err();
        assert_eq!((taken.state().code(), taken.message()), ("42710", "enum label \"b\" already exists"));
        let long = "x".repeat(MAX_IDENTIFIER_BYTES + 1);
        let error = def.add(&long, None, TableId(0)).unwrap_err();
        assert_eq!(error.detail(), Some("Labels must be 63 bytes or less."));
        def.rename("a", "c").unwrap();
        assert_eq!(labels(&def), ["c", "b"]);
    }
}
