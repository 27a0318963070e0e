//! A guest's request, read with suspicion: what passes here is one well-formed HTTP request to one host.
//!
//! `outside` calls it before anything else; secrets are still names of slots.

use std::{net::IpAddr, time::Duration};

use reqwest::{
    Method, Url,
    header::{HeaderName, HeaderValue as WireValue},
};

use super::rules::{Destination, DestinationHost};
use crate::call::{HeaderValue, HttpError, HttpRequest, SECRET_WORD_BYTES, SECRET_WORD_PREFIX};

const MAX_URL_BYTES: usize = 8 << 10;
const MAX_HEADERS: usize = 100;
/// Of all headers as the guest gives them, and of each one with its secrets in place.
pub(super) const MAX_HEADER_BYTES: usize = 64 << 10;
/// Each is a secret that is looked up.
const MAX_PARTS: usize = 64;
/// As many words as a guest can have.
const MAX_BODY_SECRETS: usize = 64;
/// Told to the connection by the one who keeps it: a guest that sets them writes a second request into the first, or
/// reaches another host behind the same address. Those about encodings and ranges would have a destination echo a
/// secret compressed or in pieces, where nobody finds it.
const RESERVED: [&str; 17] = [
    "accept-encoding",
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "if-range",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
];

/// What a request may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub request_bytes: u64,
    pub response_bytes: u32,
    pub timeout: Duration,
}

/// A request that is well-formed and within bounds.
#[derive(Debug)]
pub(super) struct Checked {
    pub method: Method,
    pub url: Url,
    pub destination: Destination,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub body: Option<Vec<u8>>,
    /// Words and their slots.
    pub body_secrets: Vec<(String, String)>,
    pub timeout: Duration,
    pub response_bytes: usize,
}

impl Checked {
    pub fn new(request: HttpRequest, bounds: Bounds) -> Result<Self, HttpError> {
        let (url, destination) = check_url(&request.url)?;
        let size = request.body.as_ref().map_or(0, Vec::len);
        if u64::try_from(size).is_ok_and(|size| size > bounds.request_bytes) {
            return Err(denied(format!(
                "the body has {size} bytes, more than the {} that are allowed",
                bounds.request_bytes
            )));
        }
        check_words(&request.body_secrets)?;
        let asked = request.timeout_ms.map(|ms| Duration::from_millis(ms.into()));
        let response_bytes = request.max_response_bytes.unwrap_or(u32::MAX).min(bounds.response_bytes);
        Ok(Self {
            method: check_method(&request.method)?,
            url,
            destination,
            headers: check_headers(request.headers)?,
            body: request.body,
            body_secrets: request.body_secrets,
            timeout: asked.unwrap_or(bounds.timeout).min(bounds.timeout),
            response_bytes: usize::try_from(response_bytes).unwrap_or(usize::MAX),
        })
    }

    /// The address, where the URL names one: there is nothing to resolve then, and nothing else judges it.
    pub fn literal_address(&self) -> Option<IpAddr> {
        match self.destination.host {
            DestinationHost::Address(address) => Some(address),
            DestinationHost::Name(_) => None,
        }
    }
}

fn check_url(text: &str) -> Result<(Url, Destination), HttpError> {
    if text.len() > MAX_URL_BYTES {
        return Err(denied(format!("the URL has {} bytes, more than {MAX_URL_BYTES}", text.len())));
    }
    let mut url = Url::parse(text).map_err(|error| denied(format!("the URL cannot be read: {error}")))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(denied("the URL holds a user name or a password: use a header".to_owned()));
    }
    let destination =
        Destination::of(&url).ok_or_else(|| denied("the URL is not http or https with a host".to_owned()))?;
    // The name that was judged is the name that is resolved, asked for by SNI and sent as Host.
    url.set_host(Some(&destination.host.to_string()))
        .map_err(|error| denied(format!("the URL's host cannot be read: {error}")))?;
    url.set_fragment(None);
    Ok((url, destination))
}

fn check_method(text: &str) -> Result<Method, HttpError> {
    match Method::from_bytes(text.as_bytes()) {
        // CONNECT is a tunnel, TRACE an echo of the headers.
        Ok(Method::CONNECT | Method::TRACE) => Err(denied(format!("the method {text} is not allowed"))),
        Ok(method) => Ok(method),
        Err(_) => Err(denied("the method is not a token of HTTP".to_owned())),
    }
}

fn check_headers(headers: Vec<(String, HeaderValue)>) -> Result<Vec<(HeaderName, HeaderValue)>, HttpError> {
    if headers.len() > MAX_HEADERS {
        return Err(denied(format!("there are {} headers, more than {MAX_HEADERS}", headers.len())));
    }
    let mut bytes = 0;
    let mut checked = Vec::with_capacity(headers.len());
    for (name, value) in headers {
        let parsed = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| denied(format!("{:?} is not a header's name", shortened(&name))))?;
        if RESERVED.contains(&parsed.as_str()) {
            return Err(denied(format!("the header {parsed} is the connection's own")));
        }
        match &value {
            HeaderValue::Text(text) => {
                bytes += text.len();
                WireValue::from_str(text).map_err(|_| {
                    denied(format!("the value of the header {parsed} has control characters"))
                })?;
            }
            HeaderValue::Parts(parts) if parts.len() > MAX_PARTS => {
                return Err(denied(format!("the header {parsed} has more than {MAX_PARTS} parts")));
            }
            HeaderValue::Secret(_)
            | HeaderValue::Bearer(_)
            | HeaderValue::Basic(..)
            | HeaderValue::Parts(_) => {}
        }
        bytes += parsed.as_str().len();
        checked.push((parsed, value));
    }
    if bytes > MAX_HEADER_BYTES {
        return Err(denied(format!("the headers have {bytes} bytes, more than {MAX_HEADER_BYTES}")));
    }
    Ok(checked)
}

/// A worker that is no longer ours must not have any text replaced.
fn check_words(words: &[(String, String)]) -> Result<(), HttpError> {
    let is_word = |word: &str| word.len() == SECRET_WORD_BYTES && word.starts_with(SECRET_WORD_PREFIX);
    if words.len() > MAX_BODY_SECRETS || !words.iter().all(|(word, _)| is_word(word)) {
        return Err(denied("the body's secrets are not those of a plugin".to_owned()));
    }
    Ok(())
}

fn shortened(text: &str) -> String {
    text.chars().take(60).collect()
}

pub(super) fn denied(why: String) -> HttpError {
    HttpError::Denied(why)
}
