//! Who gets out, where to, and with what: rules and addresses as tables, requests against a server of our own.

mod bounds;
mod requests;

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use proptest::prelude::*;
use url::Url;

use super::{
    AddressPolicy, Destination, HostRule, MIN_SECRET_BYTES, Scrubber, intersect, is_public, quota, telemetry,
};

const TOKEN: &str = "s3cr3t-t0ken/+";

#[test]
fn addresses() {
    let public = "1.1.1.1 8.8.8.8 100.63.255.255 100.128.0.0 172.15.0.1 172.32.0.1 192.0.1.1 198.17.0.1 \
        198.20.0.1 223.255.255.255 2606:4700::1111 2a00:1450::1 ::ffff:1.1.1.1 64:ff9b::1.1.1.1 \
        2002:101:101::1 2606:4700::5efe:101:101";
    let private = "0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 100.100.100.200 127.0.0.1 127.255.255.255 168.63.129.16 \
        169.254.169.254 172.16.0.1 172.31.255.255 192.0.0.192 192.0.2.1 192.88.99.1 192.168.1.1 \
        198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1 \
        255.255.255.255 :: ::1 ::7f00:1 ::ffff:127.0.0.1 ::ffff:169.254.169.254 64:ff9b::10.0.0.1 \
        64:ff9b::169.254.169.254 64:ff9b:1::1 100::1 2001::1 2001:2::1 2001:10::1 2001:db8::1 \
        2002:a00:1::1 2002:7f00:1:: 2606::5efe:a00:1 2606::200:5efe:7f00:1 3ffe::1 3fff::1 4000::1 \
        5f00::1 fc00::1 fd00:ec2::254 fe80::1 fec0::1 ff02::1";
    let parse = |text: &str| text.parse::<IpAddr>().unwrap_or_else(|_| panic!("{text}"));
    for text in public.split_whitespace() {
        assert!(is_public(parse(text)), "{text} is public");
    }
    for text in private.split_whitespace() {
        assert!(!is_public(parse(text)), "{text} is not public");
    }
    let policy = AddressPolicy::new(vec!["127.0.0.0/8".parse().unwrap()]);
    assert!(policy.permits(parse("127.0.0.1")) && policy.permits(parse("::ffff:127.0.0.1")));
    assert!(!policy.permits(parse("10.0.0.1")) && !policy.permits(parse("::1")));
}

fn to(url: &str) -> Destination {
    Destination::of(&Url::parse(url).unwrap()).unwrap()
}

#[test]
fn rules_match_what_they_name() {
    let cases: [(&str, &[&str], &[&str]); 6] = [
        (
            "https://hooks.example.com",
            &[
                "https://hooks.example.com/a?b",
                "https://HOOKS.example.com:443",
                "https://hooks.example.com./",
            ],
            &[
                "http://hooks.example.com",
                "https://hooks.example.com:8443",
                "https://a.hooks.example.com",
                "https://xhooks.example.com",
                "https://hooks.example.com.evil.test",
            ],
        ),
        (
            "https://*.example.com:8443",
            &["https://a.example.com:8443", "https://a.b.example.com:8443"],
            &["https://example.com:8443", "https://a.example.com", "https://aexample.com:8443"],
        ),
        ("https://bücher.example", &["https://xn--bcher-kva.example", "https://BÜCHER.example"], &[]),
        (
            "http://127.0.0.1:8080",
            &["http://2130706433:8080", "http://0x7f.1:8080", "http://0177.0.0.1:8080", "http://127.1:8080"],
            &["http://127.0.0.2:8080", "http://localhost:8080"],
        ),
        ("http://[::1]:80", &["http://[0:0::1]/"], &["http://127.0.0.1/"]),
        ("http://[::ffff:10.0.0.1]", &["http://10.0.0.1/", "http://[::ffff:a00:1]/"], &[]),
    ];
    for (rule, yes, no) in cases {
        let parsed = HostRule::parse(rule).unwrap();
        assert_eq!(HostRule::parse(&parsed.to_string()).unwrap(), parsed, "{parsed} is read back");
        for url in yes {
            assert!(parsed.matches(&to(url)), "{rule} allows {url}");
        }
        for url in no {
            assert!(!parsed.matches(&to(url)), "{rule} does not allow {url}");
        }
    }
}

#[test]
fn what_is_no_rule_says_why() {
    for text in [
        "",
        "hooks.example.com",
        "ftp://example.com",
        "https://",
        "https://*",
        "https://*.com",
        "https://*.1.2.3.4",
        "https://a.*.example.com",
        "https://*.*.example.com",
        "https://example.com/path",
        "https://example.com?q",
        "https://example.com#f",
        "https://example.com:99999",
        "file:///etc/passwd",
        "https://a..b.example",
    ] {
        let error = HostRule::parse(text).expect_err(text).to_string();
        assert!(error.contains("write https://"), "{text}: {error}");
    }
    let error = HostRule::parse("https://user:hunter2@example.com").unwrap_err().to_string();
    assert!(!error.contains("hunter2"), "{error}");
    assert_eq!(HostRule::of_url("https://a.example/hook?x=1").unwrap().to_string(), "https://a.example");
}

#[test]
fn both_must_allow() {
    let parse = |rules: &[&str]| rules.iter().map(|rule| HostRule::parse(rule).unwrap()).collect::<Vec<_>>();
    let both = |asked: &[&str], granted: &[&str]| {
        intersect(&parse(asked), &parse(granted)).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(both(&["https://*.example.com"], &["https://a.example.com"]), ["https://a.example.com"]);
    assert_eq!(both(&["https://a.example.com"], &["https://*.example.com"]), ["https://a.example.com"]);
    assert_eq!(both(&["https://*.example.com"], &["https://*.b.example.com"]), ["https://*.b.example.com"]);
    assert_eq!(both(&["https://a.test", "https://b.test"], &["https://b.test"]), ["https://b.test"]);
    assert!(both(&["https://a.test"], &["http://a.test"]).is_empty());
    assert!(both(&["https://a.test"], &["https://a.test:8443"]).is_empty());
    assert!(both(&["https://*.a.test"], &["https://a.test"]).is_empty());
    assert!(both(&["https://a.test"], &[]).is_empty());
}

#[test]
fn secrets_are_taken_out_however_they_are_spelt() {
    let scrubber = Scrubber::default();
    scrubber.learn("token", TOKEN.as_bytes());
    scrubber.learn("short", b"abc");
    for spelling in [
        "s3cr3t-t0ken/+",
        "S3CR3T-T0KEN/+",
        "s3cr3t-t0ken%2F%2B",
        "s3cr3t-t0ken%2f%2b",
        "7333637233742d74306b656e2f2b",
        "7333637233742D74306B656E2F2B",
    ] {
        let clean = scrubber.scrub(&format!("a {spelling} b ü")).into_owned();
        assert_eq!(clean, "a <redacted> b ü", "{spelling}");
    }
    assert_eq!(scrubber.scrub("abc"), "abc");
    scrubber.learn("json", b"line\n\"two\"");
    assert_eq!(scrubber.scrub(r#"{"v":"line\n\"two\""}"#), r#"{"v":"<redacted>"}"#);
    assert!(!format!("{scrubber:?}").contains("s3cr3t"));
}

#[test]
fn the_value_before_is_remembered_but_not_for_ever() {
    let scrubber = Scrubber::default();
    for value in ["first-value", "second-value", "third-value", "fourth-value"] {
        scrubber.learn("token", value.as_bytes());
    }
    assert_eq!(scrubber.scrub("third-value fourth-value"), "<redacted> <redacted>");
    assert_eq!(scrubber.scrub("first-value"), "first-value");
}

proptest! {
    #[test]
    fn base64_hides_nothing(
        before in proptest::collection::vec(any::<u8>(), 0..9),
        value in proptest::collection::vec(any::<u8>(), MIN_SECRET_BYTES..40),
        after in proptest::collection::vec(any::<u8>(), 0..9),
    ) {
        let scrubber = Scrubber::default();
        scrubber.learn("slot", &value);
        let text = BASE64_STANDARD.encode([before, value, after].concat());
        prop_assert!(scrubber.scrub(&text).contains("<redacted>"), "{}", text);
    }
}

#[test]
fn a_rate_lets_a_burst_through_and_then_its_number() {
    let rate = quota::Rate::per_second(10);
    let start = Instant::now();
    for _ in 0..10 {
        assert_eq!(rate.take(start, Duration::ZERO), Ok(Duration::ZERO));
    }
    assert_eq!(rate.take(start, Duration::ZERO), Err(Duration::from_millis(100)));
    assert_eq!(rate.take(start, Duration::from_secs(1)), Ok(Duration::from_millis(100)));
    let later = start + Duration::from_secs(5);
    assert_eq!(rate.take(later, Duration::ZERO), Ok(Duration::ZERO));
    assert!(quota::Rate::per_second(0).take(start, Duration::from_secs(1)).is_err());
}

#[test]
fn a_guests_line_is_one_line() {
    let line = telemetry::line("a\nb\u{1b}[31m", &[("k".to_owned(), "v\r".to_owned())]);
    assert_eq!(line, "a\\u{a}b\\u{1b}[31m k=v\\u{d}");
    assert!(telemetry::line(&"x".repeat(10_000), &[]).len() < 5000);
}
