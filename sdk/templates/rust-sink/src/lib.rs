//! A sink: POSTs every batch to the URL of CREATE SINK, with the token that a secret holds.

use sepal_plugin::prelude::*;

#[derive(Deserialize)]
struct Config {
    url: String,
    token: SecretSlot,
}

struct Hook(Config);

impl Sink for Hook {
    type Config = Config;

    fn open(config: Config, _: &Context) -> Result<Self, Error> {
        Ok(Self(config))
    }

    fn write(&mut self, batch: &Batch) -> Result<Outcome, Error> {
        let token = self.0.token.get()?;
        let request = http::post(&self.0.url).bearer(&token).header("idempotency-key", &batch.id);
        request.header("content-type", "application/x-ndjson").body(batch.payload()).send()?.ok()?;
        Ok(Outcome::delivered())
    }
}

sepal_plugin::sink!(Hook);
