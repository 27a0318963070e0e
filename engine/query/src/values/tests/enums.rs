//! Labels in both forms, alone and in arrays, and what no label is.

use arrow::array::Array;
use sepal_types::{EnumDef, EnumType, SqlType, TableId};

use super::{decode_binary, decode_text, hex, printed, sent};

fn mood() -> EnumType {
    let def = EnumDef {
        id: TableId(20_000),
        array: TableId(20_001),
        schema: "public".into(),
        name: "mood".into(),
        labels: vec![],
    };
    let labels: Vec<String> = ["sad", "a,b", "", "Ä"].map(str::to_owned).to_vec();
    EnumType::from(def.with_labels(&labels, &|| TableId(20_002)).unwrap())
}

#[test]
fn a_label_is_its_bytes() {
    let ty = SqlType::Enum(mood());
    for (label, bytes) in [("sad", "736164"), ("a,b", "612c62"), ("", ""), ("Ä", "c384")] {
        let read = decode_text(&ty, Some(label.as_bytes())).unwrap();
        assert_eq!((printed(&ty, &read).as_str(), hex(&sent(&ty, &read)).as_str()), (label, bytes));
        let read = decode_binary(&ty, Some(label.as_bytes())).unwrap();
        assert_eq!(printed(&ty, &read), label);
    }
    assert!(decode_text(&ty, None).unwrap().is_null(0));
    for wrong in [&b"Sad"[..], b"sad ", b"b"] {
        assert_eq!(decode_text(&ty, Some(wrong)).unwrap_err().state().code(), "22P02");
        assert_eq!(decode_binary(&ty, Some(wrong)).unwrap_err().state().code(), "22P02");
    }
    assert_eq!(decode_text(&ty, Some(b"\xff")).unwrap_err().state().code(), "22021");
}

#[test]
fn arrays_quote_labels_and_name_the_type() {
    let ty = SqlType::Array(Box::new(SqlType::Enum(mood())));
    let text = "{sad,\"a,b\",\"\",NULL}";
    let read = decode_text(&ty, Some(text.as_bytes())).unwrap();
    assert_eq!(printed(&ty, &read), text);
    let bytes = sent(&ty, &read);
    // The oid of the elements, 20000.
    assert_eq!(hex(&bytes[8..12]), "00004e20");
    assert_eq!(printed(&ty, &decode_binary(&ty, Some(&bytes)).unwrap()), text);
}

#[test]
fn a_place_of_an_enum_that_is_not_known_is_never_shown() {
    let read = decode_text(&SqlType::Enum(mood()), Some(b"sad")).unwrap();
    let lost = SqlType::Enum(EnumType::unknown());
    let mut out = bytes::BytesMut::new();
    let error = super::encode_text(read.as_ref(), 0, &lost, &mut out).unwrap_err();
    assert_eq!((error.state().code(), out.len()), ("0A000", 0));
}
