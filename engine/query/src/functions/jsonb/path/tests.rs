//! What paths find, as PostgreSQL finds it, and noise.

use proptest::prelude::*;

use super::{evaluate::query, parse::parse};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever is written for a path, there is an answer or an error.
    #[test]
    fn no_path_panics(text in r#"[$@.\[\]()?!&|=<>*0-9a-z "\\{}+-]{0,40}"#) {
        if let Ok(path) = parse(&text) {
            let target = r#"{"a": [1, {"b": "x"}], "z": null}"#;
            drop(query(&path, target, r#"{"a": 1}"#));
        }
    }

    #[test]
    fn numbers_compare_by_value(left in -2000_i32..2000, right in -2000_i32..2000, scale in 0_usize..4) {
        let written = |number: i32| format!("{:.scale$}", f64::from(number) / 100.0);
        let holds = |sign: &str| {
            let path = parse(&format!("{} {sign} {}", written(left), written(right))).unwrap();
            query(&path, "{}", "{}").ok().and_then(|values| values.first().map(|value| value == "true"))
        };
        let (one, other): (f64, f64) = (written(left).parse().unwrap(), written(right).parse().unwrap());
        prop_assert_eq!(holds("<"), Some(one < other));
        prop_assert_eq!(holds("=="), Some(one == other));
        prop_assert_eq!(holds(">="), Some(one >= other));
    }
}
