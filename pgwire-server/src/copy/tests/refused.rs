//! What is refused, with Postgres' SQLSTATE, words and context.

use sepal_database::{CopyFormat, CopyHeader, CopyKind, Error};

use super::{Decoder, binary_file, format, items, rows};

fn refuse(format: &CopyFormat, data: &[u8]) -> Error {
    rows(format, &items(), data).expect_err(&String::from_utf8_lossy(data))
}

#[track_caller]
fn check(format: &CopyFormat, data: &[u8], code: &str, message: &str, context: &str) {
    let error = refuse(format, data);
    assert_eq!((error.state().code(), error.message()), (code, message));
    assert_eq!(error.context(), (!context.is_empty()).then_some(context));
}

#[test]
fn text() {
    let text = format(CopyKind::Text);
    let check =
        |data: &[u8], code: &str, message: &str, context: &str| check(&text, data, code, message, context);
    check(b"1\ta\n", "22P04", "missing data for column \"c\"", "COPY items, line 1: \"1\ta\"");
    check(
        b"1\ta\tb\n1\ta\tb\tc\n",
        "22P04",
        "extra data after last expected column",
        "COPY items, line 2: \"1\ta\tb\tc\"",
    );
    check(
        b"x\ta\tb\n",
        "22P02",
        "invalid input syntax for type integer: \"x\"",
        "COPY items, line 1, column a: \"x\"",
    );
    let number = "1234567890".repeat(15);
    check(
        format!("{number}\ta\tb\n").as_bytes(),
        "22003",
        &format!("value \"{number}\" is out of range for type integer"),
        &format!("COPY items, line 1, column a: \"{}...\"", &number[..100]),
    );
    check(b"1\ta\tb\n\\.x\n", "22P04", "end-of-copy marker corrupt", "COPY items, line 2");
    check(b"1\ta\t\\.\n", "22P04", "end-of-copy marker is not alone on its line", "COPY items, line 1");
    check(
        b"1\ta\t\xff\n",
        "22021",
        "invalid byte sequence for encoding \"UTF8\": 0xff",
        "COPY items, line 1, column c",
    );
    check(
        b"1\ta\t\\0\n",
        "22021",
        "invalid byte sequence for encoding \"UTF8\": 0x00",
        "COPY items, line 1, column c",
    );
    check(
        b"1\ta\\\nz\tb\nx\ta\tb\n",
        "22P02",
        "invalid input syntax for type integer: \"x\"",
        "COPY items, line 2, column a: \"x\"",
    );
}

#[test]
fn mixed_ends_of_lines() {
    let cases: [(CopyKind, &[u8], &str, &str); 4] = [
        (
            CopyKind::Text,
            b"1\ta\tb\r\n2\tx\ty\n",
            "literal newline found in data",
            "Use \"\\n\" to represent newline.",
        ),
        (
            CopyKind::Text,
            b"1\ta\tb\n2\tx\ty\r\n",
            "literal carriage return found in data",
            "Use \"\\r\" to represent carriage return.",
        ),
        (
            CopyKind::Csv,
            b"1,a,b\n2,x,y\r\n",
            "unquoted carriage return found in data",
            "Use quoted CSV field to represent carriage return.",
        ),
        (
            CopyKind::Csv,
            b"1,a,b\r\n2,x,y\n",
            "unquoted newline found in data",
            "Use quoted CSV field to represent newline.",
        ),
    ];
    for (kind, data, message, hint) in cases {
        let error = refuse(&format(kind), data);
        assert_eq!((error.message(), error.hint()), (message, Some(hint)));
        assert_eq!(error.context(), Some("COPY items, line 2"));
    }
}

#[test]
fn csv() {
    let csv = format(CopyKind::Csv);
    let check = |data: &[u8], message: &str, context: &str| check(&csv, data, "22P04", message, context);
    check(b"1,\"a\nb,c\n", "unterminated CSV quoted field", "COPY items, line 1: \"1,\"a\nb,c\n\"");
    check(
        b"1,\"a\nb\",\"c\"x,3\n",
        "extra data after last expected column",
        "COPY items, line 1: \"1,\"a\nb\",\"c\"x,3\"",
    );
    check(b"\n", "missing data for column \"b\"", "COPY items, line 1: \"\"");
    // Lines inside quotes count, once it is known how lines end.
    check(b"1,a,b\n2,\"\n\n\",c\n3\n", "missing data for column \"b\"", "COPY items, line 5: \"3\"");
}

#[test]
fn header_lines() {
    let mut csv = format(CopyKind::Csv);
    csv.header = CopyHeader::Match;
    let mut text = format(CopyKind::Text);
    text.header = CopyHeader::Match;
    let cases: [(&CopyFormat, &[u8], &str, &str); 5] = [
        (&csv, b"a,b\n", "wrong number of fields in header line: got 2, expected 3", "\"a,b\""),
        (&csv, b"a,b,c,d\n", "wrong number of fields in header line: got 4, expected 3", "\"a,b,c,d\""),
        (
            &csv,
            b"a,b,d\n",
            "column name mismatch in header line field 3: got \"d\", expected \"c\"",
            "\"a,b,d\"",
        ),
        (
            &csv,
            b"a,,d\n",
            "column name mismatch in header line field 2: got null value (\"\"), expected \"b\"",
            "\"a,,d\"",
        ),
        (
            &text,
            b"a\t\\N\td\n",
            "column name mismatch in header line field 2: got null value (\"\\N\"), expected \"b\"",
            "\"a\t\\N\td\"",
        ),
    ];
    for (format, data, message, line) in cases {
        check(format, data, "22P04", message, &format!("COPY items, line 1: {line}"));
    }
}

#[test]
fn binary() {
    let binary = format(CopyKind::Binary);
    let check =
        |data: &[u8], code: &str, message: &str, context: &str| check(&binary, data, code, message, context);
    check(b"PGCOPY\\n", "22P04", "COPY file signature not recognized", "");
    check(b"PGCOPY", "22P04", "COPY file signature not recognized", "");
    check(b"", "22P04", "COPY file signature not recognized", "");
    check(b"PGCOPY\n\xff\r\n\0\0\0", "22P04", "invalid COPY file header (missing flags)", "");
    check(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0", "22P04", "invalid COPY file header (missing length)", "");
    check(b"PGCOPY\n\xff\r\n\0\0\x01\0\0\0\0\0\0", "22P04", "invalid COPY file header (WITH OIDS)", "");
    check(
        b"PGCOPY\n\xff\r\n\0\0\x02\0\0\0\0\0\0",
        "22P04",
        "unrecognized critical flags in COPY file header",
        "",
    );
    let file = |body: &[u8]| binary_file(body);
    check(&file(b"\0\x02\0\0"), "22P04", "row field count is 2, expected 3", "COPY items, line 1");
    check(
        &file(b"\0\x03\0\0\0\x05abcde"),
        "22P03",
        "incorrect binary data format",
        "COPY items, line 1, column a",
    );
    check(
        &file(b"\0\x03\0\0\0\x02ab"),
        "22P03",
        "insufficient data left in message",
        "COPY items, line 1, column a",
    );
    check(
        &file(b"\0\x03\0\0\0\x04abcd"),
        "22P04",
        "unexpected EOF in COPY data",
        "COPY items, line 1, column b",
    );
    check(&file(b"\0\x03\xff\xff\xff\xfeab"), "22P04", "invalid field size", "COPY items, line 1, column a");
    check(&file(b"\xff\xffzz"), "22P04", "received copy data after EOF marker", "COPY items, line 1");
    check(
        &file(b"\0\x03\0\0\0\x04abcd\0\0\0\x01\xff\0\0\0\x01a"),
        "22021",
        "invalid byte sequence for encoding \"UTF8\": 0xff",
        "COPY items, line 1, column b",
    );
    // A length alone reserves nothing.
    check(
        &file(b"\0\x03\0\0\0\x04abcd\x7f\xff\xff\xff"),
        "54000",
        "a COPY row is longer than 268435456 bytes",
        "COPY items, line 1",
    );
}

#[test]
fn json_shows_both_places() {
    let columns = super::columns(&[("j", "jsonb")]);
    let error = rows(&format(CopyKind::Text), &columns, b"{x}\n").unwrap_err();
    assert_eq!(error.context(), Some("JSON data, line 1: {x...\nCOPY items, line 1, column j: \"{x}\""));
}

/// Pieces of a row that never ends: looked at once each, and refused at the limit.
#[test]
fn a_row_without_end_is_refused() {
    let (piece, limit) = (vec![b'x'; 16 << 10], 1 << 20);
    for kind in [CopyKind::Text, CopyKind::Csv] {
        let mut decoder = Decoder::new(&format(kind), &items(), "items").with_max_row_bytes(limit);
        let refused = (0..=limit / piece.len()).find_map(|_| {
            decoder.push(&piece).unwrap();
            decoder.take_batch().err()
        });
        assert_eq!(refused.map(|error| error.state().code()), Some("54000"));
    }
}
