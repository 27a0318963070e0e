//! What is refused, with Postgres' SQLSTATE and words.

use super::{decode_binary, decode_text, through, ty, unhex, words};

fn check(cases: &[(&str, &str, &str, &str)]) {
    for (name, input, code, message) in cases {
        let error = through(name, input).expect_err(input);
        assert_eq!(words(&error), (*code, *message), "{name} of {input:?}");
    }
}

#[test]
fn scalars() {
    check(&[
        ("int4", "x", "22P02", "invalid input syntax for type integer: \"x\""),
        ("int4", "", "22P02", "invalid input syntax for type integer: \"\""),
        ("int4", "99999999999", "22003", "value \"99999999999\" is out of range for type integer"),
        ("int2", "99999", "22003", "value \"99999\" is out of range for type smallint"),
        (
            "int8",
            "99999999999999999999999999999999999999999999",
            "22003",
            "value \"99999999999999999999999999999999999999999999\" is out of range for type bigint",
        ),
        ("int4", "1_", "22P02", "invalid input syntax for type integer: \"1_\""),
        ("oid", "4294967296", "22003", "value \"4294967296\" is out of range for type oid"),
        ("oid", "x", "22P02", "invalid input syntax for type oid: \"x\""),
        ("bool", "o", "22P02", "invalid input syntax for type boolean: \"o\""),
        ("bool", "", "22P02", "invalid input syntax for type boolean: \"\""),
        ("float4", "x", "22P02", "invalid input syntax for type real: \"x\""),
        ("float4", "1e50", "22003", "\"1e50\" is out of range for type real"),
        ("float8", "1e400", "22003", "\"1e400\" is out of range for type double precision"),
        ("float8", "1e-400", "22003", "\"1e-400\" is out of range for type double precision"),
        ("float8", "1x", "22P02", "invalid input syntax for type double precision: \"1x\""),
        ("varchar(3)", "abcd", "22001", "value too long for type character varying(3)"),
        ("bytea", "\\xgg", "22023", "invalid hexadecimal digit: \"g\""),
        ("bytea", "\\x123", "22023", "invalid hexadecimal data: odd number of digits"),
        ("bytea", "\\x1 2", "22023", "invalid hexadecimal digit: \" \""),
        ("bytea", "\\12", "22P02", "invalid input syntax for type bytea"),
        ("uuid", "a", "22P02", "invalid input syntax for type uuid: \"a\""),
        ("int2vector", "1 2 x", "22P02", "invalid input syntax for type smallint: \"x\""),
        ("text", "a\0b", "22021", "invalid byte sequence for encoding \"UTF8\": 0x00"),
    ]);
}

#[test]
fn numeric() {
    check(&[
        ("numeric(4,2)", "12345", "22003", "numeric field overflow"),
        ("numeric(4,2)", "1e1000000000000", "22003", "numeric field overflow"),
        ("numeric(5,2)", "inf", "22003", "numeric field overflow"),
        ("numeric", "abc", "22P02", "invalid input syntax for type numeric: \"abc\""),
        ("numeric", "1e", "22P02", "invalid input syntax for type numeric: \"1e\""),
        ("numeric", ".", "22P02", "invalid input syntax for type numeric: \".\""),
        ("numeric", "1__0", "22P02", "invalid input syntax for type numeric: \"1__0\""),
        ("numeric", "1e30", "22003", "value overflows numeric format"),
        ("numeric", "NaN", "0A000", "numeric cannot hold NaN"),
    ]);
    let detail = through("numeric(2,2)", "0.99999").unwrap_err();
    assert_eq!(
        detail.detail(),
        Some("A field with precision 2, scale 2 must round to an absolute value less than 1.")
    );
}

#[test]
fn dates_and_times() {
    let range = |text: &str| format!("date/time field value out of range: \"{text}\"");
    for (name, text) in [
        ("date", "2024-13-01"),
        ("date", "2024-02-30"),
        ("date", "0000-01-01"),
        ("timestamp", "2024-01-02 25:00:00"),
        ("timestamp", "2024-01-02 03:61"),
        ("time", "25:00"),
        ("time", "24:00:01"),
    ] {
        assert_eq!(words(&through(name, text).unwrap_err()), ("22008", range(text).as_str()));
    }
    assert_eq!(
        through("date", "2024-02-32").unwrap_err().hint(),
        Some("Perhaps you need a different \"datestyle\" setting.")
    );
    check(&[
        ("date", "foo", "22007", "invalid input syntax for type date: \"foo\""),
        ("date", "", "22007", "invalid input syntax for type date: \"\""),
        ("date", "inf", "22007", "invalid input syntax for type date: \"inf\""),
        ("date", "5874898-01-01", "22008", "date out of range: \"5874898-01-01\""),
        ("timestamp", "294277-01-01", "22008", "timestamp out of range: \"294277-01-01\""),
        ("timestamp", "03:04:05", "22007", "invalid input syntax for type timestamp: \"03:04:05\""),
        (
            "timestamptz",
            "2024-01-02 03:04:05 foo",
            "22007",
            "invalid input syntax for type timestamp with time zone: \"2024-01-02 03:04:05 foo\"",
        ),
        ("timestamptz", "2024-01-02 03:04:05 Foo/Bar", "22023", "time zone \"foo/bar\" not recognized"),
        (
            "timestamptz",
            "2024-01-02 03:04:05+01 Europe/Berlin",
            "22007",
            "invalid input syntax for type timestamp with time zone: \"2024-01-02 03:04:05+01 Europe/Berlin\"",
        ),
        (
            "timestamptz",
            "2024-01-02 03:04:05+16",
            "22008",
            "time zone displacement out of range: \"2024-01-02 03:04:05+16\"",
        ),
        ("time", "12", "22007", "invalid input syntax for type time: \"12\""),
        ("time", "2024-01-02", "22007", "invalid input syntax for type time: \"2024-01-02\""),
        ("interval", "foo", "22007", "invalid input syntax for type interval: \"foo\""),
        ("interval", "", "22007", "invalid input syntax for type interval: \"\""),
        ("interval", "P", "22007", "invalid input syntax for type interval: \"P\""),
        ("interval", "1 mon 1 mon", "22007", "invalid input syntax for type interval: \"1 mon 1 mon\""),
        ("interval", "1 day 25:61", "22008", "interval field value out of range: \"1 day 25:61\""),
        (
            "interval",
            "99999999999 years",
            "22008",
            "interval field value out of range: \"99999999999 years\"",
        ),
    ]);
}

#[test]
fn json_says_what_and_where() {
    let cases = [
        ("{a}", "Token \"a\" is invalid.", "JSON data, line 1: {a..."),
        ("{\"a\":}", "Expected JSON value, but found \"}\".", "JSON data, line 1: {\"a\":}"),
        ("{\"a\" 1}", "Expected \":\", but found \"1\".", "JSON data, line 1: {\"a\" 1..."),
        ("[1,]", "Expected JSON value, but found \"]\".", "JSON data, line 1: [1,]"),
        ("", "The input string ended unexpectedly.", "JSON data, line 1: "),
        ("[1", "The input string ended unexpectedly.", "JSON data, line 1: [1"),
        ("\"abc", "Token \"\"abc\" is invalid.", "JSON data, line 1: \"abc"),
        ("\"a\\qb\"", "Escape sequence \"\\q\" is invalid.", "JSON data, line 1: \"a\\q..."),
        ("\"a\nb\"", "Character with value 0x0a must be escaped.", "JSON data, line 1: \"a"),
        ("1 2", "Expected end of input, but found \"2\".", "JSON data, line 1: 1 2"),
        ("{\"a\":1,}", "Expected string, but found \"}\".", "JSON data, line 1: {\"a\":1,}"),
        (
            "{\"a\":1 \"b\"}",
            "Expected \",\" or \"}\", but found \"\"b\"\".",
            "JSON data, line 1: {\"a\":1 \"b\"...",
        ),
        ("[1 2]", "Expected \",\" or \"]\", but found \"2\".", "JSON data, line 1: [1 2..."),
        ("01", "Token \"01\" is invalid.", "JSON data, line 1: 01"),
        ("+1", "Token \"+\" is invalid.", "JSON data, line 1: +..."),
        ("{1:2}", "Expected string or \"}\", but found \"1\".", "JSON data, line 1: {1..."),
        (
            "\"\\u12zz\"",
            "\"\\u\" must be followed by four hexadecimal digits.",
            "JSON data, line 1: \"\\u12z...",
        ),
        ("{\n\"a\": 1,\n\"b\": x\n}", "Token \"x\" is invalid.", "JSON data, line 3: \"b\": x"),
        ("1.", "Token \"1.\" is invalid.", "JSON data, line 1: 1."),
        ("-", "Token \"-\" is invalid.", "JSON data, line 1: -"),
    ];
    for (text, detail, context) in cases {
        for name in ["json", "jsonb"] {
            let error = through(name, text).expect_err(text);
            assert_eq!(words(&error), ("22P02", "invalid input syntax for type json"), "{text}");
            assert_eq!((error.detail(), error.context()), (Some(detail), Some(context)), "{text}");
        }
    }
    check(&[
        ("jsonb", "\"\\u0000\"", "22P05", "unsupported Unicode escape sequence"),
        ("jsonb", "\"\\ud800x\"", "22P02", "invalid input syntax for type json"),
        ("jsonb", "\"\\udc00\"", "22P02", "invalid input syntax for type json"),
        ("json", &"[".repeat(100_000), "54000", "JSON is nested more than 512 levels deep"),
    ]);
    assert!(through("json", "\"\\u0000\\ud800\"").is_ok(), "json keeps escapes unread");
}

#[test]
fn arrays() {
    let malformed = |text: &str| format!("malformed array literal: \"{text}\"");
    for (text, detail) in [
        ("{1,2", "Unexpected end of input."),
        ("1,2", "Array value must start with \"{\" or dimension information."),
        ("", "Array value must start with \"{\" or dimension information."),
        ("{1}x", "Junk after closing right brace."),
        ("{1,}", "Unexpected \"}\" character."),
        ("{,}", "Unexpected \",\" character."),
        ("{\"1\"2}", "Unexpected array element."),
        ("{1\"2\"}", "Unexpected array element."),
    ] {
        let error = through("int4[]", text).expect_err(text);
        assert_eq!(words(&error), ("22P02", malformed(text).as_str()));
        assert_eq!(error.detail(), Some(detail), "{text}");
    }
    check(&[
        ("int4[]", "{1 2}", "22P02", "invalid input syntax for type integer: \"1 2\""),
        ("int4[]", "{{1,2},{3,4}}", "0A000", "arrays of more than one dimension are not supported"),
        ("varchar(1)[]", "{ab}", "22001", "value too long for type character varying(1)"),
    ]);
}

#[test]
fn vectors() {
    check(&[
        ("vector(3)", "[1,2]", "22000", "expected 3 dimensions, not 2"),
        ("vector", "[NaN]", "22000", "NaN not allowed in vector"),
        ("vector", "[]", "22000", "vector must have at least 1 dimension"),
        ("bit(3)", "10", "22026", "bit string length 2 does not match type bit(3)"),
        ("bit(3)", "102", "22P02", "\"2\" is not a valid binary digit"),
        ("halfvec(3)", "[1,2]", "22000", "expected 3 dimensions, not 2"),
        ("halfvec", "[NaN]", "22000", "NaN not allowed in halfvec"),
        ("halfvec", "[65520]", "22003", "\"65520\" is out of range for type halfvec"),
        ("halfvec", "1", "22P02", "invalid input syntax for type halfvec: \"1\""),
        ("sparsevec(3)", "{1:1}/2", "22000", "expected 3 dimensions, not 2"),
        ("sparsevec", "{3:1}/2", "22000", "sparsevec index out of bounds"),
        ("sparsevec", "[1]", "22P02", "invalid input syntax for type sparsevec: \"[1]\""),
    ]);
}

#[test]
fn binary() {
    let cases = [
        ("int4", "000001", "22P03", "insufficient data left in message"),
        ("int4", "0000000100", "22P03", "incorrect binary data format"),
        ("uuid", "00", "22P03", "insufficient data left in message"),
        ("bool", "", "22P03", "insufficient data left in message"),
        ("jsonb", "027b7d", "22P03", "unsupported jsonb version number 2"),
        ("text", "ff", "22021", "invalid byte sequence for encoding \"UTF8\": 0xff"),
        ("text", "e228a1", "22021", "invalid byte sequence for encoding \"UTF8\": 0xe2 0x28 0xa1"),
        ("date", "7ffffff0", "22008", "date out of range"),
        ("time", "ffffffffffffffff", "22008", "time out of range"),
        ("timestamp", "7ffffffffffffff0", "22008", "timestamp out of range"),
        ("numeric", "0001000012340000", "22P03", "invalid sign in external \"numeric\" value"),
        ("numeric", "00010000000000002710", "22P03", "invalid digit in external \"numeric\" value"),
        ("numeric", "000100000000", "22P03", "insufficient data left in message"),
        ("numeric", "00000000c0000000", "0A000", "numeric cannot hold NaN"),
        ("vector(3)", "000200003f80000040000000", "22000", "expected 3 dimensions, not 2"),
        ("vector", "00000000", "22000", "vector must have at least 1 dimension"),
        ("vector", "3e810000", "54000", "vector cannot have more than 16000 dimensions"),
        ("vector", "000100013f800000", "22000", "expected unused to be 0, not 1"),
        ("vector", "000100003f8000", "22P03", "insufficient data left in message"),
        ("vector", "000100003f80000000", "22P03", "incorrect binary data format"),
        ("vector", "000100007fc00000", "22000", "NaN not allowed in vector"),
        ("vector", "00010000ff800000", "22000", "infinite value not allowed in vector"),
        ("bit", "ffffffff", "22P03", "invalid length in external bit string"),
        ("bit", "0000000980", "22P03", "insufficient data left in message"),
        ("bit", "000000018000", "22P03", "incorrect binary data format"),
        ("bit(3)", "00000004b0", "22026", "bit string length 4 does not match type bit(3)"),
        ("halfvec", "00000000", "22000", "halfvec must have at least 1 dimension"),
        ("halfvec", "3e810000", "54000", "halfvec cannot have more than 16000 dimensions"),
        ("halfvec", "000100003c", "22P03", "insufficient data left in message"),
        ("halfvec", "000100003c0000", "22P03", "incorrect binary data format"),
        ("halfvec", "000100007e00", "22000", "NaN not allowed in halfvec"),
        ("halfvec", "00010000fc00", "22000", "infinite value not allowed in halfvec"),
        (
            "int4[]",
            "000000010000000000000019000000010000000100000001",
            "42804",
            "binary data has array element type 25 (text) instead of expected 23 (integer)",
        ),
        (
            "int4[]",
            "000000020000000000000017",
            "0A000",
            "arrays of more than one dimension are not supported",
        ),
        (
            "int4[]",
            "000000070000000000000017",
            "54000",
            "number of array dimensions (7) exceeds the maximum allowed (6)",
        ),
        ("int4[]", "0000000100000002000000170000000100000001", "22P03", "invalid array flags"),
        (
            "int4[]",
            "00000001000000000000001700000002000000010000000400000001",
            "22P03",
            "insufficient data left in message",
        ),
    ];
    for (name, bytes, code, message) in cases {
        let error = decode_binary(&ty(name), Some(&unhex(bytes))).expect_err(bytes);
        assert_eq!(words(&error), (code, message), "{name} {bytes}");
    }
}

/// In the order of pgvector's checks.
#[test]
fn sparse_vectors_in_binary() {
    let cases = [
        ("0000", "22P03", "insufficient data left in message"),
        ("000000000000000000000000", "22000", "sparsevec must have at least 1 dimension"),
        ("3b9aca010000000000000000", "54000", "sparsevec cannot have more than 1000000000 dimensions"),
        ("00000003ffffffff00000000", "22000", "sparsevec cannot have negative number of elements"),
        ("00004e2000003e8100000000", "54000", "sparsevec cannot have more than 16000 non-zero elements"),
        ("000000030000000400000000", "54000", "sparsevec cannot have more elements than dimensions"),
        ("000000030000000000000001", "22000", "expected unused to be 0, not 1"),
        ("000000030000000100000000000000033f800000", "22000", "sparsevec index out of bounds"),
        ("000000030000000100000000ffffffff3f800000", "22000", "sparsevec index out of bounds"),
        (
            "00000003000000020000000000000001000000003f8000003f800000",
            "22000",
            "sparsevec indices must be in ascending order",
        ),
        (
            "00000003000000020000000000000001000000013f8000003f800000",
            "22000",
            "sparsevec indices must not contain duplicates",
        ),
        (
            "0000000300000001000000000000000100000000",
            "22000",
            "binary representation of sparsevec cannot contain zero values",
        ),
        ("000000030000000100000000000000017fc00000", "22000", "NaN not allowed in sparsevec"),
        ("000000030000000100000000000000017f800000", "22000", "infinite value not allowed in sparsevec"),
        ("00000003000000010000000000000001", "22P03", "insufficient data left in message"),
        ("000000030000000100000000000000013f80000000", "22P03", "incorrect binary data format"),
    ];
    for (bytes, code, message) in cases {
        let error = decode_binary(&ty("sparsevec"), Some(&unhex(bytes))).expect_err(bytes);
        assert_eq!(words(&error), (code, message), "{bytes}");
    }
    let three = unhex("000000030000000000000000");
    let error = decode_binary(&ty("sparsevec(4)"), Some(&three)).unwrap_err();
    assert_eq!(words(&error), ("22000", "expected 4 dimensions, not 3"));
}

/// Five bytes for a NULL element must not become 64 kB each without end.
#[test]
fn nulls_in_an_array_of_vectors_are_bounded() {
    let text = format!("{{{}NULL}}", "NULL,".repeat(10_000));
    let error = decode_text(&ty("vector(16000)[]"), Some(text.as_bytes())).unwrap_err();
    assert_eq!(error.state().code(), "54000");
}
