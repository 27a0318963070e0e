//! The sink `webhook`: POSTs batches to a URL, signed as Standard Webhooks if there is a key.
//!
//! `webhook-id` is the batch's id, the same on every retry. `webhook-signature` is `v1,` and the base64 of
//! HMAC-SHA-256 over `id.timestamp.body`; the secret's bytes are the key as they are, so what a receiver's library
//! wants is `whsec_` and the base64 of them (standardwebhooks.com, specification 1.0.0).

use base64::{Engine, engine::general_purpose::STANDARD};
use sepal_plugin::{http::Request as HttpRequest, prelude::*, time};

/// In names of headers, without what stands between the words.
const SENSITIVE: [&str; 10] = [
    "accesskey",
    "apikey",
    "authkey",
    "authorization",
    "cookie",
    "credential",
    "passw",
    "privatekey",
    "secret",
    "token",
];

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    Ndjson,
    Json,
}

#[derive(Deserialize)]
struct Config {
    url: String,
    /// What a body is: one line a row, or one array.
    format: Option<Format>,
    token: Option<SecretSlot>,
    /// The header that carries the token whole, instead of `authorization: Bearer …`.
    token_header: Option<String>,
    signing_key: Option<SecretSlot>,
    /// One `Name: value` a line.
    headers: Option<String>,
}

struct Webhook {
    config: Config,
    headers: Vec<(String, String)>,
}

impl Sink for Webhook {
    type Config = Config;

    fn open(config: Config, _: &Context) -> Result<Self, Error> {
        let headers = parse_headers(config.headers.as_deref().unwrap_or_default())?;
        Ok(Self { config, headers })
    }

    /// HEAD: a POST would be taken for a delivery. A receiver that only knows POST answers 404 or 405.
    fn check(config: Config, context: &Context) -> Result<(), Error> {
        let sink = Self::open(config, context)?;
        let token = SecretSlot::optional(sink.config.token.as_ref())?;
        let key = SecretSlot::optional(sink.config.signing_key.as_ref())?;
        drop(key);
        sink.request("HEAD", token.as_ref()).send()?.ok_or(&[400, 404, 405, 411, 415, 422, 501]).map(drop)
    }

    fn write(&mut self, batch: &Batch) -> Result<Outcome, Error> {
        let token = SecretSlot::optional(self.config.token.as_ref())?;
        let (content_type, body) = match self.config.format {
            Some(Format::Json) => ("application/json", json_array(batch)),
            Some(Format::Ndjson) | None => ("application/x-ndjson", batch.payload().to_vec()),
        };
        let timestamp = time::unix_seconds().to_string();
        let mut request = self
            .request("POST", token.as_ref())
            .header("content-type", content_type)
            .header("idempotency-key", &batch.id)
            .header("webhook-id", &batch.id)
            .header("webhook-timestamp", &timestamp);
        if let Some(key) = SecretSlot::optional(self.config.signing_key.as_ref())? {
            let code = key.hmac_sha256(&[], &signed_content(&batch.id, &timestamp, &body));
            request = request.header("webhook-signature", format!("v1,{}", STANDARD.encode(code)));
        }
        request.body(body).send()?.ok()?;
        Ok(Outcome::delivered())
    }
}

impl Webhook {
    fn request<'a>(&self, method: &str, token: Option<&'a Secret>) -> HttpRequest<'a> {
        let mut request = HttpRequest::new(method, &self.config.url).header("user-agent", "sepal-webhook/1");
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        match (token, &self.config.token_header) {
            (Some(token), Some(header)) => request.secret_header(header, token),
            (Some(token), None) => request.bearer(token),
            (None, _) => request,
        }
    }
}

/// What the signature covers.
fn signed_content(id: &str, timestamp: &str, body: &[u8]) -> Vec<u8> {
    [id.as_bytes(), b".", timestamp.as_bytes(), b".", body].concat()
}

fn json_array(batch: &Batch) -> Vec<u8> {
    let mut body = Vec::with_capacity(batch.payload().len() + 2);
    body.push(b'[');
    for (index, line) in batch.lines().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(line);
    }
    body.push(b']');
    body
}

fn parse_headers(text: &str) -> Result<Vec<(String, String)>, Error> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let wrong =
                |why: &str| Error::misconfigured(format!("option headers: {why}")).code("webhook.headers");
            let (name, value) =
                line.split_once(':').ok_or_else(|| wrong("write one `Name: value` a line"))?;
            let name = name.trim().to_ascii_lowercase();
            if is_sensitive(&name) {
                return Err(wrong(&format!("{name} is a secret: use token SECRET[…], and token_header")));
            }
            if name.starts_with("webhook-") || ["content-type", "idempotency-key"].contains(&name.as_str()) {
                return Err(wrong(&format!("{name} is set by the plugin")));
            }
            Ok((name, value.trim().to_owned()))
        })
        .collect()
}

/// Whether a header of this name carries a secret, in lower case: one that stands among the options would stand in
/// the catalog and in every backup of it.
fn is_sensitive(name: &str) -> bool {
    let letters: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    SENSITIVE.iter().any(|part| letters.contains(part))
}

sepal_plugin::sink!(Webhook);

#[cfg(test)]
mod tests;
