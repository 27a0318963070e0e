//! For every format: what is written is read back, wherever the pieces are cut, and no bytes make it panic.

use proptest::prelude::*;
use sepal_database::{CopyFormat, CopyHeader, CopyKind, OutputColumn};

use super::{binary_file, columns, decode_pieces, encode, format, items, printed};

fn options() -> impl Strategy<Value = CopyFormat> {
    let characters = prop_oneof![Just((b'"', b'"')), Just((b'\'', b'\\')), Just((b'"', b'!'))];
    let kinds = prop_oneof![Just(CopyKind::Text), Just(CopyKind::Csv), Just(CopyKind::Binary)];
    (kinds, characters, prop::sample::select(vec![b',', b'\t', b'|']), any::<bool>(), any::<bool>()).prop_map(
        |(kind, (quote, escape), delimiter, header, named_null)| {
            let mut options = format(kind);
            options.delimiter = delimiter;
            (options.quote, options.escape) = (quote, escape);
            options.header =
                if header && kind != CopyKind::Binary { CopyHeader::Match } else { CopyHeader::No };
            if named_null && kind == CopyKind::Csv {
                options.null = "NULL".to_owned();
            }
            options
        },
    )
}

/// Rows of text in the text format, which Sepal reads and then writes in another.
fn text_rows() -> impl Strategy<Value = String> {
    let value = prop_oneof![
        Just("\\N".to_owned()),
        "[a-z\"',!| {}\u{e9}]{0,8}",
        Just("NULL".to_owned()),
        Just("a\\nb\\r\\\\\\t".to_owned()),
        Just("\\\\.".to_owned()),
    ];
    let row = (
        prop_oneof![any::<i32>().prop_map(|number| number.to_string()), Just("\\N".to_owned())],
        value.clone(),
        value,
    )
        .prop_map(|(a, b, c)| format!("{a}\t{b}\t{c}\n"));
    prop::collection::vec(row, 0..6).prop_map(|rows| rows.concat())
}

/// The printed rows, or the error's message and context: what must not depend on where pieces end.
fn outcome(
    format: &CopyFormat,
    columns: &[OutputColumn],
    pieces: &[&[u8]],
) -> Result<Vec<Vec<Option<String>>>, String> {
    decode_pieces(format, columns, pieces.iter().copied())
        .map(|batches| printed(columns, &batches))
        .map_err(|error| format!("{} {} {:?}", error.state().code(), error.message(), error.context()))
}

proptest! {
    #[test]
    fn what_is_written_is_read_back((options, text) in (options(), text_rows())) {
        let items = items();
        let batches = decode_pieces(&format(CopyKind::Text), &items, [text.as_bytes()]).unwrap();
        let data = encode(&options, &items, &batches);
        let back = decode_pieces(&options, &items, [data.as_slice()]).unwrap();
        prop_assert_eq!(printed(&items, &back), printed(&items, &batches), "{}", String::from_utf8_lossy(&data));
    }

    #[test]
    fn pieces_make_no_difference((options, text) in (options(), text_rows())) {
        let items = items();
        let batches = decode_pieces(&format(CopyKind::Text), &items, [text.as_bytes()]).unwrap();
        let data = encode(&options, &items, &batches);
        let whole = outcome(&options, &items, &[&data]);
        for cut in 0..=data.len() {
            prop_assert_eq!(&outcome(&options, &items, &[&data[..cut], &data[cut..]]), &whole, "cut at {}", cut);
        }
        let single: Vec<&[u8]> = data.chunks(1).collect();
        prop_assert_eq!(&outcome(&options, &items, &single), &whole);
    }

    #[test]
    fn malformed_data_is_refused_alike_in_pieces(
        options in options(),
        text in "[12a\t,|\"'!\\\\.N\r\n\u{e9}]{0,24}",
        step in 1usize..5,
    ) {
        let data = if options.kind == CopyKind::Binary { binary_file(text.as_bytes()) } else { text.into_bytes() };
        let pieces: Vec<&[u8]> = data.chunks(step).collect();
        prop_assert_eq!(outcome(&options, &items(), &pieces), outcome(&options, &items(), &[&data]));
    }

    #[test]
    fn random_bytes_never_panic(options in options(), data in prop::collection::vec(any::<u8>(), 0..200)) {
        let typed = columns(&[("v", "vector"), ("n", "numeric"), ("t", "timestamptz[]")]);
        let file = if options.kind == CopyKind::Binary { binary_file(&data) } else { data };
        let _refused_or_not = outcome(&options, &typed, &[&file]);
        let _refused_or_not = outcome(&options, &items(), &[&file]);
    }

    #[test]
    fn damaged_binary_files_never_panic(position in 0usize..60, byte in any::<u8>()) {
        let row = b"\0\x03\0\0\0\x04\0\0\0\x01\xff\xff\xff\xff\0\0\0\x01b";
        let mut data = binary_file(&[row.as_slice(), row, b"\xff\xff"].concat());
        let position = position % data.len();
        data[position] = byte;
        let pieces: Vec<&[u8]> = data.chunks(3).collect();
        prop_assert_eq!(
            outcome(&format(CopyKind::Binary), &items(), &pieces),
            outcome(&format(CopyKind::Binary), &items(), &[&data])
        );
    }
}
