//! What Vault answers, and the secrets in it.

use super::*;

fn answered(body: Value) -> Answered {
    serde_json::from_value(body).expect("an answer")
}

fn options(field: Option<&str>) -> Options {
    Options { path: "hooks/acme".to_owned(), field: field.map(ToOwned::to_owned), version: None }
}

#[test]
fn a_version_is_told_apart_from_one_of_an_earlier_life() {
    let body = |created: &str| {
        answered(json!({ "data": {
            "data": { "token": "s3cret" },
            "metadata": { "version": 1, "created_time": created, "destroyed": false },
        } }))
    };
    let version = |created| of_kv2(body(created), &options(None)).expect("an answer").expect("a value");
    assert_eq!(version("2026-01-01T00:00:00Z").version.as_deref(), Some("1@2026-01-01T00:00:00Z"));
    assert!(version("2026-01-01T00:00:00Z").version != version("2026-02-01T00:00:00Z").version);
    assert_eq!(version("x").value, b"s3cret");
}

#[test]
fn a_lease_comes_with_its_time() {
    let body = json!({
        "lease_id": "database/creds/r/1",
        "lease_duration": 3600,
        "data": { "username": "u", "password": "p" },
    });
    let resolved =
        of_logical(answered(body), &options(Some("password"))).expect("an answer").expect("a value");
    assert_eq!((resolved.value.as_slice(), resolved.ttl_seconds), (&b"p"[..], Some(3600)));
    assert_eq!(resolved.lease_id.as_deref(), Some("database/creds/r/1"));
    let body = json!({ "lease_id": "", "lease_duration": 0, "data": { "a": 1 } });
    let resolved = of_logical(answered(body), &options(None)).expect("an answer").expect("a value");
    assert_eq!((resolved.value.as_slice(), resolved.ttl_seconds, resolved.lease_id), (&b"1"[..], None, None));
}

#[test]
fn errors_name_fields_and_no_values() {
    let fields = || json!({ "user": "u", "password": "s3cret" }).as_object().expect("an object").clone();
    for wanted in [None, Some("token")] {
        let error = field(fields(), &options(wanted)).expect_err("which one?");
        assert!(error.message.contains("password") && !error.message.contains("s3cret"), "{}", error.message);
    }
    assert_eq!(field(fields(), &options(Some("password"))).expect("a field"), b"s3cret");
}

#[test]
fn deleted_is_not_found_and_no_engine_is_misconfigured() {
    let response = |body: Value| http::Response {
        status: 404,
        body: body.to_string().into_bytes(),
        ..Default::default()
    };
    let deleted =
        json!({ "data": { "data": null, "metadata": { "deletion_time": "2026-01-01T00:00:00Z" } } });
    assert_eq!(not_found(response(deleted)).expect("an answer"), Answer::NotFound);
    assert_eq!(not_found(response(json!({ "errors": [] }))).expect("an answer"), Answer::NotFound);
    let error = not_found(response(json!({ "errors": ["no handler for route \"kvv/data/a\""] })))
        .expect_err("no engine");
    assert_eq!(error.kind, ErrorKind::Misconfigured);
}

#[test]
fn paths_stay_below_their_mount() {
    assert_eq!(escape("/a b/ü?x=1#y/").expect("a path"), "a%20b/%C3%BC%3Fx%3D1%23y");
    for wrong in ["", "/", "a//b", "../sys", "a/./b", "a/.."] {
        assert_eq!(escape(wrong).expect_err(wrong).kind, ErrorKind::Misconfigured);
    }
}
