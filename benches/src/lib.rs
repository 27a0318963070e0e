//! What the benchmarks share: a client that costs next to nothing, a load made of such clients, a destination that
//! costs next to nothing.
//!
//! Used by `wire_load`, `index_load`, `pipeline_load` and `micro`. Links nothing of the product: it speaks to PostgreSQL
//! as well.

pub mod connection;
pub mod flags;
pub mod load;
pub mod receiver;

pub type Failure = Box<dyn std::error::Error + Send + Sync>;
