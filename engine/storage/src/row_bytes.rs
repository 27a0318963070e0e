//! How many bytes rows take in memory: their own part of the buffers that they share with others.
//!
//! Asked by `chunk` for every insert, by `segment` for what it writes, and by `database` for what unfinished
//! transactions hold. Allocates nothing but for lists: `ArrayData`, which knows the same, is built anew for each array
//! that is asked. Tells as well how far their offsets go, which end at 2 GiB.

use arrow::{
    array::{Array, AsArray},
    datatypes::DataType,
    record_batch::RecordBatch,
};

/// Bytes of all columns of a batch.
pub fn batch_bytes(rows: &RecordBatch) -> usize {
    rows.columns().iter().map(|array| array_bytes(array.as_ref())).sum()
}

/// Bytes of an array: values, offsets and the bits that tell NULLs.
pub(crate) fn array_bytes(array: &dyn Array) -> usize {
    let length = array.len();
    let nulls = array.nulls().map_or(0, |nulls| nulls.len().div_ceil(8));
    let values = match array.data_type() {
        DataType::Boolean => length.div_ceil(8),
        DataType::Utf8 => spanned(array.as_string::<i32>().value_offsets()),
        DataType::Binary => spanned(array.as_binary::<i32>().value_offsets()),
        DataType::FixedSizeBinary(_) => array.as_fixed_size_binary().value_data().len(),
        DataType::FixedSizeList(..) => array_bytes(array.as_fixed_size_list().values().as_ref()),
        DataType::List(_) => {
            let lists = array.as_list::<i32>();
            let offsets = lists.value_offsets();
            let (from, items) = span(offsets);
            size_of_val(offsets) + array_bytes(lists.values().slice(from, items).as_ref())
        }
        other => match other.primitive_width() {
            Some(width) => length * width,
            None => array.get_array_memory_size(),
        },
    };
    nulls + values
}

/// How far the offsets of an array go, of all that it has within each other those that go farthest: bytes of text, items
/// of lists. 0 for what has none.
pub(crate) fn longest_span(array: &dyn Array) -> usize {
    match array.data_type() {
        DataType::Utf8 => span(array.as_string::<i32>().value_offsets()).1,
        DataType::Binary => span(array.as_binary::<i32>().value_offsets()).1,
        DataType::FixedSizeList(..) => longest_span(array.as_fixed_size_list().values().as_ref()),
        DataType::List(_) => {
            let lists = array.as_list::<i32>();
            let (from, items) = span(lists.value_offsets());
            items.max(longest_span(lists.values().slice(from, items).as_ref()))
        }
        _ => 0,
    }
}

/// Of [`array_bytes`] those that count against what offsets can tell: all where values vary in length, and then a byte at
/// least for each item of a list, which a boolean does not take.
pub(crate) fn varying_bytes(array: &dyn Array) -> usize {
    if varies(array.data_type()) { array_bytes(array).max(longest_span(array)) } else { 0 }
}

/// Whether values of a type differ in length, so that an array of them has offsets.
pub(crate) fn varies(data_type: &DataType) -> bool {
    match data_type {
        DataType::Boolean | DataType::Null | DataType::FixedSizeBinary(_) => false,
        DataType::FixedSizeList(item, _) => varies(item.data_type()),
        other => !other.is_primitive(),
    }
}

/// Offsets, and what lies between the first and the last.
fn spanned(offsets: &[i32]) -> usize {
    size_of_val(offsets) + span(offsets).1
}

/// Where the first value begins, and how much there is from there to the last one's end.
fn span(offsets: &[i32]) -> (usize, usize) {
    let at = |offset: Option<&i32>| offset.and_then(|offset| usize::try_from(*offset).ok()).unwrap_or(0);
    let first = at(offsets.first());
    (first, at(offsets.last()).saturating_sub(first))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, BooleanArray, Int32Array, Int64Array, ListArray, StringArray};
    use arrow::buffer::OffsetBuffer;
    use arrow::datatypes::{Field, Int32Type};

    use super::*;
    use crate::fixtures::batch;

    #[test]
    fn a_slice_counts_its_own_part() {
        let cases: [(ArrayRef, usize); 5] = [
            (Arc::new(Int64Array::from(vec![1, 2, 3, 4])), 16),
            (Arc::new(Int32Array::from(vec![Some(1), None, None, Some(4)])), 8 + 1),
            (Arc::new(BooleanArray::from(vec![true; 4])), 1),
            (Arc::new(StringArray::from(vec!["abc", "d", "efgh", "i"])), 12 + 5),
            (batch(&[1, 2, 3, 4]).column(2).clone(), 2 * 16),
        ];
        for (array, expected) in cases {
            let slice = array.slice(1, 2);
            assert_eq!(array_bytes(slice.as_ref()), expected, "{slice:?}");
            assert_eq!(expected, slice.to_data().get_slice_memory_size().unwrap(), "{slice:?}");
        }
        // Of these Arrow counts the items of all.
        let lists = [vec![1; 9], vec![2], vec![], vec![3; 9]].map(|list| Some(list.into_iter().map(Some)));
        let lists = ListArray::from_iter_primitive::<Int32Type, _, _>(lists);
        assert_eq!(array_bytes(&lists.slice(1, 2)), 12 + 4);
    }

    #[test]
    fn offsets_go_as_far_as_the_longest_of_them() {
        let texts = StringArray::from(vec!["abc", "d", "efgh", "i"]);
        assert_eq!(longest_span(&texts.slice(1, 2)), 5);
        assert_eq!(longest_span(batch(&[1, 2]).column(2).as_ref()), 0, "a vector of a fixed length");
        // Two lists, of three texts and of one, that have nine bytes.
        let lists = list(&[3, 1], Arc::new(texts.clone()));
        assert_eq!((longest_span(&lists), longest_span(&lists.slice(1, 1))), (9, 1));
        assert_eq!(longest_span(&list(&[3, 1], Arc::new(StringArray::from(vec![""; 4])))), 4);
        // A boolean takes a bit, and counts.
        let lists = list(&[600, 200], Arc::new(BooleanArray::from(vec![true; 800])));
        assert_eq!((array_bytes(&lists), varying_bytes(&lists)), (12 + 100, 800));
        assert_eq!(varying_bytes(&texts), array_bytes(&texts));
        assert_eq!(varying_bytes(&Int64Array::from(vec![1])), 0);
    }

    fn list(lengths: &[usize], items: ArrayRef) -> ListArray {
        let item = Arc::new(Field::new("item", items.data_type().clone(), true));
        ListArray::new(item, OffsetBuffer::from_lengths(lengths.iter().copied()), items, None)
    }
}
