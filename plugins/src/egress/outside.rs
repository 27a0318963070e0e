//! Answers what one sink's or resolver's guest asks: requests, secrets, logs, metrics.
//!
//! Secrets are put on the wire here and nowhere else, for hosts that both the sink's grant and the secret itself
//! allow. What comes back is searched for them before the guest sees it: a destination that echoes its headers is
//! no way to the plaintext.

use std::{collections::BTreeMap, fmt, sync::Arc};

use async_trait::async_trait;
use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use parking_lot::Mutex;
use reqwest::header::{HeaderMap, HeaderValue as WireValue};
use sepal_database::connector::{Fault, FaultKind, SecretValue, Secrets};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{
    HostRule, Scrubber, Shared, SlotGrant,
    body::{self, Spelling},
    client::{self, Outgoing},
    request::{Bounds, Checked, MAX_HEADER_BYTES, denied},
    rules::{Destination, HostPattern},
    telemetry::{HASHED_UNIT_BYTES, Source},
};
use crate::{
    call::{HeaderPart, HeaderValue, HttpError, HttpRequest, HttpResponse, Level, Outside, SecretError},
    manifest::{EffectiveLimits, SlotUse},
};

/// A message of an error is for people.
const MAX_MESSAGE_CHARS: usize = 500;
/// When a secret's store is out of reach.
const SECRET_RETRY_MS: u32 = 1000;
/// An answer to `range`, which no guest can send.
const PARTIAL_CONTENT: u16 = 206;
/// What is hashed before others may run: some hundred microseconds.
const HASHED_AT_ONCE_BYTES: usize = 256 << 10;

/// What one sink or resolver may do, and with which secrets.
pub struct PluginOutside {
    pub(super) shared: Arc<Shared>,
    pub(super) source: Arc<Source>,
    pub(super) slots: BTreeMap<String, SlotGrant>,
    pub(super) secrets: Arc<dyn Secrets>,
    pub(super) allow: Vec<HostRule>,
    pub(super) reveal: bool,
    pub(super) scrubber: Arc<Scrubber>,
    /// Why a secret was not to be had, last.
    pub(super) trouble: Mutex<Option<Fault>>,
}

/// A request with its secrets in place. No `Debug`: they are plaintext here.
pub(crate) struct Rehearsed {
    pub method: String,
    pub url: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// More of an answer is cut off.
    pub response_bytes: usize,
}

impl PluginOutside {
    /// For messages that do not pass through here: faults, dead letters.
    pub fn scrubber(&self) -> &Arc<Scrubber> {
        &self.scrubber
    }

    /// Why a secret was not to be had since this was last asked: the guest learns only that there is none.
    pub fn take_trouble(&self) -> Option<Fault> {
        self.trouble.lock().take()
    }

    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let checked = self.checked(request)?;
        let _turn = self.source.quota.enter().await.map_err(HttpError::Throttled)?;
        let outgoing = self.outgoing(checked).await?;
        let client = self.shared.client(self.source.key.tenant)?;
        let most = outgoing.response_bytes;
        let response = client::send(&client, outgoing).await?;
        Ok(self.scrub_response(response, most))
    }

    /// The request as it would travel, for one who answers it without a network: the conformance kit. Quotas do not
    /// count.
    pub(crate) async fn rehearse(&self, request: HttpRequest) -> Result<Rehearsed, HttpError> {
        let checked = self.checked(request).map_err(|error| self.scrub_error(error))?;
        let outgoing = self.outgoing(checked).await.map_err(|error| self.scrub_error(error))?;
        let text = |value: &WireValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let headers = outgoing.headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value)));
        Ok(Rehearsed {
            method: outgoing.method.to_string(),
            url: outgoing.url.to_string(),
            headers: headers.collect(),
            body: outgoing.body.unwrap_or_default(),
            response_bytes: outgoing.response_bytes,
        })
    }

    /// What the guest sees of an answer to what was rehearsed.
    pub(crate) fn received(&self, response: HttpResponse, most: usize) -> HttpResponse {
        self.scrub_response(response, most)
    }

    fn checked(&self, request: HttpRequest) -> Result<Checked, HttpError> {
        let checked = Checked::new(request, self.bounds())?;
        self.permit(&checked)?;
        Ok(checked)
    }

    /// Secrets take the place of their slots.
    async fn outgoing(&self, mut checked: Checked) -> Result<Outgoing, HttpError> {
        let mut headers = HeaderMap::with_capacity(checked.headers.len());
        for (name, value) in &checked.headers {
            headers.append(name.clone(), self.wire_value(value, &checked.destination).await?);
        }
        let body = self.wire_body(&mut checked).await?;
        Ok(Outgoing {
            method: checked.method,
            url: checked.url,
            headers,
            body,
            timeout: checked.timeout,
            response_bytes: checked.response_bytes,
        })
    }

    fn bounds(&self) -> Bounds {
        let limits = &self.source.limits;
        let wall = std::time::Duration::from_millis(limits.wall_per_call_ms.into());
        Bounds {
            request_bytes: limits.hostcall_bytes.min(self.shared.max_request_bytes),
            response_bytes: limits.response_bytes,
            timeout: wall.min(self.shared.max_timeout),
        }
    }

    /// By name, and by address where the URL has one; other addresses are judged when they are known.
    fn permit(&self, checked: &Checked) -> Result<(), HttpError> {
        let destination = &checked.destination;
        if !self.allow.iter().any(|rule| rule.matches(destination)) {
            let allowed: Vec<String> = self.allow.iter().take(8).map(ToString::to_string).collect();
            let allowed = if allowed.is_empty() { "nothing".to_owned() } else { allowed.join(", ") };
            return Err(denied(format!(
                "{} port {} is not among the hosts that the plugin asks for and ALLOW HOSTS grants ({allowed})",
                destination.host, destination.port
            )));
        }
        if checked.literal_address().is_some_and(|address| !self.shared.policy.permits(address)) {
            return Err(denied(format!("{} is not a public address", destination.host)));
        }
        Ok(())
    }

    /// The header as it travels. Logs of the HTTP stack show a sensitive one as such.
    async fn wire_value(&self, value: &HeaderValue, to: &Destination) -> Result<WireValue, HttpError> {
        let (bytes, sensitive) = match value {
            HeaderValue::Text(text) => (Zeroizing::new(text.as_bytes().to_vec()), false),
            HeaderValue::Secret(slot) => (self.header_value(slot, to).await?, true),
            HeaderValue::Bearer(slot) => {
                (joined(&[b"Bearer ".as_slice(), self.header_value(slot, to).await?.as_slice()]), true)
            }
            HeaderValue::Basic(user, slot) => (self.basic(user, slot, to).await?, true),
            HeaderValue::Parts(parts) => (self.parts(parts, to).await?, true),
        };
        check_length(&bytes)?;
        let mut wire = WireValue::from_bytes(&bytes).map_err(|_| {
            denied("a header's value has control characters: does the secret end with a newline?".to_owned())
        })?;
        wire.set_sensitive(sensitive);
        Ok(wire)
    }

    async fn parts(&self, parts: &[HeaderPart], to: &Destination) -> Result<Zeroizing<Vec<u8>>, HttpError> {
        let mut whole = Zeroizing::new(Vec::new());
        for part in parts {
            whole = match part {
                HeaderPart::Text(text) => joined(&[whole.as_slice(), text.as_bytes()]),
                HeaderPart::Secret(slot) => {
                    joined(&[whole.as_slice(), self.header_value(slot, to).await?.as_slice()])
                }
                HeaderPart::Basic(user, slot) => {
                    joined(&[whole.as_slice(), self.basic(user, slot, to).await?.as_slice()])
                }
            };
            check_length(&whole)?;
        }
        Ok(whole)
    }

    /// The body as it travels.
    async fn wire_body(&self, checked: &mut Checked) -> Result<Option<Vec<u8>>, HttpError> {
        let Some(body) = checked.body.take() else { return Ok(None) };
        if checked.body_secrets.is_empty() {
            return Ok(Some(body));
        }
        let mut words = Vec::with_capacity(checked.body_secrets.len());
        for (word, slot) in &checked.body_secrets {
            words.push((word.as_str(), self.value(slot, SlotUse::HttpBody, &checked.destination).await?));
        }
        let most = self.bounds().request_bytes;
        body::with_secrets(&body, &words, Spelling::of(&checked.headers), most).map(Some)
    }

    async fn basic(&self, user: &str, slot: &str, to: &Destination) -> Result<Zeroizing<Vec<u8>>, HttpError> {
        if user.contains(':') || user.chars().any(char::is_control) {
            return Err(denied("a user name for Basic holds a colon or a control character".to_owned()));
        }
        let value = self.header_value(slot, to).await?;
        let plain = joined(&[user.as_bytes(), b":".as_slice(), value.as_slice()]);
        let encoded = Zeroizing::new(BASE64_STANDARD.encode(&*plain));
        Ok(joined(&[b"Basic ".as_slice(), encoded.as_bytes()]))
    }

    async fn header_value(&self, slot: &str, to: &Destination) -> Result<Zeroizing<Vec<u8>>, HttpError> {
        self.value(slot, SlotUse::HttpHeader, to).await
    }

    /// The plaintext, for a host that the secret allows.
    async fn value(
        &self,
        slot: &str,
        place: SlotUse,
        to: &Destination,
    ) -> Result<Zeroizing<Vec<u8>>, HttpError> {
        if !self.is_for(slot, place) {
            let what = if place == SlotUse::HttpBody { "bodies" } else { "headers" };
            let word = place.word();
            return Err(denied(format!("slot {slot:?} is not for {what}: its use has no \"{word}\"")));
        }
        let secret = match self.resolve(slot).await {
            None => return Err(denied(format!("the plugin has no secret in a slot {slot:?}"))),
            Some(Err(fault)) if fault.kind == FaultKind::Transient => {
                return Err(HttpError::Throttled(fault.retry_after_ms.unwrap_or(SECRET_RETRY_MS)));
            }
            Some(Err(fault)) => {
                return Err(denied(format!("the secret of slot {slot:?} is not to be had: {fault}")));
            }
            Some(Ok(secret)) => secret,
        };
        if let Some(hosts) = &secret.allowed_hosts
            && !HostPattern::any_matches(hosts, &to.host)
        {
            return Err(denied(format!(
                "the secret of slot {slot:?} may not go to {}: its allowed_hosts say where",
                to.host
            )));
        }
        Ok(Zeroizing::new(secret.value.to_vec()))
    }

    /// `None`: there is no such slot. What was resolved once is taken out of everything from then on.
    async fn resolve(&self, slot: &str) -> Option<Result<SecretValue, Fault>> {
        let SlotGrant { secret: name, version, .. } = self.slots.get(slot)?;
        let resolved = self.secrets.secret(name, *version).await;
        match &resolved {
            Ok(secret) => self.scrubber.learn(slot, &secret.value),
            Err(fault) => *self.trouble.lock() = Some(fault.clone()),
        }
        Some(resolved)
    }

    async fn resolve_for_guest(&self, slot: &str) -> Result<SecretValue, SecretError> {
        self.resolve(slot).await.ok_or(SecretError::NoSuchSlot)?.map_err(|fault| {
            let fault = self.scrubber.scrub(&fault.to_string()).into_owned();
            // Under the limit of the sink's lines: a guest may ask for it in a loop.
            let fields = [("slot".to_owned(), slot.to_owned()), ("fault".to_owned(), fault)];
            self.source.log(Level::Warn, "a secret is not to be had", &fields);
            SecretError::Unavailable
        })
    }

    /// A slot that is not there is for nothing in particular: who looks for it says so.
    fn is_for(&self, slot: &str, wanted: SlotUse) -> bool {
        self.slots.get(slot).is_none_or(|grant| grant.uses.contains(&wanted))
    }

    /// For a guest that does with a slot what its manifest does not say. For this use there is no such slot, and
    /// trying again changes nothing.
    fn misused(&self, slot: &str, wanted: &str) -> SecretError {
        let (tenant, sink) = (self.source.key.tenant, self.source.key.name.as_str());
        tracing::warn!(target: "sepal::plugin", %tenant, sink, slot, wanted, "a slot is not for this use");
        SecretError::NoSuchSlot
    }

    /// Withholds the body where a secret could be in it unseen, and cuts it at what the guest asked for.
    fn scrub_response(&self, response: HttpResponse, most: usize) -> HttpResponse {
        let clean = |text: String| self.scrubber.scrub(&text).into_owned();
        let unreadable = !self.scrubber.is_empty() && is_unreadable(&response);
        let headers = response.headers.into_iter().map(|(name, value)| (clean(name), clean(value))).collect();
        let mut body = match unreadable {
            true => Vec::new(),
            false => self.scrubber.scrub_start(response.body, most),
        };
        // What stands in a secret's place may be longer than it was.
        let truncated = response.truncated || unreadable || body.len() > most;
        body.truncate(most);
        HttpResponse { status: response.status, headers, body, truncated }
    }

    fn scrub_error(&self, error: HttpError) -> HttpError {
        let clean =
            |text: String| self.scrubber.scrub(&text).chars().take(MAX_MESSAGE_CHARS).collect::<String>();
        match error {
            HttpError::Denied(text) => HttpError::Denied(clean(text)),
            HttpError::Tls(text) => HttpError::Tls(clean(text)),
            HttpError::Protocol(text) => HttpError::Protocol(clean(text)),
            HttpError::Dns | HttpError::Connect | HttpError::Timeout | HttpError::Throttled(_) => error,
        }
    }
}

#[async_trait]
impl Outside for PluginOutside {
    async fn http(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        self.source.touch();
        let result = self.send(request).await;
        self.source.count(&result);
        result.map_err(|error| self.scrub_error(error))
    }

    async fn secret(&self, slot: &str) -> Result<String, SecretError> {
        Ok(self.resolve_for_guest(slot).await?.version)
    }

    async fn hmac_sha256(&self, slot: &str, prefix: &[u8], data: &[u8]) -> Result<Vec<u8>, SecretError> {
        if !self.is_for(slot, SlotUse::Hmac) {
            return Err(self.misused(slot, "hmac"));
        }
        let bytes = prefix.len() + data.len();
        if bytes as u64 > EffectiveLimits::MOST.hostcall_bytes {
            return Err(SecretError::Unavailable);
        }
        let units = u32::try_from(bytes / HASHED_UNIT_BYTES).unwrap_or(u32::MAX).saturating_add(1);
        self.source.hashed.turn(units).await.map_err(|_| SecretError::Unavailable)?;
        let secret = self.resolve_for_guest(slot).await?;
        let key = joined(&[prefix, secret.value.as_slice()]);
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("HMAC takes keys of any length");
        for piece in data.chunks(HASHED_AT_ONCE_BYTES) {
            mac.update(piece);
            // Others run in between: a thread of its own would need a copy of the data, and there are few of those.
            tokio::task::yield_now().await;
        }
        Ok(mac.finalize().into_bytes().to_vec())
    }

    async fn reveal(&self, slot: &str) -> Result<Vec<u8>, SecretError> {
        if !self.reveal {
            return Err(SecretError::Unavailable);
        }
        if !self.is_for(slot, SlotUse::Reveal) {
            return Err(self.misused(slot, "reveal"));
        }
        let secret = self.resolve_for_guest(slot).await?;
        if secret.allowed_hosts.is_some() {
            let (tenant, sink) = (self.source.key.tenant, self.source.key.name.as_str());
            // Where a guest takes the plaintext nobody knows.
            tracing::warn!(target: "sepal::plugin", %tenant, sink, slot, "a secret for certain hosts is not revealed");
            return Err(SecretError::Unavailable);
        }
        if let Some(grant) = self.slots.get(slot) {
            self.secrets.note_reveal(&grant.secret);
        }
        Ok(secret.value.to_vec())
    }

    fn log(&self, level: Level, message: &str, fields: &[(String, String)]) {
        let fields: Vec<(String, String)> = fields
            .iter()
            .map(|(key, value)| {
                (self.scrubber.scrub(key).into_owned(), self.scrubber.scrub(value).into_owned())
            })
            .collect();
        self.source.log(level, &self.scrubber.scrub(message), &fields);
    }

    fn counter_add(&self, name: &str, value: u32) {
        self.source.counter_add(name, value);
    }

    fn gauge_set(&self, name: &str, value: f64) {
        self.source.gauge_set(name, value);
    }
}

/// Compressed, or a piece of something: what it echoes of a secret cannot be recognized.
fn is_unreadable(response: &HttpResponse) -> bool {
    let plain = |name: &str, value: &str| match name {
        "content-encoding" => value.trim().eq_ignore_ascii_case("identity"),
        "transfer-encoding" => value.trim().eq_ignore_ascii_case("chunked"),
        _ => true,
    };
    response.status == PARTIAL_CONTENT || !response.headers.iter().all(|(name, value)| plain(name, value))
}

/// Parts are many and secrets long: the text that came in says little of what would go out.
fn check_length(header: &[u8]) -> Result<(), HttpError> {
    if header.len() <= MAX_HEADER_BYTES {
        return Ok(());
    }
    Err(denied(format!("a header with its secrets has more than {MAX_HEADER_BYTES} bytes")))
}

/// Allocated once: a vector that grows leaves copies behind that nobody wipes.
fn joined(parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    let mut whole = Zeroizing::new(Vec::with_capacity(parts.iter().map(|part| part.len()).sum()));
    parts.iter().for_each(|part| whole.extend_from_slice(part));
    whole
}

impl fmt::Debug for PluginOutside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PluginOutside").field("source", &self.source.key).finish_non_exhaustive()
    }
}
