//! Signatures against the examples that AWS publishes, and what its answers mean.

use super::*;

const SECRET_KEY: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

fn signature(service: &str, query: &str, headers: &[(&str, &str)]) -> String {
    let signing =
        Signing { access_key_id: "AKIDEXAMPLE", region: "us-east-1", service, time: "20150830T123600Z" };
    let date_key = sigv4::hmac(format!("AWS4{SECRET_KEY}").as_bytes(), signing.date().as_bytes());
    signing.authorization("GET", query, headers, b"", &date_key)
}

#[test]
fn the_published_signatures_come_out() {
    let headers = [
        ("content-type", "application/x-www-form-urlencoded; charset=utf-8"),
        ("host", "iam.amazonaws.com"),
        ("x-amz-date", "20150830T123600Z"),
    ];
    assert_eq!(
        signature("iam", "Action=ListUsers&Version=2010-05-08", &headers),
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, \
         SignedHeaders=content-type;host;x-amz-date, \
         Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
    );
    // `get-vanilla` of the aws-sig-v4-test-suite.
    let headers = [("host", "example.amazonaws.com"), ("x-amz-date", "20150830T123600Z")];
    let expected = "Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31";
    let signature = signature("service", "", &headers);
    assert!(signature.ends_with(expected), "{signature}");
}

#[test]
fn hosts_are_signed_as_clients_send_them() {
    assert_eq!(host_header("https://a.b.c"), "a.b.c");
    assert_eq!(host_header("https://a.b.c:443/"), "a.b.c");
    assert_eq!(host_header("http://localhost:4566"), "localhost:4566");
    assert_eq!(host_header("http://localhost:80"), "localhost");
}

#[test]
fn refusals_are_named_in_the_body() {
    let response = |status, kind: &str| http::Response {
        status,
        body: json!({ "__type": kind, "message": "m" }).to_string().into_bytes(),
        ..http::Response::default()
    };
    assert!(refused(response(400, "ResourceNotFoundException")).expect("no error").is_none());
    let kinds = [
        (400, "AccessDeniedException", ErrorKind::Unauthorized),
        (400, "com.amazonaws.secretsmanager#ThrottlingException", ErrorKind::Transient),
        (400, "InvalidRequestException", ErrorKind::Misconfigured),
        (503, "Unheard", ErrorKind::Transient),
        (403, "Unheard", ErrorKind::Unauthorized),
    ];
    for (status, name, kind) in kinds {
        assert_eq!(refused(response(status, name)).err().expect(name).kind, kind, "{name}");
    }
    let html = http::Response { status: 502, body: b"<html>".to_vec(), ..http::Response::default() };
    assert_eq!(refused(html).err().expect("502").kind, ErrorKind::Transient);
}

#[test]
fn a_field_is_taken_from_json_and_values_stay_out_of_errors() {
    let options = |field: Option<&str>| Options {
        path: "p".to_owned(),
        field: field.map(ToOwned::to_owned),
        version: None,
        stage: None,
    };
    let value = |text: &str| SecretValue {
        secret_string: Some(text.to_owned()),
        secret_binary: None,
        version_id: Some("v1".to_owned()),
    };
    let whole = resolved(value("plain"), &options(None)).expect("a value");
    assert_eq!((whole.value.as_slice(), whole.version.as_deref()), (&b"plain"[..], Some("v1")));
    let json = r#"{"user":"u","password":"s3cret"}"#;
    assert_eq!(resolved(value(json), &options(Some("password"))).expect("a field").value, b"s3cret");
    for (text, name) in [(json, "token"), ("s3cret", "token")] {
        let error = resolved(value(text), &options(Some(name))).err().expect("no such field");
        assert_eq!(error.kind, ErrorKind::Misconfigured);
        assert!(!error.message.contains("s3cret"), "{}", error.message);
    }
    let binary =
        SecretValue { secret_string: None, secret_binary: Some("AAE=".to_owned()), version_id: None };
    assert_eq!(resolved(binary, &options(None)).expect("bytes").value, [0, 1]);
}
