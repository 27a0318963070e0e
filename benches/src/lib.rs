//! What the benchmarks share: a client that costs next to nothing.
//!
//! Used by `wire_load` and by `micro/wire.rs`. Links nothing of the product: it speaks to PostgreSQL as well.

pub mod connection;

pub type Failure = Box<dyn std::error::Error + Send + Sync>;
