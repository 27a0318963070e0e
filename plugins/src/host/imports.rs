//! What guests import, answered: secrets as handles, HTTP, state, telemetry.
//!
//! Everything that leaves goes to the call's [`Outside`](crate::call::Outside), which knows what is allowed. Here
//! lies only what can be known beside the guest: its handles, its words for secrets, its staged state, and limits.

use std::time::Instant;

use wasmtime::component::{HasSelf, Linker, Resource};

use super::{
    bindings::sink::sepal::plugin::{http, reveal, secrets, state, telemetry, types},
    staged::OverQuota,
    store::{Guest, SecretHandle},
};
use crate::call::{self, CallError};

const MAX_HEADERS: usize = 128;
const MAX_LOG_BYTES: usize = 4 << 10;
const MAX_SERIES_BYTES: usize = 64;

/// WASI and `sepal:plugin` without `reveal`. Resolvers have no state; linking it harms nobody, `package` refuses them.
pub(super) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)?;
    types::add_to_linker::<Guest, HasSelf<Guest>>(linker, |guest| guest)?;
    secrets::add_to_linker::<Guest, HasSelf<Guest>>(linker, |guest| guest)?;
    http::add_to_linker::<Guest, HasSelf<Guest>>(linker, |guest| guest)?;
    state::add_to_linker::<Guest, HasSelf<Guest>>(linker, |guest| guest)?;
    telemetry::add_to_linker::<Guest, HasSelf<Guest>>(linker, |guest| guest)
}

/// The one import that gives plaintext away.
pub(super) fn link_reveal(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    reveal::add_to_linker::<Guest, HasSelf<Guest>>(linker, |guest| guest)
}

impl types::Host for Guest {}

impl secrets::Host for Guest {
    async fn get(
        &mut self,
        slot: String,
    ) -> wasmtime::Result<Result<Resource<SecretHandle>, secrets::SecretError>> {
        match self.outside.secret(&slot).await {
            Ok(version) => Ok(Ok(self.table.push(SecretHandle { slot, version })?)),
            Err(error) => Ok(Err(secret_error(error))),
        }
    }
}

impl secrets::HostSecret for Guest {
    async fn version(&mut self, secret: Resource<SecretHandle>) -> wasmtime::Result<String> {
        Ok(self.table.get(&secret)?.version.clone())
    }

    async fn header_token(&mut self, secret: Resource<SecretHandle>) -> wasmtime::Result<String> {
        let slot = &self.table.get(&secret)?.slot;
        self.tokens.word(slot, None).ok_or_else(too_many_tokens)
    }

    async fn basic_auth_token(
        &mut self,
        secret: Resource<SecretHandle>,
        user: String,
    ) -> wasmtime::Result<String> {
        let slot = &self.table.get(&secret)?.slot;
        self.tokens.word(slot, Some(&user)).ok_or_else(too_many_tokens)
    }

    async fn hmac_sha256(
        &mut self,
        secret: Resource<SecretHandle>,
        prefix: Vec<u8>,
        data: Vec<u8>,
    ) -> wasmtime::Result<Vec<u8>> {
        let slot = self.table.get(&secret)?.slot.clone();
        let code = self.outside.hmac_sha256(&slot, &prefix, &data).await;
        // The interface has no answer for it: the call ends, and is made again once the secret can be had.
        code.map_err(|_| {
            wasmtime::Error::new(CallError::Gone(format!("the secret of slot {slot} is out of reach")))
        })
    }

    async fn drop(&mut self, secret: Resource<SecretHandle>) -> wasmtime::Result<()> {
        self.table.delete(secret)?;
        Ok(())
    }
}

impl reveal::Host for Guest {
    async fn reveal(
        &mut self,
        secret: Resource<SecretHandle>,
    ) -> wasmtime::Result<Result<Vec<u8>, secrets::SecretError>> {
        let slot = self.table.get(&secret)?.slot.clone();
        Ok(self.outside.reveal(&slot).await.map_err(secret_error))
    }
}

impl http::Host for Guest {
    async fn send(
        &mut self,
        request: http::Request,
    ) -> wasmtime::Result<Result<http::Response, http::HttpError>> {
        if let Err(milliseconds) = self.requests.take(Instant::now()) {
            return Ok(Err(http::HttpError::Throttled(milliseconds)));
        }
        if request.headers.len() > MAX_HEADERS {
            let problem = format!("{} headers; {MAX_HEADERS} is the most", request.headers.len());
            return Ok(Err(http::HttpError::Protocol(problem)));
        }
        let request = self.outgoing(request)?;
        let most = request.max_response_bytes.unwrap_or(self.limits.response_bytes) as usize;
        Ok(match self.outside.http(request).await {
            Ok(mut response) => {
                // The other side was told how much; a second look costs nothing.
                response.truncated |= response.body.len() > most;
                response.body.truncate(most);
                let call::HttpResponse { status, headers, body, truncated } = response;
                Ok(http::Response { status, headers, body, truncated })
            }
            Err(error) => Err(http_error(error)),
        })
    }
}

impl Guest {
    fn outgoing(&self, request: http::Request) -> wasmtime::Result<call::HttpRequest> {
        let slot = |secret: &Resource<SecretHandle>| -> wasmtime::Result<String> {
            Ok(self.table.get(secret)?.slot.clone())
        };
        let mut headers = Vec::with_capacity(request.headers.len());
        for (name, value) in request.headers {
            let value = match value {
                http::HeaderValue::Text(text) => self.tokens.header(text),
                http::HeaderValue::Secret(secret) => call::HeaderValue::Secret(slot(&secret)?),
                http::HeaderValue::Bearer(secret) => call::HeaderValue::Bearer(slot(&secret)?),
                http::HeaderValue::Basic((user, secret)) => call::HeaderValue::Basic(user, slot(&secret)?),
            };
            headers.push((name, value));
        }
        let left = self.until.saturating_duration_since(Instant::now()).as_millis();
        let left_ms = u32::try_from(left).unwrap_or(u32::MAX).max(1);
        let most = self.limits.response_bytes;
        let body_secrets = request.body.as_deref().map(|body| self.tokens.of_body(body));
        Ok(call::HttpRequest {
            method: request.method,
            url: request.url,
            headers,
            body: request.body,
            body_secrets: body_secrets.unwrap_or_default(),
            timeout_ms: Some(request.timeout_ms.unwrap_or(left_ms).min(left_ms)),
            max_response_bytes: Some(request.max_response_bytes.unwrap_or(most).min(most)),
        })
    }
}

impl state::Host for Guest {
    async fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<Vec<u8>>, state::StateError>> {
        Ok(Ok(self.state.get(&key)))
    }

    async fn set(&mut self, key: String, value: Vec<u8>) -> wasmtime::Result<Result<(), state::StateError>> {
        Ok(self.state.set(key, value).map_err(|OverQuota| state::StateError::Quota))
    }

    async fn delete(&mut self, key: String) -> wasmtime::Result<Result<(), state::StateError>> {
        self.state.delete(key);
        Ok(Ok(()))
    }
}

impl telemetry::Host for Guest {
    async fn log(
        &mut self,
        level: telemetry::Level,
        mut message: String,
        mut fields: Vec<(String, String)>,
    ) -> wasmtime::Result<()> {
        if self.log_lines.take(Instant::now()).is_err() {
            return Ok(());
        }
        message.truncate(message.floor_char_boundary(MAX_LOG_BYTES));
        let mut room = MAX_LOG_BYTES - message.len();
        fields.retain(|(name, value)| {
            let fits = name.len() + value.len() <= room;
            room -= if fits { name.len() + value.len() } else { 0 };
            fits
        });
        self.outside.log(log_level(level), &message, &fields);
        Ok(())
    }

    async fn counter_add(&mut self, name: String, value: u32) -> wasmtime::Result<()> {
        if self.admits_series(&name) {
            self.outside.counter_add(&name, value);
        }
        Ok(())
    }

    async fn gauge_set(&mut self, name: String, value: f64) -> wasmtime::Result<()> {
        if value.is_finite() && self.admits_series(&name) {
            self.outside.gauge_set(&name, value);
        }
        Ok(())
    }
}

impl Guest {
    /// A name that a metric can have, and not one too many.
    fn admits_series(&mut self, name: &str) -> bool {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        if self.series.contains(name) {
            return true;
        }
        let named = (1..=MAX_SERIES_BYTES).contains(&name.len()) && name.bytes().all(plain);
        let room = self.series.len() < self.limits.metric_series as usize;
        named && room && self.series.insert(name.to_owned())
    }
}

fn too_many_tokens() -> wasmtime::Error {
    wasmtime::Error::new(CallError::Limit("it asked for too many header tokens".to_owned()))
}

fn secret_error(error: call::SecretError) -> secrets::SecretError {
    match error {
        call::SecretError::NoSuchSlot => secrets::SecretError::NoSuchSlot,
        call::SecretError::Unavailable => secrets::SecretError::Unavailable,
    }
}

fn http_error(error: call::HttpError) -> http::HttpError {
    match error {
        call::HttpError::Denied(why) => http::HttpError::Denied(why),
        call::HttpError::Dns => http::HttpError::Dns,
        call::HttpError::Connect => http::HttpError::Connect,
        call::HttpError::Tls(why) => http::HttpError::Tls(why),
        call::HttpError::Timeout => http::HttpError::Timeout,
        call::HttpError::Protocol(why) => http::HttpError::Protocol(why),
        call::HttpError::Throttled(milliseconds) => http::HttpError::Throttled(milliseconds),
    }
}

fn log_level(level: telemetry::Level) -> call::Level {
    match level {
        telemetry::Level::Trace => call::Level::Trace,
        telemetry::Level::Debug => call::Level::Debug,
        telemetry::Level::Info => call::Level::Info,
        telemetry::Level::Warn => call::Level::Warn,
        telemetry::Level::Error => call::Level::Error,
    }
}
