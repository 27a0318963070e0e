//! The published example byte for byte, what is rewritten, and that nothing is overlooked.

use proptest::prelude::*;
use sepal_database::EnvNames;

use super::*;

fn rendered(text: &str, rule: &EnvNames) -> Result<String, String> {
    let exists = ["KAFKA_PASSWORD", "my-key"];
    render(text, &|name| exists.contains(&name).then(|| rule.of(name)))
}

fn ours(text: &str) -> String {
    rendered(text, &EnvNames::SEPAL).unwrap()
}

#[test]
fn the_published_example_is_golden() {
    let page = "username: my-user\npassword: SECRET[KAFKA_PASSWORD]\n";
    assert_eq!(
        rendered(page, &EnvNames::VF).unwrap(),
        "username: \"my-user\"\npassword: \"${VF_SECRET_KAFKA_PASSWORD}\"\n"
    );
    assert_eq!(ours(page), "username: \"my-user\"\npassword: \"${SEPAL_SECRET_KAFKA_PASSWORD}\"\n");
}

#[test]
fn layout_and_comments_stay() {
    let before = r#"---
# SECRET[none] in a comment
sinks:
  kafka: # the main one
    type: kafka
    brokers:
    - one:9092
    - name: two
      port: 9092
    auth:
      "pass word" :  'SECRET[my-key]'   # rotated

    enabled: yes
    ratio: -0.5
    empty:
    tags: [a, b]
    note: |
      one: two

      three
    last: SECRET[my-key]"#;
    let after = r#"---
# SECRET[none] in a comment
sinks:
  kafka: # the main one
    type: "kafka"
    brokers:
    - "one:9092"
    - name: "two"
      port: 9092
    auth:
      "pass word" :  "${SEPAL_SECRET_MY_KEY}"   # rotated

    enabled: yes
    ratio: -0.5
    empty:
    tags: [a, b]
    note: |
      one: two

      three
    last: "${SEPAL_SECRET_MY_KEY}""#;
    assert_eq!(ours(before), after);
    assert_eq!(ours(""), "");
    assert_eq!(ours("a: b\r\nc: d\r\n"), "a: \"b\"\r\nc: \"d\"\r\n");
}

#[test]
fn values_keep_their_meaning() {
    for (before, after) in [
        ("a: SECRET[my-key] # why", "a: \"${SEPAL_SECRET_MY_KEY}\" # why"),
        ("a: \"SECRET[my-key]\"", "a: \"${SEPAL_SECRET_MY_KEY}\""),
        ("- SECRET[my-key]", "- \"${SEPAL_SECRET_MY_KEY}\""),
        ("- - a", "- - \"a\""),
        ("a: http://x:1/#b", "a: \"http://x:1/#b\""),
        ("a: C:\\dir \"x\"", "a: \"C:\\\\dir \\\"x\\\"\""),
        ("a: 'it''s: # b'", "a: 'it''s: # b'"),
        ("a: \"b \\\" # c\" # d", "a: \"b \\\" # c\" # d"),
        ("a: &x b", "a: &x \"b\""),
        ("a: *x", "a: *x"),
        ("a: !!str yes", "a: !!str yes"),
        ("a: True", "a: True"),
        ("a: ~", "a: ~"),
        ("a: 2026-01-01", "a: 2026-01-01"),
        ("a: \\SECRET[x]", "a: \"SECRET[x]\""),
        ("a: 'not \\SECRET[x]'", "a: 'not SECRET[x]'"),
        ("a: secret[x]", "a: \"secret[x]\""),
    ] {
        assert_eq!(ours(before), after, "{before}");
    }
}

#[test]
fn what_could_hide_a_reference_is_refused_with_its_line() {
    for (text, problem) in [
        ("a: b\nc: SECRET[none]\n", "line 2: secret \"none\" does not exist"),
        ("a: SECRET[my-api.key]", "no name for a secret"),
        ("a: SECRET[my-key@2]", "no name for a secret"),
        ("a: SECRET[KAFKA_P\u{410}SSWORD]", "no name for a secret"),
        ("a: SECRET[]", "no name for a secret"),
        ("a: a-SECRET[my-key]-b", "part of a longer text"),
        ("a: \"a SECRET[my-key]\"", "part of a longer text"),
        ("a: \\SECRET[x] SECRET[my-key]", "part of a longer text"),
        ("a: |\n  SECRET[my-key]", "line 2: SECRET[ as a part"),
        ("a: [SECRET[my-key]]", "inside brackets"),
        ("a: {b: SECRET[my-key]}", "inside brackets"),
        ("a: *SECRET[my-key]", "part of a longer text"),
        ("a: [b,\n  c]", "brackets over several lines"),
        ("a: b\n  c", "over several lines"),
        ("a: \"b\n  c\"", "over several lines"),
        ("a: 'b' c", "closing quote"),
        ("SECRET[my-key]: a", "in a key"),
        ("SECRET[my-key]", "neither `key: value`"),
        ("{\"a\": \"SECRET[my-key]\"}", "neither `key: value`"),
    ] {
        let refused = rendered(text, &EnvNames::SEPAL).unwrap_err();
        assert!(refused.contains(problem), "{text}: {refused}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "[-a#:\"'\\\\ \n\r\té&!|>{}\\[\\]SECRT]{0,60}") {
        let _ = rendered(&text, &EnvNames::SEPAL);
    }
}
