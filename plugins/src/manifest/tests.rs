//! Manifests and options that are refused, and why; the two forms of a manifest.

use std::collections::BTreeMap;

use sepal_database::connector::{FaultKind, PluginKind, Setting};
use serde_json::{Value, json};

use super::*;

const WEBHOOK: &str = r#"
[plugin]
name = "acme/webhook"
version = "1.4.2"
kind = "sink"
api = "sepal:plugin@0.1.0"
summary = "POST rows to a URL"
license = "Apache-2.0"
[sink]
encodings = ["ndjson"]
envelopes = ["append", "upsert"]
delivery = "idempotent"
batch = { max_rows = 500, max_bytes = "1MiB", linger = "1s" }
[config]
schema = "config.schema.json"
[secrets.token]
description = "Bearer token"
use = ["http-header"]
required = true
[capabilities]
http = ["{config.url}"]
state = "64KiB"
[limits]
memory = "96MiB"
cpu_per_call = "2s"
requests_per_second = 20
"#;

fn schema() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["url", "token"],
        "properties": {
            "url": { "type": "string", "format": "uri" },
            "token": { "type": "string", "minLength": 40, "sensitive": true },
            "retries": { "type": "integer", "minimum": 0, "default": 3 },
        },
    })
}

fn webhook(text: &str) -> Result<Manifest, ManifestError> {
    Manifest::from_toml(text, &|path| match path {
        "config.schema.json" => Ok(schema().to_string().into_bytes()),
        _ => Err("no such file".to_owned()),
    })
}

fn options(pairs: &[(&str, Setting)]) -> BTreeMap<String, Setting> {
    pairs.iter().map(|(name, setting)| ((*name).to_owned(), setting.clone())).collect()
}

fn text(text: &str) -> Setting {
    Setting::Text(text.to_owned())
}

fn token() -> Setting {
    Setting::Secret("hook_token".to_owned(), Some(2))
}

#[test]
fn both_forms_are_one_manifest() {
    let manifest = webhook(WEBHOOK).unwrap();
    assert_eq!(manifest.plugin.kind, PluginKind::Sink);
    assert_eq!(manifest.limits.memory, Some(ByteSize(96 << 20)));
    let json = manifest.to_json();
    assert_eq!(Manifest::from_json(&json).unwrap(), manifest);
    assert_eq!(Manifest::from_json(&json).unwrap().to_json(), json, "the canonical form is a fixed point");
    let text = String::from_utf8(json).unwrap();
    assert!(text.starts_with(r#"{"capabilities":{"http":["{config.url}"],"reveal":false"#), "{text}");
    assert!(text.contains(r#""cpu_per_call":2000"#), "{text}");
    assert_eq!(manifest.capability_lines(), ["http {config.url}", "state 65536", "secret token http-header"]);
}

#[test]
fn a_secret_in_bodies_is_asked_for() {
    let manifest =
        webhook(&WEBHOOK.replacen("[\"http-header\"]", "[\"http-header\", \"http-body\"]", 1)).unwrap();
    // So an upgrade from a version that used headers alone needs a new grant.
    let lines = manifest.capability_lines();
    assert_eq!(lines[2..], ["secret token http-header", "secret token http-body"]);
}

#[test]
fn what_is_wrong_is_named() {
    let cases = [
        ("name = \"acme/webhook\"", "name = \"Webhook\"", "plugin.name"),
        ("version = \"1.4.2\"", "version = \"1.4\"", "plugin.version"),
        ("sepal:plugin@0.1.0", "sepal:plugin@9.0.0", "plugin.api"),
        ("encodings = [\"ndjson\"]", "encodings = []", "sink.encodings"),
        ("max_bytes = \"1MiB\"", "max_bytes = \"1GiB\"", "sink.batch.max_bytes"),
        ("config.schema.json", "other.json", "config.schema"),
        ("[secrets.token]", "[secrets.key]", "secrets.key"),
        ("required = true", "required = false", "secrets.token"),
        ("use = [\"http-header\"]", "use = [\"reveal\"]", "secrets.token"),
        ("{config.url}", "{config.host}", "capabilities.http"),
        ("{config.url}", "{config.token}", "capabilities.http"),
        ("{config.url}", "https://x.{config.url}", "capabilities.http"),
        ("state = \"64KiB\"", "state = \"2MiB\"", "capabilities.state"),
        ("memory = \"96MiB\"", "memory = \"1GiB\"", "limits.memory"),
        ("memory = \"96MiB\"", "memory = \"lots\"", "plugin.toml"),
        ("delivery = ", "deliverance = ", "plugin.toml"),
    ];
    for (from, to, at) in cases {
        let error = webhook(&WEBHOOK.replacen(from, to, 1)).unwrap_err();
        assert!(error.at.starts_with(at), "{to}: {error}");
    }
}

#[test]
fn a_resolver_has_no_sink() {
    let resolver = WEBHOOK.replacen("kind = \"sink\"", "kind = \"resolver\"", 1);
    assert_eq!(webhook(&resolver).unwrap_err().at, "sink");
}

#[test]
fn hosts_are_hosts() {
    let origin = |text: &str| HttpCapability::parse(text).map(|capability| capability.to_string());
    assert_eq!(origin("https://api.example.com").unwrap(), "https://api.example.com:443");
    assert_eq!(origin("https://API.Example.com:8443").unwrap(), "https://api.example.com:8443");
    assert_eq!(origin("https://*.example.com").unwrap(), "https://*.example.com:443");
    for wrong in [
        "example.com",
        "https://",
        "https://*",
        "https://*.com",
        "https://a.*.com",
        "https://example.com/path",
        "https://user@example.com",
        "ftp://example.com",
        "{url}",
        "{config.}",
    ] {
        assert!(origin(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_template_is_the_host_of_its_option() {
    let rule = |url: &str| {
        let config = json!({ "url": url });
        HttpCapability::Option("url".to_owned()).rule(config.as_object().unwrap())
    };
    assert_eq!(rule("https://hooks.example.com/in?x=1").unwrap().unwrap(), "https://hooks.example.com:443");
    let fault = rule("https://me:hunter2@hooks.example.com/").unwrap_err();
    assert_eq!(fault.kind, FaultKind::Misconfigured);
    assert!(!fault.message.contains("hunter2"), "{fault}");
    assert_eq!(HttpCapability::Option("url".to_owned()).rule(&serde_json::Map::new()).unwrap(), None);
}

#[test]
fn options_become_what_the_guest_sees() {
    let schema = ConfigSchema::compile(&schema()).unwrap();
    let given =
        options(&[("url", text("https://example.com/in")), ("token", token()), ("retries", text("7"))]);
    let configured = schema.configure(&given).unwrap();
    let expected = json!({ "url": "https://example.com/in", "token": { "$secret": "token" }, "retries": 7 });
    assert_eq!(Value::Object(configured.json), expected);
    assert_eq!(configured.slots["token"], ("hook_token".to_owned(), Some(2)));
    let defaults = options(&[("url", text("https://example.com/in")), ("token", token())]);
    assert_eq!(schema.configure(&defaults).unwrap().json["retries"], json!(3));
}

#[test]
fn options_that_do_not_fit_say_where() {
    let schema = ConfigSchema::compile(&schema()).unwrap();
    let url = ("url", text("https://example.com/in"));
    let cases = [
        (options(&[url.clone(), ("token", text("sk_live_abc"))]), "/token: "),
        (options(&[("url", token()), ("token", token())]), "/url: "),
        (options(&[url.clone(), ("token", token()), ("tokn", text("x"))]), "/tokn: "),
        (options(&[url.clone(), ("token", token()), ("retries", text("many"))]), "/retries: "),
        (options(&[url.clone(), ("token", token()), ("retries", Setting::Number(1.5))]), "/retries: "),
        (options(&[url.clone(), ("token", Setting::Certificate("c".to_owned()))]), "/token: "),
        (options(&[url]), "/: "),
    ];
    for (given, pointer) in cases {
        let fault = schema.configure(&given).unwrap_err();
        assert_eq!(fault.kind, FaultKind::Misconfigured);
        assert!(fault.message.starts_with(pointer), "{fault}");
        assert!(!fault.message.contains("sk_live_abc"), "{fault}");
    }
}

/// `count` schemas with a pattern each.
fn patterns(count: usize) -> Vec<Value> {
    (0..count).map(|number| json!({ "pattern": format!("^a{number}[0-9]+$") })).collect()
}

#[test]
fn schemas_that_could_hurt_are_refused() {
    type Change = fn(&mut Value);
    let with = |change: Change| {
        let mut schema = schema();
        change(&mut schema);
        ConfigSchema::compile(&schema)
    };
    let cases: [(Change, &str); 14] = [
        (|s| s["additionalProperties"] = json!(true), "additionalProperties"),
        (|s| s["type"] = json!("array"), "type"),
        (|s| s["properties"]["token"]["default"] = json!("x"), "default"),
        (|s| s["properties"]["Url"] = json!({}), "name"),
        (|s| s["properties"]["url"] = json!({ "$ref": "https://example.com/s.json" }), "$ref"),
        (|s| s["properties"]["url"] = json!({ "$ref": "#" }), "$ref"),
        (|s| s["$defs"] = json!({ "a": { "$ref": "#/$defs/a" }, "b": { "$ref": "#/$defs/a" } }), "$ref"),
        (|s| s["properties"]["url"] = json!({ "properties": { "p": { "sensitive": true } } }), "sensitive"),
        (|s| s["properties"]["url"]["pattern"] = json!("(?=a)b"), "config.schema"),
        (|s| s["required"] = json!(["nothing"]), "required"),
        (|s| s["properties"]["url"]["pattern"] = json!("^.{0,2000}$"), "config.schema"),
        (|s| s["properties"]["url"] = json!({ "anyOf": patterns(65) }), "65 patterns"),
        (
            |s| {
                s["$defs"] = json!({ "text": { "anyOf": patterns(33) } });
                let text = json!({ "$ref": "#/$defs/text" });
                s["properties"]["url"] = json!({ "allOf": [text, text] });
            },
            "99 patterns",
        ),
        (
            |s| {
                s["$defs"] = json!({ "words": { "enum": vec!["word"; 1000] } });
                s["properties"]["url"] = json!({ "allOf": vec![json!({ "$ref": "#/$defs/words" }); 10] });
            },
            "more than 10000 values",
        ),
    ];
    for (change, named) in cases {
        let error = with(change).unwrap_err();
        assert!(error.to_string().contains(named), "{named}: {error}");
    }
    with(|s| s["properties"]["url"] = json!({ "anyOf": patterns(64) })).unwrap();
    with(|s| s["properties"]["url"]["pattern"] = json!("^[a-z0-9][a-z0-9._-]{0,200}$")).unwrap();
    with(|s| {
        s["$defs"] = json!({ "address": { "type": "string" } });
        s["properties"]["url"] = json!({ "$ref": "#/$defs/address" });
    })
    .unwrap();
}

#[test]
fn limits_are_the_smallest() {
    let manifest = webhook(WEBHOOK).unwrap();
    let wide = EffectiveLimits::effective(&manifest, &EffectiveLimits::MOST);
    assert_eq!((wide.memory_bytes, wide.requests_per_second, wide.state_bytes), (96 << 20, 20, 64 << 10));
    assert_eq!(wide.wall_per_call_ms, EffectiveLimits::UNASKED.wall_per_call_ms);
    let cap = EffectiveLimits { memory_bytes: 8 << 20, cpu_per_call_ms: 100, ..EffectiveLimits::MOST };
    let capped = EffectiveLimits::effective(&manifest, &cap);
    assert_eq!((capped.memory_bytes, capped.cpu_per_call_ms), (8 << 20, 100));
    assert_eq!(wide.with_room_for(8 << 20).hostcall_bytes, 17 << 20);
    assert_eq!(wide.with_room_for(usize::MAX).hostcall_bytes, EffectiveLimits::MOST.hostcall_bytes);
}
