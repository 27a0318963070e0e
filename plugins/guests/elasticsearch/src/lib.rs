//! The sink `elasticsearch`: rows as documents, through the bulk API of Elasticsearch and OpenSearch (`POST /_bulk`).
//!
//! A document's `_id` is the row's key, or its position where the pipeline has no key: a batch that comes twice
//! changes nothing. What the answer says of each document becomes the batch's outcome.

mod answer;

use sepal_plugin::{http::Request as HttpRequest, prelude::*};
use serde_json::{Map, Value, json};

use answer::BulkAnswer;

/// More than the answer about the largest batch of the manifest takes.
const ANSWER_BYTES: u32 = 4 << 20;

#[derive(Deserialize)]
struct Config {
    url: String,
    index: String,
    /// As `ApiKey …`.
    api_key: Option<SecretSlot>,
    user: Option<String>,
    password: Option<SecretSlot>,
}

struct Elasticsearch(Config);

impl Sink for Elasticsearch {
    type Config = Config;

    fn open(config: Config, _: &Context) -> Result<Self, Error> {
        Ok(Self(config))
    }

    /// Whether the index is there decides nothing: the first document makes it.
    fn check(config: Config, _: &Context) -> Result<(), Error> {
        let sink = Self(config);
        let path = sink.0.index.clone();
        sink.send("HEAD", &path, None)?.ok_or(&[404]).map(drop)
    }

    fn write(&mut self, batch: &Batch) -> Result<Outcome, Error> {
        let rows = batch.rows().collect::<Result<Vec<_>, Error>>()?;
        let bulk = bulk(&self.0.index, &rows)?;
        if bulk.ids.is_empty() {
            return Ok(Outcome::Durable(bulk.bad));
        }
        let path = "_bulk?filter_path=errors,items.*.status,items.*.error.type,items.*.error.reason";
        let answer: BulkAnswer = self.send("POST", path, Some(bulk.body))?.ok()?.json()?;
        answer.outcome(&bulk.ids, bulk.bad)
    }
}

impl Elasticsearch {
    fn send(&self, method: &str, path: &str, body: Option<Vec<u8>>) -> Result<http::Response, Error> {
        let key = SecretSlot::optional(self.0.api_key.as_ref())?;
        let password = SecretSlot::optional(self.0.password.as_ref())?;
        let url = format!("{}/{path}", self.0.url.trim_end_matches('/'));
        let mut request = HttpRequest::new(method, url).max_response_bytes(ANSWER_BYTES);
        if let Some(body) = body {
            request = request.header("content-type", "application/x-ndjson").body(body);
        }
        if let Some(key) = &key {
            request = request.header("authorization", format!("ApiKey {}", key.header_token()));
        } else if let Some(password) = &password {
            request = request.basic(self.0.user.clone().unwrap_or_default(), password);
        }
        request.send()
    }
}

/// The body of a request.
struct Bulk {
    body: Vec<u8>,
    /// Index of the row and `_id`, for each action in order.
    ids: Vec<(u32, String)>,
    bad: Vec<BadRow>,
}

fn bulk(index: &str, rows: &[Row<Map<String, Value>>]) -> Result<Bulk, Error> {
    let mut bulk = Bulk { body: Vec::new(), ids: Vec::new(), bad: Vec::new() };
    for (number, row) in (0..).zip(rows) {
        let id = key_text(&row.key).or_else(|| row.pos.clone().filter(|_| row.op != Op::Delete));
        let Some(id) = id else {
            let message = "a deletion without a key names no document; give the pipeline a KEY".to_owned();
            bulk.bad.push(BadRow { index: number, code: Some("elasticsearch.no-id".to_owned()), message });
            continue;
        };
        let target = json!({ "_index": index, "_id": id });
        let document = row.after.as_ref().filter(|_| row.op != Op::Delete);
        let action =
            if document.is_some() { json!({ "index": target }) } else { json!({ "delete": target }) };
        serde_json::to_writer(&mut bulk.body, &action)?;
        bulk.body.push(b'\n');
        if let Some(document) = document {
            serde_json::to_writer(&mut bulk.body, document)?;
            bulk.body.push(b'\n');
        }
        bulk.ids.push((number, id));
    }
    Ok(bulk)
}

/// One key column gives its own text, several the array of their values in the order of their names.
fn key_text(key: &Value) -> Option<String> {
    let columns = key.as_object()?;
    let mut values = columns.values();
    match (values.next()?, columns.len()) {
        (Value::String(text), 1) => Some(text.clone()),
        (value, 1) => Some(value.to_string()),
        _ => Some(Value::from_iter(columns.values().cloned()).to_string()),
    }
}

sepal_plugin::sink!(Elasticsearch);

#[cfg(test)]
mod tests;
