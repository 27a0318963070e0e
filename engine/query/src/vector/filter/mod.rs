//! Which rows of a chunk pass a WHERE clause: one bit a row.
//!
//! All ways of searching, planned (`exec`), fast (`fast`) and lateral (`lateral`), ask here before a row may compete.
//! A memory chunk's rows are evaluated. Of a sealed segment, which never changes:
//! 1. What is known of the same predicate is taken ([`bitmaps`], which knows it by its [`identity`]).
//! 2. What the predicate asks of single columns that are indexed ([`conditions`]) is looked up in their [`labels`], and
//!    the rest of it is evaluated for the rows that are left, if these are few.
//! 3. Else the predicate is evaluated over all rows. Reads only the columns that it names.
//!
//! Deletions are not looked at here: they belong to a snapshot ([`Selected`]). Which vectors are NULL is asked by
//! itself ([`valued`]).

mod bitmaps;
mod conditions;
mod identity;
mod labels;
mod selected;

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{ArrayRef, AsArray, NullArray, RecordBatch, RecordBatchOptions, UInt32Array},
        compute::{filter_record_batch, take},
        datatypes::{DataType, Field, Schema, SchemaRef, UInt32Type},
    },
    physical_expr::{PhysicalExpr, split_conjunction, utils::collect_columns},
};
use sepal_index::Bits;
use sepal_storage::{Chunk, ChunkRef, TableVersion, arrow_type};
use sepal_types::{ColumnDef, Error, FileId, IndexMethod, Result, TableDef};

use self::{
    bitmaps::{LentLabels, TableColumn},
    conditions::Condition,
    identity::{ColumnName, Identity, Named},
    labels::{Labels, LabelsOf},
};
use crate::error::{arrow, translate};

pub use bitmaps::{FilterCache, FilterMemory};
pub use selected::Selected;

/// Rows that came from labels are not kept where they were made by touching at most this part of the segment's.
const CHEAP_PART: usize = 16;
/// What labels cannot tell is evaluated for the rows that they leave, if these are at most this part.
const FEW_PART: usize = 8;

/// A predicate over the rows of one table.
#[derive(Debug)]
pub struct Filter {
    predicate: Arc<dyn PhysicalExpr>,
    /// What the predicate is evaluated on: the table's columns in order, those it does not read as NULLs.
    schema: SchemaRef,
    /// Whether the predicate reads the column at this position.
    reads: Vec<bool>,
    /// `None` for a predicate whose answer may be another one another time.
    identity: Option<Arc<Identity>>,
    /// What must be true, all of it.
    conjuncts: Vec<Conjunct>,
}

/// A part of the predicate.
#[derive(Debug)]
struct Conjunct {
    /// Several where they are bounds of one column.
    exprs: Vec<Arc<dyn PhysicalExpr>>,
    /// What they ask of single columns, if that is all they do.
    condition: Option<Condition>,
}

impl Conjunct {
    /// Takes in another bound of the same column; whether it is one.
    fn narrow(&mut self, expr: &Arc<dyn PhysicalExpr>, condition: Option<&Condition>) -> bool {
        let (Some(own), Some(other)) = (&mut self.condition, condition) else {
            return false;
        };
        let narrower = own.narrow(other);
        if narrower {
            self.exprs.push(Arc::clone(expr));
        }
        narrower
    }
}

/// A sealed chunk of a table as it is defined now.
#[derive(Clone, Copy)]
struct Segment<'a> {
    version: &'a TableVersion,
    reference: &'a ChunkRef,
    file: FileId,
}

/// Why it is not known which rows pass.
#[derive(Debug)]
enum Failure {
    /// The predicate has no value for some row.
    Evaluating(Error),
    /// Of a file, or our own: no other rows would do better.
    Other(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Evaluating(error) | Failure::Other(error) => error,
        }
    }
}

type Attempt<T> = std::result::Result<T, Failure>;

impl Filter {
    /// The predicate's columns count in `table`, which has all columns of the table in order.
    pub fn new(predicate: Arc<dyn PhysicalExpr>, table: &Schema) -> Self {
        let reads = columns_read(table.fields().len(), [&predicate]);
        let identity = Identity::of(&predicate, table).map(Arc::new);
        let mut conjuncts: Vec<Conjunct> = Vec::new();
        for expr in split_conjunction(&predicate) {
            let condition = Condition::read(expr.as_ref(), table);
            let is_narrower = conjuncts.iter_mut().any(|before| before.narrow(expr, condition.as_ref()));
            if !is_narrower {
                conjuncts.push(Conjunct { exprs: vec![Arc::clone(expr)], condition });
            }
        }
        Self { schema: Arc::new(masked(table, &reads)), predicate, reads, identity, conjuncts }
    }

    pub fn predicate(&self) -> &Arc<dyn PhysicalExpr> {
        &self.predicate
    }

    /// The rows that pass, perhaps deleted ones among them; a NULL does not.
    ///
    /// Errors: the predicate's own, such as 22012, and those of reading the columns.
    pub fn passing(
        &self,
        version: &TableVersion,
        reference: &ChunkRef,
        cache: &FilterCache,
    ) -> Result<Selected> {
        let passing = match self.of_all(version, reference, cache) {
            // A deleted row may fail what a live one does not, and so may one that an earlier part excludes.
            Err(Failure::Evaluating(_)) => self.of_live(version, reference),
            of_all => of_all,
        };
        passing.map_err(Error::from)
    }

    /// The same of the rows that are not deleted, part after part, each for what those before it have left.
    fn of_live(&self, version: &TableVersion, reference: &ChunkRef) -> Attempt<Selected> {
        let live = Selected::live(reference);
        let live = live.unwrap_or_else(|| Selected::of(Bits::full(reference.chunk.rows() as usize)));
        let parts: Vec<_> = self.conjuncts.iter().flat_map(|part| &part.exprs).collect();
        self.narrow(version, reference, &live, &parts)
    }

    /// Of a segment this can be kept: it depends on no snapshot.
    fn of_all(&self, version: &TableVersion, reference: &ChunkRef, cache: &FilterCache) -> Attempt<Selected> {
        let (Some(file), Some(identity)) = (reference.chunk.segment(), &self.identity) else {
            return self.evaluate(version, reference);
        };
        let name = Named::new(identity, version, &self.reads);
        let key = cache.key(file, &name);
        if let Some(known) = cache.rows(&key, &name) {
            return Ok(known);
        }
        let (rows, is_cheap) = match self.by_labels(Segment { version, reference, file }, cache)? {
            Some(found) => found,
            None => (self.evaluate(version, reference)?, false),
        };
        if !is_cheap {
            cache.offer(key, name, &rows);
        }
        Ok(rows)
    }

    /// The same, by asking each row.
    fn evaluate(&self, version: &TableVersion, reference: &ChunkRef) -> Attempt<Selected> {
        let rows = reference.chunk.rows() as usize;
        let columns = self.reads.iter().zip(&version.def.columns);
        let arrays = columns.map(|(read, column)| match read {
            true => reference.chunk.column(column).map_err(Into::into),
            false => Ok(nothing(rows)),
        });
        let batch = batch(Arc::clone(&self.schema), arrays.collect::<Result<_>>()?, rows)?;
        is_true(&self.predicate, &batch).map(|passes| Selected::passing(passes.as_boolean()))
    }

    /// The same, from labels, and whether that was cheap. `None` where there are none that help.
    fn by_labels(&self, segment: Segment, cache: &FilterCache) -> Attempt<Option<(Selected, bool)>> {
        let mut lent: Vec<(usize, LentLabels)> = Vec::new();
        let mut told: Vec<&Condition> = Vec::new();
        let mut rest: Vec<&Arc<dyn PhysicalExpr>> = Vec::new();
        for conjunct in &self.conjuncts {
            match &conjunct.condition {
                Some(condition) if self.borrow_labels(condition, segment, cache, &mut lent)? => {
                    told.push(condition);
                }
                _ => rest.extend(&conjunct.exprs),
            }
        }
        let labels = |column: usize| lent.iter().find(|(of, _)| *of == column).map(|(_, labels)| &**labels);
        let labels: &LabelsOf<'_> = &labels;
        let estimate = told.iter().map(|condition| condition.estimate(labels)).min().flatten();
        let rows = segment.reference.chunk.rows() as usize;
        let is_few = |found: usize| found.saturating_mul(FEW_PART) <= rows;
        if estimate.is_none_or(|found| !rest.is_empty() && !is_few(found)) {
            return Ok(None);
        }
        let mut found: Option<(Selected, usize)> = None;
        for condition in told {
            let Some((rows, touched)) = condition.rows(labels) else { return Ok(None) };
            found = Some(match found {
                None => (rows, touched),
                Some((before, all)) => (before.and(&rows), all + touched),
            });
        }
        let Some((mut found, mut touched)) = found else { return Ok(None) };
        if !rest.is_empty() && found.count() > 0 {
            touched += found.count() * rest.len();
            found = self.narrow(segment.version, segment.reference, &found, &rest)?;
        }
        Ok(Some((found, touched.saturating_mul(CHEAP_PART) <= rows)))
    }

    /// Gets the labels of all columns of a condition; whether there are such.
    fn borrow_labels(
        &self,
        condition: &Condition,
        segment: Segment,
        cache: &FilterCache,
        lent: &mut Vec<(usize, LentLabels)>,
    ) -> Result<bool> {
        let mut columns = Vec::new();
        condition.each_column(&mut |column| columns.push(column));
        for position in columns {
            if lent.iter().any(|(known, _)| *known == position) {
                continue;
            }
            let def = &segment.version.def;
            let Some(column) = def.columns.get(position).filter(|column| is_indexed(def, column)) else {
                return Ok(false);
            };
            if *self.schema.field(position).data_type() != arrow_type(&column.ty) {
                return Ok(false);
            }
            let name = TableColumn { table: def.id, column: ColumnName::of(column) };
            let make = |most_bytes| Labels::build(&segment.reference.chunk.column(column)?, most_bytes);
            match cache.labels(segment.file, name, make)? {
                Some(labels) => lent.push((position, labels)),
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Of the rows those for which the rest of the predicate is true, too: in its order, each part for what the others
    /// before it have left.
    fn narrow(
        &self,
        version: &TableVersion,
        reference: &ChunkRef,
        rows: &Selected,
        rest: &[&Arc<dyn PhysicalExpr>],
    ) -> Attempt<Selected> {
        let positions: UInt32Array = rows.bits().iter().map(|position| position as u32).collect();
        let reads = columns_read(self.reads.len(), rest.iter().copied());
        let mut fields = masked(&self.schema, &reads).fields().to_vec();
        let columns = reads.iter().zip(&version.def.columns);
        let mut arrays = columns
            .map(|(read, column)| match read {
                true => take(&reference.chunk.column(column)?, &positions, None).map_err(arrow),
                false => Ok(nothing(positions.len())),
            })
            .collect::<Result<Vec<ArrayRef>>>()?;
        // The positions go along.
        let own = fields.len();
        fields.push(Arc::new(Field::new("position", DataType::UInt32, false)));
        let len = positions.len();
        arrays.push(Arc::new(positions));
        let mut left = batch(Arc::new(Schema::new(fields)), arrays, len)?;
        for expr in rest {
            let passes = is_true(expr, &left)?;
            left = filter_record_batch(&left, passes.as_boolean()).map_err(arrow)?;
        }
        let positions = left.column(own).as_primitive::<UInt32Type>().values();
        Ok(Selected::at(positions, rows.bits().len()))
    }
}

/// The rows of a table's chunk that have a value in one of its columns, `array`; `None` when all have. Of a segment,
/// which never changes, this is kept.
pub fn valued(
    table: &TableDef,
    chunk: &Chunk,
    (column, array): (&ColumnDef, &ArrayRef),
    cache: &FilterCache,
) -> Option<Selected> {
    match chunk.segment() {
        Some(file) => {
            let name = TableColumn { table: table.id, column: ColumnName::of(column) };
            cache.valued(file, name, array)
        }
        None => Selected::valued(array),
    }
}

/// Which of a table's columns are read.
fn columns_read<'a>(columns: usize, exprs: impl IntoIterator<Item = &'a Arc<dyn PhysicalExpr>>) -> Vec<bool> {
    let mut reads = vec![false; columns];
    for column in exprs.into_iter().flat_map(collect_columns) {
        if let Some(read) = reads.get_mut(column.index()) {
            *read = true;
        }
    }
    reads
}

/// The fields in order, those that are not read as NULLs.
fn masked(table: &Schema, reads: &[bool]) -> Schema {
    let fields: Vec<Field> = table
        .fields()
        .iter()
        .zip(reads)
        .map(|(field, read)| match read {
            true => field.as_ref().clone(),
            false => Field::new(field.name(), DataType::Null, true),
        })
        .collect();
    Schema::new(fields)
}

fn nothing(rows: usize) -> ArrayRef {
    Arc::new(NullArray::new(rows))
}

fn batch(schema: SchemaRef, arrays: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema, arrays, &options).map_err(arrow)
}

/// A predicate's value for each row.
fn is_true(predicate: &Arc<dyn PhysicalExpr>, batch: &RecordBatch) -> Attempt<ArrayRef> {
    let value = predicate.evaluate(batch).and_then(|value| value.into_array(batch.num_rows()));
    value.map_err(|error| Failure::Evaluating(translate(error)))
}

/// Whether a user has asked for an index that finds rows by the column's value.
fn is_indexed(def: &TableDef, column: &ColumnDef) -> bool {
    let finds_values = |method: &IndexMethod| match method {
        IndexMethod::Scalar { access_method } => matches!(access_method.as_str(), "btree" | "hash"),
        IndexMethod::Vector(_) => false,
    };
    def.uniques.iter().any(|unique| unique.columns.contains(&column.id))
        || def.indexes.iter().any(|index| index.columns.contains(&column.id) && finds_values(&index.method))
}

#[cfg(test)]
mod tests;
