//! SQL functions that DataFusion lacks or does differently: distances, arithmetic over numbers, dates and
//! vectors, `jsonb`, casts, arrays, patterns, full-text search, aggregates, sequences, session functions.
//!
//! Registered by `planner` for every statement. The catalog's functions (`format_type`, …) live in `catalog`.

mod advisory;
mod aggregate;
mod argument;
mod arithmetic;
mod array_sets;
mod array_text;
mod arrays;
mod bit;
mod cast;
mod clock;
mod comparison;
mod concat;
mod constants;
mod datetime;
mod digest;
mod distance;
mod encoding;
mod enums;
mod extract;
mod extremes;
mod format;
mod jsonb;
mod lists;
mod moving;
mod numbers;
mod numeric;
mod only_row;
mod overloads;
mod patterns;
mod percentile;
mod quantified;
mod sequence;
mod session;
mod spans;
mod sparse;
mod string_agg;
mod template;
mod text_search;
mod truncate;
mod undefined;
mod vector;
mod vector_aggregate;
mod vector_array;
mod vector_cast;
mod zoned;
mod zones;

use std::sync::Arc;

use datafusion::logical_expr::ScalarUDF;

pub use advisory::{advisory_functions, calls_advisory};
pub use aggregate::number_aggregates;
pub use arithmetic::{Arithmetic, arithmetic_call};
pub use array_sets::{array_contains, array_overlaps};
pub use bit::{assign_bits, bit_distance, bit_metric_of_function, bits_beside, is_bit_distance};
pub use cast::{cannot_cast, cast_function, convert};
pub use comparison::{Compared, comparison};
pub use concat::as_text;
pub use constants::{all_constant, answer};
pub use datetime::{DateTimeOperation, datetime_call, interval_span};
pub use distance::elements as vector_elements;
pub use distance::{distance_call, metric_of_function};
pub use enums::{enum_call, enum_label_call, enum_of_call};
pub use extract::extract_call;
pub use jsonb::{RowsFunction, add_json_aggregates, json_call, json_rows, plan_json_aggregate};
pub use lists::{FILLED, ordinals, series};
pub use only_row::only_row;
pub use quantified::{ANY_EQUAL, quantified};
pub use sequence::{sequence_functions, sequence_reference};
pub use session::session_functions;
pub use sparse::sparse_array_call;
pub use string_agg::add_string_agg;
pub use template::fill as fill_template;
pub use text_search::{
    text_search_call, text_search_configuration, text_search_configurations, text_search_result,
};
pub use undefined::undefined;
pub use vector_aggregate::add_vector_aggregates;
pub use vector_array::vector_array_call;
pub use vector_cast::{fix_dimensions, operand};
pub use zoned::{plus_interval, within};

/// The functions that need no session.
pub fn scalar_functions() -> Vec<Arc<ScalarUDF>> {
    let mut functions = distance::functions();
    functions.extend(vector::functions());
    functions.extend(vector_array::functions());
    functions.extend(bit::functions());
    functions.extend(comparison::functions());
    functions.extend(arithmetic::functions());
    functions.extend(extract::functions());
    functions.extend(cast::functions());
    functions.extend(clock::functions());
    functions.extend(jsonb::functions());
    functions.extend(lists::functions());
    functions.extend(arrays::functions());
    functions.extend(array_text::functions());
    functions.extend(concat::functions());
    functions.extend(digest::functions());
    functions.extend(encoding::functions());
    functions.extend(format::functions());
    functions.extend(numbers::functions());
    functions.extend(patterns::functions());
    functions.extend(spans::functions());
    functions.extend(template::functions());
    functions.extend(text_search::functions());
    functions.extend(truncate::functions());
    functions.extend(sparse::functions());
    functions.extend(zones::functions());
    functions.extend(enums::functions());
    functions
}
