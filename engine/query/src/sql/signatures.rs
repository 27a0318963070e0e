//! What functions take and give, as far as the types of parameters and literals hang on it.
//!
//! Called by `hints`, before anything is planned.

use sepal_types::SqlType;

use crate::functions::{RowsFunction, json_rows};

/// Numbers in the order in which they are cast to one another.
pub(super) const fn rank(ty: &SqlType) -> Option<u8> {
    Some(match ty {
        SqlType::Int2 => 0,
        SqlType::Int4 => 1,
        SqlType::Int8 => 2,
        SqlType::Numeric(_) => 3,
        SqlType::Float4 => 4,
        SqlType::Float8 => 5,
        _ => return None,
    })
}

/// What says a time, in the order in which these are cast to one another.
pub(crate) const fn time_rank(ty: &SqlType) -> Option<u8> {
    Some(match ty {
        SqlType::Date => 0,
        SqlType::Timestamp => 1,
        SqlType::Timestamptz => 2,
        _ => return None,
    })
}

/// What two types have in common: of numbers, and of times, the one that the other is cast to.
pub(crate) fn common_type(left: SqlType, right: SqlType) -> SqlType {
    let later = |of: fn(&SqlType) -> Option<u8>| match (of(&left), of(&right)) {
        (Some(first), Some(second)) => second > first,
        _ => false,
    };
    if later(rank) || later(time_rank) { right } else { left }
}

/// Functions whose arguments have one type, which is also the result's.
pub(super) fn takes_one_type(name: &str) -> bool {
    matches!(name, "array_cat" | "coalesce" | "greatest" | "least" | "mod" | "nullif" | "generate_series")
}

/// Those of them that give one of their arguments, or arrays.
pub(super) fn chooses(name: &str) -> bool {
    takes_one_type(name) && !matches!(name, "generate_series" | "mod")
}

/// What the common functions of text give.
pub(super) fn result(name: &str) -> Option<SqlType> {
    Some(match name {
        "ascii" | "char_length" | "character_length" | "length" | "octet_length" | "strpos" => SqlType::Int4,
        "btrim" | "concat" | "concat_ws" | "initcap" | "left" | "lower" | "lpad" | "ltrim" | "md5"
        | "repeat" | "replace" | "reverse" | "right" | "rpad" | "rtrim" | "split_part" | "substr"
        | "substring" | "to_char" | "translate" | "upper" => SqlType::Text,
        "format" | "regexp_replace" | "regexp_substr" => SqlType::Text,
        "age" => SqlType::Interval,
        _ => return None,
    })
}

/// The types that a function wants, in order; fewer than it has arguments where there is no telling.
pub(super) fn wanted(name: &str, arguments: usize) -> Vec<SqlType> {
    use SqlType::{Bit, Bytea, Float8, HalfVec, Int4, Int8, Interval, Numeric, Text, Timestamptz, Vector};
    match name {
        name if name.starts_with("pg_advisory_") || name.starts_with("pg_try_advisory_") => {
            if arguments == 2 { vec![Int4, Int4] } else { vec![Int8] }
        }
        name if json_rows(name).is_some() => {
            let jsonb = json_rows(name).is_some_and(RowsFunction::takes_jsonb);
            vec![if jsonb { SqlType::Jsonb } else { SqlType::Json }]
        }
        "round" | "trunc" if arguments == 2 => vec![Numeric(None), Int4],
        "abs" | "acos" | "asin" | "atan" | "cbrt" | "ceil" | "ceiling" | "cos" | "degrees" | "exp"
        | "floor" | "ln" | "log" | "radians" | "round" | "sign" | "sin" | "sqrt" | "tan" | "trunc" => {
            vec![Float8]
        }
        "atan2" | "pow" | "power" => vec![Float8, Float8],
        "chr" | "to_hex" => vec![Int4],
        "left" | "repeat" | "right" => vec![Text, Int4],
        "sepal_as_of" => vec![Text, Timestamptz],
        "sepal_as_of_snapshot" => vec![Text, Text],
        "lpad" | "rpad" => vec![Text, Int4, Text],
        "split_part" => vec![Text, Text, Int4],
        "substr" | "substring" => vec![Text, Int4, Int4],
        "date_trunc" => vec![Text, Timestamptz, Text],
        "cosine_distance" | "inner_product" | "l1_distance" | "l2_distance" => {
            vec![Vector(None), Vector(None)]
        }
        "age" => vec![Timestamptz; arguments],
        "sha224" | "sha256" | "sha384" | "sha512" => vec![Bytea],
        "get_byte" => vec![Bytea, Int4],
        "justify_days" | "justify_hours" | "justify_interval" => vec![Interval],
        "phraseto_tsquery" | "plainto_tsquery" | "to_tsquery" | "to_tsvector" | "websearch_to_tsquery" => {
            vec![Text; arguments]
        }
        "querytree" | "numnode" | "tsquery_not" | "tsquery_phrase" => {
            vec![SqlType::TsQuery, SqlType::TsQuery, Int4]
        }
        "setweight" => vec![SqlType::TsVector, Text],
        "strip" | "ts_delete" => vec![SqlType::TsVector],
        "ts_rank" | "ts_rank_cd" if arguments == 2 => vec![SqlType::TsVector, SqlType::TsQuery],
        "jsonb_path_exists" | "jsonb_path_match" | "jsonb_path_query_array" | "jsonb_path_query_first" => {
            vec![SqlType::Jsonb, Text, SqlType::Jsonb, SqlType::Bool]
        }
        "hamming_distance" | "jaccard_distance" => vec![Bit(None), Bit(None)],
        name if name.starts_with("sparsevec_") => vec![SqlType::SparseVec(None); arguments],
        "l2_norm" => vec![HalfVec(None)],
        "binary_quantize" | "l2_normalize" | "vector_dims" | "vector_norm" => vec![Vector(None)],
        "subvector" => vec![Vector(None), Int4, Int4],
        "ascii" | "btrim" | "char_length" | "character_length" | "initcap" | "length" | "lower" | "ltrim"
        | "md5" | "octet_length" | "replace" | "reverse" | "rtrim" | "starts_with" | "strpos"
        | "translate" | "upper" => vec![Text; arguments],
        _ => Vec::new(),
    }
}
