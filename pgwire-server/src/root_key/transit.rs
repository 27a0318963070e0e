//! A key of the transit engine of Vault or OpenBao, over its documented HTTP API:
//! `POST /v1/<mount>/encrypt/<key>` and `…/decrypt/<key>`.
//!
//! The token is read anew for each request, because agents renew it. What the server answers is never shown but for its
//! own `errors`. Blocking, in a thread with a runtime of its own: it is called where there is none, and where there is.

use std::{net::IpAddr, sync::Arc, thread, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use reqwest::{
    Client, Url,
    header::{CONTENT_TYPE, HeaderMap, HeaderValue},
    redirect,
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject},
};
use sepal_database::{KeyWrapper, Provider, WrapperError};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use zeroize::Zeroizing;

use super::Secret;

const CONNECT: Duration = Duration::from_secs(5);
const WHOLE: Duration = Duration::from_secs(10);
const MAX_RESPONSE_BYTES: usize = 64 << 10;
/// What a request or an answer has room for: all of an answer, and far more than a request.
const ROOM_BYTES: usize = MAX_RESPONSE_BYTES;

pub(super) struct Transit {
    provider: Provider,
    token: Secret,
    /// Up to and with the mount, without a slash at its end.
    base: String,
    key: String,
    namespace: Option<String>,
    tls: Arc<ClientConfig>,
}

impl Transit {
    pub(super) fn open(provider: &Provider, token: Secret) -> Result<Self, WrapperError> {
        let Provider::Transit { url, mount, key, namespace, ca_file, .. } = provider else {
            return Err(WrapperError::Misconfigured(format!("{provider} is no transit engine")));
        };
        check_url(url)?;
        for (what, part) in [("mount", mount), ("key", key)] {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            let parts = part.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
            if !parts || !part.chars().all(|c| plain(c) || (what == "mount" && c == '/')) {
                return Err(WrapperError::Misconfigured(format!(
                    "\"{part}\" is no name of a transit {what}"
                )));
            }
        }
        Ok(Self {
            provider: provider.clone(),
            token,
            base: format!("{}/v1/{mount}", url.trim_end_matches('/')),
            key: key.clone(),
            namespace: namespace.clone(),
            tls: Arc::new(tls(ca_file.as_deref())?),
        })
    }

    /// Sends a request and gives the answer's `data`.
    fn ask(&self, action: &str, request: &impl Serialize) -> Result<Data, WrapperError> {
        let token = self.token.read().map_err(WrapperError::Misconfigured)?;
        let wrong = |what: &str| WrapperError::Misconfigured(format!("the {what} is no value of a header"));
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let mut token = HeaderValue::from_str(&token).map_err(|_| wrong("token"))?;
        token.set_sensitive(true);
        headers.insert("x-vault-token", token);
        if let Some(namespace) = &self.namespace {
            let value = HeaderValue::from_str(namespace).map_err(|_| wrong("namespace"))?;
            headers.insert("x-vault-namespace", value);
        }
        let url = format!("{}/{action}/{}", self.base, self.key);
        let (tls, body) = (Arc::clone(&self.tls), body_of(request));
        let asked = thread::scope(|scope| {
            thread::Builder::new()
                .name("sepal-transit".into())
                .spawn_scoped(scope, || exchange(&tls, &url, headers, body))
                .map_err(|error| WrapperError::Unavailable(format!("no thread for the request: {error}")))?
                .join()
                .map_err(|_| WrapperError::Unavailable("the request ended early".into()))?
        });
        asked?.data.ok_or_else(|| lacks(action, "data"))
    }
}

impl KeyWrapper for Transit {
    fn provider(&self) -> Provider {
        self.provider.clone()
    }

    fn wrap(&self, context: &[u8], secret: &[u8]) -> Result<Vec<u8>, WrapperError> {
        let (plaintext, context) = (Zeroizing::new(STANDARD.encode(secret)), STANDARD.encode(context));
        let request = Encrypt { plaintext: &plaintext, associated_data: &context };
        let wrapped = self.ask("encrypt", &request)?.ciphertext;
        Ok(wrapped.ok_or_else(|| lacks("encrypt", "data.ciphertext"))?.as_bytes().to_vec())
    }

    fn unwrap(&self, context: &[u8], wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, WrapperError> {
        let ciphertext = std::str::from_utf8(wrapped)
            .map_err(|_| WrapperError::Refused("what was wrapped is no text of a transit engine".into()))?;
        let request = Decrypt { ciphertext, associated_data: &STANDARD.encode(context) };
        let plaintext = self.ask("decrypt", &request)?.plaintext;
        let plaintext = plaintext.ok_or_else(|| lacks("decrypt", "data.plaintext"))?;
        let plain = STANDARD.decode(plaintext.as_bytes());
        plain.map(Zeroizing::new).map_err(|_| WrapperError::Refused("data.plaintext is not base64".into()))
    }
}

#[derive(Serialize)]
struct Encrypt<'a> {
    plaintext: &'a str,
    associated_data: &'a str,
}

#[derive(Serialize)]
struct Decrypt<'a> {
    ciphertext: &'a str,
    associated_data: &'a str,
}

/// What is looked at of an answer.
#[derive(Default, Deserialize)]
struct Answer {
    data: Option<Data>,
    errors: Option<Vec<Value>>,
}

#[derive(Deserialize)]
struct Data {
    #[serde(default, deserialize_with = "wiped")]
    ciphertext: Option<Zeroizing<String>>,
    #[serde(default, deserialize_with = "wiped")]
    plaintext: Option<Zeroizing<String>>,
}

fn wiped<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Zeroizing<String>>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.map(Zeroizing::new))
}

/// With room for all of it: a text that grows leaves its bytes where it was.
fn body_of(request: &impl Serialize) -> Zeroizing<Vec<u8>> {
    let mut text = Zeroizing::new(Vec::with_capacity(ROOM_BYTES));
    serde_json::to_writer(&mut *text, request).expect("texts always serialise");
    text
}

fn lacks(action: &str, what: &str) -> WrapperError {
    WrapperError::Refused(format!("the answer to {action} has no {what}"))
}

/// A token may go over TLS, or stay on this machine.
fn check_url(text: &str) -> Result<(), WrapperError> {
    let wrong =
        |why: &str| WrapperError::Misconfigured(format!("\"{text}\" is no URL of a transit engine: {why}"));
    let url = Url::parse(text).map_err(|error| wrong(&error.to_string()))?;
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
        return Err(wrong("give neither user, password nor query"));
    }
    match url.scheme() {
        "https" => Ok(()),
        "http" if here => Ok(()),
        _ => Err(wrong("use https (http is taken for this machine only)")),
    }
}

fn tls(ca_file: Option<&std::path::Path>) -> Result<ClientConfig, WrapperError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(path) = ca_file {
        let broken = |error: &dyn std::fmt::Display| {
            WrapperError::Misconfigured(format!("the authorities of {}: {error}", path.display()))
        };
        for certificate in CertificateDer::pem_file_iter(path).map_err(|error| broken(&error))? {
            let certificate = certificate.map_err(|error| broken(&error))?;
            roots.add(certificate).map_err(|error| broken(&error))?;
        }
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| WrapperError::Misconfigured(format!("TLS: {error}")))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// One request on a connection of its own.
fn exchange(
    tls: &ClientConfig,
    url: &str,
    headers: HeaderMap,
    body: Zeroizing<Vec<u8>>,
) -> Result<Answer, WrapperError> {
    let unavailable = |error: &dyn std::fmt::Display| {
        WrapperError::Unavailable(format!("the transit engine does not answer: {error}"))
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| unavailable(&error))?;
    runtime.block_on(async {
        let client = Client::builder()
            .use_preconfigured_tls(tls.clone())
            .redirect(redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .connect_timeout(CONNECT)
            .timeout(WHOLE)
            .user_agent(concat!("sepal/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| unavailable(&error))?;
        // Wiped when the request is done with it.
        let body = Bytes::from_owner(body);
        let sent = client.post(url).headers(headers).body(body).send().await;
        let mut response = sent.map_err(|error| unavailable(&causes(&error)))?;
        let status = response.status().as_u16();
        let mut text = Zeroizing::new(Vec::with_capacity(ROOM_BYTES));
        while let Some(chunk) = response.chunk().await.map_err(|error| unavailable(&causes(&error)))? {
            if text.len() + chunk.len() > MAX_RESPONSE_BYTES {
                return Err(WrapperError::Refused("the transit engine's answer is too long".into()));
            }
            text.extend_from_slice(&chunk);
        }
        judge(status, &text)
    })
}

fn judge(status: u16, text: &[u8]) -> Result<Answer, WrapperError> {
    let answer: Answer = serde_json::from_slice(text).unwrap_or_default();
    let said: Vec<&str> = answer.errors.iter().flatten().filter_map(Value::as_str).collect();
    let said = if said.is_empty() { "it does not say why".to_owned() } else { said.join("; ") };
    match status {
        200 => Ok(answer),
        429 | 500..=599 => Err(WrapperError::Unavailable(format!(
            "the transit engine cannot do it now (HTTP {status}): {said}"
        ))),
        _ => Err(WrapperError::Refused(format!("the transit engine refuses (HTTP {status}): {said}"))),
    }
}

/// The innermost cause says what happened; reqwest's own text begins with the URL.
fn causes(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
