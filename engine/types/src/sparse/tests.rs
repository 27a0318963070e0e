//! What pgvector 0.8.5 reads, prints, refuses, and how it orders.

use std::cmp::Ordering;

use super::{SparseVector, SparseWords};

fn words(text: &str) -> Vec<i32> {
    let mut words = Vec::new();
    SparseVector::parse(text, None)
        .unwrap_or_else(|error| panic!("{text}: {error:?}"))
        .append_words(&mut words);
    words
}

fn printed(text: &str) -> String {
    let mut out = String::new();
    SparseWords::new(&words(text)).format(&mut out);
    out
}

#[test]
fn reads_what_pgvector_reads() {
    for (text, expected) in [
        ("{1:1.5,3:2}/5", "{1:1.5,3:2}/5"),
        (" { 3 : 2 , 1 : 1.5 } / 5 ", "{1:1.5,3:2}/5"),
        ("{}/3", "{}/3"),
        ("{1:0,2:-0,3:1}/3", "{3:1}/3"),
        ("{1:0,1:2}/2", "{1:2}/2"),
        ("{3:0}/2", "{}/2"),
        ("{1:1}/1000000000", "{1:1}/1000000000"),
        ("{1000000000:-1}/1000000000", "{1000000000:-1}/1000000000"),
        ("{+1:+1}/+2", "{1:1}/2"),
        ("{01:.5,2:1.}/02", "{1:0.5,2:1}/2"),
        ("{1:1e-40}/2", "{1:1e-40}/2"),
        ("{1:-1e-7,2:3e+38}/2", "{1:-1e-07,2:3e+38}/2"),
    ] {
        assert_eq!(printed(text), expected, "{text}");
    }
}

#[test]
fn refuses_with_pgvectors_words() {
    let malformed =
        ["1:1/2", "[1,2]", "", "{", "{ ", "{}", "{}/", "{1:1}/2x", "{1:1}/2 3", "{1:1", "{1}/2", "{:1}/2"];
    let more = [
        "{a:1}/2",
        "{1:a}/2",
        "{1:}/2",
        "{1:1,}/2",
        "{,}/2",
        "{1:1 2:2}/2",
        "{1:1}}/2",
        "{1:1e}/2",
        "{1.5:1}/2",
    ];
    for text in malformed.into_iter().chain(more) {
        let error = SparseVector::parse(text, None).unwrap_err();
        let message = format!("invalid input syntax for type sparsevec: \"{text}\"");
        assert_eq!((error.state().code(), error.message()), ("22P02", message.as_str()));
    }
    for (text, code, message) in [
        ("{}/0", "22000", "sparsevec must have at least 1 dimension"),
        ("{}/-1", "22000", "sparsevec must have at least 1 dimension"),
        ("{}/1000000001", "54000", "sparsevec cannot have more than 1000000000 dimensions"),
        ("{}/99999999999999999999", "54000", "sparsevec cannot have more than 1000000000 dimensions"),
        ("{0:1}/2", "22000", "sparsevec index out of bounds"),
        ("{-1:1}/2", "22000", "sparsevec index out of bounds"),
        ("{3:1}/2", "22000", "sparsevec index out of bounds"),
        ("{99999999999999999999:1}/2", "22000", "sparsevec index out of bounds"),
        ("{1:1,1:2}/2", "22000", "sparsevec indices must not contain duplicates"),
        ("{1:NaN}/2", "22000", "NaN not allowed in sparsevec"),
        ("{1:-Infinity}/2", "22000", "infinite value not allowed in sparsevec"),
        ("{1:1e40}/2", "22003", "\"1e40\" is out of range for type sparsevec"),
        ("{1:1e-46}/2", "22003", "\"1e-46\" is out of range for type sparsevec"),
    ] {
        let error = SparseVector::parse(text, None).unwrap_err();
        assert_eq!((error.state().code(), error.message()), (code, message), "{text}");
    }
    let error = SparseVector::parse("{3:1}/2", Some(3)).unwrap_err();
    assert_eq!((error.state().code(), error.message()), ("22000", "expected 3 dimensions, not 2"));
    assert_eq!(SparseVector::declared(1_000_000_000).unwrap(), 1_000_000_000);
    assert!(SparseVector::declared(0).is_err() && SparseVector::declared(1_000_000_001).is_err());
}

#[test]
fn elements_are_counted() {
    let text = |count: usize, value: u8| {
        let elements: Vec<String> = (1..=count).map(|index| format!("{index}:{value}")).collect();
        format!("{{{}}}/20000", elements.join(","))
    };
    assert_eq!(SparseWords::new(&words(&text(16_000, 1))).count(), 16_000);
    // Zeros count before they are left out.
    for value in [0, 1] {
        let error = SparseVector::parse(&text(16_001, value), None).unwrap_err();
        let message = "sparsevec cannot have more than 16000 non-zero elements";
        assert_eq!((error.state().code(), error.message()), ("54000", message));
    }
    let dense = SparseVector::of_dense([0.0; 16_001].into_iter()).unwrap();
    assert_eq!(dense, SparseVector { dimensions: 16_001, elements: Vec::new() });
    assert_eq!(SparseVector::of_dense([1.0; 16_001].into_iter()).unwrap_err().state().code(), "54000");
    assert_eq!(SparseVector::of_dense(std::iter::empty()).unwrap_err().state().code(), "22000");
}

/// These words are in files: a change here is a change of format.
#[test]
fn words_are_golden() {
    assert_eq!(
        words("{1:1.5,3:-2}/5"),
        [0x7fff_ffff, 0x3fc0_0000, i32::MIN + 5, !0x4000_0000, i32::MIN + 10]
    );
    assert_eq!(words("{}/1"), [i32::MIN + 2]);
    assert_eq!(words("{1000000000:1}/1000000000"), [1_147_483_648, 0x3f80_0000, -147_483_648]);
    let read = SparseWords::new(&words("{1:1.5,3:-2}/5")).elements().collect::<Vec<_>>();
    assert_eq!(read, [(0, 1.5), (2, -2.0)]);
}

#[test]
fn words_have_the_order_of_the_vectors() {
    let ascending = [
        "{1:-2}/3",
        "{1:-1}/3",
        "{2:-5}/3",
        "{}/2",
        "{3:-1}/3",
        "{}/3",
        "{}/4",
        "{3:1}/3",
        "{2:5}/3",
        "{1:1,3:-1}/3",
        "{1:1}/3",
        "{1:1,2:1}/2",
        "{1:2}/3",
    ];
    for (place, left) in ascending.iter().enumerate() {
        for (other, right) in ascending.iter().enumerate() {
            assert_eq!(words(left).cmp(&words(right)), place.cmp(&other), "{left} and {right}");
        }
    }
    // Element by element as if the zeros were there, then by length: every vector of three or fewer small elements.
    let mut all: Vec<Vec<f32>> = vec![Vec::new()];
    for _ in 0..3 {
        let longer: Vec<Vec<f32>> = all
            .iter()
            .flat_map(|vector| {
                [-2.0, -1.0, 0.0, 1.0, 2.0].map(|value| [vector.as_slice(), &[value]].concat())
            })
            .collect();
        all.extend(longer);
    }
    all.retain(|vector| !vector.is_empty());
    let words_of = |vector: &Vec<f32>| {
        let mut words = Vec::new();
        SparseVector::of_dense(vector.iter().copied()).unwrap().append_words(&mut words);
        words
    };
    for left in &all {
        for right in &all {
            let dense = left.partial_cmp(right).unwrap_or(Ordering::Equal);
            assert_eq!(words_of(left).cmp(&words_of(right)), dense, "{left:?} and {right:?}");
        }
    }
}
