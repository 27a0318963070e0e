//! Requests to the hosts that the manifest names. Sinks and resolvers call it; the host sends, checks the destination
//! and puts secrets into headers. Redirects come back as they are.

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    Error, ErrorKind, Secret,
    bindings::sink::sepal::plugin::http::{self, HeaderValue, HttpError},
    time::{Civil, unix_seconds},
};

/// How much of an answer is repeated in an error.
const SHOWN_BYTES: usize = 300;

pub fn get<'a>(url: impl Into<String>) -> Request<'a> {
    Request::new("GET", url)
}

pub fn post<'a>(url: impl Into<String>) -> Request<'a> {
    Request::new("POST", url)
}

pub fn put<'a>(url: impl Into<String>) -> Request<'a> {
    Request::new("PUT", url)
}

/// A request that is being put together. `send` it.
#[derive(Debug)]
pub struct Request<'a>(http::Request<'a>);

impl<'a> Request<'a> {
    pub fn new(method: &str, url: impl Into<String>) -> Self {
        Self(http::Request {
            method: method.to_owned(),
            url: url.into(),
            headers: Vec::new(),
            body: None,
            timeout_ms: None,
            max_response_bytes: None,
        })
    }

    fn with(mut self, name: impl Into<String>, value: HeaderValue<'a>) -> Self {
        self.0.headers.push((name.into(), value));
        self
    }

    #[must_use]
    pub fn header(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.with(name, HeaderValue::Text(value.into()))
    }

    /// The secret as a header's whole value.
    #[must_use]
    pub fn secret_header(self, name: impl Into<String>, secret: &'a Secret) -> Self {
        self.with(name, HeaderValue::Secret(secret))
    }

    /// `authorization: Bearer …`
    #[must_use]
    pub fn bearer(self, secret: &'a Secret) -> Self {
        self.with("authorization", HeaderValue::Bearer(secret))
    }

    /// `authorization: Basic …`
    #[must_use]
    pub fn basic(self, user: impl Into<String>, secret: &'a Secret) -> Self {
        self.with("authorization", HeaderValue::Basic((user.into(), secret)))
    }

    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.0.body = Some(body.into());
        self
    }

    /// Body and content type.
    pub fn json(self, body: &impl Serialize) -> Result<Self, Error> {
        Ok(self.header("content-type", "application/json").body(serde_json::to_vec(body)?))
    }

    #[must_use]
    pub fn timeout_ms(mut self, timeout_ms: u32) -> Self {
        self.0.timeout_ms = Some(timeout_ms);
        self
    }

    #[must_use]
    pub fn max_response_bytes(mut self, bytes: u32) -> Self {
        self.0.max_response_bytes = Some(bytes);
        self
    }

    /// Errors: what kept the request from being answered. An answer of any status is `Ok`; see [`Response::ok`].
    pub fn send(self) -> Result<Response, Error> {
        let http::Response { status, headers, body, truncated } = http::send(&self.0).map_err(unanswered)?;
        Ok(Response { status, headers, body, truncated })
    }
}

fn unanswered(error: HttpError) -> Error {
    match error {
        HttpError::Denied(why) => {
            Error::misconfigured(format!("the request is not allowed: {why}")).code("http.denied")
        }
        HttpError::Dns => Error::transient("the destination's name has no address").code("http.dns"),
        HttpError::Connect => {
            Error::transient("the destination does not accept connections").code("http.connect")
        }
        HttpError::Tls(why) => Error::transient(format!("TLS: {why}")).code("http.tls"),
        HttpError::Timeout => Error::transient("the destination did not answer in time").code("http.timeout"),
        HttpError::Protocol(why) => Error::transient(format!("not HTTP: {why}")).code("http.protocol"),
        HttpError::Throttled(wait_ms) => Error::transient("the quota of requests is used up")
            .code("http.throttled")
            .retry_after_ms(Some(wait_ms)),
    }
}

/// An answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// There was more than `max_response_bytes`.
    pub truncated: bool,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(header, _)| header.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.body).map_err(|error| {
            let cut = if self.truncated { ", and was cut off" } else { "" };
            Error::transient(format!("the answer is not the JSON that was expected{cut}: {error}"))
                .code("http.body")
        })
    }

    /// [`Self::ok`] that lets some other statuses pass too.
    pub fn ok_or(self, statuses: &[u16]) -> Result<Self, Error> {
        if statuses.contains(&self.status) { Ok(self) } else { self.ok() }
    }

    /// The answer if its status is 2xx; else an error by [`HttpStatus::classify`] with the body's beginning.
    pub fn ok(self) -> Result<Self, Error> {
        let Some(kind) = HttpStatus(self.status).classify() else { return Ok(self) };
        let mut message = format!("the destination answered {}", self.status);
        if let Some(location) = self.header("location").filter(|_| (300..400).contains(&self.status)) {
            message.push_str(&format!(" to {location}; redirects are not followed, name the final address"));
        }
        let shown = String::from_utf8_lossy(&self.body[..self.body.len().min(SHOWN_BYTES)]);
        if !shown.trim().is_empty() {
            message.push_str(&format!(": {}", shown.trim()));
        }
        let retry_after_ms = self.header("retry-after").and_then(|text| retry_after_ms(text, unix_seconds()));
        Err(Error::new(kind, message).code(format!("http.{}", self.status)).retry_after_ms(retry_after_ms))
    }
}

/// A status code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpStatus(pub u16);

impl HttpStatus {
    /// What kind of error it is; none for 2xx.
    ///
    /// 408, 425, 429 and 5xx pass; 401 and 403 are about credentials; 404, 410 and redirects about the address; every
    /// other 4xx about the data.
    pub const fn classify(self) -> Option<ErrorKind> {
        match self.0 {
            200..=299 => None,
            300..=399 | 404 | 405 | 410 => Some(ErrorKind::Misconfigured),
            401 | 403 | 407 => Some(ErrorKind::Unauthorized),
            408 | 425 | 429 => Some(ErrorKind::Transient),
            400..=499 => Some(ErrorKind::Rejected),
            _ => Some(ErrorKind::Transient),
        }
    }
}

/// `120` or an HTTP date (RFC 9110, 10.2.3).
pub(crate) fn retry_after_ms(text: &str, now: i64) -> Option<u32> {
    let seconds = match text.trim().parse::<i64>() {
        Ok(seconds) => seconds,
        Err(_) => Civil::of_http_date(text.trim())?.unix_seconds() - now,
    };
    u32::try_from(seconds.max(0).saturating_mul(1_000)).ok()
}
