//! Text in, text out: each line is what Postgres prints for `SELECT 'in'::type`.

use bytes::BytesMut;

use super::{ColumnEncoder, decode_text, printed, sent, through, ty};
use crate::zone::Zone;

fn check(cases: &[(&str, &str, &str)]) {
    for (name, input, expected) in cases {
        assert_eq!(through(name, input).as_deref(), Ok(*expected), "{name} of {input:?}");
    }
}

#[test]
fn scalars() {
    check(&[
        ("bool", "tru", "t"),
        ("bool", " YES ", "t"),
        ("bool", "on", "t"),
        ("bool", "of", "f"),
        ("bool", "0", "f"),
        ("int2", " -32768 ", "-32768"),
        ("int4", "+7", "7"),
        ("int4", "0x7F", "127"),
        ("int4", "1_000", "1000"),
        ("int8", "-9223372036854775808", "-9223372036854775808"),
        ("oid", "-1", "4294967295"),
        ("float4", "1e-7", "1e-07"),
        ("float8", " 1.5 ", "1.5"),
        ("float8", "nan", "NaN"),
        ("float8", "-inf", "-Infinity"),
        ("float8", "+Infinity", "Infinity"),
        ("float8", "1e15", "1e+15"),
        ("text", "", ""),
        ("varchar(3)", "ab    ", "ab "),
        ("varchar(3)", "äöü", "äöü"),
        ("char(5)", "ab", "ab   "),
        ("char(5)", "äb        ", "äb   "),
        ("char", "x", "x"),
        ("bpchar", "ab  ", "ab"),
        ("\"char\"", "ab", "a"),
        ("\"char\"", "\\101", "A"),
        ("\"char\"", "ä", "\\303"),
        ("name", &"é".repeat(40), &"é".repeat(31)),
        ("int2vector", "1  2 ", "1 2"),
        ("oidvector", "", ""),
        ("regclass", "items", "items"),
        ("uuid", "{A0EEBC99-9C0B4EF8-BB6D6BB9BD380A11}", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        ("bytea", "a\\\\b\\001", "\\x615c6201"),
        ("bytea", "\\x12 34", "\\x1234"),
        ("bytea", "\\x", "\\x"),
    ]);
}

#[test]
fn numeric() {
    check(&[
        ("numeric(5,2)", "1.005", "1.01"),
        ("numeric(5,2)", "-1.005", "-1.01"),
        ("numeric(5,2)", "1.00499999999999999999999999999999999999999999", "1.00"),
        ("numeric(5,2)", "7", "7.00"),
        ("numeric(5,2)", "0.001", "0.00"),
        ("numeric(3,0)", "99.5", "100"),
        ("numeric(38,38)", "0.5", "0.50000000000000000000000000000000000000"),
        ("numeric(38,0)", "99999999999999999999999999999999999999", "99999999999999999999999999999999999999"),
        ("numeric", "1e3", "1000"),
        ("numeric", ".5", "0.5"),
        ("numeric", "5.", "5"),
        ("numeric", "-0.050", "-0.05"),
        ("numeric", "1e-999999999", "0"),
        ("numeric", "000000000000000000000000000000000000000000000000000001.50", "1.5"),
        ("numeric", "0.00000000000000005", "0.0000000000000001"),
        ("numeric", "1_000.5", "1000.5"),
    ]);
}

#[test]
fn dates_and_times() {
    check(&[
        ("date", "2024-01-02", "2024-01-02"),
        ("date", "2024-01-02 03:04:05", "2024-01-02"),
        ("date", "20240102", "2024-01-02"),
        ("date", "1/2/2024", "2024-01-02"),
        ("date", "Jan 2, 2024", "2024-01-02"),
        ("date", "2 January 2024", "2024-01-02"),
        ("date", "2024-Jan-02", "2024-01-02"),
        ("date", "0044-03-15 BC", "0044-03-15 BC"),
        ("date", "0001-12-31 BC", "0001-12-31 BC"),
        ("date", "0001-01-01", "0001-01-01"),
        ("date", "5874897-12-31", "5874897-12-31"),
        ("date", "4714-11-24 BC", "4714-11-24 BC"),
        ("date", "epoch", "1970-01-01"),
        ("date", "infinity", "infinity"),
        ("date", "-Infinity", "-infinity"),
        ("time", "04:05 PM", "16:05:00"),
        ("time", "12:30 am", "00:30:00"),
        ("time", "040506", "04:05:06"),
        ("time", "040506.789", "04:05:06.789"),
        ("time", "allballs", "00:00:00"),
        ("time", "24:00:00", "24:00:00"),
        ("time", "12:00+02", "12:00:00"),
        ("time", "2024-01-02 03:04:05", "03:04:05"),
        ("time", "23:59:59.9999999", "24:00:00"),
        ("timestamp", "2024-01-02", "2024-01-02 00:00:00"),
        ("timestamp", "2024-01-02 030405", "2024-01-02 03:04:05"),
        ("timestamp", "2024-01-02 24:00:00", "2024-01-03 00:00:00"),
        ("timestamp", "2024-01-02 23:59:60", "2024-01-03 00:00:00"),
        ("timestamp", "2024-01-02 03:04:05+07", "2024-01-02 03:04:05"),
        ("timestamp", "-infinity", "-infinity"),
        ("timestamp", "1969-12-31 23:59:59.999999", "1969-12-31 23:59:59.999999"),
        ("timestamptz", "2024-01-02T03:04:05.678Z", "2024-01-02 03:04:05.678+00"),
        ("timestamptz", "2024-01-02 03:04:05.1234567+02:30", "2024-01-02 00:34:05.123457+00"),
        ("timestamptz", "2024-01-02 03:04:05 -0800", "2024-01-02 11:04:05+00"),
        ("timestamptz", "2024-01-02 03:04:05 PST", "2024-01-02 11:04:05+00"),
        ("timestamptz", "2024-07-02 03:04:05 America/New_York", "2024-07-02 07:04:05+00"),
        ("timestamptz", "2024-07-02 03:04:05 NST", "2024-07-02 06:34:05+00"),
        ("timestamp", "2024-07-02 03:04:05 europe/berlin", "2024-07-02 03:04:05"),
        ("timestamptz", "0044-03-15 12:00:00 BC", "0044-03-15 12:00:00+00 BC"),
        ("timestamptz", "infinity", "infinity"),
    ]);
    assert_eq!(through("date", "today"), through("date", "now"));
    assert!(through("timestamptz", "now").unwrap().starts_with(&through("date", "today").unwrap()[..4]));
}

#[test]
fn intervals() {
    check(&[
        ("interval", "1 day 2 hours", "1 day 02:00:00"),
        ("interval", "1 year 2 mons -3 days 04:05:06.789", "1 year 2 mons -3 days +04:05:06.789"),
        ("interval", "P1Y2M3DT4H5M6.5S", "1 year 2 mons 3 days 04:05:06.5"),
        ("interval", "P0001-02-03T04:05:06", "1 year 2 mons 3 days 04:05:06"),
        ("interval", "P1Y1DT-1H", "1 year 1 day -01:00:00"),
        ("interval", "P1W", "7 days"),
        ("interval", "1-2", "1 year 2 mons"),
        ("interval", "@ 1 day ago", "-1 days"),
        ("interval", "1.5 days", "1 day 12:00:00"),
        ("interval", "-1 day +02:03", "-1 days +02:03:00"),
        ("interval", "5", "00:00:05"),
        ("interval", "1 day 4", "1 day 00:00:04"),
        ("interval", "3 4:05", "3 days 04:05:00"),
        ("interval", "+1 -2:3", "1 day -02:03:00"),
        ("interval", "4:05.6", "00:04:05.6"),
        ("interval", "1d2h", "1 day 02:00:00"),
        ("interval", "1.5 years", "1 year 6 mons"),
        ("interval", "-0.5 mon", "-15 days"),
        ("interval", "1.25 month", "1 mon 7 days 12:00:00"),
        ("interval", "0.1 week", "16:48:00"),
        ("interval", "1.5 weeks", "10 days 12:00:00"),
        ("interval", "1.5 century", "150 years"),
        ("interval", "1:02:03.5 ago", "-01:02:03.5"),
        ("interval", "-1-2 +3 -4:05:06", "-1 years -2 mons +3 days -04:05:06"),
        ("interval", "-1 year 1 mon", "-11 mons"),
        ("interval", "10 ms 5 us", "00:00:00.010005"),
        ("interval", "0", "00:00:00"),
        ("interval", "100:00:00", "100:00:00"),
    ]);
}

#[test]
fn json_is_kept_and_jsonb_normalised() {
    check(&[
        ("json", " {\"b\":1, \"a\" : [ 1e2 ]}", " {\"b\":1, \"a\" : [ 1e2 ]}"),
        (
            "jsonb",
            r#"{"b":1, "a": [1,2.50,{"x":null}], "aa": "\u00e9\n\u0001/\/", "b": 2}"#,
            r#"{"a": [1, 2.50, {"x": null}], "b": 2, "aa": "é\n\u0001//"}"#,
        ),
        ("jsonb", r#"{"\n":1,"aa":2,"b":3}"#, r#"{"\n": 1, "b": 3, "aa": 2}"#),
        ("jsonb", "1e2", "100"),
        ("jsonb", "1.5e-3", "0.0015"),
        ("jsonb", "-0", "0"),
        ("jsonb", "-0.0", "0.0"),
        ("jsonb", "12.345e1", "123.45"),
        ("jsonb", "-1.5E+2", "-150"),
        ("jsonb", "1.50e-1", "0.150"),
        ("jsonb", "0e-3", "0.000"),
        ("jsonb", "0.05e3", "50"),
        ("jsonb", "1.10", "1.10"),
        ("jsonb", "12345678901234567890123456789.123", "12345678901234567890123456789.123"),
        ("jsonb", "{}", "{}"),
        ("jsonb", " [ ] ", "[]"),
        ("jsonb", r#""\ud83d\ude00""#, "\"😀\""),
    ]);
}

#[test]
fn arrays() {
    check(&[
        (
            "text[]",
            r#"{1,2,NULL,"a b",  c d , "x\"y", "", null, \{ }"#,
            r#"{1,2,NULL,"a b","c d","x\"y","",NULL,"{"}"#,
        ),
        ("text[]", r#"{"null","a,b","a b","{",\\,NULL}"#, r#"{"null","a,b","a b","{","\\",NULL}"#),
        ("text[]", r#"{"a" , "b"}"#, "{a,b}"),
        ("text[]", "{ }", "{}"),
        ("int4[]", " { 1 , 2 } ", "{1,2}"),
        ("int4[]", "[1:2]={1,2}", "{1,2}"),
        ("bool[]", "{yes,off,NULL}", "{t,f,NULL}"),
        ("timestamptz[]", "{2024-01-02}", "{\"2024-01-02 00:00:00+00\"}"),
        ("numeric(5,2)[]", "{1,2.345}", "{1.00,2.35}"),
        ("vector(2)[]", "{\"[1,2]\",NULL,\"[3,4]\"}", "{\"[1,2]\",NULL,\"[3,4]\"}"),
    ]);
}

#[test]
fn vectors() {
    check(&[
        ("vector", "[1,2,3]", "[1,2,3]"),
        ("vector(3)", " [1, 2.5 ,-3e-2] ", "[1,2.5,-0.03]"),
        ("vector(1)", "[1e-7]", "[1e-07]"),
        ("halfvec", "[1,2,3]", "[1,2,3]"),
        ("bit(10)", "1011000111", "1011000111"),
        ("bit", "x1F", "00011111"),
        ("bit(3)", "b101", "101"),
        ("halfvec(3)", " [0.1, 2.5 ,-3e-2] ", "[0.099975586,2.5,-0.02999878]"),
        ("halfvec(1)", "[1e-9]", "[0]"),
        ("sparsevec", " { 3 : 2 , 1 : 1.5 , 2:0 } / 5 ", "{1:1.5,3:2}/5"),
        ("sparsevec(3)", "{}/3", "{}/3"),
        ("sparsevec[]", "{\"{1:1,2:2}/3\",NULL,\"{}/2\"}", "{\"{1:1,2:2}/3\",NULL,\"{}/2\"}"),
    ]);
}

#[test]
fn null_is_null_in_every_type() {
    for ty in sepal_types::SqlType::simple_types() {
        let array = decode_text(&ty, None).unwrap();
        assert_eq!(array.data_type(), &sepal_storage::arrow_type(&ty));
        assert_eq!(array.logical_nulls().map_or(0, |nulls| nulls.null_count()), 1, "{}", ty.display_name());
    }
    let ty = ty("vector(3)");
    assert_eq!(printed(&ty, &decode_text(&ty, Some(b"[1,2,3]")).unwrap()), "[1,2,3]");
}

/// Rails asks for it as it connects.
#[test]
fn intervals_in_the_style_of_iso_8601() {
    for (name, text, expected) in [
        ("interval", "0", "PT0S"),
        ("interval", "1 year 2 mons -3 days 04:05:06.789", "P1Y2M-3DT4H5M6.789S"),
        ("interval", "-1 year -2 mons +3 days -04:05:06", "P-1Y-2M3DT-4H-5M-6S"),
        ("interval", "1 day 2 hours", "P1DT2H"),
        ("interval", "100:01:00", "PT100H1M"),
        ("interval", "-00:00:00.05", "PT-0.05S"),
        ("interval", "10 years", "P10Y"),
        ("interval[]", "{1 day,NULL}", "{P1D,NULL}"),
    ] {
        let ty = ty(name);
        let array = decode_text(&ty, Some(text.as_bytes())).unwrap();
        let mut out = BytesMut::new();
        let column = ColumnEncoder::new(array.as_ref(), &ty).unwrap().with_intervals(true);
        column.text(0, &mut out).unwrap();
        assert_eq!(String::from_utf8_lossy(&out), expected);
        out.clear();
        column.binary(0, &mut out).unwrap();
        assert_eq!(out.to_vec(), sent(&ty, &array), "binary has no style");
    }
}

#[test]
fn a_timestamptz_is_of_the_zone_at_hand() {
    let zone = |name: &str| Zone::parse(name).expect("a zone").0;
    for (name, text, expected) in [
        ("Europe/Berlin", "2024-07-01 12:00", "2024-07-01 12:00:00+02"),
        ("Europe/Berlin", "2024-07-01 12:00:00.25+00", "2024-07-01 14:00:00.25+02"),
        ("Europe/Berlin", "2024-12-31 23:30Z", "2025-01-01 00:30:00+01"),
        ("Europe/Berlin", "2024-03-31 02:30", "2024-03-31 03:30:00+02"),
        ("Europe/Berlin", "2024-10-27 02:30", "2024-10-27 02:30:00+01"),
        ("Europe/Berlin", "0044-03-15 12:00+00 BC", "0044-03-15 12:53:28+00:53:28 BC"),
        ("Europe/Berlin", "-infinity", "-infinity"),
        ("Europe/Berlin", "epoch", "1970-01-01 01:00:00+01"),
        ("America/St_Johns", "2024-01-01 12:00", "2024-01-01 12:00:00-03:30"),
        ("Asia/Kolkata", "2024-07-01 12:00 GMT", "2024-07-01 17:30:00+05:30"),
        ("Asia/Kolkata", "2024-07-01 12:00 Europe/Berlin", "2024-07-01 15:30:00+05:30"),
    ] {
        let found = zone(name).within(|| through("timestamptz", text));
        assert_eq!(found.unwrap(), expected, "{text} in {name}");
    }
    let kolkata = zone("Asia/Kolkata");
    let (ty, text) = (ty("timestamptz"), "2024-07-01 12:00:00+00");
    let array = decode_text(&ty, Some(text.as_bytes())).unwrap();
    assert_eq!(kolkata.within(|| sent(&ty, &array)), sent(&ty, &array), "binary has no zone");
    assert_eq!(
        kolkata.within(|| through("timestamp", "2024-07-01 12:00+02")).unwrap(),
        "2024-07-01 12:00:00"
    );
    assert_eq!(
        kolkata.within(|| through("timestamptz[]", "{2024-07-01 12:00}")).unwrap(),
        "{\"2024-07-01 12:00:00+05:30\"}"
    );
    assert_eq!(printed(&ty, &array), text, "and outside of it all is as before");
}
