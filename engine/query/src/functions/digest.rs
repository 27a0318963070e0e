//! `md5`, `sha256` and their kin, single bytes of a `bytea`, and how many there are.
//!
//! What queries compute of their rows, by the libraries of digests. Nothing of Sepal's own is protected by them.

use std::sync::Arc;

use datafusion::logical_expr::ScalarUDF;
use md5::Md5;
use sepal_types::{Error, SqlState};
use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};

use super::overloads::{
    Answer, Given,
    Kind::{Bytea, Int4, Text},
    Overload, functions as declared,
};

const FUNCTIONS: &[(&str, &[Overload])] = &[
    (
        "md5",
        &[
            Overload::new(&[Text], Text, |given, _| Ok(Answer::Text(hex(&Md5::digest(bytes(given)))))),
            Overload::new(&[Bytea], Text, |given, _| Ok(Answer::Text(hex(&Md5::digest(bytes(given)))))),
        ],
    ),
    ("sha224", &[Overload::new(&[Bytea], Bytea, |given, _| Ok(digest::<Sha224>(given)))]),
    ("sha256", &[Overload::new(&[Bytea], Bytea, |given, _| Ok(digest::<Sha256>(given)))]),
    ("sha384", &[Overload::new(&[Bytea], Bytea, |given, _| Ok(digest::<Sha384>(given)))]),
    ("sha512", &[Overload::new(&[Bytea], Bytea, |given, _| Ok(digest::<Sha512>(given)))]),
    (
        "length",
        &[
            Overload::new(&[Text], Int4, |given, _| {
                Ok(Answer::Int(match given.first() {
                    Some(Given::Text(text)) => text.chars().count() as i64,
                    _ => 0,
                }))
            }),
            Overload::new(&[Bytea], Int4, |given, _| Ok(Answer::Int(bytes(given).len() as i64))),
        ],
    ),
    (
        "get_byte",
        &[Overload::new(&[Bytea, Int4], Int4, |given, _| {
            let bytes = bytes(given);
            Ok(Answer::Int(bytes[place(bytes, whole(given, 1))?].into()))
        })],
    ),
    (
        "set_byte",
        &[Overload::new(&[Bytea, Int4, Int4], Bytea, |given, _| {
            let mut bytes = bytes(given).to_vec();
            let place = place(&bytes, whole(given, 1))?;
            // The lowest bits of the number, as in Postgres.
            bytes[place] = (whole(given, 2) & 0xff) as u8;
            Ok(Answer::Bytes(bytes))
        })],
    ),
];

pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    declared(FUNCTIONS)
}

fn bytes<'a>(given: &[Given<'a>]) -> &'a [u8] {
    match given.first() {
        Some(Given::Bytes(bytes)) => bytes,
        Some(Given::Text(text)) => text.as_bytes(),
        _ => &[],
    }
}

fn whole(given: &[Given<'_>], position: usize) -> i64 {
    match given.get(position) {
        Some(Given::Int(number)) => *number,
        _ => 0,
    }
}

fn digest<D: Digest>(given: &[Given<'_>]) -> Answer {
    Answer::Bytes(D::digest(bytes(given)).to_vec())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Errors: 2202E.
fn place(bytes: &[u8], index: i64) -> Result<usize, Error> {
    usize::try_from(index).ok().filter(|place| *place < bytes.len()).ok_or_else(|| {
        let last = bytes.len() as i64 - 1;
        let message = format!("index {index} out of valid range, 0..{last}");
        Error::new(SqlState::ArraySubscriptError, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_the_standards() {
        let abc = [Given::Text("abc")];
        assert_eq!(hex(&Md5::digest(bytes(&abc))), "900150983cd24fb0d6963f7d28e17f72");
        let Answer::Bytes(sha) = digest::<Sha256>(&abc) else { panic!("no bytes") };
        assert_eq!(hex(&sha), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(place(b"ab", 1), Ok(1));
        let outside = place(b"", 0).expect_err("there is none");
        assert_eq!(
            (outside.state().code(), outside.message()),
            ("2202E", "index 0 out of valid range, 0..-1")
        );
    }
}
