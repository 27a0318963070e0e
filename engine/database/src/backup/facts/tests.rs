//! What counts as the same answer, and what does not.

use super::*;

fn answer(rows: &[(u64, f64)]) -> Vec<(u64, Option<f64>)> {
    rows.iter().map(|(row, distance)| (*row, Some(*distance))).collect()
}

#[test]
fn near_equal_distances_leave_the_order_open_and_nothing_else_is() {
    let then = answer(&[(7, 0.0), (3, 1.0), (4, 1.000_000_1), (9, 2.0)]);
    assert!(same_answer(&then, &then));
    let swapped = answer(&[(7, 0.0), (4, 1.000_000_1), (3, 1.000_000_2), (9, 2.0)]);
    assert!(same_answer(&then, &swapped), "two rows as far as each other");
    let pushed_out = answer(&[(7, 0.0), (3, 1.0), (4, 1.0), (11, 2.000_000_1)]);
    assert!(same_answer(&then, &pushed_out), "a row as far as the last one");
    let another = answer(&[(7, 0.0), (5, 1.0), (4, 1.0), (9, 2.0)]);
    assert!(!same_answer(&then, &another), "row 3 was nearer than the last one");
    let farther = answer(&[(7, 0.0), (3, 1.0), (4, 1.1), (9, 2.0)]);
    assert!(!same_answer(&then, &farther));
    assert!(!same_answer(&then, &then[..3]));
    assert!(!same_answer(&[(1, None)], &answer(&[(1, 0.0)])));
    assert!(same_answer(&[(1, None)], &[(1, None)]));
}

#[test]
fn the_sum_does_not_depend_on_the_order() {
    let hashes: Vec<[u8; 32]> = (0..5_u8).map(|byte| sha256(&[byte])).collect();
    let mut forwards = Sum::default();
    hashes.iter().for_each(|hash| forwards.add(hash));
    let mut backwards = Sum::default();
    hashes.iter().rev().for_each(|hash| backwards.add(hash));
    assert_eq!(forwards.hex(), backwards.hex());
    let mut fewer = Sum::default();
    hashes[1..].iter().for_each(|hash| fewer.add(hash));
    assert_ne!(forwards.hex(), fewer.hex());
}

/// What backups have stays readable, byte for byte.
#[test]
fn facts_of_an_older_program_have_no_schema() {
    let golden = r#"{"id":20000,"environment":"default","name":"items","rows":1,"bytes":2,"content":"00","golden":[]}"#;
    let facts: TableFacts = serde_json::from_str(golden).unwrap();
    assert_eq!(
        (serde_json::to_string(&facts).unwrap().as_str(), facts.label().as_str()),
        (golden, "default.items")
    );
    let facts = TableFacts { schema: "shop".into(), ..facts };
    let schema = r#""environment":"default","schema":"shop","#;
    let newer = golden.replace(r#""environment":"default","#, schema);
    assert_eq!(serde_json::to_string(&facts).unwrap(), newer);
    assert_eq!(facts.label(), "default.shop.items");
}
