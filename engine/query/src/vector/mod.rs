//! k nearest neighbours: how a search over a table's chunks is planned and run.
//!
//! `rule` recognises `ORDER BY distance LIMIT k` and puts a [`TopK`] where the scan was; `knn()` plans one
//! directly; `lateral` searches for each row of another table; `fast` runs the plainest shape without a DataFusion
//! plan. All end in [`search`], which asks each chunk's index, or scans the chunk exactly where there is none, and
//! merges. Of segments that are too much for memory `picked` has only those rows read that are scored. Bit strings,
//! and the signs of vectors, are searched by `bits`; `halves` are vectors that an index takes as `halfvec`.
//!
//! An approximate index never changes which rows qualify (docs/architecture.md, invariant 9): filters,
//! deletions and snapshots are applied before a row may compete, and LIMIT is filled whenever enough rows
//! qualify.

mod bits;
mod cache;
mod compared;
mod exec;
mod fast;
mod fetch;
mod filter;
mod halves;
mod lateral;
mod node;
mod picked;
mod recall;
mod rule;
mod search;
mod unranked;

use std::sync::Arc;

use datafusion::{
    arrow::array::{Array, ArrayRef, FixedSizeListArray, Float16Array, Float32Array},
    arrow::datatypes::DataType,
    common::ScalarValue,
};
use half::f16;
use sepal_storage::arrow_type;
use sepal_types::{Result, VectorKind, parse_elements, parse_vector};

pub use cache::{ChunkIndex, IndexCache, IndexMemory};
pub use exec::{KnnExec, TopKPlanner};
pub use fast::FastKnn;
pub use fetch::{distances, fetch};
pub use halves::{check_halves, check_rows_as_halves};
pub use lateral::{LateralExec, LateralJoin, LateralPlanner, LateralRule, filtered, outer_as_columns};
pub use node::{Runtime, TopK};
pub use recall::Measurement;
pub use rule::{TopKRule, columns_of, substitute};
pub use search::{Hit, Search, Searched, elements, search, usable_index};

/// A vector in its text form as a constant of DataFusion.
///
/// Errors: those of the kind's input function.
pub fn vector_scalar(text: &str, kind: VectorKind) -> Result<ScalarValue> {
    let elements: ArrayRef = match kind {
        VectorKind::Half => Arc::new(Float16Array::from(parse_elements::<f16>(text)?)),
        VectorKind::Single => Arc::new(Float32Array::from(parse_vector(text)?)),
    };
    let dimensions = u16::try_from(elements.len()).ok();
    Ok(match arrow_type(&kind.sql_type(dimensions)) {
        DataType::FixedSizeList(item, length) => {
            ScalarValue::FixedSizeList(Arc::new(FixedSizeListArray::new(item, length, elements, None)))
        }
        _ => ScalarValue::Null,
    })
}
