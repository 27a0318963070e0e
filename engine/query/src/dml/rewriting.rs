//! A table's rows under a new definition: of columns with another type, or computed from the others.
//!
//! Called by `database::Session` for ALTER TABLE, once the table was emptied in the transaction's view. The rows are
//! read as they were before that, a chunk at a time and in their order, and inserted again. Whether a key is unique is
//! asked where they are inserted.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, UInt32Array, new_null_array},
        compute::take,
        datatypes::{DataType, Field},
    },
    sql::sqlparser::ast::{Expr, Value},
};
use sepal_storage::{ChunkRef, Op, TableVersion, TenantStore, arrow_field, arrow_type};
use sepal_types::{ColumnDef, ColumnId, Error, Result, SqlState, TableDef};

use super::{
    DmlContext,
    assign::{TargetRows, assign, write_rows},
    generation::{Generation, check_calls, plan_over},
};
use crate::{
    ddl::{Rewrite, expression_assignable},
    output::sql_type,
    planner::{Engine, RowPlan},
};

/// Bytes of the rows that become one chunk, about.
const PIECE_BYTES: u64 = 256 << 20;

/// What is to be done with each row.
#[derive(Debug)]
pub struct Rewriting {
    old: Arc<TableVersion>,
    def: Arc<TableDef>,
    /// What the new definition's columns come from, in its order.
    sources: Vec<Source>,
    generation: Generation,
}

#[derive(Debug)]
enum Source {
    /// The rows have it, or the value of those that were there before the column.
    Kept,
    /// The value under the old definition, assigned.
    Assigned(ColumnDef),
    /// USING.
    Computed(Box<RowPlan>),
    /// Computed when the others are there.
    Generated,
}

impl Rewriting {
    /// `old` is the table as it was, `def` its new definition. `context` still sees the old one.
    ///
    /// Errors: 42804 for a USING that gives what cannot be assigned, and the planner's.
    pub fn prepare(
        old: Arc<TableVersion>,
        def: Arc<TableDef>,
        rewrite: &Rewrite,
        context: &DmlContext,
    ) -> Result<Self> {
        let source = |column: &ColumnDef| source(&old.def, column, rewrite, context);
        let sources = def.columns.iter().map(source).collect::<Result<Vec<Source>>>()?;
        let generated = |id: ColumnId| {
            let mut places = def.columns.iter().zip(&sources);
            places.any(|(column, source)| column.id == id && matches!(source, Source::Generated))
        };
        let generation = Generation::of(&def, context, |column| generated(column.id))?;
        Ok(Self { old, def, sources, generation })
    }

    pub fn def(&self) -> &TableDef {
        &self.def
    }

    /// How many chunks there are.
    pub fn chunks(&self) -> usize {
        self.old.chunks.len()
    }

    /// The live rows of a chunk as insertions. Reads the chunk; blocking.
    ///
    /// Errors: 23502, those of casts and expressions, and storage's.
    pub fn insertions(&self, chunk: usize, engine: &Engine, store: &TenantStore) -> Result<Vec<Op>> {
        let Some(reference) = self.old.chunks.get(chunk) else { return Ok(Vec::new()) };
        let rows = reference.chunk.rows();
        let whole = reference.deleted.is_empty() && reference.chunk.plain_bytes() <= PIECE_BYTES;
        if whole {
            return self.insertion(&Piece { reference, rows: None }, engine, store).map(Vec::from_iter);
        }
        let live: Vec<u32> = (0..rows).filter(|position| !reference.deleted.contains(*position)).collect();
        let pieces = reference.chunk.plain_bytes().div_ceil(PIECE_BYTES).max(1);
        let size = u64::from(rows).div_ceil(pieces).max(1);
        let mut ops = Vec::new();
        for positions in live.chunks(usize::try_from(size).unwrap_or(usize::MAX)) {
            let piece = Piece { reference, rows: Some(UInt32Array::from(positions.to_vec())) };
            ops.extend(self.insertion(&piece, engine, store)?);
        }
        Ok(ops)
    }

    fn insertion(&self, piece: &Piece<'_>, engine: &Engine, store: &TenantStore) -> Result<Option<Op>> {
        let arrays = self.def.columns.iter().zip(&self.sources);
        let arrays = arrays
            .map(|(column, source)| self.values(piece, column, source, engine))
            .collect::<Result<Vec<ArrayRef>>>()?;
        let mut rows = TargetRows { arrays, rows: piece.len() };
        self.generation.fill(&self.def, &mut rows, engine)?;
        for (column, array) in self.def.columns.iter().zip(&rows.arrays) {
            if column.not_null && array.null_count() > 0 {
                let message = format!(
                    "column \"{}\" of relation \"{}\" contains null values",
                    column.name, self.def.name
                );
                return Err(Error::new(SqlState::NotNullViolation, message));
            }
        }
        write_rows(&self.def, &rows, store)
    }

    fn values(
        &self,
        piece: &Piece<'_>,
        column: &ColumnDef,
        source: &Source,
        engine: &Engine,
    ) -> Result<ArrayRef> {
        match source {
            Source::Kept => piece.column(column),
            Source::Assigned(old) => {
                let values = piece.column(old)?;
                engine.zone().within(|| assign(&values, &arrow_field(old), column))
            }
            Source::Generated => Ok(new_null_array(&arrow_type(&column.ty), piece.len())),
            Source::Computed(plan) => {
                let read = |place: usize| match self.old.def.columns.get(place) {
                    Some(old) => piece.column(old),
                    None => Err(Error::bug("USING reads a column that the table has not")),
                };
                let Some(batch) = plan.run(engine, &[], piece.len(), read)? else {
                    return Err(Error::bug("USING has a parameter"));
                };
                engine.zone().within(|| assign(batch.column(0), batch.schema().field(0), column))
            }
        }
    }
}

/// Rows of a chunk.
struct Piece<'a> {
    reference: &'a ChunkRef,
    /// `None`: all of them.
    rows: Option<UInt32Array>,
}

impl Piece<'_> {
    fn len(&self) -> usize {
        self.rows.as_ref().map_or(self.reference.chunk.rows() as usize, Array::len)
    }

    fn column(&self, column: &ColumnDef) -> Result<ArrayRef> {
        let values = self.reference.chunk.column(column)?;
        match &self.rows {
            None => Ok(values),
            Some(rows) => take(&values, rows, None).map_err(crate::error::arrow),
        }
    }
}

fn source(old: &TableDef, column: &ColumnDef, rewrite: &Rewrite, context: &DmlContext) -> Result<Source> {
    let before = old.column_by_id(column.id);
    let retyped = rewrite.retyped.iter().find(|(id, _)| *id == column.id);
    let using = retyped.and_then(|(_, using)| using.as_ref());
    match (before, using) {
        _ if column.expression().is_some() && (before.is_none() || retyped.is_some()) => {
            Ok(Source::Generated)
        }
        (Some(_), Some(using)) => {
            transform(old, column, using, context).map(|plan| Source::Computed(Box::new(plan)))
        }
        (Some(before), None) if retyped.is_some() => Ok(Source::Assigned(before.clone())),
        _ => Ok(Source::Kept),
    }
}

/// Plans USING over the columns that the rows have.
fn transform(old: &TableDef, column: &ColumnDef, using: &Expr, context: &DmlContext) -> Result<RowPlan> {
    let plan = plan_over(old, vec![using.clone()], context)?;
    check_calls(&plan, "transform expressions")?;
    let field: &Field = plan.schema().field(0);
    let source = sql_type(field);
    let literal = matches!(using, Expr::Value(value) if matches!(value.value, Value::SingleQuotedString(_)));
    let untyped = literal || *field.data_type() == DataType::Null;
    if !untyped && !expression_assignable(&source, &column.ty) {
        let message = format!(
            "result of USING clause for column \"{}\" cannot be cast automatically to type {}",
            column.name,
            column.ty.display_name()
        );
        return Err(Error::new(SqlState::DatatypeMismatch, message)
            .with_hint("You might need to add an explicit cast."));
    }
    RowPlan::compile(context.engine, &plan).ok_or_else(|| {
        Error::unsupported("a USING clause of this kind is not supported")
            .with_hint("Add a column, UPDATE it with the expression, and rename it.")
    })
}
