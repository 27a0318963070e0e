//! The vocabulary of Sepal: ids, SQL types, table definitions, errors, limits,
//! the clock and the calendar.
//!
//! Every other crate speaks these words. Nothing here does I/O, is async, or knows a cipher, and nothing
//! here imports another crate of ours, nor Arrow. What the kernel is told of large memory is here too, because two
//! crates say it.

mod bit;
mod calendar;
mod clock;
mod constraint;
mod definition;
mod enum_type;
mod error;
mod float;
mod ids;
mod large_memory;
pub mod limits;
mod metric;
mod name;
mod schema;
mod sequence;
mod sparse;
mod sqltype;
mod vector;

pub use bit::BitString;
pub use calendar::{civil_from_days, days_from_civil, days_in_month};
pub use clock::{Clock, SystemClock};
pub use constraint::{CheckDef, Constraints, ForeignKeyDef, ReferenceAction};
pub use definition::{
    ColumnDef, Generated, IndexClauses, IndexDef, IndexKey, IndexMethod, KeySource, TableDef, UniqueDef,
    VectorIndexOptions,
};
pub use enum_type::{EnumDef, EnumLabel, EnumType, Neighbour, duplicate_label};
pub use error::{Error, ErrorKind, Result, SqlState, Violated};
pub use float::{format_float4, format_float8};
pub use ids::{ColumnId, FileId, LogEnd, Lsn, RowId, TableId, TenantId};
pub use large_memory::{HUGE_PAGE_BYTES, advise_large};
pub use metric::{BitMetric, Measure, Metric};
pub use name::{PUBLIC_SCHEMA, RelationName, RelationRef, SearchPath};
pub use sequence::SequenceDef;
pub use sparse::{SparseVector, SparseWords};
pub use sqltype::SqlType;
pub use vector::{
    VectorElement, VectorKind, check_finite, format_vector, parse_elements, parse_vector, round_to_half,
};
