//! SQL functions that DataFusion lacks or does differently: distances, vector arithmetic and aggregates, `jsonb`,
//! casts, sequences, session functions.
//!
//! Registered by `planner` for every statement. The catalog's functions (`format_type`, …) live in `catalog`.

mod cast;
mod distance;
mod jsonb;
mod sequence;
mod session;
mod vector;
mod vector_aggregate;
mod vector_array;

use std::sync::Arc;

use datafusion::logical_expr::ScalarUDF;

pub use cast::{convert, fix_dimensions, to_vector_array};
pub use distance::elements as vector_elements;
pub use distance::{distance_call, metric_of_function};
pub use jsonb::json_call;
pub use sequence::sequence_functions;
pub use session::session_functions;
pub use vector_aggregate::add_vector_aggregates;
pub use vector_array::vector_array_call;

/// The functions that need no session.
pub fn scalar_functions() -> Vec<Arc<ScalarUDF>> {
    let mut functions = distance::functions();
    functions.extend(vector::functions());
    functions.extend(vector_array::functions());
    functions.extend(cast::functions());
    functions.extend(jsonb::functions());
    functions
}
