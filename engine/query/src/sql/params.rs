//! What is known about the types of `$1`, `$2`, … before planning.
//!
//! A type comes from the client's Parse message, from a cast around the parameter, from the column it is
//! inserted into, or from LIMIT. DataFusion infers the rest from comparisons.

use datafusion::arrow::datatypes::FieldRef;
use sepal_storage::arrow_type;
use sepal_types::SqlType;

use crate::output::typed_field;

/// Types by position; `None` where nothing is known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ParameterTypes(Vec<Option<SqlType>>);

impl ParameterTypes {
    /// From the oids of a Parse message; 0 and oids that Sepal does not have mean "infer".
    pub fn declared(oids: &[u32]) -> Self {
        Self(oids.iter().map(|oid| SqlType::from_oid(*oid).filter(|ty| *ty != SqlType::Unknown)).collect())
    }

    /// Notes that `$number` appears, without a type.
    pub fn mention(&mut self, number: usize) {
        if number > 0 && number <= usize::from(u16::MAX) && self.0.len() < number {
            self.0.resize(number, None);
        }
    }

    /// Gives `$number` a type unless it has one.
    pub fn hint(&mut self, number: usize, ty: &SqlType) {
        self.mention(number);
        if let Some(slot @ None) = number.checked_sub(1).and_then(|position| self.0.get_mut(position)) {
            *slot = Some(ty.clone());
        }
    }

    pub fn get(&self, number: usize) -> Option<&SqlType> {
        self.0.get(number.checked_sub(1)?)?.as_ref()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Every type, text where nothing is known: as Postgres resolves an unknown parameter.
    pub fn resolved(&self) -> Vec<SqlType> {
        self.0.iter().map(|ty| ty.clone().unwrap_or(SqlType::Text)).collect()
    }

    /// As DataFusion's planner wants them.
    pub fn fields(&self) -> Vec<Option<FieldRef>> {
        self.0
            .iter()
            .enumerate()
            .map(|(position, ty)| {
                ty.as_ref().map(|ty| typed_field(&format!("${}", position + 1), arrow_type(ty), ty).into())
            })
            .collect()
    }
}

/// The type of a parameter beside something of type `ty` that is no assignment: the lengths and precisions of columns
/// cut and round nobody's values, and `varchar` has no operators but those of `text`.
pub fn compared(ty: SqlType) -> SqlType {
    match ty {
        SqlType::Array(element) => SqlType::Array(Box::new(match *element {
            SqlType::Bpchar(_) => SqlType::Bpchar(None),
            SqlType::Varchar(_) => SqlType::Varchar(None),
            other => other,
        })),
        SqlType::Bit(_) => SqlType::Bit(None),
        SqlType::Bpchar(_) => SqlType::Bpchar(None),
        SqlType::Numeric(_) => SqlType::Numeric(None),
        SqlType::Varchar(_) => SqlType::Text,
        other => other,
    }
}

/// The number in `$3`.
pub(super) fn number(placeholder: &str) -> Option<usize> {
    placeholder.strip_prefix('$')?.parse().ok()
}
