//! The catalog functions as DataFusion's scalar functions, and Arrow columns as values.
//!
//! Each is bound to one context, so two statements' functions are different functions to DataFusion.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeBinaryBuilder};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Field, FieldRef, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType,
};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature,
    Volatility,
};
use sepal_types::{EnumType, Error, SparseVector, SqlType};

use super::super::value::{Value, column, field};
use super::{Function, Returns, catalog_functions};
use crate::context::CatalogSlot;
use crate::functions::{all_constant, answer};
use crate::output::{is_bits, is_sparse, vector_kind};

/// Every catalog function, bound to the context.
pub(in crate::catalog) fn udfs(context: &CatalogSlot) -> Vec<ScalarUDF> {
    let bound = catalog_functions().map(|function| {
        ScalarUDF::from(Bound { function, context: context.clone(), signature: signature(function) })
    });
    let random = GenRandomUuid { signature: Signature::nullary(Volatility::Volatile) };
    let type_of = TypeOf { signature: Signature::any(1, Volatility::Stable) };
    bound.chain([ScalarUDF::from(random), ScalarUDF::from(type_of)]).collect()
}

fn signature(function: &Function) -> Signature {
    let volatility = if function.acts { Volatility::Volatile } else { Volatility::Stable };
    if function.takes(0) {
        Signature::one_of(vec![TypeSignature::Nullary, TypeSignature::VariadicAny], volatility)
    } else {
        Signature::variadic_any(volatility)
    }
}

/// One catalog function and what it looks at.
struct Bound {
    function: &'static Function,
    context: CatalogSlot,
    signature: Signature,
}

impl std::fmt::Debug for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CatalogFunction").field("name", &self.function.name).finish_non_exhaustive()
    }
}

impl PartialEq for Bound {
    fn eq(&self, other: &Self) -> bool {
        self.function.name == other.function.name && self.context == other.context
    }
}

impl Eq for Bound {}

impl Hash for Bound {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.function.name.hash(state);
    }
}

impl Bound {
    /// What DataFusion sees of the result: oids stay numbers there, so that they can be compared.
    fn outward_type(&self) -> SqlType {
        match self.function.returns {
            Returns::Type(_) => match self.function.result_type(&[]) {
                SqlType::Regclass | SqlType::Regproc | SqlType::Regtype => SqlType::Oid,
                other => other,
            },
            Returns::First => SqlType::Text,
        }
    }
}

impl ScalarUDFImpl for Bound {
    fn name(&self) -> &str {
        self.function.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(sepal_storage::arrow_type(&self.outward_type()))
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        if !self.function.takes(arguments.arg_fields.len()) {
            return plan_err!(
                "function {} does not exist with {} arguments; it takes ({})",
                self.function.name,
                arguments.arg_fields.len(),
                self.function.arguments
            );
        }
        Ok(Arc::new(field(self.function.name, &self.outward_type())))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = all_constant(&arguments.args);
        let rows = if constant { 1 } else { arguments.number_rows };
        let columns = ColumnarValue::values_to_arrays(&arguments.args)?;
        let columns: Vec<Vec<Value>> = columns.iter().map(values).collect::<Result<_>>()?;
        let context = self.context.get().map_err(carry)?;
        let mut results = Vec::with_capacity(rows);
        for row in 0..rows {
            let arguments: Vec<Value> = columns.iter().map(|column| column[row].clone()).collect();
            results.push(self.function.call(&context, &arguments).map_err(carry)?);
        }
        let array = column(&self.outward_type(), &results).map_err(carry)?;
        answer(array, constant)
    }
}

fn carry(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// The rows of an Arrow column as values.
pub(in crate::catalog) fn values(array: &ArrayRef) -> Result<Vec<Value>> {
    let present = |row: usize| array.is_valid(row);
    let rows = 0..array.len();
    Ok(match array.data_type() {
        DataType::Null => vec![Value::Null; array.len()],
        DataType::Boolean => {
            let array = array.as_boolean();
            rows.map(|row| present(row).then(|| array.value(row)).into()).collect()
        }
        ty if ty.is_integer() => {
            let array = cast(array, &DataType::Int64)?;
            let array = array.as_primitive::<Int64Type>();
            rows.map(|row| present(row).then(|| array.value(row)).into()).collect()
        }
        ty if ty.is_floating() || matches!(ty, DataType::Decimal128(..)) => {
            let array = cast(array, &DataType::Float64)?;
            let array = array.as_primitive::<Float64Type>();
            rows.map(|row| present(row).then(|| array.value(row)).into()).collect()
        }
        DataType::Timestamp(..) => {
            let array = cast(array, &DataType::Timestamp(TimeUnit::Microsecond, None))?;
            let array = array.as_primitive::<TimestampMicrosecondType>();
            rows.map(|row| if present(row) { Value::Time(array.value(row)) } else { Value::Null }).collect()
        }
        DataType::List(_) => {
            let lists = array.as_list::<i32>();
            rows.map(|row| {
                Ok(if present(row) { Value::List(values(&lists.value(row))?.into()) } else { Value::Null })
            })
            .collect::<Result<_>>()?
        }
        _ => {
            let array = cast(array, &DataType::Utf8)?;
            let array = array.as_string::<i32>();
            rows.map(|row| present(row).then(|| array.value(row)).into()).collect()
        }
    })
}

/// `gen_random_uuid()`: version 4.
#[derive(Debug, PartialEq, Eq, Hash)]
struct GenRandomUuid {
    signature: Signature,
}

impl ScalarUDFImpl for GenRandomUuid {
    fn name(&self) -> &'static str {
        "gen_random_uuid"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::FixedSizeBinary(16))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let mut uuids = FixedSizeBinaryBuilder::with_capacity(arguments.number_rows, 16);
        for _ in 0..arguments.number_rows {
            let mut bytes: [u8; 16] = rand::random();
            // RFC 9562: version 4 in the high half of byte 6, the variant in the top bits of byte 8.
            bytes[6] = (bytes[6] & 0x0f) | 0x40;
            bytes[8] = (bytes[8] & 0x3f) | 0x80;
            uuids.append_value(bytes)?;
        }
        Ok(ColumnarValue::Array(Arc::new(uuids.finish())))
    }
}

/// `pg_typeof(any)`: from the argument's field, whose metadata names its type.
#[derive(Debug, PartialEq, Eq, Hash)]
struct TypeOf {
    signature: Signature,
}

impl ScalarUDFImpl for TypeOf {
    fn name(&self) -> &'static str {
        "pg_typeof"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn return_field_from_args(&self, _: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        Ok(Arc::new(field("pg_typeof", &SqlType::Regtype)))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let name = arguments.arg_fields.first().map_or_else(String::new, |field| sql_name(field));
        Ok(ColumnarValue::Scalar(ScalarValue::Utf8(Some(name))))
    }
}

/// The SQL type's name of an Arrow field, without modifier.
fn sql_name(field: &Field) -> String {
    if let Some(name) = field.metadata().get("sepal.type") {
        if let Some(ty) = EnumType::from_marker(name) {
            return ty.display_name();
        }
        let bare = name.split('(').next().unwrap_or(name);
        return if bare == "bpchar" { "character" } else { bare }.to_owned();
    }
    if let Some(kind) = vector_kind(field.data_type()) {
        return kind.name().to_owned();
    }
    if is_bits(field.data_type()) {
        return "bit".to_owned();
    }
    if is_sparse(field.data_type()) {
        return SparseVector::NAME.to_owned();
    }
    match field.data_type() {
        DataType::Null => "unknown".to_owned(),
        DataType::Boolean => "boolean".to_owned(),
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => "smallint".to_owned(),
        DataType::Int32 | DataType::UInt16 => "integer".to_owned(),
        DataType::Int64 | DataType::UInt32 | DataType::UInt64 => "bigint".to_owned(),
        DataType::Float16 | DataType::Float32 => "real".to_owned(),
        DataType::Float64 => "double precision".to_owned(),
        DataType::Decimal128(..) | DataType::Decimal256(..) => "numeric".to_owned(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "bytea".to_owned(),
        DataType::FixedSizeBinary(16) => "uuid".to_owned(),
        DataType::Date32 | DataType::Date64 => "date".to_owned(),
        DataType::Time32(_) | DataType::Time64(_) => "time without time zone".to_owned(),
        DataType::Timestamp(_, None) => "timestamp without time zone".to_owned(),
        DataType::Timestamp(_, Some(_)) => "timestamp with time zone".to_owned(),
        DataType::Interval(_) | DataType::Duration(_) => "interval".to_owned(),
        DataType::List(item) | DataType::LargeList(item) => format!("{}[]", sql_name(item)),
        _ => "text".to_owned(),
    }
}
