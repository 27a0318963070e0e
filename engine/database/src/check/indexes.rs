//! Judges a vector index's bytes for storage, which does not understand them.

use arrow::array::{Array, ArrayRef};
use sepal_index::{Bits, BuildParams};
use sepal_storage::BlobChecker;
use sepal_types::{IndexDef, IndexMethod, TableDef};

/// Opens an index, and asks whether it belongs to its column.
pub struct Indexes;

impl BlobChecker for Indexes {
    fn check(&self, _: &TableDef, index: &IndexDef, column: &ArrayRef, bytes: &[u8]) -> Result<(), String> {
        let IndexMethod::Vector(options) = &index.method else { return Ok(()) };
        let opened = sepal_index::open(bytes).map_err(|error| error.to_string())?;
        let (vectors, dim) = sepal_query::vector::elements(column).map_err(|error| error.to_string())?;
        let vectors = vectors.widened();
        let valid = present(column);
        let rows = BuildParams {
            metric: options.metric(),
            dim,
            vectors: &vectors,
            valid: valid.as_ref(),
            threads: 1,
            progress: &|_, _| {},
            cancelled: &|| false,
        };
        sepal_index::verify(&*opened, &rows).map_err(|error| error.to_string())
    }
}

/// The rows that are not NULL; `None` when all are.
pub fn present(column: &ArrayRef) -> Option<Bits> {
    (column.null_count() > 0).then(|| {
        let mut bits = Bits::full(column.len());
        for position in (0..column.len()).filter(|position| column.is_null(*position)) {
            bits.clear(position);
        }
        bits
    })
}
