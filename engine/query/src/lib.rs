//! SQL over one tenant's snapshot: the only crate that names DataFusion.
//!
//! Called by `database::Session`, which owns the transaction. This crate parses, plans and runs; what it wants
//! written it returns as [`sepal_storage::Op`]s. It has no socket, no key and no second tenant.
//!
//! # The journey of a query
//! 1. [`sql::parse_statements`] repairs the tokens and parses.
//! 2. [`catalog::prepare`] takes a query that reads only catalogs and answers it whole. In others
//!    [`catalog::rewrite`] makes what concerns catalogs plannable; [`sql::prepare_query`] says in DataFusion's words
//!    what Postgres means and types the parameters.
//! 3. [`planner::Engine::plan`] plans. [`vector::FastKnn::compile`] takes the plainest k-NN shape and
//!    [`planner::SingleRow::compile`] a query without a table, [`FastLookup`] and [`PointRead`] those that ask for a
//!    row by its key: their executions need no step 4.
//! 4. [`planner::Engine::physical`] optimizes with the parameters filled in; `vector::rule` puts a
//!    [`vector::TopK`] where an ORDER BY distance LIMIT k stands over a scan.
//! 5. Batches stream; [`output::conform`] casts them to the described columns.
//!
//! # The journey of a write
//! [`dml::Dml::prepare`] plans a query for the rows and their ids, [`dml::Dml::draft`] runs it, or looks the row up
//! where the WHERE clause names a key ([`PointRead`]), and once those rows are locked [`dml::Dml::write`] assigns,
//! defaults, checks NOT NULL and CHECK, and gives operations. [`ddl::plan_ddl`] does the same for definitions.
//! [`locking::LockingQuery`] is a query that locks what it reads.

pub mod budget;
pub mod catalog;
pub mod change;
mod context;
mod copy_format;
pub mod ddl;
pub mod dml;
mod error;
pub mod explain;
mod functions;
pub mod locking;
mod lookup;
pub mod output;
pub mod planner;
mod point;
pub mod sql;
mod table;
pub mod values;
pub mod vector;
mod zone;

pub use context::{
    AdvisoryCall, AdvisoryNumber, CatalogSlot, DeliveryControl, Recall, SearchSettings, SequenceSource,
    SettingSink, Shown, SnapshotSlot, StatementContext, TablesRead,
};
pub use copy_format::{CopyFormat, CopyHeader, CopyKind};
pub use error::{arrow as arrow_error, translate as datafusion_error};
pub use functions::{calls_advisory, distance_call, sequence_reference, text_search_configuration};
pub use lookup::FastLookup;
pub use point::PointRead;
pub use zone::Zone;
