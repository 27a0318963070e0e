//! What authors write: test cases read well or say what is wrong with them.

use std::fs;

use super::*;

#[test]
fn a_folder_without_conformance_toml_is_known_by_its_first_case() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("cases")).unwrap();
    let cases = r#"
        [[case]]
        name = "busy"
        answers = [{ status = 503 }]
        [case.expect]
        error = "transient"

        [[case]]
        name = "fine"
        config = { url = "https://a.test" }
        secrets = { token = "s3cret" }
        rows = ['{"op":"c","key":{"id":7},"after":{"id":7,"title":"a"},"pos":"1.0","ts":"2026-01-01T00:00:00Z"}']
        answers = [{ status = 201, body = "{}" }]
        [case.expect]
        outcome = "durable"
    "#;
    fs::write(folder.path().join("cases/a.toml"), cases).unwrap();
    let case = TestCase::of_folder(folder.path()).unwrap();
    assert_eq!(case.cases.len(), 2);
    assert_eq!(case.config["url"], "https://a.test");
    assert_eq!(case.rows.key, ["id"]);
    assert_eq!(case.rows.columns["title"], "a");
    assert_eq!((case.destination[0].status, case.destination[0].body.as_str()), (201, "{}"));
    assert!(!format!("{case:?}").contains("s3cret"));

    fs::write(folder.path().join("conformance.toml"), "config = { url = 'https://b.test' }").unwrap();
    let case = TestCase::of_folder(folder.path()).unwrap();
    assert_eq!((case.config["url"].as_str(), case.cases.len()), (Some("https://b.test"), 2));
    assert!(TestCase::of_folder(&folder.path().join("none")).unwrap().cases.is_empty());
}

#[test]
fn what_is_wrong_in_a_test_case_is_said() {
    let wrong = |text: &str| TestCase::parse("conformance.toml", text).unwrap_err().to_string();
    for (text, said) in [
        ("[confg]", "confg"),
        ("[statuses]\nteapot = 'rejected'", "teapot"),
        ("[statuses]\n404 = 'gone'", "gone"),
        ("[rows]\nkey = ['nr']", "nr"),
        ("[[destination]]\nstatus = 'ok'", "status"),
    ] {
        let error = wrong(text);
        assert!(error.starts_with("conformance.toml: ") && error.contains(said), "{error}");
    }
    let error = TestCase::cases("cases/a.toml", "[[case]]\nname = 'x'").unwrap_err().to_string();
    assert!(error.contains("expect"), "{error}");
}

#[test]
fn levels_are_read_by_number_and_by_name() {
    for (text, level) in [("L0", Level::L0), ("1", Level::L1), ("idempotent", Level::L2), ("l3", Level::L3)] {
        assert_eq!(text.parse::<Level>(), Ok(level));
    }
    assert!("L4".parse::<Level>().unwrap_err().contains("L0 (loads)"));
}
