//! Tables as DataFusion sees them: a tenant's own (`UserTable`), the catalog's (`CatalogTable`), and sequences.
//!
//! Neither takes DML: `dml` plans it as a query for row ids, then writes. DataFusion's own DML can reach a
//! provider without its filters (apache/datafusion#24654), so both refuse it.

mod catalog_table;
mod hold;
mod reading;
mod scan;
mod sequence_table;
mod user_table;

pub use catalog_table::CatalogTable;
pub use hold::prepare as prepare_to_hold;
pub(crate) use scan::TableScan;
pub use sequence_table::SequenceTable;
pub use user_table::{ROW_ID, RowFilter, ShownRows, UserTable, as_user_table};
