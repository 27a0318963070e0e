//! What a guest under test asks for, answered: by the real way out up to the network, and by a scripted destination
//! beyond it. Records everything that the guest says, and can end the guest at any of its calls to the host.

use std::{collections::BTreeMap, fmt, sync::Arc};

use async_trait::async_trait;
use parking_lot::Mutex;
use sepal_database::connector::{CertificateValue, Fault, FaultKind, SecretValue, Secrets};
use tokio_util::sync::CancellationToken;
use url::{Host, Url};
use zeroize::Zeroizing;

use super::{
    case::Plaintext,
    destination::{Destination, Sent},
};
use crate::{
    call::{HeaderPart, HeaderValue, HttpError, HttpRequest, HttpResponse, Level, Outside, SecretError},
    egress::PluginOutside,
};

/// At which of its calls to the host a guest is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Crash {
    /// From 0.
    pub call: usize,
    /// After the host has done what it was asked for, but before the guest learns of it.
    pub after: bool,
}

/// How requests leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Road {
    /// To the scripted destination.
    Scripted,
    /// To the real client, whose resolver gives addresses that nobody may reach.
    Real,
}

/// What happens to a guest while it runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Circumstances {
    pub road: Road,
    pub crash: Option<Crash>,
    /// No secret can be had.
    pub secrets_away: bool,
}

impl Default for Circumstances {
    fn default() -> Self {
        Self { road: Road::Scripted, crash: None, secrets_away: false }
    }
}

/// What the guest did and said.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard {
    /// Every call to the host, in order.
    pub calls: Vec<String>,
    pub asked_for_secrets: bool,
    /// Log lines and names of metrics.
    pub said: Vec<String>,
    /// What the guest itself wrote into requests: methods, URLs, names and texts of headers, bodies.
    pub written: Vec<Vec<u8>>,
}

/// One process's life of a guest.
pub(super) struct KitOutside {
    egress: Arc<PluginOutside>,
    destination: Arc<Destination>,
    circumstances: Circumstances,
    crashed: CancellationToken,
    heard: Mutex<Heard>,
    /// Requests to where the plugin may not go, of the whole run.
    strays: Arc<Mutex<Vec<String>>>,
}

impl KitOutside {
    pub fn new(
        egress: Arc<PluginOutside>,
        destination: Arc<Destination>,
        circumstances: Circumstances,
        strays: Arc<Mutex<Vec<String>>>,
    ) -> Self {
        let (crashed, heard) = (CancellationToken::new(), Mutex::default());
        Self { egress, destination, circumstances, crashed, heard, strays }
    }

    pub fn heard(&self) -> Heard {
        self.heard.lock().clone()
    }

    pub fn is_crashed(&self) -> bool {
        self.crashed.is_cancelled()
    }

    /// Until the guest is killed.
    pub async fn crash(&self) {
        self.crashed.cancelled().await;
    }

    /// The guest calls: gives the call's number, or ends the guest.
    async fn begin(&self, name: String) -> usize {
        let number = {
            let mut heard = self.heard.lock();
            heard.calls.push(name);
            heard.calls.len() - 1
        };
        if self.is_crashed() || self.circumstances.crash == Some(Crash { call: number, after: false }) {
            self.die().await;
        }
        number
    }

    /// The host has done it.
    async fn end(&self, number: usize) {
        if self.circumstances.crash == Some(Crash { call: number, after: true }) {
            self.die().await;
        }
    }

    /// Whoever waits for the guest hears of it and drops it, here.
    async fn die(&self) {
        self.crashed.cancel();
        std::future::pending::<()>().await;
    }

    /// A call that returns at once.
    fn hear(&self, name: &str, text: String) {
        if self.is_crashed() {
            return;
        }
        let mut heard = self.heard.lock();
        heard.calls.push(name.to_owned());
        let number = heard.calls.len() - 1;
        let crash = self.circumstances.crash.filter(|crash| crash.call == number);
        if crash.is_none_or(|crash| crash.after) {
            heard.said.push(text);
        }
        drop(heard);
        if crash.is_some() {
            self.crashed.cancel();
        }
    }

    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        if self.circumstances.road == Road::Real {
            return self.send_nowhere(request).await;
        }
        let asked = format!("{} {}", request.method, request.url);
        match self.egress.rehearse(request).await {
            Ok(rehearsed) => {
                let response = self.destination.answer(rehearsed)?;
                Ok(self.egress.received(response))
            }
            Err(HttpError::Denied(why)) => {
                self.strays.lock().push(format!("{asked}: {why}"));
                Err(HttpError::Denied(why))
            }
            Err(error) => Err(error),
        }
    }

    /// Through the real client. An address instead of a name would not be looked up, so it is not tried.
    async fn send_nowhere(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let named = Url::parse(&request.url).is_ok_and(|url| matches!(url.host(), Some(Host::Domain(_))));
        if !named {
            return Err(HttpError::Connect);
        }
        let HttpRequest { method, url, .. } = &request;
        let sent = Sent {
            method: method.clone(),
            url: url.clone(),
            headers: Vec::new(),
            body: Vec::new(),
            status: None,
        };
        self.destination.note(sent);
        self.egress.http(request).await
    }

    fn write_down(&self, request: &HttpRequest) {
        let mut written = vec![request.method.clone().into_bytes(), request.url.clone().into_bytes()];
        for (name, value) in &request.headers {
            written.push(name.clone().into_bytes());
            written.extend(texts(value).into_iter().map(String::into_bytes));
        }
        written.extend(request.body.clone());
        self.heard.lock().written.extend(written);
    }
}

/// What of a header's value the guest wrote.
fn texts(value: &HeaderValue) -> Vec<String> {
    let text = |part: &HeaderPart| match part {
        HeaderPart::Text(text) => Some(text.clone()),
        HeaderPart::Basic(user, _) => Some(user.clone()),
        HeaderPart::Secret(_) => None,
    };
    match value {
        HeaderValue::Text(text) | HeaderValue::Basic(text, _) => vec![text.clone()],
        HeaderValue::Secret(_) | HeaderValue::Bearer(_) => Vec::new(),
        HeaderValue::Parts(parts) => parts.iter().filter_map(text).collect(),
    }
}

#[async_trait]
impl Outside for KitOutside {
    async fn http(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let number = self.begin(format!("http {} {}", request.method, request.url)).await;
        self.write_down(&request);
        let answered = self.send(request).await;
        self.end(number).await;
        answered
    }

    async fn secret(&self, slot: &str) -> Result<String, SecretError> {
        let number = self.begin(format!("secret {slot}")).await;
        self.heard.lock().asked_for_secrets = true;
        let version = match self.circumstances.secrets_away {
            true => Err(SecretError::Unavailable),
            false => self.egress.secret(slot).await,
        };
        self.end(number).await;
        version
    }

    async fn hmac_sha256(&self, slot: &str, prefix: &[u8], data: &[u8]) -> Result<Vec<u8>, SecretError> {
        let number = self.begin(format!("hmac-sha256 {slot}")).await;
        let code = self.egress.hmac_sha256(slot, prefix, data).await;
        self.end(number).await;
        code
    }

    async fn reveal(&self, slot: &str) -> Result<Vec<u8>, SecretError> {
        let number = self.begin(format!("reveal {slot}")).await;
        let value = self.egress.reveal(slot).await;
        self.end(number).await;
        value
    }

    fn log(&self, _level: Level, message: &str, fields: &[(String, String)]) {
        let fields: String = fields.iter().map(|(name, value)| format!(" {name}={value}")).collect();
        self.hear("log", format!("{message}{fields}"));
    }

    fn counter_add(&self, name: &str, value: u32) {
        self.hear("counter-add", format!("{name} {value}"));
    }

    fn gauge_set(&self, name: &str, value: f64) {
        self.hear("gauge-set", format!("{name} {value}"));
    }
}

impl fmt::Debug for KitOutside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KitOutside").field("circumstances", &self.circumstances).finish_non_exhaustive()
    }
}

/// The secrets of a test case; a slot's name is its secret's.
#[derive(Debug)]
pub(super) struct CaseSecrets(pub BTreeMap<String, Plaintext>);

#[async_trait]
impl Secrets for CaseSecrets {
    async fn secret(&self, name: &str, _version: Option<u64>) -> Result<SecretValue, Fault> {
        let missing = || Fault::new(FaultKind::Misconfigured, format!("the test case has no secret {name}"));
        let value = self.0.get(name).ok_or_else(missing)?;
        Ok(SecretValue {
            value: Arc::new(Zeroizing::new(value.as_bytes().to_vec())),
            version: "1".to_owned(),
            allowed_hosts: None,
        })
    }

    async fn certificate(&self, name: &str) -> Result<CertificateValue, Fault> {
        Err(Fault::new(FaultKind::Misconfigured, format!("plugins take no certificates, and {name} is one")))
    }

    fn forget(&self, _name: &str) {}

    fn note_reveal(&self, _name: &str) {}
}
