//! Random commits, checkpoints and restarts against a map.

use std::collections::BTreeMap;

use proptest::prelude::*;
use sepal_types::{RowId, TableId};

use crate::{
    Freely, NoBlobs, Op, Rewrite, StoreError,
    fixtures::{batch_of, create, items, open, scan},
};

const ITEMS: TableId = TableId(20_000);

#[derive(Clone, Debug)]
enum Step {
    /// Keys to insert with this label; one that exists must be refused.
    Insert(Vec<i64>, u8),
    /// Delete-and-insert of those of these keys that exist.
    Update(Vec<i64>, u8),
    Delete(Vec<i64>),
    Truncate,
    Checkpoint,
    /// VACUUM FULL.
    Merge,
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let keys =
        || prop::collection::btree_set(0..60i64, 1..12).prop_map(|keys| keys.into_iter().collect::<Vec<_>>());
    let step = prop_oneof![
        6 => (keys(), any::<u8>()).prop_map(|(keys, label)| Step::Insert(keys, label)),
        4 => (keys(), any::<u8>()).prop_map(|(keys, label)| Step::Update(keys, label)),
        4 => keys().prop_map(Step::Delete),
        1 => Just(Step::Truncate),
        3 => Just(Step::Checkpoint),
        2 => Just(Step::Merge),
        2 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_store_is_a_map(steps in steps()) {
        let dir = tempfile::tempdir().unwrap();
        let mut store = create(dir.path());
        store.commit(&store.snapshot(), vec![Op::CreateTable(items(20_000, "items"))]).unwrap();
        let mut model: BTreeMap<i64, String> = BTreeMap::new();
        for step in steps {
            let base = store.snapshot();
            let version = base.table(ITEMS).unwrap();
            let rows_of = |keys: &[i64]| -> Vec<RowId> {
                let array = std::sync::Arc::new(arrow::array::Int64Array::from(keys.to_vec()));
                let mut rows: Vec<RowId> =
                    version.lookup_unique(&version.def.uniques[0], &[array]).unwrap().into_iter().flatten().collect();
                rows.sort_unstable();
                rows
            };
            let insert = |keys: &[i64], label: u8| {
                let first_row = store.reserve_rows(ITEMS, keys.len() as u64);
                let labels = vec![format!("label {label}"); keys.len()];
                Op::Insert { table: ITEMS, first_row, rows: batch_of(keys, &labels) }
            };
            match step {
                Step::Insert(keys, label) => {
                    let taken = keys.iter().any(|key| model.contains_key(key));
                    match store.commit(&base, vec![insert(&keys, label)]) {
                        Ok(_) => {
                            prop_assert!(!taken);
                            model.extend(keys.into_iter().map(|key| (key, format!("label {label}"))));
                        }
                        Err(error) => {
                            let violation = matches!(error, StoreError::UniqueViolation { .. });
                            prop_assert!(taken && violation, "{}", error);
                        }
                    }
                }
                Step::Update(keys, label) => {
                    let keys: Vec<i64> = keys.into_iter().filter(|key| model.contains_key(key)).collect();
                    let rows = rows_of(&keys);
                    prop_assert_eq!(rows.len(), keys.len());
                    if !keys.is_empty() {
                        store.commit(&base, vec![Op::Delete { table: ITEMS, rows }, insert(&keys, label)]).unwrap();
                        model.extend(keys.into_iter().map(|key| (key, format!("label {label}"))));
                    }
                }
                Step::Delete(keys) => {
                    store.commit(&base, vec![Op::Delete { table: ITEMS, rows: rows_of(&keys) }]).unwrap();
                    keys.iter().for_each(|key| drop(model.remove(key)));
                }
                Step::Truncate => {
                    store.commit(&base, vec![Op::Truncate(ITEMS)]).unwrap();
                    model.clear();
                }
                Step::Checkpoint => drop(store.checkpoint(&NoBlobs).unwrap()),
                Step::Merge => {
                    for files in store.segments_to_merge(ITEMS, Rewrite::All) {
                        store.merge(ITEMS, &files, &NoBlobs, &Freely).unwrap();
                    }
                }
                Step::Restart => {
                    drop(base);
                    drop(store);
                    store = open(dir.path());
                }
            }
            let found: BTreeMap<i64, String> = scan(store.snapshot().table(ITEMS).unwrap())
                .into_iter()
                .map(|(key, (label, _))| (key, label))
                .collect();
            prop_assert_eq!(&found, &model);
        }
    }
}
