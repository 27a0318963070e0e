//! Parts, containment and changes, over canonical and over loosely written text.

use std::borrow::Cow;

use super::{
    Flavour, change,
    read::{contains, element, exists, field, path, plain},
    text::{comparable, items, members, string},
};

#[test]
fn parts_are_slices_of_the_text_however_it_is_written() {
    let loose = " { \"a\" : [ 1 , \"],\\\"}\" ,{ \"b\":{} } ] ,\n\"\\u0061\": null } ";
    let found: Vec<_> = members(loose).collect();
    assert_eq!(found, [("\"a\"", "[ 1 , \"],\\\"}\" ,{ \"b\":{} } ]"), ("\"\\u0061\"", "null")]);
    let inner: Vec<_> = items(found[0].1).collect();
    assert_eq!(inner, ["1", "\"],\\\"}\"", "{ \"b\":{} }"]);
    assert_eq!(items(" [ ] ").count() + members("{}").count(), 0);
    // Of equal keys the last counts, escaped or not.
    assert_eq!(field(loose, "a", Flavour::Json), Some("null"));
}

#[test]
fn strings_lose_quotes_and_escapes() {
    assert_eq!(string("\"a\\\"\\\\\\n\\u0001é\""), "a\"\\\n\u{1}é");
    assert_eq!(string("\"\\ud83d\\ude00!\""), "😀!");
    assert_eq!(string("\"\\ud83d!\""), "\u{fffd}!");
    assert_eq!(plain("\"\\u0041\"", Flavour::Json).expect("a valid escape"), Some(Cow::Borrowed("A")));
    assert_eq!(plain("null", Flavour::Jsonb).expect("no escape"), None);
}

#[test]
fn places_count_from_either_end() {
    let array = "[1, 2, 3]";
    let at = |index| element(array, index, Flavour::Jsonb);
    assert_eq!(
        [at(0), at(2), at(3), at(-1), at(-3), at(-4)],
        [Some("1"), Some("3"), None, Some("3"), Some("1"), None]
    );
    assert_eq!(path("{\"a\": [{\"b\": 7}]}", &[Some("a"), Some("-1"), Some("b")], Flavour::Jsonb), Some("7"));
    assert_eq!(path("[1]", &[Some("x")], Flavour::Jsonb), None);
    assert_eq!(path("[1]", &[None::<&str>], Flavour::Jsonb), None);
}

#[test]
fn numbers_are_equal_by_value() {
    assert_eq!(comparable("{\"1.0\": [1.0, -2.50, 10, 100.00]}"), "{\"1.0\": [1, -2.5, 10, 100]}");
    assert!(contains("[1.0]", "[1]") && !contains("[10]", "[1]"));
    assert!(exists("[\"a\"]", "a") && !exists("[1]", "1"));
}

#[test]
fn text_that_is_no_json_is_survived() {
    for text in ["", "{", "[", "{\"", "[\"\\", "}é.", "é.é", "{\"a\"", "[1", "\"é\\", "-."] {
        let _ = (members(text).count(), items(text).count(), comparable(text), string(text));
        let _ = (change::pretty(text), change::strip_nulls(text), contains(text, text));
    }
}

#[test]
fn changes_stay_canonical() {
    let set = |text: &str, step: &str| change::set(text, &[Some(step.to_owned())], "9", true);
    assert_eq!(set("{\"bb\": 1}", "a\"").expect("an object"), "{\"a\\\"\": 9, \"bb\": 1}");
    let merged = change::concatenate("{\"bb\": 1, \"ccc\": 2}", "{\"a\": 1, \"bb\": 3}").expect("objects");
    assert_eq!(merged, "{\"a\": 1, \"bb\": 3, \"ccc\": 2}");
    assert_eq!(
        change::pretty("{\"a\": [1, {}]}"),
        "{\n    \"a\": [\n        1,\n        {\n        }\n    ]\n}"
    );
}
