//! Events as columns: what a part of them is and weighs.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, FixedSizeListArray, Int64Array, ListArray, StringArray},
    datatypes::{Float32Type, Int32Type},
    record_batch::RecordBatch,
};
use sepal_types::Lsn;

use crate::pipeline::{
    event::{Events, Operation},
    position::Position,
};

const ROWS: usize = 1_000;

fn events(column: ArrayRef) -> Events {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..ROWS as i64));
    let rows = RecordBatch::try_from_iter([("id", ids), ("v", column)]).unwrap();
    Events {
        operations: vec![Operation::Create; ROWS].into(),
        positions: (0..ROWS as u32).map(|index| Position::Feed { lsn: Lsn(1), index }).collect(),
        rows: Some(rows),
        before: None,
    }
}

/// What is left of a commit must not count as all of it: it would never wait for more.
#[test]
fn a_part_weighs_its_share() {
    let text = StringArray::from_iter_values((0..ROWS).map(|_| "0123456789".repeat(20)));
    let vectors = (0..ROWS).map(|_| Some(vec![Some(0.5); 50]));
    let vectors = FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(vectors, 50);
    let lists = (0..ROWS).map(|_| Some(vec![Some(7); 50]));
    let lists = ListArray::from_iter_primitive::<Int32Type, _, _>(lists);
    for column in [Arc::new(text) as ArrayRef, Arc::new(vectors), Arc::new(lists)] {
        let whole = events(column);
        assert!((200_000..300_000).contains(&whole.bytes()), "{}", whole.bytes());
        let tenth = whole.slice(300, ROWS / 10);
        assert!((20_000..30_000).contains(&tenth.bytes()), "{}", tenth.bytes());
        assert_eq!((tenth.len(), tenth.first()), (100, Some(Position::Feed { lsn: Lsn(1), index: 300 })));
        assert_eq!(tenth.rows.as_ref().unwrap().num_rows(), 100);
    }
}
