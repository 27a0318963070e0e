//! What is read, as `SELECT * FROM items` then shows it in Postgres.

use sepal_database::{CopyHeader, CopyKind};

use super::{super::BATCH_ROWS, Decoder, binary_file, columns, decode_pieces, format, items, rows};

type Row<'a> = [Option<&'a str>; 3];

#[track_caller]
fn check(kind: CopyKind, data: &[u8], expected: &[Row<'_>]) {
    check_format(&format(kind), data, expected);
}

#[track_caller]
fn check_format(format: &sepal_database::CopyFormat, data: &[u8], expected: &[Row<'_>]) {
    let rows = rows(format, &items(), data).unwrap();
    let expected: Vec<Vec<Option<String>>> =
        expected.iter().map(|row| row.iter().map(|value| value.map(str::to_owned)).collect()).collect();
    assert_eq!(rows, expected, "{:?}", String::from_utf8_lossy(data));
}

#[test]
fn text() {
    let one: Row<'_> = [Some("1"), Some("a"), Some("b")];
    check(CopyKind::Text, b"1\ta\tb\n", &[one]);
    check(CopyKind::Text, b"1\ta\tb", &[one]);
    check(CopyKind::Text, b"1\ta\tb\r\n1\ta\tb\r\n", &[one, one]);
    check(CopyKind::Text, b"1\ta\tb\r1\ta\tb\r", &[one, one]);
    check(CopyKind::Text, b"1\ta\tb\n\\.\nignored", &[one]);
    check(CopyKind::Text, b"1\ta\tb\n\\.", &[one]);
    check(CopyKind::Text, b"", &[]);
    check(CopyKind::Text, b"\\N\t\\N\t\n", &[[None, None, Some("")]]);
    check(CopyKind::Text, b"1\t\\\\N\tN\\\n", &[[Some("1"), Some("\\N"), Some("N\n")]]);
    check(CopyKind::Text, b"1\ta\\\tb\tc\\\\\n", &[[Some("1"), Some("a\tb"), Some("c\\")]]);
    check(
        CopyKind::Text,
        b"1\t\\b\\f\\n\\r\\t\\v\\q\t\\101\\7\\x41\\x4g\\x\\1012\n",
        &[[Some("1"), Some("\u{8}\u{c}\n\r\t\u{b}q"), Some("A\u{7}A\u{4}gxA2")]],
    );
    check(CopyKind::Text, b"1\ta\tb\\", &[one]);
    check(CopyKind::Text, b"\\61\ta\tb\n", &[one]);
}

#[test]
fn text_with_options() {
    let mut options = format(CopyKind::Text);
    options.delimiter = b'|';
    options.null = "b".to_owned();
    check_format(&options, b"1|b|\\b\n", &[[Some("1"), None, Some("\u{8}")]]);
    options.header = CopyHeader::Yes;
    check_format(&options, b"what|ever\n1|a|c\n", &[[Some("1"), Some("a"), Some("c")]]);
    options.header = CopyHeader::Match;
    options.null = "\\N".to_owned();
    check_format(&options, b"a|b|c\n1|a|c\n", &[[Some("1"), Some("a"), Some("c")]]);
}

#[test]
fn csv() {
    let one: Row<'_> = [Some("1"), Some("a"), Some("b")];
    check(CopyKind::Csv, b"1,a,b\n", &[one]);
    check(CopyKind::Csv, b"1,\"a\",\"b\"\r\n\"1\",a,b", &[one, one]);
    check(CopyKind::Csv, b"1,a,b\r1,a,b", &[one, one]);
    check(CopyKind::Csv, b"1,a,b\n\\.\nignored", &[one]);
    check(CopyKind::Csv, b"1,,\"\"\n", &[[Some("1"), None, Some("")]]);
    check(
        CopyKind::Csv,
        b"1,\"a,\"\"b\nc\"\"\",x\"y,\"z\n",
        &[[Some("1"), Some("a,\"b\nc\""), Some("xy,z")]],
    );
    check(CopyKind::Csv, b"1,\\.,\\N\n", &[[Some("1"), Some("\\."), Some("\\N")]]);
    check(
        CopyKind::Csv,
        b"1,a,\"c\rd\nx\r\n\"\r\n1,a,b\r\n",
        &[[Some("1"), Some("a"), Some("c\rd\nx\r\n")], one],
    );
    check(CopyKind::Csv, b"1, a ,\" b \"\n", &[[Some("1"), Some(" a "), Some(" b ")]]);
}

#[test]
fn csv_with_options() {
    let mut options = format(CopyKind::Csv);
    options.quote = b'\'';
    options.escape = b'\\';
    check_format(&options, b"1,'a\\'\\\\x\\b','c'\n", &[[Some("1"), Some("a'\\x\\b"), Some("c")]]);
    let mut options = format(CopyKind::Csv);
    options.null = "b".to_owned();
    options.force_not_null = vec!["b".to_owned()];
    options.force_null = vec!["c".to_owned()];
    check_format(&options, b"1,b,\"b\"\n", &[[Some("1"), Some("b"), None]]);
    // With both: what is quoted is NULL, what is not is none (`copy2.sql` of PostgreSQL's own tests).
    options.force_null.push("b".to_owned());
    check_format(
        &options,
        b"1,b,\"b\"\n1,\"b\",c\n",
        &[[Some("1"), Some("b"), None], [Some("1"), None, Some("c")]],
    );
    let mut options = format(CopyKind::Csv);
    options.header = CopyHeader::Match;
    check_format(&options, b"a,\"b\",c\n1,a,b\n", &[[Some("1"), Some("a"), Some("b")]]);
    options.header = CopyHeader::Yes;
    check_format(&options, b"a,\"b\nx\"\n1,a,b\n", &[[Some("1"), Some("a"), Some("b")]]);
}

#[test]
fn one_column() {
    let one = columns(&[("a", "text")]);
    let some = |text: &str| vec![Some(text.to_owned())];
    assert_eq!(rows(&format(CopyKind::Text), &one, b"\nx\n\n").unwrap(), [some(""), some("x"), some("")]);
    assert_eq!(rows(&format(CopyKind::Csv), &one, b"\nx\n").unwrap(), [vec![None], some("x")]);
}

#[test]
fn binary() {
    let row = b"\0\x03\0\0\0\x04\0\0\0\x01\xff\xff\xff\xff\0\0\0\x01b";
    let expected: Row<'_> = [Some("1"), None, Some("b")];
    check(
        CopyKind::Binary,
        &binary_file(&[row.as_slice(), row, b"\xff\xff"].concat()),
        &[expected, expected],
    );
    // PostgreSQL accepts data without a trailer.
    check(CopyKind::Binary, &binary_file(row), &[expected]);
    let extended = [b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\x03abc".as_slice(), row].concat();
    check(CopyKind::Binary, &extended, &[expected]);
}

#[test]
fn vectors_in_every_format() {
    let columns = columns(&[("id", "int8"), ("embedding", "vector(2)")]);
    let expected = [vec![Some("1".to_owned()), Some("[1,-2.5]".to_owned())]];
    assert_eq!(rows(&format(CopyKind::Text), &columns, b"1\t[1,-2.5]\n").unwrap(), expected);
    assert_eq!(rows(&format(CopyKind::Csv), &columns, b"1,\"[1,-2.5]\"\n").unwrap(), expected);
    let binary = b"\0\x02\0\0\0\x08\0\0\0\0\0\0\0\x01\0\0\0\x0c\0\x02\0\0\x3f\x80\0\0\xc0\x20\0\0";
    assert_eq!(rows(&format(CopyKind::Binary), &columns, &binary_file(binary)).unwrap(), expected);
}

#[test]
fn batches_are_bounded_by_rows_and_by_what_nulls_become() {
    let one = columns(&[("a", "int4")]);
    let batches =
        decode_pieces(&format(CopyKind::Text), &one, ["7\n".repeat(BATCH_ROWS + 3).as_bytes()]).unwrap();
    assert_eq!(batches.iter().map(|batch| batch.num_rows()).collect::<Vec<_>>(), [BATCH_ROWS, 3]);
    // Three bytes as sent, 64 kB as stored: 4 MiB hold 66 of them.
    let wide = columns(&[("a", "vector(16000)")]);
    let batches = decode_pieces(&format(CopyKind::Text), &wide, ["\\N\n".repeat(200).as_bytes()]).unwrap();
    assert_eq!(batches[0].num_rows(), 66);
}

#[test]
fn a_table_without_columns_has_rows() {
    let batches = decode_pieces(&format(CopyKind::Text), &[], [b"\n\n".as_slice()]).unwrap();
    assert_eq!(batches.iter().map(|batch| batch.num_rows()).sum::<usize>(), 2);
}

#[test]
fn what_a_row_that_is_not_whole_takes_is_known() {
    let large = vec![b'x'; 3 << 20];
    let mut decoder = Decoder::new(&format(CopyKind::Text), &items(), "items");
    decoder.push(&[b"1\t".as_slice(), large.as_slice()].concat()).unwrap();
    assert!(decoder.take_batch().unwrap().is_none());
    assert!(decoder.held_bytes() >= large.len());
    decoder.push(b"\tb\n").unwrap();
    assert!(decoder.take_batch().unwrap().is_none(), "a row is no batch yet");
    assert_eq!(decoder.held_bytes(), 0, "the buffer is given back");

    let mut decoder = Decoder::new(&format(CopyKind::Binary), &items(), "items");
    let length = u32::try_from(large.len()).unwrap().to_be_bytes();
    let row = [b"\0\x03\xff\xff\xff\xff".as_slice(), length.as_slice(), large.as_slice()].concat();
    decoder.push(&binary_file(&row)).unwrap();
    assert!(decoder.take_batch().unwrap().is_none());
    assert!(decoder.held_bytes() >= large.len(), "values that have come are held too");
}
