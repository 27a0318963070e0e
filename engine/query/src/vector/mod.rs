//! k nearest neighbours: how a search over a table's chunks is planned and run.
//!
//! `rule` recognises `ORDER BY distance LIMIT k` and puts a [`TopK`] where the scan was; `knn()` plans one
//! directly; `lateral` searches for each row of another table; `fast` runs the plainest shape without a DataFusion
//! plan. All end in [`search`], which asks each chunk's index, or scans the chunk exactly where there is none, and
//! merges.
//!
//! An approximate index never changes which rows qualify (docs/architecture.md, invariant 9): filters,
//! deletions and snapshots are applied before a row may compete, and LIMIT is filled whenever enough rows
//! qualify.

mod cache;
mod exec;
mod fast;
mod fetch;
mod filter;
mod lateral;
mod node;
mod recall;
mod rule;
mod search;
mod unranked;

use std::sync::Arc;

use datafusion::{
    arrow::array::{FixedSizeListArray, Float32Array},
    arrow::datatypes::DataType,
    common::ScalarValue,
};
use sepal_storage::arrow_type;
use sepal_types::SqlType;

pub use cache::{IndexCache, IndexMemory};
pub use exec::{KnnExec, TopKPlanner};
pub use fast::FastKnn;
pub use fetch::{distances, fetch};
pub use lateral::{LateralExec, LateralPlanner, LateralRule};
pub use node::{Runtime, TopK};
pub use recall::Measurement;
pub use rule::TopKRule;
pub use search::{Hit, Search, Searched, elements, search, usable_index};

/// A vector as a constant of DataFusion.
pub fn vector_scalar(values: &[f32]) -> ScalarValue {
    let dimensions = u16::try_from(values.len()).ok();
    match arrow_type(&SqlType::Vector(dimensions)) {
        DataType::FixedSizeList(item, length) => {
            let values = Arc::new(Float32Array::from(values.to_vec()));
            ScalarValue::FixedSizeList(Arc::new(FixedSizeListArray::new(item, length, values, None)))
        }
        _ => ScalarValue::Null,
    }
}
