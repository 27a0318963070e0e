//! A secret resolver: asks an HTTP service for a value, as `GET <url>/<path>`, and takes the answer's body as it is.

use sepal_plugin::prelude::*;

#[derive(Deserialize)]
struct Config {
    url: String,
    token: SecretSlot,
}

#[derive(Deserialize)]
struct Options {
    path: String,
}

struct Service(Config);

impl Resolver for Service {
    type Config = Config;
    type Options = Options;

    fn open(config: Config) -> Result<Self, Error> {
        Ok(Self(config))
    }

    fn resolve(&mut self, request: &Request<Options>) -> Result<Answer, Error> {
        let token = self.0.token.get()?;
        let url = format!("{}/{}", self.0.url.trim_end_matches('/'), request.options.path);
        let response = http::get(url).bearer(&token).send()?;
        if response.status == 404 {
            return Ok(Answer::NotFound);
        }
        let response = response.ok()?;
        let version = response.header("etag").map(ToOwned::to_owned);
        let resolved = Resolved { value: response.body, version, ttl_seconds: Some(300), lease_id: None };
        Ok(Answer::unless_held(resolved, request.have_version.as_deref()))
    }
}

sepal_plugin::resolver!(Service);
