//! What is replaced for a session in another zone than UTC, and what stays.

use datafusion::{
    arrow::datatypes::{Field, Schema},
    prelude::{ident, lit},
};
use sepal_storage::arrow_type;

use super::*;

fn schema() -> DFSchema {
    let columns = vec![
        Field::new("z", arrow_type(&SqlType::Timestamptz), true),
        Field::new("t", arrow_type(&SqlType::Timestamp), true),
        Field::new("d", DataType::Date32, true),
        Field::new("i", arrow_type(&SqlType::Interval), true),
    ];
    DFSchema::try_from(Schema::new(columns)).expect("distinct names")
}

fn zoned(expr: Expr, zone: &str) -> Transformed<Expr> {
    let zone = Zone::parse(zone).expect("a zone").0;
    expression(expr, &schema(), zone, &|_| None).expect("it is supported")
}

#[test]
fn only_what_depends_on_the_zone_is_replaced() {
    let text = Expr::ScalarFunction(ScalarFunction::new_udf(
        Arc::new(cast_function(SqlType::Text)),
        vec![ident("z")],
    ));
    let (berlin, kolkata) = (zoned(text.clone(), "Europe/Berlin"), zoned(text.clone(), "Asia/Kolkata"));
    assert!(berlin.transformed && !zoned(text.clone(), "Etc/UTC").transformed);
    assert_ne!(berlin.data, kolkata.data, "two zones are two plans");
    assert_eq!(berlin.data.to_string(), text.to_string(), "of one name");
    assert_eq!(zoned(berlin.data.clone(), "Europe/Berlin").data, berlin.data, "once is enough");
    for same in [ident("z").gt(ident("z")), ident("t").gt(ident("d")), ident("t") + ident("i"), lit(1)] {
        assert!(!zoned(same.clone(), "Europe/Berlin").transformed, "{same}");
    }
    for other in
        [ident("z").gt(ident("t")), ident("z").between(ident("d"), ident("z")), ident("z") + ident("i")]
    {
        assert!(zoned(other.clone(), "Europe/Berlin").transformed, "{other}");
    }
}

#[test]
fn a_type_stays_what_it_was() {
    let nanos = DataType::Timestamp(TimeUnit::Nanosecond, Some("+00:00".into()));
    let now = Expr::Literal(ScalarValue::TimestampNanosecond(Some(0), Some("+00:00".into())), None);
    assert_eq!(zoned(now + ident("i"), "Asia/Kolkata").data.get_type(&schema()).expect("a type"), nanos);
    let date = Expr::Cast(Cast::new(Box::new(ident("z")), DataType::Date32));
    assert_eq!(zoned(date, "Asia/Kolkata").data.get_type(&schema()).expect("a type"), DataType::Date32);
}
