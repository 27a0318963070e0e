//! Each line is what Postgres gives.

use datafusion::arrow::datatypes::IntervalMonthDayNano;
use sepal_types::days_from_civil;

use super::{
    moment::{Moment, write},
    number::{write_decimal, write_float},
    pattern::parse,
    read::read,
};

fn micros() -> i64 {
    days_from_civil(2024, 5, 6) * 86_400_000_000 + (7 * 3600 + 8 * 60 + 9) * 1_000_000 + 123_456
}

#[test]
fn instants_are_written_by_their_pattern() {
    let cases = [
        ("YYYY-MM-DD HH24:MI:SS.US", "2024-05-06 07:08:09.123456"),
        ("MS FF2 HH12 AM a.m.", "123 12 07 AM a.m."),
        ("Day|DAY|FMDay|Dy|Mon|Month|FMMonth", "Monday   |MONDAY   |Monday|Mon|May|May      |May"),
        ("DDth FMDDth D ID W WW IW IYYY Q J CC", "06th 6th 2 1 1 19 19 2024 2 2460437 21"),
        ("RM|rm TZ|OF SSSS", "V   |v    |+00 25689"),
        ("Y,YYY YYY YY Y \"quoted YYYY\" \\\"x T", "2,024 024 24 4 quoted YYYY \"x T"),
        ("%Y", "%4"),
    ];
    for (pattern, expected) in cases {
        let written = write(&Moment::of_instant(micros(), None), &parse(pattern));
        assert_eq!(written.as_deref(), Ok(expected), "{pattern}");
    }
    let span = IntervalMonthDayNano::new(14, 3, 30 * 3_600_000_000_000);
    assert_eq!(write(&Moment::of_interval(span), &parse("YY MM DD HH24")).as_deref(), Ok("01 02 03 30"));
    assert!(write(&Moment::of_interval(span), &parse("Day")).is_err());
}

#[test]
fn numbers_are_written_by_their_pattern() {
    let cases = [
        (12345, 1, "9,999.99", " 1,234.50"),
        (12345, 1, "FM9,999.99", "1,234.5"),
        (-15, 1, "990.00", "  -1.50"),
        (1, 1, "9.99", "  .10"),
        (1, 1, "FM9.99", ".1"),
        (1, 1, "0.99", " 0.10"),
        (12, 0, "FM000", "012"),
        (-12, 0, "S999", " -12"),
        (12, 0, "S999", " +12"),
        (12, 0, "999S", " 12+"),
        (-12, 0, "999MI", " 12-"),
        (-12, 0, "999PR", " <12>"),
        (12, 0, "999PR", "  12 "),
        (12345, 0, "999", " ###"),
        (1999, 3, "9.9", " 2.0"),
        (12, 0, "99th", " 12th"),
        (0, 0, "FM999", "0"),
        (0, 0, "999", "   0"),
        (12, 0, "9,999", "    12"),
        (123, 1, "99.9 \"x\"", " 12.3 x"),
        (-5, 1, "FM90.0", "-0.5"),
        (-1, 3, "9.9", "  .0"),
        (1, 0, "SG9", "+1"),
        (1, 0, "PL9", "+ 1"),
        (-1, 0, "9PL", "-1 "),
        (125, 1, "$99.99", "$ 12.50"),
        (100, 0, "099", " 100"),
        (1, 0, "FM9.", "1"),
    ];
    for (value, scale, pattern, expected) in cases {
        assert_eq!(write_decimal(value, scale, pattern).as_deref(), Ok(expected), "{value} by {pattern}");
    }
    assert_eq!(write_float(1.5, "FM999.000").as_deref(), Ok("1.500"));
    assert_eq!(write_float(f64::NAN, "999.9").as_deref(), Ok(" NaN"));
    assert_eq!(write_float(f64::INFINITY, "9.9").as_deref(), Ok(" #.#"));
    assert_eq!(write_decimal(5, 0, "RN").expect_err("no Roman numbers").state().code(), "0A000");
}

#[test]
fn texts_are_read_by_their_pattern() {
    let day = |year, month, day| days_from_civil(year, month, day);
    let cases = [
        ("2024/5/6", "YYYY-MM-DD", day(2024, 5, 6)),
        ("20240506", "YYYYMMDD", day(2024, 5, 6)),
        ("05 Dec 2000", "DD Mon YYYY", day(2000, 12, 5)),
        ("  2024 05  06 ", "YYYY MM DD", day(2024, 5, 6)),
        ("24", "YY", day(2024, 1, 1)),
        ("70", "YY", day(1970, 1, 1)),
        ("2024-200", "YYYY-DDD", day(2024, 7, 18)),
        ("44-03-15 BC", "YYYY-MM-DD BC", day(-43, 3, 15)),
        ("Monday 6 May 2024", "Day DD Month YYYY", day(2024, 5, 6)),
        ("2024", "YYYYMM", day(2024, 1, 1)),
        ("", "YYYY", day(0, 1, 1)),
        ("2024-01-01 extra", "YYYY-MM-DD", day(2024, 1, 1)),
    ];
    for (text, pattern, expected) in cases {
        let days = read(text, &parse(pattern)).and_then(|read| read.days());
        assert_eq!(days, Ok(expected), "{text} by {pattern}");
    }
    let refused = [
        ("2024-13-01", "YYYY-MM-DD", "date/time field value out of range: \"2024-13-01\""),
        ("2024-02-30", "YYYY-MM-DD", "date/time field value out of range: \"2024-02-30\""),
        ("abc", "YYYY", "invalid value \"abc\" for \"YYYY\""),
        ("2024 Foo", "YYYY Mon", "invalid value \"Foo\" for \"Mon\""),
        ("202", "YYYYMM", "source string too short for \"YYYY\" formatting field"),
    ];
    for (text, pattern, message) in refused {
        let days = read(text, &parse(pattern)).and_then(|read| read.days());
        assert_eq!(days.expect_err("not read").message(), message, "{text} by {pattern}");
    }
    let time = |text, pattern| read(text, &parse(pattern)).and_then(|read| read.micros());
    let second = 1_000_000;
    let noon = day(0, 1, 1) * 86_400 * second + (12 * 3600 + 30 * 60 + 45) * second + 500_000;
    assert_eq!(time("12:30:45.5 PM", "HH12:MI:SS.MS PM"), Ok(noon));
    let zoned = day(2024, 1, 1) * 86_400 * second + 8 * 3600 * second;
    assert_eq!(time("2024-01-01 10:00 +02", "YYYY-MM-DD HH24:MI TZH"), Ok(zoned));
    assert!(time("13:00 PM", "HH12:MI PM").is_err());
}
