//! The type that expressions have in common where one of them is the result: the branches of UNION, INTERSECT and
//! EXCEPT, CASE, coalesce, the rows of VALUES, the elements of an array.
//!
//! PostgreSQL's "UNION, CASE, and Related Constructs" (`select_common_type` and `coerce_to_common_type` in
//! `parse_coerce.c`), as far as the types are told apart here. Asked by `branches` and by the planner.

use sepal_types::{Error, Result, SqlState, SqlType};

use super::signatures::rank;
use crate::{
    catalog::{is_preferred, type_category},
    error::type_name,
};

/// The common type of these, which are all that have a type; `None` where there are none, or where it is left to the
/// planner.
///
/// Errors: 42804 for types of two categories, 42846 where one is not converted to the other without a cast.
pub(crate) fn matched(construct: &str, types: &[SqlType]) -> Result<Option<SqlType>> {
    let mut common: Option<&SqlType> = None;
    for ty in types {
        let Some(own) = category(ty) else { return Ok(None) };
        let Some(before) = common else {
            common = Some(ty);
            continue;
        };
        if is_written(before) && is_written(ty) {
            continue;
        }
        if category(before) != Some(own) {
            let (before, ty) = (type_name(before), type_name(ty));
            let message = format!("{construct} types {before} and {ty} cannot be matched");
            return Err(Error::new(SqlState::DatatypeMismatch, message));
        }
        if !is_preferred(before) && converts(before, ty) && !converts(ty, before) {
            common = Some(ty);
        }
    }
    let Some(common) = common else { return Ok(None) };
    match types.iter().find(|ty| !converts(ty, common)) {
        Some(ty) => {
            // Of CASE the ELSE comes first, and is what the others are converted to.
            let construct = if construct == "CASE" { "CASE/WHEN" } else { construct };
            let message =
                format!("{construct} could not convert type {} to {}", type_name(ty), type_name(common));
            Err(Error::new(SqlState::CannotCoerce, message))
        }
        None => Ok(Some(common.clone())),
    }
}

/// `None` for types that are known by their names alone, whose values are texts and numbers here, and for an enum of
/// which it is not known which one it is.
fn category(ty: &SqlType) -> Option<&'static str> {
    match ty {
        SqlType::Array(element) => {
            category(element)?;
        }
        SqlType::Enum(of) if of.is_known() => {}
        SqlType::Char
        | SqlType::Enum(_)
        | SqlType::Int2Vector
        | SqlType::Name
        | SqlType::Oid
        | SqlType::OidVector
        | SqlType::Regclass
        | SqlType::Regproc
        | SqlType::Regtype
        | SqlType::Unknown
        | SqlType::Void => return None,
        _ => {}
    }
    Some(type_category(ty))
}

/// Types whose values are kept as texts: what a function gives of one may be called the other.
const fn is_written(ty: &SqlType) -> bool {
    matches!(
        ty,
        SqlType::Bpchar(_)
            | SqlType::Json
            | SqlType::Jsonb
            | SqlType::Text
            | SqlType::TsQuery
            | SqlType::TsVector
            | SqlType::Varchar(_)
    )
}

/// Whether a value is converted without a cast (`pg_cast.castcontext` is `i`). Lengths and precisions do not count.
fn converts(from: &SqlType, to: &SqlType) -> bool {
    if let (SqlType::Array(from), SqlType::Array(to)) = (from, to) {
        return converts(from, to);
    }
    if let (Some(from), Some(to)) = (from.enum_type(), to.enum_type()) {
        return from.id == to.id;
    }
    if let (Some(from), Some(to)) = (rank(from), rank(to)) {
        return from <= to;
    }
    std::mem::discriminant(from) == std::mem::discriminant(to)
        || (is_written(from) && is_written(to))
        || matches!(
            (from, to),
            (SqlType::Date, SqlType::Timestamp | SqlType::Timestamptz)
                | (SqlType::Timestamp, SqlType::Timestamptz)
                | (SqlType::Vector(_), SqlType::HalfVec(_) | SqlType::SparseVec(_))
                | (SqlType::HalfVec(_), SqlType::SparseVec(_))
        )
}

#[cfg(test)]
mod tests {
    use sepal_types::{EnumDef, EnumType, TableId};

    use super::*;

    fn enumerated(id: u32, name: &str) -> SqlType {
        let (array, schema) = (TableId(id + 1), "public".to_owned());
        let def = EnumDef { id: TableId(id), array, schema, name: name.to_owned(), labels: Vec::new() };
        SqlType::Enum(EnumType::from(def))
    }

    fn common(types: &[SqlType]) -> std::result::Result<Option<SqlType>, String> {
        matched("UNION", types).map_err(|error| format!("{} {}", error.state().code(), error.message()))
    }

    #[test]
    fn the_common_type_is_the_one_that_the_others_become() {
        use SqlType::{Date, Float4, Float8, Int2, Int4, Int8, Numeric, Oid, Text, Timestamptz, Varchar};
        for (types, expected) in [
            (vec![], None),
            (vec![Int4], Some(Int4)),
            (vec![Int4, Int8, Int2], Some(Int8)),
            (vec![Numeric(Some((3, 1))), Int8], Some(Numeric(Some((3, 1))))),
            (vec![Numeric(None), Float4], Some(Float4)),
            (vec![Float8, Float4], Some(Float8)),
            (vec![Date, Timestamptz], Some(Timestamptz)),
            // Either is converted to the other: the first.
            (vec![Varchar(Some(3)), Text], Some(Varchar(Some(3)))),
            (
                vec![SqlType::Array(Box::new(Int4)), SqlType::Array(Box::new(Int8))],
                Some(SqlType::Array(Box::new(Int8))),
            ),
            (vec![SqlType::Vector(Some(3)), SqlType::HalfVec(None)], Some(SqlType::HalfVec(None))),
            (vec![Oid, Text], None),
        ] {
            assert_eq!(common(&types), Ok(expected), "{types:?}");
        }
    }

    // Enums have a category of their own, and none of them is converted to another.
    #[test]
    fn enums_match_themselves() {
        let (mood, color) = (enumerated(20_000, "mood"), enumerated(20_010, "color"));
        assert_eq!(common(&[mood.clone(), mood.clone()]), Ok(Some(mood.clone())));
        assert_eq!(
            common(&[mood.clone(), color]),
            Err("42846 UNION could not convert type color to mood".to_owned())
        );
        assert_eq!(
            common(&[mood.clone(), SqlType::Text]),
            Err("42804 UNION types mood and text cannot be matched".to_owned())
        );
        assert_eq!(common(&[mood, SqlType::Enum(EnumType::unknown())]), Ok(None));
    }

    #[test]
    fn types_that_do_not_match_are_named() {
        use SqlType::{Bool, Date, Int4, Interval, Jsonb, Text, Time, Uuid, Varchar};
        for (types, expected) in [
            (vec![Text, Int4], "42804 UNION types text and integer cannot be matched"),
            (
                vec![Int4, Varchar(Some(3))],
                "42804 UNION types integer and character varying cannot be matched",
            ),
            (vec![Bool, Int4], "42804 UNION types boolean and integer cannot be matched"),
            (vec![Time, Interval], "42804 UNION types time without time zone and interval cannot be matched"),
            (vec![Date, Time], "42846 UNION could not convert type time without time zone to date"),
            (vec![Uuid, Jsonb], "42846 UNION could not convert type jsonb to uuid"),
            (
                vec![SqlType::Array(Box::new(Int4)), SqlType::Array(Box::new(Text))],
                "42846 UNION could not convert type text[] to integer[]",
            ),
        ] {
            assert_eq!(common(&types), Err(expected.to_owned()));
        }
    }
}
