//! The sink `vector`: rows as events for Vector's `http_server` source (`decoding.codec = "json"`,
//! `framing.method = "newline_delimited"`).
//!
//! An event is the row itself (deleted: as it was, or its key), with `_sepal` beside the columns: operation, position,
//! time, and the batch's id for a `dedupe` transform.

use sepal_plugin::{http::Request as HttpRequest, prelude::*};
use serde_json::{Map, Value, json};

#[derive(Deserialize)]
struct Config {
    url: String,
    token: Option<SecretSlot>,
    user: Option<String>,
    password: Option<SecretSlot>,
}

struct Vector(Config);

impl Sink for Vector {
    type Config = Config;

    fn open(config: Config, _: &Context) -> Result<Self, Error> {
        Ok(Self(config))
    }

    /// No events: Vector answers 200, or 400 where the decoder wants one.
    fn check(config: Config, _: &Context) -> Result<(), Error> {
        Self(config).post(Vec::new(), &[400])
    }

    fn write(&mut self, batch: &Batch) -> Result<Outcome, Error> {
        self.post(events(batch)?, &[])?;
        Ok(Outcome::delivered())
    }
}

impl Vector {
    fn post(&self, body: Vec<u8>, also_good: &[u16]) -> Result<(), Error> {
        let token = SecretSlot::optional(self.0.token.as_ref())?;
        let password = SecretSlot::optional(self.0.password.as_ref())?;
        let mut request: HttpRequest<'_> =
            http::post(&self.0.url).header("content-type", "application/x-ndjson").body(body);
        if let Some(token) = &token {
            request = request.bearer(token);
        } else if let Some(password) = &password {
            request = request.basic(self.0.user.clone().unwrap_or_default(), password);
        }
        request.send()?.ok_or(also_good).map(drop)
    }
}

fn events(batch: &Batch) -> Result<Vec<u8>, Error> {
    let mut body = Vec::with_capacity(batch.payload().len());
    for row in batch.rows::<Map<String, Value>>() {
        let row = row?;
        let op = match row.op {
            Op::Insert => "insert",
            Op::Update => "update",
            Op::Delete => "delete",
        };
        let about =
            json!({ "op": op, "key": row.key, "pos": row.pos, "time": row.time(), "batch": batch.id });
        let key = row.key.as_object().cloned();
        let mut event = row.after.or(row.before).or(key).unwrap_or_default();
        event.insert("_sepal".to_owned(), about);
        serde_json::to_writer(&mut body, &event)?;
        body.push(b'\n');
    }
    Ok(body)
}

sepal_plugin::sink!(Vector);

#[cfg(test)]
mod tests;
