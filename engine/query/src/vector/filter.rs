//! Which rows of a chunk pass a WHERE clause: one bit a row.
//!
//! Both ways of searching, planned (`exec`) and fast (`fast`), ask here before a row may compete. Reads only the
//! columns that the predicate names.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, BooleanArray, NullArray, RecordBatch, RecordBatchOptions},
        datatypes::{DataType, Field, Schema, SchemaRef},
    },
    physical_expr::{PhysicalExpr, utils::collect_columns},
};
use sepal_index::Bits;
use sepal_storage::{ChunkRef, TableVersion};
use sepal_types::Result;

use crate::error::{arrow, translate};

/// A predicate over the rows of one table.
#[derive(Debug)]
pub struct Filter {
    predicate: Arc<dyn PhysicalExpr>,
    /// What the predicate is evaluated on: the table's columns in order, those it does not read as NULLs.
    schema: SchemaRef,
    /// Whether the predicate reads the column at this position.
    reads: Vec<bool>,
}

impl Filter {
    /// The predicate's columns count in `table`, which has all columns of the table in order.
    pub fn new(predicate: Arc<dyn PhysicalExpr>, table: &Schema) -> Self {
        let mut reads = vec![false; table.fields().len()];
        for column in collect_columns(&predicate) {
            if let Some(read) = reads.get_mut(column.index()) {
                *read = true;
            }
        }
        let fields: Vec<Field> = table
            .fields()
            .iter()
            .zip(&reads)
            .map(|(field, read)| match read {
                true => field.as_ref().clone(),
                false => Field::new(field.name(), DataType::Null, true),
            })
            .collect();
        Self { predicate, schema: Arc::new(Schema::new(fields)), reads }
    }

    pub fn predicate(&self) -> &Arc<dyn PhysicalExpr> {
        &self.predicate
    }

    /// The rows that pass; a NULL does not.
    ///
    /// Errors: the predicate's own, such as 22012, and those of reading the columns.
    pub fn passing(&self, version: &TableVersion, reference: &ChunkRef) -> Result<Bits> {
        let rows = reference.chunk.rows() as usize;
        let arrays: Vec<ArrayRef> = self
            .reads
            .iter()
            .zip(&version.def.columns)
            .map(|(read, column)| match read {
                true => reference.chunk.column(column).map_err(Into::into),
                false => Ok(Arc::new(NullArray::new(rows)) as ArrayRef),
            })
            .collect::<Result<_>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch =
            RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options).map_err(arrow)?;
        let passes =
            self.predicate.evaluate(&batch).and_then(|value| value.into_array(rows)).map_err(translate)?;
        Ok(bits(passes.as_boolean()))
    }
}

/// The rows that are true; NULL is not.
pub(super) fn bits(passes: &BooleanArray) -> Bits {
    let set = match passes.nulls() {
        Some(valid) => passes.values() & valid.inner(),
        None => passes.values().clone(),
    };
    let words: Vec<u64> = set.bit_chunks().iter_padded().take(set.len().div_ceil(64)).collect();
    Bits::from_words(words, set.len()).unwrap_or_else(|| {
        let mut bits = Bits::new(set.len());
        set.set_indices().for_each(|position| bits.set(position));
        bits
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_the_true_and_valid_rows() {
        for rows in [0_usize, 1, 63, 64, 65, 130] {
            let values: BooleanArray = (0..rows)
                .map(|row| match row % 3 {
                    0 => Some(true),
                    1 => Some(false),
                    _ => None,
                })
                .collect();
            for start in [0, rows.min(5)] {
                let sliced = values.slice(start, rows - start);
                let expected: Vec<usize> =
                    (start..rows).filter(|row| row % 3 == 0).map(|row| row - start).collect();
                let found = bits(&sliced);
                assert_eq!(found.len(), rows - start);
                assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{rows} rows from {start}");
            }
        }
    }
}
