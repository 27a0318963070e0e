//! The engine as its callers see it: what survives a crash, and who may do what when.

mod budgets;
mod flips;
mod indexes;
mod opening;
mod rotation;
mod scopes;
mod sequences;
mod sleeping;
mod transactions;
mod write_memory;
