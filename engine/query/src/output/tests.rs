//! When a batch is taken as it is, and when it is cast.

use datafusion::arrow::array::{Array, AsArray, Int32Array, Int64Array, StringArray};

use super::*;

fn columns() -> Vec<OutputColumn> {
    vec![OutputColumn::new("n", SqlType::Int8), OutputColumn::new("t", SqlType::Varchar(Some(3)))]
}

fn arrays() -> Vec<ArrayRef> {
    vec![Arc::new(Int64Array::from(vec![1, 2])), Arc::new(StringArray::from(vec!["a", "b"]))]
}

#[test]
fn what_is_as_described_is_given_back() {
    let described = Described::new(columns());
    let batch = described.batch(arrays(), 2).unwrap();
    let same = conform(batch.clone(), described.columns()).unwrap();
    assert!(Arc::ptr_eq(same.schema_ref(), &described.schema));
    assert_eq!(sql_type(same.schema_ref().field(1)), SqlType::Varchar(Some(3)));
    // Another SQL type, or another name, over the same Arrow type.
    let text = [OutputColumn::new("n", SqlType::Int8), OutputColumn::new("t", SqlType::Text)];
    let told = conform(batch.clone(), &text).unwrap();
    assert_eq!(sql_type(told.schema_ref().field(1)), SqlType::Text);
    let renamed = [OutputColumn::new("m", SqlType::Int8), columns().remove(1)];
    assert_eq!(conform(batch, &renamed).unwrap().schema_ref().field(0).name(), "m");
}

#[test]
fn arrays_of_another_type_get_a_schema_of_their_own_and_are_cast_later() {
    let described = Described::new(columns());
    let mut arrays = arrays();
    arrays[0] = Arc::new(Int32Array::from(vec![1, 2]));
    let batch = described.batch(arrays, 2).unwrap();
    assert_eq!(batch.column(0).data_type(), &DataType::Int32);
    let cast = conform(batch, described.columns()).unwrap();
    let numbers = cast.column(0).as_primitive::<datafusion::arrow::datatypes::Int64Type>();
    assert_eq!(numbers.values().to_vec(), [1, 2]);
    let none = described.batch(vec![cast.column(0).slice(0, 0), cast.column(1).slice(0, 0)], 0).unwrap();
    assert_eq!((none.num_rows(), none.num_columns()), (0, 2));
}
