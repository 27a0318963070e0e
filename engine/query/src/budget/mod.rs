//! What queries may hold: in memory per tenant and in the process ([`memory`]), and on disk per tenant ([`spill`]).
//!
//! `planner::Engine` gives both to DataFusion. Who gets how much is decided here; what an operator does when it gets
//! nothing more is DataFusion's: sorts, aggregates, sort-merge joins, nested loops and repartitioning put rows aside on
//! disk and go on; the build side of a hash join, windows and DISTINCT aggregates do not, and answer 53200.

mod memory;
mod spill;

pub use memory::{KeptMemory, QueryMemory, TenantMemory};
pub(crate) use spill::SealedFiles;
