//! Types and rows on their way out: which SQL type a planned column has, and batches cast to just that.
//!
//! A column's SQL type comes from its field's metadata, else from its Arrow type. It is decided once, from the
//! plan that is described to the client; the rows are then cast to it, whatever the optimizer made of them.

use std::{collections::HashMap, sync::Arc};

use datafusion::arrow::{
    array::{ArrayRef, RecordBatch, RecordBatchOptions},
    compute::cast,
    datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
};
use sepal_storage::{arrow_type, has_arrow_type, is_enum};
use sepal_types::{ColumnDef, EnumType, Error, Result, SqlType, TableDef, VectorKind};

use crate::{error, sql::strip_marker};

/// Field metadata that names the SQL type, as `SqlType::marker` prints it.
pub const TYPE_KEY: &str = "sepal.type";

/// One column of a result.
#[derive(Clone, Debug, PartialEq)]
pub struct OutputColumn {
    pub name: String,
    pub ty: SqlType,
    /// The table's oid if the column is a plain column of a table, else 0.
    pub table: u32,
    /// The column's number in that table, from 1, else 0.
    pub column: i16,
}

impl OutputColumn {
    pub fn new(name: impl Into<String>, ty: SqlType) -> Self {
        Self { name: name.into(), ty, table: 0, column: 0 }
    }

    /// A column of a table, under its own name or another.
    pub fn of(column: &ColumnDef, table: &TableDef, name: Option<String>) -> Self {
        Self {
            name: name.unwrap_or_else(|| column.name.clone()),
            ty: column.ty.clone(),
            table: table.id.0,
            column: i16::try_from(column.id.0).unwrap_or(0),
        }
    }

    /// The column that a planned field becomes.
    pub fn from_field(field: &Field) -> Self {
        Self::new(strip_marker(field.name()), sql_type(field))
    }
}

/// The columns that a statement's answers have, and their schema: made when it is compiled.
#[derive(Clone, Debug)]
pub struct Described {
    columns: Arc<[OutputColumn]>,
    schema: SchemaRef,
}

impl Described {
    pub fn new(columns: Vec<OutputColumn>) -> Self {
        let field = |column: &OutputColumn| typed_field(&column.name, arrow_type(&column.ty), &column.ty);
        let fields: Vec<Field> = columns.iter().map(field).collect();
        Self { columns: columns.into(), schema: Arc::new(Schema::new(fields)) }
    }

    pub fn columns(&self) -> &Arc<[OutputColumn]> {
        &self.columns
    }

    /// One answer. Arrays of other types than were described, as there may be in the moment in which a column's type
    /// is altered, get a schema of their own.
    pub fn batch(&self, arrays: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
        let fields = self.schema.fields();
        let fits = arrays.len() == fields.len()
            && arrays.iter().zip(fields).all(|(array, field)| array.data_type() == field.data_type());
        if !fits {
            return described(&self.columns, arrays, rows);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options).map_err(error::arrow)
    }
}

/// Arrays as a batch with the names of the columns, and their SQL types where that cannot be told otherwise.
pub fn described(columns: &[OutputColumn], arrays: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let fields: Vec<Field> = arrays
        .iter()
        .zip(columns)
        .map(|(array, column)| typed_field(&column.name, array.data_type().clone(), &column.ty))
        .collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options).map_err(error::arrow)
}

/// A field whose SQL type can be told: by its Arrow type where that is enough, else by metadata. DataFusion
/// refuses VALUES whose rows differ in metadata, so none is given without need.
pub fn typed_field(name: &str, data_type: DataType, ty: &SqlType) -> Field {
    let implied = natural_type(&data_type) == *ty;
    let field = Field::new(name, data_type, true);
    if implied { field } else { field.with_metadata(HashMap::from([(TYPE_KEY.to_owned(), ty.marker())])) }
}

/// The SQL type of a planned field.
pub fn sql_type(field: &Field) -> SqlType {
    field
        .metadata()
        .get(TYPE_KEY)
        .and_then(|name| SqlType::from_marker(name))
        // A cast that DataFusion adds keeps what was said of its operand.
        .filter(|ty| ty.enum_type().is_none() || is_enum(field.data_type()))
        .unwrap_or_else(|| natural_type(field.data_type()))
}

/// The SQL type that an Arrow type means when nothing else is said.
pub fn natural_type(data_type: &DataType) -> SqlType {
    if let Some(kind) = vector_kind(data_type) {
        return kind.sql_type(match data_type {
            DataType::FixedSizeList(_, length) => u16::try_from(*length).ok(),
            _ => None,
        });
    }
    if let Some(bits) = bit_type(data_type) {
        return bits;
    }
    if is_sparse(data_type) {
        return SqlType::SparseVec(None);
    }
    match data_type {
        DataType::Boolean => SqlType::Bool,
        DataType::Int8 | DataType::UInt8 | DataType::Int16 => SqlType::Int2,
        DataType::UInt16 | DataType::Int32 => SqlType::Int4,
        DataType::UInt32 | DataType::Int64 | DataType::UInt64 => SqlType::Int8,
        DataType::Float16 | DataType::Float32 => SqlType::Float4,
        DataType::Float64 => SqlType::Float8,
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale) => numeric(*precision, *scale),
        DataType::Decimal256(..) => SqlType::Numeric(None),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => SqlType::Bytea,
        DataType::FixedSizeBinary(16) => SqlType::Uuid,
        enums if is_enum(enums) => SqlType::Enum(EnumType::unknown()),
        DataType::FixedSizeBinary(_) => SqlType::Bytea,
        DataType::Date32 | DataType::Date64 => SqlType::Date,
        DataType::Time32(_) | DataType::Time64(_) => SqlType::Time,
        DataType::Timestamp(_, None) => SqlType::Timestamp,
        DataType::Timestamp(_, Some(_)) => SqlType::Timestamptz,
        DataType::Interval(_) | DataType::Duration(_) => SqlType::Interval,
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            SqlType::Array(Box::new(sql_type(item)))
        }
        DataType::Dictionary(_, value) => natural_type(value),
        _ => SqlType::Text,
    }
}

fn numeric(precision: u8, scale: i8) -> SqlType {
    if (precision, scale) == (38, 16) {
        SqlType::Numeric(None)
    } else {
        SqlType::Numeric(Some((precision, scale)))
    }
}

/// Which vectors an Arrow type holds; `None` for types of other values.
pub fn vector_kind(data_type: &DataType) -> Option<VectorKind> {
    match data_type {
        DataType::FixedSizeList(item, _) | DataType::List(item) => sepal_storage::vector_kind(item),
        _ => None,
    }
}

fn bit_type(data_type: &DataType) -> Option<SqlType> {
    match data_type {
        DataType::FixedSizeList(item, _) | DataType::List(item) => sepal_storage::bit_type(item),
        _ => None,
    }
}

/// Whether an Arrow type is a bit string's.
pub fn is_bits(data_type: &DataType) -> bool {
    bit_type(data_type).is_some()
}

/// Whether an Arrow type is a sparse vector's.
pub fn is_sparse(data_type: &DataType) -> bool {
    matches!(data_type, DataType::List(item) if sepal_storage::is_sparse_item(item))
}

/// Whether an Arrow type is a vector's, of whichever kind.
pub fn is_vector(data_type: &DataType) -> bool {
    vector_kind(data_type).is_some()
}

/// Casts a batch to the described columns; one that is as described is given back.
///
/// Errors: a value does not fit the described type.
pub fn conform(batch: RecordBatch, columns: &[OutputColumn]) -> Result<RecordBatch> {
    let fields = batch.schema_ref().fields();
    if fields.len() == columns.len() && fields.iter().zip(columns).all(|(field, column)| is_of(field, column))
    {
        return Ok(batch);
    }
    let arrays: Vec<ArrayRef> = batch
        .columns()
        .iter()
        .zip(columns)
        .map(|(array, column)| conform_array(array, &column.ty))
        .collect::<Result<_>>()?;
    let fields: Vec<Field> = arrays
        .iter()
        .zip(columns)
        .map(|(array, column)| typed_field(&column.name, array.data_type().clone(), &column.ty))
        .collect();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)
        .map_err(|problem| Error::bug(format!("a result does not fit its description: {problem}")))
}

/// Whether a field is the one that [`typed_field`] makes for a column.
fn is_of(field: &Field, column: &OutputColumn) -> bool {
    let told = || match field.metadata().get(TYPE_KEY) {
        None => natural_type(field.data_type()) == column.ty,
        Some(name) => *name == column.ty.marker(),
    };
    *field.name() == column.name
        && field.is_nullable()
        && has_arrow_type(field.data_type(), &column.ty)
        && told()
}

/// Casts one array to the Arrow type of a SQL type.
pub fn conform_array(array: &ArrayRef, ty: &SqlType) -> Result<ArrayRef> {
    if has_arrow_type(array.data_type(), ty) {
        return Ok(Arc::clone(array));
    }
    let wanted = arrow_type(ty);
    let same_vectors = is_vector(&wanted) && vector_kind(array.data_type()) == vector_kind(&wanted);
    let both_bits = is_bits(&wanted) && is_bits(array.data_type());
    if same_vectors || both_bits {
        return Ok(Arc::clone(array));
    }
    match array.data_type() {
        // Arrow has no direct way from nanoseconds with a zone to another zone's microseconds in one step.
        DataType::Timestamp(TimeUnit::Nanosecond, zone) => {
            let micros = cast(array, &DataType::Timestamp(TimeUnit::Microsecond, zone.clone()))
                .map_err(error::arrow)?;
            cast(&micros, &wanted).map_err(error::arrow)
        }
        _ => cast(array, &wanted).map_err(error::arrow),
    }
}

#[cfg(test)]
mod tests;
