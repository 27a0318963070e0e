//! `md5`, `sha256` and their kin, `hashtext`, single bytes of a `bytea`, and how many there are.
//!
//! What queries compute of their rows, by the libraries of digests but for `hashtext`. Nothing of Sepal's own is
//! protected by them.

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
    (
        "hashtext",
        &[Overload::new(&[Text], Int4, |given, _| {
            Ok(Answer::Int(hash_bytes(bytes(given)).cast_signed().into()))
        })],
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

/// Postgres' `hash_bytes` (Bob Jenkins, lookup3), which advisory locks are numbered by: `hashtext('name')`.
fn hash_bytes(bytes: &[u8]) -> u32 {
    let length = bytes.len() as u32;
    let start = 0x9e37_79b9_u32.wrapping_add(length).wrapping_add(3_923_095);
    let (mut a, mut b, mut c) = (start, start, start);
    let (blocks, rest) = bytes.as_chunks::<12>();
    for block in blocks {
        a = a.wrapping_add(word(&block[..4]));
        b = b.wrapping_add(word(&block[4..8]));
        c = c.wrapping_add(word(&block[8..]));
        for (first, second) in [(4, 6), (8, 16), (19, 4)] {
            a = a.wrapping_sub(c) ^ c.rotate_left(first);
            c = c.wrapping_add(b);
            b = b.wrapping_sub(a) ^ a.rotate_left(second);
            a = a.wrapping_add(c);
            (a, b, c) = (c, a, b);
        }
    }
    let part = |from: usize, to: usize| word(rest.get(from..to.min(rest.len())).unwrap_or_default());
    a = a.wrapping_add(part(0, 4));
    b = b.wrapping_add(part(4, 8));
    // The lowest byte stands for the length.
    c = c.wrapping_add(part(8, 12) << 8);
    for (first, second, third) in [(14, 11, 25), (16, 4, 14)] {
        c = (c ^ b).wrapping_sub(b.rotate_left(first));
        a = (a ^ c).wrapping_sub(c.rotate_left(second));
        b = (b ^ a).wrapping_sub(a.rotate_left(third));
    }
    (c ^ b).wrapping_sub(b.rotate_left(24))
}

/// Up to four bytes, the least first.
fn word(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |word, byte| (word << 8) | u32::from(*byte))
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
