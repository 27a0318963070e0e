//! What of the webhook needs no host: what is signed, how a body is put together, which headers are taken.

use sepal_plugin::{Batch, ErrorKind};

use super::*;

#[test]
fn the_signature_covers_id_time_and_body() {
    let content = signed_content("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", br#"{"test": 2432232314}"#);
    assert_eq!(content, br#"msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.{"test": 2432232314}"#);
}

#[test]
fn an_array_holds_the_lines() {
    let rows = "{\"op\":\"i\"}\n{\"op\":\"d\"}\n";
    assert_eq!(json_array(&Batch::of_ndjson("b", rows)), br#"[{"op":"i"},{"op":"d"}]"#);
    assert_eq!(json_array(&Batch::of_ndjson("b", "")), b"[]");
}

#[test]
fn headers_are_lines_and_never_secrets() {
    let headers = parse_headers("X-Env: prod\n\n  X-Url: http://a:1/ \n").expect("two headers");
    let expected = [("x-env", "prod"), ("x-url", "http://a:1/")];
    assert_eq!(headers, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    for wrong in ["X-Env", "Authorization: Bearer x", "Webhook-Id: 1", "content-TYPE: text/plain"] {
        let error = parse_headers(wrong).expect_err(wrong);
        assert_eq!(error.kind, ErrorKind::Misconfigured, "{wrong}");
        assert!(!error.message.contains("Bearer x"), "{}", error.message);
    }
    for name in [
        "X-Api-Key",
        "apikey",
        "X_API_KEY",
        "X-Auth-Token",
        "Private-Token",
        "X-Hook-Secret",
        "X-Password",
        "Proxy-Authorization",
        "Cookie",
    ] {
        let error = parse_headers(&format!("{name}: hunter2")).expect_err(name);
        assert!(error.message.contains("token SECRET[") && !error.message.contains("hunter2"), "{name}");
    }
    assert!(parse_headers("X-Key-Id: 7\nX-Author: me").is_ok());
}
