//! The engine as its callers see it: what survives a crash, and who may do what when.

mod activity;
mod budgets;
mod by_key;
mod constraints;
mod cursors;
mod dropping;
mod enums;
mod flips;
mod indexes;
mod inserts;
mod maintenance;
mod opening;
mod rewriting;
mod rotation;
mod schemas;
mod scopes;
mod sequences;
mod sleeping;
mod snapshots;
mod sparse_vectors;
mod statements;
mod time_travel;
mod transactions;
mod write_memory;
