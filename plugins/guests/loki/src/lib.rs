//! The sink `loki`: rows as log lines, through Loki's push API (`POST /loki/api/v1/push`, JSON).
//!
//! A stream is a set of labels: those of the option `labels`, and the values of `label_columns`. A line is one column's
//! text or the whole row as JSON.

use std::collections::BTreeMap;

use sepal_plugin::{batch::unix_nanos, http::Request as HttpRequest, prelude::*, time};
use serde_json::{Map, Value, json};

#[derive(Deserialize)]
struct Config {
    url: String,
    /// `job=sepal,env=prod`
    labels: Option<String>,
    /// `level,service`
    label_columns: Option<String>,
    line_column: Option<String>,
    time_column: Option<String>,
    /// `X-Scope-OrgID`
    org_id: Option<String>,
    token: Option<SecretSlot>,
    user: Option<String>,
    password: Option<SecretSlot>,
}

struct Loki {
    config: Config,
    labels: BTreeMap<String, String>,
    label_columns: Vec<String>,
}

impl Sink for Loki {
    type Config = Config;

    fn open(config: Config, _: &Context) -> Result<Self, Error> {
        let labels = parse_labels(config.labels.as_deref().unwrap_or("job=sepal"))?;
        let columns = config.label_columns.as_deref().unwrap_or_default();
        let label_columns: Vec<String> = list(columns).map(ToOwned::to_owned).collect();
        for name in &label_columns {
            label_name(name)?;
        }
        Ok(Self { config, labels, label_columns })
    }

    /// A push of nothing: Loki answers 204, or 422 because there is nothing in it.
    fn check(config: Config, context: &Context) -> Result<(), Error> {
        Self::open(config, context)?.push(&json!({ "streams": [] }), &[400, 422])
    }

    fn write(&mut self, batch: &Batch) -> Result<Outcome, Error> {
        let body = self.streams(batch, time::unix_seconds())?;
        self.push(&body, &[])?;
        Ok(Outcome::delivered())
    }
}

impl Loki {
    fn push(&self, body: &Value, also_good: &[u16]) -> Result<(), Error> {
        let token = SecretSlot::optional(self.config.token.as_ref())?;
        let password = SecretSlot::optional(self.config.password.as_ref())?;
        let url = format!("{}/loki/api/v1/push", self.config.url.trim_end_matches('/'));
        let mut request: HttpRequest<'_> = http::post(url).json(body)?;
        if let Some(org_id) = &self.config.org_id {
            request = request.header("x-scope-orgid", org_id);
        }
        if let Some(token) = &token {
            request = request.bearer(token);
        } else if let Some(password) = &password {
            request = request.basic(self.config.user.clone().unwrap_or_default(), password);
        }
        request.send()?.ok_or(also_good).map(drop)
    }

    /// The body of a push. `now`, in seconds, is for rows that bring no time.
    fn streams(&self, batch: &Batch, now: i64) -> Result<Value, Error> {
        let mut streams: BTreeMap<BTreeMap<String, String>, Vec<[String; 2]>> = BTreeMap::new();
        for row in batch.rows::<Map<String, Value>>() {
            let row = row?;
            let of_row = row.unix_nanos();
            let key = row.key.as_object().cloned();
            let columns = row.after.or(row.before).or(key).unwrap_or_default();
            let named = self.config.time_column.as_ref().and_then(|column| columns.get(column));
            let nanos = named.and_then(unix_nanos).or(of_row).unwrap_or(now.saturating_mul(1_000_000_000));
            let mut labels = self.labels.clone();
            for column in &self.label_columns {
                if let Some(value) = columns.get(column).filter(|value| !value.is_null()) {
                    labels.insert(column.clone(), text(value));
                }
            }
            let line = match self.config.line_column.as_ref().and_then(|column| columns.get(column)) {
                Some(value) => text(value),
                None => serde_json::to_string(&columns)?,
            };
            streams.entry(labels).or_default().push([nanos.to_string(), line]);
        }
        let streams: Vec<Value> = streams
            .into_iter()
            .map(|(stream, values)| json!({ "stream": stream, "values": values }))
            .collect();
        Ok(json!({ "streams": streams }))
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)
}

fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

fn parse_labels(text: &str) -> Result<BTreeMap<String, String>, Error> {
    let labels = list(text).map(|label| {
        let (name, value) = label.split_once('=').ok_or_else(|| {
            Error::misconfigured(format!("option labels: {label} is not `name=value`")).code("loki.labels")
        })?;
        Ok((label_name(name.trim())?.to_owned(), value.trim().to_owned()))
    });
    labels.collect()
}

/// Loki's rule for names of labels.
fn label_name(name: &str) -> Result<&str, Error> {
    let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if begins && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        Ok(name)
    } else {
        let message =
            format!("{name} cannot name a label: letters, digits and _ only; rename the column in the query");
        Err(Error::misconfigured(message).code("loki.labels"))
    }
}

sepal_plugin::sink!(Loki);

#[cfg(test)]
mod tests;
