//! Vectors that an index takes as `halfvec`: `CREATE INDEX … ((embedding::halfvec(n)) halfvec_cosine_ops)`.
//!
//! In PostgreSQL such an index evaluates the cast for every row, and refuses the row where the cast fails. Here the
//! index is one over the column's own vectors, and searches round what they score (`sepal_index::Vectors::Rounded`), so
//! that what cannot be rounded is looked for where rows are written and where the index is made.

use datafusion::arrow::array::{Array, ArrayRef};
use sepal_index::{Bits, Vectors};
use sepal_storage::TableVersion;
use sepal_types::{ColumnDef, Result, round_to_half};

use super::{filter::Selected, search::elements};

/// Half-way between the greatest `f16` and what would follow it: what is rounded to infinity.
const TOO_LARGE: f32 = 65_520.0;

/// Whether all vectors of an array can be rounded.
///
/// Errors: 22003 as the cast to `halfvec` gives it.
pub fn check_halves(vectors: &ArrayRef) -> Result<()> {
    check_among(vectors, None)
}

/// Whether all rows of a table can be, those that are deleted aside. Decodes the column, segment by segment.
///
/// Errors: 22003, XX001 for a column that does not open.
pub fn check_rows_as_halves(version: &TableVersion, column: &ColumnDef) -> Result<()> {
    for reference in &version.chunks {
        let live = Selected::live(reference);
        check_among(&reference.chunk.column_once(column)?, live.as_ref().map(Selected::bits))?;
    }
    Ok(())
}

fn check_among(vectors: &ArrayRef, among: Option<&Bits>) -> Result<()> {
    let (Vectors::F32(all), dim) = elements(vectors)? else { return Ok(()) };
    if all.iter().all(|element| element.abs() < TOO_LARGE) {
        return Ok(());
    }
    // Behind a NULL there may be anything.
    let counts = |row: &usize| vectors.is_valid(*row) && among.is_none_or(|rows| rows.get(*row));
    for row in (0..vectors.len()).filter(counts) {
        all[row * dim..][..dim].iter().try_for_each(|element| round_to_half(*element).map(drop))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::{
        array::{FixedSizeListArray, Float32Array},
        buffer::NullBuffer,
        datatypes::DataType,
    };
    use sepal_types::SqlType;

    use super::*;

    fn vectors(elements: Vec<f32>, valid: Vec<bool>) -> ArrayRef {
        let DataType::FixedSizeList(item, length) = sepal_storage::arrow_type(&SqlType::Vector(Some(2)))
        else {
            panic!("vectors of known dimensions are fixed-size lists");
        };
        let elements = Arc::new(Float32Array::from(elements));
        Arc::new(FixedSizeListArray::new(item, length, elements, Some(NullBuffer::from(valid))))
    }

    #[test]
    fn what_rounds_to_infinity_is_refused_where_it_counts() {
        let largest = f32::from_bits(TOO_LARGE.to_bits() - 1);
        check_halves(&vectors(vec![largest, -largest, 0.0, 1e-30], vec![true, true])).unwrap();
        let rows = vectors(vec![1.0, 2.0, 3.0, -TOO_LARGE, 70_000.0, 0.0], vec![true, true, false]);
        let error = check_halves(&rows).unwrap_err();
        assert_eq!(error.state().code(), "22003");
        assert_eq!(error.message(), "\"-65520\" is out of range for type halfvec");
        let mut live = Bits::full(3);
        live.clear(1);
        check_among(&rows, Some(&live)).unwrap();
        let sliced = rows.slice(1, 2);
        assert!(check_halves(&sliced).is_err() && check_halves(&rows.slice(2, 1)).is_ok());
    }
}
